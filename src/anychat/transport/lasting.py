"""Telling what lasts from what is over at once, with one timer for all of it."""

import asyncio
import threading
from typing import Protocol

__all__ = ["Lasting", "lasting"]


class _Lasts(Protocol):
    def lasts(self) -> None:
        """Called once when it has lasted."""


class Lasting:
    """Calls `lasts` of what is still there after `seconds`, at the latest after twice that.

    A timer for each of many short things would cost more than the things: so there is one, that
    looks at those which were there when it last looked. It runs only while there are any.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self._loop = loop
        self._seconds = seconds
        self._young: dict[_Lasts, None] = {}
        self._old: dict[_Lasts, None] = {}
        self._timer: asyncio.TimerHandle | None = None

    def add(self, one: _Lasts) -> None:
        self._young[one] = None
        if self._timer is None:
            self._timer = self._loop.call_later(self._seconds, self._look)

    def discard(self, one: _Lasts) -> None:
        if one in self._young:
            del self._young[one]
        else:
            self._old.pop(one, None)

    def _look(self) -> None:
        lasted, self._old, self._young = self._old, self._young, {}
        self._timer = self._loop.call_later(self._seconds, self._look) if self._old else None
        for one in lasted:
            one.lasts()


class _Here(threading.local):
    lasting: Lasting | None = None
    loop: asyncio.AbstractEventLoop | None = None


_here = _Here()


def lasting(loop: asyncio.AbstractEventLoop) -> Lasting:
    """The one of this loop, which runs in this thread; it looks every second."""
    found = _here.lasting
    if found is None or _here.loop is not loop:
        found = _here.lasting = Lasting(loop, 1.0)
        _here.loop = loop
    return found
