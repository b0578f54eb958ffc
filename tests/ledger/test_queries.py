"""Sums, filters and what is forgotten, against a model in plain Python, on both databases."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tolmach.ledger import AttemptRow, Database, RequestRow
from tolmach.ledger.queries import GROUPS, Group, RequestFilter, Usage, attempts_of, forget, requests, usage
from tolmach.ledger.rows import ATTEMPTS, REQUESTS

Open = Callable[[str], Database]
Entry = tuple[RequestRow, list[AttemptRow]]

_START = 1_699_900_000.0
_MOMENTS = st.integers(0, 5 * 86_400_000).map(lambda milliseconds: _START + milliseconds / 1000)
_NAMES = st.sampled_from(["", "a", "b/c", "b", "é%_"])
_COSTS = st.none() | st.integers(-(10**6), 10**9)
"""Below 0 as a service could make them once; no row of now has one."""
_TOKENS = st.integers(0, 10**7)


def _counted() -> dict[str, st.SearchStrategy[Any]]:
    return {
        "at": _MOMENTS,
        "target": _NAMES,
        "error": st.sampled_from(["", "", "RateLimited"]),
        "prompt_tokens": _TOKENS,
        "completion_tokens": _TOKENS,
        "cached_tokens": _TOKENS,
        "estimated": st.booleans(),
        "cost": _COSTS,
        "total_ms": st.integers(0, 10_000).map(float),
    }


_REQUESTS = st.builds(
    RequestRow, uid=st.just(""), model=_NAMES, key=_NAMES, status=st.sampled_from([200, 429, 500, 503]), **_counted()
)
_ATTEMPTS = st.builds(
    AttemptRow,
    uid=st.just(""),
    number=st.just(0),
    outcome=st.sampled_from(["answered", "failed", "cancelled", "skipped"]),
    **_counted(),
)
_LEDGERS = st.lists(st.tuples(_REQUESTS, st.lists(_ATTEMPTS, max_size=3)), max_size=12)
_PERIODS = st.tuples(st.none() | _MOMENTS, st.none() | _MOMENTS)

_many = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def put(database: Database, entries: list[Entry]) -> list[Entry]:
    """The rows in the database, in the place of all others, with keys of their own."""
    for place, (row, attempts) in enumerate(entries):
        row.uid = f"{place:032x}"
        for number, attempt in enumerate(attempts, 1):
            attempt.uid, attempt.number = row.uid, number
    with database.transaction():
        for table in (REQUESTS, ATTEMPTS):
            database.execute(f"DELETE FROM {table.name}")
        database.insert(REQUESTS, [row for row, _ in entries])
        database.insert(ATTEMPTS, [each for _, attempts in entries for each in attempts])
    return entries


def within(at: float, period: tuple[float | None, float | None]) -> bool:
    since, until = period
    return (since is None or at >= since) and (until is None or at < until)


def model_of_usage(entries: list[Entry], by: Group, period: tuple[float | None, float | None]) -> dict[str, Usage]:
    sums: dict[str, Usage] = {}
    counted: list[tuple[str, bool, RequestRow | AttemptRow]]
    if by == "target":
        attempts = [each for _, tried in entries for each in tried if each.outcome != "skipped"]
        counted = [(each.target, each.outcome == "failed", each) for each in attempts]
    else:
        named = [(str(getattr(row, by, "")) if by != "day" else _day(row.at), row) for row, _ in entries]
        counted = [(name, bool(row.error), row) for name, row in named]
    for name, failed, row in counted:
        if within(row.at, period):
            one = Usage(
                name=name,
                requests=1,
                errors=failed,
                prompt_tokens=row.prompt_tokens,
                completion_tokens=row.completion_tokens,
                cached_tokens=row.cached_tokens,
                estimated=row.estimated,
                cost=max(row.cost or 0, 0),
                unpriced=row.cost is None,
            )
            sums.setdefault(name, Usage(name=name)).add(one)
    return sums


def _day(at: float) -> str:
    return datetime.fromtimestamp(at).strftime("%Y-%m-%d")


@contextmanager
def zone(name: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", name)
        time.tzset()
        yield
    time.tzset()


@pytest.mark.parametrize("by", GROUPS)
def test_sums_are_those_of_the_rows(url: str, opened: Open, by: Group) -> None:
    database = opened(url)

    @_many
    @given(entries=_LEDGERS, period=_PERIODS)
    def hold(entries: list[Entry], period: tuple[float | None, float | None]) -> None:
        put(database, entries)
        found = usage(database, by, *period)
        assert {row.name: row for row in found} == model_of_usage(entries, by, period)
        if by == "day":
            assert [row.name for row in found] == sorted(row.name for row in found)
        else:
            assert [row.cost for row in found] == sorted((row.cost for row in found), reverse=True)

    hold()


@pytest.mark.parametrize("name", ["UTC", "Asia/Kathmandu", "America/St_Johns", "Pacific/Kiritimati"])
def test_days_are_those_of_the_local_zone(url: str, opened: Open, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    database = opened(url)
    with zone(name, monkeypatch):
        midnight = datetime(2026, 3, 2).timestamp()
        rows: list[Entry] = [
            (RequestRow(uid="", at=midnight + shift), []) for shift in (-0.001, 0.0, 86_399.999, 86_400.0)
        ]
        put(database, rows)
        found = [(row.name, row.requests) for row in usage(database, "day")]
    assert found == [("2026-03-01", 1), ("2026-03-02", 2), ("2026-03-03", 1)]


_STATUSES = st.sampled_from(["", "429", "5xx", "2xx", "404"])
_FILTERS = st.builds(
    RequestFilter,
    since=st.none() | _MOMENTS,
    until=st.none() | _MOMENTS,
    status=_STATUSES,
    key=_NAMES,
    model=_NAMES,
    target=_NAMES,
    errors=st.booleans(),
    ended_since=st.none() | _MOMENTS,
)


def fits(row: RequestRow, attempts: list[AttemptRow], wanted: RequestFilter) -> bool:
    asked = [each.target for each in attempts if each.outcome != "skipped"]
    return (
        within(row.at, (wanted.since, wanted.until))
        and wanted.status in ("", str(row.status), f"{row.status // 100}xx")
        and wanted.key in ("", row.key)
        and wanted.model in ("", row.model)
        and (not wanted.target or any(f"{each}/".startswith(f"{wanted.target}/") for each in asked))
        and (not wanted.errors or row.error != "")
        and (wanted.ended_since is None or round(row.at * 1000) + row.total_ms >= round(wanted.ended_since * 1000))
    )


def test_a_filter_finds_what_fits(url: str, opened: Open) -> None:
    database = opened(url)

    @_many
    @given(entries=_LEDGERS, wanted=_FILTERS, limit=st.none() | st.integers(1, 5))
    def hold(entries: list[Entry], wanted: RequestFilter, limit: int | None) -> None:
        put(database, entries)
        fitting = [row for row, attempts in entries if fits(row, attempts, wanted)]
        fitting.sort(key=lambda row: (round(row.at * 1000), row.uid))
        assert requests(database, wanted, limit) == fitting[-limit if limit else None :]

    hold()


def test_what_is_old_is_forgotten_with_its_attempts_the_oldest_first(url: str, opened: Open) -> None:
    database = opened(url)

    @_many
    @given(entries=_LEDGERS, before=_MOMENTS, most=st.integers(1, 5))
    def hold(entries: list[Entry], before: float, most: int) -> None:
        put(database, entries)
        old = sorted((row.at for row, _ in entries if row.at < before))[:most]
        assert forget(database, before, most) == len(old)
        left = requests(database, RequestFilter())
        assert sorted(row.at for row in left) == sorted(row.at for row, _ in entries)[len(old) :]
        kept = {row.uid for row in left}
        for row, attempts in entries:
            assert attempts_of(database, row.uid) == (attempts if row.uid in kept else [])

    hold()
