"""Ollama's own API: POST /api/chat, a stream of JSON lines or one JSON object.

How an answer ends: with the line that has `done` true. Tool calls come whole, each in one line; a call
without an id (Ollama up to 0.11) gets one. Pictures are sent as base64 only: an address is refused,
nothing is fetched. A choice of tools can be `auto` or `none`; others Ollama cannot be held to.
"""

from collections.abc import Callable, Iterator
from typing import Any, ClassVar
from urllib.parse import urljoin, urlsplit

import msgspec
from msgspec import Struct

from tolmach.chat import ChatRequest, Event, FinishReason, Image, Message, Notice
from tolmach.decoding import LineDecoder, convert, parse_json, plain_text
from tolmach.errors import (
    ConfigError,
    ContextTooLong,
    ProviderError,
    RemoteProtocolError,
    TruncatedAnswer,
)
from tolmach.protocols.api_answer import ApiAnswer, Direct, FaultTable, words
from tolmach.protocols.base import SessionState, Site
from tolmach.protocols.bodies import arrival, encode_json, is_cut, is_page, shown, split_address
from tolmach.protocols.model_lists import ListedModel, Listing, listed, models_of, seconds_of, text_of
from tolmach.protocols.options import (
    SHARED_FEATURES,
    called_names,
    data_image,
    function_tools,
    json_output,
    max_tokens,
    name_notices,
    renamed,
    stop_sequences,
    tool_choice,
    tool_input,
    unsupported,
)
from tolmach.protocols.usage import count, counted
from tolmach.wire import Call, Decoder, Handshake, Head, Limits, Request

__all__ = ["Ollama"]

_OPTIONS = {
    name: name for name in ("temperature", "top_p", "top_k", "seed", "presence_penalty", "frequency_penalty", "min_p")
}
_EFFORTS: dict[str, bool | str] = {"none": False, "low": "low", "medium": "medium", "high": "high", "max": "max"}


class Ollama(Direct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`site.url` is the server, such as `http://127.0.0.1:11434`, with or without `/api`; a query of it is kept."""

    name: ClassVar[str] = "ollama"
    title: ClassVar[str] = "Ollama, /api/chat"
    features: ClassVar[frozenset[str]] = (SHARED_FEATURES | set(_OPTIONS)) | {"stop", "think"}
    traits: ClassVar[frozenset[str]] = frozenset({"stream", "history", "system"})

    keep_alive: str = ""
    """How long the model stays loaded after the answer, such as `10m`; empty for the server's own setting."""
    num_ctx: int | None = None
    """The length of the context, in tokens. What is longer the server cuts off in silence; its default is short."""

    def open(self, site: Site, turn: ChatRequest, state: SessionState) -> Handshake:
        yield from ()
        notices = name_notices(turn.messages, site.name)
        headers = {
            "accept": "application/x-ndjson" if turn.stream else "application/json",
            "content-type": "application/json",
        }
        if site.api_key:
            headers["authorization"] = f"Bearer {site.api_key}"
        request = Request("POST", _url(site), headers, encode_json(self._fields(site, turn)))

        def make_id() -> str:
            return f"call_{state.random_hex(24)}"

        return Call(request, lambda head: _ChatAnswer(head, state.limits, state.now, make_id, notices))

    def list_models(self, site: Site, state: SessionState) -> Listing:
        headers = {"accept": "application/json"}
        if site.api_key:
            headers["authorization"] = f"Bearer {site.api_key}"
        url = _url(site)
        parts = urlsplit(url)
        response = yield Request(
            "GET", parts._replace(path=parts.path.removesuffix("/chat") + "/tags").geturl(), headers
        )
        _, rows = listed(response, "models", self.reader(Request("POST", url)))
        return tuple(
            models_of(rows, lambda row: ListedModel(text_of(row, "name"), seconds_of(row.get("modified_at")), "ollama"))
        )

    def reader(self, request: Request) -> Callable[[Head], Decoder] | None:
        try:
            path = urlsplit(request.url).path
        except ValueError:
            return None
        if request.method != "POST" or not path.endswith("/api/chat"):
            return None
        return lambda head: _ChatAnswer(head, Limits(), arrival(head), lambda: "call_0")

    def _fields(self, site: Site, turn: ChatRequest) -> dict[str, Any]:
        who, options = site.name, turn.options
        model = turn.model or site.default_model
        if not model:
            raise ConfigError(f"{who}: a model is needed, such as llama3.2")
        names = called_names(turn.messages)
        fields: dict[str, Any] = {
            "model": model,
            "messages": [_message(message, names, who) for message in turn.messages],
            "stream": turn.stream,
        }
        if tools := _tools(options, who):
            fields["tools"] = tools
        if (form := json_output(options, who)) is not None:
            fields["format"] = "json" if form.schema is None else form.schema
        if (think := _think(options, who)) is not None:
            fields["think"] = think
        if self.keep_alive:
            fields["keep_alive"] = self.keep_alive
        if chosen := self._options(options):
            fields["options"] = chosen
        return fields

    def _options(self, options: dict[str, Any]) -> dict[str, Any]:
        chosen = renamed(options, _OPTIONS)
        if (limit := max_tokens(options)) is not None:
            chosen["num_predict"] = limit
        if stop := stop_sequences(options):
            chosen["stop"] = stop
        if self.num_ctx is not None:
            chosen["num_ctx"] = self.num_ctx
        return chosen


def _url(site: Site) -> str:
    parts = split_address(site.url)
    if site.api_endpoint:
        return urljoin(site.url, site.api_endpoint)
    base = parts.path.rstrip("/").removesuffix("/api")
    return parts._replace(path=f"{base}/api/chat", fragment="").geturl()


def _tools(options: dict[str, Any], who: str) -> list[dict[str, Any]]:
    tools = function_tools(options, who)
    choice = tool_choice(options, who) if tools else None
    if choice is not None and (choice.mode == "required" or choice.names):
        raise unsupported(who, "tool_choice", "a tool_choice other than auto and none")
    if choice is not None and choice.mode == "none":
        return []
    made = []
    for tool in tools:
        function: dict[str, Any] = {"name": tool.name, "description": tool.description or ""}
        function["parameters"] = tool.parameters or {"type": "object", "properties": {}}
        made.append({"type": "function", "function": function})
    return made


def _think(options: dict[str, Any], who: str) -> Any:
    if (think := options.get("think")) is not None:
        return think
    effort = options.get("reasoning_effort")
    if effort is None:
        return None
    if not isinstance(effort, str) or effort not in _EFFORTS:
        raise unsupported(who, "reasoning_effort", f"the reasoning_effort {shown(effort, 40)}")
    return _EFFORTS[effort]


_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool"}


def _message(message: Message, names: dict[str, str], who: str) -> dict[str, Any]:
    role = _ROLES.get(message.role)
    if role is None:
        raise unsupported(who, message.role, f"messages of the role {message.role!r}")
    out: dict[str, Any] = {"role": role, "content": message.text}
    if images := _images(message, who):
        out["images"] = images
    if message.tool_calls:
        out["tool_calls"] = [
            {"id": call.id, "function": {"index": i, "name": call.name, "arguments": tool_input(call)}}
            for i, call in enumerate(message.tool_calls)
        ]
    if role == "tool":
        id = message.tool_call_id or ""
        if name := names.get(id) or message.name:
            out["tool_name"] = name
        if id:
            out["tool_call_id"] = id
    return out


def _images(message: Message, who: str) -> list[str]:
    if isinstance(message.content, str):
        return []
    found = []
    for part in message.content:
        if isinstance(part, Image):
            data = data_image(part)
            if data is None:
                raise unsupported(who, "images", "a picture by its address; send it as a data: URL")
            found.append(data[1])
    return found


# The answer


_FAULTS = FaultTable(
    {},
    ((words(r"context (length|window|size)|exceed\w* .{0,30}context|prompt (is )?too long"), ContextTooLong),),
)


class _Message(Struct):
    content: Any = None
    thinking: Any = None
    tool_calls: list[Any] | None = None


class _Line(Struct):
    message: _Message | None = None
    done: Any = None
    done_reason: Any = None
    prompt_eval_count: Any = None
    eval_count: Any = None
    error: Any = None


_decode_line = msgspec.json.Decoder(_Line).decode


class _ChatAnswer(ApiAnswer):
    """Reads JSON lines; a whole answer is one."""

    reasons: ClassVar[dict[str, FinishReason]] = {
        "stop": "stop",
        "length": "length",
        "tool_calls": "tool_calls",
        "load": "stop",
        "unload": "stop",
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
        whole = head.content_type == "application/json"
        self._lines = LineDecoder(limits.answer_bytes if whole else limits.event_bytes)

    def feed(self, data: bytes) -> Iterator[Event]:
        if self.ended:
            return
        if self.broken:
            self.body.add(data)
            return
        for line in self._lines.feed(data):
            yield from self._line(line)
            if self.ended:
                return

    def close(self) -> Iterator[Event]:
        if self.broken:
            raise self.http_error()
        if self.ended:
            return
        rest = self._lines.rest()
        if is_cut(rest) and not is_page(rest):
            raise TruncatedAnswer(partial=self.partial, status=self.head.status)
        yield from self._line(rest)
        self.check_ended()

    def _line(self, line: bytes) -> Iterator[Event]:
        if not line.strip():
            return
        try:
            told = _decode_line(line)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            told = convert(self._parsed(line), _Line)
        if told.error:
            raise self.failed(shown(told.error))
        notices, self.notices = self.notices, ()
        yield from notices
        if told.message is not None:
            yield from self._message(told.message)
        if told.done is True:
            usage = counted(count(told.prompt_eval_count), count(told.eval_count))
            yield from self.conclude(told.done_reason or "stop", usage)
        elif told.message is None:
            raise RemoteProtocolError(f"a line that is no answer: {plain_text(line, 80)}", status=self.head.status)

    def _parsed(self, line: bytes) -> Any:
        try:
            return parse_json(line)
        except RemoteProtocolError as error:
            if is_page(line):
                text = f"the site shows a page instead of an answer: {plain_text(line, 120)}"
                raise RemoteProtocolError(text, status=self.head.status, code="html") from error
            raise

    def _message(self, message: _Message) -> Iterator[Event]:
        if isinstance(message.thinking, str):
            yield from self.reasoning(message.thinking)
        if isinstance(message.content, str):
            yield from self.delta(message.content)
        for call in message.tool_calls or ():
            match call:
                case {"function": {"name": str(name), **rest}}:
                    key = self.tools.next_key()
                    yield from self.tools.start(key, call.get("id"), name)
                    yield from self.tools.end(key, rest.get("arguments"))
                case _:
                    raise RemoteProtocolError(f"a tool call of another shape: {shown(call, 80)}")

    # Errors

    def fault(self, value: Any) -> ProviderError | None:
        match value:
            case {"error": {"message": str(text)}} | {"error": str(text)}:
                return self.failed(shown(text))
        return None

    def failed(self, text: str) -> ProviderError:
        return _FAULTS.error(text, None, self.head, self.now())
