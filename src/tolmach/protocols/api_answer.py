"""The common half of the decoders of official APIs: events or one JSON object, tool calls, counts, errors."""

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

from msgspec import Struct

from tolmach.chat import Delta, Event, FinishReason, Notice, ToolCallDelta, Usage
from tolmach.decoding import ServerSentEvent, ServerSentEvents, SurrogateJoiner, parse_json, plain_text
from tolmach.errors import BadRequest, ProviderError, ProviderUnavailable, RemoteProtocolError, error_for_status
from tolmach.protocols.base import SessionState, Site, challenge_page
from tolmach.protocols.bodies import Body, Revisable, clean, shown
from tolmach.wire import Head, Limits, Steps, retry_after

__all__ = [
    "NO_TEXT",
    "ApiAnswer",
    "Direct",
    "EventsAnswer",
    "FaultTable",
    "ToolCalls",
    "json_text_of",
    "piece",
    "words",
]

_BOM = b"\xef\xbb\xbf"

NO_TEXT = Delta("")
"""What the watch of an answer that is passed on says for a piece of it without a text."""


class Direct(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A protocol without a handshake: what it needs is the site's key."""

    def ready(self, site: Site, state: SessionState) -> bool:
        return True

    def prepare(self, site: Site, state: SessionState) -> Steps:
        yield from ()


class FaultTable(Struct, frozen=True):
    """How an API says what went wrong: by a code or type, and by words where it has no code of its own."""

    codes: Mapping[str, type[ProviderError]]
    words: tuple[tuple[re.Pattern[str], type[ProviderError]], ...] = ()

    def error(self, text: str, code: str | None, head: Head, now: float, *, wait: float | None = None) -> ProviderError:
        """The error for a failed response, or for a fault in the middle of a good one.

        Words count where the code says no more than that the request is wrong, and where there is none.
        """
        kind = self.codes.get(code or "")
        if kind is None and not 200 <= head.status < 300:
            kind = type(error_for_status(head.status, ""))
        if kind in (BadRequest, None):
            kind = next((better for pattern, better in self.words if pattern.search(text)), kind)
        wait = retry_after(head, now) if wait is None else wait
        return (kind or ProviderUnavailable)(text, status=head.status, code=code, retry_after=wait)


def words(pattern: str) -> re.Pattern[str]:
    """Words to look for in a fault's text, in upper or lower case."""
    return re.compile(pattern, re.I)


def piece(text: Any) -> Delta:
    """What the watch says for a piece of an answer that has this text, as far as it is one."""
    return Delta(clean(text)) if isinstance(text, str) and text else NO_TEXT


def json_text_of(value: Any) -> str:
    """A JSON value as text. Raises `RemoteProtocolError` for one that is nested too deep."""
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    except RecursionError as error:
        raise RemoteProtocolError("the arguments of a tool call are nested too deep") from error


class ToolCalls:
    """The tool calls of an answer, numbered from 0 in the order of their keys' first appearance.

    A call without arguments gets `{}` at its end, so that the arguments are always JSON.
    """

    def __init__(self, count: Callable[[str], None], make_id: Callable[[], str]) -> None:
        self._count = count
        self._make_id = make_id
        self._joiners: dict[Any, SurrogateJoiner] = {}
        self._numbers: dict[Any, int] = {}
        self._spoken: set[Any] = set()

    @property
    def called(self) -> bool:
        return bool(self._numbers)

    def __contains__(self, key: Any) -> bool:
        return key in self._numbers

    def start(self, key: Any, id: Any, name: Any) -> Iterator[Event]:
        """A new call; one that has no id of its own gets one. Raises `RemoteProtocolError` for a call of nothing."""
        if not isinstance(name, str) or not name:
            raise RemoteProtocolError("a tool call without the name of its function")
        number = self._numbers[key] = len(self._numbers)
        self._joiners[key] = SurrogateJoiner()
        id = clean(id) if isinstance(id, str) and id else self._make_id()
        self._count(name)
        yield ToolCallDelta(number, id, clean(name))

    def add(self, key: Any, text: Any) -> Iterator[Event]:
        """A piece of a call's arguments. Raises `RemoteProtocolError` for a call that never started or has ended."""
        if key not in self._joiners:
            what = "had ended" if key in self._numbers else "never started"
            raise RemoteProtocolError(f"arguments of a tool call that {what}")
        if isinstance(text, str) and (text := self._joiners[key].feed(text)):
            self._count(text)
            self._spoken.add(key)
            yield ToolCallDelta(self._numbers[key], arguments=text)

    def end(self, key: Any, whole: Any = None) -> Iterator[Event]:
        """The end of a call; `whole` are its arguments, an object or a text, for when no piece of them came."""
        if key not in self._numbers or key not in self._joiners:
            return
        if key not in self._spoken:
            yield from self.add(key, whole if isinstance(whole, str) and whole else json_text_of(whole or {}))
        if rest := self._joiners.pop(key).close():
            yield ToolCallDelta(self._numbers[key], arguments=rest)

    def next_key(self) -> int:
        """A key for a call of an API that has none of its own."""
        return len(self._numbers)

    def close(self) -> Iterator[Event]:
        """End all that were not."""
        for key in list(self._joiners):
            yield from self.end(key)


class ApiAnswer(Revisable, ABC):
    """An answer of an API: its tool calls, its errors, its end. `notices` go out before the first event."""

    reasons: ClassVar[Mapping[str, FinishReason]] = {}

    def __init__(
        self,
        head: Head,
        limits: Limits,
        now: Callable[[], float],
        make_id: Callable[[], str],
        notices: tuple[Notice, ...] = (),
    ) -> None:
        super().__init__(head, limits)
        self.now = now
        self.tools = ToolCalls(self.count, make_id)
        self.notices = notices
        self.broken = not 200 <= head.status < 300
        self.body = Body(head, limits)

    def http_error(self) -> ProviderError:
        """The error that the body of a failed response stands for."""
        body = self.body.read()
        if page := challenge_page(self.head, body):
            return page
        try:
            value = parse_json(body)
        except RemoteProtocolError:
            value = None
        fault = self.fault(value)
        if fault is not None:
            return fault
        return self.failed(plain_text(body) or f"HTTP {self.head.status}")

    # What subclasses give

    @abstractmethod
    def fault(self, value: Any) -> ProviderError | None:
        """The error that a JSON value reports; None when it reports none."""

    @abstractmethod
    def failed(self, text: str) -> ProviderError:
        """The error for a failed response that says nothing in the API's own way."""

    # The end

    def conclude(self, reason: Any, usage: Usage | None) -> Iterator[Event]:
        """The end of a whole answer: what is left of its tool calls, an unknown reason, the usage, `Done`."""
        yield from self.tools.close()
        called = self.tools.called
        known = self.reasons.get(reason) if isinstance(reason, str) else None
        if known is None:
            yield Notice("finish_reason", f"the service gave an unknown reason for the end: {shown(reason, 80)}")
        if known is None or (known == "stop" and called):
            known = "tool_calls" if called else "stop"
        if usage is not None:
            yield usage
        excused = called or self.reasoned or known in ("length", "content_filter")
        yield from self.finish(known, empty_ok=excused)


class EventsAnswer(ApiAnswer):
    """A stream of server-sent events, or one JSON object; the body tells which, whatever was asked for.

    Subclasses give `event` and `whole`, and `at_end` where a stream has no end mark but its end.
    """

    def __init__(
        self,
        head: Head,
        limits: Limits,
        now: Callable[[], float],
        make_id: Callable[[], str],
        notices: tuple[Notice, ...] = (),
    ) -> None:
        super().__init__(head, limits, now, make_id, notices)
        streamed = head.content_type == "text/event-stream" and not self.broken
        self._events = ServerSentEvents(limits.event_bytes) if streamed else None
        self._undecided = self._events is None and not self.broken
        self._seen = False

    def feed(self, data: bytes) -> Iterator[Event]:
        if self.ended:
            return
        if self._events is None:
            self.body.add(data)
            if not self._undecided or not self._is_stream():
                return
            self._events = ServerSentEvents(self.limits.event_bytes)
            data = self.body.read()
        for event in self._events.feed(data):
            if not self._seen:
                self._seen = True
                yield from self.notices
            yield from self.event(event)
            if self.ended:
                return

    def _is_stream(self) -> bool:
        """Whether the body, whatever its type says, is a stream: the first byte of JSON or of a page is no field's."""
        start = self.body.read().lstrip()
        if _BOM.startswith(start):
            return False  # not known yet
        self._undecided = False
        return start.removeprefix(_BOM).lstrip()[:1] not in (b"{", b"[", b"<", b"")

    def close(self) -> Iterator[Event]:
        if self.broken:
            raise self.http_error()
        if self.ended:
            return
        body = self.body.read() if self._events is None else self._events.body().removeprefix(_BOM).strip()
        if self._events is None or (not self._seen and body.startswith((b"{", b"[", b"<"))):
            yield from self.notices
            yield from self.whole(body)
        else:
            yield from self.at_end(inside=self._events.unfinished)
        self.check_ended()

    @abstractmethod
    def event(self, event: ServerSentEvent) -> Iterator[Event]:
        """What one event of the stream means. Raises the error that it reports."""

    @abstractmethod
    def whole(self, body: bytes) -> Iterator[Event]:
        """What a body that is no stream means. Raises for one that is no answer."""

    def at_end(self, *, inside: bool) -> Iterator[Event]:
        """The end of a stream that no mark ended, `inside` an event or behind one; by default nothing, so an error."""
        yield from ()
