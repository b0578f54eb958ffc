"""Anthropic's Messages API at `/anthropic`, as strict about headers, fields and the order of blocks as the real one."""

import json
import re
import secrets
from collections.abc import Iterator
from typing import Any, ClassVar, NoReturn

from tolmach.demo.answers import answer, tokens
from tolmach.demo.base import Headers, Kind, Piece, Reply, Step, Visit, World, json_reply, json_text, server_sent_event
from tolmach.demo.faults import wish_in
from tolmach.demo.tools import example_arguments, tools_called
from tolmach.wire import Request

__all__ = ["Anthropic"]

MODELS = ("demo", "claude-opus-4-5", "claude-sonnet-4-5", "claude-haiku-4-5")
_CONTEXT_TOKENS = 200_000
_VERSIONS = ("2023-01-01", "2023-06-01", "2026-10-21")
_SAMPLING = frozenset({"temperature", "top_p", "top_k"})
_KNOWN = frozenset(
    [
        "model",
        "messages",
        "max_tokens",
        "system",
        "stream",
        "temperature",
        "top_p",
        "top_k",
        "stop_sequences",
        "tools",
        "tool_choice",
        "thinking",
        "output_config",
        "metadata",
        "service_tier",
        "container",
        "cache_control",
        "context_management",
        "mcp_servers",
        "inference_geo",
    ]
)
_COUNTED = frozenset({"model", "messages", "system", "tools", "tool_choice", "thinking", "output_config"})
_BLOCKS = {
    "user": ("text", "image", "tool_result", "document", "search_result"),
    "assistant": ("text", "tool_use", "thinking", "redacted_thinking"),
}
_PICTURES = ("image/jpeg", "image/png", "image/gif", "image/webp")
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")


class _Refused(Exception):
    """A request that the API refuses, with what it answers."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.reply = _error(status, message)


_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}


def _invalid(message: str) -> NoReturn:
    raise _Refused(400, message)


class Anthropic:
    """The API. It wants a key, any, unless the demo was told otherwise, and the version's header."""

    kind: ClassVar[str] = "anthropic"

    def __init__(self, world: World, mount: str) -> None:
        self.mount = mount
        self._require_key = world.settings.require_key

    def step(self, method: str, path: str, request: Request) -> Step:
        return "chat" if path == "/v1/messages" else "other"

    def wish(self, visit: Visit) -> str:
        body = _body(visit) if visit.mentions_faults else None
        if not isinstance(body, dict):
            return ""
        messages = body.get("messages")
        last = messages[-1] if isinstance(messages, list) and messages else None
        question = _text(last.get("content")) if isinstance(last, dict) else ""
        return wish_in(question, str(body.get("model", "")))

    def respond(self, visit: Visit) -> Reply:
        try:
            self._authorize(visit)
            if visit.path == "/v1/models" and visit.request.method == "GET":
                return _models()
            if visit.path not in ("/v1/messages", "/v1/messages/count_tokens"):
                raise _Refused(404, "Not Found")
            if visit.request.method != "POST":
                raise _Refused(405, "Method Not Allowed")
            if visit.path == "/v1/messages":
                body = _checked(visit, _KNOWN)
                _check_limits(body)
                return _chat(visit, body)
            return json_reply(200, {"input_tokens": _size(_checked(visit, _COUNTED))}, _ids())
        except _Refused as refused:
            return refused.reply

    def _authorize(self, visit: Visit) -> None:
        bearer = visit.header("authorization").removeprefix("Bearer ")
        if self._require_key and not (visit.header("x-api-key") or bearer):
            raise _Refused(401, "x-api-key header is required")
        version = visit.header("anthropic-version")
        if not version:
            _invalid("anthropic-version: header is required")
        if version not in _VERSIONS:
            _invalid(f'anthropic-version: "{version}" is not a valid version')

    def failure(self, visit: Visit, status: int) -> Reply:
        return _error(status, _FAILURES.get(status, "Internal server error"))


_FAILURES = {401: "invalid x-api-key", 429: "This request would exceed your organization's rate limit of 5 requests."}


def _error(status: int, message: str) -> Reply:
    ids = _ids()
    error = {"type": _TYPES.get(status, "api_error"), "message": message}
    return json_reply(status, {"type": "error", "error": error, "request_id": ids[0][1]}, ids)


def _ids() -> Headers:
    return [("request-id", f"req_{secrets.token_hex(12)}"), ("anthropic-organization-id", "demo")]


def _body(visit: Visit) -> Any:
    try:
        return json.loads(visit.request.body)
    except ValueError:
        return None


def _text(content: Any) -> str:
    """The text of a message's content, with that of the tools' results in it."""
    if isinstance(content, str):
        return content
    blocks = [block for block in content if isinstance(block, dict)] if isinstance(content, list) else []
    texts = (block.get("text") if block.get("type") == "text" else _text(block.get("content")) for block in blocks)
    return "".join(text for text in texts if isinstance(text, str))


def _models() -> Reply:
    made = [
        {"type": "model", "id": name, "display_name": name, "created_at": "2025-09-29T00:00:00Z"} for name in MODELS
    ]
    return json_reply(200, {"data": made, "has_more": False, "first_id": MODELS[0], "last_id": MODELS[-1]}, _ids())


# What is refused


def _checked(visit: Visit, known: frozenset[str]) -> dict[str, Any]:
    """The body, once it is right."""
    body = _body(visit) if visit.content_type == "application/json" else None
    if not isinstance(body, dict):
        _invalid("The request body is not valid JSON")
    if visit.header("anthropic-version") >= "2026-10-21":
        known -= _SAMPLING
    for name in body:
        if name not in known:
            _invalid(f"{name}: Extra inputs are not permitted")
    model = body.get("model")
    if not isinstance(model, str) or not model:
        _invalid("model: Field required" if model is None else "model: Input should be a valid string")
    if model not in MODELS and not model.startswith("fault:"):
        raise _Refused(404, f"model: {model}")
    if not isinstance(body.get("system", ""), str | list):
        _invalid("system: Input should be a valid string or a list of text blocks")
    _check_tools(body)
    messages = body.get("messages")
    if not isinstance(messages, list):
        _invalid("messages: Field required" if messages is None else "messages: Input should be a valid list")
    if not messages:
        _invalid("messages: at least one message is required")
    for at, message in enumerate(messages):
        _check_message(message, f"messages.{at}", last=at == len(messages) - 1)
    _check_results(messages)
    if (size := _size(body)) > _CONTEXT_TOKENS:
        _invalid(f"prompt is too long: {size} tokens > {_CONTEXT_TOKENS} maximum")
    return body


def _check_limits(body: dict[str, Any]) -> None:
    limit = body.get("max_tokens")
    if limit is None:
        _invalid("max_tokens: Field required")
    if isinstance(limit, bool) or not isinstance(limit, int):
        _invalid("max_tokens: Input should be a valid integer")
    if limit < 1:
        _invalid("max_tokens: must be greater than or equal to 1")
    for name in ("temperature", "top_p"):
        value = body.get(name, 0)
        if isinstance(value, bool) or not isinstance(value, int | float):
            _invalid(f"{name}: Input should be a valid number")
        if not 0 <= value <= 1:
            _invalid(f"{name}: range: 0..1")
    thinking = body.get("thinking")
    if not isinstance(thinking, dict | None):
        _invalid("thinking: Input should be a valid dictionary or object to extract fields from")
    if thinking and thinking.get("type") == "enabled":
        budget = thinking.get("budget_tokens")
        if not isinstance(budget, int) or budget < 1024:
            _invalid("thinking.enabled.budget_tokens: Input should be greater than or equal to 1024")
        if budget >= limit:
            _invalid("`max_tokens` must be greater than `thinking.budget_tokens`.")


def _check_tools(body: dict[str, Any]) -> None:
    tools = body.get("tools", [])
    if not isinstance(tools, list):
        _invalid("tools: Input should be a valid list")
    for at, tool in enumerate(tools):
        if not isinstance(tool, dict) or not isinstance(tool.get("name"), str):
            _invalid(f"tools.{at}.custom.name: Field required")
        if not _NAME.fullmatch(tool["name"]):
            _invalid(f"tools.{at}.custom.name: String should match pattern '^[a-zA-Z0-9_-]{{1,128}}$'")
        schema = tool.get("input_schema")
        if not isinstance(schema, dict):
            _invalid(f"tools.{at}.custom.input_schema: Field required")
        if schema.get("type") != "object":
            _invalid(f"tools.{at}.custom.input_schema.type: Input should be 'object'")
    choice = body.get("tool_choice")
    if choice is None:
        return
    if not tools:
        _invalid("tool_choice may only be specified while providing tools.")
    kind = choice.get("type") if isinstance(choice, dict) else None
    if kind not in ("auto", "any", "tool", "none"):
        _invalid("tool_choice: Input tag found using 'type' does not match any of the expected tags")
    if kind == "tool" and choice.get("name") not in [tool["name"] for tool in tools]:
        _invalid(f"Tool '{choice.get('name')}' not found in provided tools")


def _check_message(message: Any, where: str, *, last: bool) -> None:
    role = message.get("role") if isinstance(message, dict) else None
    if role == "system":
        _invalid(
            'messages: Unexpected role "system". The Messages API accepts a top-level `system` parameter, not "system" '
            "as an input message role."
        )
    if role not in _BLOCKS:
        _invalid(f"{where}.role: Input should be 'user' or 'assistant'")
    content = message.get("content")
    if not isinstance(content, str | list):
        _invalid(f"{where}.content: Field required" if content is None else f"{where}.content: Input should be a list")
    if not content and not (last and role == "assistant"):
        _invalid(f"{where}: all messages must have non-empty content except for the optional final assistant message")
    for at, block in enumerate(content if isinstance(content, list) else []):
        _check_block(block, f"{where}.content.{at}", role)


def _check_block(block: Any, where: str, role: str) -> None:
    kind = block.get("type") if isinstance(block, dict) else None
    if kind not in _BLOCKS[role]:
        _invalid(f"{where}: Input tag '{kind}' found using 'type' does not match any of the expected tags")
    if kind == "text" and not (isinstance(block.get("text"), str) and block["text"]):
        _invalid("messages: text content blocks must be non-empty")
    if kind == "tool_use" and not (
        isinstance(block.get("id"), str) and isinstance(block.get("name"), str) and isinstance(block.get("input"), dict)
    ):
        _invalid(f"{where}.tool_use.input: Input should be a valid dictionary")
    if kind == "tool_result" and not isinstance(block.get("tool_use_id"), str):
        _invalid(f"{where}.tool_result.tool_use_id: Field required")
    if kind == "image":
        _check_picture(block.get("source"), where)


def _check_picture(source: Any, where: str) -> None:
    match source:
        case {"type": "base64", "media_type": str(kind), "data": str(data)}:
            if kind not in _PICTURES:
                _invalid(f"{where}.image.source.base64.media_type: Input should be one of {', '.join(_PICTURES)}")
            if not data:
                _invalid(f"{where}.image.source.base64: image cannot be empty")
        case {"type": "url", "url": str(url)}:
            if not url.startswith("https://"):
                _invalid("Only HTTPS URLs are supported.")
        case _:
            _invalid(f"{where}.image.source: Field required")


def _ids_of(message: dict[str, Any], kind: str, key: str) -> list[str]:
    content = message["content"]
    return [block[key] for block in content if block["type"] == kind] if isinstance(content, list) else []


def _check_results(messages: list[dict[str, Any]]) -> None:
    """Each use of a tool has its result in the next message, and each result its use in the one before."""
    for at, message in enumerate(messages):
        before = _ids_of(messages[at - 1], "tool_use", "id") if at else []
        for id in _ids_of(message, "tool_result", "tool_use_id"):
            if id not in before:
                _invalid(
                    f"messages.{at}.content.0: unexpected `tool_use_id` found in `tool_result` blocks: {id}. Each "
                    "`tool_result` block must have a corresponding `tool_use` block in the previous message."
                )
        after = _ids_of(messages[at + 1], "tool_result", "tool_use_id") if at + 1 < len(messages) else []
        missing = [id for id in _ids_of(message, "tool_use", "id") if id not in after]
        if missing:
            _invalid(
                f"messages.{at}: `tool_use` ids were found without `tool_result` blocks immediately after: "
                f"{', '.join(missing)}. Each `tool_use` block must have a corresponding `tool_result` block in the "
                "next message."
            )


def _size(body: dict[str, Any]) -> int:
    texts = [_text(body.get("system", "")), *(_text(message.get("content")) for message in body["messages"])]
    return sum(len(text) // 4 + 3 for text in texts if text)


# The answer


def _chat(visit: Visit, body: dict[str, Any]) -> Reply:
    wanted, messages = visit.wanted, body["messages"]
    question = _text(messages[-1]["content"])
    if "guest-limit" in wanted:
        return _error(429, "Number of request tokens has exceeded your daily rate limit.")
    if "banned" in wanted or "forbiddenword" in question:
        return _error(400, "Output blocked by content filtering policy")
    if "no-prefill" in wanted and messages[-1]["role"] == "assistant":
        text = "This model does not support assistant message prefill. The conversation must end with a user message."
        return _error(400, text)
    if "upstream-error" in wanted:
        return _error(529, "Overloaded")
    uses = _uses(body, question)
    sent = len(messages) + bool(body.get("system"))
    texts = [] if uses else tokens(answer("demo", question, sent), wanted)
    reason = "tool_use" if uses else "max_tokens" if body["max_tokens"] < len(texts) else "end_turn"
    texts = texts[: body["max_tokens"]]
    usage = {
        "input_tokens": _size(body),
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": len(texts) or len(uses) * 10,
        "service_tier": "standard",
    }
    message = {
        "id": f"msg_{secrets.token_hex(12)}",
        "type": "message",
        "role": "assistant",
        "model": body["model"],
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": usage,
    }
    thinks = (body.get("thinking") or {}).get("type") in ("enabled", "adaptive")
    if body.get("stream") is True:
        stop = next((name for name in ("upstream-cut", "upstream-event") if name in wanted), None)
        texts = texts[: int(wanted[stop])] if stop else texts
        pieces = list(_stream(message, thinks, texts, uses))
        if stop != "upstream-cut":
            pieces += _broken_off() if stop else _ended(reason, usage)
        headers = [("Content-Type", "text/event-stream; charset=utf-8"), ("Cache-Control", "no-cache"), *_ids()]
        return Reply(200, headers, pieces, stream=True)
    if "upstream-cut" in wanted or "upstream-event" in wanted:
        return _error(500, "Internal server error")
    blocks: list[dict[str, Any]] = [{"type": "thinking", **_THOUGHT}] if thinks else []
    if texts:
        blocks.append({"type": "text", "text": "".join(texts)})
    return json_reply(200, {**message, "content": [*blocks, *uses], "stop_reason": reason}, _ids())


_THOUGHT = {"thinking": "The question is quoted, then answered.", "signature": "ZGVtbw=="}


def _uses(body: dict[str, Any], question: str) -> list[dict[str, Any]]:
    tools = body.get("tools") or []
    if (body.get("tool_choice") or {}).get("type") == "none":
        return []
    return [
        {
            "type": "tool_use",
            "id": f"toolu_{secrets.token_hex(12)}",
            "name": tool["name"],
            "input": example_arguments(tool["input_schema"]),
        }
        for tool in tools[: tools_called(question, len(tools))]
    ]


def _event(value: dict[str, Any], kind: Kind = "lead") -> Piece:
    return Piece(server_sent_event(json_text(value, ascii_only=False), value["type"]), kind)


def _block(index: int, block: dict[str, Any], deltas: list[dict[str, Any]], kind: Kind) -> Iterator[Piece]:
    yield _event({"type": "content_block_start", "index": index, "content_block": block})
    for delta in deltas:
        yield _event({"type": "content_block_delta", "index": index, "delta": delta}, kind)
    yield _event({"type": "content_block_stop", "index": index}, "end" if kind == "token" else kind)


def _stream(message: dict[str, Any], thinks: bool, texts: list[str], uses: list[dict[str, Any]]) -> Iterator[Piece]:
    started = {**message, "usage": {**message["usage"], "output_tokens": 1}}
    yield _event({"type": "message_start", "message": started})
    index = 0
    if thinks:
        said = [{"type": "thinking_delta", "thinking": _THOUGHT["thinking"]}]
        signed = {"type": "signature_delta", "signature": _THOUGHT["signature"]}
        yield from _block(0, {"type": "thinking", "thinking": "", "signature": ""}, [*said, signed], "lead")
        index = 1
    yield _event({"type": "ping"})
    if texts:
        said = [{"type": "text_delta", "text": text} for text in texts]
        yield from _block(index, {"type": "text", "text": ""}, said, "token")
    for at, use in enumerate(uses, index):
        written = json.dumps(use["input"], ensure_ascii=False)
        parts = [""] + [written[start : start + 8] for start in range(0, len(written), 8) if use["input"]]
        said = [{"type": "input_json_delta", "partial_json": part} for part in parts]
        yield from _block(at, {**use, "input": {}}, said, "token")


def _ended(reason: str, usage: dict[str, Any]) -> list[Piece]:
    delta = {"stop_reason": reason, "stop_sequence": None}
    counts = {name: value for name, value in usage.items() if name.endswith("tokens")}
    told = _event({"type": "message_delta", "delta": delta, "usage": counts}, "end")
    return [told, _event({"type": "message_stop"}, "mark")]


def _broken_off() -> list[Piece]:
    return [_event({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, "end")]
