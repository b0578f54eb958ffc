"""What requests leave behind, counted as objects: nothing, however they end."""

import asyncio
import gc
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest

from tests.gateway.served import served
from tests.gateway.serving.test_sockets import PATHS, body, both, connected, read_to_end, request
from tolmach.gateway.answers.conversations import StoredResponse

CROWD = 10
ROUNDS = 4


async def _asked(url: str, path: str, model: str, begins: bytes, **more: Any) -> None:
    """A question asked to its end."""
    async with connected(url) as (reader, writer):
        writer.write(request(path, body(path, model, **more), "Connection: close\r\n"))
        assert (await read_to_end(reader)).startswith(begins)


async def stream(url: str, path: str) -> None:
    await _asked(url, path, "openai/gpt-4o-mini", b"HTTP/1.1 200", stream=True)


async def slow(url: str, path: str) -> None:
    await _asked(url, path, "openai/fault:slow-first-token=0.1", b"HTTP/1.1 200")


async def error(url: str, path: str) -> None:
    await _asked(url, path, "openai/fault:500", b"HTTP/1.1 5", stream=True)


async def unknown(url: str, path: str) -> None:
    await _asked(url, path, "nothing", b"HTTP/1.1 404")


async def cancelled(url: str, path: str) -> None:
    async with connected(url) as (reader, writer):
        writer.write(request(path, body(path, "openai/fault:stall=5", stream=True)))
        await reader.readuntil(b"##")


async def cancelled_before_the_head(url: str, path: str) -> None:
    async with connected(url) as (_, writer):
        writer.write(request(path, body(path, "openai/fault:silence", stream=True)))
        await writer.drain()


async def half_a_body(url: str, path: str) -> None:
    async with connected(url) as (_, writer):
        writer.write(request(path, body(path, "openai/gpt-4o-mini"))[:-5])
        await writer.drain()


async def idle(url: str, path: str) -> None:
    async with connected(url) as (reader, writer):
        writer.write(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await reader.readuntil(b"}")


WAYS = [stream, slow, error, unknown, cancelled, cancelled_before_the_head, half_a_body, idle]


def living() -> Counter[str]:
    """How many objects there are of each type that a request is made of."""
    gc.collect()
    kinds = Counter(map(type, gc.get_objects()))
    return Counter(
        {f"{kind.__module__}.{kind.__qualname__}": number for kind, number in kinds.items() if _counts(kind)}
    )


def _counts(kind: type) -> bool:
    if kind in (asyncio.TimerHandle, StoredResponse):
        return False  # cancelled timers stay with the loop until their time; answers are remembered, so many of them
    return str(kind.__module__).startswith(("tolmach.", "granian", "_asyncio", "asyncio")) or kind.__name__ in _SERVERS


_SERVERS = ("coroutine", "RSGIHeaders", "RSGIHTTPProtocol", "PyFutureAwaitable", "PyIterAwaitable", "PyEmptyAwaitable")


@both
@pytest.mark.parametrize("ask", WAYS, ids=lambda way: way.__name__)
async def test_requests_leave_nothing_behind(interface: Any, ask: Callable[[str, str], Awaitable[None]]):
    async with served(interface) as (url, demo, core):

        async def crowds(rounds: int) -> None:
            for _ in range(rounds):
                await asyncio.gather(*[ask(url, PATHS[i % len(PATHS)]) for i in range(CROWD)])
            async with asyncio.timeout(5):
                while core.under_way:  # noqa: ASYNC110 - callers who left end here a moment later
                    await asyncio.sleep(0.01)
            await demo.log.wait_until(lambda log: all(seen.ended for seen in log.requests))
            demo.log.requests.clear()

        def kept() -> dict[str, int]:
            return {kind: number for kind, number in (living() - before).items() if number >= CROWD}

        await crowds(2)
        before = living()
        await crowds(ROUNDS)
        with suppress(TimeoutError):
            async with asyncio.timeout(5):
                while kept():  # noqa: ASYNC110 - what the server's threads still hold goes a moment later
                    await asyncio.sleep(0.05)
        assert kept() == {}
