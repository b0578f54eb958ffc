"""The tables of a recipe: what a chat API is, as data. `docs/recipes.md` is their reference."""

import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any, Literal

from msgspec import Struct, field

from tolmach.decoding import parse_json
from tolmach.errors import ConfigError, RemoteProtocolError
from tolmach.protocols.pointer import ABSENT, find, parse_pointer

__all__ = [
    "AnswerTable",
    "BodyTable",
    "ConversationValue",
    "ErrorKind",
    "ErrorsTable",
    "Extractor",
    "Place",
    "RequestTable",
    "StaleRule",
    "Step",
    "check_pattern",
    "find_at",
    "find_first",
    "find_texts",
    "join_texts",
    "parse_place",
    "parse_places",
]

ErrorKind = Literal["auth", "bad_request", "context_too_long", "rate_limited", "refused", "stale", "unavailable"]

_EACH = "*"

Place = tuple[tuple[str, ...], ...]
"""Pointers, one for each JSON text that stands in another."""


class Extractor(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a value stands in a response: first the part that is looked at, then what is taken of it."""

    html: str = ""
    """A CSS selector: the first element that it finds."""
    attribute: str = ""
    """Of that element; its text when empty."""
    header: str = ""
    """A header of the response."""
    cookie: str = ""
    """A cookie that the response sets."""
    decode: bool = False
    """Whether the value is percent-encoded there and sent decoded, as scripts do with XSRF cookies."""
    after: str = ""
    """A text in the body, behind which JSON stands."""
    json: str | None = None
    """Where the value stands in that part, read as JSON."""
    pattern: str = ""
    """A regular expression; its first group is the value."""
    lasts: float | None = None
    """Seconds after which the value is fetched anew, where the service says none."""


class BodyTable(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A request; the address counts from the site's. One of `json`, `form`, `multipart` and `text` is its body."""

    method: Literal["GET", "POST", "PUT", "PATCH"] = "POST"
    url: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    query: dict[str, Any] = field(default_factory=dict)
    json: Any = None
    form: dict[str, Any] = field(default_factory=dict)
    multipart: dict[str, Any] = field(default_factory=dict)
    text: str = ""

    @property
    def templates(self) -> list[Any]:
        """All parts in which something may be put."""
        return [self.url, self.headers, self.query, self.json, self.form, self.multipart, self.text]


class Step(BodyTable, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A request before the question, and what its response gives."""

    method: Literal["GET", "POST", "PUT", "PATCH"] = "GET"
    each: bool = False
    """Whether it goes before every question, because what it gives is good for one."""
    fresh: str = ""
    """What is added to the query once the service refused a value: past the caches of pages."""
    tokens: dict[str, Extractor] = field(default_factory=dict)
    """Name -> where it stands; `{{token.NAME}}` puts it in."""


class RequestTable(BodyTable, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The request that carries the question."""

    defaults: dict[str, Any] = field(default_factory=dict)
    """Values of options that the caller did not give; `model` is the model when none was named."""
    item: dict[str, Any] = field(default_factory=lambda: {"role": "{{role}}", "content": "{{content}}"})
    """One message of `history` and `messages`."""
    roles: dict[str, str] = field(default_factory=dict)
    """The service's names of the roles, where they differ."""


class AnswerTable(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the answer stands in the response. Of an empty list or text nothing is asked."""

    format: Literal["json", "text", "ndjson", "sse"] = "json"
    text: str | tuple[str, ...] = "/message"
    """Where the text stands, in the answer or in each event; of several places the first at which something is."""
    pieces: Literal["json", "text"] = "json"
    """What the events of a stream are; `text` is taken as it is."""
    snapshots: bool = False
    """Whether each event holds the whole text so far."""
    prefix: str = ""
    """What a line of a stream begins with when it counts; the rest of the line is its JSON."""
    events: tuple[str, ...] = ()
    """The names of the server-sent events that hold text; all when empty. An event without a name is `message`."""
    where: dict[str, Any] = field(default_factory=dict)
    """Place -> the value, or list of values, of the events that hold text."""
    reasoning: str = ""
    """Where an event holds what the model thinks aloud."""
    end: str = ""
    """The event that ends a stream, whole, such as `[DONE]`."""
    end_event: tuple[str, ...] = ()
    """The names of the server-sent events that end a stream."""
    end_flag: str = ""
    """Where an event says that it is the last: by any true value, or by one of `end_values`."""
    end_values: tuple[Any, ...] = ()

    @property
    def marked(self) -> bool:
        """Whether anything but the end of the body ends a stream."""
        return bool(self.end or self.end_event or self.end_flag)


class ErrorsTable(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the service says that something went wrong."""

    text: tuple[str, ...] = ("/error",)
    """Where an error's text stands; a null, false or empty value is no error."""
    ok: str = ""
    """Where a true value, or one of `ok_values`, must stand in an answer that is none of an error."""
    ok_values: tuple[Any, ...] = ()
    code: str = ""
    """Where an error's code stands."""
    flags: dict[str, ErrorKind] = field(default_factory=dict)
    """Where a true value stands only in an error -> what it stands for."""
    event: tuple[str, ...] = ()
    """The names of the server-sent events that are errors."""
    kinds: dict[str, ErrorKind] = field(default_factory=dict)
    """What an HTTP status or an error's code stands for, where the status alone does not say it."""
    words: dict[str, ErrorKind] = field(default_factory=dict)
    """What an error's text stands for: the first regular expression that is found in it."""


class StaleRule(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When the service refused a token: all that is given must hold."""

    status: tuple[int, ...] = ()
    code: tuple[str, ...] = ()
    text: str = ""
    """A regular expression, in upper or lower case, found in the error's text."""
    body: tuple[str, ...] = ()
    """The whole body."""


class ConversationValue(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A value by which the service knows a conversation."""

    answer: str = ""
    """Where the answer, or an event of it, gives it."""
    header: str = ""
    """The header of the answer that gives it."""
    new: Any = None
    """What the first question sends; nothing when it is not given."""


@lru_cache(1024)
def parse_place(place: str) -> Place:
    """The pointers of a place: `/data -> /reply` is a value in the JSON text at `/data`. Raises `ConfigError`."""
    try:
        return tuple(parse_pointer(part.strip()) for part in place.split(" -> "))
    except ValueError as error:
        raise ConfigError(str(error)) from None


def parse_places(places: str | tuple[str, ...]) -> tuple[Place, ...]:
    """The places of one or several texts. Raises `ConfigError`."""
    return tuple(map(parse_place, (places,) if isinstance(places, str) else places))


def find_at(value: Any, place: Place) -> Any:
    """What stands at a place, or `ABSENT`."""
    for depth, tokens in enumerate(place):
        if depth:
            value = _inside(value)
        value = find(value, tokens)
        if value is ABSENT:
            return ABSENT
    return value


def find_first(value: Any, places: tuple[Place, ...]) -> Any:
    """What stands at the first of the places where something does, or `ABSENT`."""
    return next((found for place in places if (found := find_at(value, place)) is not ABSENT), ABSENT)


def find_texts(value: Any, places: tuple[Place, ...]) -> Any:
    """As `find_first`; a `*` in a place stands for each item of a list, and their texts are joined."""
    for place in places:
        found = _joined(value, place[0]) if _EACH in place[0] else find_at(value, place)
        if found is not ABSENT:
            return found
    return ABSENT


def _joined(value: Any, tokens: tuple[str, ...]) -> Any:
    at = tokens.index(_EACH)
    items = find(value, tokens[:at])
    if not isinstance(items, list):
        return ABSENT
    texts = [text for item in items if isinstance(text := find(item, tokens[at + 1 :]), str)]
    if not texts:
        return ABSENT
    return join_texts(texts)


def join_texts(texts: Sequence[str]) -> str:
    """Texts of one answer: pieces bring their white space, messages that stand alone are lines."""
    said = texts[0] if texts else ""
    for before, text in pairwise(texts):
        said += text if before[-1:].isspace() or text[:1].isspace() else f"\n{text}"
    return said


def _inside(value: Any) -> Any:
    """The value of the JSON text that a value is; `ABSENT` when it is none."""
    if not isinstance(value, str):
        return ABSENT
    try:
        return parse_json(value)
    except RemoteProtocolError:
        return ABSENT


def check_pattern(what: str, pattern: str) -> None:
    """Raises `ConfigError` for a regular expression that is none."""
    try:
        re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"{what}: {pattern!r} is no regular expression: {error}") from None
