"""What the gateway counts, for Prometheus.

Labels are few and bounded: names of surfaces and of targets, statuses, kinds of errors. Targets that the configuration
names are counted by their names, all others as one: a caller may ask for ever new models of one provider.

What is counted for a request costs less than 2 microseconds together (`gateway.telemetry.counters`). It is settled,
that is added to prometheus-client's own counters, twice a second and whenever they are asked for.

With several workers each counts in files that all of them share (`PROMETHEUS_MULTIPROC_DIR`, which
`gateway.serving.workers` sets), and whichever is asked tells the sum.
"""

import asyncio
import os
import platform
import time
from collections.abc import Callable, Sequence, Sized
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from tolmach.gateway.telemetry.counters import GAPS, OTHER, SECONDS, Level, Pacing, Spread, TargetTally
from tolmach.routing.failures import classify
from tolmach.routing.health import Health
from tolmach.routing.journal import Attempt, Journal
from tolmach.version import __version__

__all__ = ["SHARED_COUNTS", "Asking", "Metrics", "Sharing", "Writing"]

SHARED_COUNTS = "PROMETHEUS_MULTIPROC_DIR"
"""The environment variable with the folder of the counts that workers share; prometheus-client's own."""

_SETTLE_SECONDS = 0.5
_LOOK_SECONDS = 2.0
"""How often a worker looks at its circuits although nobody asks it."""
_STATES = {"closed": 0, "half-open": 1, "open": 2}


class Writing(Protocol):
    """What is told of the ledger."""

    written: int
    dropped: int
    problem: str

    @property
    def queued(self) -> int: ...

    @property
    def lag(self) -> float: ...


class Sharing(Protocol):
    """What is told of the shared state."""

    @property
    def healthy(self) -> bool: ...


class Asking(Protocol):
    """What is told of the callers' keys."""

    @property
    def keys(self) -> Sized: ...

    @property
    def problem(self) -> str: ...


class Metrics:
    """The counters of one gateway, in a registry of their own. Used by one thread.

    `configured` says which targets are counted by name; by default all, for those who make up no names.
    `callers`, `health`, `ledger` and `state` are looked at whenever the metrics are asked for, where they are set.
    """

    content_type = CONTENT_TYPE_LATEST

    def __init__(self, configured: Callable[[str], bool] | None = None) -> None:
        self._configured = configured
        self.health: Health | None = None
        self.ledger: Writing | None = None
        self.state: Sharing | None = None
        self.callers: Asking | None = None
        self.open_streams = Level()
        self._targets: dict[str, TargetTally] = {}
        self._cancelled: dict[str, int] = {}
        self._errors: dict[tuple[str, str, str], int] = {}
        self._retries: dict[str, int] = {}
        self._refused: dict[str, int] = {}
        self._circuits: set[tuple[str, str]] = set()
        self._rows = (0, 0)
        self._look_at = 0.0
        self._settling: asyncio.TimerHandle | None = None
        self.registry = CollectorRegistry(auto_describe=True)
        self._declare_counters()
        self._declare_times()
        self._declare_gauges()

    def _declare_counters(self) -> None:
        self._requests_total = self._counter("tolmach_requests", "Requests answered.", "surface", "target", "status")
        self._cancelled_total = self._counter(
            "tolmach_requests_cancelled", "Requests whose caller went away.", "surface"
        )
        self._errors_total = self._counter(
            "tolmach_errors", "Failed requests by kind of error.", "surface", "target", "error"
        )
        self._attempts_total = self._counter(
            "tolmach_attempts", "Attempts to have a question answered.", "target", "outcome"
        )
        self._retries_total = self._counter(
            "tolmach_retries", "Attempts that followed a failed one, by what that one failed of.", "reason"
        )
        self._refused_total = self._counter(
            "tolmach_refused", "Questions refused by a limit or budget of the caller's key.", "reason"
        )
        self._tokens_total = self._counter("tolmach_tokens", "Tokens as counted by targets.", "target", "direction")
        self._ledger_rows_total = self._counter("tolmach_ledger_rows", "Rows that came to the ledger.", "outcome")
        self._reloads_total = self._counter("tolmach_config_reloads", "Readings of the configuration.", "outcome")

    def _declare_times(self) -> None:
        self._first_seconds = self._times("tolmach_first_token_seconds", "Time to the first token.", SECONDS)
        self._gap_seconds = self._times("tolmach_inter_token_seconds", "Time between two pieces of a stream.", GAPS)
        self._total_seconds = self._times("tolmach_request_seconds", "Time of a whole answer.", SECONDS)

    def _declare_gauges(self) -> None:
        self._open = self._gauge("tolmach_open_streams", "Streams being answered.", "livesum")
        self._circuit = self._gauge(
            "tolmach_circuit_state",
            "Circuit of a target, for each of its keys: 0 closed, 1 half-open, 2 open.",
            "livemax",
            "target",
            "key",
        )
        self._ledger_queued = self._gauge("tolmach_ledger_queued_rows", "Rows that wait to be written.", "livesum")
        self._ledger_lag = self._gauge("tolmach_ledger_lag_seconds", "Age of the oldest row that waits.", "livemax")
        self._ledger_failing = self._gauge(
            "tolmach_ledger_failing", "1 while the ledger's database cannot be written to.", "livemax"
        )
        self._state_healthy = self._gauge(
            "tolmach_state_healthy", "0 while the server of the shared state is not reached.", "livemin"
        )
        self._state_healthy.set(1)
        self._keys = self._gauge("tolmach_keys", "Keys of callers in force.", "livemax")
        self._keys_missing = self._gauge(
            "tolmach_keys_missing",
            "1 while a key is needed and there is none, or the ledger has lost those that there were.",
            "livemax",
        )
        self._broken = self._gauge(
            "tolmach_config_reload_failed", "1 while the configuration as it stands is not in force.", "livemax"
        )
        self._broken.set(0)
        build = self._gauge("tolmach_build_info", "1; what runs is in the labels.", "livemax", "version", "python")
        build.labels(__version__, platform.python_version()).set(1)

    def _counter(self, name: str, help: str, *labels: str) -> Counter:
        return Counter(name, help, labels, registry=self.registry)

    def _times(self, name: str, help: str, bounds: Sequence[float]) -> Histogram:
        return Histogram(name, help, ["target"], buckets=bounds, registry=self.registry)

    def _gauge(self, name: str, help: str, together: str, *labels: str) -> Gauge:
        """`together` is how the values of several workers become one."""
        return Gauge(name, help, labels, registry=self.registry, multiprocess_mode=together)  # type: ignore[arg-type]

    # The hot path

    def answered(self, surface: str, target: str, status: int, seconds: float) -> None:
        """A request is at its end; `target` is empty where none was asked."""
        tally = self._targets.get(target) or self._tally(target)
        key = (surface, status)
        tally.answered[key] = tally.answered.get(key, 0) + 1
        if target:
            tally.total.add(seconds)
        if self._settling is None:
            self._settle_later()

    def tried(self, journal: Journal) -> None:
        """A question is at its end: count its attempts, and what each of them gave."""
        attempts = journal.attempts
        for attempt in attempts:
            name = attempt.target.name
            tally = self._targets.get(name) or self._tally(name)
            outcomes = tally.outcomes
            outcome = attempt.outcome if attempt.error is None else classify(attempt.error)
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
            if attempt.first is not None:
                tally.first.add(attempt.first - attempt.started)
            usage = attempt.usage
            if usage is not None and not usage.estimated:
                # What services count may be anything; a counter must not go down.
                if usage.prompt_tokens > 0:
                    tally.prompt += usage.prompt_tokens
                if usage.completion_tokens > 0:
                    tally.completion += usage.completion_tokens
        if len(attempts) > 1:
            self._retried(attempts)

    def pacing(self, target: str) -> Pacing:
        """For one stream of the target, from its first piece on."""
        return Pacing((self._targets.get(target) or self._tally(target)).gaps)

    # What is rare

    def failed(self, surface: str, target: str, error: str) -> None:
        """A request ended in an error."""
        key = (surface, (self._targets.get(target) or self._tally(target)).name, error)
        self._errors[key] = self._errors.get(key, 0) + 1

    def cancelled(self, surface: str) -> None:
        """A caller went away."""
        self._cancelled[surface] = self._cancelled.get(surface, 0) + 1
        if self._settling is None:
            self._settle_later()

    def refused(self, reason: str) -> None:
        """A limit or a budget of the caller's key was reached."""
        self._refused[reason] = self._refused.get(reason, 0) + 1

    def reloaded(self, good: bool) -> None:
        self._reloads_total.labels("good" if good else "failed").inc()
        self._broken.set(0 if good else 1)

    def _retried(self, attempts: Sequence[Attempt]) -> None:
        last: Attempt | None = None
        for attempt in attempts:
            # One that began while the other was still under way was a second one at the same time, no retry.
            if last is not None and last.error is not None and attempt.started >= (last.ended or 0.0):
                reason = classify(last.error)
                self._retries[reason] = self._retries.get(reason, 0) + 1
            if attempt.outcome == "failed":
                last = attempt

    def _tally(self, target: str) -> TargetTally:
        """That of a target which is not known yet, or of all others."""
        if target and self._configured is not None and not self._configured(target):
            target = OTHER
        tally = self._targets.get(target)
        if tally is None:
            tally = self._targets[target] = TargetTally(target)
        return tally

    # Settling

    def _settle_later(self) -> None:
        self._settling = asyncio.get_running_loop().call_later(_SETTLE_SECONDS, self._settle_in_time)

    def _settle_in_time(self) -> None:
        self._settling = None
        self.settle()
        if os.environ.get(SHARED_COUNTS):
            # Another worker may be the one that is asked, so this one tells what it sees although nobody asks.
            if time.monotonic() >= self._look_at:
                self._look_at = time.monotonic() + _LOOK_SECONDS
                self._look()
            self._settle_later()

    def settle(self) -> None:
        """Add what was counted since the last time to prometheus-client's own counters."""
        for tally in self._targets.values():
            self._settle_target(tally)
        for (surface, target, error), failures in self._errors.items():
            self._errors_total.labels(surface, target, error).inc(failures)
        self._errors.clear()
        for counted, total in (
            (self._cancelled, self._cancelled_total),
            (self._retries, self._retries_total),
            (self._refused, self._refused_total),
        ):
            for label, number in counted.items():
                total.labels(label).inc(number)
            counted.clear()
        self._open.set(self.open_streams.value)
        if self.ledger is not None:
            self._settle_ledger(self.ledger)
        if self.state is not None:
            self._state_healthy.set(1 if self.state.healthy else 0)
        if self.callers is not None:
            self._keys.set(len(self.callers.keys))
            self._keys_missing.set(1 if self.callers.problem else 0)

    def _settle_target(self, tally: TargetTally) -> None:
        name = tally.name
        for (surface, status), answers in tally.answered.items():
            self._requests_total.labels(surface, name, status).inc(answers)
        tally.answered.clear()
        for outcome, attempts in tally.outcomes.items():
            self._attempts_total.labels(name, outcome).inc(attempts)
        tally.outcomes.clear()
        if tally.prompt or tally.completion:
            self._tokens_total.labels(name, "prompt").inc(tally.prompt)
            self._tokens_total.labels(name, "completion").inc(tally.completion)
            tally.prompt = tally.completion = 0
        _add(self._first_seconds, name, tally.first)
        _add(self._gap_seconds, name, tally.gaps)
        _add(self._total_seconds, name, tally.total)

    def _settle_ledger(self, ledger: Writing) -> None:
        rows = (ledger.written, ledger.dropped)
        for outcome, now, before in zip(("written", "dropped"), rows, self._rows, strict=True):
            self._ledger_rows_total.labels(outcome).inc(max(0, now - before))
        self._rows = rows
        self._ledger_queued.set(ledger.queued)
        self._ledger_lag.set(ledger.lag)
        self._ledger_failing.set(1 if ledger.problem else 0)

    def _look(self) -> None:
        """Tell the circuits as they are now; of targets that are forgotten, that nothing is known against them."""
        if self.health is None:
            return
        told: set[tuple[str, str]] = set()
        for seen in self.health.snapshot(time.monotonic()):
            if (self._targets.get(seen.target) or self._tally(seen.target)).name != seen.target:
                continue  # one of the nameless others
            # As everywhere for people, the first of several keys is key 1.
            labels = (seen.target, str(int(seen.id.rpartition("#")[2]) + 1))
            told.add(labels)
            self._circuit.labels(*labels).set(_STATES[seen.state])
        for gone in self._circuits - told:
            self._circuit.labels(*gone).set(0)
        self._circuits = told

    def text(self) -> bytes:
        """The exposition in Prometheus' text format; of all workers together."""
        self.settle()
        self._look()
        if not os.environ.get(SHARED_COUNTS):
            return generate_latest(self.registry)
        from prometheus_client.multiprocess import MultiProcessCollector

        together = CollectorRegistry()
        MultiProcessCollector(together)  # type: ignore[no-untyped-call]  # prometheus-client has no annotation there
        return generate_latest(together)


def _add(histogram: Histogram, target: str, spread: Spread) -> None:
    """Add many measurements at once, which `Histogram.observe` does one by one: there is no public way to."""
    taken = spread.take()
    if taken is None:
        return
    counts, total = taken
    child = histogram.labels(target)
    child._sum.inc(total)
    for bucket, count in zip(child._buckets, counts, strict=True):
        if count:
            bucket.inc(count)
