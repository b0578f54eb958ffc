"""Answers made in the same process: an ASGI 3 application, or a plain function. No socket, nothing collected."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import unquote, urlsplit

from tolmach.errors import ConfigError, ConnectionLost, TolmachError
from tolmach.transport.addresses import check_headers, origin, text_of
from tolmach.transport.base import Timeouts
from tolmach.transport.body import BodyExchange
from tolmach.transport.content_coding import decoded
from tolmach.transport.timeouts import Watch
from tolmach.wire import Head, Request

__all__ = ["AsgiApp", "Handler", "MemoryTransport"]

_Message = MutableMapping[str, Any]
AsgiApp = Callable[[Any, Any, Any], Awaitable[None]]
"""An ASGI 3 application: `app(scope, receive, send)`. Frameworks spell the types of its messages in many ways."""

Handler = Callable[[Request], Awaitable[tuple[Head, AsyncIterator[bytes]]]]
"""Gives the head and the body of the answer to a request. The body is closed when the caller goes away."""

_BODILESS = frozenset({204, 304})


class MemoryTransport:
    """Runs an ASGI application, or a `handler`, for each request, as a server would.

    Each piece is handed over as it is sent, and the application waits until it is taken. When the
    caller goes away, `receive` gives `http.disconnect` and `send` raises `OSError`; what still runs
    is cancelled when the transport is closed. A failure of the application is `ConnectionLost`
    `from` it. Lifespan events are not sent. Time limits hold as everywhere; `connect` means nothing.
    """

    def __init__(self, app: AsgiApp | None = None, *, handler: Handler | None = None) -> None:
        if (app is None) == (handler is None):
            raise ConfigError("MemoryTransport takes an application or a handler, one of them")
        self._app = app
        self._handler = handler
        self._running: set[asyncio.Task[None]] = set()
        self._closed = False

    async def send(self, request: Request, timeouts: Timeouts) -> BodyExchange:
        """The exchange once its head is there. Redirects are not followed, cookies not kept."""
        if self._closed:
            raise ConfigError("this transport is closed")
        what = origin(request.url)
        check_headers(request.headers)
        answer = _Handled(self._handler, request) if self._handler else self._start(request, what)
        watch = Watch(what, timeouts)
        watch.begin()
        try:
            head = await answer.head()
            body = decoded(answer.pull, head.headers, what)
        except asyncio.CancelledError as error:
            self._close_drained(answer, watch)
            expired = watch.expired()
            if expired is None:
                raise
            raise expired from error
        except Exception as error:  # whatever an application may raise
            self._close_drained(answer, watch)
            told = _translated(error, what)
            if told is error:
                raise
            raise told from error
        except BaseException:
            self._close_drained(answer, watch)
            raise
        return BodyExchange(
            head, body, lambda: self._close_drained(answer, watch), lambda error: _translated(error, what), watch
        )

    def _start(self, request: Request, what: str) -> "_Served":
        assert self._app is not None
        served = _Served(self._app, request, what)
        served.task = asyncio.get_running_loop().create_task(served.run())
        self._running.add(served.task)
        served.task.add_done_callback(self._running.discard)
        return served

    def _close_drained(self, answer: "_Served | _Handled", watch: Watch) -> None:
        watch.disarm()
        closing = answer.leave()
        if closing is not None:
            self._running.add(closing)
            closing.add_done_callback(self._running.discard)

    async def aclose(self) -> None:
        """Cancel what still runs on this event loop and wait for its end."""
        self._closed = True
        here = asyncio.get_running_loop()
        running = [task for task in self._running if task.get_loop() is here]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def _translated(error: Exception, what: str) -> Exception:
    if isinstance(error, TolmachError):
        return error
    return ConnectionLost(f"{what}: the connection broke: the application failed ({type(error).__name__})")


class _Handled:
    """An answer of a handler."""

    def __init__(self, handler: Handler, request: Request) -> None:
        self._handler = handler
        self._request = request
        self._body: AsyncIterator[bytes] | None = None

    async def head(self) -> Head:
        head, self._body = await self._handler(self._request)
        return Head(head.status, dict(head.headers), head.cookies, head.url or self._request.url)

    async def pull(self) -> bytes:
        assert self._body is not None
        while not (piece := await anext(self._body)):
            pass
        return piece

    def leave(self) -> "asyncio.Task[None] | None":
        """Close the body; a task, because a generator's clean-up may wait."""
        close = getattr(self._body, "aclose", None)
        return None if close is None else asyncio.get_running_loop().create_task(_run(close))


async def _run(close: Callable[[], Awaitable[None]]) -> None:
    await close()


class _Served:
    """One run of an ASGI application."""

    def __init__(self, app: AsgiApp, request: Request, what: str) -> None:
        loop = asyncio.get_running_loop()
        self._app = app
        self._request = request
        self._what = what
        self._head: asyncio.Future[Head] = loop.create_future()
        self._pieces: asyncio.Queue[bytes | BaseException] = asyncio.Queue(1)
        self._gone = asyncio.Event()
        self._asked = False
        self._ended = False
        self._left: int | None = None
        self._bodiless = request.method == "HEAD"
        self.task: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """The application's run; its failure is told to the reader."""
        try:
            await self._app(_scope(self._request), self._receive, self._send)
        except Exception as error:  # whatever an application may raise: its reader is told
            await self._fail(error)
        else:
            if not self._ended:
                await self._fail(ConnectionLost(f"{self._what}: the connection broke: the application sent no end"))

    async def _fail(self, error: BaseException) -> None:
        if self._gone.is_set():
            return
        if not self._head.done():
            self._head.set_exception(error)
        elif not self._ended:
            await self._pieces.put(error)

    async def head(self) -> Head:
        return await self._head

    async def pull(self) -> bytes:
        piece = await self._pieces.get()
        if isinstance(piece, BaseException):
            raise piece
        return piece

    def leave(self) -> None:
        """Tell the application that nobody reads any more."""
        self._gone.set()
        if self._head.done() and not self._head.cancelled():
            self._head.exception()  # seen, so that nothing is logged about it
        while not self._pieces.empty():
            self._pieces.get_nowait()

    async def _receive(self) -> _Message:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": self._request.body, "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: _Message) -> None:
        if self._gone.is_set():
            raise OSError("the client went away")
        if message["type"] == "http.response.start":
            self._begin(message)
        elif message["type"] == "http.response.body":
            await self._continue(message.get("body", b""), message.get("more_body", False))
        else:
            raise RuntimeError(f"an ASGI message of type {message['type']!r} is not understood")

    def _begin(self, message: _Message) -> None:
        if self._head.done():
            raise RuntimeError("the response was started already")
        headers: dict[str, str] = {}
        cookies = []
        for raw_name, raw_value in message.get("headers", ()):
            name, value = bytes(raw_name).decode("ascii").lower(), text_of(bytes(raw_value))
            if name == "set-cookie":
                cookies.append(value)
            else:
                headers[name] = f"{headers[name]}, {value}" if name in headers else value
        self._bodiless |= message["status"] in _BODILESS
        if "content-length" in headers and not self._bodiless:
            self._left = int(headers["content-length"])
        self._head.set_result(Head(message["status"], headers, tuple(cookies), self._request.url))

    async def _continue(self, body: bytes, more: bool) -> None:
        if not self._head.done() or self._ended:
            raise RuntimeError("a body outside of a response")
        if self._left is not None:
            self._left -= len(body)
            if self._left < 0:
                raise RuntimeError("the body is longer than its content-length")
        if body and not self._bodiless:
            await self._pieces.put(bytes(body))
            if self._gone.is_set():
                raise OSError("the client went away")
        if not more:
            if self._left:
                raise RuntimeError("the body is shorter than its content-length")
            self._ended = True
            await self._pieces.put(StopAsyncIteration())
            self._gone.set()  # a server tells of the end of a response in the same way


def _scope(request: Request) -> dict[str, Any]:
    parts = urlsplit(request.url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    headers = [(name.lower().encode("ascii"), value.encode()) for name, value in request.headers.items()]
    names = {name for name, _ in headers}
    if b"host" not in names:
        headers.insert(0, (b"host", parts.netloc.rpartition("@")[2].encode("ascii")))
    if b"content-length" not in names and (request.body or request.method in ("POST", "PUT", "PATCH")):
        headers.append((b"content-length", str(len(request.body)).encode()))
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": parts.scheme,
        "path": unquote(parts.path) or "/",
        "raw_path": (parts.path or "/").encode("ascii", "surrogateescape"),
        "query_string": parts.query.encode(),
        "root_path": "",
        "headers": headers,
        "client": ("127.0.0.1", 0),
        "server": (parts.hostname, port),
        "extensions": {},
        "state": {},
    }
