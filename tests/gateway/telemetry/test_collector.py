"""What a collector of OpenTelemetry is told: spans and measurements, in memory and over a socket."""

import asyncio
import gzip
import sys
import threading
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from tests.documentation.documents import ROOT, names_in, rows
from tests.gateway.program import demo_config, program, question_body, raw
from tests.gateway.telemetry.test_metrics import ask, two_targets
from tolmach.demo import Demo
from tolmach.errors import ConfigError, MissingDependency
from tolmach.gateway.context import RequestContext
from tolmach.gateway.core import Gateway
from tolmach.gateway.telemetry import collector
from tolmach.gateway.telemetry.collector import Telemetry, open_telemetry, wanted
from tolmach.gateway.telemetry.otel import OtlpExporter, provider_name, resource, server_of
from tolmach.gateway.telemetry.records import QuestionRecord
from tolmach.routing.targets import Target

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
SECRET = "a-secret-of-the-question"


@pytest.fixture
async def demo() -> AsyncGenerator[Demo, None]:
    async with Demo(delay=0.002) as here:
        yield here


class _Looking(OtlpExporter):
    """Looks at what was measured before it closes."""

    def __init__(self, traces: TracerProvider, reader: InMemoryMetricReader, measured: dict[str, list[Any]]) -> None:
        super().__init__(traces, [reader])
        self._reader = reader
        self._measured = measured

    def close(self, seconds: float) -> None:
        data: Any = self._reader.get_metrics_data()
        for of_resource in data.resource_metrics if data else ():
            for scope in of_resource.scope_metrics:
                self._measured |= {metric.name: list(metric.data.data_points) for metric in scope.metrics}
        super().close(seconds)


class Memory:
    """A gateway whose telemetry stays in memory."""

    def __init__(self, demo: Demo) -> None:
        self._spans = InMemorySpanExporter()
        traces = TracerProvider(shutdown_on_exit=False)
        traces.add_span_processor(SimpleSpanProcessor(self._spans))
        self._reader = InMemoryMetricReader()
        self.measured: dict[str, list[Any]] = {}
        self._telemetry = Telemetry(_Looking(traces, self._reader, self.measured))
        self.gateway = Gateway(two_targets(demo))
        self.gateway.observers.append(self._telemetry)

    def close(self) -> list[ReadableSpan]:
        """The spans, in the order of their beginnings."""
        self._telemetry.close(20)
        return sorted(self._spans.get_finished_spans(), key=lambda span: span.start_time or 0)

    def points(self, name: str, **attributes: str) -> list[Any]:
        wanted = {key.replace("__", "."): value for key, value in attributes.items()}.items()
        return [point for point in self.measured.get(name, []) if wanted <= point.attributes.items()]


def about(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


# Spans


async def test_a_question_that_another_target_answers(demo: Demo) -> None:
    memory = Memory(demo)
    status, _ = await ask(memory.gateway, question_body("fast", SECRET, stream=True), TRACEPARENT)
    question, first, second = memory.close()
    assert status == 200

    assert question.name == "POST /v1/chat/completions"
    assert question.kind is SpanKind.SERVER
    assert question.context is not None
    assert f"{question.context.trace_id:032x}" == TRACE
    assert question.parent is not None
    assert f"{question.parent.span_id:016x}" == PARENT
    assert question.status.status_code is StatusCode.UNSET
    told = about(question)
    assert told["http.response.status_code"] == 200
    assert told["gen_ai.request.model"] == "fast"
    assert told["gen_ai.response.model"] == "here/gpt-4o-mini"
    assert told["tolmach.attempts"] == 2
    assert "error.type" not in told

    for span in (first, second):
        assert span.kind is SpanKind.CLIENT
        assert span.name == "chat gpt-4o-mini"
        assert span.parent == question.context
        assert about(span)["gen_ai.request.model"] == "gpt-4o-mini"
        assert question.start_time <= span.start_time <= span.end_time <= question.end_time  # type: ignore[operator]
    failed, answered = about(first), about(second)
    assert (failed["server.address"], failed["server.port"]) == ("127.0.0.1", 1)
    assert failed["error.type"] == "ConnectFailed"
    assert failed["tolmach.attempt.outcome"] == "failed"
    assert first.status.status_code is StatusCode.ERROR
    assert not first.status.description
    assert answered["tolmach.attempt.outcome"] == "answered"
    assert answered["gen_ai.provider.name"] == "here"
    assert answered["gen_ai.usage.input_tokens"] > 0
    assert answered["gen_ai.usage.output_tokens"] > 0
    assert 0 < answered["gen_ai.response.time_to_first_chunk"] < 10
    assert "error.type" not in answered
    assert SECRET not in str([span.to_json() for span in (question, first, second)])


async def test_what_is_measured(demo: Demo) -> None:
    memory = Memory(demo)
    whole, stream = question_body("here/gpt-4o-mini"), question_body("fast", stream=True)
    for body in (whole, stream, stream):
        assert (await ask(memory.gateway, body))[0] == 200
    memory.close()
    points = memory.points
    assert sum(point.count for point in points("gen_ai.client.operation.duration", gen_ai__provider__name="here")) == 3
    [failed] = points("gen_ai.client.operation.duration", error__type="ConnectFailed")
    assert failed.count == 2
    assert failed.attributes["server.port"] == 1
    for kind in ("input", "output"):
        [usage] = points("gen_ai.client.token.usage", gen_ai__token__type=kind)
        assert usage.count == 3
        assert usage.sum > 0
        assert usage.explicit_bounds[:3] == (1, 4, 16)
    [chunk] = points("gen_ai.client.operation.time_to_first_chunk")
    [token] = points("gen_ai.server.time_to_first_token")
    [each] = points("gen_ai.server.time_per_output_token")
    assert chunk.count == token.count == 2
    assert each.count == 2
    assert token.sum >= chunk.sum
    assert sum(point.count for point in points("gen_ai.server.request.duration")) == 3
    assert set(memory.measured) == {names_in(row[0])[0] for row in rows(ROOT / "docs/observability.md", "measurement")}


async def test_a_question_that_nobody_answers(demo: Demo) -> None:
    memory = Memory(demo)
    assert (await ask(memory.gateway, question_body("gone/gpt-4o-mini")))[0] >= 500
    assert (await ask(memory.gateway, question_body("nobody")))[0] == 404
    question, attempt, unknown = memory.close()
    assert question.status.status_code is attempt.status.status_code is StatusCode.ERROR
    assert about(question)["error.type"] == "ConnectFailed"
    assert "gen_ai.response.model" not in about(question)
    # The caller's mistake is no error of the server.
    assert unknown.status.status_code is StatusCode.UNSET
    assert about(unknown)["error.type"] == "ModelNotFound"
    assert about(unknown)["tolmach.attempts"] == 0


async def test_the_attributes_are_those_of_the_document(demo: Demo) -> None:
    memory = Memory(demo)
    await ask(memory.gateway, question_body("fast", stream=True))
    await ask(memory.gateway, question_body("gone/gpt-4o-mini"))
    spans = memory.close()
    table = {row[0]: set(names_in(row[1])) for row in rows(ROOT / "docs/observability.md", "span")}
    for kind, name in ((SpanKind.SERVER, "question"), (SpanKind.CLIENT, "attempt")):
        found = {key for span in spans if span.kind is kind for key in about(span)}
        assert found <= table[name]
        rare = {"tolmach.key.id", "gen_ai.usage.cache_read.input_tokens", "tolmach.usage.estimated"}
        assert table[name] - found <= rare


@pytest.mark.parametrize(
    ("url", "provider", "server"),
    [
        ("https://api.openai.com/v1", "openai", ("api.openai.com", 443)),
        ("https://api.anthropic.com", "anthropic", ("api.anthropic.com", 443)),
        ("https://generativelanguage.googleapis.com", "gcp.gemini", ("generativelanguage.googleapis.com", 443)),
        ("https://mine.openai.azure.com/openai", "azure.ai.openai", ("mine.openai.azure.com", 443)),
        ("https://x.openai.azure.com.example", "configured", ("x.openai.azure.com.example", 443)),
        ("http://user:secret@[::1]:8080/v1?key=secret", "configured", ("::1", 8080)),
        ("http://host:port/v1", "configured", ("", 0)),
    ],
)
def test_services_have_the_names_of_the_conventions(url: str, provider: str, server: tuple[str, int]) -> None:
    site = SimpleNamespace(url=url)
    target = cast(Target, SimpleNamespace(provider=SimpleNamespace(name="configured", site=site)))
    assert provider_name(target) == provider
    assert server_of(target) == server


# The queue


class Failing:
    """An exporter that fails at the first question."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.closed = False

    def tell(self, told: QuestionRecord) -> None:
        self.told.append(told.request)
        if len(self.told) == 1:
            raise ValueError("a bug")

    def close(self, seconds: float) -> None:
        self.closed = True


def context(id: str) -> RequestContext:
    incoming = SimpleNamespace(method="POST", path="/v1/messages", headers={"x-request-id": id})
    return RequestContext(cast(Any, incoming), cast(Any, None))


def test_one_that_cannot_be_told_does_not_stop_the_others(caplog: pytest.LogCaptureFixture) -> None:
    exporter = Failing()
    told = Telemetry(exporter)
    for number in range(3):
        told(context(f"r{number}"))
    told.close()
    assert exporter.told == ["r0", "r1", "r2"]
    assert exporter.closed
    assert "request r0 could not be told" in caplog.text


def test_more_than_can_wait_are_dropped_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collector, "CAPACITY", 2)
    exporter = Failing()
    told = Telemetry(exporter)
    told._closing.set()
    told._thread.join()
    for number in range(5):
        told(context(f"r{number}"))
    assert told.dropped == 3
    assert len(told._queue) == 2


# Settings


@pytest.mark.parametrize(
    ("endpoint", "environ", "expected"),
    [
        ("", {}, False),
        ("http://127.0.0.1:4318", {}, True),
        ("", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}, True),
        ("", {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:4318/v1/traces"}, True),
        ("", {"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
        ("http://127.0.0.1:4318", {"OTEL_SDK_DISABLED": "true"}, False),
    ],
)
def test_when_it_is_wanted(endpoint: str, environ: dict[str, str], expected: bool) -> None:
    assert wanted(endpoint, environ) is expected
    if not expected:
        assert open_telemetry(endpoint, environ) is None


def test_another_way_of_sending_is_refused() -> None:
    with pytest.raises(ConfigError, match="http/protobuf"):
        open_telemetry("http://127.0.0.1:4317", {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"})


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "tolmach.gateway.telemetry.otel")
    monkeypatch.setitem(sys.modules, "opentelemetry.context", None)
    with pytest.raises(MissingDependency, match=r"pip install .*\[otel\]"):
        open_telemetry("http://127.0.0.1:4318", {})


@pytest.mark.parametrize(
    ("environ", "name"),
    [
        ({}, "tolmach"),
        ({"OTEL_SERVICE_NAME": "chat"}, "chat"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=chat,team=blue"}, "chat"),
    ],
)
def test_each_process_is_an_instance(monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], name: str) -> None:
    for key in ("OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES"):
        monkeypatch.delenv(key, raising=False)
    for key, value in environ.items():
        monkeypatch.setenv(key, value)
    one, other = resource().attributes, resource().attributes
    assert one["service.name"] == name
    assert one["service.instance.id"] != other["service.instance.id"]


# Over a socket


class Collector:
    """A receiver of OTLP over HTTP, which keeps what it is sent."""

    def __init__(self) -> None:
        self.url = ""
        self.spans: dict[str, dict[str, Any]] = {}
        """Name of a span -> its attributes."""
        self.metrics: set[str] = set()
        self.services: set[str] = set()
        self.headers: dict[str, str] = {}

    def take(self, path: str, body: bytes, headers: dict[str, str]) -> None:
        self.headers = headers
        if path == "/v1/traces":
            for sent in ExportTraceServiceRequest.FromString(body).resource_spans:
                self.services |= {
                    one.value.string_value for one in sent.resource.attributes if one.key == "service.name"
                }
                for span in (span for scope in sent.scope_spans for span in scope.spans):
                    values = {one.key: one.value.string_value or one.value.int_value for one in span.attributes}
                    self.spans[span.name] = values
        elif path == "/v1/metrics":
            for measured in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                self.metrics |= {metric.name for scope in measured.scope_metrics for metric in scope.metrics}


@contextmanager
def collecting() -> Iterator[Collector]:
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            collector.take(self.path, body, {name.lower(): value for name, value in self.headers.items()})
            self.send_response(200)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing: the tests see what came."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    collector.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def check(collector: Collector) -> None:
    assert collector.services == {"tolmach"}
    assert set(collector.spans) == {"POST /v1/chat/completions", "chat gpt-4o-mini"}
    assert collector.spans["chat gpt-4o-mini"]["gen_ai.usage.output_tokens"] > 0
    assert {"gen_ai.client.operation.duration", "gen_ai.server.request.duration"} <= collector.metrics


async def test_a_collector_is_told_by_the_variables(demo: Demo, monkeypatch: pytest.MonkeyPatch) -> None:
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-api-key=collectors")
        opened = open_telemetry()
        assert opened is not None
        gateway = Gateway(two_targets(demo))
        gateway.observers.append(opened)
        assert (await ask(gateway, question_body("here/gpt-4o-mini")))[0] == 200
        await asyncio.to_thread(opened.close)
        check(collector)
        assert collector.headers["x-api-key"] == "collectors"


async def test_the_command_tells_a_collector(demo: Demo, tmp_path: Path) -> None:
    with collecting() as collector:
        config = demo_config(demo.url, f'[gateway.otel]\nendpoint = "{collector.url}"\n')
        async with program(tmp_path, config) as served:
            status, _, _ = await raw(
                served.url, "POST", "/v1/chat/completions", question_body("gpt-4o-mini", stream=True)
            )
            assert status == 200
            served.process.terminate()
            assert await served.ended() == 0
        check(collector)


async def test_a_collector_that_is_gone_harms_nobody(demo: Demo, tmp_path: Path) -> None:
    config = demo_config(demo.url, '[gateway.otel]\nendpoint = "http://127.0.0.1:1"\n')
    async with program(tmp_path, config) as served:
        for _ in range(3):
            status, _, _ = await raw(served.url, "POST", "/v1/chat/completions", question_body("gpt-4o-mini"))
            assert status == 200
        served.process.terminate()
        assert await served.ended() == 0
