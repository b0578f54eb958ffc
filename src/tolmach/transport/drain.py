"""What stands behind an answer's end, read so that its connection can serve again."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from contextlib import aclosing, suppress
from typing import Any

from tolmach.errors import TolmachError
from tolmach.transport.base import Exchange

__all__ = ["close_drained", "drain", "let_end", "run_out"]

_SECONDS = 0.05
_PIECES = 16

_closing: set[asyncio.Future[Any]] = set()
"""So that the tasks live until they are done."""


async def drain(pieces: AsyncIterator[bytes]) -> None:
    """Read what stands behind the answer's end, for 50 ms at most.

    The answer is whole, so a service that keeps the connection open or breaks it now changes nothing.
    """
    try:
        async with asyncio.timeout(_SECONDS):
            for _ in range(_PIECES):
                await anext(pieces)
    except (StopAsyncIteration, TimeoutError, TolmachError):
        return


def close_drained(exchange: Exchange, pieces: AsyncIterator[bytes]) -> None:
    """Read out and close an exchange whose answer is whole, while its caller goes on."""
    let_end(_close_drained(exchange, pieces))


def run_out(events: AsyncGenerator[Any, None]) -> None:
    """Let an answer that is whole come to its end and close what it has open, while its caller goes on."""
    let_end(_run_out(events))


def let_end(ending: Awaitable[Any]) -> None:
    """Let what follows a whole answer end by itself; nobody waits for it, and what it fails of changes nothing."""
    task = asyncio.ensure_future(ending)
    _closing.add(task)
    task.add_done_callback(_closing.discard)


async def _run_out(events: AsyncGenerator[Any, None]) -> None:
    with suppress(TolmachError):
        async with aclosing(events):
            async for _ in events:
                continue


async def _close_drained(exchange: Exchange, pieces: AsyncIterator[bytes]) -> None:
    try:
        await drain(pieces)
    finally:
        await exchange.aclose()
