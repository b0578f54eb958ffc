"""What stands behind an answer's end, read so that its connection can serve again."""

import asyncio
from collections.abc import AsyncIterator

from anychat.errors import AnychatError
from anychat.transport.base import Exchange

__all__ = ["let_go", "read_out"]

_SECONDS = 0.05
_PIECES = 16

_letting_go: set[asyncio.Task[None]] = set()
"""So that the tasks live until they are done."""


async def read_out(pieces: AsyncIterator[bytes]) -> None:
    """Read what stands behind the answer's end, for 50 ms at most.

    The answer is whole, so a service that keeps the connection open or breaks it now changes nothing.
    """
    try:
        async with asyncio.timeout(_SECONDS):
            for _ in range(_PIECES):
                await anext(pieces)
    except (StopAsyncIteration, TimeoutError, AnychatError):
        return


def let_go(exchange: Exchange, pieces: AsyncIterator[bytes]) -> None:
    """Read out and close an exchange whose answer is whole, while its caller goes on."""
    task = asyncio.ensure_future(_let_go(exchange, pieces))
    _letting_go.add(task)
    task.add_done_callback(_letting_go.discard)


async def _let_go(exchange: Exchange, pieces: AsyncIterator[bytes]) -> None:
    try:
        await read_out(pieces)
    finally:
        await exchange.aclose()
