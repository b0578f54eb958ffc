"""What stands behind an answer's end, read so that its connection can serve again."""

import asyncio
from collections.abc import AsyncIterator

from tolmach.errors import TolmachError
from tolmach.transport.base import Exchange

__all__ = ["close_drained", "drain"]

_SECONDS = 0.05
_PIECES = 16

_closing: set[asyncio.Task[None]] = set()
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
    task = asyncio.ensure_future(_close_drained(exchange, pieces))
    _closing.add(task)
    task.add_done_callback(_closing.discard)


async def _close_drained(exchange: Exchange, pieces: AsyncIterator[bytes]) -> None:
    try:
        await drain(pieces)
    finally:
        await exchange.aclose()
