"""Time and faults between the pieces of an answer: what goes out on the connection, and when."""

import asyncio
import zlib
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing

from tolmach.demo.base import JUNK, Break, Piece, Reply
from tolmach.demo.faults import Wanted

__all__ = ["prepare", "stream_out"]


def prepare(reply: Reply, wanted: Wanted) -> None:
    """Change the reply as the faults that concern a whole body ask for."""
    if "gzip" in wanted:
        reply.headers.append(("Content-Encoding", "gzip"))
    if wanted and not reply.stream and reply.status == 200 and len(reply.pieces) == 1:
        reply.pieces = _halves(reply.pieces[0])
    if "malformed" in wanted:
        reply.pieces = _broken(reply, int(wanted["malformed"]))
    if "missing-end" in wanted:
        reply.pieces = _endless(reply)
    if "missing-done" in wanted:
        reply.pieces = tuple(piece for piece in reply.pieces if piece.kind != "mark")
    if "junk" in wanted and not reply.buffered:
        reply.pieces = (Piece(JUNK, "lead"), *reply.pieces)


def _halves(piece: Piece) -> tuple[Piece, ...]:
    """A whole body as two tokens, so that it can be cut between them."""
    middle = len(piece.data) // 2
    return Piece(piece.data[:middle]), Piece(piece.data[middle:])


def _broken(reply: Reply, token: int) -> tuple[Piece, ...]:
    places = [at for at, piece in enumerate(reply.pieces) if piece.kind == "token"]
    if not places:
        return tuple(reply.pieces)
    at = places[min(token, len(places) - 1)]
    if not reply.stream:
        return tuple(reply.pieces[:at])
    data = reply.pieces[at].data
    broken = Piece(data[: len(data) // 2] + b"\n\n")
    return (*reply.pieces[:at], broken, *reply.pieces[at + 1 :])


def _endless(reply: Reply) -> tuple[Piece, ...]:
    if reply.stream:
        return tuple(piece for piece in reply.pieces if piece.kind not in ("end", "mark"))
    *rest, last = reply.pieces or (Piece(b""),)
    return (*rest, Piece(last.data[:-1]))


async def stream_out(reply: Reply, wanted: Wanted, delay: float) -> AsyncGenerator[bytes | Break, None]:
    """The pieces in their time, and at last, perhaps, a `Break`."""
    encode = zlib.compressobj(wbits=31) if "gzip" in wanted else None
    async with aclosing(_timed(reply, wanted, delay)) as timed:
        async for data in timed:
            if isinstance(data, Break):
                yield data
                return
            for part in _cut_inside_characters(data) if "split-utf8" in wanted else (data,):
                yield encode.compress(part) + encode.flush(zlib.Z_SYNC_FLUSH) if encode else part
    if encode:
        yield encode.flush()


async def _timed(reply: Reply, wanted: Wanted, delay: float) -> AsyncGenerator[bytes | Break, None]:
    delay = wanted.get("delay", delay) if reply.stream else 0.0
    first = wanted.get("slow-first-token", delay) if reply.stream else 0.0
    stop, end = _stop(reply, wanted)
    count = 0
    for piece in reply.pieces:
        if piece.kind == "token":
            if count == stop:
                break
            if pause := delay if count else first:
                await asyncio.sleep(pause)
            count += 1
        elif piece.kind in ("end", "mark") and stop is not None:
            break
        yield piece.data
    if end is not None:
        yield end


def _stop(reply: Reply, wanted: Wanted) -> tuple[int | None, Break | None]:
    """After how many tokens the body breaks off, and how; never after its end."""
    for name, end in (("cut", Break.CUT), ("stall", Break.STALL)):
        if name in wanted:
            count = sum(piece.kind == "token" for piece in reply.pieces)
            return min(int(wanted[name]), count if reply.stream else max(count - 1, 0)), end
    return None, None


def _cut_inside_characters(data: bytes) -> Iterator[bytes]:
    """The piece in two, cut inside its last character that has several bytes; in the middle if it has none."""
    at = len(data) - 1
    while at > 0 and data[at] & 0xC0 != 0x80:
        at -= 1
    at = at or len(data) // 2
    yield data[:at]
    yield data[at:]
