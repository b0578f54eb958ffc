"""Ollama at `/ollama`: /api/chat as JSON lines or one object, /api/tags and /api/version; no key, as the real one."""

import base64
import binascii
import json
import secrets
from typing import Any, ClassVar

from tolmach.demo.answers import answer, last_question, tokens
from tolmach.demo.base import Kind, Piece, Reply, Step, Visit, World, json_reply, json_text, text_reply
from tolmach.demo.faults import Wanted, wish_in
from tolmach.demo.tools import example_arguments, tools_called
from tolmach.wire import Request

__all__ = ["Ollama"]

MODELS = ("demo", "llama3.2", "qwen3", "gpt-oss:20b")
_MADE = "2026-11-20T23:53:57.000000Z"
_NUMBERS = ("temperature", "top_p", "min_p", "presence_penalty", "frequency_penalty")
_WHOLE_NUMBERS = ("seed", "top_k", "num_predict", "num_ctx")
_BROKEN = "an error was encountered while running the model: unexpected EOF"


class _Refused(Exception):
    """A request that the server refuses, with what it answers."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.reply = _error(status, message)


class Ollama:
    """The server. It knows the models of `MODELS`, each also as `NAME:latest`."""

    kind: ClassVar[str] = "ollama"

    def __init__(self, world: World, mount: str) -> None:
        self.mount = mount

    def step(self, method: str, path: str, request: Request) -> Step:
        return "chat" if path == "/api/chat" else "other"

    def wish(self, visit: Visit) -> str:
        body = _body(visit) if visit.mentions_faults else None
        if not isinstance(body, dict):
            return ""
        return wish_in(last_question(_question(body.get("messages"))), str(body.get("model", "")))

    def respond(self, visit: Visit) -> Reply:
        route = visit.request.method, visit.path
        if route in (("GET", "/"), ("HEAD", "/")):
            return text_reply(200, "Ollama is running")
        if route == ("GET", "/api/version"):
            return json_reply(200, {"version": "0.13.0"})
        if route == ("GET", "/api/tags"):
            return json_reply(200, {"models": [_about(name) for name in MODELS]})
        if route != ("POST", "/api/chat"):
            known = visit.path in ("/", "/api/version", "/api/tags", "/api/chat")
            return text_reply(405 if known else 404, f"{'405 method not allowed' if known else '404 page not found'}")
        try:
            return _chat(visit, _checked(visit))
        except _Refused as refused:
            return refused.reply

    def failure(self, visit: Visit, status: int) -> Reply:
        return _error(status, _FAILURES.get(status, "model runner has unexpectedly stopped"))


_FAILURES = {401: "unauthorized", 429: "too many requests"}


def _error(status: int, message: str) -> Reply:
    return json_reply(status, {"error": message})


def _about(name: str) -> dict[str, Any]:
    full = name if ":" in name else f"{name}:latest"
    details = {"format": "gguf", "family": "demo", "parameter_size": "1B", "quantization_level": "Q4_K_M"}
    return {"name": full, "model": full, "modified_at": _MADE, "size": 1, "digest": "0" * 64, "details": details}


def _body(visit: Visit) -> Any:
    try:
        return json.loads(visit.request.body)
    except ValueError:
        return None


def _question(messages: Any) -> str:
    last = messages[-1] if isinstance(messages, list) and messages else None
    content = last.get("content") if isinstance(last, dict) else None
    return content if isinstance(content, str) else ""


def _checked(visit: Visit) -> dict[str, Any]:
    """The body, once it is right. Fields that are not known are passed over, as the real server does."""
    if not visit.request.body:
        raise _Refused(400, "missing request body")
    body = _body(visit)
    if not isinstance(body, dict):
        raise _Refused(400, "invalid character in the request body")
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise _Refused(400, "model is required")
    if model.removesuffix(":latest") not in MODELS and not model.startswith("fault:"):
        raise _Refused(404, f"model '{model}' not found")
    messages = body.get("messages") or []
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise _mistyped("messages", "[]api.Message")
    for message in messages:
        _check_message(message)
    _check_options(body)
    return body


def _mistyped(field: str, kind: str) -> _Refused:
    return _Refused(400, f"json: cannot unmarshal value into Go struct field ChatRequest.{field} of type {kind}")


def _check_message(message: dict[str, Any]) -> None:
    if not isinstance(message.get("role"), str) or not isinstance(message.get("content", ""), str):
        raise _mistyped("messages.content", "string")
    for image in message.get("images") or []:
        try:
            base64.b64decode(image, validate=True)
        except (binascii.Error, TypeError, ValueError) as error:
            raise _Refused(400, "illegal base64 data at input byte 4") from error
    for call in message.get("tool_calls") or []:
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("arguments"), dict):
            raise _mistyped("messages.tool_calls.function.arguments", "api.ToolCallFunctionArguments")


def _check_options(body: dict[str, Any]) -> None:
    if not isinstance(body.get("stream", True), bool):
        raise _mistyped("stream", "bool")
    form = body.get("format")
    if form is not None and form not in ("", "json") and not isinstance(form, dict):
        raise _Refused(400, f'invalid format: {json.dumps(form)}; expected "json" or a valid JSON Schema object')
    think = body.get("think")
    if think is not None and not isinstance(think, bool) and think not in ("low", "medium", "high", "max"):
        raise _Refused(
            400, f'invalid think value: {json.dumps(think)} (must be "high", "medium", "low", true, or false)'
        )
    options = body.get("options") or {}
    if not isinstance(options, dict):
        raise _mistyped("options", "map[string]interface {}")
    for name, value in options.items():
        wrong = isinstance(value, bool) or not isinstance(value, int | float)
        if name in _NUMBERS and wrong:
            raise _Refused(400, f'option "{name}" must be of type float32')
        if name in _WHOLE_NUMBERS and (wrong or value != int(value)):
            raise _Refused(400, f'option "{name}" must be of type integer')
        if name == "stop" and not isinstance(value, list):
            raise _Refused(400, 'option "stop" must be of type array')


def _chat(visit: Visit, body: dict[str, Any]) -> Reply:
    wanted, messages = visit.wanted, body.get("messages") or []
    if "guest-limit" in wanted:
        return _error(429, "you've reached your hourly usage limit, please upgrade to continue")
    if "upstream-error" in wanted:
        return _error(503, "server busy, please try again.  maximum pending requests exceeded")
    if not messages:
        # The model is loaded, and that is all.
        return json_reply(200, _line(body, {"content": ""}, done=True) | {"done_reason": "load"})
    question = _question(messages)
    calls = _tool_calls(body, question)
    texts = [] if calls else tokens(answer("demo", question, len(messages)), wanted)
    limit = (body.get("options") or {}).get("num_predict", -1)
    reason = "stop"
    if 0 < limit < len(texts):
        texts, reason = texts[: int(limit)], "length"
    prompt = sum(len(message.get("content", "")) // 4 + 3 for message in messages)
    end = _line(body, {"content": ""}, done=True) | {
        "done_reason": reason,
        "total_duration": 4_883_583_458,
        "load_duration": 1_334_875,
        "prompt_eval_count": prompt,
        "prompt_eval_duration": 342_546_000,
        "eval_count": len(texts) or len(calls) * 10,
        "eval_duration": 4_535_599_000,
    }
    thought = "The question is quoted, then answered." if body.get("think") else ""
    if body.get("stream", True):
        return _stream(body, thought, texts, calls, end, wanted)
    if "upstream-cut" in wanted or "upstream-event" in wanted:
        return _error(500, _BROKEN)
    message: dict[str, Any] = {"content": "".join(texts)}
    if thought:
        message["thinking"] = thought
    if calls:
        message["tool_calls"] = calls
    return json_reply(200, end | _line(body, message, done=True))


def _line(body: dict[str, Any], message: dict[str, Any], *, done: bool = False) -> dict[str, Any]:
    return {"model": body["model"], "created_at": _MADE, "message": {"role": "assistant", **message}, "done": done}


def _tool_calls(body: dict[str, Any], question: str) -> list[dict[str, Any]]:
    functions = [tool.get("function") or {} for tool in body.get("tools") or [] if isinstance(tool, dict)]
    called = functions[: tools_called(question, len(functions))]
    return [
        {
            "id": f"call_{secrets.token_hex(4)}",
            "function": {
                "index": at,
                "name": function.get("name", ""),
                "arguments": example_arguments(function.get("parameters")),
            },
        }
        for at, function in enumerate(called)
    ]


def _stream(
    body: dict[str, Any],
    thought: str,
    texts: list[str],
    calls: list[dict[str, Any]],
    end: dict[str, Any],
    wanted: Wanted,
) -> Reply:
    def piece(value: dict[str, Any], kind: Kind = "token") -> Piece:
        return Piece(json_text(value, ascii_only=False) + b"\n", kind)

    stop = next((name for name in ("upstream-cut", "upstream-event") if name in wanted), None)
    if stop:
        texts = texts[: int(wanted[stop])]
    pieces = [piece(_line(body, {"content": "", "thinking": thought}), "lead")] if thought else []
    pieces += [piece(_line(body, {"content": text})) for text in texts]
    pieces += [piece(_line(body, {"content": "", "tool_calls": [call]})) for call in calls]
    if stop == "upstream-event":
        pieces.append(piece({"error": _BROKEN}, "end"))
    elif stop is None:
        pieces.append(piece(end, "end"))
    return Reply(200, [("Content-Type", "application/x-ndjson")], pieces, stream=True)
