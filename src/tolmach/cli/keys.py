"""`tolmach keys`: the keys of the gateway's callers."""

import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from msgspec import structs

from tolmach.access.keys import Key, new_key
from tolmach.cli.config import load_settings
from tolmach.cli.failures import debug_option
from tolmach.cli.ledger import ledger_options
from tolmach.cli.output import new_console, say, say_json
from tolmach.errors import ConfigError
from tolmach.ledger.database import Database
from tolmach.ledger.keys import load_keys, remove_key, save_key
from tolmach.ledger.opening import open_database
from tolmach.safe_text import one_line

__all__ = ["add", "disable", "enable", "keys", "list_keys", "remove"]

_SPAN = re.compile(r"(\d{1,5})([mhdwy])", re.ASCII)
_UNITS = {"m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400, "y": 365 * 86_400}
_NAME = re.compile(r"[\w.@+ -]{1,64}")

_WHICH = click.argument("which", metavar="ID")
_COUNT = click.IntRange(min=1)
_DOLLARS = click.FloatRange(min=0, min_open=True)


@click.group("keys", invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@debug_option
@click.pass_context
def keys(ctx: click.Context) -> None:
    """Make, list and take away the keys of the gateway's callers.

    Keys stand in the ledger's database, as hashes. ID is a key's id or its name.
    """
    if ctx.invoked_subcommand is None:
        say(ctx.get_help(), err=True)
        ctx.exit(2)


def _moment(ctx: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    """A callback: 12h, 30d, or the beginning of a day by UTC; as unix time."""
    if value is None:
        return None
    try:
        if span := _SPAN.fullmatch(value):
            return int(time.time()) + int(span[1]) * _UNITS[span[2]]
        moment = datetime.fromisoformat(value)
        found = int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
    except (ValueError, OverflowError) as error:
        raise click.BadParameter(
            f"{value!r} is no time; write 12h, 30d, 2027-01-31 or 2027-01-31T12:00", ctx=ctx, param=parameter
        ) from error
    if found <= time.time():
        raise click.BadParameter(f"{value} has passed", ctx=ctx, param=parameter)
    return found


@keys.command("add")
@click.argument("name")
@click.option(
    "--models", default="", metavar="A,B", help="Models that may be asked for, with * and ?; all if not given."
)
@click.option("--rpm", type=_COUNT, default=None, help="Requests a minute.")
@click.option("--tpm", type=_COUNT, default=None, help="Tokens a minute, of questions and answers.")
@click.option("--streams", type=_COUNT, default=None, help="Answers under way at once.")
@click.option("--budget-day", type=_DOLLARS, default=None, metavar="USD", help="US dollars a day, by UTC.")
@click.option("--budget-month", type=_DOLLARS, default=None, metavar="USD", help="US dollars a calendar month, by UTC.")
@click.option("--expires", callback=_moment, default=None, metavar="TIME", help="12h, 30d, or a date: from it on.")
@ledger_options
@debug_option
def add(
    name: str,
    models: str,
    rpm: int | None,
    tpm: int | None,
    streams: int | None,
    budget_day: float | None,
    budget_month: float | None,
    expires: int | None,
    file: Path | None,
    url: str | None,
) -> None:
    """Make a key and print it. It is shown this once; only its hash is kept."""
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{name!r}: a name has 1 to 64 letters, digits, spaces and ._@+-")
    plain, made = new_key(secrets.token_bytes, name, created=int(time.time()))
    key = structs.replace(
        made,
        models=tuple(part for each in models.split(",") if (part := each.strip())),
        requests_per_minute=rpm,
        tokens_per_minute=tpm,
        streams=streams,
        budget_day=budget_day,
        budget_month=budget_month,
        expires=expires,
    )
    with _opened(file, url) as database:
        if any(name in (other.name, other.id) for other in load_keys(database)):
            raise ConfigError(f"there is a key {name!r} already; choose another name, or remove that one first")
        save_key(database, key)
    say(f"The key {name} (id {key.id}) is written to {database.where}. It is shown only now:", err=True)
    say(plain)


@keys.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@ledger_options
@debug_option
def list_keys(as_json: bool, file: Path | None, url: str | None) -> None:
    """List the keys and what each allows; never the keys themselves."""
    with _opened(file, url) as database:
        found = load_keys(database)
    if as_json:
        rows = [_record(key) for key in found]
        say_json(rows, indent=2)
    elif found:
        _table(found)
    else:
        say("There are no keys. Make one with `tolmach keys add NAME`.", err=True)


@keys.command("disable")
@_WHICH
@ledger_options
@debug_option
def disable(which: str, file: Path | None, url: str | None) -> None:
    """Refuse a key until it is enabled again."""
    _switch(which, file, url, disabled=True)


@keys.command("enable")
@_WHICH
@ledger_options
@debug_option
def enable(which: str, file: Path | None, url: str | None) -> None:
    """Let a disabled key be used again."""
    _switch(which, file, url, disabled=False)


@keys.command("remove")
@_WHICH
@ledger_options
@debug_option
def remove(which: str, file: Path | None, url: str | None) -> None:
    """Take a key away for good. What it was used for stays in the ledger."""
    with _opened(file, url) as database:
        key = _found(database, which)
        remove_key(database, key.id)
    say(f"The key {key.name} (id {key.id}) is removed.", err=True)


@contextmanager
def _opened(file: Path | None, url: str | None) -> Iterator[Database]:
    """The ledger's database, made where there is none yet. Raises `ConfigError` when it is switched off."""
    if url is None:
        url = load_settings(file).ledger.url
    if url == "off":
        raise ConfigError('keys stand in the ledger, and it is switched off: [ledger] url = "off"')
    database = open_database(url)
    try:
        yield database
    finally:
        database.close()


def _found(database: Database, which: str) -> Key:
    key = next((key for key in load_keys(database) if which in (key.id, key.name)), None)
    if key is None:
        raise ConfigError(f"there is no key with the id or name {which!r}; see `tolmach keys list`")
    return key


def _switch(which: str, file: Path | None, url: str | None, *, disabled: bool) -> None:
    with _opened(file, url) as database:
        key = _found(database, which)
        save_key(database, structs.replace(key, disabled=disabled))
    say(f"The key {key.name} (id {key.id}) is {'disabled' if disabled else 'enabled'}.", err=True)


def _record(key: Key) -> dict[str, Any]:
    fields = structs.asdict(key)
    del fields["hash"]
    return {**fields, "state": _state(key)}


def _state(key: Key) -> str:
    if key.disabled:
        return "disabled"
    return "expired" if key.expires is not None and key.expires <= time.time() else "active"


def _table(found: list[Key]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in (
        "ID",
        "Name",
        "State",
        "Models",
        "Requests/min",
        "Tokens/min",
        "Streams",
        "$/day",
        "$/month",
        "Expires",
    ):
        table.add_column(column, overflow="fold")
    for key in found:
        limits = (key.requests_per_minute, key.tokens_per_minute, key.streams, key.budget_day, key.budget_month)
        row = [key.id, key.name, _state(key), ", ".join(key.models) or "all"]
        row += ["–" if limit is None else f"{limit:,}" for limit in limits]
        row.append("–" if key.expires is None else f"{datetime.fromtimestamp(key.expires, UTC):%Y-%m-%d %H:%M}Z")
        table.add_row(*map(one_line, row))
    new_console(rows=True).print(table)
