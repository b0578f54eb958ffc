"""What a question costs beyond the bare HTTP call: CPU microseconds of the client process.

    python benchmarks/session.py [QUESTIONS]

The demo runs in a process of its own. Each round asks QUESTIONS (by default 200) times through a
session, then sends the very same request as often with `wreq` alone and reads the pieces of the
answer without looking at them; both one after another on a kept connection. The median of seven
rounds. The CPU time is that of all threads, wreq's among them.
"""

import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

import wreq
from report import heading, table

from tolmach import ChatRequest, Done, Message
from tolmach.cookies import CookieJar
from tolmach.protocols import create
from tolmach.protocols.base import Site
from tolmach.session import Session
from tolmach.transport import Exchange, Timeouts, TransportOptions
from tolmach.transport import create as create_transport
from tolmach.wire import Request

ROUNDS = 7

_SERVER = """
import asyncio
from tolmach.demo.server import Demo

async def main():
    async with Demo(delay=0.0) as demo:
        print(demo.url, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""

SITES = {
    "openai, streamed": ("openai", "/v1", True),
    "openai, whole": ("openai", "/v1", False),
    "ai-engine, streamed": ("ai-engine", "/Chatgpt4Online", True),
    "ai-power, whole": ("ai-power", "/Chatgpt4o", False),
    "json-text": ("json-text", "/api/text", False),
}
"""What is measured -> protocol, path at the demo, whether the answer is streamed."""

QUESTION = "What is the difference between a list and a tuple?"


class _Noting:
    """wreq's transport, which remembers the last request it sent."""

    def __init__(self) -> None:
        self.inner = create_transport(TransportOptions(), "wreq")
        self.last: Request | None = None

    async def send(self, request: Request, timeouts: Timeouts) -> Exchange:
        self.last = request
        return await self.inner.send(request, timeouts)

    async def aclose(self) -> None:
        await self.inner.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


@contextmanager
def _demo() -> Iterator[str]:
    """The demo in another process; its address."""
    with subprocess.Popen([sys.executable, "-c", _SERVER], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip()
        finally:
            server.terminate()


async def _cpu(question: Callable[[], Awaitable[int]], count: int) -> tuple[float, int]:
    """CPU microseconds of one question, and how many pieces or events the last one gave."""
    start = time.process_time()
    for _ in range(count):
        pieces = await question()
    return (time.process_time() - start) / count * 1e6, pieces


async def _measure(url: str, protocol: str, path: str, stream: bool, count: int) -> tuple[object, ...]:
    transport = _Noting()
    site = Site(name=protocol, url=url + path, protocol=create(protocol), api_key="demo")
    jar = CookieJar()
    jar.set(url, {"session": "benchmark"})
    session = Session(site, transport, cookies=jar)
    turn = ChatRequest(messages=(Message("user", QUESTION),), model="gpt-4o", stream=stream)

    async def through_session() -> int:
        events = [event async for event in session.ask(turn)]
        assert isinstance(events[-1], Done)
        return len(events)

    await through_session()
    request = transport.last
    assert request is not None
    client = wreq.Client()

    async def bare() -> int:
        response = await client.request(
            getattr(wreq.Method, request.method), request.url, headers=request.headers, body=request.body or None
        )
        assert response.status.as_int() == 200
        pieces = 0
        async with response.stream() as streamer:
            async for _ in streamer:
                pieces += 1
        return pieces

    await bare()
    ours, theirs = [], []
    for _ in range(ROUNDS):
        cost, events = await _cpu(through_session, count)
        ours.append(cost)
        cost, pieces = await _cpu(bare, count)
        theirs.append(cost)
    await transport.aclose()
    full, least = statistics.median(ours), statistics.median(theirs)
    return events, pieces, f"{full:.0f}", f"{least:.0f}", f"{full - least:.0f}", f"{full / least:.2f}"


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    heading("wreq", "msgspec")
    with _demo() as url:
        rows = [(name, *asyncio.run(_measure(url, *what, count))) for name, what in SITES.items()]
    table(("what", "events", "pieces", "session us", "bare wreq us", "beyond us", "ratio"), rows)


if __name__ == "__main__":
    main()
