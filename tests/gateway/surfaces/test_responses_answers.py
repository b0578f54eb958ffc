"""The Responses surface: streams and whole answers, as the openai package reads them."""

import json
from typing import Any

import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from tests.gateway.surfaces.asking import RESPONSES, happenings, interleaved, openai_client, parallel, parsed
from tests.sweeps import examples
from tolmach.chat import Delta, Done, Event, Notice, Reasoning, ToolCallDelta, Usage
from tolmach.errors import BadRequest, RateLimited, RemoteProtocolError, TimedOut, TruncatedAnswer

SURFACE, LABEL, HELLO = RESPONSES.surface, RESPONSES.label, RESPONSES.hello
asked, streamed, whole = RESPONSES.asked, RESPONSES.streamed, RESPONSES.whole
STREAM_EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
COUNTED = Usage(12, 7, 19, cached_tokens=4, reasoning_tokens=3)
PARALLEL = parallel(COUNTED)
LIFE = ["response.created", "response.in_progress"]
MESSAGE = [
    "response.output_item.added",
    "response.content_part.added",
    "response.output_text.delta",
    "response.output_text.done",
    "response.content_part.done",
    "response.output_item.done",
]
REASONED = [
    "response.output_item.added",
    "response.reasoning_summary_part.added",
    "response.reasoning_summary_text.delta",
    "response.reasoning_summary_text.done",
    "response.reasoning_summary_part.done",
    "response.output_item.done",
]
CALLED = [
    "response.output_item.added",
    "response.function_call_arguments.delta",
    "response.function_call_arguments.done",
    "response.output_item.done",
]


def last_response(data: bytes) -> dict[str, Any]:
    response: dict[str, Any] = parsed(data)[-1][1]["response"]
    return response


def accumulated(data: bytes) -> Any:
    """The `Response` that the package puts together from a stream."""
    with openai_client(data) as reader, reader.responses.stream(**HELLO) as stream:
        return stream.get_final_response()


# Streams


@pytest.mark.parametrize(
    ("events", "names"),
    [
        ([Delta("Hello"), COUNTED, Done()], [*LIFE, *MESSAGE, "response.completed"]),
        ([Done()], [*LIFE, "response.completed"]),
        ([Reasoning("Hm"), Delta("Yes"), Done()], [*LIFE, *REASONED, *MESSAGE, "response.completed"]),
        (
            [ToolCallDelta(0, "a", "f", '{"x":1}'), ToolCallDelta(1, "b", "g", "{}"), Done("tool_calls")],
            [*LIFE, *CALLED, *CALLED, "response.completed"],
        ),
        ([Delta("cut"), Done("length")], [*LIFE, *MESSAGE, "response.incomplete"]),
        ([Delta("cut"), Done("content_filter")], [*LIFE, *MESSAGE, "response.incomplete"]),
        (
            [Notice("refusal", "it refuses"), Delta("No."), Done()],
            [*LIFE, *[name.replace("output_text", "refusal") for name in MESSAGE], "response.completed"],
        ),
    ],
)
def test_events_come_in_the_order_of_the_api(events, names):
    assert [name for name, _ in parsed(streamed(events))] == names


@pytest.mark.parametrize(
    "events",
    [
        PARALLEL,
        [Reasoning("a"), Delta("b"), Reasoning("c"), Delta("d"), Done()],
        [Notice("refusal", ""), Delta("No."), Notice("warning", "w"), Done()],
        [Delta("a"), Notice("refusal", ""), Delta("No."), Done()],
        [
            ToolCallDelta(0, None, "f", ""),
            ToolCallDelta(1, None, "g", "{"),
            ToolCallDelta(1, arguments="}"),
            Done("length"),
        ],
    ],
)
def test_every_event_is_one_of_the_package_and_they_hang_together(events):
    added: dict[int, str] = {}
    done: dict[int, dict[str, Any]] = {}
    found = parsed(streamed(events))
    for number, (name, value) in enumerate(found):
        assert value["type"] == name
        assert value["sequence_number"] == number
        STREAM_EVENT.validate_python(value, strict=True)
        if name == "response.output_item.added":
            assert value["output_index"] == len(added)
            added[value["output_index"]] = value["item"]["id"]
        elif name == "response.output_item.done":
            assert value["item"]["id"] == added[value["output_index"]]
            done[value["output_index"]] = value["item"]
        elif "item_id" in value:
            assert value["item_id"] == added[value["output_index"]]
            assert value["output_index"] not in done
    assert done.keys() == added.keys()
    assert len(set(added.values())) == len(added)
    assert found[-1][1]["response"]["output"] == [done[at] for at in sorted(done)]


def test_the_package_reads_text_and_usage():
    response = accumulated(streamed([Delta('He said "hi"\n'), Delta("привет 😀"), COUNTED, Done()]))
    assert response.output_text == 'He said "hi"\nпривет 😀'
    assert response.status == "completed"
    assert response.id == f"resp_{LABEL.id}"
    usage = response.usage
    assert (usage.input_tokens, usage.output_tokens, usage.total_tokens) == (12, 7, 19)
    assert (usage.input_tokens_details.cached_tokens, usage.output_tokens_details.reasoning_tokens) == (4, 3)


def test_the_package_reads_parallel_tools():
    message, weather, time = accumulated(streamed(PARALLEL)).output
    assert message.content[0].text == "Looking it up"
    assert (weather.call_id, weather.name, weather.arguments) == ("call_a", "weather", '{"city": "Oslo"}')
    assert (time.call_id, time.name, time.arguments) == ("call_b", "time", '{"zone": "CET"}')


def test_the_package_reads_reasoning():
    reasoning, message = accumulated(streamed([Reasoning("First "), Reasoning("this"), Delta("Then"), Done()])).output
    assert [part.text for part in reasoning.summary] == ["First this"]
    assert message.content[0].text == "Then"


def test_the_package_reads_a_refusal():
    [message] = accumulated(streamed([Notice("refusal", ""), Delta("I will "), Delta("not"), Done()])).output
    assert [(part.type, part.refusal) for part in message.content] == [("refusal", "I will not")]


def test_the_package_follows_a_stream_event_by_event():
    with openai_client(streamed(PARALLEL)) as reader, reader.responses.stream(**HELLO) as stream:
        deltas = [event for event in stream if event.type == "response.function_call_arguments.delta"]
    assert [(event.output_index, event.snapshot) for event in deltas] == [
        (1, '{"city": '),
        (1, '{"city": "Oslo"}'),
        (2, '{"zone": "CET"}'),
    ]


@given(interleaved())
@settings(max_examples=60, deadline=None)
def test_tool_calls_survive_any_order_of_their_pieces(drawn):
    calls, events = drawn
    found = accumulated(streamed(events)).output
    assert {item.call_id: item.arguments for item in found} == {f"id{i}": text for i, text in calls.items()}


@pytest.mark.parametrize(
    ("error", "code", "failure"),
    [
        (TruncatedAnswer(), "truncated", "server_error"),
        (RateLimited("wait"), "rate_limit_exceeded", "rate_limit_exceeded"),
        (BadRequest("no", param="tools"), None, "invalid_prompt"),
        (TimedOut("late", phase="idle"), "timeout", "server_error"),
    ],
)
def test_an_error_in_mid_stream_raises_in_the_package_and_nothing_is_completed(error, code, failure):
    data = streamed([Reasoning("Hm"), Delta("Half an ans"), ToolCallDelta(0, "a", "f", '{"x')], error)
    events = parsed(data)
    names = [name for name, _ in events]
    assert names[-2:] == ["error", "response.failed"]
    assert not {"response.completed", "response.incomplete"} & set(names)
    assert [value["sequence_number"] for _, value in events] == list(range(len(events)))
    for _, value in events[-2:]:
        STREAM_EVENT.validate_python(value, strict=True)
    told, failed = events[-2][1], events[-1][1]["response"]
    assert (told["code"], told["message"]) == (code, str(error))
    assert told["param"] == ("tools" if isinstance(error, BadRequest) else None)
    assert failed["status"] == "failed"
    assert failed["error"] == {"code": failure, "message": str(error)}
    assert [item["status"] for item in failed["output"]] == ["completed", "completed", "incomplete"]
    with pytest.raises(openai.APIError, match=str(error)) as caught:
        accumulated(data)
    assert caught.value.code == code


def test_an_error_can_be_written_behind_a_stream_that_was_passed_on():
    encoder = SURFACE.stream(asked(), LABEL)
    [(name, value)] = parsed(encoder.fail(TruncatedAnswer()))
    assert (name, value["type"], value["code"]) == ("error", "error", "truncated")


def test_each_event_goes_out_as_it_comes():
    encoder = SURFACE.stream(asked(), LABEL)
    encoder.open()
    assert b"output_item.added" in encoder.feed(Delta("a"))
    assert encoder.feed(Delta("b")).count(b"event:") == 1
    assert b'"delta":"{\\"a"' in encoder.feed(ToolCallDelta(0, "i", "f", '{"a'))
    assert b'"delta":"{\\"b"' in encoder.feed(ToolCallDelta(1, "j", "g", '{"b'))
    assert encoder.feed(Usage(1, 2, 3)) == b""
    assert encoder.keep_alive().startswith(b":")


@pytest.mark.parametrize(
    ("events", "words"),
    [
        ([ToolCallDelta(0, "a", None, "{}")], "without a name"),
        ([ToolCallDelta(0, "a", "f", "{}"), Delta("x"), ToolCallDelta(0, arguments="{}")], "after its end"),
    ],
)
def test_tool_calls_that_make_no_sense_are_errors(events, words):
    with pytest.raises(RemoteProtocolError, match=words):
        streamed([*events, Done("tool_calls")])
    with pytest.raises(RemoteProtocolError, match=words):
        whole([*events, Done("tool_calls")])


def test_an_answer_without_an_end_is_never_a_response():
    with pytest.raises(RemoteProtocolError):
        SURFACE.whole(asked(), [Delta("a")], LABEL)


# Ends and usage


@pytest.mark.parametrize(
    ("reason", "status", "details"),
    [
        ("stop", "completed", None),
        ("tool_calls", "completed", None),
        ("length", "incomplete", {"reason": "max_output_tokens"}),
        ("content_filter", "incomplete", {"reason": "content_filter"}),
    ],
)
def test_ends(reason, status, details):
    for response in (whole([Delta("a"), Done(reason)]), last_response(streamed([Delta("a"), Done(reason)]))):
        assert (response["status"], response["incomplete_details"]) == (status, details)
        assert response["output"][0]["status"] == status


def test_usage_that_nobody_counted_is_estimated_and_marked():
    events: list[Event] = [Reasoning("thinking"), Delta("A fairly long answer, with many words."), Done()]
    usage = last_response(streamed(events))["usage"]
    assert usage == whole(events)["usage"]
    assert usage["estimated"] is True
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
    assert 5 < usage["output_tokens"] < 20
    assert "estimated" not in whole([Delta("a"), COUNTED, Done()])["usage"]


# Whole answers


def test_a_whole_answer_repeats_the_settings():
    function = {"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": True, "description": "d"}
    settings = {
        "instructions": "Be brief",
        "max_output_tokens": 50,
        "metadata": {"a": "b"},
        "parallel_tool_calls": False,
        "previous_response_id": "resp_1",
        "store": False,
        "temperature": 0.5,
        "tool_choice": {"type": "function", "name": "f"},
        "tools": [function],
        "top_p": 0.9,
        "truncation": "auto",
        "user": "u",
    }
    value = whole([*PARALLEL], **settings)
    assert {name: value[name] for name in settings} == settings
    assert (value["object"], value["model"], value["created_at"]) == ("response", "gpt-x", LABEL.created)
    assert value["error"] is None
    with openai_client(json.dumps(value).encode(), kind="application/json") as reader:
        response = reader.responses.create(**HELLO)
    assert response.output_text == "Looking it up"


def test_what_the_service_took_back_is_not_in_the_answer():
    events: list[Event] = [Delta("Wrong"), Notice("rewritten", "Right"), Delta(" indeed"), Done()]
    assert whole(events)["output"][0]["content"][0]["text"] == "Right indeed"
    data = streamed(events)
    assert last_response(data)["output"][0]["content"][0]["text"] == "Right indeed"
    assert accumulated(data).output_text == "Right indeed"
    alone: list[Event] = [Reasoning("Hm"), Notice("rewritten", "Right"), Done()]
    assert accumulated(streamed(alone)).output_text == "Right"


def test_notices_stand_in_the_response():
    events: list[Event] = [Notice("dropped", "top_k was left out"), Delta("a"), Done()]
    notices = [{"kind": "dropped", "text": "top_k was left out"}]
    assert whole(events)["notices"] == notices
    assert last_response(streamed(events))["notices"] == notices


# Both


PIECES = st.builds(ToolCallDelta, st.integers(0, 2), st.none(), st.just("f"), st.sampled_from(["", "{}", " ", "{"]))


@given(happenings(PIECES), st.sampled_from(["stop", "length", "tool_calls", "content_filter"]))
@examples(150)
def test_a_stream_and_a_whole_answer_say_the_same(events, reason):
    events = [*events, Done(reason)]
    try:
        value = whole(events)
    except RemoteProtocolError:
        with pytest.raises(RemoteProtocolError):
            streamed(events)
        return
    data = streamed(events)
    assert last_response(data) == value
    if value["status"] == "completed":
        assert [item.id for item in accumulated(data).output] == [item["id"] for item in value["output"]]
