"""The OpenAI surface: bodies in, errors out."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.gateway.surfaces.asking import OPENAI
from tests.sweeps import examples
from tolmach.chat import ChatRequest, Image, Message, Text, ToolCall
from tolmach.errors import (
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
    TolmachError,
    TruncatedAnswer,
    UnsupportedFeature,
)
from tolmach.gateway.surfaces.bodies import MAX_DEPTH, read_object
from tolmach.gateway.surfaces.openai import OpenAISurface

SURFACE = OpenAISurface()
HELLO, asked = OPENAI.hello, OPENAI.asked
FUNCTION = {"type": "function"}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


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
@examples(300)
def test_any_body_is_a_question_or_an_error_of_ours(fields):
    try:
        got = SURFACE.parse(json.dumps({**HELLO, **fields}).encode())
    except TolmachError:
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
@examples(300)
def test_any_messages_are_a_question_or_an_error_of_ours(messages):
    try:
        got = asked(messages=messages)
    except TolmachError:
        return
    assert len(got.turn.messages) == len(messages)


@given(st.binary(max_size=60))
@examples(200)
def test_any_bytes_are_a_question_or_an_error_of_ours(data):
    with pytest.raises(TolmachError):
        SURFACE.parse(data)


# Errors


@pytest.mark.parametrize(
    ("error", "status", "kind", "code", "param"),
    [
        (ModelNotFound("no such"), 404, "invalid_request_error", "model_not_found", "model"),
        (UnsupportedFeature("no", feature="n"), 400, "invalid_request_error", "unsupported_parameter", "n"),
        (ConfigError("bad"), 400, "invalid_request_error", None, None),
        (BadRequest("bad", param="n"), 400, "invalid_request_error", None, "n"),
        (BadRequest("gone", status=404, code="y"), 404, "invalid_request_error", "y", None),
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
        (TolmachError(), 500, "server_error", None, None),
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
