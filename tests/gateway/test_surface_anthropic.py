"""The Anthropic surface: its bytes as the anthropic package reads them, bodies in, errors out."""

import json
from collections.abc import Iterable
from typing import Any

import anthropic
import httpx2
import pytest
from anthropic.types import Message, MessageTokensCount, RawMessageStreamEvent
from anthropic.types.shared import ErrorResponse
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from anychat.chat import Delta, Done, Event, Image, Notice, Reasoning, Text, ToolCall, ToolCallDelta, Usage
from anychat.chat import Message as Turn
from anychat.errors import (
    AnychatError,
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
    TruncatedAnswer,
    UnsupportedFeature,
)
from anychat.gateway.surfaces.anthropic import AnthropicSurface
from anychat.gateway.surfaces.base import Label

SURFACE = AnthropicSurface()
LABEL = Label(id="0123456789abcdef01234567", created=1_700_000_000, model="claude-x", provider="site")
HELLO: dict[str, Any] = {"model": "claude-x", "max_tokens": 100, "messages": [{"role": "user", "content": "Hello"}]}
STREAM_EVENT: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)
COUNTED = Usage(12, 7, 19)
PARALLEL: list[Event] = [
    Delta("Looking it up"),
    ToolCallDelta(0, "call_a", "weather", ""),
    ToolCallDelta(0, arguments='{"city": '),
    ToolCallDelta(0, arguments='"Oslo"}'),
    ToolCallDelta(1, "call_b", "time", '{"zone": "CET"}'),
    COUNTED,
    Done("tool_calls"),
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
    Message.model_validate(value, strict=True)
    return value


def parsed(data: bytes) -> list[tuple[str, dict[str, Any]]]:
    """Name and fields of each event of a stream, by the plainest reading of server-sent events."""
    found = []
    assert data.endswith(b"\n\n")
    for block in data.decode().split("\n\n")[:-1]:
        name, payload = block.split("\n")
        found.append((name.removeprefix("event: "), json.loads(payload.removeprefix("data: "))))
    return found


def client(data: bytes, status: int = 200, kind: str = "text/event-stream") -> anthropic.Anthropic:
    """The package's client, on a transport that answers with these bytes."""
    transport = httpx2.MockTransport(
        lambda request: httpx2.Response(status, content=data, headers={"content-type": kind})
    )
    return anthropic.Anthropic(
        api_key="k", base_url="http://gateway", max_retries=0, http_client=httpx2.Client(transport=transport)
    )


def accumulated(data: bytes) -> Any:
    """The `Message` that the package puts together from a stream."""
    with client(data) as reader, reader.messages.stream(**HELLO) as stream:
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


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_tool_calls_survive_any_order_of_their_pieces(data):
    calls = {index: json.dumps({"n": index, "text": "}{" * index}) for index in range(data.draw(st.integers(1, 3)))}
    left = {index: [(index, piece) for piece in _cut(data, text)] for index, text in calls.items()}
    events: list[Event] = []
    begun: set[int] = set()
    while any(left.values()):
        index, piece = left[data.draw(st.sampled_from([i for i, pieces in left.items() if pieces]))].pop(0)
        named = index not in begun
        begun.add(index)
        events.append(ToolCallDelta(index, f"id{index}" if named else None, f"f{index}" if named else None, piece))
    found = accumulated(streamed([*events, Done("tool_calls")])).content
    assert {block.name: block.input for block in found} == {f"f{i}": json.loads(text) for i, text in calls.items()}


def _cut(data: Any, text: str) -> list[str]:
    at = data.draw(st.integers(0, len(text)))
    return [text[:at], text[at:]]


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
    with client(json.dumps(value).encode(), kind="application/json") as reader:
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
    optional=dict.fromkeys(
        ("text", "source", "id", "name", "input", "tool_use_id", "content", "is_error"), WORDS | JSON
    ),
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
        **dict.fromkeys(
            ("tool_choice", "stop_sequences", "metadata", "thinking", "stream", "output_config", "other"), JSON
        ),
    },
)


@given(FIELDS | JSON)
@settings(max_examples=300, deadline=None)
def test_no_body_raises_anything_but_our_errors(value):
    for read in (SURFACE.parse, SURFACE.count):
        try:
            assert read(json.dumps(value).encode())
        except (BadRequest, UnsupportedFeature):
            continue


@given(st.binary(max_size=60))
@settings(max_examples=100, deadline=None)
def test_no_bytes_raise_anything_but_our_errors(data):
    with pytest.raises(BadRequest):
        SURFACE.parse(data)


EVENTS = st.lists(
    st.one_of(
        st.builds(Delta, st.text(st.characters(codec="utf-8"), min_size=1)),
        st.builds(Reasoning, st.text(st.characters(codec="utf-8"), min_size=1)),
        st.builds(
            ToolCallDelta, st.integers(0, 2), st.none() | st.just("id"), st.just("f"), st.sampled_from(["", "{}", " "])
        ),
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
    with client(data, status, "application/json") as reader, pytest.raises(raised) as caught:
        reader.messages.create(**HELLO)
    assert caught.value.status_code == status


def test_an_error_without_a_request_id_says_null():
    assert json.loads(SURFACE.error(BadRequest("no"), "")[1])["request_id"] is None
