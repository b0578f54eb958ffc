"""What can be asked of the ledger, and how old rows leave it."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

from msgspec import Struct

from tolmach.ledger.database import Database
from tolmach.ledger.rows import ATTEMPTS, REQUESTS, AttemptRow, RequestRow, Table

__all__ = ["GROUPS", "Group", "RequestFilter", "Usage", "attempts_of", "forget", "requests", "requests_named", "usage"]

Group = Literal["day", "key", "model", "target"]
GROUPS: tuple[Group, ...] = ("day", "key", "model", "target")

_MICROS = 1_000_000
_QUARTER = 900 * _MICROS
"""Days of all time zones begin at a quarter of an hour, so sums of quarters can be added up to days of any of them."""


class Usage(Struct, kw_only=True):
    """Sums of a day, key, model or target."""

    name: str
    """A day as YYYY-MM-DD; the id of a key; the model as asked for; a target. Empty for none."""
    requests: int = 0
    """By target: its attempts, without those that were passed over."""
    errors: int = 0
    """Requests that ended in an error; by target the attempts that failed."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    estimated: int = 0
    """How many of the requests have estimated tokens."""
    cost: int = 0
    """Millionths of a US dollar, of the requests whose cost is known."""
    unpriced: int = 0
    """How many have no known cost."""

    def add(self, other: "Usage") -> None:
        for field in _SUMS:
            setattr(self, field, getattr(self, field) + getattr(other, field))


_SUMS = tuple(field for field in Usage.__struct_fields__ if field != "name")

_COLUMNS = """
    count(*), CAST(sum(CASE WHEN {failed} THEN 1 ELSE 0 END) AS BIGINT),
    CAST(sum(prompt_tokens) AS BIGINT), CAST(sum(completion_tokens) AS BIGINT), CAST(sum(cached_tokens) AS BIGINT),
    CAST(sum(estimated) AS BIGINT), CAST(coalesce(sum(CASE WHEN cost > 0 THEN cost ELSE 0 END), 0) AS BIGINT),
    CAST(sum(CASE WHEN cost IS NULL THEN 1 ELSE 0 END) AS BIGINT)
"""


def usage(database: Database, by: Group, since: float | None = None, until: float | None = None) -> list[Usage]:
    """Sums of a period (unix seconds; `until` is not in it), the dearest first, days in their order.

    Days are those of the local time zone. Raises `StorageError`.
    """
    where, values = _period(since, until)
    table = "tolmach_attempts" if by == "target" else "tolmach_requests"
    failed = "outcome = 'failed'" if by == "target" else "error <> ''"
    if by == "target":
        where.append("outcome <> 'skipped'")
    group = f"at / {_QUARTER}" if by == "day" else by
    found = database.query(
        f"SELECT {group}, {_COLUMNS.format(failed=failed)} FROM {table}{_where(where)} GROUP BY {group}", values
    )
    sums: dict[str, Usage] = {}
    for name, *counts in found:
        text = _day(name) if by == "day" else name
        sums.setdefault(text, Usage(name=text)).add(Usage(name=text, **dict(zip(_SUMS, counts, strict=True))))
    if by == "day":
        return sorted(sums.values(), key=lambda row: row.name)
    return sorted(sums.values(), key=lambda row: (-row.cost, -row.prompt_tokens - row.completion_tokens, row.name))


def _day(quarter: int) -> str:
    return datetime.fromtimestamp(quarter * (_QUARTER // _MICROS)).strftime("%Y-%m-%d")


class RequestFilter(Struct, frozen=True, kw_only=True):
    """Which requests; what is not set holds for all. Times are unix seconds."""

    since: float | None = None
    until: float | None = None
    status: str = ""
    """A status such as "429", or a class such as "5xx"."""
    key: str = ""
    model: str = ""
    target: str = ""
    """The target that answered, or one that was asked: PROVIDER/MODEL, or PROVIDER for all of its models."""
    errors: bool = False
    """Only those that ended in an error."""
    ended_since: float | None = None
    """Only those that ended then or later. Requests are written when they end, in no order of their beginnings."""


def requests(database: Database, wanted: RequestFilter, limit: int | None = None) -> list[RequestRow]:
    """Requests in the order of their time, the newest `limit` of them. Raises `StorageError`."""
    where, values = _period(wanted.since, wanted.until)
    for column in ("key", "model"):
        if text := getattr(wanted, column):
            where.append(f"{column} = ?")
            values.append(text)
    if wanted.status:
        where.append("status BETWEEN ? AND ?")
        values += _statuses(wanted.status)
    if wanted.target:
        where.append(
            "EXISTS (SELECT 1 FROM tolmach_attempts WHERE tolmach_attempts.uid = tolmach_requests.uid AND "
            "outcome <> 'skipped' AND (tolmach_attempts.target = ? OR substr(tolmach_attempts.target, 1, ?) = ?))"
        )
        values += [wanted.target, len(wanted.target) + 1, f"{wanted.target}/"]
    if wanted.errors:
        where.append("error <> ''")
    if wanted.ended_since is not None:
        where.append("at + total_ms * 1000 >= ?")
        values.append(_micros(wanted.ended_since))
    cut = "" if limit is None else f" LIMIT {int(limit)}"
    found = _rows(database, REQUESTS, RequestRow, f"{_where(where)} ORDER BY at DESC, uid DESC{cut}", values)
    return found[::-1]


def requests_named(database: Database, name: str) -> list[RequestRow]:
    """The requests of an x-request-id, which need not be one alone, or the one of a uid. Raises `StorageError`."""
    return _rows(database, REQUESTS, RequestRow, " WHERE request = ? OR uid = ? ORDER BY at, uid", (name, name))


def attempts_of(database: Database, uid: str) -> list[AttemptRow]:
    """A request's attempts in their order. Raises `StorageError`."""
    return _rows(database, ATTEMPTS, AttemptRow, " WHERE uid = ? ORDER BY number", (uid,))


def forget(database: Database, before: float, most: int) -> int:
    """Delete the oldest requests that came before a time (unix seconds) with their attempts; gives how many.

    At most so many at once, so that nobody waits long for the database. Raises `StorageError`.
    """
    found = database.query(
        f"SELECT uid FROM tolmach_requests WHERE at < ? ORDER BY at LIMIT {int(most)}", (_micros(before),)
    )
    if not found:
        return 0
    uids = [uid for (uid,) in found]
    marks = ", ".join("?" * len(uids))
    with database.transaction():
        database.execute(f"DELETE FROM tolmach_attempts WHERE uid IN ({marks})", uids)
        database.execute(f"DELETE FROM tolmach_requests WHERE uid IN ({marks})", uids)
    return len(uids)


def _rows(database: Database, table: Table, kind: type[Any], rest: str, values: Sequence[Any]) -> list[Any]:
    names = [column.name for column in table.columns]
    kinds = {column.name: column.kind for column in table.columns}
    found = database.query(f"SELECT {table.names} FROM {table.name}{rest}", values)
    return [kind(**{name: _value(kinds[name], value) for name, value in zip(names, row, strict=True)}) for row in found]


def _value(kind: str, value: Any) -> Any:
    if kind == "yes":
        return bool(value)
    return value / _MICROS if kind == "micros" else value


def _statuses(status: str) -> tuple[int, int]:
    if status.endswith("xx"):
        return int(status[0]) * 100, int(status[0]) * 100 + 99
    return int(status), int(status)


def _period(since: float | None, until: float | None) -> tuple[list[str], list[Any]]:
    where, values = [], []
    for test, moment in (("at >= ?", since), ("at < ?", until)):
        if moment is not None:
            where.append(test)
            values.append(_micros(moment))
    return where, values


def _where(tests: Sequence[str]) -> str:
    return f" WHERE {' AND '.join(tests)}" if tests else ""


def _micros(moment: float) -> int:
    return round(moment * _MICROS)
