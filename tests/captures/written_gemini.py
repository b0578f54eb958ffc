"""Answers of gemini: POST /v1beta/models/M:generateContent and :streamGenerateContent."""

import json
from typing import Any

from tests.captures.writing import TEXT, Case, dumps, exchange

MODEL = "gemini-2.5-flash"
PIECES = ["При", "вет! ", "🚀 Here is code:\n```python\n", 'print("hi")\n', "```", "\nend"]
SSE = "text/event-stream"
JSON = "application/json; charset=UTF-8"
COUNTED = {
    "promptTokenCount": 9,
    "candidatesTokenCount": 5,
    "thoughtsTokenCount": 7,
    "cachedContentTokenCount": 4,
    "totalTokenCount": 21,
    "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 9}],
}
WEATHER = {"functionCall": {"id": "fc-1", "name": "weather", "args": {"city": "Минск"}}, "thoughtSignature": "Ep=="}
NOW = {"functionCall": {"name": "now"}}


def content(answer: str | bytes, *, stream: bool = True, sse: bool = True, **options: Any) -> list[Case]:
    body = {"contents": [{"role": "user", "parts": [{"text": "hello"}]}]}
    options.setdefault("kind", SSE if stream and sse else JSON)
    method = f"streamGenerateContent{'?alt=sse' if sse else ''}" if stream else "generateContent"
    return [exchange(f"/v1beta/models/{MODEL}:{method}", body, answer, **options)]


def chunk(*parts: dict[str, Any], reason: str | None = None, **more: Any) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"parts": list(parts), "role": "model"}}
    if reason is not None:
        candidate["finishReason"] = reason
    if "finishMessage" in more:
        candidate["finishMessage"] = more.pop("finishMessage")
    return {
        "candidates": [{**candidate, "index": 0}],
        "usageMetadata": COUNTED,
        "modelVersion": MODEL,
        "responseId": "r1",
        **more,
    }


def said(*pieces: str) -> list[dict[str, Any]]:
    return [chunk({"text": piece}) for piece in pieces]


def stream(*chunks: dict[str, Any]) -> str:
    return "".join(f"data: {dumps(value)}\r\n\r\n" for value in chunks)


def fault(status: int, name: str, text: str, *details: dict[str, Any]) -> str:
    error: dict[str, Any] = {"code": status, "message": text, "status": name}
    if details:
        error["details"] = list(details)
    return json.dumps({"error": error}, indent=2)


def failed(status: int, name: str, text: str, *details: dict[str, Any]) -> list[Case]:
    return content(fault(status, name, text, *details), status=status, kind=JSON)


END = chunk({"text": ""}, reason="STOP")

GEMINI = {
    "stream": ("A stream", content(stream(*said(*PIECES[:-1]), chunk({"text": PIECES[-1]}, reason="STOP")), pieces=7)),
    "stream-thoughts": (
        "Thoughts before the answer",
        content(stream(chunk({"text": "Let me think.", "thought": True}), *said("Yes."), END)),
    ),
    "stream-tools": (
        "Text, then two calls, of which the second has no id and no arguments",
        content(stream(*said("I look."), chunk(WEATHER, NOW), END)),
    ),
    "stream-max-tokens": ("The limit is used up", content(stream(*said("Once"), chunk(reason="MAX_TOKENS")))),
    "stream-max-tokens-empty": (
        "The limit is used up by thinking",
        content(stream({"candidates": [{"finishReason": "MAX_TOKENS", "index": 0}], "usageMetadata": COUNTED})),
    ),
    "stream-safety": ("Kept back in the middle", content(stream(*said("Once"), chunk(reason="SAFETY")))),
    "stream-unknown-reason": ("A reason that no page describes", content(stream(*said("ok"), chunk(reason="TIRED")))),
    "stream-surrogates": (
        "Half characters in the escapes of two chunks, one of which stays alone",
        content(stream(*said("a\ud83d", "\ude80b\udc00"), END)),
    ),
    "stream-list": (
        "A stream as one list, as without alt=sse",
        content(f"[{dumps(said('o')[0])},\r\n{dumps(chunk({'text': 'k'}, reason='STOP'))}]\n", sse=False),
    ),
    "stream-asked-json-came": (
        "JSON where a stream was asked for",
        content(dumps(chunk({"text": TEXT}, reason="STOP")), kind=JSON),
    ),
    "json": ("A whole answer", content(json.dumps(chunk({"text": TEXT}, reason="STOP"), indent=2), stream=False)),
    "json-tools": (
        "A whole answer of a thought and calls",
        content(dumps(chunk({"text": "Hm.", "thought": True}, WEATHER, NOW, reason="STOP")), stream=False),
    ),
    "error-blocked": (
        "The question is blocked",
        content(stream({"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, "usageMetadata": COUNTED})),
    ),
    "error-safety": (
        "All of the answer is kept back",
        content(stream({"candidates": [{"finishReason": "SAFETY", "index": 0, "safetyRatings": []}]})),
    ),
    "error-malformed-call": (
        "The model wrote a call that is none",
        content(
            stream(
                *said("I "),
                chunk(reason="MALFORMED_FUNCTION_CALL", finishMessage="Malformed function call: print(weather("),
            )
        ),
    ),
    "error-in-stream": (
        "The server is overloaded in the middle of a stream",
        content(stream(*said("par", "tial"), json.loads(fault(503, "UNAVAILABLE", "The model is overloaded.")))),
    ),
    "error-empty": ("An answer without text", content(stream(chunk(reason="STOP")))),
    "error-without-reason": ("A whole answer without finishReason", content(dumps(chunk({"text": "a"})), stream=False)),
    "error-400": (
        "A field that there is not",
        failed(400, "INVALID_ARGUMENT", 'Invalid JSON payload received. Unknown name "x": Cannot find field.'),
    ),
    "error-400-key": (
        "A wrong key",
        failed(
            400,
            "INVALID_ARGUMENT",
            "API key not valid. Please pass a valid API key.",
            {
                "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                "reason": "API_KEY_INVALID",
                "domain": "googleapis.com",
                "metadata": {"service": "generativelanguage.googleapis.com"},
            },
        ),
    ),
    "error-400-context": (
        "A conversation that is too long",
        failed(
            400,
            "INVALID_ARGUMENT",
            "The input token count (1200007) exceeds the maximum number of tokens allowed (1048576).",
        ),
    ),
    "error-400-country": (
        "A country that is not served",
        failed(400, "FAILED_PRECONDITION", "User location is not supported for the API use."),
    ),
    "error-403": ("No key", failed(403, "PERMISSION_DENIED", "Method doesn't allow unregistered callers.")),
    "error-404": (
        "A model that is none",
        failed(404, "NOT_FOUND", "models/x is not found for API version v1beta, or is not supported."),
    ),
    "error-429": (
        "The quota is used up",
        failed(
            429,
            "RESOURCE_EXHAUSTED",
            "You exceeded your current quota, please check your plan and billing details.",
            {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": []},
            {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "17.5s"},
        ),
    ),
    "error-429-list": (
        "An error as a list of one",
        content(f"[{fault(429, 'RESOURCE_EXHAUSTED', 'Quota exceeded')}]", status=429, kind=JSON, sse=False),
    ),
    "error-500": ("A fault of the server", failed(500, "INTERNAL", "An internal error has occurred.")),
    "error-503": ("The server is overloaded", failed(503, "UNAVAILABLE", "The model is overloaded.")),
    "error-502-page": (
        "A proxy's page",
        content("<html><head><title>502 Bad Gateway</title></head></html>", status=502, kind="text/html"),
    ),
    "error-200-page": (
        "A page at the wrong address",
        content("<!doctype html><html><body>Welcome</body></html>", kind="text/html"),
    ),
}
