"""Services on the internet, played by the demo: a transport that asks it in their place, and keeps what it was sent."""

from collections.abc import Mapping

from tolmach.transport import Exchange, Timeouts, Transport, TransportOptions, create
from tolmach.wire import Request

__all__ = ["Rerouted"]


class Rerouted:
    """Asks `there[ADDRESS]` for what stands below ADDRESS, and nobody for anything else."""

    def __init__(self, there: Mapping[str, str]) -> None:
        self.sent: list[Request] = []
        self._there = there
        self._transport: Transport = create(TransportOptions())

    async def send(self, request: Request, timeouts: Timeouts) -> Exchange:
        self.sent.append(request)
        address = next((address for address in self._there if request.url.startswith(address)), None)
        assert address is not None, f"nobody may ask {request.url}"
        url = self._there[address] + request.url.removeprefix(address)
        moved = Request(request.method, url, request.headers, request.body)
        return await self._transport.send(moved, timeouts)

    async def aclose(self) -> None:
        await self._transport.aclose()
