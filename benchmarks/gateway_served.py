"""The gateway in a process of its own, for the benchmarks: one provider, the server at a port of this machine.

    python benchmarks/gateway_served.py PORT UPSTREAM [rsgi|asgi]

The same `gateway.serve.serving` as everywhere, without the reading of a configuration file.
"""

import asyncio
import sys
from typing import cast

from anychat.gateway.core import Gateway
from anychat.gateway.serve import Interface, serving
from anychat.gateway.targets import Provider, Targets
from anychat.protocols.base import Site
from anychat.protocols.openai import OpenAI
from anychat.providers import Access


async def main() -> None:
    port, upstream = int(sys.argv[1]), int(sys.argv[2])
    interface = cast(Interface, sys.argv[3] if len(sys.argv) > 3 else "rsgi")
    site = Site(name="upstream", url=f"http://127.0.0.1:{upstream}/v1", protocol=OpenAI())
    provider = Provider(name="upstream", site=site, access=Access(), models={"gpt-4o": "gpt-4o"})
    async with serving(Gateway(Targets([provider])), port=port, interface=interface):
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
