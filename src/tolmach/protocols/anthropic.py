"""The Anthropic Messages API, versions 2023-06-01 and 2026-10-21, as Anthropic and compatible servers speak it.

What is asked: `max_tokens` is a field that the API cannot do without; the protocol's option stands in
for a caller who names none. All system messages go into `system`, wherever they stood, since only some
models take them between the others. Turns of one role that follow each other become one.

How an answer ends: a stream with `message_stop`, or with its body once its `stop_reason` has come; a whole one with
its `stop_reason`.

Not carried: the signatures of thinking, and redacted thinking. A conversation with tools and
`thinking` of type `enabled` needs them back in the next turn and is refused by the API without them;
adaptive thinking does without. Who needs them speaks this API on both sides and passes bodies through.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar
from urllib.parse import quote, urljoin, urlsplit

import msgspec
from msgspec import Struct

from tolmach.chat import ChatRequest, Done, Event, FinishReason, Image, Message, Notice, Part, Usage
from tolmach.decoding import ServerSentEvent, convert, parse_json
from tolmach.errors import (
    AuthError,
    BadRequest,
    ConfigError,
    ContextTooLong,
    ProviderError,
    ProviderUnavailable,
    RateLimited,
    Refused,
    RemoteProtocolError,
)
from tolmach.protocols.api_answer import Direct, EventsAnswer, FaultTable, json_text_of, piece, words
from tolmach.protocols.base import SessionState, Site
from tolmach.protocols.bodies import arrival, encode_json, json_body, shown, split_address
from tolmach.protocols.model_lists import ListedModel, Listing, listed, models_of, seconds_of, text_of
from tolmach.protocols.options import (
    SHARED_FEATURES,
    ToolChoice,
    data_image,
    function_tools,
    json_output,
    max_tokens,
    name_notices,
    renamed,
    stop_sequences,
    system_text,
    tool_choice,
    tool_input,
    unsupported,
)
from tolmach.protocols.passed_on import limited, read_fields, written
from tolmach.protocols.usage import count, counted, share
from tolmach.wire import Call, Decoder, Handshake, Head, Limits, Request

__all__ = ["Anthropic"]

_SAMPLING = {"temperature": "temperature", "top_p": "top_p", "top_k": "top_k"}
_WITHOUT_SAMPLING = "2026-10-21"
_EFFORTS = frozenset({"low", "medium", "high", "xhigh", "max"})
_PICTURES = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp"})


class Anthropic(Direct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`site.url` is the base address, `https://api.anthropic.com` with or without `/v1`; a query of it is kept."""

    name: ClassVar[str] = "anthropic"
    title: ClassVar[str] = "Anthropic Messages and compatible servers"
    features: ClassVar[frozenset[str]] = SHARED_FEATURES | {"parallel_tool_calls", "stop", "thinking", "top_k", "user"}
    traits: ClassVar[frozenset[str]] = frozenset({"stream", "history", "system"})
    forwards: ClassVar[frozenset[str]] = frozenset({"anthropic", "anthropic/count_tokens"})
    listed_headers: ClassVar[frozenset[str]] = frozenset({"anthropic-beta", "anthropic-version"})

    path: str = "/v1/messages"
    version: str = "2023-06-01"
    """The `anthropic-version` to ask for. From 2026-10-21 on there is no `temperature`, `top_p` and `top_k`."""
    beta: tuple[str, ...] = ()
    """What to send as `anthropic-beta`."""
    max_tokens: int = 4096
    """The limit of an answer, in tokens, when the caller names none."""

    def __post_init__(self) -> None:
        if not self.path.startswith("/"):
            raise ConfigError(f"path: {self.path!r} is no path such as /v1/messages")
        if self.max_tokens < 1:
            raise ConfigError(f"max_tokens: at least 1, not {self.max_tokens}")

    def open(self, site: Site, turn: ChatRequest, state: SessionState) -> Handshake:
        yield from ()
        notices = name_notices(turn.messages, site.name)
        headers = self._headers(site, "text/event-stream" if turn.stream else "application/json")
        request = Request("POST", self._url(site), headers, encode_json(self._fields(site, turn)))

        def make_id() -> str:
            return f"toolu_{state.random_hex(24)}"

        return Call(request, lambda head: _MessageAnswer(head, state.limits, state.now, make_id, notices))

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
        made = self._headers(site, "application/json, text/event-stream")
        if version := headers.get("anthropic-version"):
            made["anthropic-version"] = version  # the body is written for this one
        if betas := _listed(*self.beta, headers.get("anthropic-beta", "")):
            made["anthropic-beta"] = betas
        url = self._url(site)
        watch: type[_MessageWatch | _CountWatch] = _MessageWatch
        if api != "anthropic":
            parts = urlsplit(url)
            url, watch = parts._replace(path=f"{parts.path}/count_tokens").geturl(), _CountWatch
        fields = read_fields(body)
        others = limited(fields, "max_tokens", limit) if watch is _MessageWatch else {}
        request = Request("POST", url, made, written(fields, model=model, **others))
        return Call(request, lambda head: watch(head, state.limits, state.now))

    def list_models(self, site: Site, state: SessionState) -> Listing:
        url = self._url(site)
        parts = urlsplit(url)
        path = parts.path.removesuffix("/messages") + "/models"
        found: list[ListedModel] = []
        after = ""
        while True:
            query = "&".join(filter(None, (parts.query, "limit=1000", after and f"after_id={quote(after)}")))
            headers = self._headers(site, "application/json")
            response = yield Request("GET", parts._replace(path=path, query=query).geturl(), headers)
            value, rows = listed(response, "data", self.reader(Request("POST", url)))
            found += models_of(
                rows, lambda row: ListedModel(text_of(row, "id"), seconds_of(row.get("created_at")), "anthropic")
            )
            last = text_of(value, "last_id")
            if value.get("has_more") is not True or not last or last == after:
                return tuple(found)
            after = last

    def _headers(self, site: Site, accept: str) -> dict[str, str]:
        headers = {"accept": accept, "anthropic-version": self.version, "content-type": "application/json"}
        if self.beta:
            headers["anthropic-beta"] = _listed(*self.beta)
        if site.api_key:
            headers["x-api-key"] = site.api_key
        return headers

    def reader(self, request: Request) -> Callable[[Head], Decoder] | None:
        try:
            path = urlsplit(request.url).path
        except ValueError:
            return None
        if request.method != "POST" or not path.endswith(self.path):
            return None
        return lambda head: _MessageAnswer(head, Limits(), arrival(head), lambda: "toolu_0")

    def _url(self, site: Site) -> str:
        parts = split_address(site.url)
        if site.api_endpoint:
            return urljoin(site.url, site.api_endpoint)
        base = parts.path.rstrip("/")
        if self.path.startswith("/v1/"):
            base = base.removesuffix("/v1")
        return parts._replace(path=base + self.path, fragment="").geturl()

    def _fields(self, site: Site, turn: ChatRequest) -> dict[str, Any]:
        who, options = site.name, turn.options
        model = turn.model or site.default_model
        if not model:
            raise ConfigError(f"{who}: a model is needed, such as claude-sonnet-4-5")
        sampling = renamed(options, _SAMPLING)
        if sampling and self.version >= _WITHOUT_SAMPLING:
            name = next(iter(sampling))
            raise unsupported(who, name, f"{name} with version {self.version} of the API")
        limit = max_tokens(options)
        fields: dict[str, Any] = {
            "model": model,
            "max_tokens": self.max_tokens if limit is None else limit,
            "messages": _messages(turn.messages, who),
            "stream": turn.stream,
            **sampling,
        }
        if system := system_text(turn.messages):
            fields["system"] = system
        if stop := stop_sequences(options):
            fields["stop_sequences"] = stop
        if (user := options.get("user")) is not None:
            fields["metadata"] = {"user_id": user}
        return fields | _tool_fields(options, who) | _output_fields(options, who)


def _listed(*values: str) -> str:
    """The items of comma-separated lists as one list, each once."""
    items = (item.strip() for value in values for item in value.split(","))
    return ",".join(dict.fromkeys(filter(None, items)))


def _tool_fields(options: dict[str, Any], who: str) -> dict[str, Any]:
    tools = function_tools(options, who)
    if not tools:
        return {}
    fields: dict[str, Any] = {"tools": []}
    for tool in tools:
        made: dict[str, Any] = {"name": tool.name}
        if tool.description is not None:
            made["description"] = tool.description
        made["input_schema"] = tool.parameters or {"type": "object", "properties": {}}
        if tool.strict is not None:
            made["strict"] = tool.strict
        fields["tools"].append(made)
    single = options.get("parallel_tool_calls") is False
    choice = tool_choice(options, who)
    if choice is None and single:
        choice = ToolChoice("auto")
    if choice is not None:
        fields["tool_choice"] = _choice(choice, single, who)
    return fields


def _choice(choice: ToolChoice, single: bool, who: str) -> dict[str, Any]:
    if len(choice.names) > 1 or (choice.names and choice.mode == "auto"):
        raise unsupported(who, "tool_choice", "a tool_choice of several allowed tools")
    made: dict[str, Any] = {"type": {"auto": "auto", "none": "none", "required": "any"}[choice.mode]}
    if choice.names:
        made = {"type": "tool", "name": choice.names[0]}
    if single and choice.mode != "none":
        made["disable_parallel_tool_use"] = True
    return made


def _output_fields(options: dict[str, Any], who: str) -> dict[str, Any]:
    """`output_config` and `thinking`."""
    fields: dict[str, Any] = {}
    output: dict[str, Any] = {}
    if (thinking := options.get("thinking")) is not None:
        if not isinstance(thinking, dict):
            raise ConfigError('thinking: an object such as {"type": "adaptive"}')
        fields["thinking"] = thinking
    effort = options.get("reasoning_effort")
    if effort == "none":
        fields.setdefault("thinking", {"type": "disabled"})
    elif isinstance(effort, str) and effort in _EFFORTS:
        output["effort"] = effort
    elif effort is not None:
        raise unsupported(who, "reasoning_effort", f"the reasoning_effort {shown(effort, 40)}")
    if (form := json_output(options, who)) is not None:
        if form.schema is None:
            raise unsupported(who, "response_format", "a response_format without a schema")
        output["format"] = {"type": "json_schema", "schema": form.schema}
    if output:
        fields["output_config"] = output
    return fields


def _messages(messages: tuple[Message, ...], who: str) -> list[dict[str, Any]]:
    """User and assistant turns by turns, each with its blocks."""
    turns: list[tuple[str, list[dict[str, Any]]]] = []
    for message in messages:
        if message.role in ("system", "developer"):
            continue
        role, blocks = _blocks(message, who)
        if turns and turns[-1][0] == role:
            turns[-1][1].extend(blocks)
        else:
            turns.append((role, blocks))
    return [{"role": role, "content": _content(blocks)} for role, blocks in turns]


def _content(blocks: list[dict[str, Any]]) -> Any:
    """The blocks, or the text when they are only one."""
    if not blocks:
        return ""
    return blocks[0]["text"] if len(blocks) == 1 and blocks[0]["type"] == "text" else blocks


def _blocks(message: Message, who: str) -> tuple[str, list[dict[str, Any]]]:
    if message.role == "user":
        return "user", _parts(message, who)
    if message.role == "tool":
        if not message.tool_call_id:
            raise ConfigError("a message of the role tool needs the tool_call_id of the call that it answers")
        result: dict[str, Any] = {"type": "tool_result", "tool_use_id": message.tool_call_id}
        if content := _content(_parts(message, who)):
            result["content"] = content
        return "user", [result]
    if message.role == "assistant":
        uses = [
            {"type": "tool_use", "id": call.id, "name": call.name, "input": tool_input(call)}
            for call in message.tool_calls
        ]
        return "assistant", [*_parts(message, who), *uses]
    raise unsupported(who, message.role, f"messages of the role {message.role!r}")


def _parts(message: Message, who: str) -> list[dict[str, Any]]:
    """Text and pictures as blocks; the API refuses empty texts."""
    if isinstance(message.content, str):
        return [{"type": "text", "text": message.content}] if message.content else []
    return [_part(part, who) for part in message.content if isinstance(part, Image) or part.text]


def _part(part: Part, who: str) -> dict[str, Any]:
    if not isinstance(part, Image):
        return {"type": "text", "text": part.text}
    if (data := data_image(part)) is not None:
        kind, base64 = data
        if kind not in _PICTURES:
            raise unsupported(who, "images", f"a picture of the type {shown(kind, 40)}")
        return {"type": "image", "source": {"type": "base64", "media_type": kind, "data": base64}}
    if part.url[:8].lower() != "https://":
        raise unsupported(who, "images", "a picture whose address is neither https: nor data:")
    return {"type": "image", "source": {"type": "url", "url": part.url}}


# The answer


_FAULTS = FaultTable(
    {
        "api_error": ProviderUnavailable,
        "authentication_error": AuthError,
        "billing_error": AuthError,
        "invalid_request_error": BadRequest,
        "not_found_error": BadRequest,
        "overloaded_error": ProviderUnavailable,
        "permission_error": AuthError,
        "rate_limit_error": RateLimited,
        "request_too_large": ContextTooLong,
        "timeout_error": ProviderUnavailable,
    },
    (
        # The API has one code, invalid_request_error, for all of these.
        (
            words(r"prompt is too long|exceed(s|ed)? (the )?context (limit|window)|too many total text bytes"),
            ContextTooLong,
        ),
        (words(r"content filtering policy"), Refused),
        (words(r"credit balance is too low"), AuthError),
    ),
)


class _Delta(Struct):
    type: Any = None
    text: Any = None
    thinking: Any = None
    partial_json: Any = None
    stop_reason: Any = None


class _Event(Struct):
    type: Any = None
    index: int = 0
    delta: _Delta | None = None
    content_block: Any = None
    message: Any = None
    usage: Any = None


_decode_event = msgspec.json.Decoder(_Event).decode


class _Tokens:
    """The counts of an answer. They are cumulative; a later event may leave out what an earlier one said."""

    def __init__(self) -> None:
        self._counts: dict[str, Any] = {}

    def take(self, usage: Any) -> None:
        if isinstance(usage, dict):
            self._counts.update({name: value for name, value in usage.items() if value is not None})

    def usage(self) -> Usage | None:
        """The tokens; those of the prompt with what was read from the cache and written to it."""
        cached = share(self._counts, "cache_read_input_tokens")
        prompt = count(self._counts.get("input_tokens"))
        if prompt is not None:
            prompt += cached + share(self._counts, "cache_creation_input_tokens")
        thought = share(self._counts, "output_tokens_details", "thinking_tokens")
        return counted(prompt, count(self._counts.get("output_tokens")), cached=cached, reasoning=thought)


class _Faulty(EventsAnswer):
    """How all answers of this API tell errors."""

    def fault(self, value: Any) -> ProviderError | None:
        match value:
            case {"error": {"message": str(text), **rest}}:
                kind = rest.get("type")
                code = shown(kind, 80) if isinstance(kind, str) and kind else None
                return _FAULTS.error(shown(text), code, self.head, self.now())
            case {"type": "error"} | {"error": _}:
                return self.failed(shown(value))
        return None

    def failed(self, text: str) -> ProviderError:
        return _FAULTS.error(text, None, self.head, self.now())


class _MessageAnswer(_Faulty):
    """Reads a stream of events, or one whole message."""

    reasons: ClassVar[dict[str, FinishReason]] = {
        "end_turn": "stop",
        "stop_sequence": "stop",
        "max_tokens": "length",
        "model_context_window_exceeded": "length",
        "tool_use": "tool_calls",
        "refusal": "content_filter",
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
        self._reason: Any = None
        self._tokens = _Tokens()
        self._inputs: dict[int, Any] = {}

    # Streams

    def event(self, event: ServerSentEvent) -> Iterator[Event]:
        try:
            told = _decode_event(event.data)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            told = convert(parse_json(event.data), _Event)
        match told.type:
            case "content_block_delta" if told.delta is not None:
                yield from self._delta(told.index, told.delta)
            case "content_block_start":
                yield from self._start(told.index, told.content_block)
            case "content_block_stop":
                yield from self.tools.end(told.index, self._inputs.pop(told.index, None))
            case "message_start":
                if isinstance(told.message, dict):
                    self._tokens.take(told.message.get("usage"))
            case "message_delta":
                self._tokens.take(told.usage)
                if told.delta is not None and told.delta.stop_reason is not None:
                    self._reason = told.delta.stop_reason
            case "message_stop":
                yield from self._end()
            case _:
                # Pings and events of a later version; an error is one by its own fields.
                if (error := self.fault(parse_json(event.data))) is not None:
                    raise error

    def _delta(self, index: int, delta: _Delta) -> Iterator[Event]:
        if delta.type == "text_delta" and isinstance(delta.text, str):
            yield from self.delta(delta.text)
        elif delta.type == "input_json_delta":
            if index in self.tools:
                yield from self.tools.add(index, delta.partial_json)
        elif delta.type == "thinking_delta" and isinstance(delta.thinking, str):
            yield from self.reasoning(delta.thinking)

    def _start(self, index: int, block: Any) -> Iterator[Event]:
        match block:
            case {"type": "text", "text": str(text)}:
                yield from self.delta(text)
            case {"type": "thinking", "thinking": str(text)}:
                yield from self.reasoning(text)
            case {"type": "redacted_thinking"}:
                self.reasoned = True
            case {"type": "tool_use"}:
                self._inputs[index] = block.get("input")
                yield from self.tools.start(index, block.get("id"), block.get("name"))

    def at_end(self, *, inside: bool) -> Iterator[Event]:
        if self._reason is not None:
            yield from self._end()

    # Whole answers

    def whole(self, body: bytes) -> Iterator[Event]:
        value = json_body(self.head, body)
        if (error := self.fault(value)) is not None:
            raise error
        if not isinstance(value, dict) or not isinstance(value.get("content"), list):
            raise RemoteProtocolError(f"an answer without content: {shown(value)}", status=self.head.status)
        for index, block in enumerate(value["content"]):
            yield from self._start(index, block)
            yield from self.tools.end(index, self._inputs.pop(index, None))
        self._tokens.take(value.get("usage"))
        self._reason = value.get("stop_reason")
        yield from self._end()

    def _end(self) -> Iterator[Event]:
        if self._reason is None:
            raise RemoteProtocolError("an answer without stop_reason", status=self.head.status)
        yield from self.conclude(self._reason, self._tokens.usage())


# An answer that is passed on


class _Seen(Struct):
    type: Any = None
    delta: _Delta | None = None
    message: Any = None
    usage: Any = None


_decode_seen = msgspec.json.Decoder(_Seen).decode


class _MessageWatch(_Faulty):
    """Reads a message that is passed on as it is: its events say only that something came, what it cost, its end.

    The contents are not looked at, so that blocks that nobody here knows go through, and an empty message too.
    """

    def __init__(self, head: Head, limits: Limits, now: Callable[[], float]) -> None:
        super().__init__(head, limits, now, lambda: "")
        self._tokens = _Tokens()
        self._reason: Any = None

    def event(self, event: ServerSentEvent) -> Iterator[Event]:
        try:
            seen = _decode_seen(event.data)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            seen = convert(parse_json(event.data), _Seen)
        match seen.type:
            case "content_block_delta":
                told = seen.delta or _Delta()
                yield piece(told.text or told.thinking or told.partial_json)
            case "message_start":
                if isinstance(seen.message, dict):
                    self._tokens.take(seen.message.get("usage"))
            case "message_delta":
                self._tokens.take(seen.usage)
                if seen.delta is not None and seen.delta.stop_reason is not None:
                    self._reason = seen.delta.stop_reason
            case "message_stop":
                yield from self._end()
            case "error" | None:
                raise self.fault(parse_json(event.data)) or RemoteProtocolError(
                    f"an event that is none of a message: {shown(event.data.decode('utf-8', 'replace'))}",
                    status=self.head.status,
                )

    def at_end(self, *, inside: bool) -> Iterator[Event]:
        if self._reason is not None:
            yield from self._end()

    def whole(self, body: bytes) -> Iterator[Event]:
        value = json_body(self.head, body)
        if (error := self.fault(value)) is not None:
            raise error
        if not isinstance(value, dict) or not isinstance(value.get("content"), list):
            raise RemoteProtocolError(f"an answer without content: {shown(value)}", status=self.head.status)
        self._tokens.take(value.get("usage"))
        self._reason = value.get("stop_reason")
        if self._tokens.usage() is None:
            yield piece(json_text_of(value["content"]))
        yield from self._end()

    def _end(self) -> Iterator[Event]:
        if self._reason is None:
            raise RemoteProtocolError("an answer without stop_reason", status=self.head.status)
        if (usage := self._tokens.usage()) is not None:
            yield usage
        self.ended = True
        yield Done("stop")


class _CountWatch(_Faulty):
    """Reads a count of tokens that is passed on as it is."""

    def __init__(self, head: Head, limits: Limits, now: Callable[[], float]) -> None:
        super().__init__(head, limits, now, lambda: "")

    def event(self, event: ServerSentEvent) -> Iterator[Event]:
        raise RemoteProtocolError("a stream of events is no count of tokens", status=self.head.status)

    def whole(self, body: bytes) -> Iterator[Event]:
        value = json_body(self.head, body)
        if (error := self.fault(value)) is not None:
            raise error
        if not isinstance(value, dict) or type(value.get("input_tokens")) is not int:
            raise RemoteProtocolError(f"no count of tokens: {shown(value)}", status=self.head.status)
        self.ended = True
        yield Done("stop")
