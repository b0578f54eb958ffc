"""A gateway over the demo, served on a real socket by either interface."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from anychat.demo import Demo
from anychat.gateway.core import Gateway
from anychat.gateway.http import ServerLimits
from anychat.gateway.serve import Interface, serving
from anychat.gateway.targets import Provider, Targets
from anychat.protocols import create
from anychat.protocols.base import Site
from anychat.providers import Access
from anychat.registry import get_provider

SITES = ("Chatgpt4o", "Chatgpt4Online", "ChatGptt", "Aichat", "ChatGpt")


def providers(demo: Demo) -> list[Provider]:
    """Every service of the demo as a provider of its name."""
    access = Access(cookies={"visit": "1"})
    found = [
        Provider(
            name=name,
            site=get_provider(name).site_at(f"{demo.url}/{name}"),
            access=access,
            models={model: model for model in get_provider(name).models},
        )
        for name in SITES
    ]
    openai = Site(name="openai", url=f"{demo.url}/v1", protocol=create("openai"), api_key="key")
    kit = Site(name="aipkit", url=f"{demo.url}/aipkit", protocol=create("aipkit"))
    return [
        *found,
        Provider(name="openai", site=openai, access=access, models={"gpt-4o-mini": "gpt-4o-mini"}),
        Provider(name="aipkit", site=kit, access=access, models={"kit": "kit"}),
    ]


@asynccontextmanager
async def served(
    interface: Interface, *, limits: ServerLimits | None = None, **demo_settings: Any
) -> AsyncGenerator[tuple[str, Demo, Gateway], None]:
    """The gateway's address, the demo behind it, and the gateway itself."""
    demo_settings.setdefault("delay", 0.001)
    async with Demo(**demo_settings) as demo:
        gateway = Gateway(Targets(providers(demo)), limits=limits or ServerLimits())
        async with serving(gateway, interface=interface) as url:
            yield url, demo, gateway
