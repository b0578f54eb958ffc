"""Traffic as people bring it to a command: HAR files and copied requests, also as they stand or on standard input."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from tolmach.errors import ConfigError
from tolmach.recipes.copies.reading import is_copy, read_copies
from tolmach.recipes.har import read_har
from tolmach.recipes.question import may_ask
from tolmach.recipes.traffic import Exchange
from tolmach.wire import Request

__all__ = ["FILE_BYTES", "exchanges_of", "read_source", "the_question"]

FILE_BYTES = 256 << 20
"""So much of a file, or of standard input, is read."""

_LOOKED_AT = 65536


def read_source(source: str) -> bytes:
    """The bytes of a file, of standard input for `-`, or of what stands in the place of a file's name itself.

    Raises `ConfigError` for a file that cannot be read.
    """
    if is_copy(source):
        return source.encode("utf-8", "replace")
    if source == "-":
        return sys.stdin.buffer.read(FILE_BYTES)
    try:
        with Path(source).open("rb") as opened:
            return opened.read(FILE_BYTES)
    except (OSError, ValueError) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise ConfigError(f"{source[:200]}: neither an address (http:// or https://) nor a file: {why}") from error


def exchanges_of(data: bytes, source: str = "-") -> tuple[Exchange, ...]:
    """The exchanges of a HAR file, or copied requests, which have no response; none for what is no traffic.

    Bodies that a HAR file keeps beside itself are read from the folder of `source`, and from no other.
    Raises `ConfigError` for traffic that cannot be read.
    """
    if is_copy(data[:_LOOKED_AT].decode("utf-8", "replace")):
        return tuple(Exchange(request=request) for request in read_copies(data.decode("utf-8", "replace")))
    return tuple(read_har(data, _beside(source))) if _is_json(data) else ()


def _beside(source: str) -> Callable[[str], bytes | None] | None:
    """Reads a file in the folder of a HAR file; the file comes from others, so its names lead nowhere else."""
    if source == "-":
        return None
    folder = Path(source).parent

    def read(name: str) -> bytes | None:
        if Path(name).name != name:
            return None
        try:
            with (folder / name).open("rb") as opened:
                return opened.read(FILE_BYTES)
        except OSError:
            return None  # told as a body that was not recorded

    return read


def the_question(exchanges: Sequence[Exchange], asked: str) -> Request | None:
    """Of copied requests the one that asks; None when none does. Raises `ConfigError` when several may."""
    asking = [one.request for one in exchanges if may_ask(one.request, asked)]
    if len(asking) > 1:
        named = ", ".join(f"{one.method} {one.url}"[:120] for one in asking)
        raise ConfigError(
            f"{len(exchanges)} requests were copied, and {len(asking)} may ask: {named}; "
            "copy the question alone, or save all as HAR"
        )
    return asking[0] if asking else None


def _is_json(data: bytes) -> bool:
    return data.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"{", b"[")
