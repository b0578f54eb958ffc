"""`anychat decode`: what the answers in recordings mean."""

from pathlib import Path

import click
import msgspec

from anychat.testing.decode import decode_file

__all__ = ["decode"]


@click.command()
@click.argument("recordings", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RECORDING...")
@click.option(
    "--chunks",
    default=None,
    metavar="whole|bytes|random:SEED",
    help="How the answers' bytes are cut before they are read; by default as they were recorded.",
)
def decode(recordings: tuple[Path, ...], chunks: str | None) -> None:
    """Print what the chat answers in recordings mean: one JSON line an event.

    A RECORDING is a file written by `anychat.testing.record`, or a folder of them. Which exchanges
    are answers, and in which protocol, is told from their requests.
    """
    for recording in recordings:
        files = sorted(recording.rglob("*.json")) if recording.is_dir() else [recording]
        for file in files:
            for line in decode_file(file, chunks):
                click.echo(msgspec.json.encode(line).decode())
