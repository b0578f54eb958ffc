"""The next step of a routed question: whom to ask, after which wait, or to give up.

`next_step` is a function of the rules, the choices, what failed so far, the health of the targets, the clock and a
source of randomness. It changes nothing and waits for nothing. Whoever carries it out tells `Health` what happened.

The order of the choices is:

1. The target that has just failed, where its fault is one that passes: once within a second while the caller has
   nothing of the answer, or as often as the route says, for as long as it says. This takes no attempt that another
   target would need.
2. A target that has not failed yet in this question and is well, by the strategy. A key that was refused or is over
   its limit is passed over for the next key of the same target.
3. What a short wait makes possible: a target at rest, or once more one that failed transiently, after a backoff.
4. A target whose circuit is open, the earliest to recover first. Circuits steer between targets; they never leave a
   question without one.
5. What a longer wait makes possible, up to `retry_after_cap`.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Literal

from msgspec import Struct

from tolmach.routing.failures import Kind, classify
from tolmach.routing.health import Health

__all__ = [
    "Ask",
    "Choice",
    "Failed",
    "GiveUp",
    "Kind",
    "Rules",
    "Skipped",
    "Strategy",
    "classify",
    "next_step",
    "unwell",
]

Strategy = Literal["failover", "weighted", "fastest"]

_MEASURED_AGAIN = 0.02
"""The part of the questions that goes to a slower target, to see whether it still is."""
_OF_THE_KEY: tuple[Kind, ...] = ("credentials", "rate_limited")
"""Failures of one key, which say nothing of the target's others."""
_NOT_AGAIN = frozenset({"final", "gone", "silent", "too_long", "unsupported"})
"""Kinds of failures that another try at the same target does not mend."""

_AT_ONCE = 1.0
"""Seconds; a shorter wait for the same target costs less than what another one may do differently."""
_TRIALS = 3
"""So often a target without a measurement is preferred as the unmeasured one; it may never give one."""


class Rules(Struct, frozen=True, kw_only=True):
    """The settings of a route. Times are seconds."""

    strategy: Strategy = "failover"
    attempts: int = 3
    recover: Literal["off", "restart", "resume"] = "off"
    hedge_after: float | None = None
    retries: int | None = None
    """So often a target is asked again, after a fault that passes, before the next one is; None for once, and only
    while the caller has nothing of the answer and the wait is under a second."""
    retry_after_wait: float = 5.0
    """The longest wait before such a retry, where `retries` is set."""
    backoff: float = 0.2
    backoff_cap: float = 5.0
    retry_after_cap: float = 30.0


class Choice(Struct, frozen=True, cache_hash=True):
    """One target asked with one of its keys. `weight` is that of the target: its first choice's counts."""

    target: str
    key: int = 0
    weight: float = 1.0

    @property
    def id(self) -> str:
        return f"{self.target}#{self.key}"


class Failed(Struct, frozen=True):
    """An attempt that failed, at the time `at`. `asked` is False when nothing was sent: then it is no attempt.

    `passing` says that the same target may answer in a moment.
    """

    choice: Choice
    kind: Kind
    at: float
    retry_after: float | None = None
    asked: bool = True
    passing: bool = False


class Skipped(Struct, frozen=True):
    """A choice that was passed over, and why, in words for people."""

    choice: Choice
    why: str


class Ask(Struct, frozen=True):
    """Wait so many seconds, then ask this one; as a probe when its circuit is half-open."""

    choice: Choice
    wait: float = 0.0
    probe: bool = False
    skipped: tuple[Skipped, ...] = ()


class GiveUp(Struct, frozen=True):
    """Nobody is asked any more. `retry_after` says in how many seconds it may be worth it, where that is known."""

    why: str
    skipped: tuple[Skipped, ...] = ()
    retry_after: float | None = None


class _Group(Struct, frozen=True):
    """A target with its keys, and the steps that ask them at once."""

    target: str
    choices: tuple[Choice, ...]
    ids: tuple[str, ...]
    asks: tuple[Ask, ...]


@lru_cache(maxsize=256)
def _groups(choices: tuple[Choice, ...]) -> tuple[_Group, ...]:
    """The choices by target, in the order of their first appearance."""
    by_target: dict[str, list[Choice]] = {}
    for choice in choices:
        by_target.setdefault(choice.target, []).append(choice)
    return tuple(
        _Group(name, tuple(keys), tuple(key.id for key in keys), tuple(Ask(key) for key in keys))
        for name, keys in by_target.items()
    )


def next_step(
    rules: Rules,
    choices: Sequence[Choice],
    failed: Sequence[Failed],
    health: Health,
    now: float,
    random: Callable[[], float],
    deadline: float | None = None,
    *,
    begun: bool = False,
) -> Ask | GiveUp:
    """What to do next. `random` gives numbers from 0 up to 1, `deadline` is a time of the same clock as `now`.

    `begun` says that the caller has a part of the answer.
    """
    groups = _groups(choices if type(choices) is tuple else tuple(choices))
    if not failed and rules.strategy == "failover" and groups:
        first = groups[0]
        if health.well(first.target) and (deadline is None or now < deadline):
            return first.asks[0] if len(first.asks) == 1 else _least_recent(first, health)
    return _Question(rules, groups, failed, health, now, random, deadline, begun).step()


def _least_recent(group: _Group, health: Health) -> Ask:
    """Keys take turns: the one that was not asked for longest."""
    turns = [health.last_start(id) for id in group.ids]
    return group.asks[turns.index(min(turns))]


def unwell(choice: Choice, health: Health, now: float) -> str:
    """Why a choice is not asked at once, in words for people; empty when it may be."""
    id = choice.id
    if health.usable(id, now):
        return ""
    if health.state(id, now) == "open":
        return f"circuit open for {health.opens_until(id) - now:.1f} s more"
    if health.rest_until(id) > now:
        return f"rests for {health.rest_until(id) - now:.1f} s (Retry-After)"
    return "a probe is under way"


class _Question:
    """One call of `next_step` where something is not as usual."""

    def __init__(
        self,
        rules: Rules,
        groups: tuple[_Group, ...],
        failed: Sequence[Failed],
        health: Health,
        now: float,
        random: Callable[[], float],
        deadline: float | None,
        begun: bool,
    ) -> None:
        self.rules = rules
        self.groups = groups
        self.failed = failed
        self.health = health
        self.now = now
        self.random = random
        self.deadline = deadline
        self.begun = begun
        self.skipped: list[Skipped] = []

    def step(self) -> Ask | GiveUp:
        over = self._over()
        if over:
            return GiveUp(over)
        if (again := self._again()) is not None:
            return again
        left = [(group, allowed) for group in self.groups if (allowed := self._allowed(group))]
        ready = [(group, usable) for group, keys in left if (usable := self._ready(group, keys))]
        if ready:
            return self._ask_at_once(ready)
        return self._ask_later([choice for _, keys in left for choice in keys])

    def _over(self) -> str:
        """Why nobody is asked any more, whatever choices there are; empty if that is not so."""
        if not self.groups:
            return "the route has no target"
        if any(failure.kind == "final" for failure in self.failed):
            return "the failure is final: nobody else is asked"
        if self._attempts_left() <= 0:
            return f"all {self.rules.attempts} attempts are used up"
        if self.deadline is not None and self.now >= self.deadline:
            return "the time for the whole question is over"
        return ""

    def _attempts_left(self) -> int:
        return self.rules.attempts - sum(one.asked and one.kind != "unsupported" for one in self.failed)

    def _again(self) -> Ask | None:
        """The target that has just failed, once more before all others; None where it is the turn of another."""
        last = self.failed[-1] if self.failed else None
        if (
            last is None
            or not last.passing
            or last.kind in _NOT_AGAIN
            or self.health.state(last.choice.id, self.now) != "closed"
        ):
            return None
        others = {choice.target for choice in self._untried()}
        if not others or last.choice.target in others:
            return None  # where nobody else is left all that follows is a retry; its other keys are asked at once
        if self._attempts_left() <= len(others) or self._retried(last.choice.target):
            return None
        held = self._held(last.choice)
        wait = self._wait(last.choice, held)
        if self.rules.retries is None:
            soon = not self.begun and max(wait, last.retry_after or 0.0) < _AT_ONCE
        else:
            soon = held <= self.rules.retry_after_wait
        in_time = self.deadline is None or self.now + wait < self.deadline
        return Ask(last.choice, wait) if soon and in_time else None

    def _untried(self) -> list[Choice]:
        """What may be asked at once and has not failed in this question."""
        failed = {one.choice.target for one in self.failed if one.kind not in _OF_THE_KEY}
        keys = {one.choice for one in self.failed}
        choices = [choice for group in self.groups if group.target not in failed for choice in group.choices]
        return [one for one in choices if one not in keys and self.health.usable(one.id, self.now)]

    def _retried(self, target: str) -> bool:
        """Whether a target has had its retries."""
        asked = sum(one.asked and one.choice.target == target for one in self.failed)
        return asked > (1 if self.rules.retries is None else self.rules.retries)

    def _allowed(self, group: _Group) -> list[Choice]:
        """The keys of a target that may still be asked in this question, now or later."""
        mine = [failure for failure in self.failed if failure.choice.target == group.target]
        for failure in mine:
            if failure.kind in ("too_long", "unsupported", "gone"):
                return self._skip(group.choices, f"already failed: {failure.kind}")
            if failure.kind == "silent" and len(self.groups) > 1:
                return self._skip(group.choices, "was silent")
        allowed = []
        for choice in group.choices:
            barred = next((one for one in mine if one.choice == choice and _bars(one)), None)
            if barred is None:
                allowed.append(choice)
            else:
                self._skip([choice], f"already failed: {barred.kind}")
        return allowed

    def _ready(self, group: _Group, keys: list[Choice]) -> list[Choice]:
        """Those of the keys that may be asked at once: they are well, and the target did not fail in this question."""
        spent = [failure for failure in self.failed if failure.choice.target == group.target]
        tried = next((failure for failure in spent if failure.kind not in _OF_THE_KEY), None)
        if tried is not None:
            return self._skip(keys, f"already failed: {tried.kind}")
        ready = []
        for choice in keys:
            if any(failure.choice == choice for failure in spent):
                self._skip([choice], "already failed: rate_limited")
            elif self.health.usable(choice.id, self.now):
                ready.append(choice)
            else:
                self._skip([choice], unwell(choice, self.health, self.now))
        return ready

    def _skip(self, choices: Sequence[Choice], why: str) -> list[Choice]:
        self.skipped.extend(Skipped(choice, why) for choice in choices)
        return []

    def _ask_at_once(self, ready: list[tuple[_Group, list[Choice]]]) -> Ask:
        group, keys = ready[self._preferred([group for group, _ in ready])]
        choice = min(keys, key=lambda key: self.health.last_start(key.id))
        if self.rules.strategy == "failover":
            before = {one.target for one in self.groups[: self.groups.index(group) + 1]}
            self.skipped = [one for one in self.skipped if one.choice.target in before]
        probe = self.health.state(choice.id, self.now) == "half-open"
        return Ask(choice, probe=probe, skipped=tuple(self.skipped))

    def _preferred(self, groups: list[_Group]) -> int:
        """Which of the targets that are ready: the one whose other key has just failed, else by the strategy."""
        if len(groups) == 1:
            return 0
        names = [group.target for group in groups]
        if self.failed and self.failed[-1].choice.target in names:
            return names.index(self.failed[-1].choice.target)
        if self.rules.strategy == "weighted":
            return _drawn([group.choices[0].weight for group in groups], self.random())
        if self.rules.strategy == "fastest":
            return self._fastest(names)
        return 0

    def _fastest(self, names: list[str]) -> int:
        times = [self._expected(name) for name in names]
        best = times.index(min(times))
        draw = self.random()
        if draw >= _MEASURED_AGAIN or times[best] < 0:
            return best
        others = [place for place in range(len(names)) if place != best]
        return others[int(draw / _MEASURED_AGAIN * len(others))]

    def _expected(self, name: str) -> float:
        """Seconds to the first token; less than 0 for a target that is to be measured first."""
        measured = self.health.first_token(name)
        if measured is not None:
            return measured
        return -1.0 if self.health.starts(name) < _TRIALS else float("inf")

    def _ask_later(self, choices: list[Choice]) -> Ask | GiveUp:
        """The best of what is not ready at once."""
        if not choices:
            return GiveUp("no target is left that could answer", tuple(self.skipped))
        waits: list[float] = []
        for choice in sorted(choices, key=self._turn):
            held = self._held(choice)
            wait = self._wait(choice, held)
            if held <= self.rules.retry_after_cap and (self.deadline is None or self.now + wait < self.deadline):
                probe = self.health.usable(choice.id, self.now) and self.health.state(choice.id, self.now) != "closed"
                skipped = tuple(one for one in self.skipped if one.choice != choice)
                return Ask(choice, wait, probe, skipped)
            waits.append(held or wait)
        why = f"the next target may be asked in {min(waits):.1f} s, which is longer than to be waited for"
        return GiveUp(why, tuple(self.skipped), min(waits))

    def _turn(self, choice: Choice) -> tuple[float, ...]:
        """The order of those that are not ready: a short wait, then an open circuit, then a longer wait."""
        id, health = choice.id, self.health
        failures = [at for at, one in enumerate(self.failed) if one.choice.target == choice.target]
        latest = failures[-1] if failures else -1
        held = self._held(choice)
        barred = health.state(id, self.now) == "open" or health.probing(id)
        if held > self.rules.backoff_cap:
            return (2, held, len(failures), latest, health.last_start(id))
        if barred:
            return (1, len(failures), health.opens_until(id), latest, health.last_start(id))
        return (0, held, len(failures), latest, health.last_start(id))

    def _held(self, choice: Choice) -> float:
        """Seconds that the service still asked to wait before this choice is asked; 0 if it did not."""
        until = self.health.rest_until(choice.id)
        for one in self.failed:
            # A limit is the key's; any other Retry-After is the whole target's.
            of_it = one.choice == choice if one.kind == "rate_limited" else one.choice.target == choice.target
            if of_it and one.retry_after is not None:
                until = max(until, one.at + one.retry_after)
        return max(0.0, until - self.now)

    def _wait(self, choice: Choice, held: float) -> float:
        """The rest that is left, and on top a backoff with full jitter, so that not all come back at once."""
        failures = sum(one.choice.target == choice.target and one.asked for one in self.failed)
        if not failures and not held:
            return 0.0
        doubled = 2.0 ** min(max(0, failures - 1), 30)
        return held + self.random() * min(self.rules.backoff_cap, self.rules.backoff * doubled)


def _bars(failure: Failed) -> bool:
    """Whether this key is not asked again: it was refused, or nothing could be sent, which will not change."""
    return failure.kind == "credentials" or not failure.asked


def _drawn(weights: list[float], draw: float) -> int:
    """The place that a number from 0 up to 1 falls on; the first where all weights are 0."""
    point = draw * sum(weights)
    for place, weight in enumerate(weights):
        if point < weight:
            return place
        point -= weight
    return 0
