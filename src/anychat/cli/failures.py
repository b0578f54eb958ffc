"""Errors of the command: one line that says what to do, and an exit code."""

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import click

from anychat.errors import (
    AnychatError,
    ChallengeRequired,
    LocalError,
    ProviderError,
    RateLimited,
    RemoteProtocolError,
    TransportError,
)

__all__ = ["EXIT_CODES", "describe", "exit_code", "reported"]

EXIT_CODES: dict[type[AnychatError], int] = {
    LocalError: 2,
    TransportError: 3,
    RateLimited: 5,
    ChallengeRequired: 6,
    RemoteProtocolError: 7,
    ProviderError: 4,
}
"""The first that fits counts."""


def exit_code(error: AnychatError) -> int:
    return next((code for kind, code in EXIT_CODES.items() if isinstance(error, kind)), 1)


def describe(error: AnychatError) -> str:
    """The error in one line: what, where, what the service said, what to do."""
    where = f"{error.provider}: " if error.provider and not str(error).startswith(error.provider) else ""
    text = " ".join(str(error).split()) or "no reason was given"
    if isinstance(error, ProviderError):
        if error.status and error.status >= 400:
            text += f" (HTTP {error.status})"
        if error.retry_after is not None:
            text += f" (wait {error.retry_after:g} s)"
    if error.hint and text[-1] not in ".!?…":
        text += "."
    return f"{type(error).__name__}: {where}{text} {error.hint}".rstrip()


@contextmanager
def reported() -> Iterator[None]:
    """Turns every way in which a command can fail into a line on standard error and an exit code."""
    debug = "--debug" in sys.argv[1:]
    try:
        yield
    except AnychatError as error:
        if debug:
            traceback.print_exc()
        click.echo(f"anychat: {describe(error)}", err=True)
        sys.exit(exit_code(error))
    except click.exceptions.Abort:
        click.echo("anychat: interrupted", err=True)
        sys.exit(130)
    except KeyboardInterrupt:
        click.echo("anychat: interrupted", err=True)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # The reader (`| head`) has what it wanted. Nothing may be flushed into the closed pipe at exit.
        sys.stdout = None
        sys.exit(0)
