"""The OpenAI surface: streams and whole answers, as the openai package reads them."""

import json
from typing import Any

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from tests.gateway.surfaces.asking import OPENAI, openai_client
from tests.sweeps import examples
from tolmach.chat import Conversation, Delta, Done, Event, FinishReason, Notice, Reasoning, ToolCallDelta, Usage
from tolmach.errors import ProviderUnavailable, TruncatedAnswer
from tolmach.gateway.surfaces.openai import OpenAISurface

SURFACE = OpenAISurface()
LABEL = OPENAI.label
asked, streamed, whole = OPENAI.asked, OPENAI.streamed, OPENAI.whole
COUNTED = Usage(12, 7, 19, cached_tokens=3, reasoning_tokens=2)
PARALLEL: list[Event] = [
    Delta("Looking it up"),
    ToolCallDelta(2, "call_a", "weather", ""),
    ToolCallDelta(2, name="weather", arguments='{"city": '),
    ToolCallDelta(2, arguments='"Oslo"}'),
    ToolCallDelta(4, None, "time", '{"zone": "CET"}'),
    COUNTED,
    Done("tool_calls"),
]
ALL_REASONS: tuple[FinishReason, ...] = ("stop", "length", "tool_calls", "content_filter")

texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)


def chunks(data: bytes) -> list[dict[str, Any]]:
    """The chunks of a stream, each of which the package's model takes."""
    assert data.endswith(b"\n\n")
    lines = [line for line in data.decode().split("\n\n") if line and not line.startswith(":")]
    assert all(line.startswith("data: ") for line in lines)
    values = [json.loads(line[6:]) for line in lines if line != "data: [DONE]"]
    for value in values:
        ChatCompletionChunk.model_validate(value, strict=True)
    return values


def read_by_client(data: bytes) -> openai.Stream[ChatCompletionChunk]:
    stream: openai.Stream[ChatCompletionChunk] = openai_client(data).chat.completions.create(
        model="gpt-x", messages=[{"role": "user", "content": "Hello"}], stream=True
    )
    return stream


# Whole answers


def test_a_whole_answer():
    value = whole(
        [Reasoning("Hm. "), Delta("Hel"), Reasoning("Yes."), Delta("lo"), COUNTED, Conversation({"a": "b"}), Done()]
    )
    assert value == {
        "id": "chatcmpl-0123456789abcdef01234567",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "gpt-x",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello", "refusal": None, "reasoning_content": "Hm. Yes."},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 12,
            "completion_tokens": 7,
            "total_tokens": 19,
            "prompt_tokens_details": {"cached_tokens": 3},
            "completion_tokens_details": {"reasoning_tokens": 2},
        },
        "system_fingerprint": None,
    }


def test_whole_tool_calls():
    value = whole(PARALLEL)
    message = value["choices"][0]["message"]
    assert message["content"] == "Looking it up"
    assert message["tool_calls"] == [
        {"id": "call_a", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}},
        {"id": f"call_{LABEL.id}4", "type": "function", "function": {"name": "time", "arguments": '{"zone": "CET"}'}},
    ]
    assert whole(PARALLEL[1:])["choices"][0]["message"]["content"] is None


def test_a_refusal_stands_in_its_field():
    message = whole([Notice("refusal", "..."), Delta("I "), Delta("won't."), Done()])["choices"][0]["message"]
    assert (message["content"], message["refusal"]) == (None, "I won't.")


def test_what_was_taken_back_does_not_count():
    value = whole([Delta("Hello wor"), Notice("rewritten", "Bye"), Delta("!"), Notice("odd", "x"), Done()])
    assert value["choices"][0]["message"]["content"] == "Bye!"
    assert value["notices"] == [{"kind": "odd", "text": "x"}]


@pytest.mark.parametrize("counted", [None, Usage(1, 2, 3, estimated=True)])
def test_guessed_tokens_are_marked(counted):
    usage = whole([Delta("Hello there"), *([counted] if counted else []), Done()])["usage"]
    assert usage["estimated"] is True
    assert usage["prompt_tokens"] >= 1
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert "estimated" not in whole([Delta("x"), COUNTED, Done()])["usage"]


def test_several_whole_answers():
    answers: list[list[Event]] = [[Delta("one"), COUNTED, Done()], [Delta("two"), Usage(1, 1, 2), Done("length")]]
    value = json.loads(SURFACE.whole_of_several(asked(n=2), answers, LABEL))
    ChatCompletion.model_validate(value, strict=True)
    assert [(c["index"], c["message"]["content"], c["finish_reason"]) for c in value["choices"]] == [
        (0, "one", "stop"),
        (1, "two", "length"),
    ]
    assert value["usage"]["total_tokens"] == 21


# Streams


def test_a_stream_begins_with_the_role_and_ends_with_the_mark():
    data = streamed([Delta("Hel"), Delta('"lo\n'), Done()])
    first, *deltas, last = chunks(data)
    assert first["choices"] == [
        {
            "index": 0,
            "delta": {"role": "assistant", "content": "", "refusal": None},
            "logprobs": None,
            "finish_reason": None,
        }
    ]
    assert [chunk["choices"][0]["delta"] for chunk in deltas] == [{"content": "Hel"}, {"content": '"lo\n'}]
    assert last["choices"] == [{"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}]
    assert data.endswith(b"}\n\ndata: [DONE]\n\n")
    assert all("usage" not in chunk for chunk in (first, *deltas, last))
    assert {(c["id"], c["model"], c["created"]) for c in (first, *deltas, last)} == {
        ("chatcmpl-" + LABEL.id, "gpt-x", 1_700_000_000)
    }


def test_each_piece_goes_out_at_once():
    encoder = SURFACE.stream(asked(stream=True), LABEL)
    assert encoder.open() == b""
    for text in ("a", "b", "c"):
        assert text in encoder.feed(Delta(text)).decode()


@pytest.mark.parametrize("counted", [COUNTED, None])
def test_usage_comes_in_a_chunk_of_its_own_when_asked_for(counted):
    events = [Delta("Hi"), *([counted] if counted else []), Done()]
    *others, last = chunks(streamed(events, stream_options={"include_usage": True}))
    assert [chunk["usage"] for chunk in others] == [None] * 3
    assert last["choices"] == []
    assert last["usage"].get("estimated", False) is (counted is None)
    assert last["usage"]["total_tokens"] > 0


@pytest.mark.parametrize("reason", ALL_REASONS)
def test_reasons_for_the_end(reason):
    assert chunks(streamed([Delta("x"), Done(reason)]))[-1]["choices"][0]["finish_reason"] == reason
    assert whole([Delta("x"), Done(reason)])["choices"][0]["finish_reason"] == reason


def test_notices_stand_in_the_last_chunk():
    data = chunks(streamed([Notice("dropped", 'the "x"'), Delta("x"), Done()]))
    assert data[-1]["notices"] == [{"kind": "dropped", "text": 'the "x"'}]
    assert "notices" not in data[0]


def test_an_answer_with_nothing_in_it_still_has_a_role_and_an_end():
    first, last = chunks(streamed([Done("length")]))
    assert first["choices"][0]["delta"]["role"] == "assistant"
    assert last["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize("before", [[], [Delta("Hel")], [Reasoning("x"), ToolCallDelta(0, "c", "f", "{")]])
def test_a_failure_has_no_mark_of_an_end(before):
    data = streamed(before, TruncatedAnswer(partial="Hel"), stream_options={"include_usage": True})
    assert b"[DONE]" not in data
    assert b'"finish_reason":"' not in data
    error = json.loads(data.rpartition(b"data: ")[2])["error"]
    assert error["type"] == "server_error"
    assert set(error) == {"message", "type", "param", "code"}
    with pytest.raises(openai.APIError, match="broke off") as caught:
        list(read_by_client(data))
    assert caught.value.code == "truncated"


def test_comments_keep_the_connection_open():
    encoder = SURFACE.stream(asked(stream=True), LABEL)
    data = encoder.keep_alive() + encoder.feed(Delta("Hi")) + encoder.keep_alive() + encoder.feed(Done())
    assert [chunk.choices[0].delta.content for chunk in read_by_client(data)] == ["", "Hi", None]


def test_the_package_puts_a_stream_together():
    state = ChatCompletionStreamState(input_tools=[])
    data = streamed([Reasoning("Hm."), *PARALLEL], stream_options={"include_usage": True})
    for chunk in read_by_client(data):
        state.handle_chunk(chunk)
    answer = state.get_final_completion()
    message = answer.choices[0].message
    assert message.content == "Looking it up"
    assert message.to_dict()["reasoning_content"] == "Hm."
    calls = [call for call in message.tool_calls or () if call.type == "function"]
    assert [(call.id, call.function.name, call.function.arguments) for call in calls] == [
        ("call_a", "weather", '{"city": "Oslo"}'),
        (f"call_{LABEL.id}4", "time", '{"zone": "CET"}'),
    ]
    assert answer.choices[0].finish_reason == "tool_calls"
    assert answer.usage is not None
    assert answer.usage.total_tokens == 19


def test_a_streamed_refusal():
    state = ChatCompletionStreamState()
    for chunk in read_by_client(streamed([Notice("refusal", "..."), Delta("I "), Delta("won't."), Done()])):
        state.handle_chunk(chunk)
    message = state.get_final_completion().choices[0].message
    assert (message.content, message.refusal) == (None, "I won't.")


events = st.lists(
    st.one_of(
        st.builds(Delta, texts),
        st.builds(Reasoning, texts),
        st.builds(ToolCallDelta, st.integers(0, 3), st.none() | texts, st.none() | texts, texts),
        st.builds(Notice, st.sampled_from(["odd", "dropped"]), texts),
        st.just(COUNTED),
    ),
    max_size=12,
)


@given(events, st.booleans())
@examples(150)
def test_a_stream_put_together_is_the_whole_answer(happened, usage):
    done: list[Event] = [*happened, Done()]
    # What the accumulator of the package makes of the pieces, done by hand: it wants tool calls in order.
    message: dict[str, Any] = {"content": "", "thoughts": "", "calls": {}}
    got = chunks(streamed(done, stream_options={"include_usage": usage}))
    for chunk in got:
        for choice in chunk["choices"]:
            delta = choice["delta"]
            message["content"] += delta.get("content") or ""
            message["thoughts"] += delta.get("reasoning_content", "")
            for piece in delta.get("tool_calls", ()):
                call = message["calls"].setdefault(piece["index"], ["", "", ""])
                call[0] += piece.get("id", "")
                call[1] += piece["function"].get("name", "")
                call[2] += piece["function"]["arguments"]
    value = whole(done)["choices"][0]["message"]
    assert message["content"] == (value["content"] or "")
    assert message["thoughts"] == value.get("reasoning_content", "")
    calls = sorted((c["id"], c["function"]["name"], c["function"]["arguments"]) for c in value.get("tool_calls", ()))
    assert sorted(map(tuple, message["calls"].values())) == calls
    assert sorted(message["calls"]) == list(range(len(calls)))
    assert bool(got[-1].get("usage")) is usage


# Several answers in one stream


def test_several_answers_are_told_apart_and_end_once():
    encoder = SURFACE.streams(asked(n=2, stream=True, stream_options={"include_usage": True}), LABEL, 2)
    steps: list[tuple[int, Event]] = [
        (1, Delta("two")),
        (0, Delta("one")),
        (1, COUNTED),
        (1, Done()),
        (0, Delta("!")),
        (0, Usage(1, 1, 2, estimated=True)),
        (0, Done("length")),
    ]
    pieces = [encoder.open()] + [encoder.feed(index, event) for index, event in steps]
    assert all(b"[DONE]" not in piece for piece in pieces[:-1])
    data = b"".join(pieces)
    assert data.count(b"[DONE]") == 1
    got = list(read_by_client(data))
    texts_of = {i: "".join(c.delta.content or "" for k in got for c in k.choices if c.index == i) for i in (0, 1)}
    reasons = {c.index: c.finish_reason for k in got for c in k.choices if c.finish_reason}
    assert texts_of == {0: "one!", 1: "two"}
    assert reasons == {0: "length", 1: "stop"}
    assert len({chunk.id for chunk in got}) == 1
    usage = chunks(data)[-1]["usage"]
    assert (usage["total_tokens"], usage["estimated"]) == (21, True)


def test_one_failure_ends_all_of_several():
    encoder = SURFACE.streams(asked(n=2, stream=True), LABEL, 2)
    data = encoder.feed(0, Delta("one")) + encoder.feed(0, Done()) + encoder.fail(ProviderUnavailable("gone"))
    assert b"[DONE]" not in data + encoder.keep_alive()
    with pytest.raises(openai.APIError, match="gone"):
        list(read_by_client(data))
