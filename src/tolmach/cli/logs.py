"""`tolmach logs`."""

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from tolmach.cli.failures import debug_option
from tolmach.cli.ledger import dollars, iso, ledger_options, local, open_ledger, seconds, since_moment, until_moment
from tolmach.cli.output import new_console, say_json
from tolmach.errors import ConfigError
from tolmach.ledger.database import Database
from tolmach.ledger.queries import RequestFilter, attempts_of, requests, requests_named
from tolmach.ledger.rows import AttemptRow, RequestRow
from tolmach.safe_text import one_line

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["logs"]

_POLL_SECONDS = 0.5
_LATE_SECONDS = 10.0
"""How long after its end a request may come into the ledger and still be seen by `--follow`."""
_LONGEST_REQUEST = 3600.0
_STATUS = re.compile(r"[1-5](?:\d\d|xx)")

_STYLES = {"answered": "green", "failed": "red", "cancelled": "yellow", "skipped": "dim"}


def _status(ctx: click.Context, parameter: click.Parameter, value: str) -> str:
    if value and not _STATUS.fullmatch(value):
        raise click.BadParameter(f"{value!r} is no status; write 429 or 5xx", ctx=ctx, param=parameter)
    return value


@click.command("logs")
@click.argument("request_id", default="", metavar="[REQUEST-ID]")
@click.option("-f", "--follow", is_flag=True, help="Go on with requests as they end, until Ctrl-C.")
@click.option("-n", "--limit", type=click.IntRange(1), default=20, show_default=True, help="The last so many.")
@click.option("--status", default="", callback=_status, help="Only this status, or a class such as 5xx.")
@click.option("--key", default="", metavar="ID", help="Only those of this key.")
@click.option("--model", default="", help="Only those that asked for this model.")
@click.option("--target", default="", help="Only those for which this target (PROVIDER/MODEL or PROVIDER) was asked.")
@click.option("--errors", is_flag=True, help="Only those that ended in an error.")
@click.option("--since", callback=since_moment, default=None, help="From: 30m, 24h, 7d (with today), a date or a time.")
@click.option(
    "--until", callback=until_moment, default=None, help="To, in the same forms; a date counts with its whole day."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, an object a line.")
@ledger_options
@debug_option
def logs(
    request_id: str,
    follow: bool,
    limit: int,
    as_json: bool,
    file: Path | None,
    url: str | None,
    **wanted: Any,
) -> None:
    """Show the requests that the gateway answered, or one with its attempts.

    The newest are last. REQUEST-ID is the x-request-id of an answer.
    """
    with closing(open_ledger(file, url)) as database:
        if request_id:
            _show_one(database, request_id, as_json)
            return
        chosen = RequestFilter(**wanted)
        for row in _rows(database, chosen, limit, follow):
            _print_line(row, as_json)


def _rows(database: Database, wanted: RequestFilter, limit: int, follow: bool) -> Iterator[RequestRow]:
    looked = time.time()
    found = requests(database, wanted, limit)
    yield from found
    seen = {row.uid: row.at + row.total_ms / 1000 for row in found}
    for row in requests(database, _recent(wanted, looked), None) if follow else ():
        # Those that the limit cut are not new.
        seen.setdefault(row.uid, row.at + row.total_ms / 1000)
    while follow:
        time.sleep(_POLL_SECONDS)
        now = time.time()
        for row in requests(database, _recent(wanted, looked), None):
            if row.uid not in seen:
                yield row
            seen[row.uid] = row.at + row.total_ms / 1000
        seen = {uid: end for uid, end in seen.items() if end >= looked - 2 * _LATE_SECONDS}
        looked = now


def _recent(wanted: RequestFilter, looked: float) -> RequestFilter:
    since = max(wanted.since or 0.0, looked - _LONGEST_REQUEST)
    return msgspec.structs.replace(wanted, since=since, ended_since=looked - _LATE_SECONDS)


def _print_line(row: RequestRow, as_json: bool) -> None:
    if as_json:
        say_json(_record(row))
        return
    where = f"{row.model} → {row.target}" if row.target and row.target != row.model else row.model
    parts = [
        (local(row.at), "dim"),
        (str(row.status), "green" if row.status < 400 else "red"),
        (seconds(row.total_ms), ""),
        (where, ""),
        (row.error, "red"),
        ("gone" if row.gone else "", "yellow"),
        (_tokens(row), ""),
        (dollars(row.cost), ""),
        (f"key {row.key}" if row.key else "", "dim"),
        (row.request or row.uid, "dim"),
    ]
    _print_parts(new_console(rows=True), parts)


def _tokens(row: RequestRow | AttemptRow) -> str:
    about = "~" if row.estimated else ""
    return f"{about}{row.prompt_tokens}+{row.completion_tokens} tokens"


def _print_parts(console: "Console", parts: Sequence[tuple[str, str]], indent: int = 0) -> None:
    """The parts side by side, on further lines where they do not fit; none is cut in two unless it must be."""
    from rich.text import Text

    line = Text(" " * indent)
    for text, style in parts:
        part = Text(one_line(text), style=style)
        if not part.plain:
            continue
        if line.plain.strip() and line.cell_len + 2 + part.cell_len > console.width:
            console.print(line, overflow="fold")
            line = Text(" " * (indent + 2))
        elif line.plain.strip():
            line.append("  ")
        line.append_text(part)
    console.print(line, overflow="fold")


def _show_one(database: Database, name: str, as_json: bool) -> None:
    found = requests_named(database, name)
    if not found:
        raise ConfigError(f"no request {name} is in the ledger; it may be too old, or not written yet")
    for row in found:
        attempts = attempts_of(database, row.uid)
        if as_json:
            say_json({**_record(row), "attempts": [_record(each) for each in attempts]})
        else:
            _waterfall(row, attempts)


def _record(row: RequestRow | AttemptRow) -> dict[str, Any]:
    fields = msgspec.structs.asdict(row)
    cost = fields.pop("cost")
    return {**fields, "at": iso(row.at), "cost_usd": None if cost is None else cost / 1_000_000}


def _waterfall(row: RequestRow, attempts: Sequence[AttemptRow]) -> None:
    console = new_console(rows=True)
    _print_line(row, as_json=False)
    details = [row.surface, "streamed" if row.streamed else "", f"worker {row.worker}" if row.worker else ""]
    first = "" if row.first_ms is None else f"first token after {seconds(row.first_ms)}"
    _print_parts(console, [(text, "dim") for text in (*details, first, row.uid)], indent=2)
    end = max([row.total_ms, *((each.at - row.at) * 1000 + each.total_ms for each in attempts)])
    for each in attempts:
        console.print()
        _show_attempt(console, row, each, end)


def _show_attempt(console: "Console", row: RequestRow, each: AttemptRow, end: float) -> None:
    style = _STYLES.get(each.outcome, "")
    begun = max((each.at - row.at) * 1000, 0.0)
    parts = [
        (f"{each.number}. {each.target}", "bold"),
        (each.outcome, style),
        (str(each.status) if each.status else "", style),
        (each.error, style),
        (f"after {seconds(begun)}", ""),
        (seconds(each.total_ms) if each.outcome != "skipped" else "", ""),
        (_tokens(each) if each.prompt_tokens or each.completion_tokens else "", ""),
        (dollars(each.cost) if each.outcome != "skipped" else "", ""),
        (f"key no. {each.credential}" if each.credential else "", "dim"),
        (each.reason, "dim"),
    ]
    _print_parts(console, parts)
    if console.is_terminal and each.outcome != "skipped":
        console.print(_bar(begun, each, end, console.width - 2), style=style)


def _bar(begun: float, each: AttemptRow, end: float, columns: int) -> str:
    """Where the attempt stands in the request's time: light until the first token, full from then on."""
    scale = columns / end if end > 0 else 0.0
    start = min(round(begun * scale), columns - 1)
    width = max(min(round(each.total_ms * scale), columns - start), 1)
    waiting = width if each.first_ms is None else min(round(each.first_ms * scale), width - 1)
    return "  " + " " * start + "░" * waiting + "█" * (width - waiting)
