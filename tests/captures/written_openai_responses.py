"""Answers of openai-responses: POST /v1/responses."""

import json
from typing import Any

from tests.captures.writing import SSE, TEXT, Case, dumps, events, exchange

MODEL = "gpt-5-mini"
PIECES = ["При", "вет! ", "🚀 Here is code:\n```python\n", 'print("hi")\n', "```", "\nend"]
COUNTED = {
    "input_tokens": 9,
    "input_tokens_details": {"cached_tokens": 4},
    "output_tokens": 12,
    "output_tokens_details": {"reasoning_tokens": 7},
    "total_tokens": 21,
}

Told = dict[str, Any]


def answer(body: str | bytes, *, stream: bool = True, **options: Any) -> list[Case]:
    asked = {"model": MODEL, "input": [{"role": "user", "content": "hello"}], "stream": stream, "store": False}
    options.setdefault("kind", SSE if stream else "application/json")
    return [exchange("/v1/responses", asked, body, **options)]


def response(status: str, *output: Told, **more: Any) -> Told:
    base = {"id": "resp_1", "object": "response", "created_at": 1795000000, "status": status, "model": MODEL}
    ends = {"error": None, "incomplete_details": None, "output": list(output), "usage": COUNTED}
    return {**base, **ends, **more}


def told(type: str, **fields: Any) -> Told:
    return {"type": f"response.{type}", **fields}


def message(text: str, status: str = "completed") -> Told:
    parts = [{"type": "output_text", "text": text, "annotations": [], "logprobs": []}] if text else []
    return {"id": "msg_1", "type": "message", "status": status, "role": "assistant", "content": parts}


def call(id: str, name: str, arguments: str) -> Told:
    return {"id": f"fc_{id}", "type": "function_call", "call_id": f"call_{id}", "name": name, "arguments": arguments}


def texts(at: int, *pieces: str) -> list[Told]:
    where = {"item_id": "msg_1", "output_index": at, "content_index": 0}
    empty = {"type": "output_text", "text": "", "annotations": []}
    text = "".join(pieces)
    return [
        told("output_item.added", output_index=at, item=message("", "in_progress")),
        told("content_part.added", **where, part=empty),
        *(told("output_text.delta", **where, delta=piece, logprobs=[]) for piece in pieces),
        told("output_text.done", **where, text=text, logprobs=[]),
        told("content_part.done", **where, part={**empty, "text": text}),
        told("output_item.done", output_index=at, item=message(text)),
    ]


def thoughts(at: int, *summaries: str) -> list[Told]:
    item = {"id": "rs_1", "type": "reasoning"}
    pieces = []
    for number, text in enumerate(summaries):
        where = {"item_id": "rs_1", "output_index": at, "summary_index": number}
        pieces.append(told("reasoning_summary_part.added", **where, part={"type": "summary_text", "text": ""}))
        pieces.append(told("reasoning_summary_text.delta", **where, delta=text))
        pieces.append(told("reasoning_summary_text.done", **where, text=text))
    done = {**item, "summary": [{"type": "summary_text", "text": text} for text in summaries]}
    return [
        told("output_item.added", output_index=at, item={**item, "summary": []}),
        *pieces,
        told("output_item.done", output_index=at, item=done),
    ]


def calls(at: int, id: str, name: str, *pieces: str) -> list[Told]:
    where = {"item_id": f"fc_{id}", "output_index": at}
    text = "".join(pieces)
    return [
        told("output_item.added", output_index=at, item=call(id, name, "")),
        *(told("function_call_arguments.delta", **where, delta=piece) for piece in pieces),
        told("function_call_arguments.done", **where, arguments=text, name=name),
        told("output_item.done", output_index=at, item=call(id, name, text)),
    ]


def stream(*values: Told, started: bool = True) -> str:
    start = response("in_progress", usage=None)
    first = [told("created", response=start), told("in_progress", response=start)] if started else []
    numbered = ({**value, "sequence_number": number} for number, value in enumerate([*first, *values]))
    return events(*((value["type"], value) for value in numbered), done=False)


def completed(*output: Told) -> Told:
    return told("completed", response=response("completed", *output))


def incomplete(reason: str) -> Told:
    details = {"reason": reason}
    return told("incomplete", response=response("incomplete", incomplete_details=details))


def fault(text: str, type: str | None, code: str | None = None) -> str:
    return json.dumps({"error": {"message": text, "type": type, "param": None, "code": code}}, indent=2)


def failed(status: int, text: str, type: str | None, code: str | None = None, **options: Any) -> list[Case]:
    return answer(fault(text, type, code), status=status, kind="application/json", **options)


REFUSAL = {"type": "refusal", "refusal": "I can't help with that."}

OPENAI_RESPONSES = {
    "stream": ("A stream", answer(stream(*texts(0, *PIECES), completed(message(TEXT))), pieces=7)),
    "stream-reasoning": (
        "Two summaries of reasoning before the answer",
        answer(stream(*thoughts(0, "Let me think.", "Again."), *texts(1, "Yes."), completed())),
    ),
    "stream-tools": (
        "Text, then two calls, of which the second's arguments come whole",
        answer(
            stream(
                *texts(0, "I look."),
                *calls(1, "a", "weather", '{"city":', ' "Минск"}'),
                told("output_item.done", output_index=2, item=call("b", "now", "{}")),
                completed(message("I look."), call("a", "weather", '{"city": "Минск"}'), call("b", "now", "{}")),
            )
        ),
    ),
    "stream-refusal": (
        "The model refuses",
        answer(
            stream(
                told("output_item.added", output_index=0, item=message("", "in_progress")),
                told("refusal.delta", output_index=0, item_id="msg_1", content_index=0, delta="I can't "),
                told("refusal.delta", output_index=0, item_id="msg_1", content_index=0, delta="help with that."),
                told("refusal.done", output_index=0, item_id="msg_1", content_index=0, refusal=REFUSAL["refusal"]),
                told("output_item.done", output_index=0, item={**message(""), "content": [REFUSAL]}),
                completed(),
            )
        ),
    ),
    "stream-length": ("The limit is used up", answer(stream(*texts(0, "Once"), incomplete("max_output_tokens")))),
    "stream-filter": ("Kept back in the middle", answer(stream(*texts(0, "Once"), incomplete("content_filter")))),
    "stream-new": (
        "An event, an item and a reason that no page describes, and no deltas",
        answer(
            stream(
                told("weather", text="no"),
                told("output_item.done", output_index=0, item={"type": "hologram", "content": 3}),
                told("output_item.done", output_index=1, item=message("ok")),
                incomplete("tired"),
            )
        ),
    ),
    "stream-surrogates": (
        "Half characters in the escapes of two deltas, one of which stays alone",
        answer(stream(*texts(0, "a\ud83d", "\ude80b\udc00"), completed())),
    ),
    "stream-asked-json-came": (
        "JSON where a stream was asked for",
        answer(dumps(response("completed", message(TEXT))), kind="application/json"),
    ),
    "json": ("A whole answer", answer(json.dumps(response("completed", message(TEXT)), indent=2), stream=False)),
    "json-tools": (
        "A whole answer of reasoning and calls",
        answer(
            dumps(
                response(
                    "completed",
                    {"id": "rs_1", "type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm."}]},
                    call("a", "weather", '{"city": "Минск"}'),
                    call("b", "now", ""),
                )
            ),
            stream=False,
        ),
    ),
    "json-refusal": (
        "A whole refusal",
        answer(dumps(response("completed", {**message(""), "content": [REFUSAL]})), stream=False),
    ),
    "error-failed": (
        "The response fails in the middle of a stream",
        answer(
            stream(
                *texts(0, "par", "tial"),
                told(
                    "failed",
                    response=response("failed", error={"code": "server_error", "message": "The model failed."}),
                ),
            )
        ),
    ),
    "error-event": (
        "An error event in the middle of a stream",
        answer(
            stream(*texts(0, "par"))
            + events(
                (
                    "error",
                    {
                        "type": "error",
                        "code": "rate_limit_exceeded",
                        "message": "Rate limit reached",
                        "param": None,
                        "sequence_number": 9,
                    },
                ),
                done=False,
            )
        ),
    ),
    "error-event-nested": (
        "An error event that has its error inside",
        answer(
            events(
                (
                    "error",
                    {
                        "type": "error",
                        "error": {"type": "invalid_request_error", "code": "invalid_prompt", "message": "No."},
                    },
                ),
                done=False,
            )
        ),
    ),
    "error-empty": ("An answer without output", answer(stream(completed()))),
    "error-cancelled": ("A response that was cancelled", answer(dumps(response("cancelled")), stream=False)),
    "error-400": (
        "A field that is wrong",
        failed(400, "Unknown parameter: 'x'.", "invalid_request_error", "unknown_parameter"),
    ),
    "error-400-context": (
        "A conversation that is too long",
        failed(
            400,
            "Your input exceeds the context window of this model.",
            "invalid_request_error",
            "context_length_exceeded",
        ),
    ),
    "error-401": (
        "A wrong key",
        failed(401, "Incorrect API key provided.", "invalid_request_error", "invalid_api_key"),
    ),
    "error-429": (
        "Too many requests",
        failed(429, "Rate limit reached", "requests", "rate_limit_exceeded", headers={"Retry-After": "17"}),
    ),
    "error-500": ("A fault of the server", failed(500, "The server had an error", "server_error")),
    "error-502-page": (
        "A proxy's page",
        answer("<html><head><title>502 Bad Gateway</title></head></html>", status=502, kind="text/html"),
    ),
    "error-200-page": (
        "A page at the wrong address",
        answer("<!doctype html><html><body>Welcome</body></html>", kind="text/html"),
    ),
    "error-200-other": ("An object that is no response", answer(dumps({"ok": True}), stream=False)),
}
