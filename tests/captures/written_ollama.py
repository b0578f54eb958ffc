"""Answers of ollama: POST /api/chat."""

from typing import Any

from tests.captures.writing import TEXT, Case, dumps, exchange

MODEL = "llama3.2"
PIECES = ["При", "вет! ", "🚀 Here is code:\n```python\n", 'print("hi")\n', "```", "\nend"]
LINES = "application/x-ndjson"
JSON = "application/json; charset=utf-8"
WEATHER = {"id": "call_a", "function": {"index": 0, "name": "weather", "arguments": {"city": "Минск"}}}
NOW = {"function": {"name": "now", "arguments": {}}}


def chat(answer: str | bytes, *, stream: bool = True, **options: Any) -> list[Case]:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}], "stream": stream}
    options.setdefault("kind", LINES if stream else JSON)
    return [exchange("/api/chat", body, answer, **options)]


def line(content: str = "", *, done: bool = False, **more: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": content}
    message |= {name: more.pop(name) for name in ("thinking", "tool_calls") if name in more}
    base = {"model": MODEL, "created_at": "2026-11-20T23:53:57.123456Z"}
    return {**base, "message": message, "done": done, **more}


def end(reason: str | None = "stop", content: str = "", **more: Any) -> dict[str, Any]:
    counts = {"total_duration": 4883583458, "prompt_eval_count": 9, "prompt_eval_duration": 1, "eval_count": 12}
    told = {"done_reason": reason} if reason is not None else {}
    return line(content, done=True, **told, **counts, **more)


def lines(*values: dict[str, Any]) -> str:
    return "".join(dumps(value) + "\n" for value in values)


def texts(*pieces: str) -> list[dict[str, Any]]:
    return [line(piece) for piece in pieces]


def failed(status: int, text: str, **options: Any) -> list[Case]:
    return chat(dumps({"error": text}), status=status, kind=JSON, **options)


OLLAMA = {
    "stream": ("A stream of lines", chat(lines(*texts(*PIECES), end()), pieces=7)),
    "stream-thinking": (
        "Thinking before the answer",
        chat(lines(line(thinking="Let me "), line(thinking="think."), line("Yes."), end())),
    ),
    "stream-tools": (
        "Two tool calls, of which the second has no id",
        chat(lines(line(tool_calls=[WEATHER]), line(tool_calls=[NOW]), end())),
    ),
    "stream-length": ("The limit is used up", chat(lines(line("Once"), end("length")))),
    "stream-old": (
        "A version that tells no reason, and no newline at the end",
        chat(lines(line("ok"), end(None))[:-1]),
    ),
    "stream-unknown-reason": ("A reason that no page describes", chat(lines(line("ok"), end("tired")))),
    "stream-surrogates": (
        "Half characters in the escapes of two lines, one of which stays alone",
        chat(lines(line("a\ud83d"), line("\ude80b\udc00"), end())),
    ),
    "json": ("A whole answer", chat(dumps(end(content=TEXT)), stream=False)),
    "json-tools": (
        "A whole answer of thinking and tool calls",
        chat(dumps(end(thinking="Hm.", tool_calls=[WEATHER, NOW])), stream=False),
    ),
    "json-asked-stream-came": ("Lines where JSON was asked for", chat(lines(*texts(*PIECES), end()), stream=False)),
    "error-in-stream": (
        "The model stops in the middle of a stream",
        chat(
            lines(
                *texts("par", "tial"),
                {"error": "an error was encountered while running the model: unexpected EOF"},
            )
        ),
    ),
    "error-empty": ("An answer without text", chat(lines(line(), end()))),
    "error-not-done": ("A whole answer that is not done", chat(dumps(line("par")), stream=False)),
    "error-400-tools": (
        "A model that knows no tools",
        failed(400, "registry.ollama.ai/library/gemma:2b does not support tools"),
    ),
    "error-400-context": (
        "A conversation that is too long",
        failed(400, "the input length exceeds the context length"),
    ),
    "error-401": ("No key for the cloud", failed(401, "unauthorized")),
    "error-404": ("A model that is none", failed(404, "model 'x' not found")),
    "error-429": ("The cloud's limit", failed(429, "too many requests", headers={"Retry-After": "17"})),
    "error-500": ("The runner stopped", failed(500, "model runner has unexpectedly stopped")),
    "error-503": (
        "Too many requests wait",
        failed(503, "server busy, please try again.  maximum pending requests exceeded"),
    ),
    "error-502-page": (
        "A proxy's page",
        chat("<html><head><title>502 Bad Gateway</title></head></html>", status=502, kind="text/html"),
    ),
    "error-200-page": (
        "A page at the wrong address",
        chat("<!doctype html><html><body>Welcome</body></html>", kind="text/html"),
    ),
    "error-200-other": ("An object that is no answer", chat(dumps({"ok": True}), stream=False)),
    "error-bad-tool": (
        "A tool call without a name",
        chat(lines(line("a"), line(tool_calls=[{"function": {"arguments": {}}}]), end())),
    ),
}
