"""Tools and JSON over text: what is read out of the words, cut anywhere."""

import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.gateway.text_model import (
    BLOCK,
    CALLED,
    NAMES,
    OSLO,
    PERSON,
    QUESTION,
    TOOLS,
    Model,
    behind_notices,
    calls_of,
    emulated,
    notices_of,
    numbered,
    text_of,
    told,
)
from tests.sweeps import examples
from tolmach.chat import Conversation, Delta, Done, Message, Notice, Reasoning, ToolCall, ToolCallDelta, Usage
from tolmach.errors import ProviderUnavailable
from tolmach.gateway.emulation.instructions import answer
from tolmach.gateway.emulation.written_calls import BrokenCalls, CallScanner, read_calls

# Calls


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
@examples(400)
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
@examples(300)
def test_any_text_is_read_or_is_broken(written):
    try:
        calls, behind = read_calls(written, NAMES)
    except BrokenCalls:
        return
    assert all(isinstance(call.arguments, dict) for call in calls)
    assert calls or behind in (written, written.strip())


@given(st.lists(parts | st.text(st.characters(codec="utf-8"), max_size=4), max_size=5).map("".join))
@examples(150)
async def test_every_answer_ends_in_done_and_text_is_never_lost(written):
    model = Model(written, written)
    events = await told(model)
    assert isinstance(events[-1], Done)
    assert sum(isinstance(event, Done) for event in events) == 1
    if not calls_of(events):
        assert text_of(events) == written
        assert events[-1] == Done("stop")


# JSON


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
        (PERSON, "[" * 99 + "]" * 99, "$: expected object"),
        (PERSON, "[" * 101 + "]" * 101, "nested too deeply"),
        (PERSON, "[" * 5000 + "]" * 5000, "nested too deeply"),
        ({"type": "json_object"}, '{"a":' * 101 + "1" + "}" * 101, "nested too deeply"),
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
