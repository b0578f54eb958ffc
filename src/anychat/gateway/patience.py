"""A caller's wait for the first token of a stream, which must not look like a dead connection.

While a wait is short nothing is sent, so that a failure has its HTTP status. A longer one would be given up by
proxies and callers: the head goes out and a comment with it, then one at every interval.
"""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from anychat.gateway.keep_alive import KeepAlive
from anychat.gateway.visit import Visit
from anychat.transport.lasting import Lasting

__all__ = ["Patience"]

T = TypeVar("T")

_COMMENT = b": keep-alive\n\n"
"""Every API's readers pass over it; a `ping` may not stand before Anthropic's `message_start`."""


class Patience:
    """Signs of life for those who wait: the first after one to two times `seconds`."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pending: Lasting

    async def during(self, visit: Visit, opening: Awaitable[T]) -> T:
        """What is opened. Where it or its failure took long, `visit.stream()` has been called meanwhile."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop = loop
            self._pending = Lasting(loop, self._seconds)
        waiting = _Waiting(visit, self._seconds)
        pending = self._pending
        pending.add(waiting)
        try:
            return await opening
        finally:
            pending.discard(waiting)
            await waiting.end()


class _Waiting:
    __slots__ = ("_alive", "_seconds", "_speaking", "_visit")

    def __init__(self, visit: Visit, seconds: float) -> None:
        self._visit = visit
        self._seconds = seconds
        self._speaking: asyncio.Task[None] | None = None
        self._alive: KeepAlive | None = None

    def lasts(self) -> None:
        self._speaking = asyncio.ensure_future(self._speak())

    async def _speak(self) -> None:
        try:
            writer = await self._visit.stream()
            await writer.write(_COMMENT)
        except ConnectionError:
            return  # the caller has gone; whoever answers it is told by the server, too
        self._alive = KeepAlive(writer, lambda: _COMMENT, (), self._seconds)

    async def end(self) -> None:
        if self._speaking is not None:
            await self._speaking
        if self._alive is not None:
            self._alive.stop()
