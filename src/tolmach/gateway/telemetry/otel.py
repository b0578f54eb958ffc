"""Questions as OpenTelemetry's spans and measurements, by its conventions for generative AI.

A question is a server's span, each attempt to answer it a client's span below it; they are made afterwards, from the
times in the journal. Tokens stand at the attempts alone, so that a sum over spans is right. Attributes of our own
begin with `tolmach.`. The source: open-telemetry/semantic-conventions-genai, docs/gen-ai (status: development).
"""

import os
import uuid
from collections.abc import Sequence
from contextlib import suppress
from typing import Self
from urllib.parse import urlsplit

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.metrics import Histogram
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from tolmach.gateway.telemetry.records import QuestionRecord
from tolmach.routing.journal import Attempt
from tolmach.routing.targets import Target
from tolmach.version import __version__

__all__ = ["OtlpExporter", "provider_name", "resource", "server_of"]

_Value = str | int | float | bool
_Attributes = dict[str, _Value]

_SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
_FIRST = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
_EACH = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
_TOKENS = tuple(4**power for power in range(14))
"""The bounds that the conventions recommend."""

_MOST_MODELS = 1000
"""So many names of models are told in measurements, for a caller may make up any; all others are `other`."""

_PROVIDERS = {
    "api.anthropic.com": "anthropic",
    "api.cohere.ai": "cohere",
    "api.cohere.com": "cohere",
    "api.deepseek.com": "deepseek",
    "api.groq.com": "groq",
    "api.mistral.ai": "mistral_ai",
    "api.openai.com": "openai",
    "api.perplexity.ai": "perplexity",
    "api.x.ai": "x_ai",
    "generativelanguage.googleapis.com": "gcp.gemini",
}
_PROVIDERS_BELOW = {
    ".aiplatform.googleapis.com": "gcp.vertex_ai",
    ".openai.azure.com": "azure.ai.openai",
    ".services.ai.azure.com": "azure.ai.inference",
}
"""Host -> the name that the conventions have for the service."""

_PORTS = {"http": 80, "https": 443}
_OPERATIONS = {"/v1/embeddings": "embeddings", "/v1/messages/count_tokens": "count_tokens"}


class OtlpExporter:
    """Makes spans and measurements of questions. `readers` collect the latter."""

    def __init__(self, traces: TracerProvider, readers: Sequence[MetricReader], about: Resource | None = None) -> None:
        self._traces = traces
        # Nothing at the process's exit: `close` is called by who opened it.
        self._meters = MeterProvider(readers, resource=about, shutdown_on_exit=False)
        self._tracer = traces.get_tracer("tolmach", __version__)
        self._models: set[str] = set()
        self._measure()

    @classmethod
    def to(cls, endpoint: str) -> Self:
        """To the collector at this address, or at that of the `OTEL_*` variables, by OTLP over HTTP."""
        about = resource()
        traces = TracerProvider(resource=about, shutdown_on_exit=False)
        readers: list[MetricReader] = []
        if os.environ.get("OTEL_TRACES_EXPORTER") != "none":
            traces.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(_address(endpoint, "traces"))))
        if os.environ.get("OTEL_METRICS_EXPORTER") != "none":
            readers.append(PeriodicExportingMetricReader(OTLPMetricExporter(_address(endpoint, "metrics"))))
        return cls(traces, readers, about)

    def close(self, seconds: float) -> None:
        self._traces.force_flush(int(seconds * 1000))
        self._traces.shutdown()
        self._meters.shutdown(seconds * 1000)

    def _measure(self) -> None:
        meter = self._meters.get_meter("tolmach", __version__)

        def histogram(name: str, unit: str, told: str, bounds: Sequence[float]) -> Histogram:
            return meter.create_histogram(name, unit, told, explicit_bucket_boundaries_advisory=bounds)

        self._duration = histogram("gen_ai.client.operation.duration", "s", "Time of an attempt.", _SECONDS)
        self._tokens = histogram("gen_ai.client.token.usage", "{token}", "Tokens of an attempt.", _TOKENS)
        self._first_chunk = histogram(
            "gen_ai.client.operation.time_to_first_chunk", "s", "Time of an attempt to its first piece.", _FIRST
        )
        self._request = histogram("gen_ai.server.request.duration", "s", "Time of a question.", _SECONDS)
        self._first_token = histogram(
            "gen_ai.server.time_to_first_token", "s", "Time of a question to its first token.", _FIRST
        )
        self._each_token = histogram(
            "gen_ai.server.time_per_output_token", "s", "Time for each token after the first.", _EACH
        )

    def tell(self, told: QuestionRecord) -> None:
        """Make its spans and measurements."""
        operation = _OPERATIONS.get(told.path, "chat")
        context = TraceContextTextMapPropagator().extract(told.trace)
        error = told.error or ("cancelled" if told.gone else "")
        span = self._tracer.start_span(
            f"{told.method} {told.path}",
            context,
            SpanKind.SERVER,
            _question(told, operation, error),
            start_time=told.started,
        )
        # What the caller did is no error of the server, by the conventions for HTTP.
        if told.error and not 400 <= told.status < 500:
            span.set_status(Status(StatusCode.ERROR))
        below = set_span_in_context(span)
        for attempt in told.attempts:
            self._attempt(told, attempt, operation, below)
        span.end(told.ended)
        self._measure_question(told, operation, error)

    def _attempt(self, told: QuestionRecord, attempt: Attempt, operation: str, context: Context) -> None:
        error = _error_of(attempt)
        about = self._about(attempt.target, operation)
        ended = told.ended if attempt.ended is None else told.started + int(attempt.ended * 1e9)
        span = self._tracer.start_span(
            f"{operation} {attempt.target.model}",
            context,
            SpanKind.CLIENT,
            about | {"gen_ai.request.model": attempt.target.model} | _details(told, attempt, error),
            start_time=told.started + int(attempt.started * 1e9),
        )
        if attempt.outcome == "failed":
            span.set_status(Status(StatusCode.ERROR))
        span.end(ended)
        self._measure_attempt(told, attempt, about, error, (ended - told.started) / 1e9 - attempt.started)

    def _about(self, target: Target, operation: str) -> _Attributes:
        """What spans and measurements have in common."""
        host, port = server_of(target)
        about: _Attributes = {
            "gen_ai.operation.name": operation,
            "gen_ai.provider.name": provider_name(target),
            "gen_ai.request.model": self._bounded(target.model),
        }
        if host:
            about |= {"server.address": host, "server.port": port}
        return about

    def _bounded(self, model: str) -> str:
        if model not in self._models:
            if len(self._models) >= _MOST_MODELS:
                return "other"
            self._models.add(model)
        return model

    # Measurements

    def _measure_attempt(
        self, told: QuestionRecord, attempt: Attempt, about: _Attributes, error: str, seconds: float
    ) -> None:
        self._duration.record(seconds, about | {"error.type": error} if error else about)
        if told.streamed and attempt.first is not None:
            self._first_chunk.record(attempt.first - attempt.started, about)
        usage = attempt.usage
        if usage is not None and not usage.estimated:
            # Of what is only estimated the conventions say that it must not be told here.
            self._tokens.record(max(usage.prompt_tokens, 0), about | {"gen_ai.token.type": "input"})
            self._tokens.record(max(usage.completion_tokens, 0), about | {"gen_ai.token.type": "output"})

    def _measure_question(self, told: QuestionRecord, operation: str, error: str) -> None:
        if not told.attempts:
            return  # nobody was asked
        # Of two at the same time the one that lost may have begun last.
        last = next((one for one in reversed(told.attempts) if one.outcome == "answered"), told.attempts[-1])
        about = self._about(last.target, operation)
        self._request.record((told.ended - told.started) / 1e9, about | {"error.type": error} if error else about)
        usage, first, ended = last.usage, last.first, last.ended
        if error or first is None or ended is None or not told.streamed:
            return
        self._first_token.record(first, about)
        if usage is not None and not usage.estimated and usage.completion_tokens > 1:
            self._each_token.record((ended - first) / (usage.completion_tokens - 1), about)


def resource() -> Resource:
    """What sends: this process of the gateway. `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` say more."""
    # Each worker sends for itself: without an id of its own, one's counts would stand for another's.
    about: dict[str, str] = {"service.version": __version__, "service.instance.id": str(uuid.uuid4())}
    named = os.environ.get("OTEL_SERVICE_NAME") or "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    if not named:
        about["service.name"] = "tolmach"
    return Resource.create(about)


def provider_name(target: Target) -> str:
    """The conventions' name of the service, else that of the configuration."""
    host, _ = server_of(target)
    below = (name for end, name in _PROVIDERS_BELOW.items() if host.endswith(end))
    return _PROVIDERS.get(host) or next(below, target.provider.name)


def server_of(target: Target) -> tuple[str, int]:
    """Host and port of a target; of its address, which may hold secrets, nothing else."""
    with suppress(ValueError):  # an address that is none: the attempt failed of it
        parts = urlsplit(target.provider.site.url)
        return parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 0)
    return "", 0


def _address(endpoint: str, signal: str) -> str | None:
    """Where a signal goes; None for where the variables say."""
    return f"{endpoint.rstrip('/')}/v1/{signal}" if endpoint else None


def _error_of(attempt: Attempt) -> str:
    """The kind of error, never its text: a service may have repeated the question in it."""
    if attempt.error is not None:
        return type(attempt.error).__name__
    return "" if attempt.outcome == "answered" else "cancelled"


def _question(told: QuestionRecord, operation: str, error: str) -> _Attributes:
    about: _Attributes = {
        "http.request.method": told.method,
        "http.route": told.path,
        "url.path": told.path,
        "url.scheme": "http",
        "gen_ai.operation.name": operation,
        "tolmach.request.id": told.request,
        "tolmach.surface": told.surface,
        "tolmach.attempts": len(told.attempts),
    }
    more: tuple[tuple[str, _Value], ...] = (
        ("http.response.status_code", told.status),
        ("error.type", error),
        ("gen_ai.request.model", told.model),
        ("gen_ai.request.stream", told.streamed),
        ("gen_ai.response.model", "" if error else told.target),
        ("tolmach.key.id", told.key),
    )
    return about | {name: value for name, value in more if value}


def _details(told: QuestionRecord, attempt: Attempt, error: str) -> _Attributes:
    """What only the span of an attempt has."""
    about: _Attributes = {
        "tolmach.target": attempt.target.name,
        "tolmach.attempt.number": attempt.number,
        "tolmach.attempt.outcome": attempt.outcome or "cancelled",
        "tolmach.attempt.reason": attempt.why,
    }
    usage = attempt.usage
    if usage is not None:
        about |= {
            "gen_ai.usage.input_tokens": usage.prompt_tokens,
            "gen_ai.usage.output_tokens": usage.completion_tokens,
        }
        if usage.cached_tokens:
            about["gen_ai.usage.cache_read.input_tokens"] = usage.cached_tokens
        if usage.estimated:
            about["tolmach.usage.estimated"] = True
    if told.streamed:
        about["gen_ai.request.stream"] = True
        if attempt.first is not None:
            about["gen_ai.response.time_to_first_chunk"] = attempt.first - attempt.started
    if error:
        about["error.type"] = error
    return about
