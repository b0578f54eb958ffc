"""Plain HTTP/1.1 on the running event loop itself, for servers nearby: no thread to hand over to, no TLS.

It takes `http://` addresses as `plain_request` knows them, without proxies or browser profiles. The
transport that tolmach uses unless told otherwise (`usual`) sends all else by wreq.
"""

import asyncio
import os
import threading
from contextlib import suppress
from weakref import WeakSet

from tolmach.errors import ConfigError, ConnectionLost, UnsupportedFeature
from tolmach.transport.addresses import check_pins, origin
from tolmach.transport.base import Timeouts, TransportOptions
from tolmach.transport.body import BodyExchange
from tolmach.transport.content_coding import decoded
from tolmach.transport.plain.connect import connected
from tolmach.transport.plain.connection import Connection
from tolmach.transport.plain.pool import Pool
from tolmach.transport.plain.request import Place, bytes_of, place_of
from tolmach.transport.timeouts import Watch
from tolmach.wire import Head, Request

__all__ = ["PlainExchange", "PlainTransport"]


class PlainTransport:
    """Sends requests to plain addresses, with idle connections kept for each event loop.

    One object serves any number of event loops and threads. `verify` means nothing here. Raises
    `UnsupportedFeature` for a proxy, a browser profile or `trust_env`, and `ConfigError` for pins
    that are no addresses.
    """

    def __init__(self, options: TransportOptions = TransportOptions()) -> None:
        for feature in ("proxy", "impersonate", "trust_env"):
            if getattr(options, feature):
                raise UnsupportedFeature(
                    f"the plain transport has no {feature}; the wreq transport has", feature=feature
                )
        self.options = options
        self._pins = {host.lower(): tuple(map(str, ips)) for host, ips in check_pins(options.resolve).items()}
        self._closed = False
        self.forget()
        _all.add(self)

    def forget(self) -> None:
        """In a forked child: the parent's connections are not its own, and the lock may have been held."""
        self._lock = threading.Lock()
        self._pools: dict[asyncio.AbstractEventLoop, Pool] = {}
        self._latest: Pool | None = None

    async def send(self, request: Request, timeouts: Timeouts) -> "PlainExchange | BodyExchange":
        """The exchange once its head is there. Redirects are not followed, cookies not kept."""
        place = place_of(request.url)
        if place is None:
            raise ConfigError(f"{origin(request.url)}: the plain transport does not take this address; wreq does")
        data = bytes_of(request, place)
        loop = asyncio.get_running_loop()
        pool = self._latest
        if pool is None or pool.loop is not loop or self._closed:
            pool = await self._pool(loop)
        watch = Watch(place.name, timeouts, loop)
        watch.begin()
        try:
            connection = await self._answered(pool, place, request, data, timeouts)
        except asyncio.CancelledError as error:
            watch.disarm()
            expired = watch.expired()
            if expired is None:
                raise
            raise expired from error
        except BaseException:
            watch.disarm()
            raise
        head = connection.head
        assert head is not None
        exchange = PlainExchange(head, connection, watch)
        return exchange if "content-encoding" not in head.headers else _inflating(exchange, place, watch)

    async def _answered(
        self, pool: Pool, place: Place, request: Request, data: bytes, timeouts: Timeouts
    ) -> Connection:
        """A connection on which the head of the answer has come."""
        connection = pool.take(place.name)
        again = connection is not None
        while True:
            if connection is None:
                connection = await self._connect(pool, place, timeouts)
            connection.ask(data, request.url, bodiless=request.method == "HEAD")
            pool.waiting.add(connection)
            try:
                while connection.head is None and connection.failure is None:
                    await connection.wait()
            except BaseException:
                connection.abort()
                raise
            finally:
                pool.waiting.discard(connection)
            if connection.failure is None or connection.head is not None:
                return connection
            # The other side had closed it while it was idle; it was told too late (RFC 9112, 9.3.1).
            if not (again and connection.stale() and not self._closed):
                raise connection.failure
            connection, again = None, False

    async def _connect(self, pool: Pool, place: Place, timeouts: Timeouts) -> Connection:
        connection = await connected(pool, place, self._pins.get(place.host), timeouts.connect)
        if self._closed:
            connection.abort()
            raise ConnectionLost(f"{place.name}: the transport was closed")
        return connection

    async def _pool(self, loop: asyncio.AbstractEventLoop) -> Pool:
        with self._lock:
            if self._closed:
                raise ConfigError("this transport is closed")
            pool = self._pools.get(loop)
            if pool is None:
                for ended in [other for other in self._pools if other.is_closed()]:
                    del self._pools[ended]
                pool = self._pools[loop] = Pool(loop)
            self._latest = pool
        await pool.tie()
        return pool

    async def aclose(self) -> None:
        """Close the idle connections and end requests that wait for their head. Answers in progress go on."""
        with self._lock:
            self._closed = True
            pools = list(self._pools.values())
            self._pools.clear()
            self._latest = None
        here = asyncio.get_running_loop()
        for pool in pools:
            if pool.loop is here:
                pool.close()
            else:
                with suppress(RuntimeError):  # that loop has ended, and its connections with it
                    pool.loop.call_soon_threadsafe(pool.close)
        await asyncio.sleep(0)  # in the loop's next round the sockets are closed


_all: WeakSet[PlainTransport] = WeakSet()


def _after_fork() -> None:
    for transport in list(_all):
        transport.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class PlainExchange:
    """A response in progress on a plain connection, which is free again with the last piece of the body."""

    __slots__ = ("_connection", "_watch", "_whole", "head")

    def __init__(self, head: Head, connection: Connection, watch: Watch) -> None:
        self.head = head
        self._watch = watch
        self._whole = b""
        self._connection: Connection | None = connection
        if connection.ended and connection.failure is None:
            self._whole = connection.take()
            self.close()
        else:
            watch.has_head()

    def at_once(self) -> bytes | None:
        """The body when all of it came with the head, and nobody has read it; else None. Raises `TimedOut`."""
        if self._connection is not None:
            return None
        self._watch.check()
        whole, self._whole = self._whole, b""
        return whole

    def __aiter__(self) -> "PlainExchange":
        return self

    async def __anext__(self) -> bytes:
        connection = self._connection
        if connection is None:
            if whole := self.at_once():
                return whole
            raise StopAsyncIteration
        watch = self._watch
        try:
            watch.begin()
            while not connection.parts and not connection.ended:
                await connection.wait()
            watch.end()
        except asyncio.CancelledError as error:
            self.close()
            expired = watch.expired()
            if expired is None:
                raise
            raise expired from error
        except BaseException:
            self.close()
            raise
        if connection.parts:
            piece = connection.take()
            if connection.ended and connection.failure is None:
                self.close()
            return piece
        failure = connection.failure
        self.close()
        if failure is not None:
            raise failure
        raise StopAsyncIteration

    def close(self) -> None:
        """The same without waiting."""
        connection, self._connection = self._connection, None
        self._watch.disarm()
        if connection is not None:
            connection.close_drained()

    async def aclose(self) -> None:
        """Close the connection when the body was not read out. May be called twice."""
        self._whole = b""
        self.close()


def _inflating(exchange: PlainExchange, place: Place, watch: Watch) -> BodyExchange:
    try:
        pull = decoded(exchange.__anext__, exchange.head.headers, place.name)
    except BaseException:
        exchange.close()
        raise
    return BodyExchange(exchange.head, pull, exchange.close, lambda error: error, watch)
