"""Answers passed on unchanged, where the caller and the target speak the same API.

The bytes go through as they came. They are read on the way all the same: an event goes out only
when the protocol's decoder has accepted it, so that what breaks off, or leaves the grammar, ends
in an error event and never in an end mark.
"""

from collections.abc import AsyncGenerator, AsyncIterable

from tolmach.chat import Delta, Done, Event, Notice, Usage
from tolmach.decoding import split_events, without_lead
from tolmach.errors import RemoteProtocolError
from tolmach.transport.base import Exchange, read
from tolmach.wire import Decoder

__all__ = ["SKIPPED", "read_events", "relay_stream", "relay_whole"]

_PIECES = 256
"""So many pieces of an answer are kept apart."""

SKIPPED = b": an event of the service could not be read and was left out\n\n"
"""Stands in a stream for an event that was skipped: a comment, which readers pass over."""


async def relay_stream(
    pieces: AsyncIterable[bytes], decoder: Decoder, seen: list[Event], limit: int, end_mark: bytes = b""
) -> AsyncGenerator[bytes, None]:
    """The bytes of an answer's body, event by event as they come; what they mean is added to `seen`.

    An event of which the decoder says that it was skipped (a `Notice`), or that it is only the `Usage` for which the
    caller has not asked, does not go through. An answer that is whole at the end of its body, without the mark that
    callers wait for, gets `end_mark`.

    Ends with the answer. Raises the decoder's error after the events that stood before it, and
    `RemoteProtocolError` for an event longer than `limit` bytes.
    """
    rest, most = b"", _PIECES
    async for data in pieces:
        events, rest = split_events(rest + data if rest else data)
        if len(rest) > limit:
            raise RemoteProtocolError(f"an event of the answer is longer than {limit} bytes")
        for raw in events:
            meant = list(decoder.feed(raw))
            seen += meant
            if len(seen) > most:
                _join_texts(seen)
                most = len(seen) + _PIECES
            if not meant:
                yield raw
                continue
            last = type(meant[-1])
            if last is not Usage:
                yield SKIPPED if last is Notice else raw
            if last is Done:
                return
    seen.extend(decoder.feed(rest))
    seen.extend(decoder.close())
    if end_mark:
        yield end_mark


def _join_texts(seen: list[Event]) -> None:
    """Put the texts together: a list of pieces takes twenty times the memory of what they say."""
    text = "".join([event.text for event in seen if type(event) is Delta])
    seen[:] = [*(event for event in seen if type(event) is not Delta), Delta(text)]


async def relay_whole(exchange: Exchange, decoder: Decoder, seen: list[Event], limit: int) -> bytes:
    """The answer's body, once the decoder has accepted all of it; without what a proxy or a page printed before it."""
    body = await read(exchange, limit)
    seen.extend(decoder.feed(body))
    seen.extend(decoder.close())
    return without_lead(body)


async def read_events(exchange: Exchange, decoder: Decoder) -> AsyncGenerator[Event, None]:
    """The events of an answer, as a decoder that reads it whole tells them."""
    async for data in exchange:
        for event in decoder.feed(data):
            yield event
            if type(event) is Done:
                return
    for event in decoder.close():
        yield event
