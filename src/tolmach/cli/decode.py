"""`tolmach decode`: what the answers in recordings mean."""

from collections.abc import Iterator
from pathlib import Path

import click

from tolmach.cli.failures import debug_option
from tolmach.cli.output import say_json
from tolmach.errors import ConfigError
from tolmach.protocols import create
from tolmach.recipes.files import read_recipe
from tolmach.testing.decode import decode_file

__all__ = ["decode"]


@click.command()
@click.argument("recordings", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RECORDING...")
@click.option(
    "--chunks",
    default=None,
    metavar="HOW",
    help="How the answers' bytes are cut before they are read: whole, bytes, or random:SEED. "
    "By default as they were recorded.",
)
@click.option(
    "--recipe",
    "recipe_file",
    type=click.Path(dir_okay=False, path_type=Path),
    default=None,
    metavar="FILE",
    help="Read the answers as this recipe says, and no others.",
)
@debug_option
def decode(recordings: tuple[Path, ...], chunks: str | None, recipe_file: Path | None) -> None:
    """Print what the chat answers in recordings mean: one JSON line an event.

    A RECORDING is a file written by `tolmach.testing.record`, or a folder of them. Which exchanges
    are answers, and in which protocol, is told from their requests.
    """
    protocols = None if recipe_file is None else [create("recipe", read_recipe(recipe_file).options)]
    for recording in recordings:
        for file in _files(recording):
            for line in decode_file(file, chunks, protocols):
                say_json(line)


def _files(recording: Path) -> Iterator[Path]:
    if not recording.is_dir():
        yield recording
        return
    files = sorted(recording.rglob("*.json"))
    if not files:
        raise ConfigError(f"{recording}: no recordings (.json files) in this folder")
    yield from files
