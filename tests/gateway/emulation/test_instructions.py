"""Tools and JSON over text: what the model is told."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.gateway.text_model import (
    NAMED,
    NAMES,
    PERSON,
    PERSON_SCHEMA,
    QUESTION,
    TIME,
    TOOLS,
    WEATHER,
    Model,
    emulated,
    text_of,
    told,
)
from tests.sweeps import examples
from tolmach.chat import ChatRequest, Image, Message, Notice, Text, ToolCall
from tolmach.errors import BadRequest, TolmachError, UnsupportedFeature
from tolmach.gateway.emulation.instructions import EMULATED, emulate
from tolmach.gateway.emulation.written_calls import read_calls


def test_tools_are_told_in_the_system_message_and_leave_the_options():
    turn = emulated(tools=TOOLS, tool_choice="auto", parallel_tool_calls=True, temperature=1).turn
    system, question = turn.messages
    assert system.role == "system"
    assert system.text.startswith("Be kind.\n\n")
    lines = [json.loads(line) for line in system.text.splitlines() if line.startswith('{"name')]
    assert lines == [WEATHER["function"], {"name": "time"}]
    assert "```tool_calls\n[" in system.text
    assert question == QUESTION[1]
    assert turn.options == {"temperature": 1}


def test_the_form_that_is_asked_for_is_the_form_that_is_read():
    """The words of the instruction, given back by the model as they stand, are a call."""
    system = emulated(tools=TOOLS).turn.messages[0].text
    shown = system[system.index("```tool_calls") :].replace("<name of the tool>", "time")
    shown = shown.replace("<arguments that fit the tool's schema>", "")
    end = shown.index("```", 3) + 3
    assert read_calls(shown[:end], NAMES) == ([("time", {})], "")


def test_without_a_system_message_there_is_one():
    messages = emulated([Message("user", "Hi")], tools=TOOLS).turn.messages
    assert [message.role for message in messages] == ["system", "user"]


def test_calls_and_results_of_earlier_turns_are_told_as_text():
    history = (
        *QUESTION,
        Message(
            "assistant",
            "Looking.",
            tool_calls=(ToolCall("c1", "get_weather", '{"city":"Oslo"}'), ToolCall("c2", "time", "")),
        ),
        Message("tool", "Rain ```\n", tool_call_id="c1"),
        Message("tool", (Text("noon"), Image("https://x/clock")), tool_call_id="c2"),
        Message("user", "So?"),
        Message("assistant", "", tool_calls=(ToolCall("c3", "time", "{oops"),)),
        Message("tool", "one", tool_call_id="c3"),
        Message("assistant", "It rains."),
        Message("tool", "two", name="time", tool_call_id="c4"),
    )
    messages = emulated(history).turn.messages
    assert [message.role for message in messages] == [
        "system",
        "user",
        "assistant",
        "user",
        "assistant",
        "user",
        "assistant",
        "user",
    ]
    called = [{"name": "get_weather", "arguments": {"city": "Oslo"}}, {"name": "time", "arguments": {}}]
    assert messages[2].text == f"Looking.\n\n```tool_calls\n{json.dumps(called)}\n```"
    assert not any(message.tool_calls for message in messages)
    assert messages[3].text == (
        "```tool_results\n"
        '{"name": "get_weather", "id": "c1", "result": "Rain ```\\n"}\n'
        '{"name": "time", "id": "c2", "result": "noon"}\n'
        "```\n\nSo?"
    )
    assert isinstance(messages[3].content, tuple)
    assert Image("https://x/clock") in messages[3].content
    assert '"arguments": "{oops"' in messages[4].text
    assert messages[5].content == '```tool_results\n{"name": "time", "id": "c3", "result": "one"}\n```'
    assert messages[7].text == '```tool_results\n{"name": "time", "id": "c4", "result": "two"}\n```'


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ("required", "at least one of your tools"),
        ({"type": "function", "function": {"name": "time"}}, "the tool `time`"),
    ],
)
def test_a_call_that_must_come_is_told_last(choice, words):
    assert words in emulated(tools=TOOLS, tool_choice=choice).turn.messages[-1].text
    turn = emulated([Message("user", (Text("A"), Image("https://x/y")))], tools=TOOLS, tool_choice=choice).turn
    assert isinstance(turn.messages[-1].content, tuple)
    assert turn.messages[-1].content[1] == Image("https://x/y")
    turn = emulated([Message("user", "A"), Message("assistant", "B")], tools=TOOLS, tool_choice=choice).turn
    assert [message.role for message in turn.messages][-2:] == ["assistant", "user"]


def test_no_tools_are_told_when_none_may_be_called():
    turn = emulated(tools=TOOLS, tool_choice="none").turn
    assert (turn.messages, turn.options) == (QUESTION, {})


def test_one_call_at_a_time():
    assert "exactly one object" in emulated(tools=TOOLS, parallel_tool_calls=False).turn.messages[0].text


@pytest.mark.parametrize(("form", "words"), [(PERSON, json.dumps(PERSON_SCHEMA)), ({"type": "json_object"}, "object")])
def test_json_is_asked_for_last(form, words):
    turn = emulated(response_format=form).turn
    assert words in turn.messages[-1].text
    assert turn.options == {}
    assert emulated(response_format=form, tools=TOOLS).turn.messages[-1].text.count("Unless you call a tool") == 1


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({}, EMULATED),
        ({"response_format": {"type": "text"}, "tools": []}, EMULATED),
        ({"tools": TOOLS}, frozenset({"json"})),
    ],
)
def test_there_is_nothing_to_emulate(options, what):
    assert emulate(ChatRequest(messages=QUESTION, options=options), what) is None


def test_only_what_may_be_emulated_leaves_the_options():
    turn = emulated(what=frozenset({"tools"}), tools=TOOLS, response_format=PERSON).turn
    assert turn.options == {"response_format": PERSON}
    turn = emulated(what=frozenset({"json"}), tools=TOOLS, response_format=PERSON).turn
    assert turn.options == {"tools": TOOLS}


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"tools": {"a": 1}}, "tools"),
        ({"tools": [3]}, "tools[0]"),
        ({"tools": [{"type": "function"}]}, "tools[0].function.name"),
        ({"tools": [{"type": "function", "function": {"name": ""}}]}, "tools[0].function.name"),
        ({"tools": [{"type": "function", "function": {"name": "f", "parameters": 3}}]}, "tools[0].function.parameters"),
        ({"tools": TOOLS, "tool_choice": "maybe"}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool_choice"),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, "response_format.json_schema.schema"),
        ({"response_format": {"type": "xml"}}, "response_format"),
    ],
)
def test_wrong_options_are_named(options, param):
    with pytest.raises(BadRequest) as caught:
        emulated(**options)
    assert caught.value.param == param


@pytest.mark.parametrize(
    "tool", [{"type": "web_search"}, {"type": "function", "function": {"name": "f", "parameters": {"if": {}}}}]
)
def test_what_cannot_be_emulated_is_refused(tool):
    with pytest.raises(UnsupportedFeature, match=r"tools\[0\]"):
        emulated(tools=[tool])


async def test_what_is_not_checked_is_told_first():
    form = {"type": "json_schema", "json_schema": {"schema": {"type": "string", "pattern": "^a"}}}
    events = await told(Model('"b"'), response_format=form)
    assert isinstance(events[0], Notice)
    assert "pattern" in events[0].text
    assert text_of(events) == '"b"'


options = st.fixed_dictionaries(
    {},
    optional={
        "tools": st.recursive(
            st.sampled_from([None, 1, "function", WEATHER, TIME]),
            lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["type", "function"]), inner),
            max_leaves=5,
        ),
        "tool_choice": st.sampled_from([None, "auto", "required", "none", 1, NAMED, {"type": "function"}]),
        "response_format": st.sampled_from([None, PERSON, {}, "text", {"type": "json_schema", "json_schema": 1}]),
        "parallel_tool_calls": st.sampled_from([None, True, False, "x"]),
    },
)


@given(options)
@examples(200)
def test_any_options_are_emulated_or_refused(given_options):
    try:
        emulation = emulate(ChatRequest(messages=QUESTION, options=given_options))
    except TolmachError:
        return
    assert emulation is None or not emulation.turn.options
