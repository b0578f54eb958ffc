"""What a caller hears of an answer, read by the plainest reading of each API: its text, and how it ended."""

import json
from typing import Any

from msgspec import Struct

__all__ = ["PATHS", "Heard", "heard", "question"]

PATHS = {"openai": "/v1/chat/completions", "responses": "/v1/responses", "anthropic": "/v1/messages"}
"""The surfaces and where they are asked."""


class Heard(Struct, frozen=True):
    """An answer as it came. `ends` counts its end marks, `errors` its error events; a whole one has one and none."""

    status: int
    text: str
    ends: int
    errors: int

    @property
    def outcome(self) -> str:
        """`ok`, `cut` for an answer that ends in an error event, or the status of a refusal."""
        if self.status != 200:
            return str(self.status)
        found = {(1, 0): "ok", (0, 1): "cut"}.get((self.ends, self.errors))
        return found or f"{self.ends} ends and {self.errors} errors"


def question(surface: str, model: str, text: str, **fields: Any) -> dict[str, Any]:
    """The smallest question of a surface."""
    if surface == "responses":
        return {"model": model, "input": text, **fields}
    limit = {"max_tokens": 4096} if surface == "anthropic" else {}
    return {"model": model, "messages": [{"role": "user", "content": text}], **limit, **fields}


def heard(surface: str, status: int, body: bytes) -> Heard:
    """An answer in one piece, a stream or a refusal."""
    if status != 200:
        assert json.loads(body)["error"]["message"], body
        return Heard(status, "", 0, 0)
    if body[:1] == b"{":
        return Heard(status, _whole(surface, json.loads(body)), 1, 0)
    assert body.endswith(b"\n\n"), body[-100:]
    text, ends, errors = "", 0, 0
    for block in body.decode().split("\n\n"):
        data = "\n".join(line[6:] for line in block.split("\n") if line.startswith("data: "))
        if not data:
            continue
        if data == "[DONE]":
            ends += 1
            continue
        value = json.loads(data)
        kind = value.get("type", "")
        errors += kind == "error" if surface == "responses" else bool(value.get("error"))
        ends += kind in ("message_stop", "response.completed")
        text += _piece(surface, value)
    return Heard(status, text, ends, errors)


def _whole(surface: str, value: dict[str, Any]) -> str:
    if surface == "openai":
        return str(value["choices"][0]["message"]["content"])
    if surface == "anthropic":
        return "".join(block["text"] for block in value["content"] if block["type"] == "text")
    return "".join(part["text"] for item in value["output"] if item["type"] == "message" for part in item["content"])


def _piece(surface: str, value: dict[str, Any]) -> str:
    if surface == "openai":
        return "".join(choice["delta"].get("content") or "" for choice in value.get("choices", ()))
    if surface == "anthropic":
        return str(value.get("delta", {}).get("text", "")) if value["type"] == "content_block_delta" else ""
    return str(value["delta"]) if value["type"] == "response.output_text.delta" else ""
