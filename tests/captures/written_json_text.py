"""Answers of json-text: POST /api/text as Aichat has it."""

import json
from typing import Any

from tests.captures.writing import TEXT, Case, dumps, exchange

AICHAT = {"message": "hello", "temperature": 0.5, "presence_penalty": 0, "top_p": 1, "frequency_penalty": 0}


def aichat(answer: str, **options: Any) -> list[Case]:
    cookie = {"Cookie": "session=opaque", "Origin": "http://chat.test", "Referer": "http://chat.test/Aichat"}
    return [exchange("/api/text", AICHAT, answer, request_headers=cookie, **options)]


JSON_TEXT = {
    "answer": ("The answer, with text beyond ASCII", aichat(dumps({"response": True, "message": TEXT}), pieces=3)),
    "answer-escaped": (
        "The same, all escaped, as PHP writes it",
        aichat(json.dumps({"response": True, "message": TEXT})),
    ),
    "answer-behind-warning": (
        "A byte order mark and a PHP warning stand before the answer",
        aichat(
            "\ufeff<br />\n<b>Warning</b>: Undefined array key in <b>/srv/api.php</b> on line <b>3</b><br />\n"
            + dumps({"response": True, "message": TEXT}),
            kind="text/html; charset=UTF-8",
        ),
    ),
    "error-flag-false": (
        "`response` is false, and the message says why",
        aichat(dumps({"response": False, "message": "Daily limit is used up"})),
    ),
    "error-flag-absent": ("`response` is absent", aichat(dumps({"status": "busy", "queue": 17}))),
    "error-empty": ("An empty text", aichat(dumps({"response": True, "message": ""}))),
    "error-html": (
        "A page instead of JSON",
        aichat(
            "<!DOCTYPE html><html><head><title>Maintenance</title></head><body>Back soon</body></html>",
            kind="text/html",
        ),
    ),
    "error-challenge": (
        "A challenge page",
        aichat(
            "<!DOCTYPE html><html><head><title>Just a moment...</title></head><body>"
            "<script src='/cdn-cgi/challenge-platform/h/b/orchestrate'></script></body></html>",
            status=403,
            kind="text/html",
        ),
    ),
    "error-401": ("No session", aichat(dumps({"message": "Unauthenticated."}), status=401)),
    "error-429": (
        "Too many requests",
        aichat(dumps({"message": "Too Many Attempts."}), status=429, headers={"Retry-After": "37"}),
    ),
    "error-500": ("A fault of the server", aichat("upstream failed", status=502, kind="text/plain")),
}
