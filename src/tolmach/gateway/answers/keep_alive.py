"""Signs of life on a stream whose target is silent, for callers and proxies that give up on silence."""

import asyncio
from collections.abc import Callable, Sized

from tolmach.gateway.http import Writer

__all__ = ["KeepAlive"]


class KeepAlive:
    """Writes `ping()` whenever nothing came for a while: after one to two times `seconds`, then once in `seconds`.

    It looks at how long `seen` is when its timer fires, so that an event costs nothing.
    """

    __slots__ = ("_length", "_loop", "_ping", "_seconds", "_seen", "_timer", "_writer", "_writing")

    def __init__(self, writer: Writer, ping: Callable[[], bytes], seen: Sized, seconds: float) -> None:
        self._writer = writer
        self._ping = ping
        self._seen = seen
        self._seconds = seconds
        self._length = len(seen)
        self._loop = asyncio.get_running_loop()
        self._writing: asyncio.Task[None] | None = None
        self._timer = self._loop.call_later(seconds, self._look)

    def _look(self) -> None:
        length = len(self._seen)
        # One that is still being written says that the caller does not read; more would only pile up.
        if length == self._length and (self._writing is None or self._writing.done()):
            self._writing = self._loop.create_task(self._write())
        self._length = length
        self._timer = self._loop.call_later(self._seconds, self._look)

    async def _write(self) -> None:
        try:
            await self._writer.write(self._ping())
        except ConnectionError:
            # The caller has gone; whoever answers it is told by the server, too.
            self._timer.cancel()

    def stop(self) -> None:
        self._timer.cancel()
        if self._writing is not None:
            self._writing.cancel()
