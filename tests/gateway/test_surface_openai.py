"""The OpenAI surface: its bytes as the openai package reads them, bodies in, errors out, models, embeddings."""

import json
from collections.abc import Iterable
from typing import Any

import httpx2
import msgspec
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types import CreateEmbeddingResponse, Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from anychat.chat import (
    ChatRequest,
    Conversation,
    Delta,
    Done,
    Event,
    FinishReason,
    Image,
    Message,
    Notice,
    Reasoning,
    Text,
    ToolCall,
    ToolCallDelta,
    Usage,
)
from anychat.errors import (
    AnychatError,
    AuthError,
    BadRequest,
    ConfigError,
    ConnectFailed,
    ContextTooLong,
    LocalError,
    ModelNotFound,
    ProviderUnavailable,
    RateLimited,
    Refused,
    TimedOut,
    TruncatedAnswer,
    UnsupportedFeature,
)
from anychat.gateway.surfaces.base import Label
from anychat.gateway.surfaces.bodies import MAX_DEPTH, read_object
from anychat.gateway.surfaces.embeddings import embeddings_body, parse_embeddings
from anychat.gateway.surfaces.models import ModelEntry, model_body, models_body
from anychat.gateway.surfaces.openai import OpenAISurface

SURFACE = OpenAISurface()
LABEL = Label(id="0123456789abcdef01234567", created=1_700_000_000, model="gpt-x", provider="site")
HELLO: dict[str, Any] = {"model": "gpt-x", "messages": [{"role": "user", "content": "Hello"}]}
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
FUNCTION = {"type": "function"}
ALL_REASONS: tuple[FinishReason, ...] = ("stop", "length", "tool_calls", "content_filter")

texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def body(**fields: Any) -> bytes:
    return json.dumps({**HELLO, **fields}).encode()


def asked(**fields: Any):
    return SURFACE.parse(body(**fields))


def whole(events: list[Event], **fields: Any) -> dict[str, Any]:
    data = SURFACE.whole(asked(**fields), events, LABEL)
    value: dict[str, Any] = json.loads(data)
    ChatCompletion.model_validate(value, strict=True)
    return value


def streamed(events: Iterable[Event], error: AnychatError | None = None, **fields: Any) -> bytes:
    encoder = SURFACE.stream(asked(stream=True, **fields), LABEL)
    data = encoder.open() + b"".join(map(encoder.feed, events))
    return data if error is None else data + encoder.fail(error)


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
    reply = httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=data)
    transport = httpx2.MockTransport(lambda request: reply)
    client = openai.OpenAI(
        api_key="k", base_url="http://gateway.test/v1", http_client=httpx2.Client(transport=transport), max_retries=0
    )
    stream: openai.Stream[ChatCompletionChunk] = client.chat.completions.create(
        model="gpt-x", messages=[{"role": "user", "content": "Hello"}], stream=True
    )
    return stream


# Requests


def test_a_question_is_read():
    picture = {"type": "image_url", "image_url": {"url": "https://x/y"}}
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    got = asked(
        messages=[
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": [{"type": "text", "text": "A"}, picture]},
            {"role": "assistant", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c", "content": "7"},
        ],
        stream=True,
        temperature=0.5,
        max_completion_tokens=9,
        n=2,
        stream_options={"include_usage": True},
        new_field={"a": [1]},
        user=None,
    )
    assert got.turn == ChatRequest(
        messages=(
            Message("system", "Be kind."),
            Message("user", (Text("A"), Image("https://x/y"))),
            Message("assistant", "", tool_calls=(ToolCall("c", "f", "{}"),)),
            Message("tool", "7", tool_call_id="c"),
        ),
        model="gpt-x",
        stream=True,
        options={"temperature": 0.5, "max_completion_tokens": 9, "n": 2, "new_field": {"a": [1]}},
    )
    assert got.stream
    assert got.echo == {"include_usage": True, "n": 2}


def test_without_options_nothing_is_streamed_and_nothing_asked_for():
    got = asked(stream=None, stream_options=None)
    assert (got.stream, got.turn.stream, got.turn.options) == (False, False, {})
    assert got.echo == {"include_usage": False, "n": 1}


def test_unknown_stream_options_are_passed_on():
    got = asked(stream=True, stream_options={"include_obfuscation": False, "continuous_usage_stats": True})
    assert got.turn.options == {"stream_options": {"include_usage": True, "continuous_usage_stats": True}}


def test_what_a_message_cannot_carry_is_named():
    got = asked(
        messages=[
            {
                "role": "user",
                "content": [{"type": "text", "text": "A", "cache_control": {"type": "x"}, "odd": 1}],
                "z": 2,
            },
            {"role": "assistant", "content": None, "refusal": "No.", "reasoning_content": "hm", "audio": None},
            {"role": "assistant", "content": [{"type": "refusal", "refusal": "Never."}]},
        ]
    )
    assert got.echo["dropped"] == ("messages[0].z", "messages[0].content[0].odd", "messages[1].reasoning_content")
    assert [message.text for message in got.turn.messages] == ["A", "No.", "Never."]


def test_half_characters_are_mended():
    data = (
        b'{"model": "gpt-x", "messages": [{"role": "user", "content": "a\\ud83d"}], "stop": ["\\ud83d\\ude00\\udc00"]}'
    )
    got = SURFACE.parse(data)
    assert got.turn.messages[0].text == "a\ufffd"
    assert got.turn.options == {"stop": ["\U0001f600\ufffd"]}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": None}, "model"),
        ({"model": ""}, "model"),
        ({"messages": []}, "messages"),
        ({"messages": "Hello"}, "messages"),
        ({"messages": [3]}, "messages[0]"),
        ({"messages": [{"content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": ["user"], "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "boss", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": "x", "name": 3}]}, "messages[0].name"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id"),
        ({"messages": [{"role": "assistant", "tool_calls": [{}]}]}, "messages[0].tool_calls[0]"),
        ({"temperature": "hot"}, "temperature"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
        ({"n": 0}, "n"),
        ({"n": 129}, "n"),
        ({"n": True}, "n"),
        ({"stop": [1]}, "stop[0]"),
        ({"tools": [{"function": {"name": "f"}}]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].function.name"),
        ({"tools": [{"type": "function", "function": {"parameters": {}}}]}, "tools[0].function.name"),
        ({"tools": [{**FUNCTION, "function": {"name": "f", "parameters": []}}]}, "tools[0].function.parameters"),
        ({"response_format": {"schema": {}}}, "response_format.type"),
    ],
)
def test_a_wrong_field_is_named(fields, param):
    with pytest.raises(BadRequest) as caught:
        asked(**fields)
    assert caught.value.param == param
    status, data = SURFACE.error(caught.value, "")
    assert status == 400
    assert json.loads(data)["error"]["param"] == param


@pytest.mark.parametrize("name", ["model", "messages"])
def test_a_missing_field_is_named(name):
    with pytest.raises(BadRequest, match="required") as caught:
        SURFACE.parse(json.dumps({key: value for key, value in HELLO.items() if key != name}).encode())
    assert (caught.value.param, caught.value.code) == (name, "missing_required_parameter")


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b"null", b'"x"', b"\xff{}", b"{}x"]
    + [b'{"a": %b, "b": "\\ud800"}' % number for number in (b"NaN", b"1e999")]
    + [b'{"model": ' + b"[" * depth for depth in (1, 3000)],
)
def test_what_is_no_object_is_refused(data):
    with pytest.raises(BadRequest):
        SURFACE.parse(data)


@pytest.mark.parametrize(("depth", "fine"), [(MAX_DEPTH - 1, True), (MAX_DEPTH, False)])
def test_a_body_may_be_nested_so_deep(depth, fine):
    data = b'{"a": ' + b"[" * depth + b"]" * depth + b"}"
    if fine:
        assert read_object(data)
    else:
        with pytest.raises(BadRequest, match="nested"):
            read_object(data)


def test_many_brackets_are_not_depth():
    assert len(read_object(b'{"a": [' + b"[]," * 500 + b"{}]}")["a"]) == 501


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]},
        {"role": "assistant", "function_call": {"name": "f", "arguments": "{}"}},
    ],
)
def test_what_cannot_be_translated_is_refused_by_name(message):
    with pytest.raises(UnsupportedFeature) as caught:
        asked(messages=[message])
    assert caught.value.feature in ("input_audio", "function_call")


@given(st.dictionaries(st.sampled_from([*HELLO, "stream", "tools", "n", "stop", "response_format", "x"]), json_values))
@settings(max_examples=300, deadline=None)
def test_any_body_is_a_question_or_an_error_of_ours(fields):
    try:
        got = SURFACE.parse(json.dumps({**HELLO, **fields}).encode())
    except AnychatError:
        return
    assert got.turn.messages


@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["role", "content", "name", "tool_calls", "tool_call_id", "y"]),
            json_values | st.sampled_from(["user", "assistant", "tool"]),
        ),
        max_size=3,
    )
)
@settings(max_examples=300, deadline=None)
def test_any_messages_are_a_question_or_an_error_of_ours(messages):
    try:
        got = asked(messages=messages)
    except AnychatError:
        return
    assert len(got.turn.messages) == len(messages)


@given(st.binary(max_size=60))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_a_question_or_an_error_of_ours(data):
    with pytest.raises(AnychatError):
        SURFACE.parse(data)


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
@settings(max_examples=150, deadline=None)
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


# Errors


@pytest.mark.parametrize(
    ("error", "status", "kind", "code", "param"),
    [
        (ModelNotFound("no such"), 404, "invalid_request_error", "model_not_found", "model"),
        (UnsupportedFeature("no", feature="n"), 400, "invalid_request_error", "unsupported_parameter", "n"),
        (ConfigError("bad"), 400, "invalid_request_error", None, None),
        (BadRequest("bad", param="n"), 400, "invalid_request_error", None, "n"),
        (BadRequest("bad", code="x"), 400, "invalid_request_error", "x", None),
        (ContextTooLong("long", code="odd"), 400, "invalid_request_error", "context_length_exceeded", None),
        (Refused("no"), 403, "invalid_request_error", "content_filter", None),
        (RateLimited("slow"), 429, "rate_limit_error", "rate_limit_exceeded", None),
        (RateLimited("paid", code="insufficient_quota"), 429, "insufficient_quota", "insufficient_quota", None),
        (AuthError("who"), 401, "authentication_error", "invalid_api_key", None),
        (TimedOut("late"), 504, "server_error", "timeout", None),
        (ConnectFailed("off"), 502, "server_error", "connect_failed", None),
        (ProviderUnavailable("off", code="empty"), 502, "server_error", "empty", None),
        (TruncatedAnswer(), 502, "server_error", "truncated", None),
        (LocalError("own"), 500, "server_error", None, None),
        (AnychatError(), 500, "server_error", None, None),
    ],
)
def test_errors_have_the_shape_and_status_of_the_api(error, status, kind, code, param):
    got, data = SURFACE.error(error, "req-1")
    value = json.loads(data)
    assert (got, value["request_id"]) == (status, "req-1")
    assert value["error"] == {"message": str(error) or type(error).__name__, "type": kind, "param": param, "code": code}
    assert "request_id" not in json.loads(SURFACE.error(error, "")[1])


def test_an_error_with_half_a_character_is_told():
    assert json.loads(SURFACE.error(BadRequest("a\ud800", code="\ud800"), "")[1])["error"]["message"] == "a?"


# Models and embeddings


def test_models_are_listed():
    entries = [ModelEntry(id="a/b", created=5, owned_by="a"), ModelEntry(id="c", created=6, owned_by="route")]
    value = json.loads(models_body(entries))
    assert value["object"] == "list"
    assert [Model.model_validate(row, strict=True).id for row in value["data"]] == ["a/b", "c"]
    assert json.loads(model_body(entries, "a/b")) == value["data"][0]
    with pytest.raises(ModelNotFound, match="'z'"):
        model_body(entries, "z")


@pytest.mark.parametrize(
    ("given_input", "inputs"),
    [("a", ("a",)), (["a", "b"], ("a", "b")), ([1, 2], ((1, 2),)), ([[1], [2, 3]], ((1,), (2, 3)))],
)
def test_inputs_of_embeddings(given_input, inputs):
    got = parse_embeddings(json.dumps({"model": "m", "input": given_input, "user": "u", "odd": 1}).encode())
    assert (got.inputs, got.options) == (inputs, {"user": "u", "odd": 1})


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": []}, "input"),
        ({"input": ""}, "input"),
        ({"input": ["a", ""]}, "input[1]"),
        ({"input": [True]}, "input[0]"),
        ({"input": [[-1]]}, "input[0]"),
        ({"input": ["a", 1]}, "input[1]"),
        ({"input": ["a"] * 2049}, "input"),
        ({"input": 7}, "input"),
        ({"model": ""}, "model"),
        ({"dimensions": 0}, "dimensions"),
        ({"encoding_format": "hex"}, "encoding_format"),
    ],
)
def test_wrong_embedding_requests_are_named(fields, param):
    with pytest.raises(BadRequest) as caught:
        parse_embeddings(json.dumps({"model": "m", "input": "x", **fields}).encode())
    assert caught.value.param == param


@given(st.dictionaries(st.sampled_from(["model", "input", "dimensions", "encoding_format"]), json_values))
@settings(max_examples=150, deadline=None)
def test_any_embedding_request_is_read_or_refused(fields):
    try:
        got = parse_embeddings(json.dumps({"model": "m", "input": "x", **fields}).encode())
    except AnychatError:
        return
    assert got.inputs


@pytest.mark.parametrize("form", ["float", "base64"])
def test_vectors_reach_the_client_in_either_form(form):
    vectors = [[0.5, -1.25], [3.0, 0.0]]

    def handle(request: httpx2.Request) -> httpx2.Response:
        sent = parse_embeddings(request.content)
        assert sent.encoding_format == form
        return httpx2.Response(
            200, content=embeddings_body(sent, vectors, None), headers={"content-type": "application/json"}
        )

    client = openai.OpenAI(
        api_key="k", base_url="http://g.test/v1", http_client=httpx2.Client(transport=httpx2.MockTransport(handle))
    )
    arguments: dict[str, Any] = {"encoding_format": "float"} if form == "float" else {}
    got = client.embeddings.create(model="m", input=["one", "two"], **arguments)
    assert [row.embedding for row in got.data] == vectors
    assert got.usage.to_dict()["estimated"] is True


def test_counted_tokens_of_embeddings_are_told():
    sent = parse_embeddings(b'{"model": "m", "input": "x"}')
    value = msgspec.json.decode(embeddings_body(sent, [[1.0]], 5))
    CreateEmbeddingResponse.model_validate(value)
    assert value["usage"] == {"prompt_tokens": 5, "total_tokens": 5}
