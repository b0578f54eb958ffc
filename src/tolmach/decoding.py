"""Bytes into lines, server-sent events and JSON: right for any cut of the bytes.

Strategy: lines are found in the bytes and decoded whole, so a character cut between two chunks
needs no care; a line that is not UTF-8 is decoded with replacement characters. Nothing is
guessed at the end of the body: an event that its blank line did not finish is not an event.
Sizes are bounded; going over one raises `RemoteProtocolError`.
"""

import json
import re
from collections.abc import Iterator
from html import unescape
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from tolmach.errors import RemoteProtocolError

__all__ = [
    "LineDecoder",
    "ServerSentEvent",
    "ServerSentEvents",
    "SurrogateJoiner",
    "convert",
    "find_json",
    "parse_json",
    "plain_text",
    "split_events",
    "without_lead",
]

T = TypeVar("T")

_BOM = b"\xef\xbb\xbf"


class LineDecoder:
    """Lines without their ends; LF, CRLF and lone CR all end a line, as in server-sent events."""

    def __init__(self, max_line_bytes: int = 4 << 20) -> None:
        self._limit = max_line_bytes
        self._pending: list[bytes] = []
        self._size = 0
        self._after_cr = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The lines that end in `data`. An overlong one raises `RemoteProtocolError`, after those before it."""
        if self._after_cr and data:
            # The LF of a CRLF that was cut in two.
            self._after_cr = False
            if data[0] == 0x0A:
                data = data[1:]
        if b"\r" in data:
            self._after_cr = data[-1] == 0x0D
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *lines, rest = data.split(b"\n")
        if lines and self._pending:
            self._pending.append(lines[0])
            lines[0] = b"".join(self._pending)
            self._pending.clear()
            self._size = 0
        if rest:
            self._pending.append(rest)
            self._size += len(rest)
        for line in lines:
            if len(line) > self._limit:
                raise RemoteProtocolError(f"a line of the answer is longer than {self._limit} bytes")
            yield line
        if self._size > self._limit:
            raise RemoteProtocolError(f"a line of the answer is longer than {self._limit} bytes")

    def rest(self) -> bytes:
        """What stands after the last line end."""
        return b"".join(self._pending)


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


class ServerSentEvent(Struct, frozen=True, gc=False):
    """One event; `data` is its data lines joined with LF, undecoded."""

    event: str
    data: bytes
    id: str = ""


class ServerSentEvents:
    """The events of a `text/event-stream` body (WHATWG HTML, 9.2).

    Lines that are no field of an event (what a theme or a PHP warning printed before) are passed over.
    """

    def __init__(self, max_event_bytes: int = 4 << 20) -> None:
        self._lines = LineDecoder(max_event_bytes)
        self._limit = max_event_bytes
        self._first = True
        self._event = ""
        self._id = ""
        self._data: list[bytes] = []
        self._size = 0
        self._junk: list[bytes] = []
        self._junk_size = 0
        self._dispatched = False

    def feed(self, data: bytes) -> Iterator[ServerSentEvent]:
        for line in self._lines.feed(data):
            if self._first:
                self._first = False
                line = line.removeprefix(_BOM)
            if not line:
                if self._data:
                    event = ServerSentEvent(self._event, b"\n".join(self._data), self._id)
                    self._event, self._data, self._size = "", [], 0
                    self._dispatched = True
                    yield event
                else:
                    self._event = ""
            elif line.startswith(b"data:"):
                value = line[6:] if line[5:6] == b" " else line[5:]
                self._add(value)
            elif line == b"data":
                self._add(b"")
            else:
                self._field(line)

    def _add(self, value: bytes) -> None:
        self._size += len(value) + 1  # with the LF that joins it
        if self._size > self._limit:
            raise RemoteProtocolError(f"an event of the answer is longer than {self._limit} bytes")
        self._data.append(value)

    def _field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"event":
            self._event = value.decode("utf-8", "replace")
        elif name == b"id":
            self._id = value.decode("utf-8", "replace")
        elif name and name != b"retry" and not self._dispatched:
            self._junk_size += len(line)
            if self._junk_size > self._limit:
                raise RemoteProtocolError(f"more than {self._limit} bytes came that are no event")
            self._junk.append(line)

    @property
    def unfinished(self) -> bool:
        """Whether the body ended inside a line or an event."""
        return bool(self._data or self._lines.rest())

    def body(self) -> bytes:
        """The body when it held no event: the lines that were no field, and the last, unended one."""
        return b"\n".join([*self._junk, self._lines.rest()])


class SurrogateJoiner:
    """Text pieces that encode to UTF-8.

    JSON may cut a character beyond U+FFFF into two escapes, and a service may put them into two
    pieces: the halves are joined; a half that stays alone becomes U+FFFD.
    """

    def __init__(self) -> None:
        self._high = ""

    def feed(self, text: str) -> str:
        if not self._high and (text.isascii() or not _SURROGATE.search(text)):
            return text
        text = self._high + text
        self._high = ""
        if text and "\ud800" <= text[-1] <= "\udbff":
            self._high = text[-1]
            text = text[:-1]
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")

    def close(self) -> str:
        rest, self._high = self._high, ""
        return "\ufffd" if rest else ""


_SURROGATE = re.compile("[\ud800-\udfff]")


def parse_json(data: bytes | str) -> Any:
    """The value of a JSON text. Halves of surrogate pairs stay in it; bytes that are no UTF-8 are replaced.

    Raises `RemoteProtocolError`.
    """
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        pass  # msgspec refuses lone surrogates, which services do send; the slower parser takes them
    try:
        return json.loads(data.decode("utf-8-sig", "replace") if isinstance(data, bytes) else data)
    except (ValueError, RecursionError) as error:
        raise RemoteProtocolError(f"not JSON: {error}") from error


def convert(value: Any, type: type[T]) -> T:
    """A parsed value checked against a shape. Raises `RemoteProtocolError` that names the field."""
    try:
        return msgspec.convert(value, type)
    except (msgspec.ValidationError, RecursionError) as error:
        raise RemoteProtocolError(f"unexpected shape: {error}") from error
    except UnicodeError as error:
        raise RemoteProtocolError("unexpected shape: a name that is no text") from error


# An object that is the whole body does not stand behind these: there it would be a part of
# another, cut one.
_NESTED = frozenset(b':,[{"\\')


def find_json(body: bytes) -> dict[str, Any] | None:
    """The JSON object that the body is, also behind a byte order mark, blank lines or HTML warnings.

    None when there is none that reaches to the end of the body.
    """
    found = _found_json(body.removeprefix(_BOM).strip())
    return None if found is None else found[1]


def without_lead(body: bytes) -> bytes:
    """The body from its JSON object on, without what `find_json` passes over; all of it when there is no object."""
    if body.startswith(b"{"):
        return body
    stripped = body.removeprefix(_BOM).strip()
    found = _found_json(stripped)
    return body if found is None else stripped[found[0] :]


def _found_json(body: bytes) -> tuple[int, dict[str, Any]] | None:
    """Where the object begins, and what it is."""
    at = body.find(b"{")
    for _ in range(64):
        if at < 0:
            return None
        before = body[:at].rstrip()
        if not before or before[-1] not in _NESTED:
            try:
                value = parse_json(body[at:])
            except RemoteProtocolError:
                if not before:
                    return None
            else:
                return (at, value) if isinstance(value, dict) else None
        at = body.find(b"{", at + 1)
    return None


_TAG = re.compile(r"<(script|style)\b.*?(</\1\s*>|\Z)|<[^<>]*>", re.S | re.I)


def plain_text(body: bytes | str, limit: int = 300) -> str:
    """The words of an HTML or text body in one line, for an error's text."""
    text = body[: limit * 50].decode("utf-8", "replace") if isinstance(body, bytes) else body[: limit * 50]
    text = " ".join(unescape(_TAG.sub(" ", text)).replace("\ufeff", "").split())
    text = SurrogateJoiner().feed(text)
    return text if len(text) <= limit else text[: limit - 1] + "…"
