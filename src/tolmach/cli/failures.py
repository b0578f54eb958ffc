"""Errors of the command: one line that says what to do, and an exit code."""

import io
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, TypeVar

import click

from tolmach.cli.output import say
from tolmach.errors import (
    ChallengeRequired,
    ConnectionLost,
    LocalError,
    MissingCookies,
    ProviderError,
    RateLimited,
    RemoteProtocolError,
    TimedOut,
    TolmachError,
    TransportError,
    UnsupportedFeature,
)
from tolmach.safe_text import one_line

__all__ = ["EXIT_CODES", "Reporting", "as_event", "debug_option", "describe", "exit_code", "reported"]

F = TypeVar("F", bound=Callable[..., Any])

EXIT_CODES: dict[type[TolmachError], int] = {
    LocalError: 2,
    TransportError: 3,
    RateLimited: 5,
    ChallengeRequired: 6,
    RemoteProtocolError: 7,
    ProviderError: 4,
}
"""The first that fits counts."""

UNEXPECTED = 1
INTERRUPTED = 130
"""128 + SIGINT, as shells count."""
NO_READER = 141
"""128 + SIGPIPE, as other programs end before a closed pipe."""

_HINTS: dict[type[TolmachError], str] = {
    MissingCookies: "Give --cookies FILE, or put a cookies.txt, JSON export or HAR file into {cookies}.",
    UnsupportedFeature: "Leave it out, choose another provider, or have it dropped with --lenient.",
    ChallengeRequired: "A person has to solve it: open the site in a browser; --cookies FILE brings its cookies here.",
    TimedOut: "Ask again, or allow more seconds with --timeout.",
    ConnectionLost: "Ask again; if it stays, check the network and the proxy.",
}
"""What to do, in the command's words, where the library's hint speaks of its own arguments."""

_LONGEST = 600
"""Characters of a line; a service's text can be a whole page."""


class Reporting:
    """How errors are told: with `debug` also where they came from."""

    def __init__(self) -> None:
        self.debug = False

    def tell(self, text: str, error: BaseException | None = None) -> None:
        """A line on standard error, and before it with `debug` the error's traceback."""
        if self.debug and error is not None:
            say("".join(traceback.format_exception(error)), nl=False, err=True)
        say(f"tolmach: {text}", err=True)


def debug_option(command: F) -> F:
    """Adds `--debug`, which counts before and after a subcommand's name."""

    def switch_on(ctx: click.Context, _: click.Parameter, value: bool) -> None:
        if value:
            ctx.ensure_object(Reporting).debug = True

    option = click.option(
        "--debug",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=switch_on,
        help="Show where an error came from.",
    )
    return option(command)


def exit_code(error: TolmachError) -> int:
    return next((code for kind, code in EXIT_CODES.items() if isinstance(error, kind)), UNEXPECTED)


def describe(error: TolmachError) -> str:
    """The error in one line: what, where, what the service said, what to do. Safe to show on a terminal."""
    where = f"{error.provider}: " if error.provider and not str(error).startswith(error.provider) else ""
    text = " ".join(str(error).split()) or "no reason was given"
    if len(text) > _LONGEST:
        text = f"{text[:_LONGEST]}…"
    if isinstance(error, ProviderError):
        if error.status and error.status >= 400:
            text += f" (HTTP {error.status})"
        if error.retry_after is not None:
            text += f" (wait {error.retry_after:g} s)"
    hint = _hint(error)
    if hint and text[-1] not in ".!?…":
        text += "."
    return one_line(f"{type(error).__name__}: {where}{text} {hint}").rstrip()


def _hint(error: TolmachError) -> str:
    hint = next((text for kind, text in _HINTS.items() if isinstance(error, kind)), error.hint)
    if "{cookies}" in hint:
        from tolmach.cookies import cookies_dir

        hint = hint.format(cookies=cookies_dir())
    return hint


def as_event(error: TolmachError) -> dict[str, Any]:
    """The error as the last event of an answer, in the form that `tolmach decode` prints."""
    fields = {"type": "error", "error": type(error).__name__, "message": str(error)}
    details = {name: getattr(error, name, None) for name in ("status", "code", "retry_after")}
    return fields | {name: value for name, value in details.items() if value is not None}


@contextmanager
def reported(reporting: Reporting) -> Iterator[None]:
    """Turns every way in which a command can fail into a line on standard error and an exit code."""
    _open_missing_streams()
    told = warnings.showwarning
    warnings.showwarning = lambda message, *_: reporting.tell(f"warning: {message}")
    try:
        yield
        sys.stdout.flush()
    except TolmachError as error:
        reporting.tell(describe(error), error)
        sys.exit(exit_code(error))
    except (click.exceptions.Abort, KeyboardInterrupt) as error:
        if sys.stderr.isatty():
            say(err=True)  # closes the line on which the terminal shows ^C
        reporting.tell("interrupted", error)
        sys.exit(INTERRUPTED)
    except click.exceptions.Exit:
        raise  # no failure: how click ends after --help
    except click.ClickException as error:
        reporting.tell(_usage(error), error)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # The reader (`| head`) has what it wanted.
        _discard_output()
        sys.exit(NO_READER)
    except Exception as error:
        # Not one of our errors: a full disk, or a bug. The user gets a line all the same, never a traceback unasked.
        kind = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        advice = "" if reporting.debug else " This was not expected; the same command with --debug shows where."
        reporting.tell(f"{' '.join(kind.split())}.{advice}", error)
        _discard_output()
        sys.exit(UNEXPECTED)
    finally:
        warnings.showwarning = told


def _usage(error: click.ClickException) -> str:
    """A wrong use in one line."""
    text = " ".join(error.format_message().split())
    if isinstance(error, click.UsageError) and error.ctx is not None:
        return f"{text}{'' if text[-1:] in '.!?' else '.'} See `{error.ctx.command_path} --help`."
    return text


def _open_missing_streams() -> None:
    """Standard streams that were closed by the caller read and write nothing; none fails on a character."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 - open as long as the process
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _discard_output() -> None:
    """Send what is still buffered for standard output nowhere: writing it failed, and would fail again at exit."""
    stream: TextIO = sys.stdout
    with suppress(OSError, ValueError):  # a stream without a descriptor, as in tests, buffers nothing
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
