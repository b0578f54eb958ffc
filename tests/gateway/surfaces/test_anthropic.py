"""The Anthropic surface: bodies in, tokens counted, errors out."""

import json
from typing import Any

import anthropic
import pytest
from anthropic.types import MessageTokensCount
from anthropic.types.shared import ErrorResponse
from hypothesis import given
from hypothesis import strategies as st

from tests.gateway.surfaces.asking import ANTHROPIC, anthropic_client
from tests.sweeps import examples
from tolmach.chat import Image, Text, ToolCall
from tolmach.chat import Message as Turn
from tolmach.errors import (
    AuthError,
    BadRequest,
    ConfigError,
    ContextTooLong,
    ModelNotFound,
    ProviderUnavailable,
    RateLimited,
    Refused,
    RemoteProtocolError,
    TimedOut,
    UnsupportedFeature,
)
from tolmach.gateway.surfaces.anthropic import AnthropicSurface

SURFACE = AnthropicSurface()
HELLO, asked = ANTHROPIC.hello, ANTHROPIC.asked


# Questions


def test_a_question_with_everything():
    turn = asked(
        stream=True,
        system=[
            {"type": "text", "text": "Be brief", "cache_control": {"type": "ephemeral"}},
            {"type": "text", "text": "Be kind"},
        ],
        temperature=0.5,
        top_p=0.9,
        top_k=40,
        stop_sequences=["END"],
        metadata={"user_id": "u1", "other": 1},
        thinking={"type": "enabled", "budget_tokens": 2000},
        output_config={"effort": "low", "format": {"type": "json_schema", "schema": {"type": "object"}}},
        tools=[{"name": "f", "description": "does", "input_schema": {"type": "object"}, "strict": True}],
        tool_choice={"type": "any", "disable_parallel_tool_use": True},
        service_tier="auto",
        novelty={"a": 1},
        cache_control={"type": "ephemeral"},
        container=None,
    ).turn
    assert turn.messages == (Turn("system", "Be brief\n\nBe kind"), Turn("user", "Hello"))
    assert turn.model == "claude-x"
    assert turn.stream
    schema = {"name": "answer", "schema": {"type": "object"}, "strict": True}
    function = {"name": "f", "description": "does", "parameters": {"type": "object"}, "strict": True}
    assert turn.options == {
        "max_tokens": 100,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 40,
        "stop": ["END"],
        "user": "u1",
        "metadata": {"other": 1},
        "thinking": {"type": "enabled", "budget_tokens": 2000},
        "reasoning_effort": "low",
        "response_format": {"type": "json_schema", "json_schema": schema},
        "tools": [{"type": "function", "function": function}],
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "service_tier": "auto",
        "novelty": {"a": 1},
    }


@pytest.mark.parametrize(
    ("choice", "options"),
    [
        ({"type": "auto"}, {"tool_choice": "auto"}),
        ({"type": "none"}, {"tool_choice": "none"}),
        ({"type": "any"}, {"tool_choice": "required"}),
        ({"type": "tool", "name": "f"}, {"tool_choice": {"type": "function", "function": {"name": "f"}}}),
        (
            {"type": "auto", "disable_parallel_tool_use": True},
            {"tool_choice": "auto", "parallel_tool_calls": False},
        ),
    ],
)
def test_tool_choice(choice, options):
    assert asked(tool_choice=choice).turn.options == {"max_tokens": 100, **options}


def test_a_conversation_with_tools_and_pictures():
    messages = [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is this?"},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "QUJD"}},
                {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}},
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Hm", "signature": ""},
                {"type": "text", "text": "I look"},
                {"type": "tool_use", "id": "t1", "name": "f", "input": {"ключ": [1, None]}},
                {"type": "tool_use", "id": "t2", "name": "g", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "t1", "content": "42"},
                {
                    "type": "tool_result",
                    "tool_use_id": "t2",
                    "is_error": True,
                    "content": [{"type": "text", "text": "no"}],
                },
                {"type": "tool_result", "tool_use_id": "t3"},
                {"type": "text", "text": "Go on"},
            ],
        },
    ]
    question = asked(messages=messages)
    assert question.turn.messages == (
        Turn(
            "user",
            (Text("What is this?"), Image("data:image/png;base64,QUJD"), Image("https://example.org/a.png")),
        ),
        Turn("assistant", "I look", tool_calls=(ToolCall("t1", "f", '{"ключ":[1,null]}'), ToolCall("t2", "g", "{}"))),
        Turn("tool", "42", tool_call_id="t1"),
        Turn("tool", "Error: no", tool_call_id="t2"),
        Turn("tool", "", tool_call_id="t3"),
        Turn("user", "Go on"),
    )
    assert question.echo == {}


def test_a_failed_tool_result_with_a_picture():
    image = {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}}
    result = {"type": "tool_result", "tool_use_id": "t", "is_error": True, "content": [image]}
    [message] = asked(messages=[{"role": "user", "content": [result]}]).turn.messages
    assert message == Turn("tool", (Text("Error: "), Image("https://example.org/a.png")), tool_call_id="t")


def test_what_a_turn_has_no_place_for_is_named():
    thought = {"role": "assistant", "content": [{"type": "thinking", "thinking": "Hm", "signature": "c2ln"}]}
    tool = {"name": "f", "input_schema": {}, "defer_loading": True}
    echo = asked(messages=[*HELLO["messages"], thought], tools=[tool]).echo
    assert set(echo["dropped"]) == {"messages[1].content[0]", "tools[0].defer_loading"}


def _said(*blocks: Any, role: str = "user") -> dict[str, Any]:
    return {"messages": [{"role": role, "content": list(blocks)}]}


BAD: list[tuple[dict[str, Any], str]] = [
    ({"model": None}, "model"),
    ({"model": ""}, "model"),
    ({"model": 5}, "model"),
    ({"messages": None}, "messages"),
    ({"messages": []}, "messages"),
    ({"messages": ["hi"]}, "messages[0]"),
    ({"messages": [{"content": "x"}]}, "messages[0].role"),
    ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
    ({"messages": [{"role": "user"}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
    (_said("x"), "messages[0].content[0]"),
    (_said({"text": "x"}), "messages[0].content[0]"),
    (_said({"type": "text"}), "messages[0].content[0].text"),
    (_said({"type": "image"}), "messages[0].content[0].source"),
    (_said({"type": "image", "source": {"type": "base64", "data": "QQ=="}}), "messages[0].content[0].source"),
    (
        _said({"type": "image", "source": {"type": "base64", "media_type": "text/html", "data": "QQ=="}}),
        "messages[0].content[0].source",
    ),
    (_said({"type": "image", "source": {"type": "url", "url": "file:///etc"}}), "messages[0].content[0].source.url"),
    (_said({"type": "tool_result"}), "messages[0].content[0].tool_use_id"),
    (_said({"type": "tool_result", "tool_use_id": "t", "is_error": 1}), "messages[0].content[0].is_error"),
    (_said({"type": "tool_result", "tool_use_id": "t", "content": 1}), "messages[0].content[0].content"),
    (_said({"type": "tool_result", "tool_use_id": "t", "content": [1]}), "messages[0].content[0].content[0]"),
    (_said({"type": "tool_use", "name": "f", "input": {}}, role="assistant"), "messages[0].content[0].id"),
    (_said({"type": "tool_use", "id": "t", "input": {}}, role="assistant"), "messages[0].content[0].name"),
    (_said({"type": "tool_use", "id": "t", "name": "f", "input": 1}, role="assistant"), "messages[0].content[0].input"),
    ({"max_tokens": None}, "max_tokens"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": "many"}, "max_tokens"),
    ({"system": 5}, "system"),
    ({"system": [{"type": "image"}]}, "system[0]"),
    ({"stream": "yes"}, "stream"),
    ({"temperature": "hot"}, "temperature"),
    ({"top_k": 1.5}, "top_k"),
    ({"stop_sequences": "END"}, "stop_sequences"),
    ({"stop_sequences": [1]}, "stop_sequences[0]"),
    ({"tools": {}}, "tools"),
    ({"tools": [{"input_schema": {}}]}, "tools[0].name"),
    ({"tools": [{"name": "f"}]}, "tools[0].input_schema"),
    ({"tools": [{"name": "f", "input_schema": 1}]}, "tools[0].input_schema"),
    ({"tools": [{"name": "", "input_schema": {}}]}, "tools[0].name"),
    ({"tools": [{"type": 5}]}, "tools[0].type"),
    ({"tool_choice": "auto"}, "tool_choice"),
    ({"tool_choice": {"type": "some"}}, "tool_choice.type"),
    ({"tool_choice": {"type": "tool"}}, "tool_choice.name"),
    ({"thinking": True}, "thinking"),
    ({"metadata": {"user_id": 5}}, "metadata.user_id"),
    ({"output_config": {"format": {"type": "xml"}}}, "output_config.format"),
]


@pytest.mark.parametrize(("fields", "param"), BAD, ids=[f"{i}-{param}" for i, (_, param) in enumerate(BAD)])
def test_a_bad_body_names_its_field(fields, param):
    with pytest.raises(BadRequest) as caught:
        asked(**fields)
    assert caught.value.param == param
    assert str(caught.value).startswith(f"{param}: ")
    status, answer = SURFACE.error(caught.value, "req_1")
    value = json.loads(answer)
    ErrorResponse.model_validate(value, strict=True)
    assert (status, value["error"]["type"], value["request_id"]) == (400, "invalid_request_error", "req_1")


@pytest.mark.parametrize(
    ("fields", "feature"),
    [
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "web_search_20250305"),
        (_said({"type": "document", "source": {}}), "document"),
        (_said({"type": "server_tool_use", "id": "x"}, role="assistant"), "server_tool_use"),
        (_said({"type": "image", "source": {"type": "file", "file_id": "f"}}), "image file"),
    ],
)
def test_what_cannot_be_translated_is_refused_by_name(fields, feature):
    with pytest.raises(UnsupportedFeature) as caught:
        asked(**fields)
    assert caught.value.feature == feature
    assert SURFACE.error(caught.value, "")[0] == 400


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"5", b'{"a":\xff}', b"[" * 100_000, b'{"a":' * 100_000])
def test_what_is_no_json_object_is_a_bad_request(data):
    with pytest.raises(BadRequest):
        SURFACE.parse(data)


def test_lone_surrogates_become_characters():
    turn = SURFACE.parse(
        rb'{"model":"m","max_tokens":1,"messages":[{"role":"user","content":"a\ud83d\ude00\ud800"}]}'
    ).turn
    assert turn.messages[0].content == "a😀\ufffd"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["type", "text", "role", "content", "name", "id", "input", "source", "url"])
            | st.text(max_size=4),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)
WORDS = st.sampled_from(
    ["text", "image", "tool_use", "tool_result", "thinking", "user", "assistant", "base64", "url", ""]
)
BLOCK_FIELDS = ("text", "source", "id", "name", "input", "tool_use_id", "content", "is_error")
OTHER_FIELDS = ("tool_choice", "stop_sequences", "metadata", "thinking", "stream", "output_config", "other")
BLOCK = st.fixed_dictionaries(
    {"type": WORDS | JSON},
    optional=dict.fromkeys(BLOCK_FIELDS, WORDS | JSON),
)
FIELDS = st.fixed_dictionaries(
    {"model": st.just("m") | JSON, "max_tokens": st.just(5) | JSON},
    optional={
        "messages": st.lists(
            st.fixed_dictionaries({"role": WORDS | JSON, "content": st.lists(BLOCK | JSON, max_size=3) | JSON}) | JSON,
            max_size=3,
        )
        | JSON,
        "system": st.lists(BLOCK, max_size=2) | JSON,
        "tools": st.lists(st.dictionaries(st.sampled_from(["type", "name", "input_schema"]), JSON), max_size=2) | JSON,
        **dict.fromkeys(OTHER_FIELDS, JSON),
    },
)


@given(FIELDS | JSON)
@examples(300)
def test_no_body_raises_anything_but_our_errors(value):
    for read in (SURFACE.parse, SURFACE.count):
        try:
            assert read(json.dumps(value).encode())
        except (BadRequest, UnsupportedFeature):
            continue


@given(st.binary(max_size=60))
@examples(100)
def test_no_bytes_raise_anything_but_our_errors(data):
    with pytest.raises(BadRequest):
        SURFACE.parse(data)


# Counting


def test_tokens_are_counted_by_estimate_and_marked_so():
    question = {name: value for name, value in HELLO.items() if name != "max_tokens"}
    value = json.loads(SURFACE.count(json.dumps(question).encode()))
    MessageTokensCount.model_validate(value, strict=True)
    assert value["estimated"] is True
    longer = {**question, "tools": [{"name": "f", "input_schema": {"type": "object"}}]}
    assert json.loads(SURFACE.count(json.dumps(longer).encode()))["input_tokens"] > value["input_tokens"]


# Errors


@pytest.mark.parametrize(
    ("error", "status", "kind", "raised"),
    [
        (BadRequest("no"), 400, "invalid_request_error", anthropic.BadRequestError),
        (ContextTooLong("too long"), 400, "invalid_request_error", anthropic.BadRequestError),
        (ConfigError("no"), 400, "invalid_request_error", anthropic.BadRequestError),
        (AuthError("no key"), 401, "authentication_error", anthropic.AuthenticationError),
        (Refused("blocked"), 403, "permission_error", anthropic.PermissionDeniedError),
        (ModelNotFound("no model"), 404, "not_found_error", anthropic.NotFoundError),
        (BadRequest("model: gone", status=404), 404, "not_found_error", anthropic.NotFoundError),
        (BadRequest("big", status=413, code="request_too_large"), 413, "request_too_large", anthropic.APIStatusError),
        (RateLimited("wait"), 429, "rate_limit_error", anthropic.RateLimitError),
        (ProviderUnavailable("broken"), 502, "api_error", anthropic.InternalServerError),
        (RemoteProtocolError("odd"), 502, "api_error", anthropic.InternalServerError),
        (TimedOut("late"), 504, "timeout_error", anthropic.InternalServerError),
        (ProviderUnavailable("full", status=503), 529, "overloaded_error", anthropic.InternalServerError),
        (
            ProviderUnavailable("full", code="upstream_rate_limited"),
            529,
            "overloaded_error",
            anthropic.InternalServerError,
        ),
        (ProviderUnavailable(""), 502, "api_error", anthropic.InternalServerError),
    ],
)
def test_errors_have_the_status_and_shape_of_the_api(error, status, kind, raised):
    got, data = SURFACE.error(error, "req_9")
    value = json.loads(data)
    assert got == status
    assert set(value) == {"type", "error", "request_id"}
    assert value["error"]["type"] == kind
    assert value["error"]["message"]
    assert value["request_id"] == "req_9"
    with anthropic_client(data, status, "application/json") as reader, pytest.raises(raised) as caught:
        reader.messages.create(**HELLO)
    assert caught.value.status_code == status


def test_an_error_without_a_request_id_says_null():
    assert json.loads(SURFACE.error(BadRequest("no"), "")[1])["request_id"] is None
