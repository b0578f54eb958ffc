"""The command `anychat`: one module a subcommand, each imported when it is called."""

from importlib import import_module
from typing import Any

import click

from anychat import __version__
from anychat.cli.failures import reported

__all__ = ["COMMANDS", "cli", "main"]

COMMANDS: dict[str, tuple[str, str]] = {
    "ask": ("anychat.cli.ask:ask", "Ask one question and print the answer as it streams."),
    "chat": ("anychat.cli.chat:chat", "Talk in the terminal, turn by turn."),
    "providers": ("anychat.cli.listing:list_providers", "List the providers and what each supports."),
    "models": ("anychat.cli.listing:list_models", "List the models and which providers have them."),
    "demo": ("anychat.cli.demo:demo", "See all five services answer, from a local server that plays them."),
    "decode": ("anychat.cli.decode:decode", "Print what the answers in recordings mean."),
}
"""Name -> where it stands and its one-line help, so that `anychat --help` imports none of them."""


class LazyGroup(click.Group):
    """A group that imports a command when it is called."""

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


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, "--version", message="anychat %(version)s")
@click.option("--debug", is_flag=True, help="Show where an error came from.")
def cli(debug: bool) -> None:
    """One interface to every chat service.

    Exit codes: 0 answered; 2 wrong use, setting or model; 3 no connection or time-out; 4 the service
    failed or refused; 5 rate limited; 6 a person has to solve a challenge; 7 the answer was broken or
    not understood; 130 interrupted.
    """


def main(args: list[str] | None = None) -> Any:
    """Run the command and leave with its exit code."""
    with reported():
        return cli.main(args, prog_name="anychat", standalone_mode=False)
