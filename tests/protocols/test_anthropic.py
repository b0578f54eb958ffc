"""The Messages API: what is asked, how every answer is read, and the demo's own against the real client."""

import json
from typing import Any

import anthropic
import pytest

from tests.captures.writing import TEXT
from tests.protocols.driving import (
    NOW_TOOL,
    STRICT_WEATHER,
    Outcome,
    ask,
    join,
    load,
    read,
    reading,
    recorded_outcome,
    sent_to,
    turn,
)
from tolmach.chat import ChatRequest, Delta, Done, Event, Notice, Reasoning, ToolCallDelta, Usage
from tolmach.demo import Demo
from tolmach.errors import (
    AuthError,
    BadRequest,
    ConfigError,
    ContextTooLong,
    ProviderUnavailable,
    RateLimited,
    Refused,
    RemoteProtocolError,
    TruncatedAnswer,
    UnsupportedFeature,
)
from tolmach.protocols import create
from tolmach.protocols.anthropic import Anthropic
from tolmach.protocols.base import Site

PROTOCOL = Anthropic()
USAGE = Usage(17, 12, 29, cached_tokens=5)
TOOL = STRICT_WEATHER


def site(url: str = "https://api.anthropic.com", protocol: Anthropic = PROTOCOL, **options: Any) -> Site:
    options.setdefault("default_model", "claude")
    return Site(name="Api", url=url, protocol=protocol, **options)


def sent(asked: ChatRequest, at: Site | None = None) -> Any:
    return sent_to(at or site(), asked)


# The request


def test_request():
    request = ask(PROTOCOL, site(api_key="k"), turn("hi", model="m", temperature=0.3, top_p=0.9, top_k=5)).request
    assert (request.method, request.url) == ("POST", "https://api.anthropic.com/v1/messages")
    assert request.headers == {
        "accept": "text/event-stream",
        "anthropic-version": "2023-06-01",
        "content-type": "application/json",
        "x-api-key": "k",
    }
    assert json.loads(request.body) == {
        "model": "m",
        "max_tokens": 4096,
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
        "temperature": 0.3,
        "top_p": 0.9,
        "top_k": 5,
    }


@pytest.mark.parametrize(
    ("url", "full"),
    [
        ("https://api.anthropic.com/v1/", "https://api.anthropic.com/v1/messages"),
        ("http://127.0.0.1:8190/anthropic", "http://127.0.0.1:8190/anthropic/v1/messages"),
        ("https://x.test/a?b=1#c", "https://x.test/a/v1/messages?b=1"),
    ],
)
def test_address(url, full):
    assert ask(PROTOCOL, site(url), turn()).request.url == full


def test_site_options():
    at = site(protocol=Anthropic(path="/messages", beta=("a", "b"), max_tokens=7, version="2099-01-01"))
    request = ask(at.protocol, at, turn(stream=False)).request
    assert request.url == "https://api.anthropic.com/messages"
    assert request.headers["anthropic-beta"] == "a,b"
    assert request.headers["anthropic-version"] == "2099-01-01"
    assert "x-api-key" not in request.headers
    assert json.loads(request.body)["max_tokens"] == 7
    assert ask(PROTOCOL, site(api_endpoint="/x"), turn()).request.url == "https://api.anthropic.com/x"


@pytest.mark.parametrize("name", ["temperature", "top_p", "top_k"])
def test_newer_versions_of_the_api_do_not_sample_as_told(name):
    sampled: dict[str, Any] = {name: 1}
    with pytest.raises(UnsupportedFeature) as caught:
        sent(turn(**sampled), site(protocol=Anthropic(version="2026-10-21")))
    assert caught.value.feature == name


def test_limits_stops_and_user():
    fields = sent(turn(max_tokens=1, max_completion_tokens=2, stop="END", user="u1"))
    assert (fields["max_tokens"], fields["stop_sequences"], fields["metadata"]) == (2, ["END"], {"user_id": "u1"})
    assert sent(turn(max_tokens=1))["max_tokens"] == 1


def test_messages_become_turns_of_blocks():
    messages = [
        {"role": "system", "content": "be brief"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "what is it?"},
                {"type": "text", "text": ""},
                {"type": "image_url", "image_url": {"url": "data:image/jpg;base64,AA=="}},
                {"type": "image_url", "image_url": {"url": "https://x.test/a.png"}},
            ],
        },
        {
            "role": "assistant",
            "content": "I look.",
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"a":1}'}},
                {"id": "c2", "type": "function", "function": {"name": "now", "arguments": ""}},
            ],
        },
        {"role": "tool", "content": "a cat", "tool_call_id": "c1"},
        {"role": "tool", "content": [{"type": "image_url", "image_url": "https://x.test/b.png"}], "tool_call_id": "c2"},
        {"role": "user", "content": "and?"},
        {"role": "developer", "content": "in French"},
    ]
    fields = sent(turn(messages))
    assert fields["system"] == "be brief\n\nin French"
    assert fields["messages"] == [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "what is it?"},
                {"type": "image", "source": {"type": "base64", "media_type": "image/jpeg", "data": "AA=="}},
                {"type": "image", "source": {"type": "url", "url": "https://x.test/a.png"}},
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "I look."},
                {"type": "tool_use", "id": "c1", "name": "look", "input": {"a": 1}},
                {"type": "tool_use", "id": "c2", "name": "now", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "c1", "content": "a cat"},
                {
                    "type": "tool_result",
                    "tool_use_id": "c2",
                    "content": [{"type": "image", "source": {"type": "url", "url": "https://x.test/b.png"}}],
                },
                {"type": "text", "text": "and?"},
            ],
        },
    ]


def test_tools():
    fields = sent(turn(tools=[TOOL, NOW_TOOL]))
    assert fields["tools"] == [
        {
            "name": "weather",
            "description": "Tells it.",
            "input_schema": TOOL["function"]["parameters"],
            "strict": True,
        },
        {"name": "now", "input_schema": {"type": "object", "properties": {}}},
    ]
    assert "tool_choice" not in fields
    assert "tools" not in sent(turn(tools=[], tool_choice="auto"))


@pytest.mark.parametrize(
    ("choice", "parallel", "made"),
    [
        ("auto", None, {"type": "auto"}),
        ("none", False, {"type": "none"}),
        ("required", True, {"type": "any"}),
        (
            {"type": "function", "function": {"name": "now"}},
            False,
            {"type": "tool", "name": "now", "disable_parallel_tool_use": True},
        ),
        (None, False, {"type": "auto", "disable_parallel_tool_use": True}),
    ],
)
def test_tool_choice(choice, parallel, made):
    assert sent(turn(tools=[NOW_TOOL], tool_choice=choice, parallel_tool_calls=parallel))["tool_choice"] == made


def test_output_and_thinking():
    schema = {"type": "object", "properties": {}}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    fields = sent(turn(response_format=form, reasoning_effort="high", thinking={"type": "adaptive"}))
    assert fields["output_config"] == {"effort": "high", "format": {"type": "json_schema", "schema": schema}}
    assert fields["thinking"] == {"type": "adaptive"}
    assert sent(turn(reasoning_effort="none"))["thinking"] == {"type": "disabled"}
    assert "output_config" not in sent(turn(response_format={"type": "text"}))


@pytest.mark.parametrize(
    ("options", "feature"),
    [
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"response_format": {"type": "grammar"}}, "response_format"),
        ({"reasoning_effort": "minimal"}, "reasoning_effort"),
        ({"tools": [{"type": "web_search"}]}, "tools"),
        ({"tools": [NOW_TOOL], "tool_choice": {"type": "custom"}}, "tool_choice"),
        (
            {
                "tools": [NOW_TOOL],
                "tool_choice": {
                    "type": "allowed_tools",
                    "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "function": {"name": "now"}}]},
                },
            },
            "tool_choice",
        ),
    ],
)
def test_what_has_no_counterpart_is_refused_by_name(options, feature):
    with pytest.raises(UnsupportedFeature) as caught:
        sent(turn(**options))
    assert caught.value.feature == feature


@pytest.mark.parametrize("url", ["http://x.test/a.png", "data:image/tiff;base64,AA=="])
def test_pictures_that_the_api_does_not_take(url):
    with pytest.raises(UnsupportedFeature) as caught:
        sent(turn([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]))
    assert caught.value.feature == "images"


CALL = {"id": "c", "function": {"name": "f", "arguments": "[1]"}}


@pytest.mark.parametrize(
    ("messages", "options", "complaint"),
    [
        ([{"role": "assistant", "tool_calls": [CALL]}], {}, "tool call 'c'"),
        ([{"role": "tool", "content": "x"}], {}, "tool_call_id"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": "data:x,y"}]}], {}, "base64"),
        ("x", {"tools": "weather"}, "tools"),
        ("x", {"tools": [{}]}, r"tools\[0\]"),
        ("x", {"tools": [{"type": "function", "function": {"name": "a", "parameters": "b"}}]}, "schema"),
        ("x", {"tools": [NOW_TOOL], "tool_choice": "always"}, "tool_choice"),
        ("x", {"response_format": {"type": "json_schema"}}, "response_format"),
        ("x", {"stop": 5}, "stop"),
        ("x", {"thinking": True}, "thinking"),
    ],
)
def test_wrong_values_are_named(messages, options, complaint):
    with pytest.raises(ConfigError, match=complaint):
        sent(turn(messages, **options))


def test_wrong_options_of_the_site():
    for wrong in ({"path": "x"}, {"max_tokens": 0}, {"speed": 1}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            create("anthropic", wrong)
    with pytest.raises(ConfigError, match="a model"):
        sent(turn(), site(default_model=""))


# The answer


def outcome(case: str) -> Outcome:
    return recorded_outcome(PROTOCOL, "anthropic", case)


WEATHER = [ToolCallDelta(0, "toolu_a", "weather"), ToolCallDelta(0, arguments='{"city":"Минск"}')]


@pytest.mark.parametrize(
    ("case", "events"),
    [
        ("stream", [Delta(TEXT), USAGE, Done()]),
        (
            "stream-thinking",
            [
                Reasoning("Let me "),
                Reasoning("think."),
                Delta("Yes."),
                Usage(18, 12, 30, cached_tokens=5, reasoning_tokens=7),
                Done(),
            ],
        ),
        ("stream-redacted", [Delta("Yes."), USAGE, Done()]),
        (
            "stream-tools",
            [
                Delta("I look."),
                ToolCallDelta(0, "toolu_a", "weather"),
                ToolCallDelta(0, arguments='{"city":'),
                ToolCallDelta(0, arguments=' "Минск"}'),
                ToolCallDelta(1, "toolu_b", "now"),
                ToolCallDelta(1, arguments="{}"),
                USAGE,
                Done("tool_calls"),
            ],
        ),
        ("stream-max-tokens", [Delta("Once"), USAGE, Done("length")]),
        ("stream-refusal", [USAGE, Done("content_filter")]),
        (
            "stream-new",
            [
                Delta("ok"),
                Notice("finish_reason", "the service gave an unknown reason for the end: tired"),
                USAGE,
                Done(),
            ],
        ),
        ("stream-surrogates", [Delta("a🚀b\ufffd"), USAGE, Done()]),
        ("stream-asked-json-came", [Delta(TEXT), USAGE, Done()]),
        ("json", [Delta(TEXT), USAGE, Done()]),
        (
            "json-tools",
            [
                Reasoning("Hm."),
                *WEATHER,
                ToolCallDelta(1, "toolu_b", "now"),
                ToolCallDelta(1, arguments="{}"),
                USAGE,
                Done("tool_calls"),
            ],
        ),
        ("json-asked-stream-came", [Delta(TEXT), USAGE, Done()]),
    ],
)
def test_answers(case: str, events: list[Event]):
    got = outcome(case)
    assert got.error is None
    assert join(got.events) == events


@pytest.mark.parametrize(
    ("case", "kind", "code", "said"),
    [
        ("error-in-stream", ProviderUnavailable, "overloaded_error", "Overloaded"),
        ("error-empty", ProviderUnavailable, "empty", "empty"),
        ("error-without-reason", RemoteProtocolError, None, "stop_reason"),
        ("error-400", BadRequest, "invalid_request_error", "temperature"),
        ("error-400-context", ContextTooLong, "invalid_request_error", "214315"),
        ("error-400-filter", Refused, "invalid_request_error", "filtering"),
        ("error-400-credit", AuthError, "invalid_request_error", "credit"),
        ("error-401", AuthError, "authentication_error", "x-api-key"),
        ("error-403", AuthError, "permission_error", "permission"),
        ("error-404", BadRequest, "not_found_error", "claude-9"),
        ("error-413", ContextTooLong, "request_too_large", "maximum"),
        ("error-429", RateLimited, "rate_limit_error", "rate limit"),
        ("error-500", ProviderUnavailable, "api_error", "Internal"),
        ("error-529", ProviderUnavailable, "overloaded_error", "Overloaded"),
        ("error-503-page", ProviderUnavailable, None, "503"),
        ("error-200-page", RemoteProtocolError, "html", "Welcome"),
        ("error-200-other", RemoteProtocolError, None, "content"),
    ],
)
def test_errors(case, kind, code, said):
    failure = outcome(case).failure
    assert (type(failure), failure.code) == (kind, code)
    assert said in str(failure)
    assert failure.retry_after == (17 if case == "error-429" else None)
    assert failure.partial == {"error-in-stream": "partial", "error-without-reason": "a"}.get(case, "")


def test_a_stream_without_its_end_is_truncated():
    decoder, body = reading(PROTOCOL, "anthropic", "stream")
    cut = body[: body.index(b"event: message_delta")]
    got = read(decoder(), [cut])
    assert type(got.error) is TruncatedAnswer
    assert got.error.partial == TEXT


def test_a_stream_with_its_reason_and_without_its_end_mark_is_whole():
    decoder, body = reading(PROTOCOL, "anthropic", "stream")
    mark = body.index(b"event: message_stop")
    for end in (mark, mark + 9, len(body) - 1):
        assert read(decoder(), [body[:end]]) == read(decoder(), [body])


def test_only_its_own_questions_are_read():
    (recorded,) = load("openai", "stream")
    assert PROTOCOL.reader(recorded.request) is None


def test_names_of_messages_are_reported():
    at = site()
    call = ask(PROTOCOL, at, turn([{"role": "user", "content": "hi", "name": "Ann"}]))
    (recorded,) = load("anthropic", "json")
    got = read(call.decoder(recorded.head), [recorded.body])
    assert got.events[0] == Notice("dropped", "Api has no place for the names of messages; they were left out")


# The demo


async def test_the_demo_serves_the_anthropic_package():
    async with Demo(delay=0) as demo, anthropic.AsyncAnthropic(base_url=f"{demo.url}/anthropic", api_key="k") as client:
        asked: Any = {"model": "demo", "max_tokens": 100, "messages": [{"role": "user", "content": "hi"}]}
        whole = await client.messages.create(**asked)
        async with client.messages.stream(**asked) as stream:
            text = "".join([piece async for piece in stream.text_stream])
            final = await stream.get_final_message()
        assert whole.content[0].type == "text"
        assert whole.content[0].text == text
        assert final.usage.output_tokens == whole.usage.output_tokens
        assert (await client.messages.count_tokens(model="demo", messages=asked["messages"])).input_tokens > 0
        with pytest.raises(anthropic.NotFoundError):
            await client.messages.create(**asked | {"model": "nobody"})
        with pytest.raises(anthropic.BadRequestError, match="temperature"):
            await client.messages.create(**asked, extra_body={"temperature": 1})
