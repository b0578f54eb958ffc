"""`tolmach config check` and `tolmach config show`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import msgspec

from tolmach.cli.failures import debug_option
from tolmach.cli.output import say, say_json
from tolmach.configuration import InvalidSettings, Problem, Settings
from tolmach.configuration.rendering import show, show_toml
from tolmach.safe_text import one_line

__all__ = ["check", "config", "config_option", "load_settings", "show_settings"]

config_option = click.option(
    "-c",
    "--config",
    "file",
    type=click.Path(path_type=Path),
    default=None,
    metavar="FILE",
    help="The configuration; else TOLMACH_CONFIG, ./tolmach.toml, or that of the user's config folder.",
)
"""The option that names the configuration, as `file`."""


@click.group("config", invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@debug_option
@click.pass_context
def config(ctx: click.Context) -> None:
    """Check the configuration, or show what is in force."""
    if ctx.invoked_subcommand is None:
        say(ctx.get_help(), err=True)
        ctx.exit(2)


@config.command("check")
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON: a list of file, line, key and text.")
@debug_option
@click.pass_context
def check(ctx: click.Context, file: Path | None, as_json: bool) -> None:
    """Name every mistake by file, line and key. The exit code is 2 when there is one."""
    if as_json:
        problems = _problems(file)
        say_json([msgspec.structs.asdict(problem) for problem in problems], indent=2)
        ctx.exit(2 if problems else 0)
    settings = load_settings(file)
    what = str(settings.file) if settings.file else "no configuration found, the defaults hold"
    providers, routes = len(settings.providers), len(settings.routes)
    say(f"{what}: no mistake; {_counted(providers, 'provider')}, {_counted(routes, 'route')}")


@config.command("show")
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON: a list of key, value and source.")
@debug_option
def show_settings(file: Path | None, as_json: bool) -> None:
    """Print the settings in force, each with where it came from, secrets hidden."""
    settings = load_settings(file)
    if as_json:
        say_json([{"key": one.key, "value": one.value, "source": one.source} for one in show(settings)], indent=2)
    else:
        say(show_toml(settings), nl=False)


def load_settings(file: Path | None, overrides: Mapping[str, Any] | None = None) -> Settings:
    """The settings in force. With mistakes in them: a line for each on standard error, and the exit code 2."""
    try:
        return Settings.load(file, overrides=overrides)
    except InvalidSettings as error:
        for problem in error.problems:
            say(one_line(str(problem)), err=True)
        say(f"tolmach: {_counted(len(error.problems), 'mistake')} in the configuration", err=True)
        raise click.exceptions.Exit(2) from error


def _problems(file: Path | None) -> tuple[Problem, ...]:
    try:
        Settings.load(file)
    except InvalidSettings as error:
        return error.problems
    return ()


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
