"""Answers passed on unchanged, where the caller and the target speak the same API.

The bytes go through as they came. They are read on the way all the same: an event goes out only
when the protocol's decoder has accepted it, so that what breaks off, or leaves the grammar, ends
in an error event and never in an end mark.
"""

from collections.abc import AsyncGenerator

from anychat.chat import Done, Event
from anychat.errors import RemoteProtocolError
from anychat.transport.base import Exchange, read
from anychat.wire import Decoder

__all__ = ["read_events", "relay_stream", "relay_whole", "split_events"]

_BLANK = (b"\n\n", b"\r\n\r\n", b"\r\r")


def split_events(data: bytes) -> tuple[list[bytes], bytes]:
    """The whole server-sent events in `data`, each with its blank line, and what stands behind them."""
    if data.endswith(b"\n\n") and data.find(b"\n\n") == len(data) - 2 and b"\r" not in data:
        return [data], b""
    events: list[bytes] = []
    start = 0
    while True:
        ends = [at + len(mark) for mark in _BLANK if (at := data.find(mark, start)) >= 0]
        if not ends:
            return events, data[start:]
        events.append(data[start : min(ends)])
        start = min(ends)


async def relay_stream(
    exchange: Exchange, decoder: Decoder, seen: list[Event], limit: int
) -> AsyncGenerator[bytes, None]:
    """The answer's bytes, event by event as they come; what they mean is added to `seen`.

    Ends with the answer. Raises the decoder's error after the events that stood before it, and
    `RemoteProtocolError` for an event longer than `limit` bytes.
    """
    rest = b""
    async for data in exchange:
        events, rest = split_events(rest + data if rest else data)
        if len(rest) > limit:
            raise RemoteProtocolError(f"an event of the answer is longer than {limit} bytes")
        for raw in events:
            meant = list(decoder.feed(raw))
            seen += meant
            yield raw
            if meant and type(meant[-1]) is Done:
                return
    seen.extend(decoder.feed(rest))
    seen.extend(decoder.close())


async def relay_whole(exchange: Exchange, decoder: Decoder, seen: list[Event], limit: int) -> bytes:
    """The answer's body, once the decoder has accepted all of it."""
    body = await read(exchange, limit)
    seen.extend(decoder.feed(body))
    seen.extend(decoder.close())
    return body


async def read_events(exchange: Exchange, decoder: Decoder) -> AsyncGenerator[Event, None]:
    """The events of an answer, as a decoder that reads it whole tells them."""
    async for data in exchange:
        for event in decoder.feed(data):
            yield event
            if type(event) is Done:
                return
    for event in decoder.close():
        yield event
