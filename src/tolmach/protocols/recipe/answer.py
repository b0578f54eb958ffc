"""The answers of recipes: one JSON text, plain text, or a stream of pieces as lines or server-sent events.

A plain text answer has no end of its own: only the transport sees that one broke off.
"""

import codecs
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from tolmach.chat import Conversation, Event
from tolmach.decoding import LineDecoder, ServerSentEvents, find_json, parse_json, plain_text
from tolmach.errors import RemoteProtocolError, TruncatedAnswer
from tolmach.protocols.bodies import Body, Revisable, Snapshot, clean, is_page, json_body, shown
from tolmach.protocols.pointer import ABSENT
from tolmach.protocols.recipe.faults import Faults, Reading
from tolmach.protocols.recipe.tables import find_at, find_first, find_texts, parse_place, parse_places
from tolmach.wire import Decoder, Head

__all__ = ["DECODERS"]


class _Declared(Revisable):
    """What the answers of all formats have in common."""

    def __init__(self, reading: Reading, head: Head) -> None:
        super().__init__(head, reading.limits)
        self._reading = reading
        self._failed = not 200 <= head.status < 300
        self._body = Body(head, reading.limits)
        self._places = parse_places(reading.answer.text)
        self._faults = Faults(reading, head)
        self._known = dict(reading.known)
        for name, value in reading.conversation.items():
            if value.header and head.header(value.header):
                self._known[name] = clean(head.header(value.header))

    def _set_aside(self, data: bytes) -> bool:
        """Whether the bytes are no part of an answer: the body of a failed response, or behind the end."""
        if self._failed:
            self._body.add(data)
        return self._failed or self.ended

    def _fail(self) -> None:
        """Raise what a failed response stands for."""
        if self._failed:
            raise self._faults.of_response(self._body.read())

    def _check(self, value: Any, *, always: bool = False) -> None:
        """Raise what a value of a good status says went wrong, and remember what it says of the conversation."""
        if error := self._faults.of_value(value, always=always):
            raise error
        for name, declared in self._reading.conversation.items():
            if not declared.answer:
                continue
            found = find_at(value, parse_place(declared.answer))
            if isinstance(found, str | int) and not isinstance(found, bool) and found != "":
                self._known[name] = clean(str(found)[:4096])

    def _text_of(self, value: Any) -> str | None:
        """The text at the declared place; None when nothing stands there."""
        text = find_texts(value, self._places)
        if text is ABSENT or text is None:
            return None
        if not isinstance(text, str):
            place = self._reading.answer.text or "the answer"
            raise RemoteProtocolError(f"{place} is no text: {shown(text, 80)}", status=self.head.status)
        # Some services pad their pieces to one length, so that nobody on the way can guess the words by it.
        return text.replace("\0", "")

    def _conclude(self) -> Iterator[Event]:
        """The end of a whole answer."""
        *rest, done = self.finish(empty_ok=self.reasoned)
        yield from rest
        if self._known:
            yield Conversation(dict(self._known))
        yield done


class _JsonAnswer(_Declared):
    """One JSON text."""

    def feed(self, data: bytes) -> Iterator[Event]:
        if not self._set_aside(data):
            self._body.add(data)
        yield from ()

    def close(self) -> Iterator[Event]:
        self._fail()
        body = self._body.read()
        self._faults.check_body(body)
        value = json_body(self.head, body)
        self._check(value)
        if self._reading.answer.reasoning:
            thought = find_at(value, parse_place(self._reading.answer.reasoning))
            yield from self.reasoning(thought if isinstance(thought, str) else "")
        text = self._text_of(value)
        if text is None and find_first(value, self._places) is ABSENT:
            missing = f"nothing stands at {self._reading.answer.text} in the answer: {shown(value)}"
            raise RemoteProtocolError(missing, status=self.head.status)
        yield from self.delta(text or "")
        yield from self._conclude()


class _TextAnswer(_Declared):
    """Plain text, given out as it arrives."""

    # Enough to tell a page from an answer.
    _OPENING = 64

    def __init__(self, reading: Reading, head: Head) -> None:
        super().__init__(reading, head)
        self._opening: bytes | None = b""
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode

    def feed(self, data: bytes) -> Iterator[Event]:
        if self._set_aside(data):
            return
        if self._opening is not None:
            self._opening += data
            if len(self._opening) < self._OPENING:
                return
            data = self._opened()
        yield from self.delta(self._decode(data))

    def _opened(self) -> bytes:
        data, self._opening = self._opening or b"", None
        start = data[: self._OPENING].removeprefix(codecs.BOM_UTF8).lstrip().lower()
        if start.startswith((b"<!doctype", b"<html")):
            raise RemoteProtocolError(
                "the site shows a page instead of an answer", status=self.head.status, code="html"
            )
        return data.removeprefix(codecs.BOM_UTF8)

    def close(self) -> Iterator[Event]:
        self._fail()
        rest = self._opened() if self._opening is not None else b""
        yield from self.delta(self._decode(rest, True))
        yield from self._conclude()


class _StreamAnswer(_Declared):
    """A stream of events, each with a piece of the text."""

    def __init__(self, reading: Reading, head: Head) -> None:
        super().__init__(reading, head)
        answer = reading.answer
        self._end_flag = parse_place(answer.end_flag) if answer.end_flag else None
        self._end_mark = answer.end.encode() or None
        self._reasoning = parse_place(answer.reasoning) if answer.reasoning else None
        self._where = [
            (parse_place(place), wanted if isinstance(wanted, list | tuple) else [wanted])
            for place, wanted in answer.where.items()
        ]
        self._snapshot = Snapshot()

    def _event(self, data: bytes, name: str = "message") -> Iterator[Event]:
        answer = self._reading.answer
        wanted = not answer.events or name in answer.events
        failed = name in self._reading.errors.event
        if self._end_mark is not None and data.strip() == self._end_mark:
            yield from self._conclude()
        elif answer.pieces == "text" or (failed and not data.lstrip().startswith((b"{", b"["))):
            yield from self._text_event(data.decode("utf-8", "replace"), wanted=wanted, failed=failed)
        elif wanted or failed or self._reading.conversation or name in answer.end_event:
            yield from self._json_event(data, wanted=wanted, failed=failed)
        if name in answer.end_event and not self.ended:
            yield from self._conclude()

    def _text_event(self, text: str, *, wanted: bool, failed: bool) -> Iterator[Event]:
        if failed:
            self._check(text, always=True)
        if wanted:
            yield from self._piece(text)

    def _json_event(self, data: bytes, *, wanted: bool, failed: bool) -> Iterator[Event]:
        if not wanted and not failed:
            try:
                value = parse_json(data)
            except RemoteProtocolError:
                return  # an event that holds no text of the answer may be of any form
        else:
            value = parse_json(data)
        self._check(value, always=failed)
        if wanted and all(find_at(value, place) in values for place, values in self._where):
            yield from self._spoken(value)
        if self._end_flag is not None and self._is_last(value):
            yield from self._conclude()

    def _spoken(self, value: Any) -> Iterator[Event]:
        if self._reasoning is not None:
            thought = find_at(value, self._reasoning)
            yield from self.reasoning(thought if isinstance(thought, str) else "")
        if (text := self._text_of(value)) is not None:
            yield from self._piece(text)

    def _is_last(self, value: Any) -> bool:
        flag = find_at(value, self._end_flag or ())
        values = self._reading.answer.end_values
        return flag is not ABSENT and (flag in values if values else bool(flag))

    def _piece(self, text: str) -> Iterator[Event]:
        if not self._reading.answer.snapshots:
            yield from self.delta(text)
        elif (piece := self._snapshot.advance(text)) is not None:
            yield from self.delta(piece)
        else:
            yield from self.rewrite(self._snapshot.text)

    def _end_of(self, rest: bytes) -> Iterator[Event]:
        """The end of the body, which may be the answer's; `rest` is what stands behind the last event."""
        if is_page(rest):
            text = f"the site shows a page instead of an answer: {plain_text(rest, 120)}"
            raise RemoteProtocolError(text, status=self.head.status, code="html")
        if not self._reading.answer.marked and not rest.strip():
            yield from self._conclude()


class _LinesAnswer(_StreamAnswer):
    """One event a line; the last line may lack its end when it is a whole JSON object."""

    def __init__(self, reading: Reading, head: Head) -> None:
        super().__init__(reading, head)
        self._lines = LineDecoder(reading.limits.event_bytes)
        self._prefix = reading.answer.prefix.encode()
        self._first = True

    def feed(self, data: bytes) -> Iterator[Event]:
        if self._set_aside(data):
            return
        for line in self._lines.feed(data):
            if self._first:
                self._first = False
                line = line.removeprefix(codecs.BOM_UTF8)
            if line.strip():
                yield from self._line(line)
            if self.ended:
                return

    def _line(self, line: bytes) -> Iterator[Event]:
        if self._reading.answer.pieces == "json" and is_page(line):
            yield from self._end_of(line)
        if line.startswith(self._prefix):
            yield from self._event(line[len(self._prefix) :])
        elif self._end_mark is not None and line.startswith(self._end_mark):
            yield from self._conclude()
        elif line.startswith((b"{", b"3:")):
            # JSON without the prefix, or the line of an error in the AI SDK's data streams.
            self._check(parse_json(line.removeprefix(b"3:")), always=line.startswith(b"3:"))

    def close(self) -> Iterator[Event]:
        self._fail()
        if not self.ended:
            yield from self._last_line()
        self.check_ended()

    def _last_line(self) -> Iterator[Event]:
        rest = self._lines.rest().strip()
        if self._prefix and rest:
            self.check_ended()
        if rest.startswith(b"{") and rest.endswith(b"}") and self._reading.answer.pieces == "json":
            try:
                msgspec.json.decode(rest, type=dict)
            except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
                raise TruncatedAnswer(partial=self.partial, status=self.head.status) from error
            yield from self._event(rest)
            rest = b""
        if not self.ended:
            yield from self._end_of(rest)


class _EventsAnswer(_StreamAnswer):
    """Server-sent events. A service that answers with JSON instead reports an error, or its whole answer."""

    def __init__(self, reading: Reading, head: Head) -> None:
        super().__init__(reading, head)
        self._events = ServerSentEvents(reading.limits.event_bytes)
        self._seen = False

    def feed(self, data: bytes) -> Iterator[Event]:
        if self._set_aside(data):
            return
        for event in self._events.feed(data):
            self._seen = True
            yield from self._event(event.data, event.event or "message")
            if self.ended:
                return

    def close(self) -> Iterator[Event]:
        self._fail()
        if not self.ended:
            yield from self._rest()
        self.check_ended()

    def _rest(self) -> Iterator[Event]:
        body = self._events.body().removeprefix(codecs.BOM_UTF8)
        if not self._seen:
            self._faults.check_body(body)
        if not self._seen and (body.strip().startswith((b"{", b"[")) or find_json(body) is not None):
            value = json_body(self.head, body)
            self._check(value)
            yield from self.delta(self._text_of(value) or "")
            yield from self._conclude()
        elif self._events.unfinished and not is_page(body):
            self.check_ended()
        else:
            yield from self._end_of(body if is_page(body) else b"")


DECODERS: dict[str, Callable[[Reading, Head], Decoder]] = {
    "json": _JsonAnswer,
    "text": _TextAnswer,
    "ndjson": _LinesAnswer,
    "sse": _EventsAnswer,
}
