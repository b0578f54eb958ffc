"""What the gateway counts, for Prometheus.

Labels are few and bounded: names of surfaces and of configured targets, statuses, kinds of errors.
Children are looked up once; counting an answer costs a few microseconds.

With several workers each counts in files that all of them share (`PROMETHEUS_MULTIPROC_DIR`, which
`gateway.workers` sets), and whichever is asked tells the sum.
"""

import asyncio
import os
from functools import lru_cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

__all__ = ["SHARED_COUNTS", "Metrics"]

SHARED_COUNTS = "PROMETHEUS_MULTIPROC_DIR"
"""The environment variable with the folder of the counts that workers share; prometheus-client's own."""

_SETTLE_SECONDS = 0.5

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)


class Metrics:
    """The counters of one gateway, in a registry of their own."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=True)
        self._requests = Counter(
            "anychat_requests", "Requests answered.", ["surface", "target", "status"], registry=self.registry
        )
        self._cancelled = Counter(
            "anychat_requests_cancelled", "Requests whose caller went away.", ["surface"], registry=self.registry
        )
        self._errors = Counter(
            "anychat_errors",
            "Failed requests by kind of error.",
            ["surface", "target", "error"],
            registry=self.registry,
        )
        self._tokens = Counter(
            "anychat_tokens", "Tokens as counted by targets.", ["target", "direction"], registry=self.registry
        )
        self._first = Histogram(
            "anychat_first_token_seconds",
            "Time to the first token.",
            ["target"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._total = Histogram(
            "anychat_request_seconds", "Time of a whole answer.", ["target"], buckets=_SECONDS, registry=self.registry
        )
        self.open_streams = Gauge(
            "anychat_open_streams", "Streams being answered.", registry=self.registry, multiprocess_mode="livesum"
        )
        self._reloads = Counter(
            "anychat_config_reloads", "Readings of the configuration.", ["outcome"], registry=self.registry
        )
        self._broken = Gauge(
            "anychat_config_reload_failed",
            "1 while the configuration as it stands is not in force.",
            registry=self.registry,
            multiprocess_mode="livemax",
        )
        self._broken.set(0)
        self._answered: dict[tuple[str, str, int], int] = {}
        self._counted: dict[tuple[str, str], int] = {}
        self._settling: asyncio.TimerHandle | None = None
        self._first_child = lru_cache(1024)(self._first.labels)
        self._total_child = lru_cache(1024)(self._total.labels)

    def answered(self, surface: str, target: str, status: int, seconds: float) -> None:
        key = (surface, target, status)
        self._answered[key] = self._answered.get(key, 0) + 1
        if self._settling is None:
            self._settling = asyncio.get_running_loop().call_later(_SETTLE_SECONDS, self._settle)
        if target:
            self._total_child(target).observe(seconds)

    def failed(self, surface: str, target: str, error: str) -> None:
        self._errors.labels(surface, target, error).inc()

    def cancelled(self, surface: str) -> None:
        self._cancelled.labels(surface).inc()

    def first_token(self, target: str, seconds: float) -> None:
        self._first_child(target).observe(seconds)

    def tokens(self, target: str, prompt: int, completion: int) -> None:
        for key, tokens in (((target, "prompt"), prompt), ((target, "completion"), completion)):
            self._counted[key] = self._counted.get(key, 0) + max(tokens, 0)

    def _settle(self) -> None:
        """Add what was counted since the last time: prometheus-client takes a lock for each addition."""
        if self._settling is not None:
            self._settling.cancel()
            self._settling = None
        for (surface, target, status), answers in self._answered.items():
            self._requests.labels(surface, target, status).inc(answers)
        for (target, direction), tokens in self._counted.items():
            self._tokens.labels(target, direction).inc(tokens)
        self._answered.clear()
        self._counted.clear()

    def reloaded(self, good: bool) -> None:
        self._reloads.labels("good" if good else "failed").inc()
        self._broken.set(0 if good else 1)

    def text(self) -> bytes:
        """The exposition in Prometheus' text format; of all workers together."""
        self._settle()
        if not os.environ.get(SHARED_COUNTS):
            return generate_latest(self.registry)
        from prometheus_client.multiprocess import MultiProcessCollector

        together = CollectorRegistry()
        MultiProcessCollector(together)  # type: ignore[no-untyped-call]  # prometheus-client has no annotation there
        return generate_latest(together)
