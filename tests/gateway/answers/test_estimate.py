"""Estimates of tokens: near the counts of OpenAI's o200k tokenizer, which were taken once and stand here."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tolmach.chat import ChatRequest, Delta, Done, Event, Image, Message, Reasoning, Text, ToolCall, ToolCallDelta
from tolmach.gateway.answers.estimate import (
    answer_texts,
    estimate_messages,
    estimate_prompt,
    estimate_tokens,
    estimate_usage,
)

COUNTED = {
    "The quick brown fox jumps over the lazy dog, and the dog does not mind at all.": 19,
    "Быстрая лиса прыгает через ленивую собаку, а собака совсем не против.": 23,
    "人工智能是计算机科学的一个分支，它企图了解智能的实质。": 19,
    "def read(path: str) -> list[int]:\n    with open(path) as file:\n        return [int(x) for x in file]\n": 29,
    '{"id": 17, "name": "item 17", "price": 23.29, "tags": ["a", "b"], "ok": true}': 36,
}


@pytest.mark.parametrize(("text", "tokens"), COUNTED.items())
def test_a_text_is_estimated_near_its_count(text, tokens):
    assert estimate_tokens(text) == pytest.approx(tokens, rel=0.25)
    assert estimate_tokens(text * 50) == pytest.approx(tokens * 50, rel=0.25)


@given(st.text(st.characters(codec="utf-8")), st.text(st.characters(codec="utf-8")))
def test_more_text_is_never_fewer_tokens(first, second):
    assert estimate_tokens(first) <= estimate_tokens(first + second)
    assert (estimate_tokens(first) == 0) == (first == "")


def test_a_question_counts_its_messages_pictures_calls_and_tools():
    said = Message("user", "Hello there")
    plain = estimate_messages([said])
    assert plain > estimate_tokens("Hello there")
    assert estimate_messages([said, said]) == 2 * plain
    parts = Message("user", (Text("Hello "), Text("there"), Image("data:,x"), Image("data:,y", "low")))
    assert estimate_messages([parts]) == plain + 765 + 85
    calling = Message("assistant", tool_calls=(ToolCall("1", "weather", '{"city": "Oslo"}'),))
    assert estimate_messages([calling]) > estimate_messages([Message("assistant")])
    turn = ChatRequest(messages=(said,))
    offering = ChatRequest(messages=(said,), options={"tools": [{"type": "function", "function": {"name": "weather"}}]})
    assert estimate_prompt(turn) == plain < estimate_prompt(offering)
    odd = ChatRequest(messages=(said,), options={"tools": [object()]})
    assert estimate_prompt(odd) > plain


def test_usage_of_a_question_and_its_answer_is_marked():
    events: list[Event] = [
        Reasoning("Let me see"),
        Delta("It is sunny"),
        ToolCallDelta(0, "i", "weather", "{}"),
        Done(),
    ]
    turn = ChatRequest(messages=(Message("user", "Hello"),))
    usage = estimate_usage(turn, answer_texts(events))
    assert usage.estimated
    assert usage.prompt_tokens == estimate_prompt(turn)
    assert usage.completion_tokens == estimate_tokens("Let me seeIt is sunnyweather{}")
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
