"""The command `tolmach`: one module a subcommand, each imported when it is called.

`main` is the way in. `options`, `failures` and `render` are what the subcommands share.
"""

import os
import sys
from contextlib import suppress
from importlib import import_module
from typing import Any

import click

from tolmach.cli.failures import Reporting, debug_option, reported
from tolmach.cli.output import say
from tolmach.version import __version__

__all__ = ["COMMANDS", "LazyGroup", "cli", "main"]

COMMANDS: dict[str, tuple[str, str]] = {
    "ask": ("tolmach.cli.ask:ask", "Ask one question and print the answer as it streams."),
    "chat": ("tolmach.cli.chat:chat", "Talk in the terminal, turn by turn."),
    "providers": ("tolmach.cli.listing:list_providers", "List the providers and what each supports."),
    "models": ("tolmach.cli.listing:list_models", "List the models and which providers have them."),
    "serve": ("tolmach.cli.serve:serve", "Serve the providers of tolmach.toml behind the OpenAI and Anthropic APIs."),
    "keys": ("tolmach.cli.keys:keys", "Make, list and take away the keys of the gateway's callers."),
    "usage": ("tolmach.cli.usage:usage", "Add up requests, tokens and costs of the gateway."),
    "explain": ("tolmach.cli.explain:explain_model", "Tell whom a MODEL is asked of, in which order and why."),
    "logs": ("tolmach.cli.logs:logs", "Show the requests that the gateway answered, or one with its attempts."),
    "demo": ("tolmach.cli.demo:demo", "See five services answer, played by a local server."),
    "init": ("tolmach.cli.init:init", "Write a commented configuration of the gateway."),
    "config": ("tolmach.cli.config:config", "Check the configuration, or show what is in force."),
    "recipe": ("tolmach.cli.recipe:recipe", "Make a recipe of a HAR file or a curl command."),
    "discover": ("tolmach.cli.discover:discover", "Find the chat assistants of a page, and ask them."),
    "decode": ("tolmach.cli.decode:decode", "Print what the chat answers in recordings mean."),
}
"""Name -> where it stands and its one-line help, so that `tolmach --help` imports none of them."""

_EXIT_CODES = (
    ("0", "answered, whole"),
    ("1", "an unexpected failure, such as a full disk or a bug: --debug shows where"),
    ("2", "wrong use: an option, setting, file, provider or model"),
    ("3", "no connection, a broken one, or a time-out"),
    ("4", "the service failed or refused"),
    ("5", "rate limited: wait"),
    ("6", "a person has to solve a challenge"),
    ("7", "the answer broke off or was not understood"),
    ("130", "interrupted by Ctrl-C"),
    ("141", "nobody reads the output any more"),
)


class LazyGroup(click.Group):
    """A group that imports a command when it is called."""

    def invoke(self, ctx: click.Context) -> Any:
        # Here and not only around `main`, which gives interrupts and closed pipes codes of its own.
        with reported(ctx.ensure_object(Reporting)):
            return super().invoke(ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Exit codes"):
            formatter.write_dl(_EXIT_CODES)


@click.group(
    cls=LazyGroup,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, "--version", message="tolmach %(version)s")
@debug_option
@click.pass_context
def cli(ctx: click.Context) -> None:
    """One interface to every chat service.

    Answers go to standard output; errors are one line on standard error, which says what to do.

    To see it work without any service: tolmach demo
    """
    if ctx.invoked_subcommand is None:
        say(ctx.get_help(), err=True)
        ctx.exit(2)


def main(args: list[str] | None = None) -> Any:
    """Run the command and leave with its exit code."""
    reporting = Reporting()
    code: Any = None
    try:
        with reported(reporting):
            code = cli.main(args, prog_name="tolmach", standalone_mode=False, obj=reporting)
    except SystemExit as leaving:
        code = leaving.code
    if args is None and "granian" in sys.modules:
        _leave_at_once(code if isinstance(code, int) else 0)
    sys.exit(code)


def _leave_at_once(code: int) -> None:
    """End the process without taking the interpreter down.

    The server's own threads may be about to call Python when it is gone, and that aborts the process
    (seen once in some seventy runs with granian 2.8 on CPython 3.11).
    """
    with suppress(OSError, ValueError):
        sys.stdout.flush()
    with suppress(OSError, ValueError):
        sys.stderr.flush()
    os._exit(code)
