"""Tools over text: what happens to calls that are broken, cut short or missing."""

import re
from collections.abc import AsyncGenerator

import pytest

from tests.gateway.text_model import (
    BLOCK,
    CALLED,
    NAMED,
    OSLO,
    TOOLS,
    Model,
    calls_of,
    emulated,
    notices_of,
    numbered,
    text_of,
    told,
)
from tolmach.chat import ChatRequest, Conversation, Delta, Done, Event, Message, Notice, ToolCallDelta, Usage
from tolmach.errors import ProviderUnavailable, TruncatedAnswer
from tolmach.gateway.emulation.instructions import answer


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ("```tool_calls\n[{]\n```", "not valid JSON"),
        ("```tool_calls\nget_weather(Oslo)\n```", "no JSON"),
        (BLOCK.replace('Oslo"', "Oslo"), "not valid JSON"),
        (BLOCK.replace("]", "]]"), "after its end"),
        (BLOCK.replace("get_weather", "get_whether"), "there are: get_weather, time"),
        (BLOCK.replace("city", "town"), r"\$\.city: it is missing"),
        (BLOCK.replace('"Oslo"', "7"), "expected string"),
        (BLOCK.replace('{"city": "Oslo"}', '"{"'), "arguments of get_weather are not valid JSON"),
        (BLOCK.replace('{"city": "Oslo"}', "[1]"), "must be an object"),
        (BLOCK.replace("name", "nome"), "no name"),
        (BLOCK.replace("arguments", "argh"), "no arguments"),
        ("```tool_calls\n[1]\n```", "a call is an object"),
        ("```tool_calls\n[]\n```", "is empty"),
        ("```tool_calls\n" + "[" * 90 + "]" * 90 + "\n```", "a call is an object"),
        ("```tool_calls\n" + "[" * 900 + "]" * 900 + "\n```", "nested too deeply"),
        ("```tool_calls\n" + "[" * 9000 + "]" * 9000 + "\n```", "nested too deeply"),
        ("```tool_calls\n" + "[" * 5000, "nested too deeply|not valid JSON"),
    ],
)
async def test_a_broken_block_is_asked_for_once_more(broken, words):
    model = Model(
        ["Let me see.\n", broken, Usage(1, 2, 3)], [f"Sorry!\n{BLOCK}", Usage(10, 20, 30), Conversation({"i": "2"})]
    )
    events = await told(model)
    assert events == [
        Delta("Let me see."),
        ToolCallDelta(0, "call_1", "get_weather", '{"city": "Oslo"}'),
        Usage(11, 22, 33),
        Conversation({"i": "2"}),
        Done("tool_calls"),
    ]
    first, second = model.asked
    assert second.messages[: len(first.messages)] == first.messages
    assert second.messages[-2] == Message("assistant", f"Let me see.\n{broken}")
    assert second.messages[-1].role == "user"
    assert re.search(words, second.messages[-1].text)


async def test_a_repair_goes_on_in_the_service_own_conversation():
    model = Model([Conversation({"id": "1"}), "```tool_calls\n{"], BLOCK)
    events = await told(model)
    assert [turn.conversation for turn in model.asked] == [None, Conversation({"id": "1"})]
    assert [event for event in events if isinstance(event, Conversation)] == [Conversation({"id": "1"})]


async def test_a_block_broken_twice_goes_out_as_text():
    events = await told(Model("Hm.\n\n```tool_calls\n[{", "Hm.\n\n```tool_calls\n[{["))
    assert notices_of(events) == ["tool_calls"]
    assert text_of(events) == "Hm.\n\n```tool_calls\n[{"
    assert events[-1] == Done("stop")


async def test_a_model_that_gives_up_calling_answers_in_text():
    events = await told(Model("```tool_calls\n[{", "It rains."))
    assert (text_of(events), notices_of(events), events[-1]) == ("It rains.", [], Done("stop"))


@pytest.mark.parametrize("reason", ["length", "content_filter"])
async def test_a_block_that_the_service_cut_short_is_text(reason):
    model = Model("Hm.\n```tool_calls\n[{", reason=reason)
    events = await told(model)
    assert (text_of(events), notices_of(events), events[-1]) == ("Hm.\n```tool_calls\n[{", ["tool_calls"], Done(reason))
    assert len(model.asked) == 1


async def test_an_answer_that_breaks_off_is_an_error():
    async def broken(turn: ChatRequest) -> AsyncGenerator[Event, None]:
        yield Delta("Hm.\n```tool_calls\n[{")
        raise TruncatedAnswer

    events = answer(emulated(tools=TOOLS), broken, numbered())
    assert await anext(events) == Notice("emulated", "tools are emulated")
    assert await anext(events) == Delta("Hm.")
    with pytest.raises(TruncatedAnswer):
        await anext(events)


async def test_an_answer_without_an_end_is_an_error():
    async def endless(turn: ChatRequest) -> AsyncGenerator[Event, None]:
        yield Delta("Hm.")

    with pytest.raises(TruncatedAnswer):
        [event async for event in answer(emulated(tools=TOOLS), endless, numbered())]


@pytest.mark.parametrize(
    ("choice", "first", "words"),
    [
        ("required", "It rains.", "no tool was called"),
        (NAMED, "It rains.", "'time' was not called"),
        (NAMED, BLOCK, "not 'get_weather'"),
    ],
)
async def test_a_call_that_must_come_is_insisted_on(choice, first, words):
    call = '```tool_calls\n[{"name": "time", "arguments": {}}]\n```'
    model = Model(first, call)
    events = await told(model, tool_choice=choice)
    assert (text_of(events), calls_of(events)) == ("", [("time", {})])
    assert words in model.asked[1].messages[-1].text
    with pytest.raises(ProviderUnavailable, match=words) as caught:
        await told(Model(first, first), tool_choice=choice)
    assert caught.value.code == "invalid_json"


async def test_text_before_a_call_that_came_goes_out():
    events = await told(Model(f"Gladly.\n{BLOCK}"), tool_choice="required")
    assert (text_of(events), calls_of(events)) == ("Gladly.", [CALLED])


async def test_of_several_calls_the_first_counts_where_one_is_allowed():
    two = f'```tool_calls\n[{OSLO[1:-1]}, {{"name": "time"}}]\n```'
    events = await told(Model(two), parallel_tool_calls=False)
    assert (calls_of(events), notices_of(events)) == ([CALLED], ["dropped"])
    assert len(calls_of(await told(Model(two)))) == 2
