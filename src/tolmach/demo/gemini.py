"""Google's Gemini API at `/gemini`: generateContent and streamGenerateContent, strict about names, roles and parts."""

import json
import re
import secrets
from typing import Any, ClassVar, NoReturn

from tolmach.demo.answers import answer, last_question, tokens
from tolmach.demo.base import Kind, Piece, Reply, Step, Visit, World, json_reply, json_text
from tolmach.demo.faults import Wanted, wish_in
from tolmach.demo.tools import example_arguments, tools_called
from tolmach.wire import Request

__all__ = ["Gemini"]

MODELS = ("demo", "gemini-3-pro-preview", "gemini-2.5-pro", "gemini-2.5-flash")
_CONTEXT_TOKENS = 1_048_576
_PATH = re.compile(r"/v1(?:beta)?/models/(?P<model>.+):(?P<method>generateContent|streamGenerateContent)")
_FIELDS = (
    "contents",
    "systemInstruction",
    "tools",
    "toolConfig",
    "safetySettings",
    "generationConfig",
    "cachedContent",
)
_CONFIG = (
    "stopSequences responseMimeType responseSchema responseJsonSchema responseModalities candidateCount "
    "maxOutputTokens temperature topP topK seed presencePenalty frequencyPenalty responseLogprobs logprobs "
    "speechConfig thinkingConfig mediaResolution"
)
_KNOWN_CONFIG = frozenset(_CONFIG.split())
_DATA = ("text", "inlineData", "fileData", "functionCall", "functionResponse", "executableCode", "codeExecutionResult")
_RANGES = (("temperature", 0, 2), ("topP", 0, 1), ("maxOutputTokens", 1, 1 << 31))


class _Refused(Exception):
    """A request that the API refuses, with what it answers."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.reply = _error(status, message)


_STATUS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    503: "UNAVAILABLE",
}


def _invalid(message: str) -> NoReturn:
    raise _Refused(400, message)


class Gemini:
    """The API. It wants a key, any, unless the demo was told otherwise."""

    kind: ClassVar[str] = "gemini"

    def __init__(self, world: World, mount: str) -> None:
        self.mount = mount
        self._require_key = world.settings.require_key

    def step(self, method: str, path: str, request: Request) -> Step:
        return "chat" if _PATH.fullmatch(path) else "other"

    def wish(self, visit: Visit) -> str:
        found = _PATH.fullmatch(visit.path)
        model = found["model"] if found else ""
        body = _body(visit) if visit.mentions_faults or model.startswith("fault:") else None
        contents = body.get("contents") if isinstance(body, dict) else None
        last = contents[-1] if isinstance(contents, list) and contents else None
        return wish_in(last_question(_text(last)), model)

    def respond(self, visit: Visit) -> Reply:
        try:
            self._authorize(visit)
            if visit.request.method == "GET" and visit.path in ("/v1beta/models", "/v1/models"):
                return json_reply(200, {"models": [_about(name) for name in MODELS]})
            found = _PATH.fullmatch(visit.path)
            if found is None or visit.request.method != "POST":
                return Reply(404, [("Content-Type", "text/html; charset=UTF-8")], (Piece(b"<!DOCTYPE html>404"),))
            model = found["model"]
            if model not in MODELS and not model.startswith("fault:"):
                text = f"models/{model} is not found for API version v1beta, or is not supported for {found['method']}."
                raise _Refused(404, text)
            streamed = found["method"] == "streamGenerateContent"
            return _generate(visit, _checked(visit), model, streamed)
        except _Refused as refused:
            return refused.reply

    def _authorize(self, visit: Visit) -> None:
        given = visit.header("x-goog-api-key") or visit.query.get("key") or visit.header("authorization")
        if self._require_key and not given:
            raise _Refused(
                403,
                "Method doesn't allow unregistered callers (callers without established identity). Please use API Key "
                "or other form of API consumer identity to call this API.",
            )

    def failure(self, visit: Visit, status: int) -> Reply:
        return _error(status, _FAILURES.get(status, "An internal error has occurred. Please retry or report."))


_FAILURES = {
    401: "Request had invalid authentication credentials.",
    429: "You exceeded your current quota, please check your plan and billing details.",
    503: "The model is overloaded. Please try again later.",
}


def _error(status: int, message: str) -> Reply:
    return json_reply(status, _fault(status, message))


def _fault(status: int, message: str) -> dict[str, Any]:
    return {"error": {"code": status, "message": message, "status": _STATUS.get(status, "INTERNAL")}}


def _about(name: str) -> dict[str, Any]:
    methods = ["generateContent", "streamGenerateContent"]
    limits = {"inputTokenLimit": _CONTEXT_TOKENS, "outputTokenLimit": 65_536}
    return {"name": f"models/{name}", "displayName": name, **limits, "supportedGenerationMethods": methods}


def _body(visit: Visit) -> Any:
    try:
        return json.loads(visit.request.body)
    except ValueError:
        return None


def _parts(content: Any) -> list[dict[str, Any]]:
    parts = content.get("parts") if isinstance(content, dict) else None
    return [part for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []


def _text(content: Any) -> str:
    """The text of a turn, with that of the functions' results in it."""
    found = []
    for part in _parts(content):
        match part:
            case {"text": str(text)} | {"functionResponse": {"response": {"output": str(text)}}}:
                found.append(text)
    return "".join(found)


# What is refused


def _checked(visit: Visit) -> dict[str, Any]:
    """The body, once it is right."""
    body = _body(visit)
    if not isinstance(body, dict):
        _invalid("Invalid JSON payload received. Unexpected token.")
    _check_names(body, _FIELDS, "")
    config = body.get("generationConfig", {})
    _check_names(config, _KNOWN_CONFIG, " at 'generation_config'")
    for name, low, high in _RANGES:
        value = config.get(name, high)
        if isinstance(value, bool) or not isinstance(value, int | float):
            _invalid(f"Invalid value at 'generation_config.{name}' (TYPE_FLOAT), {json.dumps(value)}")
        if not low <= value <= high:
            _invalid(f"Unable to submit request because {name} value must be in the range from {low} to {high}.")
    contents = body.get("contents")
    if not isinstance(contents, list) or not contents:
        _invalid("* GenerateContentRequest.contents: contents is not specified\n")
    for at, content in enumerate(contents):
        _check_content(content, at)
    _check_functions(body)
    _check_results(contents)
    if (size := _size(body)) > _CONTEXT_TOKENS:
        _invalid(f"The input token count ({size}) exceeds the maximum number of tokens allowed ({_CONTEXT_TOKENS}).")
    return body


def _check_names(value: Any, known: Any, where: str) -> None:
    if not isinstance(value, dict):
        _invalid(f"Invalid value{where}: an object is expected")
    for name in value:
        if name not in known:
            _invalid(f'Invalid JSON payload received. Unknown name "{name}"{where}: Cannot find field.')


def _check_content(content: Any, at: int) -> None:
    role = content.get("role", "user") if isinstance(content, dict) else None
    if role not in ("user", "model", "function"):
        _invalid("Please use a valid role: user, model.")
    if not _parts(content):
        _invalid(f"* GenerateContentRequest.contents[{at}].parts: contents.parts must not be empty.\n")
    for number, part in enumerate(_parts(content)):
        where = f"GenerateContentRequest.contents[{at}].parts[{number}]"
        given = [name for name in _DATA if name in part]
        if len(given) != 1:
            _invalid(f"* {where}.data: required oneof field 'data' must have one initialized field\n")
        value = part[given[0]]
        match given[0], value:
            case (
                ("text", str()) | ("inlineData", {"mimeType": str(), "data": str()}) | ("fileData", {"fileUri": str()})
            ):
                pass
            case ("functionCall", {"name": str(), "args": dict()}):
                pass
            case ("functionResponse", {"name": str(), "response": dict()}):
                pass
            case _:
                _invalid(f"Invalid value at 'contents[{at}].parts[{number}].{given[0]}'")


def _check_functions(body: dict[str, Any]) -> None:
    declared = []
    for at, tool in enumerate(body.get("tools", [])):
        _check_names(
            tool, ("functionDeclarations", "googleSearch", "codeExecution", "urlContext"), f" at 'tools[{at}]'"
        )
        declared += tool.get("functionDeclarations", [])
    for function in declared:
        _check_names(function, ("name", "description", "parameters", "parametersJsonSchema"), " at 'tools'")
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.:-]{0,127}", str(function.get("name", ""))):
            _invalid("* GenerateContentRequest.tools[0].function_declarations[0].name: Invalid function name.\n")
    choice = (body.get("toolConfig") or {}).get("functionCallingConfig") or {}
    if choice.get("mode", "AUTO") not in ("AUTO", "ANY", "NONE", "VALIDATED"):
        _invalid(f"Invalid value at 'tool_config.function_calling_config.mode', {json.dumps(choice['mode'])}")
    for name in choice.get("allowedFunctionNames", []):
        if name not in [function["name"] for function in declared]:
            _invalid(f"allowed_function_names should be a subset of the declared functions: {name}")


def _check_results(contents: list[dict[str, Any]]) -> None:
    """A turn of calls is followed by a turn with as many results."""
    for before, after in zip(contents, [*contents[1:], {}], strict=True):
        called = sum("functionCall" in part for part in _parts(before))
        given = sum("functionResponse" in part for part in _parts(after))
        if (called or given) and called != given:
            _invalid(
                "Please ensure that the number of function response parts is equal to the number of function call "
                "parts of the function call turn."
            )


def _size(body: dict[str, Any]) -> int:
    texts = (_text(content) for content in [body.get("systemInstruction"), *body["contents"]])
    return sum(len(text) // 4 + 3 for text in texts if text)


# The answer


def _generate(visit: Visit, body: dict[str, Any], model: str, streamed: bool) -> Reply:
    wanted, contents = visit.wanted, body["contents"]
    question = _text(contents[-1])
    if "guest-limit" in wanted:
        return _error(429, _FAILURES[429])
    if "upstream-error" in wanted:
        return _error(503, _FAILURES[503])
    head = {"modelVersion": model, "responseId": secrets.token_urlsafe(16)}
    if "banned" in wanted or "forbiddenword" in question:
        chunks = [{"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, **head}]
        return _stream(chunks, visit) if streamed else json_reply(200, chunks[0])
    calls = _calls(body, question)
    sent = len(contents) + bool(body.get("systemInstruction"))
    texts = [] if calls else tokens(answer("demo", question, sent), wanted)
    config = body.get("generationConfig") or {}
    limit = config.get("maxOutputTokens", len(texts))
    reason = "MAX_TOKENS" if limit < len(texts) else "STOP"
    texts = texts[: int(limit)]
    thinks = (config.get("thinkingConfig") or {}).get("includeThoughts") is True
    parts: list[dict[str, Any]] = (
        [{"text": "The question is quoted, then answered.", "thought": True}] if thinks else []
    )
    prompt, spent = _size(body), len(texts) or len(calls) * 10
    usage = {"promptTokenCount": prompt, "candidatesTokenCount": spent, "totalTokenCount": prompt + spent}
    if streamed:
        return _stream(
            _chunks([*parts, *({"text": text} for text in texts), *calls], reason, usage, head, wanted), visit
        )
    if "upstream-cut" in wanted or "upstream-event" in wanted:
        return _error(500, "An internal error has occurred. Please retry or report.")
    whole = [*parts, *([{"text": "".join(texts)}] if texts else []), *calls]
    return json_reply(200, _chunk(whole, usage, head, reason))


def _calls(body: dict[str, Any], question: str) -> list[dict[str, Any]]:
    declared = [function for tool in body.get("tools", []) for function in tool.get("functionDeclarations", [])]
    choice = (body.get("toolConfig") or {}).get("functionCallingConfig") or {}
    if choice.get("mode") == "NONE":
        return []
    made = []
    for function in declared[: tools_called(question, len(declared))]:
        schema = function.get("parametersJsonSchema", function.get("parameters"))
        made.append({"functionCall": {"name": function["name"], "args": example_arguments(schema)}})
    return made


def _chunk(
    parts: list[dict[str, Any]], usage: dict[str, Any], head: dict[str, Any], reason: str = ""
) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"parts": parts, "role": "model"}, "index": 0}
    if reason:
        candidate["finishReason"] = reason
    return {"candidates": [candidate], "usageMetadata": usage, **head}


def _chunks(
    parts: list[dict[str, Any]], reason: str, usage: dict[str, Any], head: dict[str, Any], wanted: Wanted
) -> list[dict[str, Any]]:
    stop = next((name for name in ("upstream-cut", "upstream-event") if name in wanted), None)
    if stop:
        made = [_chunk([part], usage, head) for part in parts[: int(wanted[stop])]]
        return made + ([_fault(500, "An internal error has occurred.")] if stop == "upstream-event" else [])
    return [*(_chunk([part], usage, head) for part in parts), _chunk([{"text": ""}], usage, head, reason)]


def _stream(chunks: list[dict[str, Any]], visit: Visit) -> Reply:
    written = [(json_text(chunk, ascii_only=False), _kind(chunk)) for chunk in chunks]
    if visit.query.get("alt") == "sse":
        kind = "text/event-stream"
        pieces = [Piece(b"data: %s\r\n\r\n" % data, about) for data, about in written]
    else:
        kind = "application/json; charset=UTF-8"
        pieces = [Piece((b",\r\n" if at else b"[") + data, about) for at, (data, about) in enumerate(written)]
        pieces.append(Piece(b"]\n", "end"))
    return Reply(200, [("Content-Type", kind)], pieces, stream=True)


def _kind(chunk: dict[str, Any]) -> Kind:
    ends = "error" in chunk or "promptFeedback" in chunk or "finishReason" in chunk["candidates"][0]
    return "end" if ends else "token"
