"""The OpenAI chat completions API, as callers see it.

Fields of a request that are not known here become options by their names: the target judges them.
What an answer's events cannot say in this API stands in `notices` beside what callers expect.
Followed: OpenAI's API reference and the models of its Python package.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import msgspec
from msgspec import UNSET, Struct, UnsetType

from tolmach.chat import (
    ChatRequest,
    Delta,
    Done,
    Event,
    FinishReason,
    Message,
    Notice,
    Reasoning,
    ToolCallDelta,
    Usage,
    parse_messages,
)
from tolmach.errors import ConfigError, TolmachError, UnsupportedFeature
from tolmach.gateway.answers.estimate import answer_texts, estimate_usage
from tolmach.gateway.status import status_of
from tolmach.gateway.surfaces.base import Asked, Label
from tolmach.gateway.surfaces.bodies import check_shape, read_object, wrong
from tolmach.gateway.surfaces.openai_errors import error_body

__all__ = ["ChatStream", "OpenAISurface", "SeveralStreams"]

# The request


class _Function(Struct):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class _Tool(Struct):
    type: str
    function: _Function | None = None


class _Body(Struct, kw_only=True):
    """The fields whose shape is checked here; whether a value is in range the target says."""

    model: str
    messages: list[dict[str, Any]]
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    n: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    logit_bias: dict[str, float] | None = None
    tools: list[_Tool] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    functions: list[_Function] | None = None
    function_call: str | dict[str, Any] | None = None
    response_format: dict[str, Any] | None = None
    modalities: list[str] | None = None
    reasoning_effort: str | None = None
    metadata: dict[str, Any] | None = None
    store: bool | None = None
    user: str | None = None


_NO_OPTIONS = frozenset({"model", "messages", "stream", "stream_options"})
_MAX_ANSWERS = 128
_ROLES = frozenset({"developer", "system", "user", "assistant", "tool", "function"})
_CARRIED = frozenset({"role", "content", "name", "tool_calls", "tool_call_id"})
_PART_FIELDS = frozenset({"type", "text", "image_url"})
_HINTS = frozenset({"cache_control", "prompt_cache_breakpoint"})
"""Hints about price, not about the answer: passed over."""


def _check_options(body: _Body) -> None:
    if not body.model:
        raise wrong("model", "the name of a model is needed")
    if not body.messages:
        raise wrong("messages", "at least one message is needed")
    if body.n is not None and not 1 <= body.n <= _MAX_ANSWERS:
        raise wrong("n", f"a number from 1 to {_MAX_ANSWERS}")
    for i, tool in enumerate(body.tools or ()):
        if tool.type == "function" and (tool.function is None or not tool.function.name):
            raise wrong(f"tools[{i}].function.name", "it is required", "missing_required_parameter")
    if body.response_format is not None and not isinstance(body.response_format.get("type"), str):
        raise wrong("response_format.type", "text, json_object or json_schema")
    if body.stream_options is not None and not isinstance(body.stream_options.get("include_usage"), bool | None):
        raise wrong("stream_options.include_usage", "true or false")


def _messages(raw: list[dict[str, Any]], dropped: list[str]) -> tuple[Message, ...]:
    """The messages as values. What `Message` has no place for is named in `dropped`."""
    checked = [_checked(message, f"messages[{i}]", dropped) for i, message in enumerate(raw)]
    try:
        return parse_messages(checked)
    except ConfigError as error:
        place, _, text = str(error).partition(": ")
        raise wrong(place, text) from error


def _checked(message: dict[str, Any], where: str, dropped: list[str]) -> dict[str, Any]:
    role, content = message.get("role"), message.get("content")
    if not isinstance(role, str) or role not in _ROLES:
        raise wrong(f"{where}.role", f"one of {', '.join(sorted(_ROLES))}")
    if content is None and role != "assistant":
        raise wrong(f"{where}.content", "text or a list of parts", "missing_required_parameter")
    if not isinstance(message.get("name"), str | None):
        raise wrong(f"{where}.name", "a text")
    if role == "tool" and not isinstance(message.get("tool_call_id"), str):
        raise wrong(f"{where}.tool_call_id", "the id of the call that this answers", "missing_required_parameter")
    if message.keys() - _CARRIED:
        message = _without_extras(message, where, dropped)
    if isinstance(content, list):
        message = {**message, "content": _parts(content, f"{where}.content", dropped)}
    return message


def _without_extras(message: dict[str, Any], where: str, dropped: list[str]) -> dict[str, Any]:
    kept = {name: value for name, value in message.items() if name in _CARRIED}
    for name, value in message.items():
        if name in _CARRIED or name in _HINTS or value is None or value in ("", [], {}):
            continue
        if name == "function_call":
            text = f"{where}.function_call: write it as tool_calls, and the function's result as a tool message"
            raise UnsupportedFeature(text, feature="function_call")
        if name == "refusal" and isinstance(value, str) and not message.get("content"):
            kept["content"] = value
        else:
            dropped.append(f"{where}.{name}")
    return kept


def _parts(content: list[Any], where: str, dropped: list[str]) -> list[Any]:
    """The parts, a refusal among them as text."""
    parts = []
    for i, part in enumerate(content):
        match part:
            case {"type": "refusal", "refusal": str(text)}:
                parts.append({"type": "text", "text": text})
                continue
            case {"type": "text" | "image_url"}:
                extra = part.keys() - _PART_FIELDS - _HINTS
                dropped.extend(f"{where}[{i}].{name}" for name in sorted(extra) if part[name] is not None)
        parts.append(part)
    return parts


# The answer


class _CalledFunction(Struct):
    name: str
    arguments: str


class _ToolCall(Struct):
    id: str
    function: _CalledFunction
    type: str = "function"


class _Message(Struct, kw_only=True):
    role: str = "assistant"
    content: str | None
    refusal: str | None
    reasoning_content: str | UnsetType = UNSET
    tool_calls: list[_ToolCall] | UnsetType = UNSET


class _Choice(Struct):
    index: int
    message: _Message
    logprobs: None
    finish_reason: FinishReason


class _PromptDetails(Struct):
    cached_tokens: int


class _CompletionDetails(Struct):
    reasoning_tokens: int


class _Usage(Struct):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: _PromptDetails
    completion_tokens_details: _CompletionDetails
    estimated: bool | UnsetType = UNSET


class _Notice(Struct):
    kind: str
    text: str


class _Completion(Struct, kw_only=True):
    id: str
    object: str = "chat.completion"
    created: int
    model: str
    choices: list[_Choice]
    usage: _Usage
    system_fingerprint: None = None
    notices: list[_Notice] | UnsetType = UNSET


_encode = msgspec.json.Encoder().encode


def _summed(usages: Sequence[Usage]) -> _Usage:
    estimated = any(usage.estimated for usage in usages)
    return _Usage(
        sum(usage.prompt_tokens for usage in usages),
        sum(usage.completion_tokens for usage in usages),
        sum(usage.total_tokens for usage in usages),
        _PromptDetails(sum(usage.cached_tokens for usage in usages)),
        _CompletionDetails(sum(usage.reasoning_tokens for usage in usages)),
        True if estimated else UNSET,
    )


class _Whole:
    """One answer, collected."""

    def __init__(self, asked: Asked, events: Sequence[Event], label: Label) -> None:
        self._turn = asked.turn
        self._label = label
        self._said = answer_texts(events)
        self._text: list[str] = []
        self._refusal: list[str] = []
        self._thoughts: list[str] = []
        self._calls: dict[int, _ToolCall] = {}
        self._told: Usage | None = None
        self._reason: FinishReason = "stop"
        self._refusing = False
        self.notices: list[_Notice] = []
        for event in events:
            self._take(event)

    def _take(self, event: Event) -> None:
        match event:
            case Delta(text):
                (self._refusal if self._refusing else self._text).append(text)
            case Reasoning(text):
                self._thoughts.append(text)
            case ToolCallDelta(index, id, name, arguments):
                made = f"call_{self._label.id}{index}"
                call = self._calls.setdefault(index, _ToolCall(id or made, _CalledFunction("", "")))
                call.function.name = call.function.name or name or ""
                call.function.arguments += arguments
            case Usage():
                self._told = event
            case Notice("refusal"):
                self._refusing = True
            case Notice("rewritten", whole):
                self._text = [whole]
            case Notice(kind, text):
                self.notices.append(_Notice(kind, text))
            case Done(reason):
                self._reason = reason

    @property
    def usage(self) -> Usage:
        return self._told or estimate_usage(self._turn, self._said)

    def choice(self, index: int) -> _Choice:
        text = "".join(self._text)
        message = _Message(
            content=text if text or not (self._calls or self._refusing) else None,
            refusal="".join(self._refusal) if self._refusing else None,
            reasoning_content="".join(self._thoughts) if self._thoughts else UNSET,
            tool_calls=[self._calls[at] for at in sorted(self._calls)] if self._calls else UNSET,
        )
        return _Choice(index, message, None, self._reason)


# The stream

_DONE = b"data: [DONE]\n\n"
_KEEP_ALIVE = b": keep-alive\n\n"


class ChatStream:
    """One choice as chunks. What is the same in all chunks of one kind is encoded once.

    With `last` false another choice is still to come, and its end brings usage and end mark.
    """

    end_mark: ClassVar[bytes] = _DONE

    def __init__(self, asked: Asked, label: Label, *, index: int = 0, last: bool = True) -> None:
        self._asked = asked
        self._label = label
        self._last = last
        self._wants_usage: bool = asked.echo.get("include_usage") is True
        self._pieces: list[str] | None = [] if self._wants_usage else None
        self._told: Usage | None = None
        self._notices: list[_Notice] = []
        self._calls: dict[int, list[bool]] = {}
        self._begun = False
        head = _encode({"id": f"chatcmpl-{label.id}", "object": "chat.completion.chunk", "created": label.created})
        more = _encode({"model": label.model, "system_fingerprint": None})
        self._head = b"data: %b,%b" % (head[:-1], more[1:-1])
        self._choice = b'%b,"choices":[{"index":%d,"delta":' % (self._head, index)
        usage = b',"usage":null' if self._wants_usage else b""
        self._tail = b',"logprobs":null,"finish_reason":null}]%b}\n\n' % usage
        self._text = self._choice + b'{"content":'
        self._end = b"}" + self._tail

    def open(self) -> bytes:
        return b""

    def feed(self, event: Event) -> bytes:
        if event.__class__ is Delta and self._begun:
            text: str = event.text
            if self._pieces is not None:
                self._pieces.append(text)
            return self._text + _encode(text) + self._end
        return self._rarely(event)

    def _rarely(self, event: Event) -> bytes:
        match event:
            case Delta():
                return self._begin(b'""') + self.feed(event)
            case Reasoning(text):
                self._count(text)
                return self._begin(b'""') + self._chunk({"reasoning_content": text})
            case ToolCallDelta():
                return self._begin(b"null") + self._call(event)
            case Usage():
                self._told = event
            case Notice("refusal"):
                self._text = self._choice + b'{"refusal":'
                return self._begin(b"null")
            case Notice(kind, text):
                self._notices.append(_Notice(kind, text))
            case Done(reason):
                return self._begin(b'""') + self._finish(reason)
        return b""

    def _begin(self, content: bytes) -> bytes:
        """The first chunk, which says whose the message is; nothing once it was sent."""
        if self._begun:
            return b""
        self._begun = True
        return b'%b{"role":"assistant","content":%b,"refusal":null%b' % (self._choice, content, self._end)

    def _chunk(self, delta: dict[str, Any]) -> bytes:
        return self._choice + _encode(delta) + self._tail

    def _count(self, text: str) -> None:
        if self._pieces is not None:
            self._pieces.append(text)

    def _call(self, event: ToolCallDelta) -> bytes:
        """A piece of a call. Id and name go out once: readers put the pieces of each field together."""
        known = event.index in self._calls
        named = self._calls.setdefault(event.index, [False])
        function = {"arguments": event.arguments}
        if event.name and not named[0]:
            named[0] = True
            function = {"name": event.name, **function}
        self._count(function.get("name", "") + event.arguments)
        at = list(self._calls).index(event.index)  # services count from where they like; readers want 0, 1, 2
        call: dict[str, Any] = {"index": at}
        if not known:
            call["id"] = event.id or f"call_{self._label.id}{event.index}"
            call["type"] = "function"
        return self._chunk({"tool_calls": [{**call, "function": function}]})

    def _finish(self, reason: FinishReason) -> bytes:
        tail = self._tail.replace(b'"finish_reason":null', b'"finish_reason":%b' % _encode(reason))
        if self._notices:
            tail = b'%b,"notices":%b}\n\n' % (tail[:-3], _encode(self._notices))
        finish = self._choice + b"{}" + tail
        return finish + self.ending([self.usage] if self._wants_usage else []) if self._last else finish

    @property
    def usage(self) -> Usage:
        """The tokens as the service counted them, else an estimate; of use after `Done`, when usage was asked for."""
        return self._told or estimate_usage(self._asked.turn, self._pieces or ())

    def ending(self, usages: Sequence[Usage]) -> bytes:
        """What stands after the last finished choice: the usage where there is one to tell, and the end mark."""
        if not usages:
            return _DONE
        return b'%b,"choices":[],"usage":%b}\n\n%b' % (self._head, _encode(_summed(usages)), _DONE)

    def fail(self, error: TolmachError) -> bytes:
        return b"data: %b\n\n" % error_body(error)

    def keep_alive(self) -> bytes:
        return _KEEP_ALIVE


class SeveralStreams:
    """Several answers to one question as one stream: the choices come in any order, each told by its index.

    The stream ends when all have ended; its usage is the sum of what was spent on all of them.
    """

    end_mark: ClassVar[bytes] = _DONE

    def __init__(self, asked: Asked, label: Label, n: int) -> None:
        self._choices = [ChatStream(asked, label, index=index, last=False) for index in range(n)]
        self._open = set(range(n))
        self._wants_usage = asked.echo.get("include_usage") is True

    def open(self) -> bytes:
        return b""

    @property
    def ended(self) -> bool:
        """Whether all have ended."""
        return not self._open

    def feed(self, index: int, event: Event) -> bytes:
        """The event of the answer with this index."""
        data = self._choices[index].feed(event)
        if event.__class__ is Done:
            self._open.discard(index)
            if not self._open:
                usages = [choice.usage for choice in self._choices] if self._wants_usage else []
                data += self._choices[0].ending(usages)
        return data

    def fail(self, error: TolmachError) -> bytes:
        """An error of any of them, which ends the whole stream."""
        return self._choices[0].fail(error)

    def keep_alive(self) -> bytes:
        return _KEEP_ALIVE


# The surface


class OpenAISurface:
    """`POST /v1/chat/completions`.

    In `echo`: `include_usage`, `n` (how many answers are asked for; it is an option too), and
    `dropped`, the names of the messages' fields that a `Message` does not carry.
    """

    name: ClassVar[str] = "openai"

    def parse(self, body: bytes) -> Asked:
        value = read_object(body)
        fields = check_shape(value, _Body)
        _check_options(fields)
        dropped: list[str] = []
        messages = _messages(fields.messages, dropped)
        options = {name: item for name, item in value.items() if item is not None and name not in _NO_OPTIONS}
        streaming = fields.stream_options or {}
        # Obfuscation pads a service's own chunks; those that go out here are made here.
        further = {k: v for k, v in streaming.items() if k not in ("include_usage", "include_obfuscation")}
        if further:
            options["stream_options"] = {"include_usage": True, **further}
        stream = fields.stream is True
        echo: dict[str, Any] = {"include_usage": streaming.get("include_usage") is True, "n": fields.n or 1}
        if dropped:
            echo["dropped"] = tuple(dropped)
        turn = ChatRequest(messages=messages, model=fields.model, stream=stream, options=options)
        return Asked(turn=turn, stream=stream, echo=echo)

    def whole(self, asked: Asked, events: Sequence[Event], label: Label) -> bytes:
        return self.whole_of_several(asked, [events], label)

    def whole_of_several(self, asked: Asked, answers: Sequence[Sequence[Event]], label: Label) -> bytes:
        """The body for several answers to one question: one choice each, and the usage of all of them."""
        collected = [_Whole(asked, events, label) for events in answers]
        notices = [notice for answer in collected for notice in answer.notices]
        completion = _Completion(
            id=f"chatcmpl-{label.id}",
            created=label.created,
            model=label.model,
            choices=[answer.choice(index) for index, answer in enumerate(collected)],
            usage=_summed([answer.usage for answer in collected]),
            notices=notices or UNSET,
        )
        return _encode(completion)

    def stream(self, asked: Asked, label: Label) -> ChatStream:
        return ChatStream(asked, label)

    def streams(self, asked: Asked, label: Label, n: int) -> SeveralStreams:
        """The encoder for `n` answers, where the target was asked for them one by one."""
        return SeveralStreams(asked, label, n)

    def error(self, error: TolmachError, request_id: str) -> tuple[int, bytes]:
        return status_of(error), error_body(error, request_id)
