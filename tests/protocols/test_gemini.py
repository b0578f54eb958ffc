"""The Gemini API: what is asked, how every answer is read, and the demo's own against the real client."""

import json
from typing import Any

import pytest
from google import genai
from google.genai import errors as genai_errors
from google.genai import types as genai_types

from tests.captures.writing import TEXT
from tests.protocols.driving import (
    NOW_TOOL,
    WEATHER,
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
from tolmach.protocols.base import Site
from tolmach.protocols.gemini import Gemini

PROTOCOL = Gemini()
USAGE = Usage(9, 12, 21, cached_tokens=4, reasoning_tokens=7)
TOOL = WEATHER


def site(url: str = "https://generativelanguage.googleapis.com", protocol: Gemini = PROTOCOL, **options: Any) -> Site:
    options.setdefault("default_model", "gemini-2.5-flash")
    return Site(name="Google", url=url, protocol=protocol, **options)


def sent(asked: ChatRequest, at: Site | None = None) -> Any:
    return sent_to(at or site(), asked)


# The request


def test_request():
    options: dict[str, Any] = {
        "temperature": 0.3,
        "top_p": 0.9,
        "top_k": 4,
        "seed": 7,
        "stop": ["END"],
        "max_completion_tokens": 5,
    }
    request = ask(PROTOCOL, site(api_key="k"), turn("hi", model="m", **options)).request
    base = "https://generativelanguage.googleapis.com/v1beta"
    assert (request.method, request.url) == ("POST", f"{base}/models/m:streamGenerateContent?alt=sse")
    assert request.headers == {
        "accept": "text/event-stream",
        "content-type": "application/json",
        "x-goog-api-key": "k",
    }
    assert json.loads(request.body) == {
        "contents": [{"role": "user", "parts": [{"text": "hi"}]}],
        "generationConfig": {
            "temperature": 0.3,
            "topP": 0.9,
            "topK": 4,
            "seed": 7,
            "maxOutputTokens": 5,
            "stopSequences": ["END"],
        },
    }


@pytest.mark.parametrize(
    ("url", "model", "full"),
    [
        ("https://x.test/v1/", "m", "https://x.test/v1/models/m:generateContent"),
        ("https://x.test/gemini?a=1", "models/m", "https://x.test/gemini/v1beta/models/m:generateContent?a=1"),
        ("https://x.test", "tunedModels/m", "https://x.test/v1beta/tunedModels/m:generateContent"),
        (
            "https://us-aiplatform.test/v1beta1/projects/p/locations/l/publishers/google",
            "m",
            "https://us-aiplatform.test/v1beta1/projects/p/locations/l/publishers/google/models/m:generateContent",
        ),
        ("https://x.test", "a?b", "https://x.test/v1beta/models/a%3Fb:generateContent"),
    ],
)
def test_address(url, model, full):
    assert ask(PROTOCOL, site(url), turn(model=model, stream=False)).request.url == full


def test_a_key_in_the_address_is_refused_and_not_shown():
    with pytest.raises(ConfigError, match="api_key") as caught:
        ask(PROTOCOL, site("https://x.test/?key=secret"), turn())
    assert "secret" not in str(caught.value)


MESSAGES = [
    {"role": "system", "content": "be brief"},
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "what is it?"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
            {"type": "image_url", "image_url": {"url": "https://x.test/a.JPG?b"}},
            {"type": "image_url", "image_url": {"url": "https://x.test/a"}},
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
    {"role": "tool", "content": "noon", "tool_call_id": "c2"},
    {"role": "user", "content": "and?"},
]


def test_messages_become_turns_of_parts():
    fields = sent(turn(MESSAGES))
    assert fields["systemInstruction"] == {"parts": [{"text": "be brief"}]}
    assert fields["contents"] == [
        {
            "role": "user",
            "parts": [
                {"text": "what is it?"},
                {"inlineData": {"mimeType": "image/png", "data": "AA=="}},
                {"fileData": {"fileUri": "https://x.test/a.JPG?b", "mimeType": "image/jpeg"}},
                {"fileData": {"fileUri": "https://x.test/a"}},
            ],
        },
        {
            "role": "model",
            "parts": [
                {"text": "I look."},
                {"functionCall": {"id": "c1", "name": "look", "args": {"a": 1}}},
                {"functionCall": {"id": "c2", "name": "now", "args": {}}},
            ],
        },
        {
            "role": "user",
            "parts": [
                {"functionResponse": {"name": "look", "response": {"output": "a cat"}, "id": "c1"}},
                {"functionResponse": {"name": "now", "response": {"output": "noon"}, "id": "c2"}},
                {"text": "and?"},
            ],
        },
    ]


def test_newer_models_get_the_stand_in_for_a_signature():
    parts = sent(turn(MESSAGES, model="gemini-3-pro-preview"))["contents"][1]["parts"]
    assert [part.get("thoughtSignature") for part in parts] == [None, "skip_thought_signature_validator", None]


def test_tools():
    fields = sent(turn(tools=[TOOL, NOW_TOOL]))
    declared = {"name": "weather", "description": "Tells it.", "parametersJsonSchema": TOOL["function"]["parameters"]}
    assert fields["tools"] == [{"functionDeclarations": [declared, {"name": "now"}]}]
    assert "toolConfig" not in fields


ALLOWED = {"tools": [{"type": "function", "function": {"name": "now"}}]}


@pytest.mark.parametrize(
    ("choice", "made"),
    [
        ("auto", {"mode": "AUTO"}),
        ("none", {"mode": "NONE"}),
        ("required", {"mode": "ANY"}),
        ({"type": "function", "function": {"name": "now"}}, {"mode": "ANY", "allowedFunctionNames": ["now"]}),
        (
            {"type": "allowed_tools", "allowed_tools": {"mode": "auto", **ALLOWED}},
            {"mode": "VALIDATED", "allowedFunctionNames": ["now"]},
        ),
        (
            {"type": "allowed_tools", "allowed_tools": {"mode": "required", **ALLOWED}},
            {"mode": "ANY", "allowedFunctionNames": ["now"]},
        ),
    ],
)
def test_tool_choice(choice, made):
    assert sent(turn(tools=[NOW_TOOL], tool_choice=choice))["toolConfig"] == {"functionCallingConfig": made}


def test_formats_and_thinking():
    schema = {"type": "object", "properties": {}}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    config = sent(turn(response_format=form, reasoning_effort="low"))["generationConfig"]
    assert config == {
        "responseMimeType": "application/json",
        "responseJsonSchema": schema,
        "thinkingConfig": {"thinkingBudget": 1024},
    }
    config = sent(turn(response_format={"type": "json_object"}))["generationConfig"]
    assert config == {"responseMimeType": "application/json"}
    at = site(protocol=Gemini(thoughts=True), default_model="gemini-3-flash")
    config = sent(turn(reasoning_effort="high"), at)["generationConfig"]
    assert config == {"thinkingConfig": {"includeThoughts": True, "thinkingLevel": "HIGH"}}


@pytest.mark.parametrize(
    ("options", "feature"),
    [
        ({"reasoning_effort": "xhigh"}, "reasoning_effort"),
        ({"reasoning_effort": "none", "model": "gemini-3-pro-preview"}, "reasoning_effort"),
        ({"tools": [{"type": "custom"}]}, "tools"),
    ],
)
def test_what_has_no_counterpart_is_refused_by_name(options, feature):
    with pytest.raises(UnsupportedFeature) as caught:
        sent(turn(**options))
    assert caught.value.feature == feature


def test_messages_that_cannot_be_sent():
    with pytest.raises(UnsupportedFeature):
        sent(turn([{"role": "user", "content": [{"type": "image_url", "image_url": "http://x.test/a.png"}]}]))
    with pytest.raises(UnsupportedFeature):
        sent(turn([{"role": "function", "content": "x", "name": "f"}]))
    with pytest.raises(ConfigError, match="'c9'"):
        sent(turn([{"role": "tool", "content": "x", "tool_call_id": "c9"}]))
    with pytest.raises(ConfigError, match="a model"):
        sent(turn(), site(default_model=""))


# The answer


def outcome(case: str) -> Outcome:
    return recorded_outcome(PROTOCOL, "gemini", case)


CALLS = [
    ToolCallDelta(0, "fc-1", "weather"),
    ToolCallDelta(0, arguments='{"city":"Минск"}'),
    ToolCallDelta(1, "call_0", "now"),
    ToolCallDelta(1, arguments="{}"),
]


@pytest.mark.parametrize(
    ("case", "events"),
    [
        ("stream", [Delta(TEXT), USAGE, Done()]),
        ("stream-thoughts", [Reasoning("Let me think."), Delta("Yes."), USAGE, Done()]),
        ("stream-tools", [Delta("I look."), *CALLS, USAGE, Done("tool_calls")]),
        ("stream-max-tokens", [Delta("Once"), USAGE, Done("length")]),
        ("stream-max-tokens-empty", [USAGE, Done("length")]),
        ("stream-safety", [Delta("Once"), USAGE, Done("content_filter")]),
        (
            "stream-unknown-reason",
            [
                Delta("ok"),
                Notice("finish_reason", "the service gave an unknown reason for the end: TIRED"),
                USAGE,
                Done(),
            ],
        ),
        ("stream-surrogates", [Delta("a🚀b\ufffd"), USAGE, Done()]),
        ("stream-list", [Delta("ok"), USAGE, Done()]),
        ("stream-asked-json-came", [Delta(TEXT), USAGE, Done()]),
        ("json", [Delta(TEXT), USAGE, Done()]),
        ("json-tools", [Reasoning("Hm."), *CALLS, USAGE, Done("tool_calls")]),
    ],
)
def test_answers(case: str, events: list[Event]):
    got = outcome(case)
    assert got.error is None
    assert join(got.events) == events


@pytest.mark.parametrize(
    ("case", "kind", "code", "said"),
    [
        ("error-blocked", Refused, "PROHIBITED_CONTENT", "question was blocked"),
        ("error-safety", Refused, "SAFETY", "kept back"),
        ("error-malformed-call", ProviderUnavailable, "MALFORMED_FUNCTION_CALL", "print(weather("),
        ("error-in-stream", ProviderUnavailable, "UNAVAILABLE", "overloaded"),
        ("error-empty", ProviderUnavailable, "empty", "empty"),
        ("error-without-reason", RemoteProtocolError, None, "finishReason"),
        ("error-400", BadRequest, "INVALID_ARGUMENT", "Unknown name"),
        ("error-400-key", AuthError, "API_KEY_INVALID", "API key"),
        ("error-400-context", ContextTooLong, "INVALID_ARGUMENT", "1200007"),
        ("error-400-country", Refused, "FAILED_PRECONDITION", "location"),
        ("error-403", AuthError, "PERMISSION_DENIED", "unregistered"),
        ("error-404", BadRequest, "NOT_FOUND", "models/x"),
        ("error-429", RateLimited, "RESOURCE_EXHAUSTED", "quota"),
        ("error-429-list", RateLimited, "RESOURCE_EXHAUSTED", "Quota"),
        ("error-500", ProviderUnavailable, "INTERNAL", "internal"),
        ("error-503", ProviderUnavailable, "UNAVAILABLE", "overloaded"),
        ("error-502-page", ProviderUnavailable, None, "502"),
        ("error-200-page", RemoteProtocolError, "html", "Welcome"),
    ],
)
def test_errors(case: str, kind: type[ProviderError], code: str | None, said: str):
    failure = outcome(case).failure
    assert (type(failure), failure.code) == (kind, code)
    assert said in str(failure)
    assert failure.retry_after == (17.5 if case == "error-429" else None)


def test_a_stream_without_finish_reason_is_truncated():
    decoder, body = reading(PROTOCOL, "gemini", "stream")
    cut = body[: body.rindex(b"data:")]
    got = read(decoder(), [cut])
    assert type(got.error) is TruncatedAnswer
    assert TEXT.startswith(got.error.partial)


# The demo


@pytest.mark.filterwarnings("ignore:Inheritance class:DeprecationWarning")  # of the package's own
async def test_the_demo_serves_googles_package():
    async with Demo(delay=0) as demo:
        options = genai_types.HttpOptions(base_url=f"{demo.url}/gemini")
        async with genai.Client(api_key="k", vertexai=False, http_options=options).aio as client:
            whole = await client.models.generate_content(model="demo", contents="hi")
            stream = await client.models.generate_content_stream(model="demo", contents="hi")
            pieces = [piece.text or "" async for piece in stream]
            assert "".join(pieces) == whole.text
            assert len(pieces) > 20
            with pytest.raises(genai_errors.ClientError, match="not found"):
                await client.models.generate_content(model="nobody", contents="hi")
