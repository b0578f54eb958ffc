"""`tolmach ask`: one question, one answer."""

import asyncio
import os
import stat
import sys
from pathlib import Path
from typing import Any

import click

from tolmach.chat import Delta, Event, Notice
from tolmach.cli.failures import as_event
from tolmach.cli.options import Target, pairs, target_options
from tolmach.cli.output import say, say_answer, say_json
from tolmach.errors import ConfigError, TolmachError

__all__ = ["ask"]

_RESERVED = {
    "model": "-m",
    "provider": "-p",
    "messages": "-s and the question",
    "stream": "--no-stream",
    "timeout": "--timeout",
    "strict": "--lenient",
    "conversation": "`tolmach chat`",
}
"""Arguments of the call that are no options of the model -> what to give instead."""


@click.command()
@click.argument("words", nargs=-1, metavar="[QUESTION]...")
@click.option("-s", "--system", default=None, metavar="TEXT", help="System message.")
@click.option(
    "-f",
    "--file",
    "files",
    multiple=True,
    metavar="FILE",
    type=click.Path(path_type=Path, allow_dash=True),
    help="Text file, put before the question; - is standard input. May be repeated.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the events as JSON lines.")
@click.option("--no-stream", is_flag=True, help="Ask for the answer in one piece.")
@click.option(
    "-o",
    "--option",
    "options",
    multiple=True,
    metavar="KEY=VALUE",
    help="Option of the model, such as temperature=0.2; may be repeated.",
)
@click.option("-v", "--verbose", is_flag=True, help="With --url: show the greeting, the bot and its limits first.")
@target_options
def ask(
    words: tuple[str, ...],
    files: tuple[Path, ...],
    system: str | None,
    options: tuple[str, ...],
    as_json: bool,
    no_stream: bool,
    verbose: bool,
    **target: Any,
) -> None:
    """Ask one question and print the answer as it streams.

    The question is the words, and before them the files, or what comes on standard input.

    \b
    tolmach ask -m gpt-4o "Why is the sky blue?"
    git diff | tolmach ask -p ChatGptt "What does this change?"
    tolmach ask --url https://shop.example/help "Are you open today?"
    tolmach ask --base-url http://localhost:8080/v1 --protocol openai "Hello"
    """
    given = pairs(options, reserved=_RESERVED)
    asked = Target(**target)
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": _question(words, files)})
    asyncio.run(_ask(asked, messages, given, as_json, not no_stream, verbose))


def _question(words: tuple[str, ...], files: tuple[Path, ...]) -> str:
    parts = [_read(file) for file in files]
    if Path("-") not in files and _is_fed(may_wait=not words):
        parts.append(_read(Path("-")))
    parts.append(" ".join(words))
    question = "\n\n".join(part.strip("\n") for part in parts if part.strip())
    if not question:
        raise ConfigError('nothing to ask; write: tolmach ask -m MODEL "your question"')
    return question


def _read(file: Path) -> str:
    """The text of a file or of standard input. Raises `ConfigError`."""
    name = "standard input" if file == Path("-") else str(file)
    try:
        data = sys.stdin.buffer.read() if file == Path("-") else file.read_bytes()
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{name}: not UTF-8 text (byte {error.start} is {data[error.start]:#04x})") from error
    except OSError as error:
        raise ConfigError(f"{name}: {error.strerror or error}") from error


def _is_fed(*, may_wait: bool) -> bool:
    """Whether standard input was fed on purpose: a file or a pipe.

    Of anything else but a terminal (under cron, say) it is read only when there is no question yet.
    """
    try:
        if sys.stdin.isatty():
            return False
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (OSError, ValueError):
        return False
    return may_wait or stat.S_ISREG(mode) or stat.S_ISFIFO(mode)


async def _ask(
    target: Target, messages: list[dict[str, Any]], options: dict[str, Any], as_json: bool, stream: bool, verbose: bool
) -> None:
    output = _JsonLines() if as_json else _Text()
    try:
        await _introduce(target, verbose)
    except TolmachError as error:
        output.fail(error)
        raise
    events = target.client.events(model=target.model, messages=messages, stream=stream, **options)
    try:
        async for event in events:
            output.write(event)
    except TolmachError as error:
        output.fail(error)
        raise
    finally:
        await events.aclose()
        output.end()


async def _introduce(target: Target, verbose: bool) -> None:
    """Say on standard error who is asked on a page, where there is a choice or the user wants to know."""
    assistant = await target.introduced()
    if assistant is None:
        return
    # What prints findings needs what reads pages.
    from tolmach.cli.findings import introduction, others

    for line in (*(introduction(assistant) if verbose else ()), others(assistant)):
        if line:
            say(f"tolmach: {line}", err=True)


class _JsonLines:
    """Writes the events as JSON, one a line; an error is the last of them."""

    def write(self, event: Event | dict[str, Any]) -> None:
        say_json(event)

    def fail(self, error: TolmachError) -> None:
        self.write(as_event(error))

    def end(self) -> None:
        """Every line is whole already."""


class _Text:
    """Writes the answer's text."""

    def __init__(self) -> None:
        self._open = False

    def write(self, event: Event) -> None:
        if isinstance(event, Delta) and event.text:
            say_answer(event.text)
            self._open = not event.text.endswith("\n")
        elif isinstance(event, Notice) and event.kind != "status":
            say(f"tolmach: {event.kind}: {event.text}", err=True)

    def fail(self, error: TolmachError) -> None:
        """The error is told on standard error alone."""

    def end(self) -> None:
        if self._open:
            say()
