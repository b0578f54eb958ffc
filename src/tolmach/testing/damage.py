"""Damage that knows the grammar: JSON values of other types, events lost, doubled and out of order.

What comes out is mostly well-formed and mostly wrong, which reaches deeper than flipped bits.
"""

import json
import random
import re
from collections.abc import Callable
from typing import Any

from tolmach.wire import Head

__all__ = ["damage_events", "damage_head", "damage_json", "damage_structure", "odd_value"]

_HIGH, _LOW = "\ud83d", "\ude80"
_WORDS = (
    "",
    "a",
    "é\u0000\n",
    _HIGH,
    _LOW,
    _HIGH + _LOW,
    _LOW + _HIGH,
    "[DONE]",
    "0",
    "{}",
    '{"type":"end"}',
    "data: x\n\n",
)
_NUMBERS = (0, 1, -1, 2**53 + 1, 10**30, -(10**400), 1e308, 0.1, float("inf"), float("nan"))
_KEYS = ("error", "data", "type", "message", "code", "reply", "success", "delta", "choices", "status", "msg", "v", "")

# Too deep for the encoder, so they are put in as text: a marker stands for each.
_DEEP = {
    "<deep lists>": "[" * 300 + "]" * 300,
    "<deeper lists>": "[" * 5000 + "]" * 5000,
    "<deep objects>": '{"data":' * 300 + "1" + "}" * 300,
    "<deeper objects>": '{"error":' * 5000 + "1" + "}" * 5000,
    "<endless lists>": "[" * 20000,
}


def odd_value(rng: random.Random) -> Any:
    """A JSON value that nobody expects: of any type, too deep, too long, or not quite a text."""
    match rng.randrange(8):
        case 0:
            return rng.choice((None, True, False))
        case 1:
            return rng.choice(_NUMBERS)
        case 2 | 3:
            return rng.choice(_WORDS)
        case 4:
            return rng.choice(([], [None], {}, {"": {}}, [[], {}], {"error": None}, [{"type": 1}]))
        case 5:
            return rng.choice(("x", "й", "🚀")) * rng.choice((1, 300, 5000))
        case 6:
            return rng.choice(list(_DEEP))
        case _:
            return {
                rng.choice(_KEYS): rng.choice((*_WORDS, *_NUMBERS, None, [], {})) for _ in range(rng.randrange(1, 4))
            }


def damage_json(value: Any, rng: random.Random) -> Any:
    """The value with one place in it changed. A text that is itself a JSON object is mostly changed inside."""
    if isinstance(value, str) and value[:1] == "{" and rng.random() < 0.8:
        inner = _parse(value)
        return _dump(damage_json(inner, rng), rng) if isinstance(inner, dict) else odd_value(rng)
    if not isinstance(value, dict | list) or not value or rng.random() < 0.1:
        return odd_value(rng)
    keys: list[Any] = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = rng.choice(keys)
    copy = value.copy()
    match rng.randrange(6):
        case 0:
            del copy[key]
        case 1:
            copy[key] = copy[rng.choice(keys)]
        case 2 if isinstance(copy, dict):
            copy[rng.choice(_KEYS)] = odd_value(rng) if rng.random() < 0.5 else copy[key]
        case 3:
            copy[key] = odd_value(rng)
        case _:
            copy[key] = damage_json(copy[key], rng)
    return copy


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _dump(value: Any, rng: random.Random) -> str:
    text = json.dumps(value, ensure_ascii=rng.random() < 0.5, indent=rng.choice((None, None, None, 1)))
    if rng.random() < 0.1 and isinstance(value, dict) and value:
        # The first key twice, with another value the second time.
        text = f"{text[:-1]}, {json.dumps(next(iter(value)))}: {json.dumps(odd_value(rng))}}}"
    for marker, deep in _DEEP.items():
        text = text.replace(f'"{marker}"', deep)
    return text


_BLANK_LINE = re.compile(rb"(?:\r\n|\n|\r){2}")
_DATA = re.compile(rb"^data: ?(.*)$", re.M)
_NAMES = (b"message", b"error", b"done", b"end", b"delta", b"thread.message.delta", b"\xff")


def damage_events(body: bytes, rng: random.Random) -> bytes:
    """A body of server-sent events with one to four of them lost, doubled, moved or changed inside."""
    events = [event for event in _BLANK_LINE.split(body) if event]
    for _ in range(rng.choice((1, 1, 2, 4))):
        if not events:
            break
        at = rng.randrange(len(events))
        match rng.randrange(8):
            case 0:
                del events[at]
            case 1:
                events.insert(rng.randrange(len(events) + 1), events[at])
            case 2:
                events.insert(rng.randrange(len(events)), events.pop(at))
            case 3:
                events.insert(
                    at, rng.choice((b": comment", b"data:", b"data", b"data: [DONE]", b"retry: 1", b"id: \xff"))
                )
            case 4:
                events[at] = b"event: " + rng.choice(_NAMES) + b"\n" + events[at]
            case _:
                events[at] = _damage_event(events[at], rng)
    end = rng.choice((b"\n\n", b"\n\n", b"\r\n\r\n", b"\r\r", b"\n\n\n"))
    return b"".join(event + end for event in events)


def _damage_event(event: bytes, rng: random.Random) -> bytes:
    found = _DATA.search(event)
    value = _parse(found[1].decode("utf-8", "replace")) if found is not None else None
    if found is None or value is None:
        return b"data: " + _encode(_dump(odd_value(rng), rng))
    text = _dump(damage_json(value, rng), rng)
    return event[: found.start()] + b"data: " + _encode(text.replace("\n", "\ndata: ")) + event[found.end() :]


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def damage_structure(body: bytes, rng: random.Random) -> bytes:
    """A body with its JSON or its events changed, whichever it is made of; odd JSON in place of any other."""
    if _DATA.search(body):
        return damage_events(body, rng)
    start = body.find(b"{")
    value = _parse(body[start:].decode("utf-8", "replace")) if start >= 0 else None
    changed = odd_value(rng) if value is None else damage_json(value, rng)
    return body[: max(start, 0)] + _encode(_dump(changed, rng))


_STATUSES = (200, 200, 200, 204, 301, 400, 401, 403, 404, 408, 413, 418, 429, 500, 502, 503, 529, 599)
_TYPES = (
    "",
    "text/event-stream",
    "application/json",
    "text/html; charset=UTF-8",
    "text/plain",
    "Application/JSON;x",
    ";",
)
_WAITS = ("5", "0", "-1", "nan", "1e9", "soon", "Wed, 21 Oct 2037 07:28:00 GMT", "9" * 400)
_HEADERS: dict[str, Callable[[random.Random], str]] = {
    "content-type": lambda rng: rng.choice(_TYPES),
    "retry-after": lambda rng: rng.choice(_WAITS),
    "date": lambda rng: rng.choice(("", "yesterday", "Sat, 21 Nov 2026 00:11:59 GMT", "Sat, 99 Nov 2026 00:11:59 GMT")),
    "cf-mitigated": lambda rng: rng.choice(("challenge", "")),
    "x-wp-nonce": lambda rng: rng.choice(("", "0123456789", "\xff", "x" * 5000)),
}


def damage_head(head: Head, rng: random.Random) -> Head:
    """The head with another status, and headers of other values or none."""
    headers = dict(head.headers)
    for name in rng.sample(list(_HEADERS), rng.randrange(1, 4)):
        headers[name] = _HEADERS[name](rng)
        if rng.random() < 0.2:
            del headers[name]
    return Head(rng.choice((head.status, rng.choice(_STATUSES))), headers, head.cookies, head.url)
