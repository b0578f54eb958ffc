"""What services say of their usage: what is believed, and that cached and reasoning tokens count once."""

from typing import Any

import pytest

from tolmach.chat import Usage
from tolmach.protocols.usage import MOST, chat_usage, count


@pytest.mark.parametrize(
    ("said", "believed"),
    [
        (0, 0),
        (17, 17),
        (17.0, 17),
        (MOST, MOST),
        (MOST + 1, None),
        (-1, None),
        (-0.5, None),
        (1.5, None),
        (2**63, None),
        (1e308, None),
        (float("inf"), None),
        (float("nan"), None),
        (True, None),
        (None, None),
        ("17", None),
        ([17], None),
    ],
)
def test_a_count_is_a_whole_number(said: Any, believed: int | None):
    assert count(said) == believed


def told(prompt: Any, completion: Any, total: Any = None, **more: Any) -> Usage | None:
    return chat_usage({"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": total, **more})


@pytest.mark.parametrize("wrong", [-1, 2**63, 0.5, None, "7", True, {}, 1e308])
def test_what_is_no_count_is_as_if_nothing_was_said(wrong: Any):
    assert told(wrong, 5) is None
    assert told(5, wrong) is None
    # A part of it, or a sum that nobody needs, does not spoil the rest.
    assert told(5, 6, wrong) == Usage(5, 6, 11)
    details = {
        "prompt_tokens_details": {"cached_tokens": wrong},
        "completion_tokens_details": {"reasoning_tokens": wrong},
    }
    assert told(5, 6, 11, **details) == Usage(5, 6, 11)
    assert told(5, 6, 11, prompt_tokens_details=wrong, completion_tokens_details=wrong) == Usage(5, 6, 11)


@pytest.mark.parametrize(
    "nothing", [None, [], "7", 7, {}, {"prompt_tokens": 3}, {"prompt_tokens": 0, "completion_tokens": 0}]
)
def test_nothing_is_told(nothing: Any):
    assert chat_usage(nothing) is None


CACHED = Usage(16111, 2, 16113, cached_tokens=15872)


@pytest.mark.parametrize(
    "usage",
    [
        told(16111, 2, 16113, prompt_tokens_details={"cached_tokens": 15872}),
        told(16111, 2, 16113, prompt_cache_hit_tokens=15872, prompt_cache_miss_tokens=239),  # DeepSeek
        told(16111, 2, 16113, cached_tokens=15872),  # Moonshot
        told(239, 2, 241, prompt_tokens_details={"cached_tokens": 15872}),  # left out of the prompt
    ],
)
def test_cached_tokens_count_once(usage: Usage | None):
    assert usage == CACHED


THOUGHT = Usage(11, 226, 237, reasoning_tokens=218)


@pytest.mark.parametrize(
    "usage",
    [
        told(11, 226, 237, completion_tokens_details={"reasoning_tokens": 218}),
        told(11, 8, 237, completion_tokens_details={"reasoning_tokens": 218}),  # xAI
        told(11, 8, 237),  # Gemini's chat completions
        told(11, 8, None, reasoning_tokens=218),
    ],
)
def test_reasoning_counts_once(usage: Usage | None):
    assert usage == THOUGHT


def test_a_sum_that_is_too_small_is_not_believed():
    assert told(30, 20, 7) == Usage(30, 20, 50)
