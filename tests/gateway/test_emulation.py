"""Tools and JSON over text: what the model is told, what is read out of its words, cut anywhere, and repairs."""

import itertools
import json
import re
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

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
from anychat.errors import AnychatError, BadRequest, ProviderUnavailable, TruncatedAnswer, UnsupportedFeature
from anychat.gateway.emulation import EMULATED, Emulation, answer, emulate
from anychat.gateway.written_calls import BrokenCalls, CallScanner, read_calls

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer", "maximum": 7}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
TIME = {"type": "function", "function": {"name": "time"}}
TOOLS = [WEATHER, TIME]
NAMES = frozenset({"get_weather", "time"})
PERSON_SCHEMA = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
PERSON = {"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON_SCHEMA}}
QUESTION = (Message("system", "Be kind."), Message("user", "How is it in Oslo?"))
OSLO = '[{"name": "get_weather", "arguments": {"city": "Oslo"}}]'
BLOCK = f"```tool_calls\n{OSLO}\n```"
CALLED = ("get_weather", {"city": "Oslo"})

Answer = str | Sequence[str | Event]


def emulated(messages: Sequence[Message] = QUESTION, what: frozenset[str] = EMULATED, **options: Any) -> Emulation:
    emulation = emulate(ChatRequest(messages=tuple(messages), model="m", options=options), what)
    assert emulation is not None
    return emulation


class Model:
    """A text-only service that gives these answers in turn; `asked` is what it was asked."""

    def __init__(self, *answers: Answer, reason: FinishReason = "stop") -> None:
        self.asked: list[ChatRequest] = []
        self._answers = list(answers)
        self._reason = reason

    async def __call__(self, turn: ChatRequest) -> AsyncGenerator[Event, None]:
        self.asked.append(turn)
        given = self._answers.pop(0)
        for piece in [given] if isinstance(given, str) else given:
            yield Delta(piece) if isinstance(piece, str) else piece
        yield Done(self._reason)


def numbered() -> Callable[[], str]:
    numbers = itertools.count(1)
    return lambda: f"call_{next(numbers)}"


async def told(model: Model, **options: Any) -> list[Event]:
    """The events that the caller gets, who offered the tools, behind those that say what is emulated."""
    return await behind_notices(answer(emulated(**{"tools": TOOLS, **options}), model, numbered()))


async def behind_notices(events: AsyncGenerator[Event, None]) -> list[Event]:
    got = [event async for event in events]
    told = [event for event in got if isinstance(event, Notice) and event.kind == "emulated"]
    assert told
    assert got[: len(told)] == told
    return got[len(told) :]


def text_of(events: Iterable[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Delta))


def calls_of(events: Iterable[Event]) -> list[tuple[str | None, Any]]:
    return [(event.name, json.loads(event.arguments)) for event in events if isinstance(event, ToolCallDelta)]


def notices_of(events: Iterable[Event]) -> list[str]:
    return [event.kind for event in events if isinstance(event, Notice)]


# What the model is told


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


# What is read out of the answer


async def test_a_model_that_follows_the_form():
    model = Model([Reasoning("hm"), "Let me see.", "\n\n", *BLOCK, "\n", Usage(5, 6, 11), Conversation({"id": "1"})])
    assert await told(model) == [
        Reasoning("hm"),
        Delta("Let me see."),
        ToolCallDelta(0, "call_1", "get_weather", '{"city": "Oslo"}'),
        Usage(5, 6, 11),
        Conversation({"id": "1"}),
        Done("tool_calls"),
    ]
    assert len(model.asked) == 1


async def test_text_goes_out_as_it_comes():
    emulation = emulated(tools=TOOLS)
    reader = emulation.reader(numbered())
    pieces = ["The ", "answer", ": `x` ", "is\n", "``", "`python\n", "1\n```"]
    out = [text_of(reader.feed(Delta(piece))) for piece in pieces]
    assert out == ["The", " answer", ": `x`", " is", "", "\n```python", "\n1"]
    assert text_of(reader.feed(Done())) == "\n```"


@pytest.mark.parametrize(
    "start", ['{"names', '{"name": "B', '{"name": 1', '[\n {"x', "[1", "```jsonl", '```json\n{"a', "``x"]
)
def test_what_is_no_call_is_known_by_its_first_characters(start):
    emulation = emulated(tools=TOOLS)
    assert text_of(emulation.reader(numbered()).feed(Delta(start))) == start
    held = start[:-1]
    assert text_of(emulation.reader(numbered()).feed(Delta(held))) == ""


async def test_a_whole_round():
    """Question, call, result, answer: each turn as the caller sends it."""
    first = await told(Model(f"One moment.\n\n{BLOCK}"))
    [call] = [event for event in first if isinstance(event, ToolCallDelta)]
    history = (
        *QUESTION,
        Message("assistant", text_of(first), tool_calls=(ToolCall(call.id or "", call.name or "", call.arguments),)),
        Message("tool", "Rain", tool_call_id=call.id),
    )
    model = Model("It rains in Oslo.")
    second = await behind_notices(answer(emulated(history, tools=TOOLS), model, numbered()))
    assert second == [Delta("It rains in Oslo."), Done()]
    assert model.asked[0].messages[2].text == f"One moment.\n\n{BLOCK}"
    assert '"result": "Rain"' in model.asked[0].messages[3].text


@pytest.mark.parametrize(
    ("written", "calls", "text"),
    [
        (BLOCK, [CALLED], ""),
        (f"Hm.\n{BLOCK}", [CALLED], "Hm."),
        (f"```tool_calls\n{OSLO}", [CALLED], ""),
        (f"```tool_calls {OSLO} ```", [CALLED], ""),
        (f"  ````tool_call\r\n{OSLO}\r\n````", [CALLED], ""),
        (OSLO, [CALLED], ""),
        (OSLO[1:-1], [CALLED], ""),
        (f"```json\n{OSLO}\n```", [CALLED], ""),
        (f"Hm:\n\n```\n{OSLO[1:-1]}\n```\n", [CALLED], "Hm:"),
        (f'{{"tool_calls": {OSLO}}}', [CALLED], ""),
        ('{"type": "function", "function": {"name": "time", "arguments": "{}"}}', [("time", {})], ""),
        ('{"function": "time", "parameters": {}}', [("time", {})], ""),
        ('{"name": "time"}', [("time", {})], ""),
        (
            '```tool_calls\n{"name": "time", "arguments": null}\n{"name": "time", "args": ""}\n```',
            [("time", {})] * 2,
            "",
        ),
        (f"{BLOCK}\n\n{BLOCK}", [CALLED] * 2, ""),
        (f"{BLOCK}\n\nAnd:\n{BLOCK}\nDone.", [CALLED] * 2, ""),
        (BLOCK.replace("Oslo", "Os\nlo"), [("get_weather", {"city": "Os\nlo"})], ""),
        (BLOCK.replace("Oslo", "```"), [("get_weather", {"city": "```"})], ""),
        (BLOCK.replace("Oslo", "\\ud83d"), [("get_weather", {"city": "\ufffd"})], ""),
        ("Just text.\n", [], "Just text.\n"),
        ("", [], ""),
        ("   \n", [], "   \n"),
        ("Use ```tool_calls to call.", [], "Use ```tool_calls to call."),
        ("x\n```tool_callsx\n```", [], "x\n```tool_callsx\n```"),
        ('{"name": "Bob", "arguments": {}}', [], '{"name": "Bob", "arguments": {}}'),
        ('{"a": 1}', [], '{"a": 1}'),
        ("[1, 2]", [], "[1, 2]"),
        ('{"tool_calls": []}', [], '{"tool_calls": []}'),
        ("x\n```tool_calls: none\n```", [], "x\n```tool_calls: none\n```"),
        ("``", [], "``"),
        ("```", [], "```"),
        ("See:\n\n```json\n", [], "See:\n\n```json\n"),
        (
            'See:\n\n```json\n{"name": "time", "zone": 1}\n```\nok\n',
            [],
            'See:\n\n```json\n{"name": "time", "zone": 1}\n```\nok\n',
        ),
        ('```python\n{"name": "time"}\n```', [], '```python\n{"name": "time"}\n```'),
        ('Hm. {"name": "time"}', [], 'Hm. {"name": "time"}'),
    ],
)
@pytest.mark.parametrize("size", [1, 2, 1000])
async def test_text_and_calls_are_told_apart(written, calls, text, size):
    pieces = [written[at : at + size] for at in range(0, len(written), size)]
    events = await told(Model(pieces))
    assert (calls_of(events), text_of(events)) == (calls, text)
    assert events[-1] == Done("tool_calls" if calls else "stop")


async def test_what_stands_behind_calls_is_left_out_and_told():
    events = await told(Model(f"{BLOCK}\nNow wait."))
    assert notices_of(events) == ["dropped"]
    assert "Now wait" not in text_of(events)


parts = st.sampled_from(
    [
        BLOCK,
        OSLO,
        "```",
        "```json\n",
        "```tool_calls\n",
        "\n",
        " ",
        "\n\n```",
        "`",
        "text",
        '{"name": "',
        "time",
        '"}',
        "{",
        "[",
        "]",
        " " * 40,
        "\n" + " " * 30,
        "\n" * 70,
        "\t" * 300,
        "```tool_results\n",
        '{"name": "time"}',
        "```python\n1\n```\n",
    ]
)


@given(st.lists(parts, max_size=8).map("".join), st.data())
@settings(max_examples=400, deadline=None)
@example("x" + " " * 300 + "\n" + BLOCK, None)
@example("\t" * 300 + OSLO, None)
@example("x\n" + " " * 30 + BLOCK, None)
def test_any_cut_gives_the_same(written, data):
    if data is None:
        cuts = list(range(1, len(written)))
    else:
        cuts = sorted(data.draw(st.sets(st.integers(0, len(written)), max_size=12)))
    pieces = [written[a:b] for a, b in itertools.pairwise([0, *cuts, len(written)])]
    whole, cut = CallScanner(NAMES), CallScanner(NAMES)
    text = whole.feed(written) + whole.close()
    assert ("".join(map(cut.feed, pieces)) + cut.close(), cut.held) == (text, whole.held)
    assert text + whole.held == written


@given(st.lists(parts | st.text(max_size=4), max_size=6).map("".join))
@settings(max_examples=300, deadline=None)
def test_any_text_is_read_or_is_broken(written):
    try:
        calls, behind = read_calls(written, NAMES)
    except BrokenCalls:
        return
    assert all(isinstance(call.arguments, dict) for call in calls)
    assert calls or behind in (written, written.strip())


@given(st.lists(parts | st.text(st.characters(codec="utf-8"), max_size=4), max_size=5).map("".join))
@settings(max_examples=150, deadline=None)
async def test_every_answer_ends_in_done_and_text_is_never_lost(written):
    model = Model(written, written)
    events = await told(model)
    assert isinstance(events[-1], Done)
    assert sum(isinstance(event, Done) for event in events) == 1
    if not calls_of(events):
        assert text_of(events) == written
        assert events[-1] == Done("stop")


# Repairs


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
        ("```tool_calls\n" + "[" * 900 + "]" * 900 + "\n```", "a call is an object"),
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


NAMED = {"type": "function", "function": {"name": "time"}}


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


# JSON answers


@pytest.mark.parametrize(
    ("written", "given_out"),
    [
        ('{"name": "Bob"}', '{"name": "Bob"}'),
        ('\n```json\n{"name": "Bob"}\n```\n', '{"name": "Bob"}'),
        ('Here it is: {"name": "Bob"} - good?', '{"name": "Bob"}'),
        ('Here:\n```json\n{"name": "Bob"}\n```', '{"name": "Bob"}'),
    ],
)
async def test_json_is_found_and_given_out_bare(written, given_out):
    for form in (PERSON, {"type": "json_object"}):
        events = await told(Model(list(written)), tools=None, response_format=form)
        assert events == [Delta(given_out), Done()]


@pytest.mark.parametrize(
    ("form", "written", "words"),
    [
        (PERSON, "Bob", "not valid JSON"),
        (PERSON, '{"name": 1}', "$.name: expected string"),
        (PERSON, '{"name": NaN}', "NaN is no JSON"),
        (PERSON, "[" * 5000 + "]" * 5000, "nested"),
        ({"type": "json_object"}, "[1]", "must be a JSON object"),
    ],
)
async def test_json_that_does_not_fit_is_asked_for_once_more(form, written, words):
    model = Model(written, '{"name": "Bob"}')
    assert await told(model, tools=None, response_format=form) == [Delta('{"name": "Bob"}'), Done()]
    assert words in model.asked[1].messages[-1].text
    with pytest.raises(ProviderUnavailable) as caught:
        await told(Model(written, written), tools=None, response_format=form)
    assert caught.value.code == "invalid_json"


async def test_json_cut_short_is_given_out_with_its_reason():
    events = await told(Model('{"name": "B', reason="length"), tools=None, response_format=PERSON)
    assert events == [Delta('{"name": "B'), Done("length")]


async def test_a_refusal_need_not_be_json():
    events = await told(Model([Notice("refusal", "..."), "I will not."]), tools=None, response_format=PERSON)
    assert events == [Notice("refusal", "..."), Delta("I will not."), Done()]


async def test_a_call_or_json():
    assert calls_of(await told(Model(BLOCK), response_format=PERSON)) == [CALLED]
    assert text_of(await told(Model('{"name": "Bob"}'), response_format=PERSON)) == '{"name": "Bob"}'
    with pytest.raises(ProviderUnavailable):
        await told(Model("```tool_calls\n{", "```tool_calls\n{"), response_format=PERSON)


async def test_a_text_taken_back_is_read_anew():
    events = await told(Model(["Hm", Notice("rewritten", "Oh.\n"), BLOCK]))
    assert [type(event) for event in events] == [Delta, Notice, ToolCallDelta, Done]
    assert events[1] == Notice("rewritten", "Oh.")
    events = await told(Model(["```tool_calls\n[{", Notice("rewritten", "It rains.")]))
    assert events == [Delta("It rains."), Done()]
    events = await told(Model(["x", Notice("rewritten", '{"name": "Bob"}')]), tools=None, response_format=PERSON)
    assert events == [Delta('{"name": "Bob"}'), Done()]


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
@settings(max_examples=200, deadline=None)
def test_any_options_are_emulated_or_refused(given_options):
    try:
        emulation = emulate(ChatRequest(messages=QUESTION, options=given_options))
    except AnychatError:
        return
    assert emulation is None or not emulation.turn.options
