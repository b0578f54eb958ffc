"""Ollama's API: what is asked, how every answer is read, and the demo's own against the real client."""

import json
from typing import Any

import ollama
import pytest

from tests.captures.writing import TEXT
from tests.protocols.driving import (
    NOW_TOOL,
    WEATHER,
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
    ProviderError,
    ProviderUnavailable,
    RateLimited,
    RemoteProtocolError,
    TruncatedAnswer,
    UnsupportedFeature,
)
from tolmach.protocols.base import Site
from tolmach.protocols.ollama import Ollama

PROTOCOL = Ollama()
USAGE = Usage(9, 12, 21)
TOOL = WEATHER


def site(url: str = "http://127.0.0.1:11434", protocol: Ollama = PROTOCOL, **options: Any) -> Site:
    options.setdefault("default_model", "llama")
    return Site(name="Local", url=url, protocol=protocol, **options)


def sent(asked: ChatRequest, at: Site | None = None) -> Any:
    return sent_to(at or site(), asked)


# The request


def test_request():
    options: dict[str, Any] = {
        "temperature": 0.3,
        "top_p": 0.9,
        "seed": 7,
        "stop": "END",
        "max_tokens": 5,
        "presence_penalty": 1,
    }
    request = ask(PROTOCOL, site(), turn("hi", model="m", **options)).request
    assert (request.method, request.url) == ("POST", "http://127.0.0.1:11434/api/chat")
    assert request.headers == {"accept": "application/x-ndjson", "content-type": "application/json"}
    assert json.loads(request.body) == {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
        "options": {
            "temperature": 0.3,
            "top_p": 0.9,
            "seed": 7,
            "presence_penalty": 1,
            "num_predict": 5,
            "stop": ["END"],
        },
    }


def test_site_options_and_key():
    at = site("https://ollama.com/api/?a=1", Ollama(keep_alive="10m", num_ctx=8192), api_key="k")
    request = ask(at.protocol, at, turn(stream=False)).request
    assert request.url == "https://ollama.com/api/chat?a=1"
    assert request.headers["authorization"] == "Bearer k"
    fields = json.loads(request.body)
    assert (fields["keep_alive"], fields["options"], fields["stream"]) == ("10m", {"num_ctx": 8192}, False)
    assert ask(PROTOCOL, site(api_endpoint="/x"), turn()).request.url == "http://127.0.0.1:11434/x"


def test_messages():
    messages = [
        {"role": "developer", "content": "be brief"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "what is it?"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
            ],
        },
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"a":1}'}}],
        },
        {"role": "tool", "content": "a cat", "tool_call_id": "c1"},
    ]
    assert sent(turn(messages))["messages"] == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "what is it?", "images": ["AA=="]},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"id": "c1", "function": {"index": 0, "name": "look", "arguments": {"a": 1}}}],
        },
        {"role": "tool", "content": "a cat", "tool_name": "look", "tool_call_id": "c1"},
    ]


def test_tools_format_and_thinking():
    schema = {"type": "object", "properties": {}}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    fields = sent(turn(tools=[TOOL, NOW_TOOL], tool_choice="auto", response_format=form, reasoning_effort="low"))
    assert fields["tools"] == [
        TOOL,
        {"type": "function", "function": {"name": "now", "description": "", "parameters": schema}},
    ]
    assert (fields["format"], fields["think"]) == (schema, "low")
    assert "tools" not in sent(turn(tools=[TOOL], tool_choice="none"))
    assert sent(turn(response_format={"type": "json_object"}))["format"] == "json"
    assert sent(turn(reasoning_effort="none"))["think"] is False
    assert sent(turn(think=True))["think"] is True


@pytest.mark.parametrize(
    ("options", "feature"),
    [
        ({"tools": [NOW_TOOL], "tool_choice": "required"}, "tool_choice"),
        ({"tools": [NOW_TOOL], "tool_choice": {"type": "function", "function": {"name": "now"}}}, "tool_choice"),
        ({"reasoning_effort": "minimal"}, "reasoning_effort"),
        ({"tools": [{"type": "custom"}]}, "tools"),
    ],
)
def test_what_has_no_counterpart_is_refused_by_name(options, feature):
    with pytest.raises(UnsupportedFeature) as caught:
        sent(turn(**options))
    assert caught.value.feature == feature


def test_addresses_of_pictures_and_other_roles_are_refused():
    image = [{"type": "image_url", "image_url": {"url": "https://x.test/a.png"}}]
    with pytest.raises(UnsupportedFeature) as caught:
        sent(turn([{"role": "user", "content": image}]))
    assert caught.value.feature == "images"
    with pytest.raises(UnsupportedFeature):
        sent(turn([{"role": "function", "content": "x", "name": "f"}]))
    with pytest.raises(ConfigError, match="a model"):
        sent(turn(), site(default_model=""))


# The answer


def outcome(case: str) -> Outcome:
    return recorded_outcome(PROTOCOL, "ollama", case)


CALLS = [
    ToolCallDelta(0, "call_a", "weather"),
    ToolCallDelta(0, arguments='{"city":"Минск"}'),
    ToolCallDelta(1, "call_0", "now"),
    ToolCallDelta(1, arguments="{}"),
]


@pytest.mark.parametrize(
    ("case", "events"),
    [
        ("stream", [Delta(TEXT), USAGE, Done()]),
        ("stream-thinking", [Reasoning("Let me "), Reasoning("think."), Delta("Yes."), USAGE, Done()]),
        ("stream-tools", [*CALLS, USAGE, Done("tool_calls")]),
        ("stream-length", [Delta("Once"), USAGE, Done("length")]),
        ("stream-old", [Delta("ok"), USAGE, Done()]),
        (
            "stream-unknown-reason",
            [
                Delta("ok"),
                Notice("finish_reason", "the service gave an unknown reason for the end: tired"),
                USAGE,
                Done(),
            ],
        ),
        ("stream-surrogates", [Delta("a🚀b\ufffd"), USAGE, Done()]),
        ("json", [Delta(TEXT), USAGE, Done()]),
        ("json-tools", [Reasoning("Hm."), *CALLS, USAGE, Done("tool_calls")]),
        ("json-asked-stream-came", [Delta(TEXT), USAGE, Done()]),
    ],
)
def test_answers(case: str, events: list[Event]):
    got = outcome(case)
    assert got.error is None
    assert join(got.events) == events


@pytest.mark.parametrize(
    ("case", "kind", "said"),
    [
        ("error-in-stream", ProviderUnavailable, "unexpected EOF"),
        ("error-empty", ProviderUnavailable, "empty"),
        ("error-not-done", TruncatedAnswer, "broke off"),
        ("error-400-tools", BadRequest, "support tools"),
        ("error-400-context", ContextTooLong, "context length"),
        ("error-401", AuthError, "unauthorized"),
        ("error-404", BadRequest, "not found"),
        ("error-429", RateLimited, "too many"),
        ("error-500", ProviderUnavailable, "stopped"),
        ("error-503", ProviderUnavailable, "server busy"),
        ("error-502-page", ProviderUnavailable, "502"),
        ("error-200-page", RemoteProtocolError, "Welcome"),
        ("error-200-other", RemoteProtocolError, "no answer"),
        ("error-bad-tool", RemoteProtocolError, "tool call"),
    ],
)
def test_errors(case: str, kind: type[ProviderError], said: str):
    failure = outcome(case).failure
    assert type(failure) is kind
    assert said in str(failure)
    assert failure.retry_after == (17 if case == "error-429" else None)
    assert failure.partial == {"error-in-stream": "partial", "error-not-done": "par", "error-bad-tool": "a"}.get(
        case, ""
    )


def test_a_stream_without_its_last_line_is_truncated():
    decoder, body = reading(PROTOCOL, "ollama", "stream")
    *lines, _ = body.splitlines(keepends=True)
    got = read(decoder(), lines)
    assert type(got.error) is TruncatedAnswer
    assert got.error.partial == TEXT


def test_a_call_without_an_id_gets_one():
    call = ask(PROTOCOL, site(), turn([{"role": "user", "content": "hi", "name": "Ann"}]))
    (recorded,) = load("ollama", "stream-tools")
    got = read(call.decoder(recorded.head), [recorded.body])
    assert isinstance(got.events[0], Notice)
    assert [e.id for e in got.events if isinstance(e, ToolCallDelta) and e.id] == ["call_a", f"call_{1:024x}"]


# The demo


async def test_the_demo_serves_the_ollama_package():
    async with Demo(delay=0) as demo:
        client = ollama.AsyncClient(host=f"{demo.url}/ollama")
        messages = [{"role": "user", "content": "hi"}]
        whole = await client.chat("demo", messages=messages)
        pieces = [piece async for piece in await client.chat("demo", messages=messages, stream=True)]
        assert "".join(piece.message.content or "" for piece in pieces) == whole.message.content
        assert pieces[-1].done
        assert (await client.list()).models[0].model == "demo:latest"
        with pytest.raises(ollama.ResponseError, match="not found"):
            await client.chat("nobody", messages=messages)
        await client._client.aclose()
