"""A small strict HTTP/1.1 server on 127.0.0.1 whose every byte the test decides."""

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

Handler = Callable[["Conn", "Got"], Awaitable[None]]


@dataclass
class Got:
    """A request as it came over the wire."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]

    def header(self, name: str) -> str:
        return ", ".join(self.all(name))


class Conn:
    """One connection, as a handler sees it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def reply(self, body: bytes = b"", *, status: str = "200 OK", headers: str = "") -> None:
        """A whole response; `headers` is lines that end with CRLF."""
        await self.send(f"HTTP/1.1 {status}\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body)

    async def start(self, headers: str = "") -> None:
        """The head of a chunked response."""
        await self.send(f"HTTP/1.1 200 OK\r\n{headers}Transfer-Encoding: chunked\r\n\r\n".encode())

    async def chunk(self, data: bytes) -> None:
        await self.send(b"%x\r\n%s\r\n" % (len(data), data))

    async def gone(self) -> None:
        """Returns once the other side has closed or reset the connection."""
        with contextlib.suppress(ConnectionError):
            while await self.reader.read(65536):
                pass

    def close(self) -> None:
        self.writer.close()

    def reset(self) -> None:
        raw = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


@dataclass
class Server:
    """Answers by path; what it was asked is in `got`."""

    url: str = ""
    port: int = 0
    got: list[Got] = field(default_factory=list)
    routes: dict[str, Handler] = field(default_factory=dict)
    connections: int = 0
    faults: list[BaseException] = field(default_factory=list)

    def on(self, path: str) -> Callable[[Handler], Handler]:
        def add(handler: Handler) -> Handler:
            self.routes[path] = handler
            return handler

        return add

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        conn = Conn(reader, writer)
        try:
            while (got := await read_request(reader)) is not None:
                self.got.append(got)
                handler = self.routes.get(got.path)
                if handler is None:
                    await conn.reply(b"no such path", status="404 Not Found")
                else:
                    await handler(conn, got)
                if writer.is_closing():
                    return
        except ConnectionError:
            pass  # the client went away, as many tests want it to
        except Exception as fault:  # a test's handler failed: `serving` tells the test
            self.faults.append(fault)


async def read_request(reader: asyncio.StreamReader) -> Got | None:
    """The next request; None when the connection ends before one. Its body must come with its length."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise ValueError(f"half a request: {error.partial!r}") from error
        return None
    first, *lines = head.decode("utf-8").split("\r\n")[:-2]
    method, target, version = first.split(" ")
    assert version == "HTTP/1.1"
    headers = []
    for line in lines:
        name, colon, value = line.partition(":")
        assert colon, f"no header: {line!r}"
        headers.append((name.lower(), value.strip()))
    got = Got(method, target, headers, b"")
    assert len(got.all("host")) == 1
    assert not got.all("transfer-encoding")
    if method in ("POST", "PUT", "PATCH"):
        assert len(got.all("content-length")) == 1, "a request that may have a body says its length"
    got.body = await reader.readexactly(int(got.header("content-length") or 0))
    return got


@contextlib.asynccontextmanager
async def listening(
    handle: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
    tls: ssl.SSLContext | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
) -> AsyncIterator[int]:
    """A port of `host` where `handle` is called for each connection; all of them are closed at the end.

    `async with asyncio.start_server(...)` waits, since Python 3.12, until the clients have closed theirs.
    """
    tasks: set[asyncio.Task[None]] = set()
    writers: list[asyncio.StreamWriter] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        writers.append(writer)
        try:
            await handle(reader, writer)
        except asyncio.CancelledError:
            pass  # the end of the test; asyncio's own callback would report it
        finally:
            writer.close()

    listener = await asyncio.start_server(accept, host, port, ssl=tls)
    try:
        yield listener.sockets[0].getsockname()[1]
    finally:
        listener.close()
        for task in tasks:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        for writer in writers:
            # Before CPython 3.11.4 a TLS transport that has ended cannot be aborted.
            with contextlib.suppress(AttributeError):
                writer.transport.abort()
        await asyncio.sleep(0)
    for end in ends:
        if isinstance(end, Exception) and not isinstance(end, ConnectionError):
            raise end


@contextlib.asynccontextmanager
async def serving(tls: ssl.SSLContext | None = None, name: str = "127.0.0.1") -> AsyncIterator[Server]:
    server = Server()
    async with listening(server._serve, tls) as server.port:
        server.url = f"{'https' if tls else 'http'}://{name}:{server.port}"
        yield server
    assert not server.faults


def full_backlog() -> tuple[list[socket.socket], int]:
    """A port that answers no connection any more, and the sockets that keep it so."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    held = [listener]
    for _ in range(3):
        waiting = socket.socket()
        waiting.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            waiting.connect(listener.getsockname())
        held.append(waiting)
    return held, listener.getsockname()[1]


def closed_port() -> int:
    """A port where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port
