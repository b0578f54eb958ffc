"""The Responses API: what is asked, how every answer is read, and the demo's own against the real client."""

import json
from typing import Any

import openai
import pytest

from tests.captures.writing import TEXT
from tests.protocols.driving import (
    NOW_TOOL,
    STRICT_WEATHER,
    Outcome,
    ask,
    join,
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
    ProviderError,
    ProviderUnavailable,
    RateLimited,
    Refused,
    RemoteProtocolError,
    TruncatedAnswer,
    UnsupportedFeature,
)
from tolmach.protocols import create
from tolmach.protocols.base import Site
from tolmach.protocols.openai.responses import OpenAIResponses

PROTOCOL = OpenAIResponses()
USAGE = Usage(9, 12, 21, cached_tokens=4, reasoning_tokens=7)
TOOL = STRICT_WEATHER


def site(url: str = "https://api.test/v1", protocol: OpenAIResponses = PROTOCOL, **options: Any) -> Site:
    return Site(name="Api", url=url, protocol=protocol, **options)


def sent(asked: ChatRequest, at: Site | None = None) -> Any:
    return sent_to(at or site(), asked)


# The request


def test_request():
    options: dict[str, Any] = {"temperature": 0.3, "top_p": 0.9, "max_tokens": 50, "user": "u", "metadata": {"a": "b"}}
    request = ask(PROTOCOL, site(api_key="k"), turn("hi", model="m", **options)).request
    assert (request.method, request.url) == ("POST", "https://api.test/v1/responses")
    assert request.headers == {
        "accept": "text/event-stream",
        "authorization": "Bearer k",
        "content-type": "application/json",
    }
    assert json.loads(request.body) == {
        "model": "m",
        "input": [{"role": "user", "content": "hi"}],
        "stream": True,
        "store": False,
        "temperature": 0.3,
        "top_p": 0.9,
        "max_output_tokens": 50,
        "user": "u",
        "metadata": {"a": "b"},
    }


def test_site_options():
    at = site("https://x.test/v1/?a=1", OpenAIResponses(path="/r", store=True, summary="auto"))
    request = ask(at.protocol, at, turn(reasoning_effort="low")).request
    assert request.url == "https://x.test/v1/r?a=1"
    assert json.loads(request.body)["reasoning"] == {"effort": "low", "summary": "auto"}
    assert sent(turn(), at)["store"] is True
    assert sent(turn(store=True))["store"] is True
    assert ask(PROTOCOL, site(api_endpoint="/x"), turn()).request.url == "https://api.test/x"
    with pytest.raises(ConfigError, match="path"):
        create("openai-responses", {"path": "r"})


def test_messages_become_items():
    messages = [
        {"role": "developer", "content": "be brief"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "what is it?"},
                {"type": "image_url", "image_url": {"url": "https://x.test/a.png", "detail": "low"}},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
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
        {"role": "tool", "content": [{"type": "text", "text": "noon"}], "tool_call_id": "c2"},
    ]
    assert sent(turn(messages))["input"] == [
        {"role": "developer", "content": "be brief"},
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "what is it?"},
                {"type": "input_image", "image_url": "https://x.test/a.png", "detail": "low"},
                {"type": "input_image", "image_url": "data:image/png;base64,AA==", "detail": "auto"},
            ],
        },
        {"role": "assistant", "content": "I look."},
        {"type": "function_call", "call_id": "c1", "name": "look", "arguments": '{"a":1}'},
        {"type": "function_call", "call_id": "c2", "name": "now", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "a cat"},
        {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "noon"}]},
    ]


def test_tools_and_formats():
    schema = {"type": "object", "properties": {}}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True, "description": "d"}}
    fields = sent(turn(tools=[TOOL, NOW_TOOL], response_format=form, verbosity="low", parallel_tool_calls=False))
    assert fields["tools"] == [
        {"type": "function", **TOOL["function"]},
        {"type": "function", "name": "now", "parameters": schema, "strict": False},
    ]
    made = {"type": "json_schema", "name": "x", "schema": schema, "description": "d", "strict": True}
    assert fields["text"] == {"verbosity": "low", "format": made}
    assert fields["parallel_tool_calls"] is False
    assert sent(turn(response_format={"type": "json_object"}))["text"] == {"format": {"type": "json_object"}}


ALLOWED = {"mode": "auto", "tools": [NOW_TOOL]}


@pytest.mark.parametrize(
    ("choice", "made"),
    [
        ("required", "required"),
        ("none", "none"),
        ({"type": "function", "function": {"name": "now"}}, {"type": "function", "name": "now"}),
        (
            {"type": "allowed_tools", "allowed_tools": ALLOWED},
            {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "now"}]},
        ),
    ],
)
def test_tool_choice(choice, made):
    assert sent(turn(tools=[NOW_TOOL], tool_choice=choice))["tool_choice"] == made


def test_what_cannot_be_sent():
    with pytest.raises(UnsupportedFeature):
        sent(turn(tools=[{"type": "custom"}]))
    with pytest.raises(UnsupportedFeature):
        sent(turn([{"role": "function", "content": "x", "name": "f"}]))
    with pytest.raises(ConfigError, match="tool_call_id"):
        sent(turn([{"role": "tool", "content": "x"}]))
    assert not {"stop", "seed", "n"} & PROTOCOL.features


# The answer


def outcome(case: str) -> Outcome:
    return recorded_outcome(PROTOCOL, "openai-responses", case)


REFUSAL = [
    Notice("refusal", "the model refuses to answer; its text says why"),
    Delta("I can't help with that."),
    USAGE,
    Done(),
]


@pytest.mark.parametrize(
    ("case", "events"),
    [
        ("stream", [Delta(TEXT), USAGE, Done()]),
        ("stream-reasoning", [Reasoning("Let me think."), Reasoning("\n\nAgain."), Delta("Yes."), USAGE, Done()]),
        (
            "stream-tools",
            [
                Delta("I look."),
                ToolCallDelta(0, "call_a", "weather"),
                ToolCallDelta(0, arguments='{"city":'),
                ToolCallDelta(0, arguments=' "Минск"}'),
                ToolCallDelta(1, "call_b", "now"),
                ToolCallDelta(1, arguments="{}"),
                USAGE,
                Done("tool_calls"),
            ],
        ),
        ("stream-refusal", REFUSAL),
        ("stream-length", [Delta("Once"), USAGE, Done("length")]),
        ("stream-filter", [Delta("Once"), USAGE, Done("content_filter")]),
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
                ToolCallDelta(0, "call_a", "weather"),
                ToolCallDelta(0, arguments='{"city": "Минск"}'),
                ToolCallDelta(1, "call_b", "now"),
                ToolCallDelta(1, arguments="{}"),
                USAGE,
                Done("tool_calls"),
            ],
        ),
        ("json-refusal", REFUSAL),
    ],
)
def test_answers(case: str, events: list[Event]):
    got = outcome(case)
    assert got.error is None
    assert join(got.events) == events


@pytest.mark.parametrize(
    ("case", "kind", "code", "said"),
    [
        ("error-failed", ProviderUnavailable, "server_error", "failed"),
        ("error-event", RateLimited, "rate_limit_exceeded", "Rate limit"),
        ("error-event-nested", Refused, "invalid_prompt", "No."),
        ("error-empty", ProviderUnavailable, "empty", "empty"),
        ("error-cancelled", ProviderUnavailable, None, "cancelled"),
        ("error-400", BadRequest, "unknown_parameter", "Unknown"),
        ("error-400-context", ContextTooLong, "context_length_exceeded", "context"),
        ("error-401", AuthError, "invalid_api_key", "key"),
        ("error-429", RateLimited, "rate_limit_exceeded", "Rate"),
        ("error-500", ProviderUnavailable, "server_error", "error"),
        ("error-502-page", ProviderUnavailable, None, "502"),
        ("error-200-page", RemoteProtocolError, "html", "Welcome"),
        ("error-200-other", RemoteProtocolError, None, "response"),
    ],
)
def test_errors(case: str, kind: type[ProviderError], code: str | None, said: str):
    failure = outcome(case).failure
    assert (type(failure), failure.code) == (kind, code)
    assert said in str(failure)
    assert failure.retry_after == (17 if case == "error-429" else None)
    assert failure.partial == {"error-failed": "partial", "error-event": "par"}.get(case, "")


def test_a_stream_without_its_end_mark_is_truncated():
    decoder, body = reading(PROTOCOL, "openai-responses", "stream")
    cut = body[: body.index(b"event: response.completed")]
    for end in (b"", b"data: [DONE]\n\n"):
        got = read(decoder(), [cut + end])
        assert type(got.error) is TruncatedAnswer
        assert got.error.partial == TEXT


# The demo


async def test_the_demo_serves_the_openai_package():
    async with Demo(delay=0) as demo, openai.AsyncOpenAI(base_url=f"{demo.url}/v1", api_key="k") as client:
        whole = await client.responses.create(model="demo", input="hi")
        async with client.responses.stream(model="demo", input="hi") as stream:
            text = "".join([event.delta async for event in stream if event.type == "response.output_text.delta"])
            final = await stream.get_final_response()
        assert whole.output_text == text == final.output_text
        after = await client.responses.create(model="demo", input="and?", previous_response_id=whole.id)
        assert "hist=3" in after.output_text
        with pytest.raises(openai.BadRequestError, match="not found"):
            await client.responses.create(model="demo", input="and?", previous_response_id="resp_0")
        with pytest.raises(openai.BadRequestError, match="Unknown parameter"):
            await client.responses.create(model="demo", input="hi", extra_body={"x": 1})


async def test_the_demo_makes_vectors():
    async with Demo(delay=0) as demo, openai.AsyncOpenAI(base_url=f"{demo.url}/v1", api_key="k") as client:
        texts = ["the cat sat", "the cat stood", "ein anderer Satz"]
        got = await client.embeddings.create(model="text-embedding-3-small", input=texts)
        one, two, three = (item.embedding for item in got.data)

        def alike(a: list[float], b: list[float]) -> float:
            return sum(x * y for x, y in zip(a, b, strict=True))

        assert len(one) == 1536
        assert alike(one, one) == pytest.approx(1, abs=1e-3)
        assert alike(one, two) > alike(one, three) + 0.3
        again = await client.embeddings.create(model="text-embedding-3-small", input=texts[0], encoding_format="float")
        assert again.data[0].embedding == pytest.approx(one, abs=1e-6)
        assert got.usage.prompt_tokens == 9
        short = await client.embeddings.create(model="demo", input=[[1, 2], [3]], dimensions=8)
        assert [len(item.embedding) for item in short.data] == [8, 8]
        for wrong in ({"input": ""}, {"input": "x", "dimensions": 9999}, {"model": "gpt-4o"}):
            asked: Any = {"model": "demo", "input": "x"} | wrong
            with pytest.raises((openai.BadRequestError, openai.NotFoundError)):
                await client.embeddings.create(**asked)
