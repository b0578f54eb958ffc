"""The gateway on ASGI 3, mountable in any server or application that speaks it."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from contextlib import suppress
from typing import Any

from tolmach.gateway.core import Gateway
from tolmach.gateway.http import MOST_SKIPPED, SKIP_SECONDS, BodyTooLarge, BodyTooSlow, Headers

__all__ = ["AsgiApp"]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


def _encoded(headers: Headers) -> list[tuple[bytes, bytes]]:
    return [(name.encode("ascii"), value.encode("latin-1", "replace")) for name, value in headers]


class _Request:
    """`Incoming` and `Reply` of one ASGI request."""

    def __init__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        self.method: str = scope["method"]
        mounted: str = scope.get("root_path", "")
        self.path: str = scope["path"].removeprefix(mounted)
        raw: bytes | None = scope.get("raw_path")
        self.raw_path = None if raw is None else raw.decode("latin-1").removeprefix(mounted)
        self.query: str = scope.get("query_string", b"").decode("latin-1")
        client = scope.get("client")
        self.client: str = f"{client[0]}:{client[1]}" if client else ""
        self.headers: Mapping[str, str] = {
            name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]
        }
        self.hosts: Sequence[str] = [
            value.decode("latin-1") for name, value in scope["headers"] if name.lower() == b"host"
        ]
        # ASGI has no place for it: the server is to put it in the place of the Host header (RFC 9112, 3.2.2).
        self.authority = ""
        self._receive = receive
        self._send = send
        self._streaming = False
        self._too_slow = False
        self._read = asyncio.Event()

    async def body(self, limit: int, seconds: float) -> bytes:
        try:
            async with asyncio.timeout(seconds):
                return await self._whole_body(limit)
        except TimeoutError as error:
            self._too_slow = True
            raise BodyTooSlow(seconds) from error

    async def _whole_body(self, limit: int) -> bytes:
        length = self.headers.get("content-length")
        if length is not None and (not length.isdigit() or int(length) > limit):
            raise BodyTooLarge(limit)
        pieces = []
        size = 0
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ConnectionResetError("the caller went away")
            piece = message.get("body", b"")
            size += len(piece)
            if size > limit:
                raise BodyTooLarge(limit)
            pieces.append(piece)
            if not message.get("more_body"):
                self._read.set()
                return b"".join(pieces)

    async def gone(self) -> None:
        """Returns when the caller has gone away.

        That is told on the channel that the body comes on, so the watch begins when it is read.
        """
        await self._read.wait()
        while (await self._receive())["type"] != "http.disconnect":
            continue

    async def _skip(self) -> None:
        """Throw away what comes of a body that is not read, so that its sender sees the answer."""
        sent = "transfer-encoding" in self.headers or self.headers.get("content-length", "0") != "0"
        if self._read.is_set() or self._too_slow or not sent or "expect" in self.headers:
            return
        skipped = 0
        with suppress(TimeoutError):
            async with asyncio.timeout(SKIP_SECONDS):
                while skipped <= MOST_SKIPPED:
                    message = await self._receive()
                    skipped += len(message.get("body", b""))
                    if not message.get("more_body"):
                        return

    async def whole(self, status: int, headers: Headers, body: bytes) -> None:
        await self._skip()
        headers = [*headers, ("content-length", str(len(body)))]
        await self._send({"type": "http.response.start", "status": status, "headers": _encoded(headers)})
        await self._send({"type": "http.response.body", "body": body})

    async def stream(self, status: int, headers: Headers) -> "_Request":
        await self._send({"type": "http.response.start", "status": status, "headers": _encoded(headers)})
        self._streaming = True
        return self

    async def write(self, data: bytes) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self) -> None:
        if self._streaming:
            await self._send({"type": "http.response.body", "body": b""})


class AsgiApp:
    """The gateway as an ASGI application."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(self._gateway, receive, send)
            return
        if scope["type"] != "http":
            raise RuntimeError(f"the gateway serves HTTP, not {scope['type']}")
        request = _Request(scope, receive, send)
        handling = asyncio.ensure_future(self._gateway.handle(request, request))
        watching = asyncio.ensure_future(request.gone())
        try:
            await asyncio.wait({handling, watching}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            watching.cancel()
            if not handling.done():
                handling.cancel()
            await asyncio.gather(handling, watching, return_exceptions=True)
        if not handling.cancelled():
            handling.result()
            await request.end()


async def _lifespan(gateway: Gateway, receive: Receive, send: Send) -> None:
    """Start and close what the gateway keeps, with the application that it is part of."""
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await gateway.start()
            await send({"type": "lifespan.startup.complete"})
        elif message["type"] == "lifespan.shutdown":
            await gateway.aclose()
            await send({"type": "lifespan.shutdown.complete"})
            return
