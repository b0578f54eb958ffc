"""OpenAI's API at `/v1`, as strict about arguments as the real one: here models and chat completions.

The Responses API and embeddings stand in modules of their own.
"""

import json
import secrets
import time
from typing import Any, ClassVar

from tolmach.demo.answers import answer, last_question, tokens
from tolmach.demo.base import Kind, Piece, Reply, Step, Visit, World, json_reply, json_text, server_sent_event
from tolmach.demo.faults import Wanted, wish_in
from tolmach.demo.openai.api import (
    EMBEDDING_MODELS,
    MODELS,
    Refused,
    body_of,
    check_model,
    check_number,
    error,
    ids,
    kind_of,
    object_body,
)
from tolmach.demo.openai.embeddings import embeddings
from tolmach.demo.openai.responses import Responses, last_input
from tolmach.demo.tools import example_arguments, tools_called
from tolmach.wire import Request

__all__ = ["OpenAi"]

_CONTEXT_TOKENS = 128_000
_ROLES = ("system", "assistant", "user", "function", "tool", "developer")
_KNOWN = frozenset(
    [
        "model",
        "messages",
        "stream",
        "stream_options",
        "max_tokens",
        "max_completion_tokens",
        "temperature",
        "top_p",
        "n",
        "stop",
        "presence_penalty",
        "frequency_penalty",
        "logit_bias",
        "logprobs",
        "top_logprobs",
        "user",
        "seed",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "functions",
        "function_call",
        "response_format",
        "metadata",
        "store",
        "service_tier",
        "reasoning_effort",
        "modalities",
        "audio",
        "prediction",
        "verbosity",
        "web_search_options",
        "prompt_cache_key",
        "safety_identifier",
    ]
)


class OpenAi:
    """The API. It wants a bearer, any, unless the demo was told otherwise."""

    kind: ClassVar[str] = "openai"

    def __init__(self, world: World, mount: str) -> None:
        self.mount = mount
        self._require_key = world.settings.require_key
        self._responses = Responses()

    def step(self, method: str, path: str, request: Request) -> Step:
        return "chat" if path in ("/chat/completions", "/responses") else "other"

    def wish(self, visit: Visit) -> str:
        body = body_of(visit) if visit.mentions_faults else None
        if not isinstance(body, dict):
            return ""
        messages = body.get("messages")
        last = messages[-1] if isinstance(messages, list) and messages else None
        question = _text(last.get("content")) if isinstance(last, dict) else last_input(body.get("input"))
        return wish_in(last_question(question), str(body.get("model", "")))

    def respond(self, visit: Visit) -> Reply:
        try:
            self._authorize(visit)
            if visit.path == "/models" or visit.path.startswith("/models/"):
                return _models(visit)
            if visit.path not in ("/chat/completions", "/responses", "/embeddings"):
                raise Refused(404, f"Invalid URL ({visit.request.method} {visit.mount}{visit.path})")
            if visit.request.method != "POST":
                raise Refused(405, "Only POST requests are accepted.", code="method_not_supported")
            if visit.path == "/responses":
                return self._responses.answer(visit, object_body(visit))
            if visit.path == "/embeddings":
                return embeddings(object_body(visit))
            return _chat(visit, _checked(visit))
        except Refused as refused:
            return refused.reply

    def _authorize(self, visit: Visit) -> None:
        kind, _, key = visit.header("authorization").partition(" ")
        if self._require_key and not (kind.lower() == "bearer" and key.strip()):
            raise Refused(
                401,
                "You didn't provide an API key. You need to provide your API key in an Authorization header using "
                "Bearer auth (i.e. Authorization: Bearer YOUR_KEY).",
            )

    def failure(self, visit: Visit, status: int) -> Reply:
        message, kind, code = _FAILURES.get(status, _FAILURES[500])
        return error(status, message, kind, None, code)


_FAILURES: dict[int, tuple[str, str, str | None]] = {
    401: ("Incorrect API key provided.", "invalid_request_error", "invalid_api_key"),
    429: ("Rate limit reached for demo on requests per min (RPM): Limit 3, Used 3.", "requests", "rate_limit_exceeded"),
    500: ("The server had an error while processing your request. Sorry about that!", "server_error", None),
}


def _text(content: Any) -> str:
    """The text of a message's content: a string, or parts of which some are text."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "".join(str(part.get("text", "")) for part in parts if isinstance(part, dict))


def _models(visit: Visit) -> Reply:
    if visit.request.method != "GET":
        raise Refused(405, "Only GET requests are accepted.", code="method_not_supported")
    names = [*MODELS, *EMBEDDING_MODELS]
    models = [{"id": name, "object": "model", "created": 1715367049, "owned_by": "demo"} for name in names]
    if visit.path == "/models":
        return json_reply(200, {"object": "list", "data": models}, ids())
    name = visit.path.removeprefix("/models/")
    if name not in names:
        raise Refused(404, f"The model '{name}' does not exist", param="model", code="model_not_found")
    return json_reply(200, models[names.index(name)], ids())


def _checked(visit: Visit) -> dict[str, Any]:
    """The body, once it is right."""
    body = object_body(visit)
    for name in body:
        if name not in _KNOWN:
            raise Refused(400, f"Unrecognized request argument supplied: {name}")
    check_model(body.get("model"))
    for name, low, high in _RANGES:
        check_number(body, name, low, high)
    if body.get("stream_options") is not None and body.get("stream") is not True:
        text = "The 'stream_options' parameter is only allowed when 'stream' is enabled."
        raise Refused(400, text, param="stream_options")
    if not isinstance(tools := body.get("tools"), list | None):
        text = f"Invalid type for 'tools': expected an array of objects, but got {kind_of(tools)} instead."
        raise Refused(400, text, param="tools", code="invalid_type")
    _check_messages(body)
    return body


_RANGES = (
    ("temperature", 0, 2),
    ("top_p", 0, 1),
    ("presence_penalty", -2, 2),
    ("frequency_penalty", -2, 2),
    ("n", 1, 128),
    ("max_tokens", 1, 1 << 31),
    ("max_completion_tokens", 1, 1 << 31),
)


def _check_messages(body: dict[str, Any]) -> None:
    messages = body.get("messages")
    if messages is None:
        text = "Missing required parameter: 'messages'."
        raise Refused(400, text, param="messages", code="missing_required_parameter")
    if not isinstance(messages, list):
        text = f"Invalid type for 'messages': expected an array of objects, but got {kind_of(messages)} instead."
        raise Refused(400, text, param="messages", code="invalid_type")
    if not messages:
        text = (
            "Invalid 'messages': empty array. Expected an array with minimum length 1, but got an empty array instead."
        )
        raise Refused(400, text, param="messages", code="empty_array")
    for at, message in enumerate(messages):
        if not isinstance(message, dict):
            text = f"Invalid type for 'messages[{at}]': expected an object, but got {kind_of(message)} instead."
            raise Refused(400, text, param=f"messages[{at}]", code="invalid_type")
        role = message.get("role")
        if role not in _ROLES:
            text = f"Invalid value: '{role}'. Supported values are: {', '.join(repr(name) for name in _ROLES)}."
            raise Refused(400, text, param=f"messages[{at}].role", code="invalid_value")
        content = message.get("content")
        if not isinstance(content, str | list) and not (role == "assistant" and message.get("tool_calls")):
            text = f"Invalid value for 'content': expected a string, got {json.dumps(content)}."
            raise Refused(400, text, param=f"messages[{at}].content")
    size = sum(len(_text(message.get("content"))) for message in messages) // 4
    if size > _CONTEXT_TOKENS:
        text = (
            f"This model's maximum context length is {_CONTEXT_TOKENS} tokens. However, your messages resulted in "
            f"{size} tokens. Please reduce the length of the messages."
        )
        raise Refused(400, text, param="messages", code="context_length_exceeded")


def _chat(visit: Visit, body: dict[str, Any]) -> Reply:
    wanted, messages = visit.wanted, body["messages"]
    question = _text(messages[-1].get("content"))
    if "guest-limit" in wanted:
        text = "You exceeded your current quota, please check your plan and billing details."
        return error(429, text, "insufficient_quota", None, "insufficient_quota")
    if "banned" in wanted or "forbiddenword" in question:
        text = "Your request was rejected as a result of our safety system."
        return error(400, text, "invalid_request_error", None, "content_policy_violation")
    if "no-prefill" in wanted and messages[-1].get("role") == "assistant":
        raise Refused(400, "This model does not support assistant message prefill.", param="messages")
    if "upstream-error" in wanted:
        return error(503, "The engine is currently overloaded, please try again later.", "server_error", None, None)
    calls = _tool_calls(body, question)
    texts = [] if calls else tokens(answer("demo", question, len(messages)), wanted)
    limit = int(body.get("max_completion_tokens") or body.get("max_tokens") or len(texts))
    reason = "tool_calls" if calls else "length" if limit < len(texts) else "stop"
    texts = texts[:limit]
    prompt = sum(len(_text(message.get("content"))) // 4 + 3 for message in messages)
    spent = len(texts) or len(calls) * 10
    usage = {"prompt_tokens": prompt, "completion_tokens": spent, "total_tokens": prompt + spent}
    head = {"id": f"chatcmpl-{secrets.token_hex(12)}", "created": int(time.time()), "model": body["model"]}
    choices = int(body.get("n") or 1)
    if body.get("stream") is True:
        pieces = _stream(head, choices, texts, calls, reason, wanted)
        if (body.get("stream_options") or {}).get("include_usage"):
            pieces.insert(-1, _event({**head, "object": _CHUNK, "choices": [], "usage": usage}, "mark"))
        headers = [("Content-Type", "text/event-stream; charset=utf-8"), ("Cache-Control", "no-cache"), *ids()]
        return Reply(200, headers, pieces, stream=True)
    if "upstream-cut" in wanted or "upstream-event" in wanted:
        return error(*_CUT)
    message: dict[str, Any] = {"role": "assistant", "content": "".join(texts) if not calls else None, "refusal": None}
    if calls:
        message["tool_calls"] = calls
    made = [{"index": at, "message": message, "logprobs": None, "finish_reason": reason} for at in range(choices)]
    return json_reply(200, {**head, "object": "chat.completion", "choices": made, "usage": usage}, ids())


_CHUNK = "chat.completion.chunk"
_CUT = (502, "The server had an error while processing your request.", "server_error", None, None)


def _tool_calls(body: dict[str, Any], question: str) -> list[dict[str, Any]]:
    """Calls of the tools that the question asks to use."""
    tools = body.get("tools") or []
    functions = [tool.get("function") or {} for tool in tools if isinstance(tool, dict)]
    return [
        {
            "id": f"call_{secrets.token_hex(12)}",
            "type": "function",
            "function": {
                "name": function.get("name", ""),
                "arguments": json.dumps(example_arguments(function.get("parameters"))),
            },
        }
        for function in functions[: tools_called(question, len(functions))]
    ]


def _event(value: dict[str, Any], kind: Kind = "token") -> Piece:
    return Piece(server_sent_event(json_text(value, ascii_only=False)), kind)


def _stream(
    head: dict[str, Any], choices: int, texts: list[str], calls: list[dict[str, Any]], reason: str, wanted: Wanted
) -> list[Piece]:
    def chunk(delta: dict[str, Any], kind: Kind, finish: str | None = None) -> list[Piece]:
        made = ({"index": at, "delta": delta, "logprobs": None, "finish_reason": finish} for at in range(choices))
        return [_event({**head, "object": _CHUNK, "choices": [choice]}, kind) for choice in made]

    stop = next((name for name in ("upstream-cut", "upstream-event") if name in wanted), None)
    if stop:
        texts = texts[: int(wanted[stop])]
    pieces = chunk({"role": "assistant", "content": None if calls else "", "refusal": None}, "lead")
    for text in texts:
        pieces += chunk({"content": text}, "token")
    for at, call in enumerate(calls):
        function = call["function"]
        pieces += chunk({"tool_calls": [{**call, "index": at, "function": {**function, "arguments": ""}}]}, "token")
        arguments = function["arguments"]
        for start in range(0, len(arguments), 8):
            part = {"index": at, "function": {"arguments": arguments[start : start + 8]}}
            pieces += chunk({"tool_calls": [part]}, "token")
    if stop == "upstream-event":
        error = {"message": _CUT[1], "type": "server_error", "param": None, "code": None}
        return [*pieces, _event({"error": error}, "end")]
    if stop:
        return pieces
    return [*pieces, *chunk({}, "end", reason), Piece(b"data: [DONE]\n\n", "mark")]
