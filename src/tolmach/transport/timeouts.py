"""Time limits of an exchange, kept with one timer however many pieces its body comes in."""

import asyncio
import time
from math import inf

from tolmach.errors import TimedOut, TimeoutPhase
from tolmach.transport.base import Timeouts
from tolmach.transport.coarse_timer import coarse_timer

__all__ = ["Watch"]

_FAR = 3.0
"""Seconds; no limit that is farther away can pass before an exchange has been found to last."""

_SAID: dict[TimeoutPhase, str] = {
    "connect": "no connection within {seconds:g} s",
    "first_byte": "no answer within {seconds:g} s",
    "idle": "silent for {seconds:g} s",
    "total": "not done within {seconds:g} s",
}


class Watch:
    """Cancels the task that waits for an exchange when a time limit passes.

    A waiter calls `begin` before it waits and `end` after it. When its wait is cancelled, `expired`
    says whether that was the watch. The timer is set once and looks at the clock when it fires, so
    that a piece of the body costs two assignments and no timer. An exchange whose limits are seconds
    away gets its timer when it has lasted a second; most are over by then.
    The limit on silence runs only while somebody waits; the one on the whole runs always.
    """

    __slots__ = (
        "_at",
        "_cancelling",
        "_grown",
        "_idle",
        "_limit",
        "_loop",
        "_nursery",
        "_phase",
        "_since",
        "_task",
        "_timeouts",
        "_timer",
        "_until",
        "_what",
        "_young",
    )

    def __init__(self, what: str, timeouts: Timeouts, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._what = what
        self._timeouts = timeouts
        self._loop = asyncio.get_running_loop() if loop is None else loop
        self._since = self._loop.time()
        self._until = inf if timeouts.total is None else self._since + timeouts.total
        if timeouts.deadline is not None:
            self._until = min(self._until, self._since + timeouts.deadline - time.monotonic())
        self._idle = False
        self._limit = inf if timeouts.first_byte is None else timeouts.first_byte
        self._phase: TimeoutPhase | None = None
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0
        self._timer: asyncio.TimerHandle | None = None
        self._at = inf
        self._nursery = coarse_timer(self._loop)
        self._young = self._grown = False
        self._arm(self._deadline())

    def check(self) -> None:
        """Raises `TimedOut` when the whole has taken too long; for what need not wait."""
        if self._until < inf and self._loop.time() >= self._until:
            raise self.error("total")

    def begin(self) -> None:
        """The running task waits from here. Raises `TimedOut` when the whole has taken too long already."""
        if self._phase is not None:
            raise self.error(self._phase)
        task = asyncio.current_task(self._loop)
        if task is not None:
            self._cancelling = task.cancelling()
        self._task = task
        self._since = self._loop.time()

    def end(self) -> None:
        """The wait is over."""
        self._task = None

    def has_head(self) -> None:
        """The head is there; from here on the limit on silence holds."""
        self._task = None
        self._idle = True
        self._limit = inf if self._timeouts.idle is None else self._timeouts.idle
        self._since = self._loop.time()
        deadline = self._deadline()
        if deadline < self._at and not (self._young and deadline > self._since + _FAR):
            self.disarm()
            self._arm(deadline)

    def expired(self) -> TimedOut | None:
        """After a cancelled wait: the error to raise, or None when somebody else cancelled the task."""
        task, self._task = self._task, None
        if self._phase is None or task is None or task.uncancel() > self._cancelling:
            return None
        return self.error(self._phase)

    def error(self, phase: TimeoutPhase) -> TimedOut:
        """What a passed limit is told as."""
        seconds: float | None = getattr(self._timeouts, phase)
        said = _SAID[phase].format(seconds=seconds or 0.0)
        return TimedOut(f"{self._what}: {said}", phase=phase, seconds=seconds)

    def _deadline(self) -> float:
        return min(self._since + self._limit, self._until)

    def _arm(self, when: float) -> None:
        self._at = when
        if when < inf:
            if when - self._since > _FAR and not self._grown:
                self._young = True
                self._nursery.add(self)
            else:
                self._timer = self._loop.call_at(when, self._look)

    def elapsed(self) -> None:
        """The exchange has lasted: from here on it has a timer of its own."""
        self._young = False
        self._grown = True
        self._arm(self._deadline())

    def disarm(self) -> None:
        """No limit holds any more."""
        if self._young:
            self._young = False
            self._nursery.discard(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        now = self._loop.time()
        over = now >= self._until
        if self._task is None:
            if over:
                self._phase = "total"
            else:
                self._arm(min(now + self._limit, self._until))
        elif over or now >= self._since + self._limit:
            self._phase = "total" if over else "idle" if self._idle else "first_byte"
            self._task.cancel()
        else:
            self._arm(self._deadline())
