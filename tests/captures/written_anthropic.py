"""Answers of anthropic: POST /v1/messages."""

from typing import Any

from tests.captures.writing import SSE, TEXT, Case, dumps, events, exchange

MODEL = "claude-sonnet-4-5"
PIECES = ["При", "вет! ", "🚀 Here is code:\n```python\n", 'print("hi")\n', "```", "\nend"]
STARTED = {
    "input_tokens": 9,
    "cache_creation_input_tokens": 3,
    "cache_read_input_tokens": 5,
    "output_tokens": 1,
    "service_tier": "standard",
}
WEATHER = {"type": "tool_use", "id": "toolu_a", "name": "weather", "input": {}}
NOW = {"type": "tool_use", "id": "toolu_b", "name": "now", "input": {}}

Told = tuple[str, dict[str, Any]]


def message(answer: str | bytes, *, stream: bool = True, **options: Any) -> list[Case]:
    body = {
        "model": MODEL,
        "max_tokens": 4096,
        "messages": [{"role": "user", "content": "hello"}],
        "stream": stream,
    }
    options.setdefault("kind", SSE if stream else "application/json")
    headers = {"Accept": "text/event-stream" if stream else "application/json", "anthropic-version": "2023-06-01"}
    return [exchange("/v1/messages", body, answer, request_headers=headers, **options)]


def told(type: str, **fields: Any) -> Told:
    return type, {"type": type, **fields}


def start(usage: dict[str, Any] | None = None) -> list[Told]:
    base = {"id": "msg_1", "type": "message", "role": "assistant", "model": MODEL, "content": []}
    ends = {"stop_reason": None, "stop_sequence": None, "usage": usage or STARTED}
    return [told("message_start", message={**base, **ends})]


def block(index: int, block: dict[str, Any], *deltas: dict[str, Any]) -> list[Told]:
    return [
        told("content_block_start", index=index, content_block=block),
        *([told("ping")] if index == 0 else []),
        *(told("content_block_delta", index=index, delta=delta) for delta in deltas),
        told("content_block_stop", index=index),
    ]


def texts(index: int, *pieces: str) -> list[Told]:
    return block(index, {"type": "text", "text": ""}, *({"type": "text_delta", "text": piece} for piece in pieces))


def thoughts(index: int, *pieces: str) -> list[Told]:
    deltas = [{"type": "thinking_delta", "thinking": piece} for piece in pieces]
    deltas.append({"type": "signature_delta", "signature": "EqoB"})
    return block(index, {"type": "thinking", "thinking": "", "signature": ""}, *deltas)


def tool(index: int, use: dict[str, Any], *pieces: str) -> list[Told]:
    return block(index, use, *({"type": "input_json_delta", "partial_json": piece} for piece in ("", *pieces)))


def end(reason: str | None = "end_turn", **usage: Any) -> list[Told]:
    delta = {"stop_reason": reason, "stop_sequence": None}
    return [told("message_delta", delta=delta, usage={"output_tokens": 12, **usage}), told("message_stop")]


def stream(*parts: list[Told]) -> str:
    return events(*(event for part in parts for event in part), done=False)


def whole(*blocks: dict[str, Any], reason: str | None = "end_turn", **more: Any) -> str:
    base = {"id": "msg_1", "type": "message", "role": "assistant", "model": MODEL, "content": list(blocks)}
    ends = {"stop_reason": reason, "stop_sequence": None, "usage": {**STARTED, "output_tokens": 12}}
    return dumps({**base, **ends, **more})


def fault(type: str, text: str) -> str:
    return dumps({"type": "error", "error": {"type": type, "message": text}, "request_id": "req_1"})


def failed(status: int, type: str, text: str, **options: Any) -> list[Case]:
    return message(fault(type, text), status=status, kind="application/json", **options)


ANTHROPIC = {
    "stream": ("A stream, with a ping in it", message(stream(start(), texts(0, *PIECES), end()), pieces=7)),
    "stream-thinking": (
        "Thinking, with its signature, before the answer",
        message(
            stream(
                start(),
                thoughts(0, "Let me ", "think."),
                texts(1, "Yes."),
                end(input_tokens=10, output_tokens_details={"thinking_tokens": 7}),
            )
        ),
    ),
    "stream-redacted": (
        "Thinking that is not shown",
        message(stream(start(), block(0, {"type": "redacted_thinking", "data": "xx"}), texts(1, "Yes."), end())),
    ),
    "stream-tools": (
        "Text, then two tool calls, of which the second has no arguments",
        message(
            stream(
                start(),
                texts(0, "I look."),
                tool(1, WEATHER, '{"city":', ' "Минск"}'),
                tool(2, NOW),
                end("tool_use"),
            )
        ),
    ),
    "stream-max-tokens": ("The limit is used up", message(stream(start(), texts(0, "Once"), end("max_tokens")))),
    "stream-refusal": ("The model's answer was stopped by a classifier", message(stream(start(), end("refusal")))),
    "stream-new": (
        "An event, a block, a delta and a reason that no page describes",
        message(
            stream(
                start(),
                [told("weather", text="no")],
                block(0, {"type": "hologram", "text": 3}, {"type": "hologram_delta", "text": "no"}),
                texts(1, "ok"),
                end("tired"),
            )
        ),
    ),
    "stream-surrogates": (
        "Half characters in the escapes of two deltas, one of which stays alone",
        message(stream(start(), texts(0, "a\ud83d", "\ude80b\udc00"), end())),
    ),
    "stream-asked-json-came": (
        "JSON where a stream was asked for",
        message(whole({"type": "text", "text": TEXT}), kind="application/json"),
    ),
    "json": ("A whole answer", message(whole({"type": "text", "text": TEXT, "citations": None}), stream=False)),
    "json-tools": (
        "A whole answer of thinking and tool calls",
        message(
            whole(
                {"type": "thinking", "thinking": "Hm.", "signature": "EqoB"},
                {**WEATHER, "input": {"city": "Минск"}},
                NOW,
                reason="tool_use",
            ),
            stream=False,
        ),
    ),
    "json-asked-stream-came": (
        "A stream where JSON was asked for",
        message(stream(start(), texts(0, *PIECES), end()), stream=False, kind=SSE),
    ),
    "error-in-stream": (
        "The server is overloaded in the middle of a stream",
        message(
            stream(start(), texts(0, "par", "tial"))
            + events(
                ("error", {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}), done=False
            )
        ),
    ),
    "error-empty": ("An answer without content", message(stream(start(), end()))),
    "error-without-reason": ("A stream that ends without a reason", message(stream(start(), texts(0, "a"), end(None)))),
    "error-400": ("A field that is wrong", failed(400, "invalid_request_error", "temperature: range: 0..1")),
    "error-400-context": (
        "A conversation that is too long",
        failed(400, "invalid_request_error", "prompt is too long: 214315 tokens > 200000 maximum"),
    ),
    "error-400-filter": (
        "The content filter",
        failed(400, "invalid_request_error", "Output blocked by content filtering policy"),
    ),
    "error-400-credit": (
        "No money left",
        failed(
            400,
            "invalid_request_error",
            "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to upgrade or "
            "purchase credits.",
        ),
    ),
    "error-401": ("A wrong key", failed(401, "authentication_error", "invalid x-api-key")),
    "error-403": (
        "A key without the permission",
        failed(403, "permission_error", "Your API key does not have permission to use the specified resource."),
    ),
    "error-404": ("A model that is none", failed(404, "not_found_error", "model: claude-9")),
    "error-413": ("A request that is too large", failed(413, "request_too_large", "Request exceeds the maximum size")),
    "error-429": (
        "Too many requests",
        failed(
            429,
            "rate_limit_error",
            "This request would exceed your organization's rate limit of 50 requests per minute.",
            headers={"retry-after": "17"},
        ),
    ),
    "error-500": ("A fault of the server", failed(500, "api_error", "Internal server error")),
    "error-529": ("The server is overloaded", failed(529, "overloaded_error", "Overloaded")),
    "error-503-page": (
        "A proxy's page",
        message("<html><head><title>503 Service Unavailable</title></head></html>", status=503, kind="text/html"),
    ),
    "error-200-page": (
        "A page at the wrong address",
        message("<!doctype html><html><body>Welcome</body></html>", kind="text/html"),
    ),
    "error-200-other": ("An object that is no message", message(dumps({"ok": True}), stream=False)),
}
