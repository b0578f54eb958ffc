"""Counting as cheaply as Python can: whole numbers in lists, added to Prometheus' own now and then.

prometheus-client takes a lock for each number, a few of them for one answer, which costs more than the
rest of the counting. What is counted here is taken out twice a second (`gateway.telemetry.metrics`). One thread only.
"""

import time
from bisect import bisect_left

__all__ = ["GAPS", "OTHER", "SECONDS", "Level", "Pacing", "Spread", "TargetTally"]

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
"""Bounds for the times of answers."""
GAPS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Bounds for the times between two pieces of a stream."""
OTHER = "other"
"""Stands for all targets beyond those that are counted by name."""


class Level:
    """How many there are of something now."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0

    def inc(self) -> None:
        self.value += 1

    def dec(self) -> None:
        self.value -= 1


class Spread:
    """Measurements in seconds, as a histogram: how many up to each of the bounds, and their sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        """Of each bound those that are above the one before; the last for what is above all."""
        self.total = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.total += seconds

    def take(self) -> tuple[list[int], float] | None:
        """What was added since the last time; None when it is nothing."""
        counts = self.counts
        if not any(counts):
            return None
        taken = (counts.copy(), self.total)
        # In place: a `Pacing` under way holds the list.
        counts[:] = [0] * len(counts)
        self.total = 0.0
        return taken


class Pacing:
    """The times between the pieces of one stream. `tick` is called for each piece after the first."""

    __slots__ = ("_counts", "_last", "_spread")

    def __init__(self, spread: Spread) -> None:
        self._spread = spread
        self._counts = spread.counts
        self._last = time.monotonic()

    def tick(self) -> None:
        now = time.monotonic()
        gap = now - self._last
        self._last = now
        self._counts[bisect_left(GAPS, gap)] += 1
        self._spread.total += gap


class TargetTally:
    """What was counted of one target since it was last taken out."""

    __slots__ = ("answered", "completion", "first", "gaps", "name", "outcomes", "prompt", "total")

    def __init__(self, name: str) -> None:
        self.name = name
        self.answered: dict[tuple[str, int], int] = {}
        """By surface and status."""
        self.outcomes: dict[str, int] = {}
        """Of attempts."""
        self.prompt = 0
        self.completion = 0
        self.first = Spread(SECONDS)
        self.total = Spread(SECONDS)
        self.gaps = Spread(GAPS)
