"""The OpenAI Responses API as a target: POST /responses, as OpenAI and compatible servers speak it.

The whole conversation is sent each time, as items, and nothing is kept at the service: `store` is false
unless the caller or the site says otherwise. Functions are not strict unless the caller says so (this
API's own default is the other way round than that of chat completions).

How an answer ends: a stream with `response.completed` or `response.incomplete`, a whole one with that status.

Not carried: the items of reasoning, which a model may be given back with its calls. Who needs them speaks
this API on both sides and passes bodies through.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar
from urllib.parse import urljoin, urlsplit

import msgspec
from msgspec import Struct

from tolmach.chat import ChatRequest, Done, Event, FinishReason, Image, Message, Notice, Part, Usage
from tolmach.decoding import ServerSentEvent, convert, parse_json
from tolmach.errors import ConfigError, ProviderError, RemoteProtocolError
from tolmach.protocols.api_answer import Direct, EventsAnswer, json_text_of, piece
from tolmach.protocols.base import SessionState, Site
from tolmach.protocols.bodies import arrival, encode_json, json_body, shown, split_address
from tolmach.protocols.model_lists import Listing
from tolmach.protocols.openai.faults import Fault, fault_error, find_fault
from tolmach.protocols.openai.models import openai_models
from tolmach.protocols.options import (
    SHARED_FEATURES,
    ToolChoice,
    function_tools,
    json_output,
    max_tokens,
    name_notices,
    renamed,
    tool_choice,
    unsupported,
)
from tolmach.protocols.passed_on import limited, read_fields, written
from tolmach.protocols.usage import count, counted, share
from tolmach.wire import Call, Decoder, Handshake, Head, Limits, Request

__all__ = ["OpenAIResponses"]

_AS_THEY_ARE = {
    name: name
    for name in (
        "temperature",
        "top_p",
        "parallel_tool_calls",
        "user",
        "metadata",
        "service_tier",
        "safety_identifier",
        "prompt_cache_key",
        "store",
    )
}


class OpenAIResponses(Direct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`site.url` is the base address, such as `https://api.openai.com/v1`; a query of it is kept."""

    name: ClassVar[str] = "openai-responses"
    title: ClassVar[str] = "OpenAI Responses and compatible servers"
    features: ClassVar[frozenset[str]] = (SHARED_FEATURES | set(_AS_THEY_ARE)) | {"verbosity"}
    traits: ClassVar[frozenset[str]] = frozenset({"stream", "history", "system"})
    forwards: ClassVar[frozenset[str]] = frozenset({"responses"})
    listed_headers: ClassVar[frozenset[str]] = frozenset()

    path: str = "/responses"
    store: bool = False
    """Whether the service may keep the answer, when the caller does not say."""
    summary: str = ""
    """The summary of the model's reasoning to ask for, such as `auto`; empty for none."""

    def __post_init__(self) -> None:
        if not self.path.startswith("/"):
            raise ConfigError(f"path: {self.path!r} is no path such as /responses")

    def open(self, site: Site, turn: ChatRequest, state: SessionState) -> Handshake:
        yield from ()
        notices = name_notices(turn.messages, site.name)
        headers = {
            "accept": "text/event-stream" if turn.stream else "application/json",
            "content-type": "application/json",
        }
        if site.api_key:
            headers["authorization"] = f"Bearer {site.api_key}"
        request = Request("POST", self._url(site), headers, encode_json(self._fields(site, turn)))

        def make_id() -> str:
            return f"call_{state.random_hex(24)}"

        return Call(request, lambda head: _ResponseAnswer(head, state.limits, state.now, make_id, notices))

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
        others = limited(fields, "max_output_tokens", limit)
        request = Request("POST", self._url(site), made, written(fields, model=model, **others))
        return Call(request, lambda head: _ResponseWatch(head, state.limits, state.now))

    def list_models(self, site: Site, state: SessionState) -> Listing:
        parts = split_address(site.url)
        url = parts._replace(path=parts.path.rstrip("/") + "/models", fragment="").geturl()
        return (yield from openai_models(url, site.api_key, self.reader(Request("POST", self._url(site)))))

    def reader(self, request: Request) -> Callable[[Head], Decoder] | None:
        try:
            path = urlsplit(request.url).path
        except ValueError:
            return None
        if request.method != "POST" or not path.endswith(self.path):
            return None
        return lambda head: _ResponseAnswer(head, Limits(), arrival(head), lambda: "call_0")

    def _url(self, site: Site) -> str:
        parts = split_address(site.url)
        if site.api_endpoint:
            return urljoin(site.url, site.api_endpoint)
        return parts._replace(path=parts.path.rstrip("/") + self.path, fragment="").geturl()

    def _fields(self, site: Site, turn: ChatRequest) -> dict[str, Any]:
        who, options = site.name, turn.options
        fields: dict[str, Any] = {
            "input": [item for message in turn.messages for item in _items(message, who)],
            "stream": turn.stream,
            "store": self.store,
            **renamed(options, _AS_THEY_ARE),
        }
        if model := turn.model or site.default_model:
            fields["model"] = model
        if (limit := max_tokens(options)) is not None:
            fields["max_output_tokens"] = limit
        reasoning = renamed(options, {"reasoning_effort": "effort"})
        if self.summary:
            reasoning["summary"] = self.summary
        if reasoning:
            fields["reasoning"] = reasoning
        text = renamed(options, {"verbosity": "verbosity"})
        if (form := _format(options, who)) is not None:
            text["format"] = form
        if text:
            fields["text"] = text
        return fields | _tool_fields(options, who)


def _format(options: dict[str, Any], who: str) -> dict[str, Any] | None:
    form = json_output(options, who)
    if form is None:
        return None
    if form.schema is None:
        return {"type": "json_object"}
    made: dict[str, Any] = {"type": "json_schema", "name": form.name, "schema": form.schema}
    if form.description is not None:
        made["description"] = form.description
    if form.strict is not None:
        made["strict"] = form.strict
    return made


def _tool_fields(options: dict[str, Any], who: str) -> dict[str, Any]:
    tools = function_tools(options, who)
    if not tools:
        return {}
    made = []
    for tool in tools:
        function: dict[str, Any] = {"type": "function", "name": tool.name}
        if tool.description is not None:
            function["description"] = tool.description
        function["parameters"] = tool.parameters or {"type": "object", "properties": {}}
        function["strict"] = tool.strict is True
        made.append(function)
    fields: dict[str, Any] = {"tools": made}
    if (choice := tool_choice(options, who)) is not None:
        fields["tool_choice"] = _choice(choice)
    return fields


def _choice(choice: ToolChoice) -> Any:
    if not choice.names:
        return choice.mode
    named = [{"type": "function", "name": name} for name in choice.names]
    if len(named) == 1 and choice.mode == "required":
        return named[0]
    return {"type": "allowed_tools", "mode": choice.mode, "tools": named}


def _items(message: Message, who: str) -> Iterator[dict[str, Any]]:
    """A message as the items of the input; calls and their results are items of their own."""
    if message.role == "tool":
        if not message.tool_call_id:
            raise ConfigError("a message of the role tool needs the tool_call_id of the call that it answers")
        content = message.content if isinstance(message.content, str) else [_part(part) for part in message.content]
        yield {"type": "function_call_output", "call_id": message.tool_call_id, "output": content}
        return
    if message.role not in ("system", "developer", "user", "assistant"):
        raise unsupported(who, message.role, f"messages of the role {message.role!r}")
    if message.role == "assistant":
        if message.text:
            yield {"role": "assistant", "content": message.text}
    elif isinstance(message.content, str):
        yield {"role": message.role, "content": message.content}
    else:
        yield {"role": message.role, "content": [_part(part) for part in message.content]}
    for call in message.tool_calls:
        yield {"type": "function_call", "call_id": call.id, "name": call.name, "arguments": call.arguments or "{}"}


def _part(part: Part) -> dict[str, Any]:
    if isinstance(part, Image):
        return {"type": "input_image", "image_url": part.url, "detail": part.detail or "auto"}
    return {"type": "input_text", "text": part.text}


# The answer


class _Event(Struct):
    type: Any = None
    delta: Any = None
    output_index: int | None = None
    item_id: Any = None
    item: Any = None
    summary_index: Any = None
    response: Any = None


_decode_event = msgspec.json.Decoder(_Event).decode


class _Faulty(EventsAnswer):
    """How all answers of this API tell errors, and how they end."""

    def fault(self, value: Any) -> ProviderError | None:
        found = find_fault(value)
        return None if found is None else fault_error(found, self.head, self.now())

    def failed(self, text: str) -> ProviderError:
        return fault_error(Fault(text), self.head, self.now())

    def failure(self, value: Any, otherwise: str = "") -> ProviderError:
        """The error that an event or a response is, whatever it says."""
        return self.fault(value) or self.failed(otherwise or shown(value))

    def ending(self, response: Any) -> tuple[str, Usage | None]:
        """Why the response ended, and its tokens. Raises for one that failed, or that is none."""
        if not isinstance(response, dict) or not isinstance(response.get("status"), str):
            raise RemoteProtocolError(f"an answer without a response: {shown(response)}", status=self.head.status)
        usage = _usage(response.get("usage"))
        match response:
            case {"status": "completed"}:
                return "completed", usage
            case {"status": "incomplete", "incomplete_details": {"reason": str(reason)}}:
                return reason, usage
            case {"status": "incomplete"}:
                return "incomplete", usage
        raise self.failure(response, f"the response ended as {shown(response['status'], 40)}")


class _ResponseAnswer(_Faulty):
    """Reads a stream of events, or one whole response."""

    reasons: ClassVar[dict[str, FinishReason]] = {
        "completed": "stop",
        "max_output_tokens": "length",
        "content_filter": "content_filter",
    }

    def __init__(
        self,
        head: Head,
        limits: Limits,
        now: Callable[[], float],
        make_id: Callable[[], str],
        notices: tuple[Notice, ...] = (),
    ) -> None:
        super().__init__(head, limits, now, make_id, notices)
        self._spoken: set[Any] = set()
        self._summary: Any = 0
        self._refusing = False

    # Streams

    def event(self, event: ServerSentEvent) -> Iterator[Event]:
        try:
            told = _decode_event(event.data)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            if event.data.strip() == b"[DONE]":
                return  # some servers end with it; it says nothing about the response
            told = convert(parse_json(event.data), _Event)
        key = told.output_index if told.output_index is not None else shown(told.item_id, 80)
        match told.type, told.delta:
            case "response.output_text.delta", str(text):
                self._spoken.add(key)
                yield from self.delta(text)
            case "response.function_call_arguments.delta", str(text):
                if key in self.tools:
                    yield from self.tools.add(key, text)
            case "response.reasoning_summary_text.delta" | "response.reasoning_text.delta", str(text):
                if told.summary_index != self._summary and told.summary_index is not None:
                    self._summary = told.summary_index
                    text = f"\n\n{text}"
                self._spoken.add(key)
                yield from self.reasoning(text)
            case "response.refusal.delta", str(text):
                self._spoken.add(key)
                yield from self._refuse(text)
            case "response.output_item.added", _:
                yield from self._start(key, told.item)
            case "response.output_item.done", _:
                yield from self._item(key, told.item)
            case "response.completed" | "response.incomplete" | "response.failed", _:
                yield from self._end(told.response)
            case "error", _:
                raise self.failure(parse_json(event.data))
            case None, _:
                # An error without a type, as some servers send it.
                if (error := self.fault(parse_json(event.data))) is not None:
                    raise error

    def _start(self, key: Any, item: Any) -> Iterator[Event]:
        match item:
            case {"type": "function_call"} if key not in self.tools:
                yield from self.tools.start(key, item.get("call_id"), item.get("name"))

    def _item(self, key: Any, item: Any) -> Iterator[Event]:
        """A whole item: what of it did not come in pieces."""
        yield from self._start(key, item)
        match item:
            case {"type": "function_call"}:
                yield from self.tools.end(key, item.get("arguments"))
            case {"type": "message", "content": list(parts)} if key not in self._spoken:
                self._spoken.add(key)
                for part in parts:
                    yield from self._part(part)
            case {"type": "reasoning"} if key not in self._spoken:
                self._spoken.add(key)
                for parts in (item.get("summary"), item.get("content")):
                    for part in parts if isinstance(parts, list) else ():
                        yield from self._summary_part(part)

    def _part(self, part: Any) -> Iterator[Event]:
        match part:
            case {"type": "output_text", "text": str(text)}:
                yield from self.delta(text)
            case {"type": "refusal", "refusal": str(text)}:
                yield from self._refuse(text)

    def _summary_part(self, part: Any) -> Iterator[Event]:
        match part:
            case {"text": str(text)}:
                yield from self.reasoning(f"\n\n{text}" if self.reasoned else text)

    def _refuse(self, text: str) -> Iterator[Event]:
        if text and not self._refusing:
            self._refusing = True
            yield Notice("refusal", "the model refuses to answer; its text says why")
        yield from self.delta(text)

    # Whole answers

    def whole(self, body: bytes) -> Iterator[Event]:
        value = json_body(self.head, body)
        if (error := self.fault(value)) is not None:
            raise error
        yield from self._end(value)

    def _end(self, response: Any) -> Iterator[Event]:
        """The end, by the response as it then is."""
        output = response.get("output") if isinstance(response, dict) else None
        for index, item in enumerate(output if isinstance(output, list) else ()):
            yield from self._item(index, item)
        yield from self.conclude(*self.ending(response))


# An answer that is passed on


class _Seen(Struct):
    type: Any = None
    delta: Any = None
    response: Any = None


_decode_seen = msgspec.json.Decoder(_Seen).decode
_ENDS = frozenset({"response.completed", "response.incomplete", "response.failed"})


class _ResponseWatch(_Faulty):
    """Reads a response that is passed on as it is: its events say only that something came, what it cost, its end.

    The output is not looked at, so that items that nobody here knows go through. A response that goes on in the
    background (`queued`, `in_progress`) is passed on as well.
    """

    def __init__(self, head: Head, limits: Limits, now: Callable[[], float]) -> None:
        super().__init__(head, limits, now, lambda: "")

    def event(self, event: ServerSentEvent) -> Iterator[Event]:
        if event.data.strip() == b"[DONE]":
            return
        try:
            seen = _decode_seen(event.data)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            seen = convert(parse_json(event.data), _Seen)
        if not isinstance(seen.type, str) or seen.type == "error":
            raise self.failure(parse_json(event.data))
        if seen.type in _ENDS:
            yield from self._end(seen.response)
        elif seen.type.endswith(".delta"):
            yield piece(seen.delta)

    def whole(self, body: bytes) -> Iterator[Event]:
        value = json_body(self.head, body)
        if (error := self.fault(value)) is not None:
            raise error
        if isinstance(value, dict) and value.get("status") in ("queued", "in_progress"):
            self.ended = True
            yield Done("stop")
            return
        if self.ending(value)[1] is None:
            yield piece(json_text_of(value.get("output")))
        yield from self._end(value)

    def _end(self, response: Any) -> Iterator[Event]:
        _, usage = self.ending(response)
        if usage is not None:
            yield usage
        self.ended = True
        yield Done("stop")


def _usage(value: Any) -> Usage | None:
    if not isinstance(value, dict):
        return None
    return counted(
        count(value.get("input_tokens")),
        count(value.get("output_tokens")),
        total=count(value.get("total_tokens")),
        cached=share(value, "input_tokens_details", "cached_tokens"),
        reasoning=share(value, "output_tokens_details", "reasoning_tokens"),
    )
