"""The Responses surface: bodies in, conversations that go on, errors out."""

import json
from typing import Any

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.gateway.surfaces.asking import RESPONSES, openai_client, parsed
from tests.sweeps import examples
from tolmach.chat import Delta, Done, Event, Image, Text, ToolCall, ToolCallDelta
from tolmach.chat import Message as Turn
from tolmach.errors import (
    AuthError,
    BadRequest,
    ModelNotFound,
    ProviderUnavailable,
    RateLimited,
    TimedOut,
    UnsupportedFeature,
)
from tolmach.gateway.surfaces.responses_request import continued, remembered

SURFACE, LABEL, HELLO = RESPONSES.surface, RESPONSES.label, RESPONSES.hello
asked, whole = RESPONSES.asked, RESPONSES.whole


# Questions


def test_a_question_with_everything():
    question = asked(
        stream=True,
        stream_options={"include_obfuscation": False},
        instructions="Be brief",
        max_output_tokens=50,
        temperature=0.5,
        top_p=0.9,
        truncation="auto",
        tools=[{"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": True}],
        tool_choice="required",
        parallel_tool_calls=False,
        text={"format": {"type": "json_schema", "name": "n", "schema": {"a": 1}, "strict": True}, "verbosity": "low"},
        reasoning={"effort": "low", "summary": "auto", "context": "all_turns"},
        include=["reasoning.encrypted_content", "message.output_text.logprobs", "new"],
        metadata={"a": "b"},
        store=False,
        user="u",
        prompt_cache_key="k",
        novelty=[1],
        previous_response_id="resp_1",
        service_tier=None,
        background=False,
    )
    assert question.turn.messages == (Turn("system", "Be brief"), Turn("user", "Hello"))
    assert question.stream
    assert question.turn.stream
    assert question.turn.options == {
        "max_tokens": 50,
        "temperature": 0.5,
        "top_p": 0.9,
        "truncation": "auto",
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}, "strict": True}}],
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"a": 1}, "strict": True}},
        "verbosity": "low",
        "reasoning_effort": "low",
        "reasoning": {"context": "all_turns"},
        "logprobs": True,
        "include": ["new"],
        "user": "u",
        "prompt_cache_key": "k",
        "novelty": [1],
    }
    assert (question.echo["previous_response_id"], question.echo["store"]) == ("resp_1", False)


@pytest.mark.parametrize(
    ("given", "made"),
    [
        ({"type": "function", "name": "f"}, {"type": "function", "function": {"name": "f"}}),
        (
            {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}]},
            {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "function": {"name": "f"}}]},
            },
        ),
        ("none", "none"),
    ],
)
def test_tool_choice(given, made):
    assert asked(tool_choice=given).turn.options == {"tool_choice": made}


def test_items_become_messages():
    items = [
        {"role": "developer", "content": "Rules"},
        {
            "type": "message",
            "role": "user",
            "content": [
                {"type": "input_text", "text": "What is this?"},
                {"type": "input_image", "image_url": "https://example.org/a.png", "detail": "low"},
            ],
        },
        {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "Hm"}]},
        {
            "type": "message",
            "id": "msg_1",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": "I look", "annotations": []}],
        },
        {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "f", "arguments": "{}"},
        {"type": "function_call", "id": "fc_2", "call_id": "c2", "name": "g", "arguments": '{"a":1}'},
        {"type": "function_call_output", "call_id": "c1", "output": "42"},
        {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "43"}]},
        {"type": "function_call", "call_id": "c3", "name": "f", "arguments": ""},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "No"}]},
    ]
    question = asked(input=items)
    assert question.turn.messages == (
        Turn("developer", "Rules"),
        Turn("user", (Text("What is this?"), Image("https://example.org/a.png", "low"))),
        Turn("assistant", "I look", tool_calls=(ToolCall("c1", "f", "{}"), ToolCall("c2", "g", '{"a":1}'))),
        Turn("tool", "42", tool_call_id="c1"),
        Turn("tool", "43", tool_call_id="c2"),
        Turn("assistant", tool_calls=(ToolCall("c3", "f", ""),)),
        Turn("assistant", "No"),
    )
    assert "dropped" not in question.echo


def test_what_a_turn_has_no_place_for_is_named():
    tool = {"type": "function", "name": "f", "defer_loading": True}
    thought = {"type": "reasoning", "id": "rs", "summary": [], "encrypted_content": "x"}
    question = asked(input=[{"role": "user", "content": "a"}, thought], tools=[tool], stream_options={"new": 1})
    assert set(question.echo["dropped"]) == {"input[1]", "tools[0].defer_loading", "stream_options.new"}


def test_the_next_question_goes_on_from_an_earlier_response():
    first = asked(instructions="Rules")
    events: list[Event] = [Delta("Hi"), ToolCallDelta(0, None, "f", "{"), ToolCallDelta(0, arguments="}"), Done()]
    kept = remembered(first, events, LABEL)
    call = whole(events)["output"][1]
    assert kept == (Turn("user", "Hello"), Turn("assistant", "Hi", tool_calls=(ToolCall(call["call_id"], "f", "{}"),)))
    result = [{"type": "function_call_output", "call_id": call["call_id"], "output": "1"}]
    following = continued(asked(input=result, instructions="Other", previous_response_id="resp_1"), kept)
    answer = Turn("tool", "1", tool_call_id=call["call_id"])
    assert following.turn.messages == (Turn("system", "Other"), *kept, answer)
    assert continued(asked(input=result), kept).turn.messages == (*kept, answer)


def _item(**fields: Any) -> dict[str, Any]:
    return {"input": [fields]}


def _parts(*parts: Any) -> dict[str, Any]:
    return _item(role="user", content=list(parts))


BAD: list[tuple[dict[str, Any], str]] = [
    ({"model": None}, "model"),
    ({"model": ""}, "model"),
    ({"input": None}, "input"),
    ({"input": ""}, "input"),
    ({"input": []}, "input"),
    ({"input": 5}, "input"),
    ({"input": ["x"]}, "input[0]"),
    ({"instructions": 5}, "instructions"),
    (_item(type=5), "input[0].type"),
    (_item(role="tool", content="x"), "input[0].role"),
    (_item(content="x"), "input[0].role"),
    (_item(role="user"), "input[0].content"),
    (_item(role="user", content=5), "input[0].content"),
    (_parts("x"), "input[0].content[0]"),
    (_parts({"type": "input_text"}), "input[0].content[0].text"),
    (_parts({"type": "input_image"}), "input[0].content[0].image_url"),
    (_parts({"type": "input_image", "image_url": "https://a", "detail": 5}), "input[0].content[0].detail"),
    (_item(type="function_call", name="f", arguments="{}"), "input[0].call_id"),
    (_item(type="function_call", call_id="c", arguments="{}"), "input[0].name"),
    (_item(type="function_call", call_id="c", name="f", arguments={}), "input[0].arguments"),
    (_item(type="function_call_output", output="x"), "input[0].call_id"),
    (_item(type="function_call_output", call_id="c"), "input[0].output"),
    ({"max_output_tokens": 0}, "max_output_tokens"),
    ({"max_output_tokens": "many"}, "max_output_tokens"),
    ({"temperature": "hot"}, "temperature"),
    ({"stream": "yes"}, "stream"),
    ({"metadata": {"a": 5}}, "metadata[...]"),
    ({"store": "yes"}, "store"),
    ({"tools": {}}, "tools"),
    ({"tools": [{}]}, "tools[0].type"),
    ({"tools": [{"type": "function"}]}, "tools[0].name"),
    ({"tools": [{"type": "function", "name": "f", "parameters": 5}]}, "tools[0].parameters"),
    ({"tools": [{"type": "function", "name": "f", "description": 5}]}, "tools[0].description"),
    ({"tools": [{"type": "function", "name": "f", "strict": "no"}]}, "tools[0].strict"),
    ({"tool_choice": "some"}, "tool_choice"),
    ({"tool_choice": {"type": "function"}}, "tool_choice.name"),
    ({"tool_choice": {"type": "allowed_tools"}}, "tool_choice"),
    ({"tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [5]}}, "tool_choice.tools[0]"),
    ({"text": "json"}, "text"),
    ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
    ({"text": {"format": {"type": "json_schema"}}}, "text.format"),
    ({"reasoning": {"effort": 5}}, "reasoning.effort"),
    ({"include": [5]}, "include[0]"),
    ({"previous_response_id": 5}, "previous_response_id"),
]


@pytest.mark.parametrize(("fields", "param"), BAD, ids=[f"{i}-{param}" for i, (_, param) in enumerate(BAD)])
def test_a_bad_body_names_its_field(fields, param):
    with pytest.raises(BadRequest) as caught:
        asked(**fields)
    assert caught.value.param == param
    status, answer = SURFACE.error(caught.value, "req_1")
    error = json.loads(answer)["error"]
    assert (status, error["type"], error["param"]) == (400, "invalid_request_error", param)
    assert error["message"].startswith(f"{param}: ")


@pytest.mark.parametrize(
    ("fields", "feature"),
    [
        ({"tools": [{"type": "web_search"}]}, "web_search"),
        ({"tools": [{"type": "custom", "name": "f"}]}, "custom"),
        ({"tool_choice": {"type": "mcp", "server_label": "x"}}, "mcp"),
        ({"background": True}, "background"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
        (_item(type="item_reference", id="msg_1"), "item_reference"),
        (_item(id="msg_1"), "item_reference"),
        (_item(type="computer_call"), "computer_call"),
        (_parts({"type": "input_file", "file_id": "f"}), "input_file"),
        (_parts({"type": "input_image", "file_id": "f"}), "file_id"),
    ],
)
def test_what_cannot_be_translated_is_refused_by_name(fields, feature):
    with pytest.raises(UnsupportedFeature) as caught:
        asked(**fields)
    assert caught.value.feature == feature
    assert SURFACE.error(caught.value, "")[0] == 400


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=10,
)
WORDS = st.sampled_from(["message", "function_call", "function_call_output", "reasoning", "user", "assistant", "f", ""])
PART = st.fixed_dictionaries(
    {"type": st.sampled_from(["input_text", "output_text", "input_image", "refusal"]) | JSON},
    optional=dict.fromkeys(("text", "image_url", "detail", "refusal"), WORDS | JSON),
)
ITEM = st.fixed_dictionaries(
    {"type": WORDS | JSON},
    optional={
        "content": st.lists(PART | JSON, max_size=2) | JSON,
        **dict.fromkeys(("role", "call_id", "name", "arguments", "output", "id"), WORDS | JSON),
    },
)
NAMES = ("text", "reasoning", "tool_choice", "include", "metadata", "stream_options", "instructions", "prompt", "other")
FIELDS = st.fixed_dictionaries(
    {"model": st.just("m") | JSON, "input": st.lists(ITEM | JSON, max_size=3) | JSON},
    optional={
        "tools": st.lists(
            st.dictionaries(st.sampled_from(["type", "name", "parameters"]), st.just("function") | JSON), max_size=2
        ),
        **dict.fromkeys(NAMES, JSON),
    },
)


@given(FIELDS | JSON)
@examples(300)
def test_no_body_raises_anything_but_our_errors(value):
    try:
        question = SURFACE.parse(json.dumps(value).encode())
    except (BadRequest, UnsupportedFeature):
        return
    assert parsed(SURFACE.stream(question, LABEL).open())


@given(st.binary(max_size=60))
@examples(100)
def test_no_bytes_raise_anything_but_our_errors(data):
    with pytest.raises(BadRequest):
        SURFACE.parse(data)


# Errors


@pytest.mark.parametrize(
    ("error", "status", "raised"),
    [
        (BadRequest("no", param="input"), 400, openai.BadRequestError),
        (AuthError("no key"), 401, openai.AuthenticationError),
        (ModelNotFound("no model"), 404, openai.NotFoundError),
        (RateLimited("wait"), 429, openai.RateLimitError),
        (ProviderUnavailable("broken"), 502, openai.InternalServerError),
        (TimedOut("late"), 504, openai.InternalServerError),
    ],
)
def test_errors_have_the_status_and_shape_of_the_api(error, status, raised):
    got, data = SURFACE.error(error, "req_9")
    assert got == status
    assert {"message", "type", "param", "code"} <= json.loads(data)["error"].keys()
    with openai_client(data, status, "application/json") as reader, pytest.raises(raised) as caught:
        reader.responses.create(**HELLO)
    assert caught.value.status_code == status
