"""The demo against the recordings of the real plugins: the same requests, the same answers.

Status and headers must be the same; of the body everything that is not the AI's own text, an id, a
time or a count.
"""

import base64
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.demo.client import Got, ask
from tolmach.demo import Demo

CAPTURES = Path(__file__).parent.parent / "captures"

Case = tuple[str, str]

AI_ENGINE: list[Case] = [
    ("start-session", ""),
    ("start-session-get", ""),
    ("start-session-bad-nonce-header", ""),
    ("chat-minimal-body", ""),
    ("chat-stream-two-turns", ""),
    ("chat-json-two-turns", ""),
    ("chat-stream-no-cookies", ""),
    ("chat-system-role", ""),
    ("chat-long-history", ""),
    ("nonce-12-24h-old", ""),
    ("error-nonce-wrong", ""),
    ("error-nonce-missing", ""),
    ("error-nonce-in-query", ""),
    ("error-empty-message", ""),
    ("error-no-bot", ""),
    ("error-bad-request", ""),
    ("error-too-long", ""),
    ("error-banned-word", ""),
    ("error-guest-limit", "guest-limit"),
    ("error-rest-blocked", "no-guests"),
    ("error-plugin-deactivated", "plugin-off"),
    ("unknown-bot", ""),
    ("unknown-custom-id", ""),
    ("discussions-list", ""),
    ("upstream-empty", "empty"),
    ("upstream-die", "upstream-cut=5"),
    ("upstream-errstream", "upstream-event=5"),
    ("upstream-401", "upstream-error=401"),
    ("upstream-429", "upstream-error=429"),
    ("upstream-500", "upstream-error=500"),
    ("bom-and-php-warning", "junk"),
]
AI_POWER: list[Case] = [
    ("chat-minimal", ""),
    ("chat-stream-two-turns", ""),
    ("chat-json-two-turns", ""),
    ("chat-json-other-action", ""),
    ("chat-multipart", ""),
    ("chat-get-method", ""),
    ("chat-no-client-id", ""),
    ("chat-stream-history-strings", ""),
    ("chat-stream-history-with-quotes", ""),
    ("nonce-12-24h-old", ""),
    ("unknown-bot", ""),
    ("error-nonce-wrong-json", ""),
    ("error-nonce-wrong-stream", ""),
    ("error-nonce-missing-json", ""),
    ("error-nonce-missing-stream", ""),
    ("error-empty-message-json", ""),
    ("error-empty-message-stream", ""),
    ("error-json-body", ""),
    ("error-unknown-action", ""),
    ("error-banned-word-json", ""),
    ("error-banned-word-stream", ""),
    ("error-plugin-deactivated", "plugin-off"),
    ("upstream-empty", "empty"),
    ("upstream-die", "upstream-cut=5"),
    ("upstream-errstream", "upstream-event=5"),
    ("upstream-401", "upstream-error=401"),
    ("upstream-429", "upstream-error=429"),
    ("upstream-500", "upstream-error=500"),
    ("bom-and-php-warning", "junk"),
]
AIPKIT: list[Case] = [
    ("get-nonce", ""),
    ("chat-minimal", ""),
    ("chat-urlencoded", ""),
    ("chat-stream-two-turns", ""),
    ("chat-stream-new-conversation", ""),
    ("chat-stream-other-session", ""),
    ("cache-unknown-bot", ""),
    ("cache-key-reuse", ""),
    ("error-cache-key", ""),
    ("error-missing-params", ""),
    ("error-nonce-cache", ""),
    ("error-nonce-stream", ""),
    ("error-nonce-expired-then-refresh", ""),
    ("error-empty-message", ""),
    ("error-banned-word", ""),
    ("error-guest-zero", "no-guests"),
    ("error-plugin-deactivated", "plugin-off"),
    ("blank-message-stream", ""),
    ("stream-by-post", ""),
    ("same-origin", ""),
    ("cross-origin", ""),
    ("chat-json-on-streaming-bot", ""),
    ("upstream-empty", "empty"),
    ("upstream-die", "upstream-cut=5"),
    ("upstream-errstream", "upstream-event=5"),
    ("upstream-429", "upstream-error=429"),
    ("upstream-500", "upstream-error=500"),
    ("bom-and-php-warning", "junk"),
]

MOUNTS = {
    "aiengine-3.6.2": ("/Chatgpt4Online", AI_ENGINE),
    "aipower-1.9.18": ("/ChatGptt", AI_POWER),
    "aipkit-2.4.71": ("/aipkit", AIPKIT),
}
ALL = [
    pytest.param(name, case, fault, id=f"{name}/{case}") for name, (_, cases) in MOUNTS.items() for case, fault in cases
]

GOOD = {"aiengine-3.6.2": "293ca38f81", "aipower-1.9.18": "72601de8c4", "aipkit-2.4.71": "fe245797ac"}
# Nonces of the tick before, as these recordings used them.
OLDER = {"aipower-1.9.18": "8cfbcf6e24"}

# Facts of transport and of the machine, not of the plugin.
OTHER_HEADERS = {"server", "date", "transfer-encoding", "connection", "link", "content-length"}


class Replay:
    """Sends a recording's requests to the demo, with the demo's own nonces and keys for the recorded ones."""

    def __init__(self, demo: Demo, family: str, case: str, fault: str, clock: "Clock") -> None:
        self.demo = demo
        self.family = family
        self.mount = MOUNTS[family][0]
        self.case = case
        self.fault = fault
        self.clock = clock
        self.exchanges = json.loads((CAPTURES / family / f"{case}.json").read_text())["exchanges"]
        self.replaced: dict[str, str] = {}

    async def nonce(self) -> str:
        if self.family.startswith("aiengine"):
            got = await ask(self.demo.url, "POST", f"{self.mount}/wp-json/mwai/v1/start_session")
            return str(got.json["restNonce"])
        got = await ask(self.demo.url, "GET", f"{self.mount}/")
        found = re.search(r'(?:data-nonce="|nonce&quot;:&quot;)([0-9a-f]{10})', got.text)
        assert found
        return found[1]

    async def prepare(self) -> None:
        nonce = await self.nonce()
        self.replaced[GOOD[self.family]] = nonce
        if self.case == "nonce-12-24h-old":
            sent = re.findall(r"\b[0-9a-f]{10}\b", json.dumps(self.exchanges[0]["request"]))
            older = OLDER.get(self.family) or next(digits for digits in sent if digits != GOOD[self.family])
            self.replaced[older] = nonce
            self.clock.time += 12 * 3600
            self.replaced[GOOD[self.family]] = await self.nonce()

    def told(self, text: str) -> str:
        for recorded, own in self.replaced.items():
            text = text.replace(recorded, own)
        host = self.demo.url.removeprefix("http://")
        return text.replace("http://wordpress.test", self.demo.url).replace("wordpress.test", host)

    async def send(self, exchange: dict[str, Any]) -> Got:
        request = exchange["request"]
        headers = {name: self.told(value) for name, value in request["headers"].items()}
        for name in ("Host", "Connection", "Content-Length"):
            headers.pop(name, None)
        path = self.told(request["path"])
        if path in ("/chat/", "/chat-main/", "/chat-json/", "/chat-stream/"):
            path = "/"
        body = self.told(request["body"] or "").encode()
        if 'name="bot_id"' in request["body"] if request["body"] else False:
            body = re.sub(rb'(name="bot_id"\r\n\r\n)[89]\r', rb"\g<1>5\r", body)
        path = re.sub(r"bot_id=[89]\b", "bot_id=5", path)
        got = await ask(
            self.demo.url, request["method"], self.mount + path, headers=headers, body=body, fault=self.fault
        )
        self.learn(exchange, got)
        return got

    def learn(self, exchange: dict[str, Any], got: Got) -> None:
        """The demo's own keys for those in the recording."""
        for pattern in (r'"cache_key":"([^"]+)"', r'"sessionId":"([^"]+)"'):
            recorded, own = (
                re.search(pattern, body_of(exchange).decode("utf-8", "replace")),
                re.search(pattern, got.text),
            )
            if recorded and own:
                self.replaced[recorded[1]] = own[1]


class Clock:
    def __init__(self) -> None:
        self.time = 1_795_219_200.0 + 600

    def __call__(self) -> float:
        return self.time


def body_of(exchange: dict[str, Any]) -> bytes:
    return b"".join(base64.b64decode(chunk["b64"]) for chunk in exchange["response"]["chunks"])


def headers_of(pairs: list[tuple[str, str]], clean: Callable[[str], str]) -> list[tuple[str, str]]:
    found = []
    for name, value in pairs:
        if name.lower() == "set-cookie":
            value = re.sub(r"=[^;]*", "=", value, count=1)
        if name.lower() not in OTHER_HEADERS:
            found.append((name.lower(), clean(value)))
    return sorted(found)


# Values that the AI or the moment made: only their type counts. Null and an empty text are something else.
FREE = {
    "reply",
    "data",
    "delta",
    "content",
    "log",
    "sessionId",
    "responseId",
    "cache_key",
    "message_id",
    "id",
    "created",
}
FREE |= {"response_id", "prompt_tokens", "completion_tokens", "total_tokens", "model", "object"}


def shape(value: Any, key: str = "") -> Any:
    if isinstance(value, dict):
        return {name: shape(inner, name) for name, inner in value.items()}
    if isinstance(value, list):
        return [shape(inner, key) for inner in value]
    if key in FREE and value is not None and value is not False and value != "":
        return "log" if key == "log" else type(value).__name__
    return value


def same_body(text: str) -> list[Any]:
    """A body as what must be the same: JSON by its shape, events without their number and cut."""
    if text.lstrip("\ufeff\n").startswith("<!doctype"):
        return ["page", "aipkit_chat_container" in text, "mwai-chatbot-container" in text, "data-nonce" in text]
    found: list[Any] = []
    for block in text.split("\n\n"):
        lines: list[Any] = []
        for line in block.split("\n"):
            data = line.removeprefix("data: ")
            lines.append(comparable(data) if data != line or line.startswith("{") else re.sub(r"err-\d+", "err", line))
        if not found or found[-1] != lines:
            found.append(lines)
    return found


def comparable(data: str) -> Any:
    if not data.startswith("{"):
        return data
    value = json.loads(data)
    if value.get("type") in ("end", "error") and isinstance(value.get("data"), str):
        inner = value["data"]
        # The name of the AI's environment stands before its message.
        told = (
            shape(json.loads(inner)) if value["type"] == "end" else re.sub(r"^(MockCustom|Demo): (Error: )?", "", inner)
        )
        return {"type": value["type"], "inner": told}
    if isinstance(value.get("message"), str):
        value["message"] = re.sub(r"^(MockCustom|Demo): ", "", value["message"])
    return shape(value)


@pytest.mark.parametrize(("family", "case", "fault"), ALL)
async def test_answers_as_recorded(family: str, case: str, fault: str) -> None:
    clock = Clock()
    async with Demo(delay=0, now=clock) as demo:
        replay = Replay(demo, family, case, fault, clock)
        await replay.prepare()
        for exchange in replay.exchanges:
            got = await replay.send(exchange)
            response = exchange["response"]
            recorded = replay.told(body_of(exchange).decode())
            assert got.status == response["status"], got.text
            assert same_body(got.text) == same_body(recorded)
            told = headers_of([(name, value) for name, value in response["headers"]], replay.told)
            assert headers_of(got.headers, str) == told


@pytest.mark.parametrize(
    ("family", "case"),
    [
        ("aiengine-3.6.2", "chat-stream-two-turns"),
        ("aiengine-3.6.2", "chat-json-two-turns"),
        ("aiengine-3.6.2", "chat-long-history"),
        ("aipower-1.9.18", "chat-stream-two-turns"),
        ("aipower-1.9.18", "chat-json-two-turns"),
        ("aipower-1.9.18", "chat-stream-history-strings"),
        ("aipower-1.9.18", "chat-stream-history-with-quotes"),
        ("aipkit-2.4.71", "chat-stream-two-turns"),
        ("aipkit-2.4.71", "chat-stream-new-conversation"),
        ("aipkit-2.4.71", "chat-stream-other-session"),
        ("aipkit-2.4.71", "blank-message-stream"),
    ],
)
async def test_the_model_is_sent_as_many_messages_as_in_the_recording(family: str, case: str) -> None:
    def counts(text: str) -> list[str]:
        whole = re.sub(r'"}}?(, "finish_reason": null}\]})?\n\ndata: .*?"(data|content|delta)": ?"', "", text)
        return re.findall(r"hist=(\d+)", whole)[:1]

    clock = Clock()
    async with Demo(delay=0, now=clock) as demo:
        replay = Replay(demo, family, case, "", clock)
        await replay.prepare()
        seen = []
        for exchange in replay.exchanges:
            got = await replay.send(exchange)
            assert counts(got.text) == counts(body_of(exchange).decode())
            seen += counts(got.text)
        assert seen
