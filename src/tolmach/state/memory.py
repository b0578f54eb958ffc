"""State in this process. Each call has a form that does not wait, `..._now`: an admission takes microseconds."""

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence

from tolmach.state.base import BUCKETS, Outcome, Subscriber, Want

__all__ = ["MemoryState"]

_log = logging.getLogger("tolmach.state")


class _Window:
    """A sliding window: a ring of buckets, the one that is being filled among them."""

    __slots__ = ("_buckets", "_last", "_width", "seconds", "total")

    def __init__(self, seconds: float, now: float) -> None:
        self.seconds = seconds
        self.total = 0
        self._width = seconds / BUCKETS
        self._buckets = [0] * (BUCKETS + 1)
        self._last = int(now / self._width)

    def advance(self, now: float) -> None:
        last = int(now / self._width)
        if last <= self._last:
            return
        buckets = self._buckets
        for bucket in range(max(self._last + 1, last - BUCKETS), last + 1):
            place = bucket % (BUCKETS + 1)
            self.total -= buckets[place]
            buckets[place] = 0
        self._last = last

    def add(self, amount: int) -> None:
        self._buckets[self._last % (BUCKETS + 1)] += amount
        self.total += amount

    def give_back(self, amount: int, at: float) -> None:
        """Remove what was added `at` a time; what has left the window is gone already."""
        bucket = int(at / self._width)
        if self._last - BUCKETS <= bucket <= self._last:
            self._remove(bucket, amount)

    def set(self, total: int) -> None:
        """Make the sum another one: what is missing counts from now, what is too much was the oldest."""
        if total >= self.total:
            self.add(total - self.total)
            return
        for bucket in range(self._last - BUCKETS, self._last + 1):
            self._remove(bucket, self.total - total)

    def wait(self, too_much: int, now: float) -> float:
        """Seconds until so much has left the window; its length when there is not so much in it."""
        for bucket in range(self._last - BUCKETS, self._last + 1):
            too_much -= self._buckets[bucket % (BUCKETS + 1)]
            if too_much <= 0:
                return (bucket + BUCKETS + 1) * self._width - now
        return self.seconds

    def left(self, now: float) -> float:
        """Seconds until it is certainly empty."""
        return (self._last + BUCKETS + 1) * self._width - now

    def _remove(self, bucket: int, amount: int) -> None:
        place = bucket % (BUCKETS + 1)
        removed = min(self._buckets[place], amount)
        self._buckets[place] -= removed
        self.total -= removed


class _Sum:
    """A counter that begins anew at a time."""

    __slots__ = ("ends", "total")

    def __init__(self, seconds: float, now: float) -> None:
        self.total = 0
        self.ends = now + seconds

    def advance(self, now: float) -> None:
        """Nothing: one that has ended is replaced."""

    def add(self, amount: int) -> None:
        self.total = max(self.total + amount, 0)

    def give_back(self, amount: int, at: float) -> None:
        self.total = max(self.total - amount, 0)

    def set(self, total: int) -> None:
        self.total = total

    def wait(self, too_much: int, now: float) -> float:
        return self.ends - now

    def left(self, now: float) -> float:
        return self.ends - now


class MemoryState:
    """For at most `size` counters, `size` values of `weight` bytes in all, and `size` keys of leases.

    What was there first goes first. `now` gives seconds, of any clock that does not go back.
    """

    healthy = True
    problem = ""

    def __init__(
        self, *, now: Callable[[], float] = time.monotonic, size: int = 100_000, weight: int = 256 << 20
    ) -> None:
        self._now = now
        self._size = size
        self._limit = weight
        self._weight = 0
        self._values: OrderedDict[str, tuple[float, bytes]] = OrderedDict()
        self._counters: dict[str, _Window | _Sum] = {}
        self._leases: dict[str, dict[str, float]] = {}
        self._subscribers: dict[str, list[Subscriber]] = {}

    # Values

    def get_now(self, key: str) -> bytes | None:
        entry = self._values.get(key)
        return entry[1] if entry is not None and entry[0] > self._now() else None

    def put_now(self, key: str, value: bytes, seconds: float) -> None:
        self.take_now(key)
        if len(value) > self._limit:
            return
        now = self._now()
        self._values[key] = (now + seconds, value)
        self._weight += len(value)
        while self._values and (len(self._values) > self._size or self._weight > self._limit or self._first() <= now):
            self.take_now(next(iter(self._values)))

    def _first(self) -> float:
        """When the value ends that was put before all others."""
        return next(iter(self._values.values()))[0]

    def take_now(self, key: str) -> bytes | None:
        entry = self._values.pop(key, None)
        if entry is None:
            return None
        self._weight -= len(entry[1])
        return entry[1] if entry[0] > self._now() else None

    # Counters

    def add_now(self, key: str, amount: int, seconds: float) -> int:
        counter = self._sum(key, seconds, self._now())
        counter.add(amount)
        return counter.total

    def at_least_now(self, key: str, amount: int, seconds: float) -> int:
        counter = self._sum(key, seconds, self._now())
        counter.total = max(counter.total, amount)
        return counter.total

    def take_if_below_now(self, wants: Sequence[Want]) -> Outcome:
        now = self._now()
        counters = [self._counter(want, now) for want in wants]
        for place, (want, counter) in enumerate(zip(wants, counters, strict=True)):
            too_much = counter.total + want.amount - want.limit
            if too_much > 0:
                used = tuple([counter.total for counter in counters])
                return Outcome(used, now, place, counter.wait(too_much, now))
        for want, counter in zip(wants, counters, strict=True):
            counter.add(want.amount)
        return Outcome(tuple([counter.total for counter in counters]), now)

    def settle(self, wants: Sequence[Want], amounts: Sequence[int], at: float) -> None:
        now = self._now()
        for want, amount in zip(wants, amounts, strict=True):
            more = amount - want.amount
            if more > 0:
                self._counter(want, now).add(more)
            elif more < 0 and (counter := self._live(want.key, now)) is not None:
                counter.give_back(-more, at)

    def set_now(self, want: Want, used: int) -> None:
        """Make a counter hold what somebody else knows that it holds."""
        self._counter(want, self._now()).set(used)

    def counters(self) -> Iterator[tuple[str, int, float, bool]]:
        """Of each counter that holds something: its key, what it holds, its `seconds`, and whether it is `fixed`."""
        now = self._now()
        for key in list(self._counters):
            counter = self._live(key, now)
            if counter is not None and counter.total:
                fixed = isinstance(counter, _Sum)
                yield key, counter.total, counter.left(now) if isinstance(counter, _Sum) else counter.seconds, fixed

    def _counter(self, want: Want, now: float) -> _Window | _Sum:
        if want.fixed:
            return self._sum(want.key, want.seconds, now)
        counter = self._counters.get(want.key)
        if not isinstance(counter, _Window) or counter.seconds != want.seconds:
            counter = _Window(want.seconds, now)
            self._keep(want.key, counter, now)
        counter.advance(now)
        return counter

    def _sum(self, key: str, seconds: float, now: float) -> _Sum:
        counter = self._counters.get(key)
        if not isinstance(counter, _Sum) or counter.ends <= now:
            counter = _Sum(seconds, now)
            self._keep(key, counter, now)
        return counter

    def _live(self, key: str, now: float) -> _Window | _Sum | None:
        """The counter of a key, if it has not ended."""
        counter = self._counters.get(key)
        if counter is None or counter.left(now) <= 0:
            return None
        counter.advance(now)
        return counter

    def _keep(self, key: str, counter: _Window | _Sum, now: float) -> None:
        if len(self._counters) >= self._size:
            ended = [key for key, each in self._counters.items() if each.left(now) <= 0]
            # When all are in use a tenth of them goes: so the next ones need not look at all of them again.
            for old in ended or list(self._counters)[: self._size // 10 + 1]:
                del self._counters[old]
        self._counters[key] = counter

    # Leases

    def lease_now(self, key: str, holder: str, limit: int, seconds: float) -> bool:
        now = self._now()
        holders = self._leases.get(key)
        if holders is None:
            if len(self._leases) >= self._size:
                del self._leases[next(iter(self._leases))]
            holders = self._leases[key] = {}
        if holder not in holders and len(holders) >= limit:
            for each in [each for each, ends in holders.items() if ends <= now]:
                del holders[each]
        if holder not in holders and len(holders) >= limit:
            return False
        holders[holder] = now + seconds
        return True

    def release(self, key: str, holder: str) -> None:
        holders = self._leases.get(key)
        if holders is not None and holders.pop(holder, None) is not None and not holders:
            del self._leases[key]

    # What one tells the others

    def publish(self, channel: str, value: bytes) -> None:
        for subscriber in tuple(self._subscribers.get(channel, ())):
            try:
                subscriber(value)
            except Exception:  # one subscriber's bug is not the publisher's, nor the others'
                _log.exception("a subscriber of %s failed", channel)

    def subscribe_now(self, channel: str, subscriber: Subscriber) -> None:
        self._subscribers.setdefault(channel, []).append(subscriber)

    # The same, as `State` has it

    async def start(self) -> None:
        """Nothing: there is nobody to reach."""

    async def get(self, key: str) -> bytes | None:
        return self.get_now(key)

    async def put(self, key: str, value: bytes, seconds: float) -> None:
        self.put_now(key, value, seconds)

    async def take(self, key: str) -> bytes | None:
        return self.take_now(key)

    async def add(self, key: str, amount: int, seconds: float) -> int:
        return self.add_now(key, amount, seconds)

    async def at_least(self, key: str, amount: int, seconds: float) -> int:
        return self.at_least_now(key, amount, seconds)

    async def take_if_below(self, wants: Sequence[Want]) -> Outcome:
        return self.take_if_below_now(wants)

    async def lease(self, key: str, holder: str, limit: int, seconds: float) -> bool:
        return self.lease_now(key, holder, limit, seconds)

    async def subscribe(self, channel: str, subscriber: Subscriber) -> None:
        self.subscribe_now(channel, subscriber)

    async def aclose(self) -> None:
        """Nothing: what is kept goes with the process."""
