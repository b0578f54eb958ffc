"""`anychat ask`: one question, one answer."""

import asyncio
import sys
from pathlib import Path
from typing import Any

import click
import msgspec

from anychat.chat import Delta, Event, Notice
from anychat.cli.options import Target, pairs, target_options
from anychat.cli.render import printable
from anychat.errors import ConfigError

__all__ = ["ask"]


@click.command()
@click.argument("words", nargs=-1, metavar="[QUESTION]...")
@target_options
@click.option(
    "-f", "--file", "files", multiple=True, type=click.Path(path_type=Path), help="Text file, put before the question."
)
@click.option("-s", "--system", default=None, help="System message.")
@click.option(
    "-o",
    "--option",
    "options",
    multiple=True,
    metavar="KEY=VALUE",
    help="Option of the model, such as temperature=0.2.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the events as JSON lines.")
@click.option("--no-stream", is_flag=True, help="Ask for the answer in one piece.")
def ask(
    words: tuple[str, ...],
    files: tuple[Path, ...],
    system: str | None,
    options: tuple[str, ...],
    as_json: bool,
    no_stream: bool,
    **target: Any,
) -> None:
    """Ask one question and print the answer as it streams.

    The question is the words, and before them the files and what comes on standard input.
    """
    question = _question(words, files)
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": question})
    asyncio.run(_ask(Target(**target), messages, pairs(options), as_json, not no_stream))


def _question(words: tuple[str, ...], files: tuple[Path, ...]) -> str:
    parts = []
    for file in files:
        try:
            parts.append(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{file}: cannot be read as UTF-8 text: {error}") from error
    if not sys.stdin.isatty() and not (words and _nothing_waits()):
        parts.append(sys.stdin.read())
    parts.append(" ".join(words))
    question = "\n\n".join(part.strip("\n") for part in parts if part.strip())
    if not question:
        raise ConfigError('nothing to ask: anychat ask -m MODEL "your question"')
    return question


def _nothing_waits() -> bool:
    """Whether standard input is not a file or pipe that someone fed on purpose (such as under cron)."""
    import os
    import stat

    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (OSError, ValueError):
        return True
    return not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode))


async def _ask(
    target: Target, messages: list[dict[str, Any]], options: dict[str, Any], as_json: bool, stream: bool
) -> None:
    events = target.client.events(model=target.model, messages=messages, stream=stream, **options)
    on_terminal = sys.stdout.isatty()
    ended = True
    try:
        async for event in events:
            if as_json:
                click.echo(msgspec.json.encode(event).decode())
            elif isinstance(event, Delta):
                text = printable(event.text) if on_terminal else event.text
                click.echo(text, nl=False)
                ended = text.endswith("\n")
            else:
                _remark(event)
    finally:
        await events.aclose()
        if not as_json and not ended:
            click.echo()


def _remark(event: Event) -> None:
    if isinstance(event, Notice) and event.kind != "status":
        click.echo(f"anychat: {event.kind}: {printable(event.text)}", err=True)
