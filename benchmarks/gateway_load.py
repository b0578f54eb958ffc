"""A client that holds many streams open at little cost; in a process of its own.

    python benchmarks/gateway_load.py PORT PATH AT_ONCE TOTAL RAMP_SECONDS

Asks TOTAL times, AT_ONCE at a time, the first ones spread over RAMP_SECONDS, and prints one JSON object:
milliseconds to the first token (from the sending of the question) and from the upstream's sending of an
event to its being here, events, pieces that brought more than one, and answers that were not whole.
"""

import asyncio
import json
import re
import sys
import time
from functools import partial
from typing import cast

from gateway_processes import STREAMED

from tolmach.gateway.serving.server import run

_SENT = re.compile(rb"@(\d+)@")


class Figures:
    def __init__(self) -> None:
        self.first: list[float] = []
        self.late: list[float] = []
        self.joined = 0
        self.whole = 0
        self.failed: list[str] = []


class Stream(asyncio.Protocol):
    """One question on a connection of its own."""

    def __init__(self, request: bytes, figures: Figures, done: "asyncio.Future[None]") -> None:
        self._request = request
        self._figures = figures
        self._done = done
        self._asked = 0
        self._began = False
        self._tail = b""
        self._start = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._asked = time.monotonic_ns()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns()
        sent = _SENT.findall(data)
        if not self._began:
            self._start += data[:2000]
            if not sent:
                return
            self._began = True
            self._figures.first.append((now - self._asked) / 1e6)
        self._figures.joined += len(sent) > 1
        self._figures.late += [(now - int(one)) / 1e6 for one in sent]
        self._tail = (self._tail + data)[-64:]
        if b"[DONE]" in self._tail or b'"message_stop"' in self._tail:
            self._figures.whole += 1
            self._done.set_result(None)
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._done.done():
            self._figures.failed.append(f"{exc!r} after {self._start[:300]!r} ... {self._tail!r}")
            self._done.set_result(None)


async def main() -> None:
    port, path, at_once, total, ramp = int(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:6])
    request = (
        b"POST %b HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
        % (path.encode(), len(STREAMED), STREAMED)
    )
    loop = asyncio.get_running_loop()
    figures = Figures()
    left = total

    async def keep_asking(number: int) -> None:
        nonlocal left
        await asyncio.sleep(ramp * number / at_once)
        while left > 0:
            left -= 1
            done: asyncio.Future[None] = loop.create_future()
            try:
                await loop.create_connection(partial(Stream, request, figures, done), "127.0.0.1", port)
            except OSError as error:
                figures.failed.append(repr(error))
                continue
            await done

    await asyncio.gather(*(keep_asking(number) for number in range(at_once)))
    json.dump(
        {
            "first": figures.first,
            "late": figures.late,
            "joined": figures.joined,
            "whole": figures.whole,
            "failed": len(figures.failed),
            "why": figures.failed[:3],
        },
        sys.stdout,
    )


if __name__ == "__main__":
    run(main())
