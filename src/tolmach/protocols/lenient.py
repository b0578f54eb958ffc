"""A stream with one malformed event in it, read all the same."""

from collections.abc import Iterator

from tolmach.chat import Event, Notice
from tolmach.decoding import split_events
from tolmach.errors import RemoteProtocolError, TruncatedAnswer
from tolmach.wire import Decoder, Head

__all__ = ["Forgiving", "forgiving"]


class Forgiving:
    """A `Decoder` that leaves out the first event that is outside the grammar, with a `Notice`.

    The second one raises, as the first would without it. What another decoder is fed are whole
    server-sent events, one at a time: so a malformed one takes no other with it. One that is longer
    than `limit` bytes is never forgiven: nobody knows what the service would still send.
    """

    def __init__(self, decoder: Decoder, limit: int) -> None:
        self._decoder = decoder
        self._limit = limit
        self._rest = b""
        self._forgave = False

    @property
    def partial(self) -> str:
        return self._decoder.partial

    def feed(self, data: bytes) -> Iterator[Event]:
        events, self._rest = split_events(self._rest + data if self._rest else data)
        for event in events:
            self._check(event)
            try:
                yield from self._decoder.feed(event)
            except RemoteProtocolError as error:
                if self._forgave or isinstance(error, TruncatedAnswer):
                    raise
                self._forgave = True
                yield Notice("skipped", f"an event that could not be read was left out: {error}")
        self._check(self._rest)

    def _check(self, event: bytes) -> None:
        if len(event) > self._limit:
            raise RemoteProtocolError(f"an event of the answer is longer than {self._limit} bytes")

    def close(self) -> Iterator[Event]:
        if self._rest:
            yield from self._decoder.feed(self._rest)
            self._rest = b""
        yield from self._decoder.close()


def forgiving(decoder: Decoder, head: Head, limit: int) -> Decoder:
    """The decoder, forgiving where the answer comes as server-sent events of `limit` bytes at most; else as it is."""
    streamed = head.content_type == "text/event-stream" and 200 <= head.status < 300
    return Forgiving(decoder, limit) if streamed else decoder
