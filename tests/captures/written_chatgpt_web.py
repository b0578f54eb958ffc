"""Answers of chatgpt-web: the page, the requirements, the conversation."""

from typing import Any

from tests.captures.writing import SSE, TEXT, Case, dumps, events, exchange

ANSWER_ID = "8f4c1d1e-0000-4000-8000-0000000000aa"
CONVERSATION_ID = "6740f000-0000-4000-8000-0000000000bb"


def message(
    text: str | None, *, id: str = ANSWER_ID, role: str = "assistant", done: bool = False, **more: Any
) -> dict[str, Any]:
    """A message as it stands; `text` None for one whose content is given in `more`."""
    return {
        "id": id,
        "author": {"role": role, "name": None, "metadata": {}},
        "create_time": 1795000000.5,
        "content": {"content_type": "text", "parts": [text]},
        "status": "finished_successfully" if done or role != "assistant" else "in_progress",
        "end_turn": True if done else None,
        "weight": 1.0,
        "metadata": {"message_type": "next"},
        "recipient": "all",
        **more,
    }


def root(message: dict[str, Any]) -> dict[str, Any]:
    return {"message": message, "conversation_id": CONVERSATION_ID, "error": None}


def growing(text: str, step: int = 9) -> list[str]:
    return [text[:end] for end in (*range(0, len(text), step), len(text))]


def thoughts(*items: tuple[str, str], **more: Any) -> dict[str, Any]:
    content = {"content_type": "thoughts", "thoughts": [{"summary": a, "content": b} for a, b in items]}
    return message(None, id="8f4c1d1e-0000-4000-8000-0000000000a0", content=content, **more)


def talk(answer: str | bytes, **options: Any) -> list[Case]:
    """The three steps of a turn; the options are for the last."""
    page = exchange(
        "/ChatGpt/",
        None,
        "<!DOCTYPE html><html><head><title>ChatGPT</title></head></html>",
        method="GET",
        kind="text/html",
    )
    page["response"]["headers"].append(["Set-Cookie", "oai-did=1; Path=/"])
    required = {
        "persona": "chatgpt-noauth",
        "token": "gAAAAABrequirements",
        "arkose": {"required": False, "dx": None},
        "turnstile": {"required": False},
        "proofofwork": {"required": True, "seed": "0.42", "difficulty": "0fffff"},
    }
    asked = exchange("/ChatGpt/backend-anon/sentinel/chat-requirements", {"p": "gAAAAACproof"}, dumps(required))
    body = {
        "action": "next",
        "messages": [
            {
                "id": "8f4c1d1e-0000-4000-8000-0000000000cc",
                "author": {"role": "user"},
                "content": {"content_type": "text", "parts": ["hello"]},
            }
        ],
        "parent_message_id": "8f4c1d1e-0000-4000-8000-0000000000dd",
        "model": "auto",
        "supported_encodings": ["v1"],
    }
    options.setdefault("kind", SSE)
    return [page, asked, exchange("/ChatGpt/backend-anon/conversation", body, answer, **options)]


def append(text: str) -> dict[str, Any]:
    return {"p": "/message/content/parts/0", "o": "append", "v": text}


def operation(path: str, name: str, value: Any) -> dict[str, Any]:
    return {"p": path, "o": name, "v": value}


def deltas(*values: Any, done: bool = True) -> str:
    named = [value if isinstance(value, tuple) or "type" in value else ("delta", value) for value in values]
    return events(("delta_encoding", "v1"), *named, done=done)


_ENDED = [
    operation("/message/status", "replace", "finished_successfully"),
    operation("/message/end_turn", "replace", True),
]
_OPENED = [
    {"p": "", "o": "add", "v": root(message("", id="sys", role="system")), "c": 0},
    {"v": root(message("hello", id="usr", role="user")), "c": 1},
    {"type": "input_message", "input_message": {"id": "usr"}, "conversation_id": CONVERSATION_ID},
    {"v": root(message("")), "c": 2},
]
_DELTAS = [
    *_OPENED,
    append("При"),
    {"v": "вет! "},
    {"type": "message_marker", "conversation_id": CONVERSATION_ID, "marker": "user_visible_token", "event": "first"},
    {"v": "🚀 Here is code:\n```python\n"},
    {"v": 'print("hi")\n'},
    operation("", "patch", [append("```"), operation("/message/metadata/citations", "append", [1])]),
    {"v": [append("\nend"), *_ENDED, operation("/message/metadata", "append", {"is_complete": True})]},
    {"type": "title_generation", "title": "Greeting", "conversation_id": CONVERSATION_ID},
    {"type": "message_stream_complete", "conversation_id": CONVERSATION_ID},
]

CHATGPT_WEB = {
    "snapshots": (
        "Snapshots, among messages of other roles",
        talk(
            events(
                root(message("", id="sys", role="system")),
                root(message("hello", id="usr", role="user")),
                *(root(message(text)) for text in growing(TEXT)),
                {"type": "title_generation", "title": "Greeting", "conversation_id": CONVERSATION_ID},
                root(message(TEXT, done=True)),
            ),
            pieces=9,
        ),
    ),
    "snapshots-escaped": (
        "Snapshots in escapes that end in half characters",
        talk(
            "".join(
                f'data: {{"message": {{"id": "a", "author": {{"role": "assistant"}}, '
                f'"content": {{"parts": ["{text}"]}}, "status": "in_progress"}}, '
                f'"conversation_id": "c", "error": null}}\n\n'
                for text in ("", "a", "a\\ud83d", "a\\ud83d\\ude80", "a\\ud83d\\ude80b")
            )
            + "data: [DONE]\n\n"
        ),
    ),
    "snapshots-rewritten": (
        "The service rewrites what it said",
        talk(
            events(
                *(root(message(text)) for text in ("Hello", "Hello wor", "Hi", "Hi there")),
                root(message("Hi there.", done=True)),
            )
        ),
    ),
    "snapshots-tool": (
        "A preface, a call of a tool, which is not for everybody, and the answer",
        talk(
            events(
                root(message("Let me look.", id="m1", status="finished_successfully", end_turn=False)),
                root(
                    message(
                        "search(1)", id="m2", recipient="browser", content={"content_type": "code", "text": "search(1)"}
                    )
                ),
                root(message("found", id="m3", role="tool")),
                root(message("It", id="m4")),
                root(message("It is so.", id="m4", done=True)),
            )
        ),
    ),
    "snapshots-without-done": (
        "A finished message and no end mark",
        talk(events(root(message("Hel")), root(message("Hello", done=True)), done=False)),
    ),
    "deltas": ("Deltas, with inherited fields, patches and metadata", talk(deltas(*_DELTAS), pieces=9)),
    "deltas-without-done": ("Deltas and no end mark", talk(deltas(*_DELTAS, done=False))),
    "deltas-reasoning": (
        "Thoughts, then the answer",
        talk(
            deltas(
                {"p": "", "o": "add", "v": root(thoughts()), "c": 0},
                operation("/message/content/thoughts", "append", [{"summary": "Thinking", "content": ""}]),
                operation("/message/content/thoughts/0/content", "append", "One"),
                {"v": ", two"},
                {"v": ", three"},
                operation("/message/content/thoughts/1", "add", {"summary": "More", "content": ""}),
                operation("/message/status", "replace", "finished_successfully"),
                {"p": "", "o": "add", "v": root(message("")), "c": 1},
                append("Yes"),
                {"v": "."},
                {"o": "patch", "p": "", "v": _ENDED},
            )
        ),
    ),
    "deltas-rewritten": (
        "The text is cut back, parts come and go",
        talk(
            deltas(
                *_OPENED,
                append("Hello wor"),
                operation("/message/content/parts/0", "truncate", 5),
                append(", you"),
                {"v": "!"},
                operation("/message/content/parts/-", "add", {"asset": 1}),
                operation("/message/content/parts/1", "remove", None),
                operation("/message/content/parts/0", "replace", "Bye"),
                {"o": "append", "v": "!"},
                operation("", "patch", _ENDED),
            )
        ),
    ),
    "error-in-stream": (
        "An error beside half of an answer",
        talk(
            events(
                root(message("Hel")),
                {"message": None, "conversation_id": CONVERSATION_ID, "error": "Something went wrong"},
            )
        ),
    ),
    "error-in-deltas": (
        "An error while deltas are sent",
        talk(
            deltas(
                *_OPENED,
                append("Hel"),
                {"type": "error", "error": {"message": "Too many requests", "code": "rate_limit_exceeded"}},
            )
        ),
    ),
    "error-empty": ("No text", talk(events(root(message("", done=True))))),
    "error-unusual": (
        "The service suspects the visitor",
        talk(
            dumps({"detail": "Unusual activity has been detected from your device. Try again later."}),
            status=403,
            kind="application/json",
        ),
    ),
    "error-unusual-200": (
        "The same with a good status",
        talk(dumps({"detail": "Unusual activity has been detected from your device."}), kind="application/json"),
    ),
    "error-challenge": (
        "A challenge page",
        talk(
            "<html><head><title>Just a moment...</title></head></html>",
            status=403,
            kind="text/html",
            headers={"cf-mitigated": "challenge"},
        ),
    ),
    "error-401": (
        "A token that is not valid",
        talk(
            dumps({"detail": {"message": "Token expired", "code": "token_expired"}}),
            status=401,
            kind="application/json",
        ),
    ),
    "error-404": (
        "The conversation is gone",
        talk(
            dumps({"detail": {"message": "Conversation not found", "code": "conversation_not_found"}}),
            status=404,
            kind="application/json",
        ),
    ),
    "error-413": (
        "Too long",
        talk(
            dumps(
                {
                    "detail": {
                        "message": "The message you submitted was too long",
                        "code": "message_length_exceeds_limit",
                    }
                }
            ),
            status=413,
            kind="application/json",
        ),
    ),
    "error-422": (
        "A wrong field",
        talk(
            dumps({"detail": [{"loc": ["body", "model"], "msg": "field required", "type": "missing"}]}),
            status=422,
            kind="application/json",
        ),
    ),
    "error-429": (
        "Too many requests",
        talk(
            dumps({"detail": "Too many requests"}), status=429, kind="application/json", headers={"Retry-After": "60"}
        ),
    ),
    "error-500": ("A fault", talk("Internal Server Error", status=500, kind="text/plain")),
}
