"""The transport that tolmach uses unless told otherwise: plain HTTP on the event loop, and wreq for all else."""

from collections.abc import Coroutine
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies_environment, proxy_bypass_environment  # type: ignore[attr-defined]

from tolmach.transport.base import Exchange, Timeouts, Transport, TransportOptions
from tolmach.transport.plain.request import place_of
from tolmach.transport.plain.transport import PlainTransport
from tolmach.transport.wreq import WreqTransport
from tolmach.wire import Request

__all__ = ["DefaultTransport", "goes_plain"]


def goes_plain(url: str, options: TransportOptions) -> bool:
    """Whether a request to this address needs nothing that only wreq can do."""
    if not url.startswith("http://") or options.proxy or options.impersonate or place_of(url) is None:
        return False
    if not options.trust_env:
        return True
    proxies = getproxies_environment()
    if not proxies.keys() & {"http", "all"}:
        return True
    return bool(proxy_bypass_environment(urlsplit(url).netloc, proxies))


class DefaultTransport:
    """Sends a request by `PlainTransport` where `goes_plain` says so, else by `WreqTransport`.

    Errors as of `WreqTransport`.
    """

    def __init__(self, options: TransportOptions = TransportOptions()) -> None:
        self.options = options
        self._by_wreq = WreqTransport(options)
        self._plain = PlainTransport(TransportOptions(resolve=options.resolve))

    def send(self, request: Request, timeouts: Timeouts) -> Coroutine[Any, Any, Exchange]:
        """The exchange once its head is there. Redirects are not followed, cookies not kept."""
        chosen: Transport = self._plain if goes_plain(request.url, self.options) else self._by_wreq
        return chosen.send(request, timeouts)

    async def aclose(self) -> None:
        """Close the idle connections and end requests that wait for their head. Answers in progress go on."""
        await self._plain.aclose()
        await self._by_wreq.aclose()
