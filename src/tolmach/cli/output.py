"""Everything that the command prints: no other module of it writes to standard output or standard error.

What is printed may hold what others chose (`tolmach.safe_text`), so it is made safe here, whoever prints it. An
answer is the exception: into a pipe or a file it goes as it is, for that is what was asked for.
"""

import sys
from typing import TYPE_CHECKING, Any

import click

from tolmach.safe_text import json_text, printable

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["new_console", "say", "say_answer", "say_json"]

_PIPE_COLUMNS = 1000


def say(text: str = "", *, err: bool = False, nl: bool = True) -> None:
    """Print a text, safe on a terminal."""
    click.echo(printable(text), err=err, nl=nl)


def say_answer(text: str, *, err: bool = False, nl: bool = False) -> None:
    """Print a piece of an answer: as it is, but on a terminal safe."""
    stream = sys.stderr if err else sys.stdout
    # click would take colours out of what goes into a pipe.
    click.echo(printable(text) if stream.isatty() else text, err=err, nl=nl, color=True)


def say_json(value: Any, *, indent: int = 0) -> None:
    """Print a value as JSON, on one line without `indent`."""
    # The help does without what writes JSON.
    import msgspec

    encoded = msgspec.json.encode(value)
    click.echo(json_text((msgspec.json.format(encoded, indent=indent) if indent else encoded).decode()))


def new_console(*, err: bool = False, rows: bool = False) -> "Console":
    """A console for what is laid out. With `rows` one stays a line in a pipe, however long."""
    from tolmach.cli.console import SafeConsole

    made = SafeConsole(stderr=err, markup=False, emoji=False, highlight=False)
    if rows and not made.is_terminal:
        made.width = _PIPE_COLUMNS
    return made
