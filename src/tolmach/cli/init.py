"""`tolmach init`."""

import os
import secrets
from importlib.resources import files
from pathlib import Path

import click

from tolmach.cli.failures import debug_option
from tolmach.cli.output import say
from tolmach.errors import ConfigError

__all__ = ["init"]


@click.command("init")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path), default=Path("tolmach.toml"))
@click.option("--force", is_flag=True, help="Put it in the place of a file that is there.")
@debug_option
def init(file: Path, force: bool) -> None:
    """Write a commented configuration of the gateway.

    By default ./tolmach.toml; only you can read it. It serves at once: the models of an Ollama on this machine.
    """
    text = (files("tolmach.configuration") / "sample.toml").read_bytes()
    try:
        _write(file, text, force)
    except FileExistsError as error:
        raise ConfigError(f"{file}: is there already; --force puts a new one in its place") from error
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror or error}") from error
    say(f"{file}: written. It serves Ollama's models at once: tolmach serve -c {file}")
    say(f"Take over what you need, then: tolmach config check -c {file}")


def _write(file: Path, data: bytes, replace: bool) -> None:
    """Write a file of mode 0600, whole or not at all. Raises `OSError`, `FileExistsError` unless it may be replaced."""
    made = file.with_name(f".{file.name}.{secrets.token_hex(4)}") if replace else file
    descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(descriptor, "wb") as opened:
            opened.write(data)
        if replace:
            os.replace(made, file)
    except OSError:
        made.unlink()
        raise
