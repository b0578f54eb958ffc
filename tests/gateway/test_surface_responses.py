"""The Responses surface: its bytes as the openai package reads them, bodies in, errors out."""

import json
from collections.abc import Iterable
from typing import Any

import httpx2
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from anychat.chat import Delta, Done, Event, Image, Notice, Reasoning, Text, ToolCall, ToolCallDelta, Usage
from anychat.chat import Message as Turn
from anychat.errors import (
    AnychatError,
    AuthError,
    BadRequest,
    ModelNotFound,
    ProviderUnavailable,
    RateLimited,
    RemoteProtocolError,
    TimedOut,
    TruncatedAnswer,
    UnsupportedFeature,
)
from anychat.gateway.surfaces.base import Label
from anychat.gateway.surfaces.responses import ResponsesSurface
from anychat.gateway.surfaces.responses_request import continued, remembered

SURFACE = ResponsesSurface()
LABEL = Label(id="0123456789abcdef01234567", created=1_700_000_000, model="gpt-x", provider="site")
HELLO: dict[str, Any] = {"model": "gpt-x", "input": "Hello"}
STREAM_EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
COUNTED = Usage(12, 7, 19, cached_tokens=4, reasoning_tokens=3)
PARALLEL: list[Event] = [
    Delta("Looking it up"),
    ToolCallDelta(0, "call_a", "weather", ""),
    ToolCallDelta(0, arguments='{"city": '),
    ToolCallDelta(0, arguments='"Oslo"}'),
    ToolCallDelta(1, "call_b", "time", '{"zone": "CET"}'),
    COUNTED,
    Done("tool_calls"),
]
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


def body(**fields: Any) -> bytes:
    return json.dumps({**HELLO, **fields}).encode()


def asked(**fields: Any):
    return SURFACE.parse(body(**fields))


def streamed(events: Iterable[Event], error: AnychatError | None = None, **fields: Any) -> bytes:
    encoder = SURFACE.stream(asked(**fields), LABEL)
    data = encoder.open() + b"".join(encoder.feed(event) for event in events)
    return data if error is None else data + encoder.fail(error)


def whole(events: Iterable[Event], **fields: Any) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(SURFACE.whole(asked(**fields), list(events), LABEL))
    Response.model_validate(value, strict=True)
    return value


def parsed(data: bytes) -> list[tuple[str, dict[str, Any]]]:
    """Name and fields of each event of a stream, by the plainest reading of server-sent events."""
    found = []
    assert data.endswith(b"\n\n")
    for block in data.decode().split("\n\n")[:-1]:
        name, payload = block.split("\n")
        found.append((name.removeprefix("event: "), json.loads(payload.removeprefix("data: "))))
    return found


def last_response(data: bytes) -> dict[str, Any]:
    response: dict[str, Any] = parsed(data)[-1][1]["response"]
    return response


def client(data: bytes, status: int = 200, kind: str = "text/event-stream") -> openai.OpenAI:
    """The package's client, on a transport that answers with these bytes."""
    transport = httpx2.MockTransport(
        lambda request: httpx2.Response(status, content=data, headers={"content-type": kind})
    )
    return openai.OpenAI(
        api_key="k", base_url="http://gateway/v1", max_retries=0, http_client=httpx2.Client(transport=transport)
    )


def accumulated(data: bytes) -> Any:
    """The `Response` that the package puts together from a stream."""
    with client(data) as reader, reader.responses.stream(**HELLO) as stream:
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
    with client(streamed(PARALLEL)) as reader, reader.responses.stream(**HELLO) as stream:
        deltas = [event for event in stream if event.type == "response.function_call_arguments.delta"]
    assert [(event.output_index, event.snapshot) for event in deltas] == [
        (1, '{"city": '),
        (1, '{"city": "Oslo"}'),
        (2, '{"zone": "CET"}'),
    ]


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_tool_calls_survive_any_order_of_their_pieces(data):
    calls = {index: json.dumps({"n": index, "text": "}{" * index}) for index in range(data.draw(st.integers(1, 3)))}
    left = {}
    for index, text in calls.items():
        at = data.draw(st.integers(0, len(text)))
        left[index] = [text[:at], text[at:]]
    events: list[Event] = []
    begun: set[int] = set()
    while any(left.values()):
        index = data.draw(st.sampled_from([i for i, pieces in left.items() if pieces]))
        name = None if index in begun else f"f{index}"
        begun.add(index)
        events.append(ToolCallDelta(index, f"id{index}" if name else None, name, left[index].pop(0)))
    found = accumulated(streamed([*events, Done("tool_calls")])).output
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
    with client(json.dumps(value).encode(), kind="application/json") as reader:
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
@settings(max_examples=300, deadline=None)
def test_no_body_raises_anything_but_our_errors(value):
    try:
        question = SURFACE.parse(json.dumps(value).encode())
    except (BadRequest, UnsupportedFeature):
        return
    assert parsed(SURFACE.stream(question, LABEL).open())


@given(st.binary(max_size=60))
@settings(max_examples=100, deadline=None)
def test_no_bytes_raise_anything_but_our_errors(data):
    with pytest.raises(BadRequest):
        SURFACE.parse(data)


EVENTS = st.lists(
    st.one_of(
        st.builds(Delta, st.text(st.characters(codec="utf-8"), min_size=1)),
        st.builds(Reasoning, st.text(st.characters(codec="utf-8"), min_size=1)),
        st.builds(ToolCallDelta, st.integers(0, 2), st.none(), st.just("f"), st.sampled_from(["", "{}", " ", "{"])),
        st.builds(Usage, st.integers(0, 9), st.integers(0, 9), st.integers(0, 18)),
        st.builds(Notice, st.sampled_from(["warning", "refusal"]), st.text(st.characters(codec="utf-8"))),
    ),
    max_size=12,
)


@given(EVENTS, st.sampled_from(["stop", "length", "tool_calls", "content_filter"]))
@settings(max_examples=150, deadline=None)
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
    with client(data, status, "application/json") as reader, pytest.raises(raised) as caught:
        reader.responses.create(**HELLO)
    assert caught.value.status_code == status
