"""The demo over real sockets: HTTP/1.1 with the connection in its own hands.

One write a piece, no coalescing, and at once: what a service sends is what the network sees. A
client that goes away is noticed while an answer runs, and the answer stops.
"""

import asyncio
import errno
import logging
import socket
import ssl
import struct
import threading
from collections.abc import Iterator, Mapping
from contextlib import aclosing, contextmanager
from email.utils import formatdate
from types import TracebackType
from typing import Any, Self

from tolmach.demo.app import App, Delivery
from tolmach.demo.base import Break, Settings
from tolmach.demo.faults import Faults
from tolmach.demo.http1 import Asked, Framing, NoHttp, RequestReader
from tolmach.demo.log import Log, Seen
from tolmach.errors import ConfigError
from tolmach.wire import Request

__all__ = ["Demo", "ThreadedDemo", "serve_in_thread"]

_log = logging.getLogger("tolmach.demo")


class Demo:
    """The demo upstream as a server: `async with Demo() as demo: demo.url`.

    `port` 0 takes a free one. `faults` and the attribute of that name set faults for all requests of a
    service: `{"/Chatgpt4o": "cut=5"}`. The other options are those of `Settings`.
    Raises `ConfigError` when the port is in use.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        faults: Mapping[str, str] | None = None,
        ssl_context: ssl.SSLContext | None = None,
        **settings: Any,
    ) -> None:
        try:
            self.app = App(Settings(**settings), faults)
        except TypeError as error:
            raise ConfigError(f"the demo has no such option: {error}") from error
        self.host = host
        self.port = port
        self._ssl = ssl_context
        self._server: asyncio.Server | None = None
        self._connections: set[_Connection] = set()

    @property
    def log(self) -> Log:
        """The counters."""
        return self.app.log

    @property
    def faults(self) -> Faults:
        return self.app.faults

    @property
    def url(self) -> str:
        """The origin, without a slash at the end."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self._ssl else 'http'}://{host}:{self.port}"

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(
                lambda: _Connection(self, self._connections), self.host, self.port, ssl=self._ssl, backlog=1024
            )
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise ConfigError(f"port {self.port} of {self.host} is in use; choose another with --port") from error
            raise ConfigError(f"cannot listen on {self.host}:{self.port}: {error.strerror or error}") from error
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Close all connections, whatever they were doing."""
        if self._server is None:
            return
        self._server.close()
        tasks = [task for connection in list(self._connections) if (task := connection.abort())]
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._server.wait_closed()
        self._server = None
        # The loop tells the protocols only in its next round that their connections are lost.
        await self.log.wait_open_connections(0)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()


class _Connection(asyncio.Protocol):
    """One connection; its requests are answered one after the other."""

    def __init__(self, demo: Demo, connections: "set[_Connection]") -> None:
        self._demo = demo
        self._connections = connections
        self._reader = RequestReader()
        self._refusal: NoHttp | None = None
        self._task: asyncio.Task[None] | None = None
        self._seen: Seen | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._transport: asyncio.Transport

    # What the loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._connections.add(self)
        log = self._demo.log
        log.connections += 1
        log.open_connections += 1
        log.changed()

    def data_received(self, data: bytes) -> None:
        if self._refusal is not None or self._transport.is_closing():
            return
        try:
            self._reader.feed(data)
        except NoHttp as refusal:
            self._refusal = refusal
        if self._task is None:
            self._next()

    def eof_received(self) -> bool:
        # A client that closes its half while an answer runs is taken to have gone, as proxies do.
        self._hung_up()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._hung_up()
        self._writable.set()
        self._connections.discard(self)
        self._demo.log.open_connections -= 1
        self._demo.log.changed()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    # Reading

    def _next(self) -> None:
        """Answer the next request that is whole; refuse what is none once all before it are answered."""
        if self._reader.whole:
            self._task = asyncio.get_running_loop().create_task(self._serve(self._reader.whole.popleft()))
        elif self._refusal is not None:
            self._refuse(self._refusal)
        elif self._reader.waits:
            self._reader.waits = False
            self._write(b"HTTP/1.1 100 \r\n\r\n")

    def _refuse(self, refusal: NoHttp) -> None:
        """Answer what is no HTTP, and close."""
        framing = Framing(None, refusal.status, [("Content-Type", "text/plain")])
        self._write(framing.head + framing.data(f"{refusal}\n".encode()))
        self._transport.close()

    # Answering

    async def _serve(self, asked: Asked) -> None:
        closes = True
        try:
            self._seen = None
            delivery = await self._demo.app.respond(self._wire_request(asked))
            self._seen = delivery.seen
            async with aclosing(delivery.body):
                closes = await self._send(delivery, asked)
        except Exception:
            # A fault of the demo itself must be seen by whoever tests against it.
            _log.exception("the demo failed")
            self._transport.abort()
        finally:
            self._task = None
        if self._transport.is_closing():
            return
        if closes:
            self._transport.close()
        else:
            self._next()

    def _wire_request(self, asked: Asked) -> Request:
        headers: dict[str, str] = {}
        for name, value in asked.headers:
            headers[name] = f"{headers[name]}{'; ' if name == 'cookie' else ', '}{value}" if name in headers else value
        target = asked.target
        host = headers.get("host", f"{self._demo.host}:{self._demo.port}")
        scheme = self._demo.url.partition(":")[0]
        url = target if target.startswith(("http://", "https://")) else f"{scheme}://{host}{target}"
        return Request(asked.method, url, headers, asked.body)

    async def _send(self, delivery: Delivery, asked: Asked) -> bool:
        """Write the response; says whether the connection ends with it."""
        headers = [("Server", "tolmach-demo"), ("Date", formatdate(usegmt=True)), *delivery.headers]
        framing = Framing(asked, delivery.status, headers)
        if delivery.status:
            self._write(framing.head)
        async for data in delivery.body:
            if isinstance(data, Break):
                await self._break(data, delivery)
                return True
            self._write(framing.data(data))
            if not self._writable.is_set():
                await self._writable.wait()
        self._write(framing.end())
        return framing.closes

    async def _break(self, end: Break, delivery: Delivery) -> None:
        delivery.seen.ended = "cut"
        if end is Break.STALL:
            # Until the client goes away or the demo stops; both cancel this task.
            await asyncio.get_running_loop().create_future()
        elif end is Break.CUT:
            self._transport.close()
        else:
            sock = self._transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._transport.abort()

    def _write(self, data: bytes) -> None:
        if data and not self._transport.is_closing():
            self._transport.write(data)

    # The end

    def _hung_up(self) -> None:
        if self._task is not None:
            self._task.cancel()
            self._task = None
            if self._seen is not None:
                self._seen.ended = "hangup"
            self._demo.log.hangups += 1
            self._demo.log.changed()

    def abort(self) -> "asyncio.Task[None] | None":
        """Drop the connection; gives the task that has to end."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
        self._transport.abort()
        return task


class ThreadedDemo:
    """A demo on a thread of its own, for code that is not async."""

    def __init__(self, demo: Demo) -> None:
        self.demo = demo
        self._started: threading.Event = threading.Event()
        self._error: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run, name="tolmach-demo", daemon=True)

    @property
    def url(self) -> str:
        return self.demo.url

    @property
    def log(self) -> Log:
        return self.demo.log

    @property
    def faults(self) -> Faults:
        return self.demo.faults

    def start(self) -> None:
        """Return once it listens. Raises what `Demo.start` raises."""
        self._thread.start()
        self._started.wait()
        if self._error is not None:
            self._thread.join()
            raise self._error

    def stop(self) -> None:
        """Return once all connections are closed and the thread has ended."""
        if self._loop is not None and self._stop is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        try:
            await self.demo.start()
        except ConfigError as error:
            self._error = error
            return
        finally:
            self._started.set()
        try:
            await self._stop.wait()
        finally:
            await self.demo.stop()


@contextmanager
def serve_in_thread(**options: Any) -> Iterator[ThreadedDemo]:
    """`with serve_in_thread(delay=0) as demo: demo.url`; the options are those of `Demo`."""
    demo = ThreadedDemo(Demo(**options))
    demo.start()
    try:
        yield demo
    finally:
        demo.stop()
