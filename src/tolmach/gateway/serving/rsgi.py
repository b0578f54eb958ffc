"""The gateway on granian's RSGI, the fast interface.

A caller who goes away cancels the handler. Watching for that costs a future, so short requests
are not watched: it begins after 25 to 50 ms, or with a stream. The time for the body runs from there, too.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from granian._granian import RSGIProtocolClosed, RSGIProtocolError

from tolmach.gateway.core import Gateway
from tolmach.gateway.http import MOST_SKIPPED, SKIP_SECONDS, BodyBroken, BodyTooLarge, BodyTooSlow, Headers
from tolmach.transport.coarse_timer import CoarseTimer

__all__ = ["RsgiApp"]

_WATCH_AFTER = 0.025


class _Headers(Mapping[str, str]):
    """The request's headers, read from the server only where they are asked for."""

    __slots__ = ("_raw",)

    def __init__(self, raw: Any) -> None:
        self._raw = raw

    def __getitem__(self, name: str) -> str:
        value: str | None = self._raw.get(name)
        if value is None:
            raise KeyError(name)
        return value

    def get(self, name: str, default: Any = None) -> Any:
        return self._raw.get(name, default)

    def __iter__(self) -> Iterator[str]:
        return iter(self._raw.keys())

    def __len__(self) -> int:
        # All lines, not names: what counts is how much a caller has sent.
        return len(self._raw.values())


class _Request:
    """`Incoming` and `Reply` of one RSGI request."""

    __slots__ = (
        "_body_seconds",
        "_coming",
        "_pending",
        "_proto",
        "_read",
        "_stream",
        "_task",
        "_timer",
        "_too_slow",
        "_watching",
        "authority",
        "client",
        "headers",
        "hosts",
        "method",
        "path",
        "query",
        "raw_path",
    )

    def __init__(self, scope: Any, proto: Any) -> None:
        self.method: str = scope.method
        self.path: str = scope.path
        self.query: str = scope.query_string
        self.client: str = scope.client
        headers = scope.headers
        self.headers: Mapping[str, str] = _Headers(headers)
        self.hosts: Sequence[str] = headers.get_all("host")
        self.authority: str = scope.authority or ""
        # The server decodes it, once, and does not tell how it was written.
        self.raw_path: str | None = None
        self._proto = proto
        self._watching: asyncio.Future[None] | None = None
        self._pending: CoarseTimer | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[Any] | None = None
        self._stream: _Stream | None = None
        self._body_seconds: float | None = None
        self._too_slow = False
        self._read = False
        self._coming: AsyncIterator[bytes] | None = None

    async def body(self, limit: int, seconds: float) -> bytes:
        length = self.headers.get("content-length")
        if length is not None and (not length.isdigit() or int(length) > limit):
            raise BodyTooLarge(limit)
        self._body_seconds = seconds
        try:
            if length is not None:
                data: bytes = await self._proto()
            else:
                data = await self._pieces(limit)
        except asyncio.CancelledError as error:
            if not self._too_slow or self._task is None or self._task.uncancel():
                raise
            raise BodyTooSlow(seconds) from error
        except RSGIProtocolClosed as error:
            raise ConnectionResetError("the caller went away") from error
        self._body_seconds = None
        self._read = True
        return data

    async def _pieces(self, limit: int) -> bytes:
        """A body whose length is not told."""
        pieces: list[bytes] = []
        size = 0
        while (piece := await self._piece()) is not None:
            # The server gives an empty piece for the end, and one more before it for what it cannot read (or for
            # trailers, which are not told from that).
            if pieces and not pieces[-1]:
                raise BodyBroken
            size += len(piece)
            if size > limit:
                raise BodyTooLarge(limit)
            pieces.append(piece)
        return b"".join(pieces)

    async def _piece(self) -> bytes | None:
        """The next piece of the body, None at its end. The server begins its body once."""
        if self._coming is None:
            self._coming = aiter(self._proto)
        try:
            return await anext(self._coming)
        except StopAsyncIteration:
            return None

    async def _skip(self) -> None:
        """Throw away what comes of a body that is not read, so that its sender sees the answer."""
        if self._too_slow or "expect" in self.headers:
            return  # it does not come, or is sent only once it is wanted
        skipped = 0
        with suppress(TimeoutError, RSGIProtocolClosed, RSGIProtocolError):
            async with asyncio.timeout(SKIP_SECONDS):
                while (piece := await self._piece()) is not None:
                    skipped += len(piece)
                    if skipped > MOST_SKIPPED:
                        return
                self._read = True

    async def whole(self, status: int, headers: Headers, body: bytes) -> None:
        if not self._read and self._sends_body():
            await self._skip()
        if self._read or not self._sends_body():
            self._proto.response_bytes(status, headers, body)
        else:
            # The server closes the connection only when its side of the body goes before the answer's end.
            # So the answer ends after this object has let go of it, see `end`.
            self._stream = _Stream(self._proto.response_stream(status, headers))
            await self._stream.write(body)

    def _sends_body(self) -> bool:
        headers = self.headers
        return "transfer-encoding" in headers or headers.get("content-length", "0") != "0"

    async def stream(self, status: int, headers: Headers) -> "_Stream":
        self._watch()
        self._stream = _Stream(self._proto.response_stream(status, headers))
        return self._stream

    # The caller's going away

    def begin(self, loop: asyncio.AbstractEventLoop, pending: CoarseTimer) -> None:
        self._task = asyncio.current_task(loop)
        self._pending = pending
        pending.add(self)

    def elapsed(self) -> None:
        """The request is no short one."""
        self._pending = None
        self._watch()
        if self._body_seconds is not None:
            remaining = max(0.0, self._body_seconds - _WATCH_AFTER)
            self._timer = asyncio.get_running_loop().call_later(remaining, self._stop_reading)

    def _stop_reading(self) -> None:
        if self._body_seconds is not None and self._task is not None:
            self._too_slow = True
            self._task.cancel()

    def _watch(self) -> None:
        if self._watching is not None:
            return
        self._watching = asyncio.ensure_future(self._proto.client_disconnect())
        self._watching.add_done_callback(self._gone)

    def _gone(self, watching: "asyncio.Future[None]") -> None:
        if not watching.cancelled() and self._task is not None:
            self._task.cancel()

    def end(self) -> None:
        self._task = None
        if self._pending is not None:
            self._pending.discard(self)
        if self._timer is not None:
            self._timer.cancel()
        if self._watching is not None:
            self._watching.cancel()
            # The server's future keeps its callback for good, out of the garbage collector's sight: a request
            # that went on referring to it would never be freed.
            self._watching = None
        self._proto = None
        self._coming = None
        if self._stream is not None:
            if self._read:
                self._stream.end()
            else:
                # Once the server, too, has let go of the request.
                asyncio.get_running_loop().call_soon(self._stream.end)


class _Stream:
    """`Writer` over RSGI's stream."""

    __slots__ = ("_transport",)

    def __init__(self, transport: Any) -> None:
        self._transport = transport

    async def write(self, data: bytes) -> None:
        try:
            await self._transport.send_bytes(data)
        except RSGIProtocolClosed as error:
            raise ConnectionResetError("the caller went away") from error

    def end(self) -> None:
        # The body ends when nothing refers to the transport any more; a traceback may refer to this object.
        self._transport = None


class RsgiApp:
    """The gateway as an RSGI application."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        # Asked for once: each asking costs a system call before Python 3.12.
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pending: CoarseTimer

    async def __rsgi__(self, scope: Any, proto: Any) -> None:
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
            self._pending = CoarseTimer(loop, _WATCH_AFTER)
        request = _Request(scope, proto)
        request.begin(loop, self._pending)
        try:
            await self._gateway.handle(request, request)
        finally:
            request.end()
