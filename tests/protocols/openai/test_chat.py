"""Chat completions: what is asked, and every way in which servers answer."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.captures.writing import TEXT
from tests.protocols.driving import Outcome, ask, by_bytes, cases, cut_at, join, load, new_state, read, sent_to, turn
from tolmach.chat import ChatRequest, Delta, Done, Notice, Reasoning, ToolCallDelta, Usage
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
from tolmach.protocols.base import Site
from tolmach.protocols.openai.chat import OpenAI
from tolmach.wire import Head, Limits, Request

PROTOCOL = OpenAI()


def site(url: str = "https://api.test/v1", protocol: OpenAI = PROTOCOL, **options: Any) -> Site:
    return Site(name="Api", url=url, protocol=protocol, **options)


def sent(asked: ChatRequest, at: Site | None = None) -> Any:
    return sent_to(at or site(), asked)


# The request


def test_streamed_request():
    request = ask(PROTOCOL, site(api_key="sk-1"), turn("hi", model="m", temperature=0.3, x_unknown={"a": [1]})).request
    assert (request.method, request.url) == ("POST", "https://api.test/v1/chat/completions")
    assert request.headers == {
        "accept": "text/event-stream",
        "authorization": "Bearer sk-1",
        "content-type": "application/json",
    }
    assert json.loads(request.body) == {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.3,
        "x_unknown": {"a": [1]},
    }


def test_whole_request_without_key():
    request = ask(PROTOCOL, site(default_model="d"), turn("hi", stream=False)).request
    assert "authorization" not in request.headers
    assert request.headers["accept"] == "application/json"
    assert json.loads(request.body) == {"model": "d", "messages": [{"role": "user", "content": "hi"}], "stream": False}


def test_usage_is_asked_for_unless_the_site_or_the_caller_says_otherwise():
    silent = site(protocol=OpenAI(include_usage=False))
    assert "stream_options" not in sent(turn(), silent)
    assert sent(turn(stream_options={"include_usage": False}))["stream_options"] == {"include_usage": False}


@pytest.mark.parametrize(
    ("url", "full"),
    [
        ("http://127.0.0.1:8190/v1/", "http://127.0.0.1:8190/v1/chat/completions"),
        ("https://x.test/d?api-version=1#a", "https://x.test/d/chat/completions?api-version=1"),
        ("https://x.test", "https://x.test/chat/completions"),
    ],
)
def test_address(url, full):
    assert ask(PROTOCOL, site(url), turn()).request.url == full


def test_own_endpoint():
    assert ask(PROTOCOL, site(api_endpoint="/chat"), turn()).request.url == "https://api.test/chat"


def test_messages_are_written_as_the_api_has_them():
    messages = [
        {"role": "developer", "content": "be brief", "name": "boss"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "what is it?"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA==", "detail": "low"}},
                {"type": "image_url", "image_url": {"url": "https://x.test/a.png"}},
            ],
        },
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"a":1}'}}],
        },
        {"role": "tool", "content": "a cat", "tool_call_id": "c1"},
    ]
    assert sent(turn(messages))["messages"] == messages


@pytest.mark.parametrize(
    ("name", "value"), [("n", 2), ("logprobs", True), ("top_logprobs", 3), ("audio", {"voice": "x"})]
)
def test_what_events_cannot_carry_is_refused(name, value):
    with pytest.raises(UnsupportedFeature) as caught:
        ask(PROTOCOL, site(), turn(**{name: value}))
    assert caught.value.feature == name
    assert sent(turn(n=1, logprobs=False))["n"] == 1


def test_wrong_options():
    with pytest.raises(ConfigError):
        create("openai", {"path": "chat"})
    with pytest.raises(ConfigError):
        create("openai", {"include_usage": "maybe"})
    with pytest.raises(ConfigError):
        ask(PROTOCOL, site("api.test/v1"), turn())
    with pytest.raises(ConfigError):
        ask(PROTOCOL, site(), turn(bad=object()))


def test_no_handshake_and_all_features():
    assert PROTOCOL.ready(site(), new_state())
    assert list(PROTOCOL.prepare(site(), new_state())) == []
    assert PROTOCOL.features == {"*"}


def test_reader_knows_its_questions():
    assert PROTOCOL.reader(Request("POST", "http://x.test/openai/v1/chat/completions?a=1")) is not None
    assert PROTOCOL.reader(Request("GET", "http://x.test/v1/chat/completions")) is None
    assert PROTOCOL.reader(Request("POST", "http://x.test/v1/completions")) is None
    assert PROTOCOL.reader(Request("POST", "http://[x/chat/completions")) is None


# The answer: recordings

USAGE = Usage(9, 12, 21)
TOOLS = [
    ToolCallDelta(0, "call_a", "weather"),
    ToolCallDelta(0, arguments='{"city":'),
    ToolCallDelta(0, arguments=' "Минск"}'),
    ToolCallDelta(1, "call_b", "now", "{}"),
]

ANSWERS: dict[str, list[Any]] = {
    "stream": [Delta(TEXT), USAGE, Done()],
    "stream-without-usage": [Delta(TEXT), Done()],
    "stream-without-done": [Delta(TEXT), Done("length")],
    "stream-comments": [Delta(TEXT), USAGE, Done()],
    "stream-reasoning": [Reasoning("Let me "), Reasoning("think."), Delta("Yes."), USAGE, Done()],
    "stream-tools": [*TOOLS, USAGE, Done("tool_calls")],
    "stream-refusal": [
        Notice("refusal", "the model refuses to answer; its text says why"),
        Delta("I can't help with that."),
        USAGE,
        Done(),
    ],
    "stream-surrogates": [Delta("a🚀b\ufffd"), Done()],
    "stream-unknown-reason": [
        Delta("ok"),
        Notice("finish_reason", "the service gave an unknown reason for the end: abort"),
        USAGE,
        Done(),
    ],
    "stream-length-empty": [USAGE, Done("length")],
    "stream-asked-json-came": [Delta(TEXT), USAGE, Done()],
    "json": [Delta(TEXT), USAGE, Done()],
    "json-tools": [
        ToolCallDelta(0, "call_a", "weather", '{"city": "Минск"}'),
        ToolCallDelta(1, "call_b", "now", "{}"),
        USAGE,
        Done("tool_calls"),
    ],
    "json-asked-stream-came": [Delta(TEXT), Done()],
}

ERRORS: dict[str, tuple[Any, ...]] = {
    "error-in-stream": (ProviderUnavailable, "The server had an error", 200, "server_error", None, "partial"),
    "error-event": (RateLimited, "Rate limit reached", 200, "rate_limit_exceeded", None, "par"),
    "error-empty": (ProviderUnavailable, "the service gave an empty answer", 200, "empty", None, ""),
    "error-401": (AuthError, "Incorrect API key provided: sk-...x.", 401, "invalid_api_key", None, ""),
    "error-403": (
        Refused,
        "Country, region, or territory not supported",
        403,
        "unsupported_country_region_territory",
        None,
        "",
    ),
    "error-404-model": (BadRequest, "The model `x` does not exist", 404, "model_not_found", None, ""),
    "error-400-context": (
        ContextTooLong,
        "This model's maximum context length is 8192 tokens.",
        400,
        "context_length_exceeded",
        None,
        "",
    ),
    "error-400-vllm": (
        ContextTooLong,
        "This model's maximum context length is 4096 tokens.",
        400,
        "BadRequestError",
        None,
        "",
    ),
    "error-400-filter": (Refused, "The response was filtered", 400, "ResponsibleAIPolicyViolation", None, ""),
    "error-422-detail": (BadRequest, "must be below 1", 422, None, None, ""),
    "error-429": (RateLimited, "Rate limit reached for requests", 429, "rate_limit_exceeded", 1.5, ""),
    "error-429-quota": (RateLimited, "You exceeded your current quota", 429, "insufficient_quota", None, ""),
    "error-500-text": (ProviderUnavailable, "model runner stopped", 500, None, None, ""),
    "error-503-page": (ProviderUnavailable, "503 Service Unavailable", 503, None, None, ""),
    "error-200-page": (
        RemoteProtocolError,
        "the site shows a page instead of an answer: Welcome",
        200,
        "html",
        None,
        "",
    ),
}


def test_every_recording_has_an_outcome():
    assert set(cases("openai")) == set(ANSWERS) | set(ERRORS)


@pytest.mark.parametrize("case", [*ANSWERS, *ERRORS])
def test_recordings(case):
    (recorded,) = load("openai", case)
    reader = PROTOCOL.reader(recorded.request)
    assert reader is not None
    outcome = read(reader(recorded.head), recorded.chunks)
    for chunks in ([recorded.body], by_bytes(recorded.body)):
        assert read(reader(recorded.head), chunks).said == outcome.said
    if case in ANSWERS:
        assert (join(outcome.events), outcome.error) == (ANSWERS[case], None)
    else:
        error = outcome.failure
        told = (type(error), error.text, error.status, error.code, error.retry_after, error.partial)
        assert told == ERRORS[case]


@pytest.mark.parametrize("case", ANSWERS)
def test_truncated_is_never_a_success_unless_nothing_is_missing(case):
    (recorded,) = load("openai", case)
    reader = PROTOCOL.reader(recorded.request)
    assert reader is not None
    body = recorded.body
    since = None
    for length in range(len(body)):
        outcome = read(reader(recorded.head), [body[:length]])
        if outcome.error is None:
            assert join(outcome.events) in (ANSWERS[case], [e for e in ANSWERS[case] if not isinstance(e, Usage)])
            since = length if since is None else since
        else:
            assert since is None
            assert not any(isinstance(event, Done) for event in outcome.events)
            assert length == 0 or isinstance(outcome.error, TruncatedAnswer)
    if since is not None:
        # Only the usage, the end mark, or the blank line of the last event is missing.
        assert b'"finish_reason":null' not in body[since:]
        assert b'"finish_reason": null' not in body[since:]
        assert b'"content"' not in body[since:]


# The answer: further shapes


def answer(body: str | bytes, status: int = 200, usage: bool = False, **headers: str) -> Outcome:
    """The outcome, which is the same for any cut."""
    data = body.encode() if isinstance(body, str) else body
    at = site(protocol=OpenAI(include_usage=usage))
    call = ask(at.protocol, at, turn())
    head = Head(status, {name.replace("_", "-"): value for name, value in headers.items()})
    whole = read(call.decoder(head), [data])
    assert read(call.decoder(head), by_bytes(data)).said == whole.said
    return whole


def stream(*chunks: Any, done: bool = True) -> str:
    return "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + ("data: [DONE]\n\n" if done else "")


def piece(delta: Any, reason: Any = None, **more: Any) -> Any:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": reason, **more}]}


@pytest.mark.parametrize(
    ("chunks", "events"),
    [
        # Another choice than the first, metadata, an unknown event, a role alone.
        (
            [
                piece({"role": "assistant"}),
                {"choices": [{"index": 1, "delta": {"content": "no"}}]},
                piece({"content": "a"}),
            ],
            [Delta("a"), Done()],
        ),
        ([{"type": "ping"}, {"choices": []}, piece({"content": "a"}, "eos")], [Delta("a"), Done()]),
        ([piece({"content": "a"}, "function_call")], [Delta("a"), Done("tool_calls")]),
        # No `index`, no `delta`; a `message` in a stream.
        ([{"choices": [{"message": {"content": "a"}, "finish_reason": "stop"}]}], [Delta("a"), Done()]),
        ([piece(None, "length")], [Done("length")]),
        ([piece({"content": ""}, "content_filter")], [Done("content_filter")]),
        # OpenRouter's and Mistral's reasoning.
        ([piece({"reasoning": "hm", "content": ""}), piece({}, "stop")], [Reasoning("hm"), Done()]),
        (
            [
                piece(
                    {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}, 3]}, {"type": "x"}]}
                ),
                piece({"content": [{"type": "text", "text": "a"}]}),
            ],
            [Reasoning("hm"), Delta("a"), Done()],
        ),
        # Tool calls without numbers, with an object for arguments, with halves of a character.
        (
            [
                piece({"tool_calls": [{"id": "a", "function": {"name": "f", "arguments": {"x": "ц"}}}]}),
                piece({"tool_calls": [{"function": {"arguments": "}"}}, {"id": "b", "function": {"name": "g"}}]}),
                piece({"tool_calls": [{"index": 1, "function": {"arguments": "\ud83d"}}]}),
                piece({"tool_calls": [{"index": 1, "function": {"arguments": "\ude80\ud83d"}}]}),
                piece({"tool_calls": [{"index": -5}]}),
            ],
            [
                ToolCallDelta(0, "a", "f", '{"x": "\\u0446"}'),
                ToolCallDelta(0, arguments="}"),
                ToolCallDelta(1, "b", "g"),
                ToolCallDelta(1, arguments="🚀"),
                ToolCallDelta(1, arguments="\ufffd"),
                Done("tool_calls"),
            ],
        ),
        (
            [piece({"function_call": {"name": "f", "arguments": "{}"}})],
            [ToolCallDelta(0, None, "f", "{}"), Done("tool_calls")],
        ),
        # Usage that is none does not spoil the answer.
        ([piece({"content": "a"}), {"choices": [], "usage": {"prompt_tokens": 1.5}}], [Delta("a"), Done()]),
        ([piece({"content": "a"}), {"usage": {"prompt_tokens": 3}}], [Delta("a"), Done()]),
        (
            [{**piece({"content": "a"}), "usage": {"prompt_tokens": 3.0, "completion_tokens": 2}}, {"choices": []}],
            [Delta("a"), Usage(3, 2, 5), Done()],
        ),
        ([piece({"content": "a"}), {"usage": [10**400, True]}], [Delta("a"), Done()]),
    ],
)
def test_chunks(chunks, events):
    assert answer(stream(*chunks)) == (events, None)


@pytest.mark.parametrize(
    ("chunk", "kind", "code"),
    [
        ({"error": {"message": "m", "code": 429}}, RateLimited, "429"),
        ({"error": {"message": "m", "code": "429", "type": "slow"}}, RateLimited, "slow"),
        ({"error": {"message": "m", "code": 502, "metadata": {}}}, ProviderUnavailable, "502"),
        ({"error": {"message": "m", "type": "invalid_request_error"}}, BadRequest, "invalid_request_error"),
        ({"error": {"message": "m", "type": "overloaded_error"}}, ProviderUnavailable, "overloaded_error"),
        ({"error": {"message": "m", "code": "context_length_exceeded"}}, ContextTooLong, "context_length_exceeded"),
        ({"error": {"message": "m", "code": "content_policy_violation"}}, Refused, "content_policy_violation"),
        ({"error": "m"}, ProviderUnavailable, None),
        ({"error": ["m"]}, ProviderUnavailable, None),
        ([{"error": {"message": "m", "code": 401}}], AuthError, "401"),
        ({"detail": "m"}, ProviderUnavailable, None),
        ({"detail": {"message": "m", "code": "model_not_found"}}, BadRequest, "model_not_found"),
        ({"errors": [{"message": "m", "code": 5007}]}, ProviderUnavailable, "5007"),
        ({"message": "m", "type": "tokens"}, RateLimited, "tokens"),
        (piece({"content": ""}, "error"), ProviderUnavailable, "upstream"),
        (piece({"content": ""}, "error", error={"message": "m", "code": 429}), RateLimited, "429"),
    ],
)
def test_errors_inside_a_stream(chunk, kind, code):
    outcome = answer(stream(piece({"content": "ab"}), chunk))
    assert (type(outcome.error), outcome.failure.code, outcome.failure.partial) == (kind, code, "ab")
    assert outcome.events == [Delta("ab")]


@pytest.mark.parametrize("body", ["{}", "[]", '{"choices": []}', '{"choices": 5}', '{"choices": [5]}', "{]}"])
def test_whole_answers_of_another_shape(body):
    assert type(answer(body).error) is RemoteProtocolError


@pytest.mark.parametrize(
    "data", ["[]", "3", '{"choices": 5}', '{"choices": [[]]}', "{", '{"choices":[{"delta":{"content":5}}]}']
)
def test_chunks_of_another_shape(data):
    assert type(answer(f"data: {data}\n\n").error) is RemoteProtocolError


def test_the_first_bytes_say_what_a_body_is():
    body = stream(piece({"content": "a"}), piece({}, "stop"))
    for kind in ("text/event-stream", "application/json", "text/plain", ""):
        assert answer("\ufeff" + body, content_type=kind).text == "a"
        assert answer("\r\n\n: hi\n" + body, content_type=kind).text == "a"
        assert answer(' \n{"choices": [{"message": {"content": "a"}}]}', content_type=kind).text == "a"
        assert answer('\ufeff {"choices": [{"message": {"content": "a"}}]}', content_type=kind).text == "a"
        assert isinstance(answer("", content_type=kind).error, ProviderUnavailable | TruncatedAnswer)


def test_an_end_without_done():
    ended = stream(piece({"content": "a"}, "stop"), done=False)
    assert answer(ended) == ([Delta("a"), Done()], None)
    assert answer(ended + "data: [DO").error is None
    assert type(answer(stream(piece({"content": "a"}), done=False)).error) is TruncatedAnswer
    assert answer(ended, usage=True) == ([Delta("a"), Done()], None), "the usage that was asked for need not come"
    assert answer(ended + "data: [DONE]\n\n", usage=True).error is None
    assert answer(ended + "data: [DONE]\n\ndata: {oops\n\n").error is None


def test_a_failed_response_that_is_a_stream_or_empty():
    assert type(answer("", 500).error) is ProviderUnavailable
    assert answer("", 500).failure.text == "HTTP 500"
    assert type(answer("", 304).error) is RemoteProtocolError
    wait = answer('{"error": {"message": "m"}}', 429, retry_after="Fri, 01 Jan 2100 00:00:00 GMT").failure.retry_after
    assert wait == 31 * 86_400  # no service means a longer one
    assert answer('{"error": {"message": "m"}}', 429, retry_after_ms="x", retry_after="3").failure.retry_after == 3


def test_limits():
    state = new_state()
    state.limits = Limits(answer_bytes=100, event_bytes=1000)
    for delta in (
        {"content": "x" * 40},
        {"reasoning": "x" * 40},
        {"tool_calls": [{"function": {"arguments": "x" * 40}}]},
    ):
        call = ask(PROTOCOL, site(), turn(), state=state)
        outcome = read(
            call.decoder(Head(200, {"content-type": "text/event-stream"})), [stream(*[piece(delta)] * 9).encode()]
        )
        assert outcome.failure.code == "too_large" or "longer than 100 bytes" in str(outcome.error)
        assert len(outcome.events) == 2


FRAGMENTS = [
    stream(piece({"content": "a\ud83d"}), done=False).encode(),
    stream(piece({"reasoning_content": "hm"}, "stop"), done=False).encode(),
    stream(piece({"tool_calls": [{"index": 0, "function": {"arguments": "["}}]}), done=False).encode(),
    b'data: {"choices": [{"index": 0, "delta": {"content": "\xff"}}]}\n\n',
    b'{"choices": [{"message": {"content": "x"}}]}',
    b'data: {"error": {"message": 1e400, "code": [1]}}\n\n',
    b"data: " + b'{"error":' * 2000 + b"\n\n",
    b"data: " + b"[" * 3000 + b"]" * 3000 + b"\n\n",
    b'data: {"choices": [{"delta": {"function_call": {"arguments": ' + b"[" * 500 + b"]" * 500 + b"}}}]}\n\n",
    b'data: {"choices": [{"index": 1' + b"0" * 5000 + b"}]}\n\n",
    b'data: {"usage": {"prompt_tokens": 1e999}}\n\n',
    b"data: ",
    b"event: error\n",
    b"\xef\xbb\xbf",
    b"\r\n\r\n",
    b"data: [DONE]\n\n",
    b"<html>",
]


@given(
    st.lists(st.sampled_from(FRAGMENTS) | st.binary(max_size=8), max_size=6),
    st.lists(st.integers(0, 1 << 20), max_size=6),
    st.sampled_from([200, 200, 204, 302, 403, 429, 500]),
    st.sampled_from(["text/event-stream", "application/json", ""]),
)
def test_any_bytes_give_events_or_our_errors_whatever_the_cuts(fragments, places, status, kind):
    data = b"".join(fragments)
    reader = ask(PROTOCOL, site(), turn()).decoder
    head = Head(status, {"content-type": kind})
    whole = read(reader(head), [data])
    assert read(reader(head), cut_at(data, places)).said == whole.said
    assert whole.error is not None or isinstance(whole.events[-1], Done)
