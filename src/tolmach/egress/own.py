"""The way of a server to a site that its operator named: as it is to the site itself, past the guard to all else."""

import threading
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any
from urllib.parse import urlsplit

from tolmach.egress.guard import guarded
from tolmach.errors import AddressRefused, ConfigError
from tolmach.transport import shared
from tolmach.transport.addresses import origin
from tolmach.transport.base import Exchange, Timeouts, Transport, TransportOptions
from tolmach.wire import Request

__all__ = ["SiteTransport"]


class SiteTransport:
    """Asks the origins of `addresses`, which may be private, and of all others those that the guard lets through.

    Where a page leads to, its frames, and what it redirects to are not the operator's word: `guarded` judges them, with
    `allow` as of `[gateway.egress]`. From http to https on the default ports is the same place. Behind a proxy
    nothing can be judged, so nothing else is asked there: `AddressRefused`.
    """

    def __init__(
        self,
        addresses: Iterable[str],
        options: TransportOptions = TransportOptions(),
        allow: Sequence[str] = (),
        *,
        kind: str | None = None,
    ) -> None:
        self._own = frozenset(one for address in addresses for one in _origins(address))
        self._site = shared(options, kind)
        self._options = options
        self._allow = tuple(allow)
        self._lock = threading.Lock()
        self._guarded: Transport | None = None

    def send(self, request: Request, timeouts: Timeouts) -> Coroutine[Any, Any, Exchange]:
        """The exchange once its head is there. Raises `AddressRefused`, else what the transport raises."""
        way = self._site if origin(request.url) in self._own else self._guard()
        return way.send(request, timeouts)

    def _guard(self) -> Transport:
        if self._options.proxy or self._options.trust_env:
            text = "another origin is not asked behind a proxy: what a name stands for cannot be judged there"
            raise AddressRefused(text, reason="proxy")
        with self._lock:
            if self._guarded is None:
                self._guarded = guarded(self._options, self._allow)
            return self._guarded

    async def aclose(self) -> None:
        """Close the connections to other places; those to the site are the process's own."""
        with self._lock:
            transport, self._guarded = self._guarded, None
        if transport is not None:
            await transport.aclose()


def _origins(address: str) -> tuple[str, ...]:
    """The origin of an address, and the one that a redirect to https on the default ports leads to."""
    try:
        own = origin(address)
    except ConfigError:
        return ()  # a path: it is below another address
    if own.startswith("http://") and own.endswith(":80"):
        return own, f"https://{urlsplit(own).netloc.removesuffix(':80')}:443"
    return (own,)
