"""The Anthropic Messages API, version 2023-06-01, as callers see it.

Streams: blocks stand one after the other, so a block is closed before the next is opened. A service
that sends the pieces of several tool calls by turns is put in order: what does not belong to the
open call waits until that call's arguments are a whole object.

What Anthropic's own answers do not have: `notices` beside the usage (what else the caller should
know), and `estimated` in a usage that the service did not count. Thinking has an empty signature.
Where the service took its text back in mid-stream the text that was sent stands; whole answers have
the text as it is in the end.
"""

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType

from tolmach.chat import (
    Delta,
    Done,
    Event,
    FinishReason,
    Notice,
    Reasoning,
    ToolCallDelta,
    Usage,
)
from tolmach.errors import (
    AddressRefused,
    AuthError,
    BadRequest,
    ConfigError,
    LocalError,
    ModelNotFound,
    ProviderError,
    ProviderUnavailable,
    RateLimited,
    Refused,
    RemoteProtocolError,
    TimedOut,
    TolmachError,
    UnsupportedFeature,
)
from tolmach.gateway.answers.estimate import estimate_prompt, estimate_usage
from tolmach.gateway.status import status_of
from tolmach.gateway.surfaces.anthropic_request import read_request
from tolmach.gateway.surfaces.base import Asked, Label
from tolmach.gateway.surfaces.calls import OpenCall, read_arguments

__all__ = ["AnthropicSurface", "MessageStream"]

_encode = msgspec.json.Encoder().encode

_StopReason = Literal["end_turn", "max_tokens", "tool_use", "refusal"]

_STOPS: dict[FinishReason, _StopReason] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}


class _OutputDetails(Struct):
    thinking_tokens: int


class _Usage(Struct):
    """`input_tokens` are those that did not come out of a cache."""

    input_tokens: int
    output_tokens: int
    cache_read_input_tokens: int | UnsetType = UNSET
    output_tokens_details: _OutputDetails | UnsetType = UNSET
    estimated: bool | UnsetType = UNSET


class _Text(Struct, tag="text"):
    text: str


class _Thinking(Struct, tag="thinking"):
    thinking: str
    signature: str = ""


class _ToolUse(Struct, tag="tool_use"):
    id: str
    name: str
    input: dict[str, Any]


_Block = _Text | _Thinking | _ToolUse


class _Notice(Struct):
    kind: str
    text: str


class _Message(Struct, kw_only=True, tag="message"):
    id: str
    role: str = "assistant"
    model: str
    content: list[_Block]
    stop_reason: _StopReason | None
    stop_sequence: None = None
    usage: _Usage
    notices: list[_Notice] | UnsetType = UNSET


def _usage(told: Usage) -> _Usage:
    cached = min(told.cached_tokens, told.prompt_tokens)
    return _Usage(
        told.prompt_tokens - cached,
        told.completion_tokens,
        cached or UNSET,
        _OutputDetails(told.reasoning_tokens) if told.reasoning_tokens else UNSET,
        True if told.estimated else UNSET,
    )


def _stop_reason(reason: FinishReason, *, called: bool, refused: bool) -> _StopReason:
    """Callers run tools when they read `tool_use`: it stands where there are calls, and only there."""
    if refused:
        return "refusal"
    if reason in ("stop", "tool_calls"):
        return "tool_use" if called else "end_turn"
    return _STOPS[reason]


def _bad_arguments(name: str) -> RemoteProtocolError:
    return RemoteProtocolError(f"the model's arguments for the tool {name!r} are no JSON object")


# Whole answers


class _Whole:
    """An answer's blocks, collected."""

    def __init__(self, label: Label) -> None:
        self._label = label
        self._blocks: list[tuple[str, list[str] | OpenCall]] = []
        self._calls: dict[int, OpenCall] = {}
        self._reason: FinishReason = "stop"
        self._refused = False
        self.told: Usage | None = None
        self.notices: list[_Notice] = []

    def take(self, event: Event) -> None:
        match event:
            case Delta(text):
                self._add("text", text)
            case Reasoning(text):
                self._add("thinking", text)
            case ToolCallDelta(index):
                if index not in self._calls:
                    self._calls[index] = _begin_call(event, self._label, len(self._blocks))
                    self._blocks.append(("tool_use", self._calls[index]))
                self._calls[index].add(event.arguments)
            case Usage():
                self.told = event
            case Notice("refusal"):
                self._refused = True
            case Notice("rewritten", text):
                self._blocks = [block for block in self._blocks if block[0] != "text"]
                self._add("text", text)
            case Notice(kind, text):
                self.notices.append(_Notice(kind, text))
            case Done(reason):
                self._reason = reason

    def _add(self, kind: str, text: str) -> None:
        last = self._blocks[-1] if self._blocks else None
        if last is not None and last[0] == kind and isinstance(last[1], list):
            last[1].append(text)
        elif text:
            self._blocks.append((kind, [text]))

    def blocks(self) -> list[_Block]:
        """The blocks. A tool call that the limit of tokens cut is no call: it is left out."""
        made: list[_Block] = []
        for kind, body in self._blocks:
            if not isinstance(body, OpenCall):
                text = "".join(body)
                made.append(_Text(text) if kind == "text" else _Thinking(text))
                continue
            arguments = read_arguments(body.arguments)
            if arguments is not None:
                made.append(_ToolUse(body.id, body.name, arguments))
            elif self._reason != "length":
                raise _bad_arguments(body.name)
        return made

    def texts(self) -> Iterable[str]:
        for _, body in self._blocks:
            yield from (body.name, *body.pieces) if isinstance(body, OpenCall) else body

    @property
    def stop_reason(self) -> _StopReason:
        return _stop_reason(self._reason, called=bool(self._calls), refused=self._refused)


def _begin_call(event: ToolCallDelta, label: Label, at: int) -> OpenCall:
    if not event.name:
        raise RemoteProtocolError("the service sent a tool call without a name")
    return OpenCall(event.id or f"toolu_{label.id}{event.index}", event.name, at)


# Streams

_PING = b'event: ping\ndata: {"type":"ping"}\n\n'
_STOP = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
_DELTA_END = b"}}\n\n"

# What a block begins with, and the field that its pieces are in.
_OPENINGS = {"text": b'{"type":"text","text":""}', "thinking": b'{"type":"thinking","thinking":"","signature":""}'}
_PIECES = {
    "text": b'"text_delta","text":',
    "thinking": b'"thinking_delta","thinking":',
    "tool_use": b'"input_json_delta","partial_json":',
}


class MessageStream:
    """One message as events. What is the same for all pieces of a block is encoded once.

    `feed` raises `RemoteProtocolError` for tool calls that this API cannot write: without a name, or
    with arguments that are no object.
    """

    end_mark: ClassVar[bytes] = _STOP

    __slots__ = (
        "_asked",
        "_at",
        "_call",
        "_calls",
        "_head",
        "_kind",
        "_label",
        "_notices",
        "_pieces",
        "_refused",
        "_told",
        "_waiting",
    )

    def __init__(self, asked: Asked, label: Label) -> None:
        self._asked = asked
        self._label = label
        self._at = -1
        self._kind = ""
        self._head = b""
        self._call: OpenCall | None = None
        self._calls: dict[int, OpenCall] = {}
        self._waiting: list[Event] = []
        self._pieces: list[str] = []
        self._notices: list[_Notice] = []
        self._told: Usage | None = None
        self._refused = False

    def open(self) -> bytes:
        message = _Message(
            id=f"msg_{self._label.id}", model=self._label.model, content=[], stop_reason=None, usage=_Usage(0, 0)
        )
        start = _encode({"type": "message_start", "message": message})
        return b"event: message_start\ndata: %b\n\n%b" % (start, _PING)

    def feed(self, event: Event) -> bytes:
        if event.__class__ is Delta and self._kind == "text":
            text: str = event.text
            self._pieces.append(text)
            return self._head + _encode(text) + _DELTA_END
        return self._rarely(event)

    def _rarely(self, event: Event) -> bytes:
        match event:
            case Delta(text):
                return self._piece("text", text, event)
            case Reasoning(text):
                return self._piece("thinking", text, event)
            case ToolCallDelta():
                return self._tool(event)
            case Usage():
                self._told = event
            case Notice("refusal"):
                self._refused = True
            case Notice(kind, text):
                self._notices.append(_Notice(kind, text))
            case Done(reason):
                return self._finish(reason)
        return b""

    def fail(self, error: TolmachError) -> bytes:
        return b"event: error\ndata: %b\n\n" % _encode({"type": "error", "error": _error_fields(error)[1]})

    def keep_alive(self) -> bytes:
        return _PING

    # Blocks

    def _piece(self, kind: str, text: str, event: Event) -> bytes:
        opening = b""
        if self._kind != kind:
            if self._is_held():
                self._waiting.append(event)
                return b""
            opening = self._begin(kind, _OPENINGS[kind])
        self._pieces.append(text)
        return opening + self._head + _encode(text) + _DELTA_END

    def _tool(self, event: ToolCallDelta) -> bytes:
        call = self._calls.get(event.index)
        opening = b""
        if call is None:
            if self._is_held():
                self._waiting.append(event)
                return b""
            call = _begin_call(event, self._label, self._at + 1)
            self._calls[event.index] = call
            self._pieces.append(call.name)
            start = _encode(_ToolUse(call.id, call.name, {}))
            opening = self._begin("tool_use", start)
            self._call = call
        if not call.add(event.arguments):
            return opening
        self._pieces.append(event.arguments)
        data = opening + self._head + _encode(event.arguments) + _DELTA_END
        if self._waiting and call.is_whole():
            data += self._release()
        return data

    def _is_held(self) -> bool:
        """Whether the open block must stay open: a tool call whose arguments are not whole."""
        return self._call is not None and (bool(self._waiting) or not self._call.is_whole())

    def _release(self) -> bytes:
        """What waited for the open call, which is at its end."""
        data = self._close()
        waiting, self._waiting = self._waiting, []
        return data + b"".join([self._rarely(event) for event in waiting])

    def _begin(self, kind: str, block: bytes) -> bytes:
        closing = self._close()
        self._at += 1
        self._kind = kind
        self._head = (
            b"event: content_block_delta\n"
            b'data: {"type":"content_block_delta","index":%d,"delta":{"type":%b' % (self._at, _PIECES[kind])
        )
        start = b'{"type":"content_block_start","index":%d,"content_block":%b}' % (self._at, block)
        return b"%bevent: content_block_start\ndata: %b\n\n" % (closing, start)

    def _close(self) -> bytes:
        if not self._kind:
            return b""
        self._kind = ""
        if self._call is not None:
            self._call.closed = True
            self._call = None
        return b'event: content_block_stop\ndata: {"type":"content_block_stop","index":%d}\n\n' % self._at

    # The end

    def _finish(self, reason: FinishReason) -> bytes:
        data = b""
        while self._waiting:
            data += self._release()
        if reason != "length" and (broken := next((c for c in self._calls.values() if not c.is_valid()), None)):
            raise _bad_arguments(broken.name)
        data += self._close()
        stop = _stop_reason(reason, called=bool(self._calls), refused=self._refused)
        told = self._told or estimate_usage(self._asked.turn, self._pieces)
        end: dict[str, Any] = {
            "type": "message_delta",
            "delta": {"stop_reason": stop, "stop_sequence": None},
            "usage": _usage(told),
        }
        if self._notices:
            end["notices"] = self._notices
        return b"%bevent: message_delta\ndata: %b\n\n%b" % (data, _encode(end), _STOP)


# Errors

_ERRORS: dict[type[TolmachError], str] = {
    ModelNotFound: "not_found_error",
    UnsupportedFeature: "invalid_request_error",
    AddressRefused: "api_error",
    ConfigError: "invalid_request_error",
    LocalError: "api_error",
    TimedOut: "timeout_error",
    BadRequest: "invalid_request_error",
    Refused: "permission_error",
    RateLimited: "rate_limit_error",
    AuthError: "authentication_error",
}
"""The first that fits counts; what is not here is an `api_error`."""

_OVERLOADED_STATUS = 529
_OVERLOADED_CODES = frozenset({"overloaded_error", "engine_overloaded", "upstream_rate_limited"})


class _Error(Struct):
    type: str
    message: str


def _error_fields(error: TolmachError) -> tuple[int, _Error]:
    """Status and fields of an error."""
    status = status_of(error)
    kind = next((kind for known, kind in _ERRORS.items() if isinstance(error, known)), "api_error")
    if isinstance(error, ProviderError) and error.code == "request_too_large" and error.status == 413:
        status, kind = 413, "request_too_large"
    elif status == 404:
        kind = "not_found_error"
    elif isinstance(error, ProviderUnavailable) and (
        error.status in (503, _OVERLOADED_STATUS) or error.code in _OVERLOADED_CODES
    ):
        status, kind = _OVERLOADED_STATUS, "overloaded_error"
    text = str(error).encode("utf-8", "replace").decode()
    return status, _Error(kind, text or type(error).__name__)


# The surface


class AnthropicSurface:
    """`POST /v1/messages` and `/v1/messages/count_tokens`.

    In `echo`: `dropped`, the names of what a message has no place for.
    """

    name: ClassVar[str] = "anthropic"

    def parse(self, body: bytes) -> Asked:
        request = read_request(body)
        echo = {"dropped": request.dropped} if request.dropped else {}
        return Asked(turn=request.turn, stream=request.turn.stream, echo=echo)

    def count(self, body: bytes) -> bytes:
        """The answer to `count_tokens`: an estimate, marked as one. Raises what `parse` raises."""
        return _encode({"input_tokens": estimate_prompt(read_request(body, limited=False).turn), "estimated": True})

    def whole(self, asked: Asked, events: Sequence[Event], label: Label) -> bytes:
        """The message. Raises `RemoteProtocolError` for tool calls that this API cannot write."""
        answer = _Whole(label)
        for event in events:
            answer.take(event)
        blocks = answer.blocks()
        message = _Message(
            id=f"msg_{label.id}",
            model=label.model,
            content=blocks,
            stop_reason=answer.stop_reason,
            usage=_usage(answer.told or estimate_usage(asked.turn, answer.texts())),
            notices=answer.notices or UNSET,
        )
        return _encode(message)

    def stream(self, asked: Asked, label: Label) -> MessageStream:
        return MessageStream(asked, label)

    def error(self, error: TolmachError, request_id: str) -> tuple[int, bytes]:
        status, fields = _error_fields(error)
        return status, _encode({"type": "error", "error": fields, "request_id": request_id or None})
