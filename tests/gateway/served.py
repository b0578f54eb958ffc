"""A gateway over the demo, served on a real socket by either interface."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from tolmach.demo import Demo
from tolmach.gateway.core import Gateway
from tolmach.gateway.http import ServerLimits
from tolmach.gateway.serving.server import Interface, serving
from tolmach.protocols import create
from tolmach.protocols.base import Site
from tolmach.providers.base import Access
from tolmach.providers.registry import get_provider
from tolmach.routing.health import Health
from tolmach.routing.targets import Provider, Targets

SITES = ("Chatgpt4o", "Chatgpt4Online", "ChatGptt", "Aichat", "ChatGpt")
"""The services that are classes."""

APIS = {
    "openai": ("openai", "/v1", "gpt-4o-mini"),
    "responses": ("openai-responses", "/v1", "gpt-5-mini"),
    "anthropic": ("anthropic", "/anthropic", "claude-sonnet-4-5"),
    "gemini": ("gemini", "/gemini", "gemini-2.5-flash"),
    "ollama": ("ollama", "/ollama", "qwen3"),
    "aipkit": ("aipkit", "/aipkit", "kit"),
}
"""Name -> protocol, mount and a model, of the services that are no classes."""

MODELS = (*(f"{site}/default" for site in SITES), *(f"{name}/{model}" for name, (_, _, model) in APIS.items()))
"""A model of every service."""


def providers(demo: Demo, emulate: frozenset[str] = frozenset()) -> list[Provider]:
    """Every service of the demo as a provider of its name."""
    access = Access(cookies={"visit": "1"})
    found = [
        Provider(
            name=name,
            site=get_provider(name).site_at(f"{demo.url}/{name}"),
            access=access,
            emulate=emulate,
            models={model: model for model in get_provider(name).models},
        )
        for name in SITES
    ]
    return found + [
        Provider(
            name=name,
            site=Site(name=name, url=demo.url + path, protocol=create(protocol), api_key="key"),
            access=access,
            emulate=emulate,
            models={model: model},
        )
        for name, (protocol, path, model) in APIS.items()
    ]


def forget_failures(gateway: Gateway) -> None:
    """Let all its targets be well. Those that failed in an earlier question are waited for, as long as they asked."""
    gateway.router.health = gateway.metrics.health = Health()


@asynccontextmanager
async def served(
    interface: Interface,
    *,
    limits: ServerLimits | None = None,
    emulate: frozenset[str] = frozenset(),
    keep_alive: float = 15.0,
    header_seconds: float = 15.0,
    **demo_settings: Any,
) -> AsyncGenerator[tuple[str, Demo, Gateway], None]:
    """The gateway's address, the demo behind it, and the gateway itself."""
    demo_settings.setdefault("delay", 0.001)
    async with Demo(**demo_settings) as demo:
        targets = Targets(providers(demo, emulate))
        gateway = Gateway(targets, limits=limits or ServerLimits(), keep_alive=keep_alive)
        async with serving(gateway, interface=interface, header_seconds=header_seconds) as url:
            yield url, demo, gateway
