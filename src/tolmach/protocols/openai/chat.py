"""The OpenAI chat completions API, as OpenAI and the many compatible servers speak it.

The caller's options go into the request as they are, unknown ones too: the server judges them.
What the events cannot carry (several choices, log probabilities, audio) is refused here.

How an answer ends: `[DONE]` ends a stream. A stream whose body ends without it, as it was declared to, is whole
when `finish_reason` had come; a broken connection is an error in any case. A server may answer with one
JSON object where a stream was asked for, and the other way round.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any, ClassVar, Literal
from urllib.parse import urljoin, urlsplit

import msgspec
from msgspec import Struct

from tolmach.chat import (
    ChatRequest,
    Event,
    FinishReason,
    Image,
    Message,
    Notice,
    Part,
    ToolCallDelta,
    Usage,
)
from tolmach.decoding import ServerSentEvent, ServerSentEvents, SurrogateJoiner, convert, parse_json
from tolmach.errors import (
    ConfigError,
    ProviderUnavailable,
    RemoteProtocolError,
    UnsupportedFeature,
)
from tolmach.protocols.base import SessionState, Site
from tolmach.protocols.bodies import (
    Body,
    Revisable,
    arrival,
    clean,
    encode_json,
    json_body,
    shown,
    split_address,
)
from tolmach.protocols.model_lists import Listing
from tolmach.protocols.openai.faults import Fault, fault_error, find_fault, http_error
from tolmach.protocols.openai.models import openai_models
from tolmach.protocols.openai.watch import CompletionWatch, EmbeddingsWatch, ask_for_usage
from tolmach.protocols.passed_on import limited, read_fields, written
from tolmach.protocols.usage import chat_usage
from tolmach.wire import Call, Decoder, Handshake, Head, Limits, Request, Steps

__all__ = ["OpenAI"]

_BOM = b"\xef\xbb\xbf"

# Options whose results no event carries, with the values that ask for nothing.
_NOT_CARRIED: dict[str, tuple[Any, ...]] = {
    "n": (None, 1),
    "logprobs": (None, False),
    "top_logprobs": (None, 0),
    "audio": (None,),
}

_REASONS: dict[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "content_filter": "content_filter",
    # Other names that compatible servers use.
    "end_turn": "stop",
    "eos": "stop",
    "function_call": "tool_calls",
    "max_tokens": "length",
    "model_length": "length",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
}

_FAILURES = frozenset({"error", "insufficient_system_resource"})
"""Finish reasons (OpenRouter, DeepSeek) that say that the model broke off."""


_CHAT_PATH = "/chat/completions"


class OpenAI(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`site.url` is the base address, such as `https://api.openai.com/v1`; a query of it is kept."""

    name: ClassVar[str] = "openai"
    title: ClassVar[str] = "OpenAI chat completions and compatible servers"
    features: ClassVar[frozenset[str]] = frozenset({"*"})
    traits: ClassVar[frozenset[str]] = frozenset({"stream", "history", "system"})
    forwards: ClassVar[frozenset[str]] = frozenset({"openai", "embeddings"})
    listed_headers: ClassVar[frozenset[str]] = frozenset()

    path: str = _CHAT_PATH
    include_usage: bool = True
    """Whether to ask for the number of tokens at the end of a stream; false for servers that refuse the field."""
    max_tokens_field: Literal["", "max_tokens", "max_completion_tokens"] = ""
    """The only name that the server knows for the limit of an answer.

    Empty for `max_completion_tokens` at OpenAI's own address, whose newer models know nothing else,
    and for the name that the caller used anywhere else.
    """
    developer_role: bool = True
    """Whether the server knows the role `developer`; false sends those messages as `system`."""

    def __post_init__(self) -> None:
        if not self.path.startswith("/"):
            raise ConfigError(f"path: {self.path!r} is no path such as /chat/completions")

    def ready(self, site: Site, state: SessionState) -> bool:
        return True

    def prepare(self, site: Site, state: SessionState) -> Steps:
        yield from ()

    def open(self, site: Site, turn: ChatRequest, state: SessionState) -> Handshake:
        yield from ()
        fields = self._fields(site, turn)
        headers = {
            "accept": "text/event-stream" if turn.stream else "application/json",
            "content-type": "application/json",
        }
        if site.api_key:
            headers["authorization"] = f"Bearer {site.api_key}"
        request = Request("POST", self._url(site), headers, encode_json(fields))
        return Call(request, lambda head: _CompletionAnswer(head, state.limits, state.now))

    def forward(
        self,
        api: str,
        site: Site,
        body: bytes,
        model: str,
        state: SessionState,
        headers: Mapping[str, str] = {},
        limit: int | None = None,
    ) -> Call:
        made = {"accept": "application/json, text/event-stream", "content-type": "application/json"}
        if site.api_key:
            made["authorization"] = f"Bearer {site.api_key}"
        fields = read_fields(body)
        if api == "embeddings":
            request = Request("POST", self._embeddings_url(site), made, written(fields, model=model))
            return Call(request, lambda head: EmbeddingsWatch(head, state.limits, state.now))
        unasked = self.include_usage and ask_for_usage(fields)
        named = self.max_tokens_field or _limit_field(site.url) or "max_tokens"
        others = limited(fields, named, limit, "max_tokens", "max_completion_tokens", "n_predict")
        request = Request("POST", self._url(site), made, written(fields, model=model, **others))
        return Call(request, lambda head: CompletionWatch(head, state.limits, state.now, unasked))

    def list_models(self, site: Site, state: SessionState) -> Listing:
        url = self._models_url(site)
        return (yield from openai_models(url, site.api_key, self.reader(Request("POST", self._url(site)))))

    def reader(self, request: Request) -> Callable[[Head], Decoder] | None:
        try:
            path = urlsplit(request.url).path
        except ValueError:
            return None
        if request.method != "POST" or not path.endswith(self.path):
            return None
        return lambda head: _CompletionAnswer(head, Limits(), arrival(head))

    def _url(self, site: Site) -> str:
        return _address(site.url, site.api_endpoint, self.path)

    def _models_url(self, site: Site) -> str:
        """Models stand beside chat completions, and where those stand elsewhere below the address."""
        parts = urlsplit(self._url(site))
        if not parts.path.endswith(_CHAT_PATH):
            return _address(site.url, "", "/models")
        return parts._replace(path=parts.path.removesuffix(_CHAT_PATH) + "/models").geturl()

    def _embeddings_url(self, site: Site) -> str:
        """Embeddings stand beside chat completions. Raises `UnsupportedFeature` where those stand elsewhere."""
        parts = urlsplit(self._url(site))
        if not parts.path.endswith(_CHAT_PATH):
            raise UnsupportedFeature(
                f"{site.name}: where its embeddings are is not known, since its chat is not at {_CHAT_PATH}",
                feature="model",
            )
        return parts._replace(path=parts.path.removesuffix(_CHAT_PATH) + "/embeddings").geturl()

    def _fields(self, site: Site, turn: ChatRequest) -> dict[str, Any]:
        for name, neutral in _NOT_CARRIED.items():
            if turn.options.get(name) not in neutral:
                raise UnsupportedFeature(f"{site.name}: {name} is not carried by the events of an answer", feature=name)
        fields = dict(turn.options)
        if turn.stream and self.include_usage:
            fields.setdefault("stream_options", {"include_usage": True})
        if limit_field := self.max_tokens_field or _limit_field(site.url):
            limits = [fields.pop(name, None) for name in ("max_completion_tokens", "max_tokens")]
            if (limit := next((limit for limit in limits if limit is not None), None)) is not None:
                fields[limit_field] = limit
        if model := turn.model or site.default_model:
            fields["model"] = model
        fields["messages"] = [_message(message) for message in turn.messages]
        if not self.developer_role:
            for message in fields["messages"]:
                message["role"] = "system" if message["role"] == "developer" else message["role"]
        fields["stream"] = turn.stream
        return fields


@lru_cache(1024)
def _limit_field(url: str) -> str:
    host = split_address(url).hostname or ""
    return "max_completion_tokens" if f".{host}".endswith(".openai.com") else ""


def _message(message: Message) -> dict[str, Any]:
    """A message as the API writes it."""
    out: dict[str, Any] = {"role": message.role}
    if isinstance(message.content, str):
        out["content"] = None if message.tool_calls and not message.content else message.content
    else:
        out["content"] = [_part(part) for part in message.content]
    if message.name is not None:
        out["name"] = message.name
    if message.tool_calls:
        out["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        out["tool_call_id"] = message.tool_call_id
    return out


def _part(part: Part) -> dict[str, Any]:
    if isinstance(part, Image):
        image = {"url": part.url} if part.detail is None else {"url": part.url, "detail": part.detail}
        return {"type": "image_url", "image_url": image}
    return {"type": "text", "text": part.text}


# The answer. Only what decides its shape is typed: an odd value elsewhere does not spoil an answer.


class _Function(Struct, gc=False):
    name: Any = None
    arguments: Any = None


class _ToolCall(Struct):
    index: int | None = None
    id: Any = None
    function: _Function | None = None


class _Piece(Struct):
    content: Any = None
    reasoning_content: Any = None
    reasoning: Any = None
    refusal: Any = None
    tool_calls: list[_ToolCall] | None = None
    function_call: _Function | None = None


class _Choice(Struct):
    index: int | None = None
    delta: _Piece | None = None
    message: _Piece | None = None
    finish_reason: Any = None
    usage: Any = None
    error: Any = None


class _Chunk(Struct):
    choices: list[_Choice] | None = None
    usage: Any = None
    error: Any = None


_decode_chunk = msgspec.json.Decoder(_Chunk).decode


@lru_cache(1024)
def _address(url: str, endpoint: str, path: str) -> str:
    parts = split_address(url)
    if endpoint:
        return urljoin(url, endpoint)
    return parts._replace(path=parts.path.rstrip("/") + path, fragment="").geturl()


class _CompletionAnswer(Revisable):
    """Reads a stream of chunks, or one whole completion."""

    def __init__(self, head: Head, limits: Limits, now: Callable[[], float]) -> None:
        super().__init__(head, limits)
        self._now = now
        self._failed = not 200 <= head.status < 300
        self._body = Body(head, limits)
        streamed = head.content_type == "text/event-stream" and not self._failed
        self._events = ServerSentEvents(limits.event_bytes) if streamed else None
        self._undecided = self._events is None and not self._failed
        self._seen = False
        self._reason: str | None = None
        self._usage: Usage | None = None
        self._refusing = False
        self._tools = _ToolCalls()

    def feed(self, data: bytes) -> Iterator[Event]:
        if self.ended:
            return
        if self._events is None:
            self._body.add(data)
            if not self._undecided or not self._is_stream():
                return
            self._events = ServerSentEvents(self.limits.event_bytes)
            data = self._body.read()
        for event in self._events.feed(data):
            yield from self._event(event)
            if self.ended:
                return

    def _is_stream(self) -> bool:
        """Whether the body, whatever its type says, is a stream: the first byte of JSON or of a page is no field's."""
        start = self._body.read().lstrip()
        if _BOM.startswith(start):
            return False  # not known yet
        self._undecided = False
        return start.removeprefix(_BOM).lstrip()[:1] not in (b"{", b"[", b"<", b"")

    def close(self) -> Iterator[Event]:
        if self._failed:
            raise http_error(self.head, self._body.read(), self._now)
        if self.ended:
            return
        if self._events is None:
            yield from self._whole(self._body.read())
        elif self._reason is not None:
            yield from self._conclude()
        else:
            body = self._events.body().removeprefix(_BOM).strip()
            if not self._seen and body.startswith((b"{", b"[", b"<")):
                yield from self._whole(body)
        self.check_ended()

    # Streams

    def _event(self, event: ServerSentEvent) -> Iterator[Event]:
        self._seen = True
        data = event.data
        if data.strip() == b"[DONE]":
            yield from self._conclude()
            return
        if event.event == "error":
            self._raise_fault(data)
        try:
            chunk = _decode_chunk(data)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            # Lone surrogates and bytes that are no UTF-8 are for the slower parser.
            value = parse_json(data)
            self._check(value)
            chunk = convert(value, _Chunk)
        if chunk.error or not chunk.choices:
            self._check(parse_json(data))
        yield from self._take(chunk)

    def _raise_fault(self, data: bytes) -> None:
        try:
            fault = find_fault(parse_json(data))
        except RemoteProtocolError:
            fault = None
        raise fault_error(fault or Fault(shown(data.decode("utf-8", "replace"))), self.head, self._now())

    def _check(self, value: Any) -> None:
        if fault := find_fault(value):
            raise fault_error(fault, self.head, self._now())

    def _take(self, chunk: _Chunk) -> Iterator[Event]:
        if chunk.usage is not None:
            self._usage = chat_usage(chunk.usage) or self._usage
        for choice in chunk.choices or ():
            if choice.index:
                continue  # nobody asked for a second one
            if choice.error:
                self._check({"error": choice.error})
            piece = choice.delta or choice.message
            if piece is not None:
                content = piece.content
                if content.__class__ is str:
                    yield from self.delta(content)
                    content = None
                yield from self._further(piece, content)
            if choice.usage is not None:
                # Moonshot tells it there.
                self._usage = chat_usage(choice.usage) or self._usage
            if choice.finish_reason is not None:
                self._reason = shown(choice.finish_reason, 80)

    def _further(self, piece: _Piece, content: Any) -> Iterator[Event]:
        """What few pieces have: reasoning, parts, refusals, tool calls."""
        thought = piece.reasoning_content or piece.reasoning
        if isinstance(thought, str):
            yield from self.reasoning(thought)
        if content is not None:
            yield from self._parts(content)
        if isinstance(piece.refusal, str) and piece.refusal:
            if not self._refusing:
                self._refusing = True
                yield Notice("refusal", "the model refuses to answer; its text says why")
            yield from self.delta(piece.refusal)
        if piece.tool_calls:
            for call in piece.tool_calls:
                yield from self._tools.take(call, self.count)
        if piece.function_call is not None:
            yield from self._tools.take(_ToolCall(0, None, piece.function_call), self.count)

    def _parts(self, content: Any) -> Iterator[Event]:
        """Content as a list of parts, as Mistral writes what a model thinks."""
        if not isinstance(content, list):
            raise RemoteProtocolError(f"the content is no text: {shown(content, 80)}", status=self.head.status)
        for part in content:
            match part:
                case {"type": "text", "text": str(text)}:
                    yield from self.delta(text)
                case {"type": "thinking", "thinking": list(thoughts)}:
                    for thought in thoughts:
                        if isinstance(thought, dict) and isinstance(thought.get("text"), str):
                            yield from self.reasoning(thought["text"])

    # Whole answers

    def _whole(self, body: bytes) -> Iterator[Event]:
        value = json_body(self.head, body)
        self._check(value)
        chunk = convert(value, _Chunk)
        if not chunk.choices:
            raise RemoteProtocolError(f"an answer without choices: {shown(value)}", status=self.head.status)
        yield from self._take(chunk)
        yield from self._conclude()

    # The end

    def _conclude(self) -> Iterator[Event]:
        if self._reason in _FAILURES:
            raise ProviderUnavailable("the model broke off with an error", status=self.head.status, code="upstream")
        yield from self._tools.close()
        called = self._tools.called
        reason: FinishReason = "tool_calls" if called else "stop"
        if self._reason is not None:
            known = _REASONS.get(self._reason)
            if known is None:
                yield Notice("finish_reason", f"the service gave an unknown reason for the end: {self._reason}")
            else:
                reason = known
        if self._usage is not None:
            yield self._usage
        excused = called or self.reasoned or reason in ("length", "content_filter")
        yield from self.finish(reason, empty_ok=excused)


def _arguments(value: Any) -> str:
    """The arguments of a tool call as JSON text; some servers send the object itself."""
    if value is None or isinstance(value, str):
        return value or ""
    try:
        return json.dumps(value)
    except RecursionError as error:
        raise RemoteProtocolError("the arguments of a tool call are nested too deep") from error


class _ToolCalls:
    """The pieces of tool calls: which call each belongs to, and their text."""

    def __init__(self) -> None:
        self._joiners: dict[int, SurrogateJoiner] = {}
        self._last = -1

    @property
    def called(self) -> bool:
        return bool(self._joiners)

    def take(self, call: _ToolCall, count: Callable[[str], None]) -> Iterator[Event]:
        function = call.function or _Function()
        id = clean(call.id) if isinstance(call.id, str) and call.id else None
        name = clean(function.name) if isinstance(function.name, str) and function.name else None
        index = call.index
        if index is None or not 0 <= index < 1 << 31:
            # Servers that number nothing: a new id, or the first name, begins a new call.
            index = self._last + 1 if id is not None or self._last < 0 else self._last
        self._last = index
        joiner = self._joiners.setdefault(index, SurrogateJoiner())
        text = joiner.feed(_arguments(function.arguments))
        count(text)
        if id is not None or name is not None or text:
            yield ToolCallDelta(index, id, name, text)

    def close(self) -> Iterator[Event]:
        """What is left of characters that were never completed."""
        for index, joiner in self._joiners.items():
            if rest := joiner.close():
                yield ToolCallDelta(index, arguments=rest)
