"""What is counted and how it is told: by one process, by several, and to the dashboard."""

import asyncio
import json
import re
import time
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from tests.documentation.documents import ROOT, names_in, rows
from tests.gateway.program import Program, demo_config, program, question_body, raw
from tolmach.access.keys import KeyRing, new_key
from tolmach.access.limits import Limiter
from tolmach.chat import Usage
from tolmach.demo import Demo
from tolmach.errors import AuthError, ConnectionLost, RateLimited, TimedOut, TolmachError
from tolmach.gateway.callers import Callers
from tolmach.gateway.core import Gateway
from tolmach.gateway.serving.asgi import AsgiApp
from tolmach.gateway.telemetry import counters
from tolmach.gateway.telemetry.collector import CAPACITY
from tolmach.gateway.telemetry.counters import GAPS, OTHER, SECONDS, Pacing, Spread
from tolmach.gateway.telemetry.metrics import Metrics
from tolmach.protocols import create
from tolmach.protocols.base import Site
from tolmach.providers.base import Access
from tolmach.routing.failures import Kind
from tolmach.routing.health import Health
from tolmach.routing.journal import Attempt, Journal
from tolmach.routing.targets import Provider, Route, Target, Targets
from tolmach.state import MemoryState
from tolmach.transport import Timeouts, read
from tolmach.transport.memory import MemoryTransport
from tolmach.version import __version__
from tolmach.wire import Request

DASHBOARD = ROOT / "docs/grafana/tolmach.json"

Labels = frozenset[tuple[str, str]]


def samples(text: bytes) -> dict[tuple[str, Labels], float]:
    """The exposition: name and labels -> value."""
    families = text_string_to_metric_families(text.decode())
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def told(metrics: Metrics | bytes, name: str, **labels: str) -> float:
    """The sum of the samples of a name that have these labels."""
    text = metrics if isinstance(metrics, bytes) else metrics.text()
    wanted = set(labels.items())
    return sum(value for (found, of), value in samples(text).items() if found == name and wanted <= of)


def target(name: str = "a/b") -> Target:
    return cast(Target, SimpleNamespace(name=name))


def attempt(
    outcome: str | TolmachError, *, began: float = 0.0, ended: float = 1.0, first: float | None = None, at: str = "a/b"
) -> Attempt:
    one = Attempt(1, target(at), "", began, False)
    one.ended, one.first = ended, first
    if isinstance(outcome, TolmachError):
        one.outcome, one.error = "failed", outcome
    else:
        one.outcome = cast(Any, outcome)
    return one


def journal(*attempts: Attempt) -> Journal:
    made = Journal(0.0)
    made.attempts += attempts
    return made


# Counting


@given(st.lists(st.floats(0, 400) | st.sampled_from(SECONDS), max_size=40), st.integers(0, 40))
def test_a_histogram_is_the_one_that_observing_gives(times: Sequence[float], at: int) -> None:
    metrics, plain = Metrics(), CollectorRegistry()
    observed = Histogram("tolmach_first_token_seconds", "", ["target"], buckets=SECONDS, registry=plain)
    for part in (times[:at], times[at:]):
        for seconds in part:
            metrics.tried(journal(attempt("answered", first=seconds)))
            observed.labels("a/b").observe(seconds)
        metrics.settle()
    ours, theirs = samples(metrics.text()), samples(generate_latest(plain))
    for (name, labels), value in theirs.items():
        if not name.endswith("_created"):
            assert ours[name, labels] == pytest.approx(value)
    assert told(metrics, "tolmach_first_token_seconds_count") == len(times)


def test_the_pace_of_a_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([10.0, 10.015625, 10.046875, 12.046875])
    monkeypatch.setattr(counters, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    metrics = Metrics()
    pacing = metrics.pacing("a/b")
    for _ in range(3):
        pacing.tick()
    assert told(metrics, "tolmach_inter_token_seconds_count", target="a/b") == 3
    assert told(metrics, "tolmach_inter_token_seconds_sum") == 2.046875
    assert told(metrics, "tolmach_inter_token_seconds_bucket", le="0.02") == 1
    assert told(metrics, "tolmach_inter_token_seconds_bucket", le="0.05") == 2
    assert told(metrics, "tolmach_inter_token_seconds_bucket", le="2.5") == 3


def test_a_stream_goes_on_counting_when_it_was_settled_in_between() -> None:
    spread = Spread(GAPS)
    pacing = Pacing(spread)
    pacing.tick()
    taken = spread.take()
    assert taken is not None
    assert sum(taken[0]) == 1
    assert spread.take() is None
    pacing.tick()
    again = spread.take()
    assert again is not None
    assert sum(again[0]) == 1


LOST, LATE, LIMITED = ConnectionLost("x"), TimedOut("x", phase="first_byte"), RateLimited("x")

JOURNALS: list[tuple[list[Attempt], dict[str, int], dict[str, int]]] = [
    ([], {}, {}),
    ([attempt("answered")], {"answered": 1}, {}),
    ([attempt("cancelled")], {"cancelled": 1}, {}),
    ([attempt(LOST)], {"transient": 1}, {}),
    ([attempt(LATE), attempt("answered", began=1.0)], {"silent": 1, "answered": 1}, {"silent": 1}),
    (
        [attempt(LIMITED), attempt(LOST, began=1, ended=2), attempt("answered", began=2)],
        {"rate_limited": 1, "transient": 1, "answered": 1},
        {"rate_limited": 1, "transient": 1},
    ),
    # The second began while the first was under way: both at once, no retry.
    ([attempt(LOST, ended=3.0), attempt("answered", began=0.5)], {"transient": 1, "answered": 1}, {}),
    ([attempt("cancelled"), attempt("answered", began=0.5)], {"cancelled": 1, "answered": 1}, {}),
]


@pytest.mark.parametrize(("attempts", "outcomes", "retries"), JOURNALS)
def test_attempts_and_retries(attempts: list[Attempt], outcomes: dict[str, int], retries: dict[str, int]) -> None:
    metrics = Metrics()
    metrics.tried(journal(*attempts))
    text = metrics.text()
    for name, label, expected in (("attempts", "outcome", outcomes), ("retries", "reason", retries)):
        found = {
            dict(labels)[label]: value for (of, labels), value in samples(text).items() if of == f"tolmach_{name}_total"
        }
        assert found == expected


def test_tokens_are_those_that_targets_count() -> None:
    metrics = Metrics()
    counted, guessed, wrong = attempt("answered"), attempt("answered"), attempt(AuthError("x"))
    counted.usage = Usage(10, 20, 30)
    guessed.usage = Usage(1000, 1000, 2000, estimated=True)
    wrong.usage = Usage(-5, 3, -2)
    metrics.tried(journal(counted, guessed, wrong))
    assert told(metrics, "tolmach_tokens_total", direction="prompt") == 10
    assert told(metrics, "tolmach_tokens_total", direction="completion") == 23


async def test_names_that_callers_make_up_fill_no_memory() -> None:
    configured = {f"a/{number}" for number in range(100, 120)}
    metrics = Metrics(configured.__contains__)
    for number in range(120):
        metrics.tried(journal(attempt("answered", at=f"a/{number}")))
        metrics.answered("openai", f"a/{number}", 200, 1.0)
        metrics.failed("openai", f"a/{number}", "Refused")
    text = metrics.text()
    assert told(text, "tolmach_attempts_total") == 120
    assert told(text, "tolmach_attempts_total", target="other") == 100
    for name in ("tolmach_attempts_total", "tolmach_requests_total", "tolmach_errors_total"):
        names = {dict(labels)["target"] for found, labels in samples(text) if found == name}
        assert names == {*configured, "other"}


async def test_what_was_counted_is_settled_although_nobody_asks() -> None:
    metrics = Metrics()
    metrics.answered("openai", "a/b", 200, 1.0)
    async with asyncio.timeout(10):
        while not told(generate_latest(metrics.registry), "tolmach_requests_total"):  # noqa: ASYNC110 - a timer's work
            await asyncio.sleep(0.02)
    assert told(metrics, "tolmach_requests_total", target="a/b", status="200", surface="openai") == 1


# What is looked at


def test_circuits_are_told_for_each_key() -> None:
    metrics, health = Metrics(), Health()
    metrics.health = health
    now = time.monotonic()
    for id in ("a/b#0", "a/b#1", "c/d#0", "e/f#0"):
        health.started(id, now)
    health.failed("a/b#1", "credentials", now)
    health.failed("c/d#0", "gone", now)
    health.merge("e/f#0", now - 1e-9)
    text = metrics.text()
    states = {
        dict(labels)["target"] + dict(labels)["key"]: value
        for (name, labels), value in samples(text).items()
        if name == "tolmach_circuit_state"
    }
    assert states == {"a/b1": 0, "a/b2": 2, "c/d1": 2, "e/f1": 1}
    health.succeeded("c/d#0", now)
    assert told(metrics, "tolmach_circuit_state", target="c/d") == 0


def test_circuits_of_targets_that_are_forgotten_are_closed() -> None:
    metrics, health = Metrics(), Health(most_targets=1)
    metrics.health = health
    now = time.monotonic()
    health.failed("a/b#0", "gone", now)
    assert told(metrics, "tolmach_circuit_state", target="a/b") == 2
    health.started("c/d#0", now)
    assert told(metrics, "tolmach_circuit_state", target="a/b") == 0


def test_the_ledger_and_the_state() -> None:
    metrics = Metrics()
    ledger = SimpleNamespace(written=5, dropped=1, problem="", queued=3, lag=0.5)
    state = SimpleNamespace(healthy=True)
    assert told(metrics, "tolmach_state_healthy") == 1
    metrics.ledger, metrics.state = ledger, state
    metrics.settle()
    ledger.written, ledger.problem, state.healthy = 9, "the disk is full", False
    text = metrics.text()
    assert told(text, "tolmach_ledger_rows_total", outcome="written") == 9
    assert told(text, "tolmach_ledger_rows_total", outcome="dropped") == 1
    assert told(text, "tolmach_ledger_queued_rows") == 3
    assert told(text, "tolmach_ledger_lag_seconds") == 0.5
    assert told(text, "tolmach_ledger_failing") == 1
    assert told(text, "tolmach_state_healthy") == 0


def test_what_runs_is_told() -> None:
    assert told(Metrics(), "tolmach_build_info", version=__version__) == 1


# A gateway


@pytest.fixture
async def demo() -> AsyncGenerator[Demo, None]:
    async with Demo(delay=0.002) as here:
        yield here


def two_targets(demo: Demo) -> Targets:
    """A route whose first target is not there."""
    providers = [
        Provider(
            name=name,
            site=Site(name=name, url=url, protocol=create("openai"), api_key="key"),
            access=Access(),
            models={"gpt-4o-mini": "gpt-4o-mini"},
        )
        for name, url in (("gone", "http://127.0.0.1:1/v1"), ("here", f"{demo.url}/v1"))
    ]
    return Targets(providers, {"fast": Route(targets=("gone/gpt-4o-mini", "here/gpt-4o-mini"))})


async def ask(gateway: Gateway, body: bytes, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
    transport = MemoryTransport(AsgiApp(gateway))
    request = Request("POST", "http://localhost/v1/chat/completions", headers or {}, body)
    exchange = await transport.send(request, Timeouts())
    try:
        return exchange.head.status, await read(exchange, 1 << 20)
    finally:
        await exchange.aclose()


async def test_a_question_that_another_target_answers(demo: Demo) -> None:
    gateway = Gateway(two_targets(demo))
    assert (await ask(gateway, question_body("fast", stream=True)))[0] == 200
    text = gateway.metrics.text()
    assert told(text, "tolmach_attempts_total", target="gone/gpt-4o-mini", outcome="transient") == 1
    assert told(text, "tolmach_attempts_total", target="here/gpt-4o-mini", outcome="answered") == 1
    assert told(text, "tolmach_retries_total", reason="transient") == 1
    assert told(text, "tolmach_requests_total", target="here/gpt-4o-mini", status="200") == 1
    assert told(text, "tolmach_first_token_seconds_count", target="here/gpt-4o-mini") == 1
    assert told(text, "tolmach_inter_token_seconds_count", target="here/gpt-4o-mini") > 1
    assert told(text, "tolmach_inter_token_seconds_count", target="gone/gpt-4o-mini") == 0
    assert told(text, "tolmach_circuit_state", target="gone/gpt-4o-mini", key="1") == 0
    assert told(text, "tolmach_open_streams") == 0


async def test_a_question_over_a_keys_limit(demo: Demo) -> None:
    text, key = new_key(bytes, "app")
    key = structs.replace(key, requests_per_minute=1)
    gateway = Gateway(two_targets(demo), callers=Callers(KeyRing([key]), Limiter(MemoryState())))
    headers = {"authorization": f"Bearer {text}"}
    answers = [await ask(gateway, question_body("fast"), headers) for _ in range(3)]
    assert [status for status, _ in answers] == [200, 429, 429]
    assert told(gateway.metrics, "tolmach_refused_total", reason="rate_limit_exceeded") == 2


# Several workers


async def come_to(served: Program, name: str, *expected: float, **labels: str) -> None:
    """Wait until `/metrics` tells one of these: workers write down what they counted twice a second."""
    async with asyncio.timeout(15):
        while True:
            if told((await raw(served.url, "GET", "/metrics"))[2], name, **labels) in expected:
                return
            await asyncio.sleep(0.02)


ROUTE = """
[providers.gone]
protocol = "openai"
url = "http://127.0.0.1:1/v1"
api_key = "demo"
models = ["gpt-4o-mini"]
[routes.fast]
targets = ["gone/gpt-4o-mini", "openai/gpt-4o-mini"]
"""


async def test_several_workers_count_together(demo: Demo, tmp_path: Path) -> None:
    async with program(tmp_path, demo_config(demo.url, ROUTE), "--workers", "2") as served:
        for _ in range(20):
            status, _, _ = await raw(served.url, "POST", "/v1/chat/completions", question_body("fast", stream=True))
            assert status == 200
        here = "openai/gpt-4o-mini"
        await come_to(served, "tolmach_attempts_total", 20, target=here, outcome="answered")
        await come_to(served, "tolmach_first_token_seconds_count", 20, target=here)
        await come_to(served, "tolmach_request_seconds_count", 20, target=here)
        # Open, or on a slow machine half-open already; the worker that is asked may not be the one that opened it.
        await come_to(served, "tolmach_circuit_state", 1, 2, target="gone/gpt-4o-mini")
        text = (await raw(served.url, "GET", "/metrics"))[2]
        failed = told(text, "tolmach_attempts_total", target="gone/gpt-4o-mini", outcome="transient")
        assert failed >= 3
        assert told(text, "tolmach_retries_total", reason="transient") == failed
        assert told(text, "tolmach_inter_token_seconds_count", target=here) > 20
        await come_to(served, "tolmach_ledger_rows_total", 40 + failed, outcome="written")
        for name, expected in (("ledger_failing", 0), ("state_healthy", 1), ("build_info", 1), ("open_streams", 0)):
            assert told(text, f"tolmach_{name}") == expected


# The dashboard and the document


def dashboard() -> dict[str, Any]:
    board: dict[str, Any] = json.loads(DASHBOARD.read_text("utf-8"))
    return board


def expressions(board: dict[str, Any]) -> list[str]:
    return [query["expr"] for panel in board["panels"] for query in panel.get("targets", [])]


def exposed() -> dict[str, set[str]]:
    """Every name that a query may use -> its labels."""
    names: dict[str, set[str]] = {}
    collectors: list[Any] = list(Metrics().registry._collector_to_names)  # which have no public names for this
    for collector in collectors:
        for metric in collector.describe():
            ends = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}.get(metric.type, ("",))
            for end in ends:
                names[metric.name + end] = {*collector._labelnames, *(("le",) if end == "_bucket" else ())}
    return names


def test_the_dashboard_is_one_that_grafana_takes() -> None:
    board = dashboard()
    identities = [panel["id"] for panel in board["panels"]]
    assert len(set(identities)) == len(identities)
    variables = {variable["name"]: variable["type"] for variable in board["templating"]["list"]}
    assert variables == {"datasource": "datasource", "target": "query"}
    asked = [one for panel in board["panels"] if panel["type"] != "row" for one in (panel, *panel["targets"])]
    assert {one["datasource"]["uid"] for one in asked} == {"${datasource}"}
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in board["panels"]]
    assert len(set(places)) == len(places)
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in board["panels"])
    for panel in board["panels"]:
        letters = [query["refId"] for query in panel.get("targets", [])]
        assert len(set(letters)) == len(letters)


def test_the_dashboard_asks_for_what_there_is() -> None:
    names = exposed()
    used: set[str] = set()
    for expression in expressions(dashboard()):
        found = re.findall(r"tolmach_\w+", expression)
        assert found
        assert {name for name in found if name not in names} == set()
        used |= set(found)
        labels = set().union(*(names[name] for name in found))
        grouped = re.findall(r"by \(([^)]*)\)", expression) + re.findall(r"(\w+)=~", expression)
        assert {label.strip() for group in grouped for label in group.split(",")} <= labels
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in names}
    assert families == {re.sub(r"_(bucket|sum|count)$", "", name) for name in used}


def test_the_outcomes_of_the_document_are_those_of_the_policy() -> None:
    outcomes = {name for row in rows(ROOT / "docs/observability.md", "outcome") for name in names_in(row[0])}
    assert outcomes == set(get_args(Kind))


def test_the_document_tells_what_is_counted_by_name() -> None:
    text = " ".join((ROOT / "docs/observability.md").read_text("utf-8").split())
    assert f"are counted by name, all others as `{OTHER}`" in text
    assert f"beyond {CAPACITY} questions that wait" in text
