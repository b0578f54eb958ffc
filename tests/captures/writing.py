"""The pieces of which recordings are written."""

import base64
import json
from typing import Any

SSE = "text/event-stream; charset=utf-8"
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
    """Compact JSON; halves of surrogate pairs, which have no UTF-8, are escaped."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return "".join(f"\\u{ord(c):04x}" if "\ud800" <= c <= "\udfff" else c for c in text)


def events(*values: Any, done: bool = True) -> str:
    """Server-sent events; a pair is an event's name and its data."""
    out = []
    for value in values:
        name, data = value if isinstance(value, tuple) else ("", value)
        out.append(f"event: {name}\ndata: {dumps(data)}\n\n" if name else f"data: {dumps(data)}\n\n")
    return "".join(out) + ("data: [DONE]\n\n" if done else "")
