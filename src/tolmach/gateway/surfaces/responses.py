"""The OpenAI Responses API, as callers see it.

An answer is a list of items: messages, reasoning (told as its summary, which all clients show),
function calls. Each has its place, `output_index`, so the pieces of several calls may come by
turns. Where the service took its text back the item's last word, in its `done` events and in the
response, is the text as it is in the end.

What OpenAI's own answers do not have: `notices` in the response (what else the caller should know),
and `estimated` in a usage that the service did not count.

A failure in mid-stream is an `error` event, with `error` in it as well, since that makes the openai
package raise; then, where the stream began here, `response.failed`.
"""

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType, field

from tolmach.chat import Delta, Done, Event, FinishReason, Notice, Reasoning, ToolCallDelta, Usage
from tolmach.errors import BadRequest, RateLimited, Refused, RemoteProtocolError, TolmachError
from tolmach.gateway.answers.estimate import estimate_usage
from tolmach.gateway.surfaces.base import Asked, Label
from tolmach.gateway.surfaces.calls import OpenCall
from tolmach.gateway.surfaces.openai import OpenAISurface
from tolmach.gateway.surfaces.partial_response import read_partial
from tolmach.gateway.surfaces.responses_request import call_id, read_request

__all__ = ["ResponseStream", "ResponsesSurface"]

_encode = msgspec.json.Encoder().encode

_ItemStatus = Literal["in_progress", "completed", "incomplete"]


class _OutputText(Struct, tag="output_text"):
    text: str
    annotations: list[None] = field(default_factory=list)
    logprobs: list[None] = field(default_factory=list)


class _Refusal(Struct, tag="refusal"):
    refusal: str


class _SummaryText(Struct, tag="summary_text"):
    text: str


class _MessageItem(Struct, tag="message", kw_only=True):
    id: str
    status: _ItemStatus
    role: str = "assistant"
    content: list[_OutputText | _Refusal]


class _ReasoningItem(Struct, tag="reasoning", kw_only=True):
    id: str
    status: _ItemStatus
    summary: list[_SummaryText]


class _CallItem(Struct, tag="function_call", kw_only=True):
    id: str
    status: _ItemStatus
    call_id: str
    name: str
    arguments: str


class _InputDetails(Struct):
    cached_tokens: int
    cache_write_tokens: int = 0


class _OutputDetails(Struct):
    reasoning_tokens: int


class _Usage(Struct):
    input_tokens: int
    input_tokens_details: _InputDetails
    output_tokens: int
    output_tokens_details: _OutputDetails
    total_tokens: int
    estimated: bool | UnsetType = UNSET


def _usage(told: Usage) -> _Usage:
    return _Usage(
        told.prompt_tokens,
        _InputDetails(told.cached_tokens),
        told.completion_tokens,
        _OutputDetails(told.reasoning_tokens),
        told.total_tokens,
        True if told.estimated else UNSET,
    )


class _Notice(Struct):
    kind: str
    text: str


class _Kind(Struct, frozen=True):
    """An item that is text: how its ids begin, its one part, and its events."""

    prefix: str
    part: type[_OutputText | _Refusal | _SummaryText]
    part_event: str
    text_event: str
    index: str
    text_field: str = "text"
    extra: bytes = b""

    def item(self, id: str, text: str | None, status: _ItemStatus) -> _MessageItem | _ReasoningItem:
        """The item; without a part yet where there is no text."""
        if self.part is _SummaryText:
            return _ReasoningItem(id=id, status=status, summary=[] if text is None else [_SummaryText(text)])
        parts: list[_OutputText | _Refusal] = []
        if text is not None:
            parts.append(_Refusal(text) if self.part is _Refusal else _OutputText(text))
        return _MessageItem(id=id, status=status, content=parts)


_TEXT = _Kind("msg", _OutputText, "content_part", "output_text", "content_index", extra=b'"logprobs":[],')
_REFUSAL = _Kind("msg", _Refusal, "content_part", "refusal", "content_index", "refusal")
_REASONING = _Kind("rs", _SummaryText, "reasoning_summary_part", "reasoning_summary_text", "summary_index")

_INCOMPLETE: dict[FinishReason, str] = {"length": "max_output_tokens", "content_filter": "content_filter"}


class ResponseStream:
    """One response as events. What is the same for all pieces of an item is encoded once.

    `feed` raises `RemoteProtocolError` for tool calls without a name, or that go on after their end.
    """

    end_mark: ClassVar[bytes] = b""

    def __init__(self, asked: Asked, label: Label) -> None:
        self._asked = asked
        self._label = label
        self._opened = False
        self._sequence = 0
        self._at = -1
        self._kind: _Kind | None = None
        self._head = b""
        self._text: list[str] = []
        self._call: OpenCall | None = None
        self._calls: dict[int, OpenCall] = {}
        self._done: dict[int, bytes] = {}
        self._written: list[str] = []
        self._notices: list[_Notice] = []
        self._told: Usage | None = None
        self._refused = False
        self._in_text = False
        self._said = False
        self._ids: dict[int, str] = {}
        about = {"id": f"resp_{label.id}", "object": "response", "created_at": label.created, "model": label.model}
        self._about = _encode({**about, **asked.echo.get("response", {})})[:-1]

    def open(self) -> bytes:
        self._opened = True
        response = self._response("in_progress")
        return self._event("response.created", b'"response":%b' % response) + self._event(
            "response.in_progress", b'"response":%b' % response
        )

    def feed(self, event: Event) -> bytes:
        if event.__class__ is Delta and self._in_text:
            text: str = event.text
            self._text.append(text)
            self._sequence += 1
            return b'%b%b,"sequence_number":%d}\n\n' % (self._head, _encode(text), self._sequence - 1)
        return self._rarely(event)

    def _rarely(self, event: Event) -> bytes:
        match event:
            case Delta(text):
                return self._piece(_REFUSAL if self._refused else _TEXT, text)
            case Reasoning(text):
                return self._piece(_REASONING, text)
            case ToolCallDelta():
                return self._tool(event)
            case Usage():
                self._told = event
            case Notice("refusal"):
                self._refused = True
                self._in_text = False
            case Notice("rewritten", text):
                return self._rewrite(text)
            case Notice(kind, text):
                self._notices.append(_Notice(kind, text))
            case Done(reason):
                return self._finish(reason)
        return b""

    def go_on_from(self, sent: bytes) -> None:
        """Take over a response whose beginning a service wrote itself: its id, its items and its numbers.

        The events that the beginning means have been fed already.
        """
        before = read_partial(sent)
        about = msgspec.json.decode(self._about + b"}")
        about.update({name: value for name, value in (("id", before.id), ("created_at", before.created)) if value})
        self._about = _encode(about)[:-1]
        self._sequence = max(self._sequence, before.numbers)
        self._ids = before.ids
        self._done = {at: _encode(item) for at, item in before.done.items()}
        self._at = max(self._at, before.place)
        if self._at in self._done:
            self._kind, self._in_text = None, False
        elif self._kind is not None:
            self._head = self._head_of(self._kind)

    def fail(self, error: TolmachError) -> bytes:
        fields = _error_fields(error)
        flat = {name: fields[name] for name in ("code", "message", "param")}
        data = self._event("error", _encode({**flat, "error": fields})[1:-1])
        if not self._opened:
            return data  # what came before was not written here: its response is another
        sequence = self._sequence
        self._close_all("incomplete")  # for the response alone: these ends are not told one by one
        self._sequence = sequence
        failed = {"code": _failure_code(error), "message": fields["message"]}
        return data + self._event("response.failed", b'"response":%b' % self._response("failed", error=failed))

    def keep_alive(self) -> bytes:
        return b": keep-alive\n\n"

    # Events

    def _event(self, name: str, fields: bytes) -> bytes:
        """An event of this type; `fields` are its own, without braces."""
        kind = name.encode()
        self._sequence += 1
        return b'event: %b\ndata: {"type":"%b",%b,"sequence_number":%d}\n\n' % (kind, kind, fields, self._sequence - 1)

    def _response(self, status: str, **fields: Any) -> bytes:
        ended = status != "in_progress"
        state: dict[str, Any] = {"status": status, "error": None, "incomplete_details": None, "usage": None, **fields}
        if self._notices and ended:
            state["notices"] = self._notices
        output = b",".join(self._done[at] for at in sorted(self._done))
        return b'%b,%b,"output":[%b]}' % (self._about, _encode(state)[1:-1], output)

    def _place(self, id: str, at: int) -> bytes:
        return b'"item_id":%b,"output_index":%d' % (_encode(id), at)

    # Items that are text

    def _piece(self, kind: _Kind, text: str) -> bytes:
        opening = b"" if self._kind is kind else self._begin_text(kind)
        self._text.append(text)
        self._sequence += 1
        return b'%b%b%b,"sequence_number":%d}\n\n' % (opening, self._head, _encode(text), self._sequence - 1)

    def _begin_text(self, kind: _Kind) -> bytes:
        data = self._leave()
        self._at += 1
        id = self._item_id(kind.prefix, self._at)
        place = b'%b,"%b":0' % (self._place(id, self._at), kind.index.encode())
        self._kind, self._text, self._in_text = kind, [], kind is _TEXT
        self._said = self._said or kind is not _REASONING
        data += self._added(_encode(kind.item(id, None, "in_progress")), self._at)
        data += self._event(f"response.{kind.part_event}.added", b'%b,"part":%b' % (place, _encode(kind.part(""))))
        self._head = self._head_of(kind)
        return data

    def _head_of(self, kind: _Kind) -> bytes:
        """What stands before the text in each event of the item that is open."""
        place = b'%b,"%b":0' % (self._place(self._item_id(kind.prefix, self._at), self._at), kind.index.encode())
        name = f"response.{kind.text_event}.delta".encode()
        return b'event: %b\ndata: {"type":"%b",%b,%b"delta":' % (name, name, place, kind.extra)

    def _rewrite(self, text: str) -> bytes:
        """The text is now this one. What was sent is sent: only the end of the item, and what follows, can say it."""
        if self._kind in (_TEXT, _REFUSAL):
            self._text = [text]
            return b""
        return b"" if self._said else self._piece(_TEXT, text)

    def _end_text(self, status: _ItemStatus) -> bytes:
        kind, text = self._kind, "".join(self._text)
        if kind is None:
            return b""
        self._kind, self._in_text = None, False
        self._written.append(text)
        id = self._item_id(kind.prefix, self._at)
        place = b'%b,"%b":0' % (self._place(id, self._at), kind.index.encode())
        whole = b'%b,%b"%b":%b' % (place, kind.extra, kind.text_field.encode(), _encode(text))
        part = _encode(kind.part(text))
        return (
            self._event(f"response.{kind.text_event}.done", whole)
            + self._event(f"response.{kind.part_event}.done", b'%b,"part":%b' % (place, part))
            + self._ended(_encode(kind.item(id, text, status)), self._at)
        )

    def _item_id(self, prefix: str, at: int) -> str:
        return self._ids.get(at) or f"{prefix}_{self._label.id}{at}"

    def _added(self, item: bytes, at: int) -> bytes:
        return self._event("response.output_item.added", b'"output_index":%d,"item":%b' % (at, item))

    def _ended(self, item: bytes, at: int) -> bytes:
        self._done[at] = item
        return self._event("response.output_item.done", b'"output_index":%d,"item":%b' % (at, item))

    # Tool calls

    def _tool(self, event: ToolCallDelta) -> bytes:
        call = self._calls.get(event.index)
        data = b""
        if call is None:
            if not event.name:
                raise RemoteProtocolError("the service sent a tool call without a name")
            data = self._leave()
            self._at += 1
            call = self._calls[event.index] = OpenCall(call_id(event, self._label), event.name, self._at)
            self._call = call
            data += self._added(_encode(self._call_item(call, "in_progress")), call.at)
        if not call.add(event.arguments):
            return data
        fields = b'%b,"delta":%b' % (self._place(self._item_id("fc", call.at), call.at), _encode(event.arguments))
        return data + self._event("response.function_call_arguments.delta", fields)

    def _call_item(self, call: OpenCall, status: _ItemStatus) -> _CallItem:
        id = self._item_id("fc", call.at)
        return _CallItem(id=id, status=status, call_id=call.id, name=call.name, arguments=call.arguments)

    def _end_call(self, call: OpenCall, status: _ItemStatus) -> bytes:
        call.closed = True
        self._written += [call.name, call.arguments]
        told = _encode({"arguments": call.arguments, "name": call.name})[1:-1]
        fields = b"%b,%b" % (self._place(self._item_id("fc", call.at), call.at), told)
        return self._event("response.function_call_arguments.done", fields) + self._ended(
            _encode(self._call_item(call, status)), call.at
        )

    # The end

    def _leave(self) -> bytes:
        """Another item begins: the last one ends, unless it is a call whose arguments are not whole yet."""
        call, self._call = self._call, None
        if call is not None and call.is_whole():
            return self._end_call(call, "completed")
        return self._end_text("completed")

    def _close_all(self, status: _ItemStatus) -> bytes:
        data = self._end_text(status)
        for call in self._calls.values():
            if not call.closed:
                data += self._end_call(call, status)
        return data

    def _finish(self, reason: FinishReason) -> bytes:
        why = _INCOMPLETE.get(reason)
        data = self._close_all("incomplete" if why else "completed")
        return data + self._event(f"response.{self._status(why)}", b'"response":%b' % self._ending(why))

    def _status(self, why: str | None) -> str:
        return "incomplete" if why else "completed"

    def _ending(self, why: str | None) -> bytes:
        told = self._told or estimate_usage(self._asked.turn, self._written)
        details = {"reason": why} if why else None
        return self._response(self._status(why), usage=_usage(told), incomplete_details=details)

    def whole(self, events: Iterable[Event]) -> bytes:
        """The response as it is after these events; the last of them is `Done`."""
        for event in events:
            if isinstance(event, Done):
                why = _INCOMPLETE.get(event.reason)
                self._close_all("incomplete" if why else "completed")
                return self._ending(why)
            self.feed(event)
        raise RemoteProtocolError("the answer has no end")


# Errors

_FAILURE_CODES: dict[type[TolmachError], str] = {
    RateLimited: "rate_limit_exceeded",
    BadRequest: "invalid_prompt",
    Refused: "invalid_prompt",
}
"""Codes of a failed response, of which the API has few; the first that fits counts."""


def _failure_code(error: TolmachError) -> str:
    return next((code for kind, code in _FAILURE_CODES.items() if isinstance(error, kind)), "server_error")


_ERRORS = OpenAISurface()
"""Errors are those of chat completions."""


def _error_fields(error: TolmachError) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.json.decode(_ERRORS.error(error, "")[1])["error"]
    return fields


# The surface


class ResponsesSurface:
    """`POST /v1/responses`. For `echo` see `read_request`."""

    name: ClassVar[str] = "responses"

    def parse(self, body: bytes) -> Asked:
        return read_request(body)

    def whole(self, asked: Asked, events: Sequence[Event], label: Label) -> bytes:
        return ResponseStream(asked, label).whole(_final(events))

    def stream(self, asked: Asked, label: Label) -> ResponseStream:
        return ResponseStream(asked, label)

    def error(self, error: TolmachError, request_id: str) -> tuple[int, bytes]:
        return _ERRORS.error(error, request_id)


def _final(events: Sequence[Event]) -> Iterable[Event]:
    """The events without the text that the service took back."""
    last = max((i for i, e in enumerate(events) if isinstance(e, Notice) and e.kind == "rewritten"), default=-1)
    for i, event in enumerate(events):
        if i == last:
            yield Delta(event.text)  # type: ignore[union-attr]  # a notice, as was just found
        elif i > last or not (isinstance(event, Delta) or (isinstance(event, Notice) and event.kind == "rewritten")):
            yield event
