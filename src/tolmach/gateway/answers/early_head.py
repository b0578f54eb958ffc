"""A caller's wait for the first token of a stream, which must not look like a dead connection.

While a wait is short nothing is sent, so that a failure has its HTTP status. A longer one would be given up by
proxies and callers: the head goes out and a comment with it, then one at every interval.
"""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from tolmach.gateway.answers.keep_alive import KeepAlive
from tolmach.gateway.context import RequestContext
from tolmach.transport.coarse_timer import CoarseTimer

__all__ = ["EarlyHead"]

T = TypeVar("T")

_COMMENT = b": keep-alive\n\n"
"""Every API's readers pass over it; a `ping` may not stand before Anthropic's `message_start`."""


class EarlyHead:
    """Signs of life for those who wait: the first after one to two times `seconds`."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pending: CoarseTimer

    async def during(self, context: RequestContext, opening: Awaitable[T]) -> T:
        """What is opened. Where it or its failure took long, `context.stream()` has been called meanwhile."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop = loop
            self._pending = CoarseTimer(loop, self._seconds)
        waiting = _Waiting(context, self._seconds)
        pending = self._pending
        pending.add(waiting)
        try:
            return await opening
        finally:
            pending.discard(waiting)
            await waiting.end()


class _Waiting:
    __slots__ = ("_alive", "_context", "_seconds", "_speaking")

    def __init__(self, context: RequestContext, seconds: float) -> None:
        self._context = context
        self._seconds = seconds
        self._speaking: asyncio.Task[None] | None = None
        self._alive: KeepAlive | None = None

    def elapsed(self) -> None:
        self._speaking = asyncio.ensure_future(self._speak())

    async def _speak(self) -> None:
        try:
            writer = await self._context.stream()
            await writer.write(_COMMENT)
        except ConnectionError:
            return  # the caller has gone; whoever answers it is told by the server, too
        self._alive = KeepAlive(writer, lambda: _COMMENT, (), self._seconds)

    async def end(self) -> None:
        if self._speaking is not None:
            await self._speaking
        if self._alive is not None:
            self._alive.stop()
