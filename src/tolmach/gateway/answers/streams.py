"""Streamed answers under way: one that is passed on as it comes, one that is written from events.

Both begin with the first token, so that what fails before it can still have its HTTP status or be
asked elsewhere.
"""

from collections.abc import AsyncGenerator, Callable, Iterator, Sequence

from tolmach.chat import Conversation, Done, Event, Notice, Usage
from tolmach.errors import TolmachError
from tolmach.gateway.answers.relay import relay_stream
from tolmach.gateway.surfaces.base import Asked, StreamEncoder
from tolmach.routing.journal import Attempt
from tolmach.transport import Exchange
from tolmach.transport.drain import close_drained, run_out
from tolmach.wire import Decoder, Head

__all__ = ["EventStream", "RelayedStream", "Stream"]

_AFTERWARDS = (Conversation, Done, Usage, Notice)
"""What is not part of the text that an answer has given so far."""
_BEFOREHAND = (Conversation, Usage, Notice)
"""What may come before the first token."""


class RelayedStream:
    """The bytes of a target's stream, event by event, as they came. `seen` has what they mean.

    With a `reader` the bytes are kept, so that they can be read again should the stream break off.
    """

    asked: Asked | None = None

    def __init__(
        self,
        attempt: Attempt,
        exchange: Exchange,
        decoder: Decoder,
        encoder: StreamEncoder,
        seen: list[Event],
        event_bytes: int,
        reader: Callable[[Head], Decoder] | None,
    ) -> None:
        self.attempt = attempt
        self.encoder = encoder
        self.seen = seen
        self.opening = b""
        self._exchange = exchange
        self._pieces = aiter(exchange)
        self._chunks = relay_stream(self._pieces, decoder, self.seen, event_bytes, encoder.end_mark)
        self._whole = False
        self._reader = reader
        self._kept: list[bytes] = []

    async def begin(self, to_token: bool) -> None:
        """Wait for the first event; with `to_token` for the first that is a part of the answer, or its end.

        What a service sends before its first token says nothing of whether one will come.
        """
        opening = []
        async for chunk in self._chunks:
            opening.append(chunk)
            if not to_token or any(type(event) not in _BEFOREHAND for event in self.seen):
                break
        self.opening = b"".join(opening)
        if self._reader is not None:
            self._kept.append(self.opening)

    def pieces(self) -> AsyncGenerator[bytes, None]:
        """The bytes behind `opening`."""
        return self._chunks if self._reader is None else self._keeping()

    @property
    def ended(self) -> bool:
        """Whether the answer is whole: its end mark is in what came last."""
        return _has_ended(self.seen)

    async def _keeping(self) -> AsyncGenerator[bytes, None]:
        async for chunk in self._chunks:
            self._kept.append(chunk)
            yield chunk

    @property
    def sent(self) -> bytes:
        """The bytes that have gone out, where they are kept."""
        return b"".join(self._kept)

    def told(self) -> Iterator[Event]:
        """What the caller has been told so far, without what ends an answer."""
        if self._reader is None:
            return
        decoder = self._reader(self._exchange.head)
        try:
            for chunk in self._kept:
                for event in decoder.feed(chunk):
                    if not isinstance(event, _AFTERWARDS):
                        yield event
        except TolmachError:
            return  # what cannot be read was not told either; it ended the stream

    async def aclose(self) -> None:
        """Close the connection; at the answer's end, give it back once what stands behind has come."""
        await self._chunks.aclose()
        if self._whole:
            return
        if self.ended:
            self._whole = True
            close_drained(self._exchange, self._pieces)
        else:
            await self._exchange.aclose()


class EventStream:
    """A stream in the surface's shape, written from a target's events. `seen` has them all."""

    def __init__(
        self,
        attempt: Attempt,
        asked: Asked,
        encoder: StreamEncoder,
        events: AsyncGenerator[Event, None],
        seen: list[Event],
        exchange: Exchange | None = None,
    ) -> None:
        self.attempt = attempt
        self.asked = asked
        self.encoder = encoder
        self.seen = seen
        self.opening = b""
        self.events = events
        self._exchange = exchange

    async def begin(self) -> None:
        async for event in self.events:
            self.seen.append(event)
            if type(event) not in _BEFOREHAND:
                break
        self.opening = self.encoder.open() + b"".join(map(self.encoder.feed, self.seen))

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """The bytes behind `opening`."""
        seen, feed = self.seen, self.encoder.feed
        async for event in self.events:
            seen.append(event)
            if data := feed(event):
                yield data

    @property
    def ended(self) -> bool:
        """Whether the answer is whole: its end mark is in what came last."""
        return _has_ended(self.seen)

    def told(self) -> Sequence[Event]:
        """What the caller has been told so far, without what ends an answer."""
        return [event for event in self.seen if not isinstance(event, _AFTERWARDS)]

    async def aclose(self) -> None:
        """Close the connection; at the answer's end, give it back once what stands behind has come."""
        if self.ended and self._exchange is None:
            run_out(self.events)
            return
        await self.events.aclose()
        if self._exchange is not None:
            await self._exchange.aclose()


def _has_ended(seen: Sequence[Event]) -> bool:
    return bool(seen) and type(seen[-1]) is Done


Stream = RelayedStream | EventStream
