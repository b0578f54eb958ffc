"""What a service says that an answer took, checked where it enters.

A count is believed when it is a whole number from 0 to `MOST`. What is said in another way (a negative, a fraction, a
number that no answer has, null, nothing) is as if nothing had been said: whoever needs a figure estimates one.

Tokens are counted once: those out of a cache are among those of the prompt, those of hidden reasoning among those of
the completion. Where a service leaves them out of it (xAI, Gemini's chat completions), its total tells them, or that
the part is more than the whole.
"""

from typing import Any

from msgspec import structs

from tolmach.chat import Usage

__all__ = ["MOST", "believed", "chat_usage", "count", "counted", "share"]

MOST = 1_000_000_000
"""No question and no answer has more tokens."""


def count(value: Any) -> int | None:
    """A number of tokens; None for what is none. `5.0` is 5, as some servers write it."""
    if type(value) is float and value.is_integer():
        value = int(value)
    return value if type(value) is int and 0 <= value <= MOST else None


def share(value: Any, *path: str) -> int:
    """A number of tokens at a place in a JSON value, of which it is only a part; 0 where there is none."""
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return count(value) or 0


def counted(
    prompt: int | None, completion: int | None, *, total: int | None = None, cached: int = 0, reasoning: int = 0
) -> Usage | None:
    """The tokens, if both counts are there and not both 0: the shortest question has a token.

    A `total` of more than both has the `reasoning` that the completion lacks.
    """
    if prompt is None or completion is None or not (prompt or completion):
        return None
    if hidden := max((total or 0) - prompt - completion, 0):
        completion += hidden
        reasoning = max(reasoning, hidden)
    prompt += cached if cached > prompt else 0
    completion += reasoning if reasoning > completion else 0
    return Usage(prompt, completion, prompt + completion, cached_tokens=cached, reasoning_tokens=reasoning)


def believed(usage: Usage) -> Usage | None:
    """The tokens that an event tells, checked again: not every protocol is one of ours."""
    prompt, completion = count(usage.prompt_tokens), count(usage.completion_tokens)
    cached, reasoning = count(usage.cached_tokens) or 0, count(usage.reasoning_tokens) or 0
    checked = counted(prompt, completion, cached=cached, reasoning=reasoning)
    return structs.replace(checked, estimated=True) if checked is not None and usage.estimated else checked


def chat_usage(value: Any) -> Usage | None:
    """The `usage` of a chat completion; None where it does not tell the tokens of question and answer.

    The cached tokens stand in `prompt_tokens_details` (OpenAI), `prompt_cache_hit_tokens` (DeepSeek) or
    `cached_tokens` (Moonshot).
    """
    if not isinstance(value, dict):
        return None
    return counted(
        count(value.get("prompt_tokens")),
        count(value.get("completion_tokens")),
        total=count(value.get("total_tokens")),
        cached=share(value, "prompt_tokens_details", "cached_tokens")
        or share(value, "prompt_cache_hit_tokens")
        or share(value, "cached_tokens"),
        reasoning=share(value, "completion_tokens_details", "reasoning_tokens") or share(value, "reasoning_tokens"),
    )
