"""Writes the recordings that are not observed: by hand, from the description of the protocol.

Run it after a change here: `python tests/captures/make_written.py`. A test holds the files against it.
"""

import base64
import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
TEXT = 'Привет! 🚀 Here is code:\n```python\nprint("hi")\n```\nend'

Case = dict[str, Any]


def exchange(
    path: str,
    body: Any,
    answer: str | bytes,
    *,
    method: str = "POST",
    status: int = 200,
    kind: str = "application/json",
    headers: dict[str, str] | None = None,
    request_headers: dict[str, str] | None = None,
    pieces: int = 1,
) -> Case:
    """One exchange; the answer arrives in `pieces` chunks that are cut without regard to its lines."""
    data = answer.encode() if isinstance(answer, str) else answer
    size = -(-len(data) // pieces) if data else 1
    chunks = [data[i : i + size] for i in range(0, len(data), size)]
    return {
        "request": {
            "method": method,
            "path": path,
            "headers": {"Host": "chat.test", "Content-Type": "application/json", **(request_headers or {})},
            "body": None if body is None else json.dumps(body, ensure_ascii=False),
        },
        "response": {
            "status": status,
            "reason": "",
            "headers": [
                ["Date", "Fri, 20 Nov 2026 23:53:57 GMT"],
                ["Content-Type", kind],
                *([name, value] for name, value in (headers or {}).items()),
            ],
            "chunks": [{"t_ms": 40.0 * i, "b64": base64.b64encode(chunk).decode()} for i, chunk in enumerate(chunks)],
        },
    }


def dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def events(*values: Any, done: bool = True) -> str:
    """Server-sent events; a pair is an event's name and its data."""
    out = []
    for value in values:
        name, data = value if isinstance(value, tuple) else ("", value)
        out.append(f"event: {name}\ndata: {dumps(data)}\n\n" if name else f"data: {dumps(data)}\n\n")
    return "".join(out) + ("data: [DONE]\n\n" if done else "")


# json-text: POST /api/text as Aichat has it

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


FAMILIES: dict[str, dict[str, tuple[str, list[Case]]]] = {"json-text": JSON_TEXT}


def recordings() -> dict[Path, str]:
    """The text of every file."""
    out = {}
    for family, cases in FAMILIES.items():
        for name, (description, exchanges) in cases.items():
            recording = {
                "case": name,
                "description": f"{description}. Written by hand from the protocol's description, not observed.",
                "family": family,
                "observed": False,
                "exchanges": exchanges,
            }
            out[HERE / family / f"{name}.json"] = json.dumps(recording, ensure_ascii=False, indent=0) + "\n"
    return out


if __name__ == "__main__":
    for path, text in recordings().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
