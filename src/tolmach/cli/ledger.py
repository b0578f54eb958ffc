"""What the commands that read the ledger share: which ledger, which period, and how its values are written."""

import os
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import click

from tolmach.cli.config import config_option, load_settings
from tolmach.errors import ConfigError
from tolmach.ledger.database import Database
from tolmach.ledger.opening import default_file, open_database

__all__ = ["dollars", "iso", "ledger_options", "local", "open_ledger", "seconds", "since_moment", "until_moment"]

F = TypeVar("F", bound=Callable[..., Any])

_SPAN = re.compile(r"\d{1,6}[mhd]", re.ASCII)
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)


def ledger_options(command: F) -> F:
    """Adds `--config` and `--ledger`."""
    ledger = click.option(
        "--ledger", "url", default=None, metavar="URL", help="Another ledger than the configuration's: a file or URL."
    )
    return config_option(ledger(command))


def open_ledger(file: Path | None, url: str | None) -> Database:
    """The ledger to read. Raises `ConfigError` when there is none, and what `open_database` raises."""
    if url is None:
        url = load_settings(file).ledger.url
        if url == "off":
            raise ConfigError('the ledger is switched off: [ledger] url = "off"')
    name = os.fspath(default_file()) if not url else url.removeprefix("sqlite:///")
    if "://" not in name and not Path(name).expanduser().exists():
        raise ConfigError(f"there is no ledger at {name} yet; `tolmach serve` writes it")
    return open_database(url)


def since_moment(ctx: click.Context, parameter: click.Parameter, value: str | None) -> float | None:
    """A callback: 30m, 24h; 7d, which are seven days with today; a date or a time of the local zone; as unix time."""
    if value is None:
        return None
    try:
        if _SPAN.fullmatch(value):
            return _span(int(value[:-1]), value[-1])
        return datetime.fromisoformat(value).timestamp()
    except (ValueError, OverflowError) as error:
        raise click.BadParameter(
            f"{value!r} is no time; write 30m, 24h, 7d, 2026-01-31 or 2026-01-31T12:00", ctx=ctx, param=parameter
        ) from error


def until_moment(ctx: click.Context, parameter: click.Parameter, value: str | None) -> float | None:
    """A callback: the same as an end, so that a date counts with its whole day."""
    moment = since_moment(ctx, parameter, value)
    if moment is None or value is None or not _DATE.fullmatch(value):
        return moment
    return (datetime.fromisoformat(value) + timedelta(days=1)).timestamp()


def _span(number: int, unit: str) -> float:
    now = datetime.now()
    if unit == "d":
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
        return (midnight - timedelta(days=max(number - 1, 0))).timestamp()
    return now.timestamp() - number * {"m": 60, "h": 3600}[unit]


def dollars(micros: int | None) -> str:
    """Millionths of a dollar as people read them; an unknown cost is a dash."""
    if micros is None:
        return "–"
    if micros == 0:
        return "$0"
    if micros < 100:
        return f"${micros / 1_000_000:.6f}"
    return f"${micros / 1_000_000:,.4f}" if micros < 1_000_000 else f"${micros / 1_000_000:,.2f}"


def seconds(milliseconds: float | None) -> str:
    if milliseconds is None:
        return "–"
    return f"{milliseconds:.0f} ms" if milliseconds < 1000 else f"{milliseconds / 1000:.2f} s"


def iso(at: float) -> str:
    """With the offset of the local zone."""
    return datetime.fromtimestamp(at).astimezone().isoformat(timespec="milliseconds")


def local(at: float) -> str:
    return datetime.fromtimestamp(at).strftime("%Y-%m-%d %H:%M:%S")
