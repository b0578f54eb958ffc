"""How many tokens a text has, by estimate: for services that do not count them.

Every model has its own tokens, so no figure here is exact, and whoever shows one marks it as
estimated. Characters are counted by script and each script has its weight, in tokens per character.
The weights lie between two tokenizers of OpenAI (o200k, cl100k) and the one that Anthropic published,
fitted on prose, code and JSON. Against o200k the estimate of a page is within 15 % for Latin, Cyrillic,
Chinese, Japanese, Korean, code and JSON, and up to 35 % too high for Greek, Hebrew, Arabic, Hindi and
Thai, where the older tokenizers count two to three times as many. A sentence may be a quarter off.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from tolmach.chat import ChatRequest, Delta, Event, Image, Message, Reasoning, Text, ToolCallDelta, Usage

__all__ = [
    "ENCODED_FILE",
    "answer_texts",
    "estimate_body",
    "estimate_messages",
    "estimate_prompt",
    "estimate_tokens",
    "estimate_usage",
]

_PER_MESSAGE = 4
"""Tokens around each message: its role and the marks between messages."""
_PER_IMAGE = 765
"""Tokens of a picture: what OpenAI counts for one of 1024 x 1024 (a low `detail` is 85)."""
_PER_IMAGE_LOW = 85


ENCODED_FILE = re.compile(rb"[A-Za-z0-9+/=_-]{4096,}")
"""A picture or another file in a body, by its BASE64."""


def _bytes(*ranges: tuple[int, int]) -> bytes:
    return bytes(byte for first, last in ranges for byte in range(first, last + 1))


# In UTF-8 the first byte of a character tells its script well enough, so counting is deleting bytes.
_WEIGHTS: tuple[tuple[bytes, float], ...] = (
    (b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", 0.25),
    (b"0123456789", 0.75),
    (b"\"!#$%&'()*+,-./:;<=>?@[\\]^_`{|}~", 0.6),
    (b"\n", 0.3),
    (_bytes((0xC2, 0xCD)), 0.5),  # Latin with marks
    (_bytes((0xCE, 0xCF)), 0.5),  # Greek
    (_bytes((0xD0, 0xD3)), 0.4),  # Cyrillic
    (_bytes((0xD4, 0xDF)), 0.5),  # Armenian, Hebrew, Arabic
    (b"\xe0\xe1", 0.5),  # Indic scripts, Thai, Georgian
    (b"\xe2", 1.0),  # punctuation and symbols
    (_bytes((0xE3, 0xEF)), 0.8),  # kana, Han, Hangul
    (_bytes((0xF0, 0xF4)), 1.6),  # emoji and rare characters
)
_ASCII_WEIGHTS = tuple(weight for weight in _WEIGHTS if weight[0].isascii())


def estimate_tokens(text: str) -> int:
    """The tokens of a text, roughly; 0 for an empty one."""
    if not text:
        return 0
    data = text.encode("utf-8", "replace")
    tokens = 0.0
    for characters, weight in _ASCII_WEIGHTS if text.isascii() else _WEIGHTS:
        tokens += weight * (len(data) - len(data.translate(None, characters)))
    return max(1, round(tokens))


def estimate_messages(messages: Iterable[Message]) -> int:
    """The tokens of messages with their pictures, roughly."""
    return sum(_PER_MESSAGE + estimate_tokens("".join(_texts(m))) + _pictures(m) for m in messages)


def estimate_prompt(turn: ChatRequest) -> int:
    """The tokens of a question, roughly: its messages, the tools it offers, the form it asks for."""
    tokens = estimate_messages(turn.messages)
    for name in ("tools", "response_format"):
        if described := turn.options.get(name):
            tokens += estimate_tokens(_json(described))
    return tokens


def estimate_body(body: bytes) -> int:
    """The tokens of a question's body that is not read, roughly: a fourth of its bytes, but for files in it."""
    files = [len(file) for file in ENCODED_FILE.findall(body)]
    return (len(body) - sum(files)) // 4 + 1 + _PER_IMAGE * len(files)


def estimate_usage(turn: ChatRequest, texts: Iterable[str]) -> Usage:
    """The usage of a question and an answer of these texts, marked as estimated."""
    prompt, completion = estimate_prompt(turn), estimate_tokens("".join(texts))
    return Usage(prompt, completion, prompt + completion, estimated=True)


def answer_texts(events: Iterable[Event]) -> Iterator[str]:
    """All that the model wrote in an answer: text, reasoning, tool calls."""
    for event in events:
        match event:
            case Delta(text) | Reasoning(text):
                yield text
            case ToolCallDelta():
                yield f"{event.name or ''}{event.arguments}"


def _texts(message: Message) -> Iterator[str]:
    if isinstance(message.content, str):
        yield message.content
    else:
        yield from (part.text for part in message.content if isinstance(part, Text))
    for call in message.tool_calls:
        yield call.name
        yield call.arguments


def _pictures(message: Message) -> int:
    if isinstance(message.content, str):
        return 0
    details = [part.detail for part in message.content if isinstance(part, Image)]
    return sum(_PER_IMAGE_LOW if detail == "low" else _PER_IMAGE for detail in details)


def _json(value: Any) -> str:
    try:
        return msgspec.json.encode(value).decode()
    except (TypeError, ValueError, OverflowError, RecursionError):
        return str(value)  # what has no form as JSON is refused where it is sent
