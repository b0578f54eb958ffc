"""One coarse timer for many short things: what is still there after some time is told so."""

import asyncio
import threading
from typing import Protocol

__all__ = ["CoarseTimer", "coarse_timer"]


class _Timed(Protocol):
    def elapsed(self) -> None:
        """Called once when the time is over."""


class CoarseTimer:
    """Calls `elapsed` of what is still there after `seconds`, at the latest after twice that.

    A timer for each of many short things would cost more than the things: so there is one, that
    looks at those which were there when it last looked. It runs only while there are any.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self._loop = loop
        self._seconds = seconds
        self._young: dict[_Timed, None] = {}
        self._old: dict[_Timed, None] = {}
        self._timer: asyncio.TimerHandle | None = None

    def add(self, one: _Timed) -> None:
        self._young[one] = None
        if self._timer is None:
            self._timer = self._loop.call_later(self._seconds, self._look)

    def discard(self, one: _Timed) -> None:
        if one in self._young:
            del self._young[one]
        else:
            self._old.pop(one, None)

    def _look(self) -> None:
        late, self._old, self._young = self._old, self._young, {}
        self._timer = self._loop.call_later(self._seconds, self._look) if self._old else None
        for one in late:
            one.elapsed()


class _Here(threading.local):
    timer: CoarseTimer | None = None
    loop: asyncio.AbstractEventLoop | None = None


_here = _Here()


def coarse_timer(loop: asyncio.AbstractEventLoop) -> CoarseTimer:
    """The one of this loop, which runs in this thread; it looks every second."""
    found = _here.timer
    if found is None or _here.loop is not loop:
        found = _here.timer = CoarseTimer(loop, 1.0)
        _here.loop = loop
    return found
