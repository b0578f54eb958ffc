"""How the targets have been doing: circuits, rests, and the time to the first token.

A choice is a target asked with one of its keys; its id is `target#key`. What is the target's fault (silence, a fault
of the service, a model that is gone) counts for the target, so for all of its keys; what is the key's (a refused key,
a used-up limit) counts for that key alone. What this module says of an id is about both.

Times are seconds of one clock, which the caller hands in as `now`; durations are seconds. Nothing here waits.
"""

from typing import Literal

from msgspec import Struct

from tolmach.routing.failures import Kind

__all__ = ["Circuit", "CircuitState", "Health", "Seen"]

CircuitState = Literal["closed", "open", "half-open"]

_WEIGHT_OF_LATEST = 0.3
"""Of the moving average: ten answers later a measurement counts for under 3 %."""


class Circuit(Struct, frozen=True, kw_only=True):
    """When a target is left alone, and for how long (seconds)."""

    failures: int = 3
    """This many in a row open it."""
    first_open: float = 2.0
    growth: float = 2.0
    """Each probe that fails makes the next opening longer by this factor."""
    longest_open: float = 15.0
    """Also for a target that is gone. One that is well again is asked after so long at the latest."""
    credentials_open: float = 15.0
    """For a key that was refused."""
    rest: float = 1.0
    """For a key over its limit when the service did not say how long."""
    longest_rest: float = 600.0
    """A longer Retry-After is taken for this long: a wrong one must not shut a target out for days."""


class Seen(Struct, frozen=True, kw_only=True):
    """How one choice is doing, for metrics and for people."""

    id: str
    target: str
    state: CircuitState
    opens_in: float = 0.0
    """Seconds until an open circuit lets a probe through."""
    rests_for: float = 0.0
    failures: int = 0
    """In a row, of the target."""
    first_token: float | None = None
    probing: bool = False


class _Breaker:
    """One circuit. It is closed while `until` is 0, open before `until`, half-open after."""

    __slots__ = ("failures", "length", "probe", "rest", "until")

    def __init__(self) -> None:
        self.failures = 0
        self.length = 0.0
        self.until = 0.0
        self.rest = 0.0
        self.probe = ""
        """The id that is being asked as the one probe."""

    def state(self, now: float) -> CircuitState:
        if not self.until:
            return "closed"
        return "open" if now < self.until else "half-open"

    def usable(self, now: float) -> bool:
        return self.rest <= now and (not self.until or (self.until <= now and not self.probe))

    def open(self, now: float, length: float) -> bool:
        self.length = length
        self.until = now + length
        return True

    def close(self) -> None:
        self.failures = 0
        self.length = self.until = 0.0
        self.probe = ""

    def rest_until(self, moment: float) -> None:
        self.rest = max(self.rest, moment)


class _Target(_Breaker):
    __slots__ = ("first_token", "keys", "starts")

    def __init__(self) -> None:
        super().__init__()
        self.first_token: float | None = None
        self.starts = 0
        self.keys: list[str] = []


class _Key(_Breaker):
    __slots__ = ("last", "target")

    def __init__(self, target: _Target) -> None:
        super().__init__()
        self.target = target
        self.last = 0


class Health:
    """What is known of the targets. Changed by `started`, then one of `succeeded`, `failed` or `released`.

    At most `most_targets` are remembered: the one that is known for longest is forgotten first.
    """

    def __init__(self, circuit: Circuit | None = None, *, most_targets: int = 4096) -> None:
        self.circuit = circuit or Circuit()
        self._most = most_targets
        self._targets: dict[str, _Target] = {}
        self._keys: dict[str, _Key] = {}
        self._ill: set[str] = set()
        self._sequence = 0

    def well(self, target: str) -> bool:
        """Whether no circuit of the target or its keys is other than closed, and none rests: the quick question."""
        return target not in self._ill

    def state(self, id: str, now: float) -> CircuitState:
        """The circuit of a choice: open if that of its target or its key is, then half-open, then closed."""
        states = {breaker.state(now) for breaker in self._breakers(id)}
        return "open" if "open" in states else "half-open" if "half-open" in states else "closed"

    def usable(self, id: str, now: float) -> bool:
        """Whether it may be asked now: closed, or half-open with no probe under way; and not at rest."""
        return all(breaker.usable(now) for breaker in self._breakers(id))

    def probing(self, id: str) -> bool:
        """Whether a probe is under way that holds this choice back."""
        return any(breaker.probe for breaker in self._breakers(id))

    def opens_until(self, id: str) -> float:
        """When its circuit lets a probe through; 0 if it is closed."""
        return max((breaker.until for breaker in self._breakers(id)), default=0.0)

    def rest_until(self, id: str) -> float:
        """Until when the service asked to be left alone; 0 if it did not."""
        return max((breaker.rest for breaker in self._breakers(id)), default=0.0)

    def first_token(self, target: str) -> float | None:
        """Seconds to the first token, as a moving average; None while there is no measurement."""
        found = self._targets.get(target)
        return None if found is None else found.first_token

    def starts(self, target: str) -> int:
        """How often the target was asked."""
        found = self._targets.get(target)
        return 0 if found is None else found.starts

    def last_start(self, id: str) -> int:
        """The running number of the last time this choice was asked; 0 if it never was."""
        found = self._keys.get(id)
        return 0 if found is None else found.last

    def started(self, id: str, now: float, probe: bool = False) -> None:
        """It is being asked. A probe takes the one slot of each circuit that is half-open."""
        key = self._key(id)
        self._sequence += 1
        key.last = self._sequence
        key.target.starts += 1
        if probe:
            for breaker in (key, key.target):
                if breaker.state(now) == "half-open":
                    breaker.probe = id

    def succeeded(self, id: str, now: float, first_token: float | None = None) -> None:
        """It answered: its circuits close at once. `first_token` is the time it took, where it was measured."""
        key = self._key(id)
        key.close()
        key.target.close()
        if first_token is not None:
            known = key.target.first_token
            part = _WEIGHT_OF_LATEST
            key.target.first_token = first_token if known is None else known + part * (first_token - known)
        self._forget_illness(id, now)

    def failed(
        self, id: str, kind: Kind, now: float, retry_after: float | None = None, circuit: Circuit | None = None
    ) -> bool:
        """It failed. Gives whether a circuit opened by it; `circuit` says when and for how long, else this object's.

        A failure of one that is not the probe changes nothing while the circuit is not closed: it was asked before, or
        for want of another target, and must neither lengthen the opening nor free the probe's slot.
        """
        settings = circuit or self.circuit
        key = self._key(id)
        target = key.target
        self._ill.add(_target(id))  # until the last line finds it well after all
        opened = False
        if kind in ("transient", "silent", "gone"):
            opened = _at_fault(target, kind, now, target.probe == id, settings)
            if retry_after is not None:
                target.rest_until(now + min(retry_after, settings.longest_rest))
        elif kind == "credentials":
            target.close()  # it is there, whatever it answered
            opened = (not key.until or key.probe == id) and key.open(now, settings.credentials_open)
        elif kind == "rate_limited":
            target.close()
            rest = settings.rest if retry_after is None else retry_after
            key.rest_until(now + min(rest, settings.longest_rest))
        elif kind in ("too_long", "final"):
            target.close()
            key.close()
        self.released(id)
        self._forget_illness(id, now)
        return opened

    def released(self, id: str) -> None:
        """The probe was cancelled, or nothing was sent after all: its slot is free again."""
        for breaker in self._breakers(id):
            if breaker.probe == id:
                breaker.probe = ""

    def merge(self, id: str, open_until: float, *, key_only: bool = False) -> None:
        """Take over a circuit that another process opened, until `open_until` of this process's clock.

        It is the target's circuit, or with `key_only` that of the one key. A later end that is known here stays.
        """
        key = self._key(id)
        breaker = key if key_only else key.target
        if open_until > breaker.until:
            breaker.until = open_until
            breaker.length = breaker.length or self.circuit.first_open
            self._ill.add(_target(id))

    def snapshot(self, now: float) -> list[Seen]:
        """Every choice that was ever asked, in the order in which they became known."""
        return [self._seen(id, key, now) for id, key in self._keys.items()]

    def _seen(self, id: str, key: _Key, now: float) -> Seen:
        state = self.state(id, now)
        return Seen(
            id=id,
            target=_target(id),
            state=state,
            opens_in=self.opens_until(id) - now if state == "open" else 0.0,
            rests_for=max(0.0, self.rest_until(id) - now),
            failures=key.target.failures,
            first_token=key.target.first_token,
            probing=self.probing(id),
        )

    def _breakers(self, id: str) -> tuple[_Breaker, ...]:
        key = self._keys.get(id)
        if key is not None:
            return (key, key.target)
        target = self._targets.get(_target(id))
        return () if target is None else (target,)

    def _key(self, id: str) -> _Key:
        found = self._keys.get(id)
        if found is not None:
            return found
        name = _target(id)
        target = self._targets.get(name)
        if target is None:
            if len(self._targets) >= self._most:
                self._forget(next(iter(self._targets)))
            target = self._targets[name] = _Target()
        target.keys.append(id)
        key = self._keys[id] = _Key(target)
        return key

    def _forget(self, name: str) -> None:
        for id in self._targets.pop(name).keys:
            del self._keys[id]
        self._ill.discard(name)

    def _forget_illness(self, id: str, now: float) -> None:
        name = _target(id)
        if name not in self._ill:
            return
        target = self._targets[name]
        if all(not one.until and one.rest <= now for one in (target, *(self._keys[other] for other in target.keys))):
            self._ill.discard(name)


def _target(id: str) -> str:
    return id.rpartition("#")[0]


def _at_fault(target: _Target, kind: Kind, now: float, probe: bool, settings: Circuit) -> bool:
    """Count a failure that is the target's own; gives whether its circuit opened."""
    target.failures += 1
    if probe:
        longer = settings.longest_open if kind == "gone" else target.length * settings.growth
        return target.open(now, min(longer, settings.longest_open))
    if target.until:
        return False
    if kind == "gone":
        return target.open(now, settings.longest_open)
    return target.failures >= settings.failures and target.open(now, min(settings.first_open, settings.longest_open))
