"""One request that carries the question, one response that carries the answer, and no handshake.

A site of this family is data: where the question goes in the request, and where the answer stands
in the response, told by JSON pointers (RFC 6901). The response is one JSON text, plain text, or a
stream of JSON or text pieces as lines or server-sent events.

A plain text answer has no end of its own: only the transport sees that one broke off.
"""

import codecs
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Literal
from urllib.parse import urlencode, urljoin, urlsplit

import msgspec
from msgspec import Struct, field

from anychat.chat import ChatRequest, Event
from anychat.decoding import LineDecoder, ServerSentEvents, parse_json, plain_text
from anychat.errors import (
    AuthError,
    BadRequest,
    ChallengeRequired,
    ConfigError,
    ContextTooLong,
    ProviderError,
    ProviderUnavailable,
    RateLimited,
    Refused,
    RemoteProtocolError,
    TruncatedAnswer,
)
from anychat.protocols.base import SessionState, Site, failure
from anychat.protocols.bodies import (
    Body,
    Revisable,
    Snapshot,
    arrival,
    encode_json,
    is_page,
    json_body,
    shown,
    split_address,
    web_origin,
)
from anychat.protocols.pointer import ABSENT, find, parse_pointer
from anychat.protocols.template import ITEM_PLACES, QUESTION_PLACES, fill, option_places, places, values_of
from anychat.wire import Call, Decoder, Handshake, Head, Limits, Request, Steps, retry_after

__all__ = ["JsonText"]

ErrorKind = Literal["auth", "bad_request", "context_too_long", "rate_limited", "refused", "unavailable"]

_KINDS: dict[str, type[ProviderError]] = {
    "auth": AuthError,
    "bad_request": BadRequest,
    "context_too_long": ContextTooLong,
    "rate_limited": RateLimited,
    "refused": Refused,
    "unavailable": ProviderUnavailable,
}

_ACCEPT = {
    "json": "application/json, text/plain, */*",
    "text": "text/plain, */*",
    "ndjson": "application/x-ndjson, application/json, */*",
    "sse": "text/event-stream, */*",
}

# Where services put the words of an error, when the site does not declare it better.
_WORDS = tuple(parse_pointer(p) for p in ("/message", "/detail", "/error/message", "/error", "/msg"))


class JsonText(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Its options are the site's declaration; the defaults describe the smallest such service.

    `template` is the request: a string `"{{name}}"` in it stands for a value, inside longer text
    for its text. Names are `message` (the new message; the whole conversation as one text when
    the template has no place for the history), `history` (the messages before it), `messages`
    (all), `system` (the system messages' text), `model`, `stream`, and the caller's options by
    their OpenAI names or as `defaults` names them. A field whose option has neither a value nor a
    default is left out. Raises `ConfigError` that names what is wrong.
    """

    name: ClassVar[str] = "json-text"
    title: ClassVar[str] = "One JSON or form request, one JSON, text or streamed answer"

    method: Literal["POST", "PUT", "GET"] = "POST"
    path: str = "/api/text"
    """From the origin of the site's address, or a full URL."""
    body: Literal["json", "form", "query"] = "json"
    template: dict[str, Any] = field(default_factory=lambda: {"message": "{{message}}"})
    defaults: dict[str, Any] = field(default_factory=dict)
    """Values of options that the caller did not give."""
    history_item: dict[str, Any] = field(default_factory=lambda: {"role": "{{role}}", "content": "{{content}}"})
    """One message of `history` and `messages`."""
    roles: dict[str, str] = field(default_factory=dict)
    """The service's names of the roles, where they differ."""

    format: Literal["json", "text", "ndjson", "sse"] = "json"
    answer: str = "/message"
    """Where the text stands, in the answer or in each event of a stream."""
    pieces: Literal["json", "text"] = "json"
    """What the events of a stream are; `text` is taken as it is."""
    snapshots: bool = False
    """Whether each event of a stream holds the whole text so far."""
    end: str | None = "[DONE]"
    """The event that ends a stream; None when the stream's own end does."""
    end_flag: str | None = None
    """Where an event says, with a true value, that it is the last."""

    ok: str | None = None
    """Where a true value must stand in an answer that is none of an error."""
    errors: tuple[str, ...] = ("/error",)
    """Where an error's text stands; a null, false or empty value is no error."""
    error_code: str | None = None
    """Where an error's code stands."""
    error_kinds: dict[str, ErrorKind] = field(default_factory=dict)
    """What an HTTP status or an error's code stands for, where the status alone does not say it."""

    def __post_init__(self) -> None:
        self._check_path()
        for pointer in (self.answer, self.end_flag, self.ok, self.error_code, *self.errors):
            if pointer is not None:
                _check_pointer(pointer)
        option_names = option_places(self.defaults)
        named = places(self.template)
        if unknown := sorted(named - option_names - QUESTION_PLACES):
            raise ConfigError(f"template: nothing is called {unknown[0]!r}; options of the site's own need a default")
        if not named & {"message", "messages"}:
            raise ConfigError('template: "{{message}}" or "{{messages}}" has to stand somewhere')
        if unknown := sorted(places(self.history_item) - ITEM_PLACES):
            raise ConfigError(f"history_item: nothing is called {unknown[0]!r}; there are role and content")
        if (self.method == "GET") != (self.body == "query"):
            raise ConfigError("body: a GET request has its fields in the query, and no other has")

    def _check_path(self) -> None:
        try:
            parts = urlsplit(self.path)
            full = parts.scheme in ("http", "https") and bool(parts.hostname)
        except ValueError:
            full = False
        if not full and (not self.path.startswith("/") or self.path.startswith("//")):
            raise ConfigError(f"path: {self.path!r} is neither a path such as /api/text nor a full URL")

    @property
    def features(self) -> frozenset[str]:
        return places(self.template) - QUESTION_PLACES

    @property
    def traits(self) -> frozenset[str]:
        named = places(self.template)
        has = {
            "stream": self.format != "json",
            "history": bool(named & {"history", "messages"}),
            "system": bool(named & {"system", "history", "messages"}),
        }
        return frozenset(name for name, there in has.items() if there)

    def ready(self, site: Site, state: SessionState) -> bool:
        return True

    def prepare(self, site: Site, state: SessionState) -> Steps:
        yield from ()

    def open(self, site: Site, turn: ChatRequest, state: SessionState) -> Handshake:
        yield from ()
        request = self._request(site, turn)
        return Call(request, lambda head: _DECODERS[self.format](self, head, state.limits, state.now))

    def reader(self, request: Request) -> Callable[[Head], Decoder] | None:
        try:
            path = urlsplit(request.url).path
        except ValueError:
            return None
        if request.method != self.method or path != urlsplit(self.path).path:
            return None
        # Nothing declared: the answers are those of the service that the defaults are taken from.
        declared = self if self != JsonText() else JsonText(ok="/response")
        return lambda head: _DECODERS[declared.format](declared, head, Limits(), arrival(head))

    def _request(self, site: Site, turn: ChatRequest) -> Request:
        split_address(site.url)
        url = urljoin(site.url, site.api_endpoint or self.path)
        values = values_of(turn, self.template, self.defaults, self.history_item, self.roles)
        values["model"] = turn.model or site.default_model or ABSENT
        filled = fill(self.template, values)
        headers = {
            "accept": _ACCEPT[self.format],
            "origin": web_origin(site.url),
            "referer": web_origin(site.url) + (urlsplit(site.url).path or "/"),
        }
        if site.api_key:
            headers["authorization"] = f"Bearer {site.api_key}"
        if self.body == "json":
            return Request(self.method, url, {**headers, "content-type": "application/json"}, encode_json(filled))
        form = urlencode([(name, _field_text(value)) for name, value in filled.items()], errors="replace")
        if self.body == "form":
            headers["content-type"] = "application/x-www-form-urlencoded"
            return Request(self.method, url, headers, form.encode())
        return Request(self.method, f"{url}{'&' if '?' in url else '?'}{form}", headers)


def _check_pointer(pointer: str) -> None:
    try:
        parse_pointer(pointer)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _field_text(value: Any) -> str:
    """A value as a form field: text as it is, anything else as JSON."""
    return value if isinstance(value, str) else encode_json(value).decode()


class _Declared(Revisable):
    """What the answers of all formats have in common: what the site says about errors."""

    def __init__(self, protocol: JsonText, head: Head, limits: Limits, now: Callable[[], float]) -> None:
        super().__init__(head, limits)
        self._protocol = protocol
        self._now = now
        self._failed = not 200 <= head.status < 300
        self._body = Body(head, limits)
        self._answer = parse_pointer(protocol.answer)
        self._ok = None if protocol.ok is None else parse_pointer(protocol.ok)
        self._errors = tuple(map(parse_pointer, protocol.errors))
        self._error_code = None if protocol.error_code is None else parse_pointer(protocol.error_code)

    def _set_aside(self, data: bytes) -> bool:
        """Whether the bytes are no part of an answer: the body of a failed response, or behind the end."""
        if self._failed:
            self._body.add(data)
        return self._failed or self.ended

    def _fail(self) -> None:
        """Raise what a failed response stands for."""
        if self._failed:
            raise self._http_error(self._body.read())

    # Errors

    def _http_error(self, body: bytes) -> Exception:
        try:
            value = parse_json(body)
        except RemoteProtocolError:
            value = None
        text = self._error_text(value) or self._words(value) or plain_text(body)
        code = self._code(value)
        error = failure(self.head, body, self._now(), text=text, code=code)
        kind = self._kind(code)
        if kind is None or not isinstance(error, ProviderError) or isinstance(error, ChallengeRequired):
            return error
        return kind(text, status=self.head.status, code=code, retry_after=error.retry_after)

    def _check(self, value: Any) -> None:
        """Raise what a value of a good status says went wrong."""
        text = self._error_text(value)
        if text is None and self._flagged(value):
            own = find(value, self._answer)
            text = own if isinstance(own, str) and own.strip() else self._words(value) or shown(value)
        if text is not None:
            code = self._code(value)
            kind = self._kind(code) or ProviderUnavailable
            wait = retry_after(self.head, self._now())
            raise kind(shown(text), status=self.head.status, code=code or "upstream", retry_after=wait)

    def _flagged(self, value: Any) -> bool:
        """Whether the flag that must be true is not; a stream's events need not all have it."""
        if self._ok is None:
            return False
        flag = find(value, self._ok)
        return not flag or (flag is ABSENT and self._protocol.format == "json")

    def _error_text(self, value: Any) -> str | None:
        for tokens in self._errors:
            error = find(value, tokens)
            if error is not ABSENT and error not in (None, False, "", 0, [], {}):
                return self._words({"error": error}) or shown(value if error is True else error)
        return None

    def _words(self, value: Any) -> str:
        for tokens in _WORDS:
            words = find(value, tokens)
            if isinstance(words, str) and words.strip():
                return shown(words)
        return ""

    def _code(self, value: Any) -> str | None:
        if self._error_code is None:
            return None
        code = find(value, self._error_code)
        return shown(code, 80) if isinstance(code, str | int) and code != "" else None

    def _kind(self, code: str | None) -> type[ProviderError] | None:
        kinds = self._protocol.error_kinds
        name = (kinds.get(code) if code is not None else None) or kinds.get(str(self.head.status))
        return _KINDS[name] if name else None

    def _text_of(self, value: Any) -> str | None:
        """The text at the declared place; None when nothing stands there."""
        text = find(value, self._answer)
        if text is ABSENT or text is None:
            return None
        if not isinstance(text, str):
            place = self._protocol.answer or "the answer"
            raise RemoteProtocolError(f"{place} is no text: {shown(text, 80)}", status=self.head.status)
        return text


class _JsonAnswer(_Declared):
    """One JSON text."""

    def feed(self, data: bytes) -> Iterator[Event]:
        if not self._set_aside(data):
            self._body.add(data)
        yield from ()

    def close(self) -> Iterator[Event]:
        self._fail()
        value = json_body(self.head, self._body.read())
        self._check(value)
        text = self._text_of(value)
        if text is None and find(value, self._answer) is ABSENT:
            missing = f"nothing stands at {self._protocol.answer} in the answer: {shown(value)}"
            raise RemoteProtocolError(missing, status=self.head.status)
        yield from self.delta(text or "")
        yield from self.finish()


class _TextAnswer(_Declared):
    """Plain text, given out as it arrives."""

    # Enough to tell a page from an answer.
    _OPENING = 64

    def __init__(self, protocol: JsonText, head: Head, limits: Limits, now: Callable[[], float]) -> None:
        super().__init__(protocol, head, limits, now)
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
        yield from self.finish()


class _StreamAnswer(_Declared):
    """A stream of events, each with a piece of the text."""

    def __init__(self, protocol: JsonText, head: Head, limits: Limits, now: Callable[[], float]) -> None:
        super().__init__(protocol, head, limits, now)
        self._end_flag = None if protocol.end_flag is None else parse_pointer(protocol.end_flag)
        self._end_mark = None if protocol.end is None else protocol.end.encode()
        self._snapshot = Snapshot()

    def _event(self, data: bytes) -> Iterator[Event]:
        if self._end_mark is not None and data.strip() == self._end_mark:
            yield from self.finish()
            return
        if self._protocol.pieces == "text":
            yield from self._piece(data.decode("utf-8", "replace"))
            return
        value = parse_json(data)
        self._check(value)
        if (text := self._text_of(value)) is not None:
            yield from self._piece(text)
        if self._end_flag is not None:
            flag = find(value, self._end_flag)
            if flag is not ABSENT and flag:
                yield from self.finish()

    def _piece(self, text: str) -> Iterator[Event]:
        if not self._protocol.snapshots:
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
        if self._protocol.end is None and self._protocol.end_flag is None and not rest.strip():
            yield from self.finish()


class _LinesAnswer(_StreamAnswer):
    """One event a line; the last line may lack its end when it is a whole JSON object."""

    def __init__(self, protocol: JsonText, head: Head, limits: Limits, now: Callable[[], float]) -> None:
        super().__init__(protocol, head, limits, now)
        self._lines = LineDecoder(limits.event_bytes)
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
        if self._protocol.pieces == "json" and is_page(line):
            yield from self._end_of(line)
        yield from self._event(line)

    def close(self) -> Iterator[Event]:
        self._fail()
        if not self.ended:
            yield from self._last_line()
        self.check_ended()

    def _last_line(self) -> Iterator[Event]:
        rest = self._lines.rest().strip()
        if rest.startswith(b"{") and rest.endswith(b"}") and self._protocol.pieces == "json":
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

    def __init__(self, protocol: JsonText, head: Head, limits: Limits, now: Callable[[], float]) -> None:
        super().__init__(protocol, head, limits, now)
        self._events = ServerSentEvents(limits.event_bytes)
        self._seen = False

    def feed(self, data: bytes) -> Iterator[Event]:
        if self._set_aside(data):
            return
        for event in self._events.feed(data):
            self._seen = True
            yield from self._event(event.data)
            if self.ended:
                return

    def close(self) -> Iterator[Event]:
        self._fail()
        if not self.ended:
            yield from self._rest()
        self.check_ended()

    def _rest(self) -> Iterator[Event]:
        body = self._events.body().removeprefix(codecs.BOM_UTF8)
        if not self._seen and body.strip().startswith((b"{", b"[")):
            value = json_body(self.head, body)
            self._check(value)
            yield from self.delta(self._text_of(value) or "")
            yield from self.finish()
        elif self._events.unfinished and not is_page(body):
            self.check_ended()
        else:
            yield from self._end_of(body if is_page(body) else b"")


_DECODERS: dict[str, Callable[[JsonText, Head, Limits, Callable[[], float]], Decoder]] = {
    "json": _JsonAnswer,
    "text": _TextAnswer,
    "ndjson": _LinesAnswer,
    "sse": _EventsAnswer,
}
