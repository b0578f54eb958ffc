"""The Anthropic surface: streams and whole answers, as the anthropic package reads them."""

import json
from typing import Any

import anthropic
import pytest
from anthropic.types import RawMessageStreamEvent
from anthropic.types.shared import ErrorResponse
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from tests.gateway.surfaces.asking import ANTHROPIC, anthropic_client, happenings, interleaved, parallel, parsed
from tests.sweeps import examples
from tolmach.chat import Delta, Done, Event, Notice, Reasoning, ToolCallDelta, Usage
from tolmach.errors import ProviderUnavailable, RateLimited, RemoteProtocolError, TimedOut, TruncatedAnswer

SURFACE, LABEL, HELLO = ANTHROPIC.surface, ANTHROPIC.label, ANTHROPIC.hello
asked, streamed, whole = ANTHROPIC.asked, ANTHROPIC.streamed, ANTHROPIC.whole
STREAM_EVENT: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)
COUNTED = Usage(12, 7, 19)
PARALLEL = parallel(COUNTED)


def accumulated(data: bytes) -> Any:
    """The `Message` that the package puts together from a stream."""
    with anthropic_client(data) as reader, reader.messages.stream(**HELLO) as stream:
        return stream.get_final_message()


# Streams


@pytest.mark.parametrize(
    "events",
    [
        [Delta("Hel"), Delta("lo"), COUNTED, Done()],
        [Reasoning("Hm, "), Reasoning("so"), Delta("Yes"), Done()],
        PARALLEL,
        [Done()],
        [Delta("a"), Notice("warning", "careful"), Done("length")],
        [Delta("I cannot"), Notice("refusal", "it refuses"), Done()],
    ],
)
def test_every_event_is_one_of_the_package_in_the_order_of_the_api(events):
    names = []
    open_block = None
    last = -1
    for name, value in parsed(streamed(events)):
        assert value["type"] == name
        names.append(name)
        if name == "ping":
            continue
        STREAM_EVENT.validate_python(value, strict=True)
        if name == "content_block_start":
            assert open_block is None
            assert value["index"] == last + 1
            open_block = last = value["index"]
        elif name == "content_block_delta":
            assert value["index"] == open_block
        elif name == "content_block_stop":
            assert value["index"] == open_block
            open_block = None
    assert open_block is None
    assert names[:2] == ["message_start", "ping"]
    assert names[-2:] == ["message_delta", "message_stop"]
    assert names.count("message_start") == names.count("message_stop") == names.count("message_delta") == 1


def test_the_package_reads_text_and_usage():
    message = accumulated(streamed([Delta('He said "hi"\n'), Delta("привет 😀"), COUNTED, Done()]))
    assert message.content[0].text == 'He said "hi"\nпривет 😀'
    assert message.stop_reason == "end_turn"
    assert (message.usage.input_tokens, message.usage.output_tokens) == (12, 7)
    assert (message.id, message.model) == (f"msg_{LABEL.id}", "claude-x")


def test_the_package_reads_parallel_tools():
    message = accumulated(streamed(PARALLEL))
    text, weather, time = message.content
    assert text.text == "Looking it up"
    assert (weather.id, weather.name, weather.input) == ("call_a", "weather", {"city": "Oslo"})
    assert (time.id, time.name, time.input) == ("call_b", "time", {"zone": "CET"})
    assert message.stop_reason == "tool_use"


def test_the_package_reads_thinking():
    message = accumulated(streamed([Reasoning("First "), Reasoning("this"), Delta("Then that"), Done()]))
    thinking, text = message.content
    assert (thinking.type, thinking.thinking) == ("thinking", "First this")
    assert text.text == "Then that"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (TruncatedAnswer(), "api_error"),
        (RateLimited("wait"), "rate_limit_error"),
        (ProviderUnavailable("full", status=529), "overloaded_error"),
        (TimedOut("nothing came", phase="idle"), "timeout_error"),
    ],
)
def test_an_error_in_mid_stream_raises_in_the_package_and_nothing_follows_it(error, kind):
    data = streamed([Delta("Half an ans")], error)
    events = parsed(data)
    assert events[-1] == ("error", {"type": "error", "error": {"type": kind, "message": str(error)}})
    ErrorResponse.model_validate(events[-1][1])
    assert not {"message_stop", "message_delta"} & {name for name, _ in events}
    with pytest.raises(anthropic.APIStatusError) as caught:
        accumulated(data)
    assert caught.value.body == events[-1][1]


def test_an_error_can_be_written_behind_a_stream_that_was_passed_on():
    encoder = SURFACE.stream(asked(), LABEL)
    [(name, value)] = parsed(encoder.fail(TruncatedAnswer()))
    assert (name, value["error"]["type"]) == ("error", "api_error")


def test_each_event_goes_out_as_it_comes():
    encoder = SURFACE.stream(asked(), LABEL)
    encoder.open()
    assert b"content_block_start" in encoder.feed(Delta("a"))
    assert encoder.feed(Delta("b")).count(b"event:") == 1
    encoder.feed(ToolCallDelta(0, "i", "f", ""))
    assert b'{\\"a' in encoder.feed(ToolCallDelta(0, arguments='{"a'))
    assert encoder.keep_alive() == b'event: ping\ndata: {"type":"ping"}\n\n'


def test_interleaved_tool_calls_are_put_in_order():
    events: list[Event] = [
        ToolCallDelta(0, "a", "f", '{"x"'),
        ToolCallDelta(1, "b", "g", '{"y"'),
        Delta("and text"),
        ToolCallDelta(2, "c", "h", ""),
        ToolCallDelta(1, arguments=": 2}"),
        ToolCallDelta(0, arguments=": 1}"),
        ToolCallDelta(2, arguments=""),
        Done("tool_calls"),
    ]
    blocks = accumulated(streamed(events)).content
    assert [(block.type, getattr(block, "input", None)) for block in blocks] == [
        ("tool_use", {"x": 1}),
        ("tool_use", {"y": 2}),
        ("text", None),
        ("tool_use", {}),
    ]


@given(interleaved())
@settings(max_examples=60, deadline=None)
def test_tool_calls_survive_any_order_of_their_pieces(drawn):
    calls, events = drawn
    found = accumulated(streamed(events)).content
    assert {block.name: block.input for block in found} == {f"f{i}": json.loads(text) for i, text in calls.items()}


@pytest.mark.parametrize(
    ("events", "words"),
    [
        ([ToolCallDelta(0, "a", "f", '{"x": 1')], "no JSON object"),
        ([ToolCallDelta(0, "a", "f", "[1]")], "no JSON object"),
        ([ToolCallDelta(0, "a", None, "{}")], "without a name"),
        (
            [ToolCallDelta(0, "a", "f", "{}"), ToolCallDelta(1, "b", "g", "{}"), ToolCallDelta(0, arguments="{}")],
            "after",
        ),
    ],
)
def test_tool_calls_that_the_api_cannot_write_are_errors_and_never_finished(events, words):
    with pytest.raises(RemoteProtocolError, match=words):
        streamed([*events, Done("tool_calls")])
    if words != "after":
        with pytest.raises(RemoteProtocolError, match=words):
            whole([*events, Done("tool_calls")])


def test_a_call_cut_by_the_limit_of_tokens_is_no_call_in_a_whole_answer():
    events: list[Event] = [Delta("x"), ToolCallDelta(0, "a", "f", '{"x": '), Done("length")]
    assert whole(events)["content"] == [{"type": "text", "text": "x"}]
    assert parsed(streamed(events))[-2][1]["delta"]["stop_reason"] == "max_tokens"


# Ends and usage


@pytest.mark.parametrize(
    ("events", "reason"),
    [
        ([Delta("a"), Done("stop")], "end_turn"),
        ([Delta("a"), Done("length")], "max_tokens"),
        ([ToolCallDelta(0, "a", "f", "{}"), Done("tool_calls")], "tool_use"),
        ([ToolCallDelta(0, "a", "f", "{}"), Done("stop")], "tool_use"),
        ([Delta("a"), Done("tool_calls")], "end_turn"),
        ([Delta("a"), Done("content_filter")], "refusal"),
        ([Notice("refusal", ""), Delta("No."), Done("stop")], "refusal"),
    ],
)
def test_stop_reasons(events, reason):
    assert parsed(streamed(events))[-2][1]["delta"] == {"stop_reason": reason, "stop_sequence": None}
    assert whole(events)["stop_reason"] == reason


@pytest.mark.parametrize(
    ("told", "usage"),
    [
        (Usage(12, 7, 19), {"input_tokens": 12, "output_tokens": 7}),
        (Usage(12, 7, 19, estimated=True), {"input_tokens": 12, "output_tokens": 7, "estimated": True}),
        (
            Usage(12, 7, 19, cached_tokens=10, reasoning_tokens=5),
            {
                "input_tokens": 2,
                "cache_read_input_tokens": 10,
                "output_tokens": 7,
                "output_tokens_details": {"thinking_tokens": 5},
            },
        ),
    ],
)
def test_usage_is_told_as_the_service_counted_it(told, usage):
    assert parsed(streamed([Delta("a"), told, Done()]))[-2][1]["usage"] == usage
    assert whole([Delta("a"), told, Done()])["usage"] == usage


def test_usage_that_nobody_counted_is_estimated_and_marked():
    events: list[Event] = [Delta("A fairly long answer, with many words in it."), Done()]
    usage = parsed(streamed(events))[-2][1]["usage"]
    assert usage == whole(events)["usage"]
    assert usage["estimated"] is True
    assert usage["input_tokens"] > 3
    assert 5 < usage["output_tokens"] < 20


# Whole answers


def test_a_whole_answer_has_its_blocks_in_order():
    value = whole([Reasoning("Hm"), *PARALLEL])
    assert value["content"] == [
        {"type": "thinking", "thinking": "Hm", "signature": ""},
        {"type": "text", "text": "Looking it up"},
        {"type": "tool_use", "id": "call_a", "name": "weather", "input": {"city": "Oslo"}},
        {"type": "tool_use", "id": "call_b", "name": "time", "input": {"zone": "CET"}},
    ]
    assert value["id"] == f"msg_{LABEL.id}"
    with anthropic_client(json.dumps(value).encode(), kind="application/json") as reader:
        message = reader.messages.create(**HELLO)
    assert message.content[2].input == {"city": "Oslo"}


def test_what_the_service_took_back_is_not_in_a_whole_answer():
    value = whole([Delta("Wrong"), Notice("rewritten", "Right"), Delta(" indeed"), Done()])
    assert value["content"] == [{"type": "text", "text": "Right indeed"}]


def test_notices_stand_beside_the_answer():
    events: list[Event] = [Notice("dropped", "top_k was left out"), Delta("a"), Done()]
    notices = [{"kind": "dropped", "text": "top_k was left out"}]
    assert whole(events)["notices"] == notices
    assert parsed(streamed(events))[-2][1]["notices"] == notices


# Both


PIECES = st.builds(
    ToolCallDelta, st.integers(0, 2), st.none() | st.just("id"), st.just("f"), st.sampled_from(["", "{}", " "])
)


@given(happenings(PIECES), st.sampled_from(["stop", "length", "tool_calls", "content_filter"]))
@examples(150)
def test_a_stream_and_a_whole_answer_say_the_same(events, reason):
    events = [*events, Done(reason)]
    try:
        data = streamed(events)
        value = whole(events)
    except RemoteProtocolError:
        return  # arguments behind arguments: no answer that this API can write
    message = accumulated(data)
    assert message.stop_reason == value["stop_reason"]
    texts = [b["text"] for b in value["content"] if b["type"] == "text"]
    assert "".join(b.text for b in message.content if b.type == "text") == "".join(texts)
    calls = {b["id"] + b["name"]: b["input"] for b in value["content"] if b["type"] == "tool_use"}
    told = {b.id + b.name: b.input for b in message.content if b.type == "tool_use"}
    if reason == "length":  # what the limit broke off is left out of a whole answer; a stream has sent it by then
        told = {name: told[name] for name in calls}
    assert told == calls
