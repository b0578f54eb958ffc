"""The demo as an ASGI application, for tests without sockets.

What needs a socket becomes an abrupt end: a reset raises before the head, a cut raises in the body,
and a stall waits until the client has gone.
"""

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from contextlib import aclosing
from typing import Any
from urllib.parse import quote

from tolmach.demo.app import App, Delivery
from tolmach.demo.base import Break, Settings
from tolmach.wire import Request

__all__ = ["AbruptEnd", "DemoAsgi"]

_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]


class AbruptEnd(Exception):
    """The connection would have been reset or cut here."""


class DemoAsgi:
    """`DemoAsgi(delay=0)`; the options are those of `tolmach.demo.base.Settings`, and `faults`."""

    def __init__(self, *, faults: Mapping[str, str] | None = None, **settings: Any) -> None:
        self.app = App(Settings(**settings), faults)

    async def __call__(self, scope: Mapping[str, Any], receive: _Receive, send: _Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["type"] == "http":
            delivery = await self.app.respond(await _request(scope, receive))
            async with aclosing(delivery.body):
                await self._send(delivery, receive, send, bodiless=scope["method"] == "HEAD")

    async def _send(self, delivery: Delivery, receive: _Receive, send: _Send, *, bodiless: bool) -> None:
        if delivery.status:
            headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in delivery.headers]
            await send({"type": "http.response.start", "status": delivery.status, "headers": headers})
        async for data in delivery.body:
            if data is Break.STALL:
                await _gone(receive)
                self.app.log.hangups += 1
                delivery.seen.ended = "hangup"
                self.app.log.changed()
                return
            if isinstance(data, Break):
                delivery.seen.ended = "cut"
                raise AbruptEnd(f"{data.value}, as was asked for")
            if data and not bodiless:
                await send({"type": "http.response.body", "body": data, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _lifespan(receive: _Receive, send: _Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def _request(scope: Mapping[str, Any], receive: _Receive) -> Request:
    headers: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}{'; ' if name == 'cookie' else ', '}{value}" if name in headers else value
    body = bytearray()
    more = True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    path = scope.get("raw_path") or quote(scope["path"]).encode()
    query = scope.get("query_string", b"")
    target = path.decode("latin-1").partition("?")[0] + (f"?{query.decode('latin-1')}" if query else "")
    url = f"{scope.get('scheme', 'http')}://{headers.get('host', 'demo.test')}{target}"
    return Request(scope["method"], url, headers, bytes(body))


async def _gone(receive: _Receive) -> None:
    """Return when the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        continue
