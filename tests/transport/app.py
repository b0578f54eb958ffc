"""One small ASGI application, and how it is reached over each transport."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

from tests.transport.server import Conn, Got, Server

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class App:
    """Paths: `/echo`, `/stream` (a piece for each `more`), `/stall`, `/silent`, `/cookies`, `/short`, `/cut`."""

    def __init__(self) -> None:
        self.more = asyncio.Semaphore(0)
        self.reached = asyncio.Event()
        self.gone = asyncio.Event()
        self.sent: list[bytes] = []

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        body = (await receive())["body"]
        await getattr(self, "_" + scope["path"].strip("/"))(scope, body, receive, send)

    async def _echo(self, scope: dict[str, Any], body: bytes, receive: Receive, send: Send) -> None:
        told = {
            "method": scope["method"],
            "query": scope["query_string"].decode(),
            "headers": {name.decode(): value.decode() for name, value in scope["headers"]},
            "body": body.decode(),
        }
        await start(send, 201, [(b"content-type", b"Application/JSON; charset=utf-8"), (b"x-a", b"1"), (b"x-a", b"2")])
        await send({"type": "http.response.body", "body": json.dumps(told).encode()})

    async def _stream(self, scope: dict[str, Any], body: bytes, receive: Receive, send: Send) -> None:
        await start(send)
        for piece in (b"one", b"two", b"three"):
            await self.more.acquire()
            self.sent.append(piece)
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body"})

    async def _stall(self, scope: dict[str, Any], body: bytes, receive: Receive, send: Send) -> None:
        await start(send)
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        await self._silent(scope, body, receive, send)

    async def _silent(self, scope: dict[str, Any], body: bytes, receive: Receive, send: Send) -> None:
        self.reached.set()
        assert (await receive())["type"] == "http.disconnect"
        self.gone.set()

    async def _cookies(self, scope: dict[str, Any], body: bytes, receive: Receive, send: Send) -> None:
        await start(send, headers=[(b"set-cookie", b"a=1; Path=/, x"), (b"set-cookie", b"b=2")])
        await send({"type": "http.response.body", "body": b"ok"})

    async def _short(self, scope: dict[str, Any], body: bytes, receive: Receive, send: Send) -> None:
        await start(send, headers=[(b"content-length", b"20")])
        await send({"type": "http.response.body", "body": b"one"})

    async def _cut(self, scope: dict[str, Any], body: bytes, receive: Receive, send: Send) -> None:
        await start(send)
        await send({"type": "http.response.body", "body": b"one", "more_body": True})

    async def _fails(self, scope: dict[str, Any], body: bytes, receive: Receive, send: Send) -> None:
        raise LookupError("of the application")


async def start(send: Send, status: int = 200, headers: list[tuple[bytes, bytes]] | None = None) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers or []})


def over_socket(app: App, server: Server) -> None:
    """Let the server of the tests answer from the application."""

    async def handle(conn: Conn, got: Got) -> None:
        asked = False

        async def receive() -> dict[str, Any]:
            nonlocal asked
            if not asked:
                asked = True
                return {"type": "http.request", "body": got.body, "more_body": False}
            await conn.gone()
            return {"type": "http.disconnect"}

        chunked = True

        async def send(message: dict[str, Any]) -> None:
            nonlocal chunked
            if message["type"] == "http.response.start":
                chunked = b"content-length" not in dict(message["headers"])
                lines = b"".join(b"%s: %s\r\n" % header for header in message["headers"])
                coding = b"Transfer-Encoding: chunked\r\n" if chunked else b""
                await conn.send(b"HTTP/1.1 %d Status\r\n%s%s\r\n" % (message["status"], lines, coding))
                return
            body = message.get("body", b"")
            if body:
                await (conn.chunk(body) if chunked else conn.send(body))
            if not message.get("more_body"):
                await (conn.chunk(b"") if chunked else conn.send(b""))
            ended.append(not message.get("more_body") and chunked)

        ended: list[bool] = []
        parts = urlsplit(got.target)
        headers = [(name.encode(), value.encode()) for name, value in got.headers]
        scope = {"type": "http", "method": got.method, "path": parts.path, "headers": headers}
        try:
            await app({**scope, "query_string": parts.query.encode()}, receive, send)
        except LookupError:
            conn.close()
        if not ended or not ended[-1]:
            conn.close()

    for path in ("echo", "stream", "stall", "silent", "cookies", "short", "cut", "fails"):
        server.routes[f"/{path}"] = handle
