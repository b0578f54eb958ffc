"""What a recorded answer means: the events of every chat answer in a recording.

Which exchanges are chat answers is known from their requests: a protocol's `reader` says whether
the request is a question of its own.
"""

import random
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec

from tolmach.errors import ConfigError, TolmachError
from tolmach.protocols import PROTOCOLS, create
from tolmach.protocols.base import ChatProtocol
from tolmach.providers.registry import providers
from tolmach.testing.recordings import Exchange, Recording, load
from tolmach.wire import Decoder, Head, Request

__all__ = [
    "CHUNKINGS",
    "cut_at_random",
    "decode_file",
    "decode_recording",
    "find_reader",
    "known_protocols",
    "rechunk",
]

CHUNKINGS = ("recorded", "whole", "bytes", "random:SEED")
"""The ways to cut a body: as it arrived, in one piece, byte by byte, or at random places of a seed."""


@cache
def known_protocols() -> tuple[ChatProtocol, ...]:
    """The protocols of all known sites, with the sites' own options, and then all protocols with the default ones.

    A site's own options come first because they tell more: where its answers say that they are errors.
    """
    sites = (provider.protocol for provider in providers().values())
    known: list[ChatProtocol] = []
    for protocol in (*sites, *map(create, PROTOCOLS)):
        if protocol not in known:
            known.append(protocol)
    return tuple(known)


def find_reader(
    request: Request, protocols: Iterable[ChatProtocol] | None = None
) -> tuple[str, Callable[[Head], Decoder]] | None:
    """The name of the first protocol whose question this is, and how to read the answer; None when it is none's.

    `protocols` are by default the `known_protocols`.
    """
    for protocol in known_protocols() if protocols is None else protocols:
        reader = protocol.reader(request)
        if reader is not None:
            return protocol.name, reader
    return None


def cut_at_random(body: bytes, rng: random.Random) -> list[bytes]:
    """The body in pieces; mostly a few, sometimes many, and now and then an empty one."""
    count = min(len(body), rng.choice((1, 2, 3, 5, 8, 20, 60)))
    edges = [0, *sorted(rng.randrange(len(body) + 1) for _ in range(count)), len(body)]
    return [body[start:end] for start, end in pairwise(edges)]


def _random_cuts(chunking: str) -> random.Random:
    kind, _, seed = chunking.partition(":")
    if kind != "random" or not seed.lstrip("-").isdecimal():
        raise ConfigError(f"chunks: one of {', '.join(CHUNKINGS)}, not {chunking!r}; SEED is a whole number")
    return random.Random(int(seed))


def rechunk(pieces: Iterable[bytes], chunking: str) -> Iterator[bytes]:
    """The same bytes, cut as `chunking` says. Raises `ConfigError` for a way that is none of `CHUNKINGS`."""
    if chunking == "recorded":
        yield from pieces
    elif chunking == "whole":
        yield b"".join(pieces)
    elif chunking == "bytes":
        for piece in pieces:
            yield from (piece[i : i + 1] for i in range(len(piece)))
    else:
        rng = _random_cuts(chunking)
        yield from cut_at_random(b"".join(pieces), rng)


def decode_file(
    path: str | Path, chunking: str | None = None, protocols: Iterable[ChatProtocol] | None = None
) -> Iterator[dict[str, Any]]:
    """The events of the recording in a file, as `decode_recording` gives them; cut as recorded by default.

    Raises `ConfigError` for a file that is not a recording, naming the file and what is wrong with it.
    """
    yield from decode_recording(load(path), chunking=chunking or "recorded", protocols=protocols)


def decode_recording(
    recording: Recording,
    name: str = "",
    chunking: str = "recorded",
    protocols: Iterable[ChatProtocol] | None = None,
) -> Iterator[dict[str, Any]]:
    """The events of every chat answer in the recording, as objects for JSON.

    Each has `recording` (its `name`, or the recording's own), `exchange` (from 0), `type` and the
    event's fields. An error is an event too, the last of its exchange: `"type": "error"` with
    `error` (the class), `message` and, where there are such, `status`, `code`, `retry_after`
    (seconds) and `partial`. Other exchanges are passed over. Raises `ConfigError` for a wrong `chunking`.
    """
    if chunking not in CHUNKINGS[:3]:
        _random_cuts(chunking)
    known = known_protocols() if protocols is None else tuple(protocols)
    for index, exchange in enumerate(recording.exchanges):
        found = find_reader(exchange.request, known)
        if found is not None:
            for fields in _decode(exchange, found[1], chunking):
                yield {"recording": name or recording.name, "exchange": index, **fields}


def _decode(exchange: Exchange, reader: Callable[[Head], Decoder], chunking: str) -> Iterator[dict[str, Any]]:
    decoder: Decoder | None = None
    try:
        decoder = reader(exchange.head)
        for piece in rechunk(exchange.pieces(), chunking):
            for event in decoder.feed(piece):
                yield msgspec.to_builtins(event)
        for event in decoder.close():
            yield msgspec.to_builtins(event)
    except TolmachError as error:
        yield _error(error, error.partial or (decoder.partial if decoder is not None else ""))


def _error(error: TolmachError, partial: str) -> dict[str, Any]:
    fields = {"type": "error", "error": type(error).__name__, "message": str(error)}
    details = {name: getattr(error, name, None) for name in ("status", "code", "retry_after")}
    fields.update({key: value for key, value in details.items() if value is not None})
    if partial:
        fields["partial"] = partial
    return fields
