"""OpenTelemetry: each question told to a collector, as spans and as measurements.

Off the hot path: at the end of a question its journal is put into a queue, and a thread makes spans of it
(`gateway.telemetry.otel`). A collector that is slow or gone delays nobody; beyond `CAPACITY` questions are dropped and
counted.
"""

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Mapping

from tolmach.errors import ConfigError
from tolmach.extras import missing
from tolmach.gateway.context import RequestContext
from tolmach.gateway.telemetry.records import Exporter, QuestionRecord

__all__ = ["CAPACITY", "Telemetry", "open_telemetry", "wanted"]

_log = logging.getLogger("tolmach.gateway")

CAPACITY = 10_000
"""So many questions may wait to be told."""

_ENDPOINTS = (
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
)
_PAUSE = 0.2
"""Seconds for which questions gather."""
_TRACE = ("traceparent", "tracestate")


class Telemetry:
    """Told of each question at its end. `close` stops the thread."""

    def __init__(self, exporter: Exporter) -> None:
        self.dropped = 0
        """Questions that were not told: too many waited."""
        self._exporter = exporter
        self._queue: deque[QuestionRecord] = deque()
        self._seconds = 0.0
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tolmach-telemetry", daemon=True)
        self._thread.start()

    def __call__(self, context: RequestContext) -> None:
        """A question has ended. Never waits, never fails."""
        if len(self._queue) >= CAPACITY:
            self.dropped += 1
            return
        ended = time.time_ns()
        incoming = context.incoming
        headers = incoming.headers
        self._queue.append(
            QuestionRecord(
                request=context.id,
                method=incoming.method,
                path=incoming.path,
                surface=context.surface,
                model=context.model,
                target=context.target,
                status=context.status,
                error=context.error,
                gone=context.gone,
                streamed=context.streamed,
                key=context.key.id if context.key is not None else "",
                trace={name: value for name in _TRACE if (value := headers.get(name))},
                attempts=context.journal.attempts,
                started=ended - int((time.monotonic() - context.started) * 1e9),
                ended=ended,
            )
        )

    def close(self, seconds: float = 3.0) -> None:
        """Tell what is left and stop; what cannot be sent in that time is lost."""
        self._seconds = seconds
        self._closing.set()
        self._thread.join(seconds)

    def _run(self) -> None:
        while not self._closing.wait(_PAUSE):
            self._drain()
        self._drain()
        # Here and not in `close`: the packages wait for a collector that is gone for longer than they are told to.
        self._exporter.close(self._seconds)

    def _drain(self) -> None:
        while self._queue:
            told = self._queue.popleft()
            try:
                self._exporter.tell(told)
            except Exception:  # whatever it is, it is a bug about one question: this thread must tell the others
                _log.exception("request %s could not be told to the collector", told.request)


def wanted(endpoint: str, environ: Mapping[str, str]) -> bool:
    """Whether anything is to be told: a collector is named, and OpenTelemetry's own switch is not off."""
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    return bool(endpoint) or any(environ.get(name) for name in _ENDPOINTS)


def open_telemetry(endpoint: str = "", environ: Mapping[str, str] | None = None) -> Telemetry | None:
    """Tells the collector at `endpoint`, such as `http://127.0.0.1:4318`, or that of the `OTEL_*` variables.

    None where neither names one. Raises `ConfigError` for a way of sending that is not there, and
    `MissingDependency` where the extra `otel` is not installed.
    """
    environ = os.environ if environ is None else environ
    if not wanted(endpoint, environ):
        return None
    if environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf") != "http/protobuf":
        raise ConfigError(
            "OTEL_EXPORTER_OTLP_PROTOCOL: only http/protobuf is spoken; name the collector's port for it, usually 4318"
        )
    try:
        from tolmach.gateway.telemetry.otel import OtlpExporter
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "opentelemetry":
            raise
        raise missing("a collector for OpenTelemetry is named, and its packages are not installed", "otel") from error
    return Telemetry(OtlpExporter.to(endpoint))
