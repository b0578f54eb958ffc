"""Whole bodies, snapshots and JSON that several protocols read and write in the same way."""

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any
from urllib.parse import SplitResult, urlsplit

import msgspec

from tolmach.chat import Event, Notice, Reasoning
from tolmach.decoding import SurrogateJoiner, find_json, parse_json, plain_text
from tolmach.errors import ConfigError, ProviderUnavailable, RemoteProtocolError, TruncatedAnswer
from tolmach.protocols.base import Answer, challenge_page
from tolmach.wire import Head, Limits, http_date

__all__ = [
    "Body",
    "Revisable",
    "Snapshot",
    "arrival",
    "clean",
    "encode_json",
    "is_cut",
    "is_page",
    "json_body",
    "shown",
    "split_address",
    "web_origin",
]

_BOM = b"\xef\xbb\xbf"
_ERROR_BYTES = 1 << 20

# A string, or one that the end of the text cut off. Possessive, so that it takes linear time.
_STRING = re.compile(rb'"(?:[^"\\]++|\\.?)*+("?)', re.S)
_HIGH_HALVES = ("\ud800", "\udbff")


class Body:
    """The bytes of a body that is read whole. Of a failed response the first MiB is kept and the rest passed over."""

    def __init__(self, head: Head, limits: Limits) -> None:
        self._failed = not 200 <= head.status < 300
        self._limit = _ERROR_BYTES if self._failed else limits.answer_bytes
        self._data = bytearray()

    def add(self, data: bytes) -> None:
        """Raises `RemoteProtocolError` when an answer is longer than the limit."""
        room = self._limit - len(self._data)
        if len(data) > room and not self._failed:
            raise RemoteProtocolError(f"the answer is longer than {self._limit} bytes", code="too_large")
        self._data += data[:room]

    def read(self) -> bytes:
        return bytes(self._data)


class Snapshot:
    """The text of a message that is sent again and again, each time whole."""

    def __init__(self) -> None:
        self._pieces: list[str] = []

    @property
    def text(self) -> str:
        """The message so far."""
        if len(self._pieces) > 1:
            self._pieces = ["".join(self._pieces)]
        return self._pieces[0] if self._pieces else ""

    def grow(self, piece: str) -> None:
        """Add what is known to stand behind the text."""
        self._pieces.append(piece)

    def advance(self, text: str) -> str | None:
        """What the new snapshot adds to the last; None when it does not extend it."""
        old = self.text
        if text.startswith(old) and len(text) == len(old):
            return ""
        if text and _HIGH_HALVES[0] <= text[-1] <= _HIGH_HALVES[1]:
            text = text[:-1]  # half of a character; the next snapshot has all of it
        self._pieces = [text]
        return text[len(old) :] if text.startswith(old) else None


class Revisable(Answer):
    """An answer that may think aloud, and may take back what it said."""

    def __init__(self, head: Head, limits: Limits = Limits()) -> None:
        super().__init__(head, limits)
        self._thought = SurrogateJoiner()
        self.reasoned = False

    def count(self, text: str) -> None:
        """Have `text` count against the limit of the answer. Raises `RemoteProtocolError`."""
        self._size += len(text)
        if self._size > self.limits.answer_bytes:
            raise RemoteProtocolError(f"the answer is longer than {self.limits.answer_bytes} bytes", code="too_large")

    def reasoning(self, text: str) -> Iterator[Event]:
        """The piece of reasoning as an event; none for a piece with nothing in it."""
        text = self._thought.feed(text)
        if text:
            self.count(text)
            self.reasoned = True
            yield Reasoning(text)

    def rewrite(self, text: str) -> Iterator[Event]:
        """The answer so far is now `text`, whatever was given out; pieces that follow add to it."""
        self._joiner = SurrogateJoiner()
        text = clean(text)
        self.count(text)
        self._pieces = [text] if text else []
        yield Notice("rewritten", text)


def clean(text: str) -> str:
    """The text with lone halves of surrogate pairs replaced."""
    joiner = SurrogateJoiner()
    return joiner.feed(text) + joiner.close()


def shown(value: Any, limit: int = 300) -> str:
    """A JSON value as one line of text, for an error."""
    return plain_text(value if isinstance(value, str) else msgspec.json.encode(_cut(value, 4)), limit)


def _cut(value: Any, depth: int) -> Any:
    """The value without what stands too deep to be worth showing, or to be encoded."""
    if isinstance(value, dict):
        return {clean(str(k)): _cut(v, depth - 1) for k, v in list(value.items())[:20]} if depth else "…"
    if isinstance(value, list):
        return [_cut(v, depth - 1) for v in value[:20]] if depth else "…"
    if isinstance(value, str):
        return clean(value[:1000])
    if isinstance(value, int) and value.bit_length() > 63:
        return float(value) if value.bit_length() < 1000 else "…"
    return value


def is_page(body: bytes) -> bool:
    """Whether the body is HTML (or XML)."""
    return body[:512].removeprefix(_BOM).lstrip().startswith(b"<")


def is_cut(body: bytes) -> bool:
    """Whether a JSON text ends inside a string, an object or an array."""
    rest = _STRING.sub(lambda string: b"" if string[1] else b'"', body)
    return b'"' in rest or rest.count(b"{") + rest.count(b"[") > rest.count(b"}") + rest.count(b"]")


def json_body(head: Head, body: bytes) -> Any:
    """The value that a whole body is, also behind a byte order mark or HTML warnings.

    Raises `ProviderUnavailable` for an empty body, `ChallengeRequired`, `TruncatedAnswer` or
    `RemoteProtocolError`.
    """
    if not body.strip():
        raise ProviderUnavailable("the service gave an empty answer", status=head.status, code="empty")
    try:
        return parse_json(body)
    except RemoteProtocolError as error:
        if (value := find_json(body)) is not None:
            return value
        if page := challenge_page(head, body):
            raise page from None
        if is_page(body):
            text = f"the site shows a page instead of an answer: {plain_text(body, 120)}"
            raise RemoteProtocolError(text, status=head.status, code="html") from error
        if is_cut(body):
            raise TruncatedAnswer(status=head.status) from error
        raise RemoteProtocolError(f"the answer is no JSON: {shown(str(error))}", status=head.status) from error


def encode_json(value: Any) -> bytes:
    """A request's body as JSON. Raises `ConfigError` for what the caller passed and JSON has no form for."""
    try:
        return msgspec.json.encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
        raise ConfigError(f"the request cannot be written as JSON: {error}") from error


@lru_cache(1024)
def split_address(url: str) -> SplitResult:
    """The parts of an http or https address. Raises `ConfigError` for what is none."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    if not usable:
        raise ConfigError("the site's address must be a URL such as https://example.org/chat")
    return parts


def web_origin(url: str) -> str:
    """The origin of an address as the `Origin` header writes it (RFC 6454, 6.2); never with credentials."""
    parts = split_address(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2].lower()}"


def arrival(head: Head) -> Callable[[], float]:
    """The clock of a recorded response: when it was sent, in seconds since 1970 (0 when it does not say)."""
    sent = http_date(head.header("date")) or 0.0
    return lambda: sent
