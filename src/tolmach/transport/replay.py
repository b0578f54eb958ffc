"""Answers from recordings: the same bytes in the same pieces, with or without their times."""

import asyncio
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol
from urllib.parse import parse_qsl, urlsplit

from tolmach.errors import ConfigError, ConnectionLost
from tolmach.transport.addresses import origin
from tolmach.transport.base import Timeouts
from tolmach.transport.body import BodyExchange
from tolmach.transport.content_coding import decoded
from tolmach.transport.timeouts import Watch
from tolmach.wire import Head, Request

__all__ = ["RecordedChunk", "RecordedExchange", "ReplayTransport"]

_MOST_SHOWN = 8


class RecordedChunk(Protocol):
    """Bytes that arrived together, `t_ms` milliseconds after the request was sent."""

    @property
    def data(self) -> bytes: ...

    @property
    def t_ms(self) -> float: ...


class RecordedExchange(Protocol):
    """A request and what came back, as `tolmach.testing.recordings` loads it."""

    @property
    def request(self) -> Request: ...

    @property
    def head(self) -> Head: ...

    @property
    def chunks(self) -> Sequence[RecordedChunk]: ...

    @property
    def broken(self) -> str: ...


class ReplayTransport:
    """Answers each request with the next recorded one of the same method, path and names in the query.

    The host does not count. With `compare_bodies` the body counts too. `speed` 1 keeps the recorded
    times, 10 goes ten times as fast, None does not wait. With `again` the last fitting answer is
    given to any further request like it; otherwise each is given once. `asked` is every request so
    far. A request that no recording fits raises `ConfigError` that says what was asked and what
    there is.
    """

    def __init__(
        self,
        exchanges: Iterable[RecordedExchange],
        *,
        compare_bodies: bool = False,
        speed: float | None = None,
        again: bool = False,
    ) -> None:
        if speed is not None and not speed > 0:
            raise ConfigError("speed is a number over 0, or None for no waiting")
        self.asked: list[Request] = []
        self._left = list(exchanges)
        self._last: list[RecordedExchange] = []
        self._compare_bodies = compare_bodies
        self._speed = speed
        self._again = again
        self._lock = threading.Lock()

    async def send(self, request: Request, timeouts: Timeouts) -> BodyExchange:
        """The exchange once its head is there. Redirects are not followed, cookies not kept."""
        what = origin(request.url)
        with self._lock:
            self.asked.append(request)
            found = self._take(request)
        head = Head(found.head.status, dict(found.head.headers), found.head.cookies, request.url)
        playing = _Playing(found, self._speed, what)
        watch = Watch(what, timeouts)
        watch.begin()
        try:
            await playing.until_first()
            body = decoded(playing.pull, head.headers, what)
        except asyncio.CancelledError as error:
            watch.disarm()
            expired = watch.expired()
            if expired is None:
                raise
            raise expired from error
        except BaseException:
            watch.disarm()
            raise
        return BodyExchange(head, body, _nothing, _as_it_is, watch)

    def _take(self, request: Request) -> RecordedExchange:
        fits = self._fitting(request)
        for index, exchange in enumerate(self._left):
            if fits(exchange.request):
                del self._left[index]
                if self._again:
                    self._last.insert(0, exchange)
                return exchange
        for exchange in self._last:
            if fits(exchange.request):
                return exchange
        raise ConfigError(
            f"no recording answers {_named(request)}; "
            + (f"left are {', '.join(self._shown())}" if self._left else "all were given already")
        )

    def _fitting(self, request: Request) -> Callable[[Request], bool]:
        key = _key(request)
        return lambda recorded: _key(recorded) == key and (not self._compare_bodies or recorded.body == request.body)

    def _shown(self) -> Iterator[str]:
        for exchange in self._left[:_MOST_SHOWN]:
            yield _named(exchange.request)
        if len(self._left) > _MOST_SHOWN:
            yield f"and {len(self._left) - _MOST_SHOWN} more"

    async def aclose(self) -> None:
        """Nothing is open."""


def _key(request: Request) -> tuple[str, str, tuple[str, ...]]:
    parts = urlsplit(request.url)
    names = sorted(name for name, _ in parse_qsl(parts.query, keep_blank_values=True))
    return request.method, parts.path or "/", tuple(names)


def _named(request: Request) -> str:
    """Method, path and the query's names; its values may be secret."""
    method, path, names = _key(request)
    return f"{method} {path}{'?' if names else ''}{'&'.join(f'{name}=' for name in names)}"


def _nothing() -> None:
    """There is no connection to let go of."""


def _as_it_is(error: Exception) -> Exception:
    return error


class _Playing:
    """The pieces of a recorded body, each at its time."""

    def __init__(self, exchange: RecordedExchange, speed: float | None, what: str) -> None:
        self._chunks = iter(exchange.chunks)
        self._first = exchange.chunks[0].t_ms if exchange.chunks else 0.0
        self._broken = exchange.broken
        self._speed = speed
        self._what = what
        self._started = asyncio.get_running_loop().time()

    async def until_first(self) -> None:
        """The head came no later than the first piece of the body; when exactly, is not recorded."""
        await self._until(self._first)

    async def pull(self) -> bytes:
        for chunk in self._chunks:
            await self._until(chunk.t_ms)
            if chunk.data:
                return chunk.data
        if self._broken:
            raise ConnectionLost(f"{self._what}: the connection broke: {self._broken}")
        raise StopAsyncIteration

    async def _until(self, t_ms: float) -> None:
        if self._speed is not None:
            due = self._started + t_ms / 1000 / self._speed
            await asyncio.sleep(max(0.0, due - asyncio.get_running_loop().time()))
