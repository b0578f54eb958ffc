"""The tokens of chatgpt.com's sentinel: what can be checked of them without the browser that made them.

A token is a prefix and the base64 of a *config*, a JSON list of 18 values; at index 3 stands the
number of the attempt, at index 9 that number shifted right by one.
"""

import base64
import binascii
import hashlib
import json
import secrets
from collections import OrderedDict
from typing import Any

from msgspec import Struct

__all__ = ["Requirements", "Sentinel", "proof_holds", "requirements_token_holds"]

_FIELDS = 18
_KEEP = 10_000
LIFE = 600.0
"""Seconds until a requirements token can no longer be used."""


def _config(token: str, prefix: str) -> str | None:
    """The base64 of a well-formed token; None for any other."""
    encoded = token.removeprefix(prefix)
    if not token.startswith(prefix):
        return None
    try:
        config: Any = json.loads(base64.b64decode(encoded, validate=True))
    except (binascii.Error, ValueError):
        return None
    if not isinstance(config, list) or len(config) != _FIELDS:
        return None
    first, second, agent = config[3], config[9], config[4]
    if not (_is_int(first) and _is_int(second) and first >= 0 and second == first >> 1):
        return None
    return encoded if isinstance(agent, str) and agent else None


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def requirements_token_holds(token: Any) -> bool:
    """Whether a requirements token is well formed; its seed never crosses the wire."""
    return isinstance(token, str) and _config(token, "gAAAAAC") is not None


def proof_holds(token: str, seed: str, difficulty: str) -> bool:
    """Whether the proof token solves this seed at this difficulty."""
    encoded = _config(token, "gAAAAAB")
    if encoded is None:
        return False
    digest = hashlib.sha3_512(f"{seed}{encoded}".encode()).digest()
    target = bytes.fromhex(difficulty)
    return digest[: len(target)] <= target


class Requirements(Struct):
    """What a chat-requirements token was given out with."""

    seed: str
    difficulty: str
    turnstile: bool
    arkose: bool
    until: float


class Sentinel:
    """The tokens that were given out; each can be used once."""

    def __init__(self) -> None:
        self._tokens: OrderedDict[str, Requirements] = OrderedDict()

    def issue(self, difficulty: str, now: float, *, turnstile: bool, arkose: bool) -> tuple[str, Requirements]:
        token = f"gAAAAAB{secrets.token_urlsafe(48)}"
        seed = f"0.{secrets.randbelow(10**16):016}"
        self._tokens[token] = asked = Requirements(seed, difficulty, turnstile, arkose, now + LIFE)
        if len(self._tokens) > _KEEP:
            self._tokens.popitem(last=False)
        return token, asked

    def take(self, token: str, now: float) -> Requirements | None:
        """What the token asked for; None when it is unknown, used or too old."""
        asked = self._tokens.pop(token, None)
        return asked if asked is not None and asked.until >= now else None
