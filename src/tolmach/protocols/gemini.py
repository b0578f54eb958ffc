"""Google's Gemini API: generateContent, and streamGenerateContent as server-sent events.

How an answer ends: with a `finishReason` in its last chunk; no mark follows it. What the filters kept
back is `Refused` when nothing had come, else an answer with the finish reason `content_filter`.

The key goes into a header, never into the address. All system messages go into `systemInstruction`,
wherever they stood. Calls of functions come whole; one that has no id gets one.

Not carried: the signatures of thoughts. Models from Gemini 3 on want them back with their calls; a call
in the history gets Google's own stand-in for a call that another model made. Who needs the real ones
speaks this API on both sides and passes bodies through.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar
from urllib.parse import parse_qsl, quote, urlsplit

import msgspec
from msgspec import Struct

from tolmach.chat import ChatRequest, Event, FinishReason, Image, Message, Notice, Part, Usage
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
from tolmach.protocols.api_answer import Direct, EventsAnswer, FaultTable, words
from tolmach.protocols.base import SessionState, Site
from tolmach.protocols.bodies import arrival, encode_json, json_body, shown, split_address
from tolmach.protocols.model_lists import ListedModel, Listing, listed, models_of, text_of
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
    system_text,
    tool_choice,
    tool_input,
    unsupported,
)
from tolmach.protocols.usage import count, counted, share
from tolmach.wire import Call, Decoder, Handshake, Head, Limits, Request

__all__ = ["Gemini"]

_CONFIG = {
    "temperature": "temperature",
    "top_p": "topP",
    "top_k": "topK",
    "seed": "seed",
    "presence_penalty": "presencePenalty",
    "frequency_penalty": "frequencyPenalty",
}
_BUDGETS = {"none": 0, "minimal": 1024, "low": 1024, "medium": 8192, "high": 24576}
"""Tokens for thinking of the 2.5 models, as Google's own OpenAI endpoint has them."""
_LEVELS = frozenset({"minimal", "low", "medium", "high"})
_FOREIGN_CALL = "skip_thought_signature_validator"
"""What Google documents to send with a call that no Gemini model made."""
_VERSION = re.compile(r"/v[0-9]+(?:(?:alpha|beta)[0-9]*)?(?=/|$)")
_METHOD = re.compile(r"/models/[^/]+:(?:streamG|g)enerateContent$")
_PICTURES = {
    ".gif": "image/gif",
    ".heic": "image/heic",
    ".heif": "image/heif",
    ".jpeg": "image/jpeg",
    ".jpg": "image/jpeg",
    ".png": "image/png",
    ".webp": "image/webp",
}


class Gemini(Direct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`site.url` is the base address: `https://generativelanguage.googleapis.com`, with or without a version.

    One that has a version in it, as those of Vertex AI (`.../v1/projects/.../publishers/google`), is taken as it is.
    """

    name: ClassVar[str] = "gemini"
    title: ClassVar[str] = "Google Gemini, generateContent"
    features: ClassVar[frozenset[str]] = (SHARED_FEATURES | set(_CONFIG)) | {"stop"}
    traits: ClassVar[frozenset[str]] = frozenset({"stream", "history", "system"})

    version: str = "v1beta"
    """The version of the API, for an address that has none."""
    thoughts: bool = False
    """Whether to ask for the model's thoughts; models that do not think refuse that."""

    def open(self, site: Site, turn: ChatRequest, state: SessionState) -> Handshake:
        yield from ()
        notices = name_notices(turn.messages, site.name)
        headers = {
            "accept": "text/event-stream" if turn.stream else "application/json",
            "content-type": "application/json",
        }
        if site.api_key:
            headers["x-goog-api-key"] = site.api_key
        model = turn.model or site.default_model
        if not model:
            raise ConfigError(f"{site.name}: a model is needed, such as gemini-2.5-flash")
        body = encode_json(self._fields(site.name, model, turn))
        request = Request("POST", self._url(site, model, turn.stream), headers, body)

        def make_id() -> str:
            return f"call_{state.random_hex(24)}"

        return Call(request, lambda head: _ContentAnswer(head, state.limits, state.now, make_id, notices))

    def list_models(self, site: Site, state: SessionState) -> Listing:
        headers = {"accept": "application/json"}
        if site.api_key:
            headers["x-goog-api-key"] = site.api_key
        url = self._url(site, "x", False)
        parts = urlsplit(url)
        found: list[ListedModel] = []
        page = ""
        while True:
            query = "&".join(filter(None, (parts.query, "pageSize=1000", page and f"pageToken={quote(page)}")))
            at = parts._replace(path=parts.path.removesuffix("/x:generateContent"), query=query)
            response = yield Request("GET", at.geturl(), headers)
            value, rows = listed(response, "models", self.reader(Request("POST", url)))
            found += models_of(rows, lambda row: ListedModel(text_of(row, "name").removeprefix("models/"), 0, "google"))
            following = text_of(value, "nextPageToken")
            if not following or following == page:
                return tuple(found)
            page = following

    def reader(self, request: Request) -> Callable[[Head], Decoder] | None:
        try:
            path = urlsplit(request.url).path
        except ValueError:
            return None
        if request.method != "POST" or not _METHOD.search(path):
            return None
        return lambda head: _ContentAnswer(head, Limits(), arrival(head), lambda: "call_0")

    def _url(self, site: Site, model: str, stream: bool) -> str:
        parts = split_address(site.url)
        query = parse_qsl(parts.query, keep_blank_values=True)
        if any(name == "key" for name, _ in query):
            raise ConfigError(f"{site.name}: the key belongs into api_key, not into the address")
        base = parts.path.rstrip("/")
        if not _VERSION.search(base):
            base += f"/{self.version}"
        model = model if "/" in model else f"models/{model}"
        method = "streamGenerateContent" if stream else "generateContent"
        asked = "&".join(filter(None, (parts.query, "alt=sse" if stream else "")))
        return parts._replace(path=f"{base}/{quote(model)}:{method}", query=asked, fragment="").geturl()

    def _fields(self, who: str, model: str, turn: ChatRequest) -> dict[str, Any]:
        options = turn.options
        fields: dict[str, Any] = {"contents": _contents(turn.messages, model, who)}
        if system := system_text(turn.messages):
            fields["systemInstruction"] = {"parts": [{"text": system}]}
        fields |= _tool_fields(options, who)
        config = renamed(options, _CONFIG)
        if (limit := max_tokens(options)) is not None:
            config["maxOutputTokens"] = limit
        if stop := stop_sequences(options):
            config["stopSequences"] = stop
        if (form := json_output(options, who)) is not None:
            config["responseMimeType"] = "application/json"
            if form.schema is not None:
                config["responseJsonSchema"] = form.schema
        if thinking := self._thinking(options, model, who):
            config["thinkingConfig"] = thinking
        if config:
            fields["generationConfig"] = config
        return fields

    def _thinking(self, options: dict[str, Any], model: str, who: str) -> dict[str, Any]:
        made: dict[str, Any] = {"includeThoughts": True} if self.thoughts else {}
        effort = options.get("reasoning_effort")
        if effort is None:
            return made
        if isinstance(effort, str) and "gemini-2.5" in model and effort in _BUDGETS:
            made["thinkingBudget"] = _BUDGETS[effort]
        elif isinstance(effort, str) and "gemini-2.5" not in model and effort in _LEVELS:
            made["thinkingLevel"] = effort.upper()
        else:
            raise unsupported(
                who, "reasoning_effort", f"the reasoning_effort {shown(effort, 40)} with {shown(model, 80)}"
            )
        return made


def _tool_fields(options: dict[str, Any], who: str) -> dict[str, Any]:
    tools = function_tools(options, who)
    if not tools:
        return {}
    made = []
    for tool in tools:
        declared: dict[str, Any] = {"name": tool.name}
        if tool.description is not None:
            declared["description"] = tool.description
        if tool.parameters:
            declared["parametersJsonSchema"] = tool.parameters
        made.append(declared)
    fields: dict[str, Any] = {"tools": [{"functionDeclarations": made}]}
    if (choice := tool_choice(options, who)) is not None:
        config: dict[str, Any] = {"mode": {"auto": "AUTO", "none": "NONE", "required": "ANY"}[choice.mode]}
        if choice.names:
            config["allowedFunctionNames"] = list(choice.names)
            if choice.mode == "auto":
                config["mode"] = "VALIDATED"
        fields["toolConfig"] = {"functionCallingConfig": config}
    return fields


def _contents(messages: tuple[Message, ...], model: str, who: str) -> list[dict[str, Any]]:
    """The turns of user and model by turns, each with its parts."""
    names = called_names(messages)
    signed = not re.search(r"gemini-(1|2)\b", model)
    turns: list[dict[str, Any]] = []
    for message in messages:
        if message.role in ("system", "developer"):
            continue
        role, parts = _turn(message, names, signed, who)
        if turns and turns[-1]["role"] == role:
            turns[-1]["parts"].extend(parts)
        else:
            turns.append({"role": role, "parts": parts})
    return turns


def _turn(message: Message, names: dict[str, str], signed: bool, who: str) -> tuple[str, list[dict[str, Any]]]:
    if message.role == "user":
        return "user", _parts(message, who) or [{"text": ""}]
    if message.role == "tool":
        return "user", [_result(message, names, who)]
    if message.role != "assistant":
        raise unsupported(who, message.role, f"messages of the role {message.role!r}")
    calls: list[dict[str, Any]] = [
        {"functionCall": {"id": call.id, "name": call.name, "args": tool_input(call)}} for call in message.tool_calls
    ]
    if calls and signed:
        # The first of parallel calls has the signature for all.
        calls[0]["thoughtSignature"] = _FOREIGN_CALL
    return "model", [*_parts(message, who), *calls] or [{"text": ""}]


def _result(message: Message, names: dict[str, str], who: str) -> dict[str, Any]:
    id = message.tool_call_id or ""
    name = names.get(id) or message.name
    if not name:
        raise ConfigError(f"a message of the role tool answers a call {id!r} that no message before it has")
    result: dict[str, Any] = {"name": name, "response": {"output": message.text}}
    if id:
        result["id"] = id
    if not isinstance(message.content, str):
        pictures = [_part(part, who) for part in message.content if isinstance(part, Image)]
        if any("inlineData" not in picture for picture in pictures):
            raise unsupported(who, "images", "a picture by its address as the result of a tool")
        if pictures:
            result["parts"] = pictures
    return {"functionResponse": result}


def _parts(message: Message, who: str) -> list[dict[str, Any]]:
    if isinstance(message.content, str):
        return [{"text": message.content}] if message.content else []
    return [_part(part, who) for part in message.content if isinstance(part, Image) or part.text]


def _part(part: Part, who: str) -> dict[str, Any]:
    if not isinstance(part, Image):
        return {"text": part.text}
    if (data := data_image(part)) is not None:
        return {"inlineData": {"mimeType": data[0], "data": data[1]}}
    try:
        parts = urlsplit(part.url)
    except ValueError as error:
        raise ConfigError("the address of a picture is no URL") from error
    if parts.scheme not in ("https", "gs"):
        raise unsupported(who, "images", "a picture whose address is neither https:, gs: nor data:")
    file = {"fileUri": part.url}
    if kind := next((kind for end, kind in _PICTURES.items() if parts.path.lower().endswith(end)), None):
        file["mimeType"] = kind
    return {"fileData": file}


# The answer


_FAULTS = FaultTable(
    {
        # The `reason` of an ErrorInfo, where there is one; it stands above the status.
        "API_KEY_INVALID": AuthError,
        "API_KEY_SERVICE_BLOCKED": AuthError,
        "SERVICE_DISABLED": AuthError,
        "ABORTED": ProviderUnavailable,
        "CANCELLED": ProviderUnavailable,
        "DEADLINE_EXCEEDED": ProviderUnavailable,
        "FAILED_PRECONDITION": BadRequest,
        "INTERNAL": ProviderUnavailable,
        "INVALID_ARGUMENT": BadRequest,
        "NOT_FOUND": BadRequest,
        "OUT_OF_RANGE": BadRequest,
        "PERMISSION_DENIED": AuthError,
        "RESOURCE_EXHAUSTED": RateLimited,
        "UNAUTHENTICATED": AuthError,
        "UNAVAILABLE": ProviderUnavailable,
        "UNKNOWN": ProviderUnavailable,
    },
    (
        (
            words(r"token count .{0,60}exceeds|exceeds the maximum number of tokens|request payload size"),
            ContextTooLong,
        ),
        (words(r"api key (not valid|expired|not found)"), AuthError),
        (words(r"user location is not supported"), Refused),
    ),
)

_BROKEN_OFF = frozenset(
    {
        "IMAGE_OTHER",
        "MALFORMED_FUNCTION_CALL",
        "MALFORMED_RESPONSE",
        "MISSING_THOUGHT_SIGNATURE",
        "NO_IMAGE",
        "OTHER",
        "TOO_MANY_TOOL_CALLS",
        "UNEXPECTED_TOOL_CALL",
    }
)
"""Finish reasons that say that the model broke off."""


class _PartOf(Struct, rename="camel"):
    text: Any = None
    thought: Any = None
    function_call: Any = None


class _Content(Struct):
    parts: list[_PartOf] | None = None


class _Candidate(Struct, rename="camel"):
    index: int | None = None
    content: _Content | None = None
    finish_reason: Any = None
    finish_message: Any = None


class _Chunk(Struct, rename="camel"):
    candidates: list[_Candidate] | None = None
    prompt_feedback: Any = None
    usage_metadata: Any = None
    error: Any = None


_decode_chunk = msgspec.json.Decoder(_Chunk).decode


class _ContentAnswer(EventsAnswer):
    """Reads a stream of chunks, or one whole response."""

    reasons: ClassVar[dict[str, FinishReason]] = {
        "STOP": "stop",
        "MAX_TOKENS": "length",
        "CONTINUATION": "length",
        "BLOCKLIST": "content_filter",
        "ESCALATION": "content_filter",
        "IMAGE_PROHIBITED_CONTENT": "content_filter",
        "IMAGE_RECITATION": "content_filter",
        "IMAGE_SAFETY": "content_filter",
        "LANGUAGE": "content_filter",
        "MODEL_ARMOR": "content_filter",
        "PROHIBITED_CONTENT": "content_filter",
        "PUP_LIMITED_DISABLED": "content_filter",
        "RECITATION": "content_filter",
        "SAFETY": "content_filter",
        "SPII": "content_filter",
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
        self._why: Any = None
        self._usage: Usage | None = None

    def event(self, event: ServerSentEvent) -> Iterator[Event]:
        try:
            chunk = _decode_chunk(event.data)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            value = parse_json(event.data)
            self._check(value)
            chunk = convert(value, _Chunk)
        if chunk.error is not None:
            self._check(parse_json(event.data))
        yield from self._take(chunk)

    def whole(self, body: bytes) -> Iterator[Event]:
        value = json_body(self.head, body)
        self._check(value)
        # A stream without `alt=sse` is one list of its chunks.
        for chunk in convert(value if isinstance(value, list) else [value], list[_Chunk]):
            yield from self._take(chunk)
        if self._reason is None:
            raise RemoteProtocolError(f"an answer without finishReason: {shown(value)}", status=self.head.status)
        yield from self._end()

    def at_end(self, *, inside: bool) -> Iterator[Event]:
        if self._reason is not None and not inside:
            yield from self._end()

    def _check(self, value: Any) -> None:
        if (error := self.fault(value)) is not None:
            raise error

    def _take(self, chunk: _Chunk) -> Iterator[Event]:
        self._usage = _usage(chunk.usage_metadata) or self._usage
        for candidate in chunk.candidates or ():
            if candidate.index:
                continue  # nobody asked for a second one
            self._reason, self._why = candidate.finish_reason, candidate.finish_message
            for part in (candidate.content and candidate.content.parts) or ():
                yield from self._part(part)
        match chunk.prompt_feedback:
            case {"blockReason": reason} if not chunk.candidates:
                said = chunk.prompt_feedback.get("blockReasonMessage")
                raise self._refused("the question was blocked", reason, said)

    def _part(self, part: _PartOf) -> Iterator[Event]:
        if isinstance(part.text, str):
            yield from self.reasoning(part.text) if part.thought is True else self.delta(part.text)
        if part.function_call is not None:
            match part.function_call:
                case {"name": str(name), **rest}:
                    key = self.tools.next_key()
                    yield from self.tools.start(key, rest.get("id"), name)
                    yield from self.tools.end(key, rest.get("args"))
                case _:
                    raise RemoteProtocolError(f"a call of another shape: {shown(part.function_call, 80)}")

    def _end(self) -> Iterator[Event]:
        reason = self._reason
        if isinstance(reason, str) and reason in _BROKEN_OFF:
            text = f"the model broke off: {shown(self._why or reason)}"
            raise ProviderUnavailable(text, status=self.head.status, code=reason)
        kept_back = isinstance(reason, str) and self.reasons.get(reason) == "content_filter"
        if kept_back and not self.partial and not self.tools.called:
            raise self._refused("the answer was kept back", reason, self._why)
        yield from self.conclude(reason, self._usage)

    def _refused(self, what: str, reason: Any, said: Any) -> Refused:
        text = f"{what}: {shown(said or reason)}"
        return Refused(text, status=self.head.status, code=shown(reason, 80))

    # Errors

    def fault(self, value: Any) -> ProviderError | None:
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
        match value:
            case {"error": {"message": str(text), **rest}}:
                return self._error(text, rest)
            case {"error": error}:
                return self.failed(shown(error))
        return None

    def _error(self, text: str, error: Mapping[Any, Any]) -> ProviderError:
        code, wait = error.get("status"), None
        details = error.get("details")
        for detail in details if isinstance(details, list) else ():
            match detail:
                case {"reason": str(reason)} if reason in _FAULTS.codes:
                    code = reason
                case {"retryDelay": str(delay)} if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?s", delay):
                    wait = float(delay[:-1])
        code = shown(code, 80) if isinstance(code, str) and code else None
        return _FAULTS.error(shown(text), code, self.head, self.now(), wait=wait)

    def failed(self, text: str) -> ProviderError:
        return _FAULTS.error(text, None, self.head, self.now())


def _usage(value: Any) -> Usage | None:
    if not isinstance(value, dict):
        return None
    # What is 0 is left out.
    prompt, completion = count(value.get("promptTokenCount", 0)), count(value.get("candidatesTokenCount", 0))
    if prompt is None or completion is None:
        return None
    thoughts = share(value, "thoughtsTokenCount")
    return counted(
        prompt + share(value, "toolUsePromptTokenCount"),
        completion + thoughts,
        total=count(value.get("totalTokenCount")),
        cached=share(value, "cachedContentTokenCount"),
        reasoning=thoughts,
    )
