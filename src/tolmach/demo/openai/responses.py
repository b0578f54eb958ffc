"""OpenAI's Responses at `/v1/responses`: streamed and not, tools, and the answers before (`previous_response_id`)."""

import json
import secrets
import time
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, NoReturn

from tolmach.demo.answers import answer, tokens
from tolmach.demo.base import Kind, Piece, Reply, Visit, json_reply, json_text, server_sent_event
from tolmach.demo.openai.api import Refused, check_known, check_model, check_number, error, ids, kind_of
from tolmach.demo.tools import example_arguments, tools_called

__all__ = ["Responses", "last_input"]

_KNOWN = frozenset(
    [
        "model",
        "input",
        "instructions",
        "stream",
        "stream_options",
        "temperature",
        "top_p",
        "max_output_tokens",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "max_tool_calls",
        "previous_response_id",
        "store",
        "reasoning",
        "text",
        "truncation",
        "metadata",
        "user",
        "safety_identifier",
        "prompt_cache_key",
        "service_tier",
        "include",
        "background",
        "top_logprobs",
    ]
)
_RANGES = (("temperature", 0, 2), ("top_p", 0, 1), ("max_output_tokens", 16, 1 << 31))
_CONTEXT_TOKENS = 128_000
_REMEMBERED = 1000
_PARTS = {
    "user": ("input_text", "input_image", "input_file"),
    "system": ("input_text",),
    "developer": ("input_text",),
    "assistant": ("output_text", "refusal"),
}
_FAILED = "The server had an error while processing your request."


def last_input(given: Any) -> str:
    """The text of the last item of the input."""
    if isinstance(given, str):
        return given
    return _text(given[-1]) if isinstance(given, list) and given else ""


def _text(item: Any) -> str:
    content = item.get("content", item.get("output")) if isinstance(item, dict) else None
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "".join(str(part.get("text", "")) for part in parts if isinstance(part, dict))


class Responses:
    """The endpoint, with the last answers, which a later request may go on from."""

    def __init__(self) -> None:
        self._items: OrderedDict[str, list[Any]] = OrderedDict()

    def answer(self, visit: Visit, body: dict[str, Any]) -> Reply:
        """The answer to a request. Raises `Refused`."""
        items = self._history(body) + _checked(body)
        _check_calls(items)
        size = sum(len(_text(item)) for item in items) // 4
        if size > _CONTEXT_TOKENS:
            text = "Your input exceeds the context window of this model. Please adjust your input and try again."
            raise Refused(400, text, param="input", code="context_length_exceeded")
        wanted, question = visit.wanted, _text(items[-1])
        if "guest-limit" in wanted:
            text = "You exceeded your current quota, please check your plan and billing details."
            return error(429, text, "insufficient_quota", None, "insufficient_quota")
        if "banned" in wanted or "forbiddenword" in question:
            text = "Your request was rejected as a result of our safety system."
            return error(400, text, "invalid_request_error", None, "content_policy_violation")
        if "upstream-error" in wanted:
            return error(503, "The engine is currently overloaded, please try again later.", "server_error", None, None)
        calls = _calls(body, question)
        sent = len(items) + bool(body.get("instructions"))
        texts = [] if calls else tokens(answer("demo", question, sent), wanted)
        limit = int(body.get("max_output_tokens") or len(texts))
        cut, texts = limit < len(texts), texts[:limit]
        output = _output(texts, calls, cut=cut)
        response = _response(body, output, size, len(texts) or len(calls) * 10, cut=cut)
        if body.get("store") is not False:
            self._remember(response["id"], items + output)
        if body.get("stream") is not True:
            if "upstream-cut" in wanted or "upstream-event" in wanted:
                return error(502, _FAILED, "server_error", None, None)
            return json_reply(200, response, ids())
        stop = next((name for name in ("upstream-cut", "upstream-event") if name in wanted), None)
        if stop:
            texts = texts[: int(wanted[stop])]
        headers = [("Content-Type", "text/event-stream; charset=utf-8"), ("Cache-Control", "no-cache"), *ids()]
        return Reply(200, headers, _numbered(_events(response, texts, stop)), stream=True)

    def _history(self, body: dict[str, Any]) -> list[Any]:
        before = body.get("previous_response_id")
        if before is None:
            return []
        if not isinstance(before, str):
            _mistyped("previous_response_id", "a string", before)
        if before not in self._items:
            text = f"Previous response with id '{before}' not found."
            raise Refused(400, text, param="previous_response_id", code="previous_response_not_found")
        return self._items[before]

    def _remember(self, id: str, items: list[Any]) -> None:
        self._items[id] = items
        while len(self._items) > _REMEMBERED:
            self._items.popitem(last=False)


# What is refused


def _checked(body: dict[str, Any]) -> list[Any]:
    """The items of the input, once the body is right."""
    check_known(body, _KNOWN, "Unknown parameter: '{name}'.")
    check_model(body.get("model"))
    for name, low, high in _RANGES:
        check_number(body, name, low, high)
    if not isinstance(tools := body.get("tools"), list | None):
        _mistyped("tools", "an array of objects", tools)
    for at, tool in enumerate(tools or []):
        if not isinstance(tool, dict) or tool.get("type") != "function":
            _missing(f"tools[{at}].type")
        if not isinstance(tool.get("name"), str):
            _missing(f"tools[{at}].name")
        if not isinstance(tool.get("parameters", {}), dict | None):
            _mistyped(f"tools[{at}].parameters", "an object", tool["parameters"])
    given = body.get("input")
    if isinstance(given, str):
        return [{"role": "user", "content": given}]
    if given is None:
        _missing("input")
    if not isinstance(given, list):
        _mistyped("input", "one of a string or array of input items", given)
    if not given:
        raise Refused(400, "Invalid 'input': empty array.", param="input", code="empty_array")
    for at, item in enumerate(given):
        _check_item(item, f"input[{at}]")
    return given


def _missing(name: str) -> NoReturn:
    raise Refused(400, f"Missing required parameter: '{name}'.", param=name, code="missing_required_parameter")


def _mistyped(name: str, expected: str, value: Any) -> NoReturn:
    text = f"Invalid type for '{name}': expected {expected}, but got {kind_of(value)} instead."
    raise Refused(400, text, param=name, code="invalid_type")


_STRINGS = {
    "function_call": ("call_id", "name", "arguments"),
    "function_call_output": ("call_id",),
    "reasoning": ("id",),
}


def _check_item(item: Any, where: str) -> None:
    if not isinstance(item, dict):
        _mistyped(where, "an object", item)
    kind = item.get("type", "message")
    if kind == "message":
        _check_message(item, where)
    elif kind in _STRINGS:
        for name in _STRINGS[kind]:
            if not isinstance(item.get(name), str):
                _missing(f"{where}.{name}")
        if kind == "function_call_output" and not isinstance(item.get("output"), str | list):
            _missing(f"{where}.output")
    else:
        raise Refused(400, f"Invalid value: '{kind}'.", param=f"{where}.type", code="invalid_value")


def _check_message(item: dict[str, Any], where: str) -> None:
    role = item.get("role")
    if not isinstance(role, str) or role not in _PARTS:
        text = f"Invalid value: '{role}'. Supported values are: 'assistant', 'system', 'developer', and 'user'."
        raise Refused(400, text, param=f"{where}.role", code="invalid_value")
    content = item.get("content")
    if not isinstance(content, str | list):
        _missing(f"{where}.content")
    for at, part in enumerate(content if isinstance(content, list) else []):
        kind = part.get("type") if isinstance(part, dict) else None
        if kind not in _PARTS[role]:
            names = ", ".join(repr(name) for name in _PARTS[role])
            text = f"Invalid value: '{kind}'. Supported values are: {names}."
            raise Refused(400, text, param=f"{where}.content[{at}].type", code="invalid_value")


def _check_calls(items: list[Any]) -> None:
    """Each result has its call before it, and each call its result somewhere behind it."""
    called: set[str] = set()
    for item in items:
        if item.get("type") == "function_call":
            called.add(item["call_id"])
        elif item.get("type") == "function_call_output" and item["call_id"] not in called:
            raise Refused(
                400, f"No tool call found for function call output with call_id {item['call_id']}.", param="input"
            )
    answered = {item["call_id"] for item in items if item.get("type") == "function_call_output"}
    if missing := sorted(called - answered):
        raise Refused(400, f"No tool output found for function call {missing[0]}.", param="input")


# The answer


def _calls(body: dict[str, Any], question: str) -> list[dict[str, Any]]:
    tools = body.get("tools") or []
    if body.get("tool_choice") == "none":
        return []
    return [
        {
            "id": f"fc_{secrets.token_hex(12)}",
            "type": "function_call",
            "status": "completed",
            "call_id": f"call_{secrets.token_hex(12)}",
            "name": tool["name"],
            "arguments": json.dumps(example_arguments(tool.get("parameters"))),
        }
        for tool in tools[: tools_called(question, len(tools))]
    ]


def _output(texts: list[str], calls: list[dict[str, Any]], *, cut: bool) -> list[dict[str, Any]]:
    if not texts:
        return calls
    part = {"type": "output_text", "annotations": [], "logprobs": [], "text": "".join(texts)}
    status = "incomplete" if cut else "completed"
    id = f"msg_{secrets.token_hex(12)}"
    return [{"id": id, "type": "message", "status": status, "role": "assistant", "content": [part]}, *calls]


def _response(body: dict[str, Any], output: list[Any], prompt: int, spent: int, *, cut: bool) -> dict[str, Any]:
    usage = {
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": spent,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": prompt + spent,
    }
    echoed: dict[str, Any] = {
        "instructions": None,
        "max_output_tokens": None,
        "metadata": {},
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "service_tier": "default",
        "store": True,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "truncation": "disabled",
        "user": None,
    }
    return {
        "id": f"resp_{secrets.token_hex(24)}",
        "object": "response",
        "created_at": int(time.time()),
        "status": "incomplete" if cut else "completed",
        "background": False,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
        "model": body["model"],
        "output": output,
        **{name: body.get(name, value) for name, value in echoed.items()},
        "usage": usage,
    }


_Told = tuple[dict[str, Any], Kind]


def _numbered(events: Iterator[_Told]) -> list[Piece]:
    pieces = []
    for number, (value, kind) in enumerate(events):
        data = json_text({**value, "sequence_number": number}, ascii_only=False)
        pieces.append(Piece(server_sent_event(data, value["type"]), kind))
    return pieces


def _told(name: str, kind: Kind = "lead", /, **fields: Any) -> _Told:
    return {"type": f"response.{name}", **fields}, kind


def _events(response: dict[str, Any], texts: list[str], stop: str | None) -> Iterator[_Told]:
    started = {**response, "status": "in_progress", "output": [], "usage": None, "incomplete_details": None}
    yield _told("created", response=started)
    yield _told("in_progress", response=started)
    for at, item in enumerate(response["output"]):
        yield from _call(at, item) if item["type"] == "function_call" else _message(at, item, texts, stop)
    if stop == "upstream-event":
        told = {"code": "server_error", "message": _FAILED}
        yield _told("failed", "end", response={**started, "status": "failed", "error": told})
    elif stop is None:
        yield _told(response["status"], "end", response=response)


def _message(at: int, item: dict[str, Any], texts: list[str], stop: str | None) -> Iterator[_Told]:
    where = {"item_id": item["id"], "output_index": at, "content_index": 0}
    (part,) = item["content"]
    yield _told("output_item.added", output_index=at, item={**item, "status": "in_progress", "content": []})
    yield _told("content_part.added", **where, part={**part, "text": ""})
    for text in texts:
        yield _told("output_text.delta", "token", **where, delta=text, logprobs=[])
    if stop is None:
        yield _told("output_text.done", "end", **where, text=part["text"], logprobs=[])
        yield _told("content_part.done", "end", **where, part=part)
        yield _told("output_item.done", "end", output_index=at, item=item)


def _call(at: int, item: dict[str, Any]) -> Iterator[_Told]:
    where, written = {"item_id": item["id"], "output_index": at}, item["arguments"]
    yield _told("output_item.added", output_index=at, item={**item, "status": "in_progress", "arguments": ""})
    for start in range(0, len(written), 8):
        yield _told("function_call_arguments.delta", "token", **where, delta=written[start : start + 8])
    yield _told("function_call_arguments.done", "end", **where, arguments=written, name=item["name"])
    yield _told("output_item.done", "end", output_index=at, item=item)
