"""`tolmach usage`."""

import csv
import io
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from tolmach.cli.failures import debug_option
from tolmach.cli.ledger import dollars, ledger_options, open_ledger, since_moment, until_moment
from tolmach.cli.output import new_console, say, say_json
from tolmach.ledger.keys import load_keys
from tolmach.ledger.queries import GROUPS, Group, Usage
from tolmach.ledger.queries import usage as sums_of
from tolmach.safe_text import csv_cell, one_line

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["usage"]

_BLOCKS = " ▏▎▍▌▋▊▉█"
_SHORTEST_NAME, _SHORTEST_BAR, _LONGEST_BAR = 10, 8, 60


@click.command("usage")
@click.option("--by", type=click.Choice(GROUPS), default="day", show_default=True, help="What is added up.")
@click.option(
    "--since",
    callback=since_moment,
    default="30d",
    show_default=True,
    help="From: 30m, 24h, 7d (with today), a date or a time.",
)
@click.option(
    "--until", callback=until_moment, default=None, help="To, in the same forms; a date counts with its whole day."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
@ledger_options
@debug_option
def usage(
    by: Group,
    since: float,
    until: float | None,
    as_json: bool,
    as_csv: bool,
    file: Path | None,
    url: str | None,
) -> None:
    """Add up requests, tokens and costs of the gateway.

    By target it counts attempts, which can be more than requests. Days are those of the local time zone.
    """
    if as_json and as_csv:
        raise click.UsageError("--json and --csv: one of them.")
    with closing(open_ledger(file, url)) as database:
        sums = sums_of(database, by, since, until)
        names = {key.id: key.name for key in load_keys(database)} if by == "key" else {}
    if as_json:
        say_json([_record(by, row, names) for row in sums], indent=2)
    elif as_csv:
        say(_csv(by, sums, names), nl=False)
    else:
        _chart(by, sums, names)


def _record(by: Group, row: Usage, names: dict[str, str]) -> dict[str, Any]:
    fields = msgspec.structs.asdict(row)
    named = {"key_name": names.get(row.name, "")} if by == "key" else {}
    cost = fields.pop("cost") / 1_000_000
    return {by: fields.pop("name"), **named, **fields, "cost_usd": cost}


def _csv(by: Group, sums: Sequence[Usage], names: dict[str, str]) -> str:
    text = io.StringIO()
    # Texts in quotation marks stay one cell where cells are parted at semicolons, too.
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    writer.writerow(_record(by, Usage(name=""), names))
    for row in sums:
        cells = _record(by, row, names) | {"cost_usd": f"{row.cost / 1_000_000:.6f}"}
        writer.writerow([csv_cell(value) for value in cells.values()])
    return text.getvalue()


def _chart(by: Group, sums: Sequence[Usage], names: dict[str, str]) -> None:
    if not sums:
        say("No requests in this time.")
        return
    console = new_console(rows=True)
    total = Usage(name="Total")
    for row in sums:
        total.add(row)
    labels = [one_line(_label(by, row, names)) for row in sums]
    _print_rows(console, by, labels, sums, total)
    for number, text in ((total.unpriced, "without a known price"), (total.estimated, "with estimated tokens")):
        if number:
            console.print(f"{number:,} of {total.requests:,} {text}", style="dim")


def _label(by: Group, row: Usage, names: dict[str, str]) -> str:
    if not row.name:
        return f"(no {by})"
    return f"{names[row.name]} ({row.name})" if row.name in names else row.name


_COLUMNS: tuple[tuple[str, int, Callable[[Usage], str]], ...] = (
    ("Requests", 40, lambda row: f"{row.requests:,}"),
    ("Errors", 100, lambda row: f"{row.errors:,}"),
    ("In", 72, lambda row: f"{row.prompt_tokens:,}"),
    ("Out", 72, lambda row: f"{row.completion_tokens:,}"),
    ("Cost", 40, lambda row: dollars(row.cost if row.cost or row.unpriced < row.requests else None)),
)
"""Heading, the columns that a terminal must have for it, and what stands there."""


def _print_rows(console: "Console", by: Group, labels: Sequence[str], sums: Sequence[Usage], total: Usage) -> None:
    """The names, as much as there is room for, the numbers in full, and what is left for the bars."""
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text

    shown = [(title, text) for title, least, text in _COLUMNS if console.width >= least]
    numbers = sum(max(len(title), *(len(text(row)) for row in (*sums, total))) + 2 for title, text in shown)
    longest = max(map(cell_len, (*labels, "Total")))
    bars, names = 0, longest
    if console.is_terminal:
        names = max(min(longest, console.width - numbers - _SHORTEST_BAR - 2), _SHORTEST_NAME)
        bars = min(console.width - numbers - names - 2, _LONGEST_BAR)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column(by.capitalize(), overflow="ellipsis", no_wrap=True, max_width=names)
    for title, _ in shown:
        table.add_column(title, justify="right", no_wrap=True)
    if bars >= _SHORTEST_BAR:
        table.add_column("", no_wrap=True)
    measure = next((field for field in ("cost", "prompt_tokens") if getattr(total, field)), "requests")
    most = max(getattr(row, measure) for row in sums) or 1
    for label, row in zip(labels, sums, strict=True):
        bar = [Text(_bar(getattr(row, measure) / most, bars), style="cyan")] if bars >= _SHORTEST_BAR else []
        table.add_row(Text(label), *(text(row) for _, text in shown), *bar)
    table.add_row("Total", *(text(total) for _, text in shown), style="bold")
    console.print(table)


def _bar(part: float, columns: int) -> str:
    """A bar in eighths of a column; what is not nothing can be seen."""
    eighths = round(part * columns * 8)
    if part > 0:
        eighths = max(eighths, 1)
    whole, rest = divmod(eighths, 8)
    return "█" * whole + (_BLOCKS[rest] if rest else "")
