"""A transport for addresses that strangers name: each is checked, resolved once, and asked at what was checked."""

import asyncio
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from msgspec import structs

from tolmach.egress.addresses import Address
from tolmach.egress.allowed import Allowed
from tolmach.errors import ConfigError, ConnectFailed, TimedOut, UnsupportedFeature
from tolmach.transport import create
from tolmach.transport.base import Exchange, Timeouts, Transport, TransportOptions
from tolmach.wire import Head, Request

__all__ = ["GuardedTransport", "Resolver", "guarded", "resolve"]

Resolver = Callable[[str, int], Awaitable[Sequence[str]]]
"""Gives the IP addresses of a host, as texts. Raises `OSError` when it has none."""

_MOST_PLACES = 32
"""Pools of connections that are kept, one for each host and what it was resolved to."""

_Key = tuple[str, tuple[str, ...]]


async def resolve(host: str, port: int) -> Sequence[str]:
    """The addresses that the system has for a host."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


class GuardedTransport:
    """Sends requests to public addresses and to those that are allowed; `AddressRefused` for all others.

    For each request the host is resolved once, all its addresses are judged, and the connection is made
    to one of these: what the name stands for later does not matter. Redirects are not followed here, so
    whoever follows them comes by again with each (`tolmach.transport.open_exchange`, which also leaves
    out credentials at another origin).

    `allow` is what `Allowed` takes, `kind` and `options` what `create` takes. Hosts pinned in
    `options.resolve` are judged as well. A proxy would resolve names itself, so `proxy` and `trust_env`
    are `UnsupportedFeature`.
    """

    def __init__(
        self,
        options: TransportOptions = TransportOptions(),
        allow: Sequence[str] = (),
        *,
        kind: str | None = None,
        resolver: Resolver = resolve,
    ) -> None:
        if options.proxy or options.trust_env:
            raise UnsupportedFeature(
                "addresses cannot be guarded behind a proxy: it resolves names itself", feature="proxy"
            )
        self._allowed = Allowed(allow)
        self._options = options
        self._kind = kind
        self._resolver = resolver
        self._lock = threading.Lock()
        self._places: OrderedDict[_Key, _Place] = OrderedDict()
        self._closed = False
        # For addresses without a name; made now, so that wrong options are told at once.
        self._place(("", ())).leave()

    async def send(self, request: Request, timeouts: Timeouts) -> Exchange:
        """The exchange once its head is there. Redirects are not followed, cookies not kept.

        Raises `AddressRefused` before anything is sent, `ConnectFailed` when the name is not found, else
        what the transport raises.
        """
        address = self._allowed.check(request.url)
        key = await self._resolved(address, timeouts)
        place = self._place(key)
        try:
            exchange = await place.transport.send(structs.replace(request, url=address.url), timeouts)
        except BaseException:
            await self._left(place)
            raise
        return _GuardedExchange(exchange, lambda: self._left(place))

    async def _resolved(self, address: Address, timeouts: Timeouts) -> _Key:
        if address.ip is not None:
            return "", ()
        found = self._options.resolve.get(address.host)
        if found is None:
            found = await self._asked(address, timeouts)
        if not found:
            raise ConnectFailed(f"{address.host}: the name has no address")
        return address.host, self._allowed.check_resolved(address.host, found)

    async def _asked(self, address: Address, timeouts: Timeouts) -> tuple[str, ...]:
        left = None if timeouts.deadline is None else max(0.0, timeouts.deadline - time.monotonic())
        seconds = min((limit for limit in (timeouts.connect, timeouts.total, left) if limit is not None), default=None)
        try:
            async with asyncio.timeout(seconds):
                return tuple(await self._resolver(address.host, address.port))
        except TimeoutError as error:
            text = f"{address.host}: the name was not resolved in time"
            raise TimedOut(text, phase="connect", seconds=seconds) from error
        except (OSError, UnicodeError) as error:
            raise ConnectFailed(f"{address.host}: the name was not found") from error

    def _place(self, key: _Key) -> "_Place":
        """The pool for a host at its addresses, taken: `_left` lets go of it."""
        with self._lock:
            if self._closed:
                raise ConfigError("this transport is closed")
            place = self._places.get(key)
            if place is None:
                host, addresses = key
                pins = {host: addresses} if host else {}
                place = self._places[key] = _Place(create(structs.replace(self._options, resolve=pins), self._kind))
            self._places.move_to_end(key)
            place.users += 1
            return place

    async def _left(self, place: "_Place") -> None:
        with self._lock:
            place.leave()
            over = self._over()
        for old in over:
            await old.transport.aclose()

    def _over(self) -> "list[_Place]":
        """The pools to be closed, oldest first: those beyond the limit that nobody uses."""
        idle = [key for key, place in self._places.items() if not place.users]
        return [self._places.pop(key) for key in idle[: max(0, len(self._places) - _MOST_PLACES)]]

    async def aclose(self) -> None:
        """Close the idle connections. Answers in progress go on as far as the transport has it."""
        with self._lock:
            self._closed = True
            places = list(self._places.values())
            self._places.clear()
        for place in places:
            await place.transport.aclose()


class _Place:
    """A pool of connections and how many requests use it."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.users = 0

    def leave(self) -> None:
        self.users -= 1


class _GuardedExchange:
    """An exchange that says once when it is over."""

    def __init__(self, exchange: Exchange, left: Callable[[], Awaitable[None]]) -> None:
        self._exchange = exchange
        self._pieces: AsyncIterator[bytes] = aiter(exchange)
        self._left: Callable[[], Awaitable[None]] | None = left

    @property
    def head(self) -> Head:
        return self._exchange.head

    def __aiter__(self) -> "_GuardedExchange":
        return self

    async def __anext__(self) -> bytes:
        try:
            return await anext(self._pieces)
        except BaseException:
            await self.aclose()
            raise

    async def aclose(self) -> None:
        """Close the connection when the body was not read out. May be called twice."""
        await self._exchange.aclose()
        left, self._left = self._left, None
        if left is not None:
            await left()


def guarded(options: TransportOptions = TransportOptions(), allow: Sequence[str] = ()) -> Transport:
    """A new transport for addresses that a caller or a page named; `allow` is `[gateway.egress] allow`.

    Errors as `GuardedTransport` and `Allowed` have them. Whoever made it closes it.
    """
    return GuardedTransport(options, allow)
