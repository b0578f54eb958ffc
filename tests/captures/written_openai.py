"""Answers of openai: POST /v1/chat/completions."""

import json
from typing import Any

from tests.captures.writing import SSE, TEXT, Case, dumps, events, exchange

MODEL = "gpt-4o-mini"
PIECES = ["", "При", "вет! ", "🚀 Here is code:\n```python\n", 'print("hi")\n', "```", "\nend"]
COUNTED = {
    "prompt_tokens": 9,
    "completion_tokens": 12,
    "total_tokens": 21,
    "prompt_tokens_details": {"cached_tokens": 0},
}


def completion(answer: str | bytes, *, usage: bool = True, stream: bool = True, **options: Any) -> list[Case]:
    body: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}], "stream": stream}
    if stream and usage:
        body["stream_options"] = {"include_usage": True}
    options.setdefault("kind", SSE if stream else "application/json")
    options.setdefault("request_headers", {"Accept": "text/event-stream"})
    return [exchange("/v1/chat/completions", body, answer, **options)]


def chunk(delta: dict[str, Any] | None, reason: str | None = None, **more: Any) -> dict[str, Any]:
    choices = [] if delta is None else [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}]
    base = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1795000000, "model": MODEL}
    return {**base, "choices": choices, **more}


def texts(*pieces: str) -> list[dict[str, Any]]:
    return [
        chunk({"role": "assistant", "content": "", "refusal": None}),
        *(chunk({"content": piece}) for piece in pieces),
    ]


def whole(message: dict[str, Any], reason: str = "stop") -> str:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "logprobs": None, "finish_reason": reason}
    base = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1795000000, "model": MODEL}
    return dumps({**base, "choices": [choice], "usage": COUNTED})


def fault(message: str, type: str | None, code: Any = None, **more: Any) -> str:
    return json.dumps({"error": {"message": message, "type": type, "param": None, "code": code, **more}}, indent=4)


def tool(index: int, arguments: str, **more: Any) -> dict[str, Any]:
    name = more.pop("name", None)
    function = {"arguments": arguments} if name is None else {"name": name, "arguments": arguments}
    return {"index": index, "function": function, **more}


_TOOLS = [
    chunk(
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [tool(0, "", id="call_a", type="function", name="weather")],
        }
    ),
    chunk({"tool_calls": [tool(0, '{"city":')]}),
    chunk({"tool_calls": [tool(0, ' "Минск"}')]}),
    chunk({"tool_calls": [tool(1, "{}", id="call_b", type="function", name="now")]}),
    chunk({}, "tool_calls"),
    chunk(None, usage=COUNTED),
]

OPENAI = {
    "stream": (
        "A stream with usage at its end",
        completion(events(*texts(*PIECES), chunk({}, "stop"), chunk(None, usage=COUNTED)), pieces=7),
    ),
    "stream-without-usage": (
        "A stream for which usage was not asked",
        completion(events(*texts(*PIECES), chunk({}, "stop")), usage=False, pieces=3),
    ),
    "stream-without-done": (
        "A stream that ends with its finish reason",
        completion(events(*texts(*PIECES), chunk({}, "length"), done=False), usage=False),
    ),
    "stream-comments": (
        "Comments and an Azure filter chunk stand between the chunks, usage in each chunk",
        completion(
            ": PROCESSING\n\n"
            + events({**chunk(None), "prompt_filter_results": [{"prompt_index": 0}]}, done=False)
            + ": PROCESSING\n\n"
            + events(
                *(chunk({"content": piece}, usage=COUNTED) for piece in PIECES),
                chunk({"content": ""}, "stop", usage=COUNTED),
            )
        ),
    ),
    "stream-reasoning": (
        "Reasoning before the answer",
        completion(
            events(
                chunk({"role": "assistant", "content": None, "reasoning_content": "Let me "}),
                chunk({"content": None, "reasoning_content": "think."}),
                chunk({"content": "Yes."}),
                chunk({"content": ""}, "stop"),
                chunk(None, usage=COUNTED),
            )
        ),
    ),
    "stream-tools": ("Two tool calls", completion(events(*_TOOLS))),
    "stream-refusal": (
        "The model refuses",
        completion(
            events(
                chunk({"role": "assistant", "content": None, "refusal": ""}),
                chunk({"refusal": "I can't "}),
                chunk({"refusal": "help with that."}),
                chunk({}, "stop"),
                chunk(None, usage=COUNTED),
            )
        ),
    ),
    "stream-surrogates": (
        "Half characters in the escapes of two chunks, one of which stays alone",
        completion(
            'data: {"choices":[{"index":0,"delta":{"content":"a\\ud83d"}}]}\n\n'
            'data: {"choices":[{"index":0,"delta":{"content":"\\ude80b\\udc00"}}]}\n\n'
            'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n',
            usage=False,
        ),
    ),
    "stream-unknown-reason": (
        "A finish reason that no page describes",
        completion(events(*texts("ok"), chunk({}, "abort"), chunk(None, usage=COUNTED))),
    ),
    "stream-length-empty": (
        "Reasoning used up all the tokens",
        completion(events(*texts(), chunk({}, "length"), chunk(None, usage=COUNTED))),
    ),
    "stream-asked-json-came": (
        "JSON where a stream was asked for",
        completion(whole({"content": TEXT}), kind="application/json"),
    ),
    "json": ("A whole answer", completion(whole({"content": TEXT, "refusal": None}), stream=False)),
    "json-tools": (
        "A whole answer of tool calls",
        completion(
            whole(
                {
                    "content": None,
                    "tool_calls": [
                        {
                            "id": "call_a",
                            "type": "function",
                            "function": {"name": "weather", "arguments": '{"city": "Минск"}'},
                        },
                        {"id": "call_b", "type": "function", "function": {"name": "now", "arguments": "{}"}},
                    ],
                },
                "tool_calls",
            ),
            stream=False,
        ),
    ),
    "json-asked-stream-came": (
        "A stream where JSON was asked for",
        completion(events(*texts(*PIECES), chunk({}, "stop")), stream=False, kind=SSE),
    ),
    "error-in-stream": (
        "The server breaks off with an error object",
        completion(
            events(
                *texts("par", "tial"),
                {"error": {"message": "The server had an error", "type": "server_error", "code": None}},
            )
        ),
    ),
    "error-event": (
        "The server breaks off with an event named error",
        completion(
            events(*texts("par"), done=False)
            + 'event: error\ndata: {"message":"Rate limit reached","code":"rate_limit_exceeded"}\n\n'
        ),
    ),
    "error-empty": (
        "An answer without text",
        completion(events(*texts(), chunk({}, "stop"), chunk(None, usage=COUNTED))),
    ),
    "error-401": (
        "A wrong key",
        completion(
            fault("Incorrect API key provided: sk-...x.", "invalid_request_error", "invalid_api_key"),
            status=401,
            kind="application/json",
        ),
    ),
    "error-403": (
        "A country that is not served",
        completion(
            fault(
                "Country, region, or territory not supported",
                "request_forbidden",
                "unsupported_country_region_territory",
            ),
            status=403,
            kind="application/json",
        ),
    ),
    "error-404-model": (
        "A model that is none",
        completion(
            fault("The model `x` does not exist", "invalid_request_error", "model_not_found"),
            status=404,
            kind="application/json",
        ),
    ),
    "error-400-context": (
        "A conversation that is too long",
        completion(
            fault(
                "This model's maximum context length is 8192 tokens.",
                "invalid_request_error",
                "context_length_exceeded",
            ),
            status=400,
            kind="application/json",
        ),
    ),
    "error-400-vllm": (
        "A conversation that is too long, as vLLM says it",
        completion(
            dumps(
                {
                    "object": "error",
                    "message": "This model's maximum context length is 4096 tokens.",
                    "type": "BadRequestError",
                    "param": None,
                    "code": 400,
                }
            ),
            status=400,
            kind="application/json",
        ),
    ),
    "error-400-filter": (
        "Azure's content filter",
        completion(
            fault(
                "The response was filtered",
                None,
                "content_filter",
                status=400,
                innererror={"code": "ResponsibleAIPolicyViolation"},
            ),
            status=400,
            kind="application/json",
        ),
    ),
    "error-422-detail": (
        "A field that is wrong, as FastAPI says it",
        completion(
            dumps({"detail": [{"loc": ["body", "top_p"], "msg": "must be below 1", "type": "value_error"}]}),
            status=422,
            kind="application/json",
        ),
    ),
    "error-429": (
        "Too many requests",
        completion(
            fault("Rate limit reached for requests", "requests", "rate_limit_exceeded"),
            status=429,
            kind="application/json",
            headers={"Retry-After": "2", "retry-after-ms": "1500"},
        ),
    ),
    "error-429-quota": (
        "No money left",
        completion(
            fault("You exceeded your current quota", "insufficient_quota", "insufficient_quota"),
            status=429,
            kind="application/json",
        ),
    ),
    "error-500-text": (
        "An error that is only a text",
        completion(dumps({"error": "model runner stopped"}), status=500, kind="application/json"),
    ),
    "error-503-page": (
        "A proxy's page",
        completion("<html><head><title>503 Service Unavailable</title></head></html>", status=503, kind="text/html"),
    ),
    "error-200-page": (
        "A page at the wrong address",
        completion("<!doctype html><html><body>Welcome</body></html>", kind="text/html"),
    ),
}
