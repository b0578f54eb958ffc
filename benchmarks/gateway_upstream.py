"""A chat completions server for the benchmarks of streams; in a process of its own.

    python benchmarks/gateway_upstream.py PORT EVENTS SECONDS

Every answer is EVENTS chunks, SECONDS apart. Each chunk's text is the time of its sending, `@nanoseconds@`
of the machine's monotonic clock, so that whoever reads it knows how late it is.
"""

import asyncio
import sys
import time
from typing import cast

from tolmach.gateway.serving.server import run

_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_CHUNK = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"m","choices":'
    b'[{"index":0,"delta":{"content":"@%d@"},"finish_reason":null}]}\n\n'
)
_LAST = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"m","choices":'
    b'[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":100,'
    b'"total_tokens":109}}\n\ndata: [DONE]\n\n'
)


class Answering(asyncio.Protocol):
    """One connection; it may ask again after an answer."""

    events = 100
    seconds = 0.005

    def __init__(self) -> None:
        self._transport: asyncio.Transport
        self._asked = b""
        self._left = 0
        self._next = 0.0
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        self._asked += data
        head, blank, body = self._asked.partition(b"\r\n\r\n")
        if not blank:
            return
        if head.startswith(b"GET"):
            self._asked = b""
            self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            return
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        if len(body) < length:
            return
        self._asked = b""
        self._transport.write(_HEAD)
        self._left = self.events
        self._next = self._loop.time()
        self._send()

    def _send(self) -> None:
        if not self._left:
            self._transport.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(_LAST), _LAST))
            return
        self._left -= 1
        event = _CHUNK % time.monotonic_ns()
        self._transport.write(b"%x\r\n%b\r\n" % (len(event), event))
        self._next += self.seconds
        self._timer = self._loop.call_at(self._next, self._send)


async def main() -> None:
    Answering.events, Answering.seconds = int(sys.argv[2]), float(sys.argv[3])
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Answering, "127.0.0.1", int(sys.argv[1]), backlog=8192)
    await server.serve_forever()


if __name__ == "__main__":
    run(main())
