"""Sites that are declared: one request, one answer."""

import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.captures.make_written import recordings
from tests.captures.writing import TEXT
from tests.protocols.driving import Outcome, ask, by_bytes, cases, cut_at, load, new_state, read, turn
from tolmach.chat import ChatRequest, Delta, Done, Notice
from tolmach.errors import (
    AuthError,
    BadRequest,
    ChallengeRequired,
    ConfigError,
    ContextTooLong,
    ProviderUnavailable,
    RateLimited,
    Refused,
    RemoteProtocolError,
    TolmachError,
    TruncatedAnswer,
)
from tolmach.protocols import create
from tolmach.protocols.base import Site
from tolmach.protocols.recipe.json_text import JsonText
from tolmach.wire import Head, Limits, Request

AICHAT = JsonText(
    path="/api/text",
    template={
        "message": "{{message}}",
        "temperature": "{{temperature}}",
        "presence_penalty": 0,
        "top_p": "{{top_p}}",
        "frequency_penalty": 0,
    },
    defaults={"temperature": 0.5, "top_p": 1},
    answer="/message",
    ok="/response",
)
SITE = Site(name="Aichat", url="http://chat.test:8190/Aichat", protocol=AICHAT)


def site(protocol: JsonText, url: str = "http://chat.test/chat", **options: Any) -> Site:
    return Site(name="Declared", url=url, protocol=protocol, **options)


def sent(protocol: JsonText, asked: ChatRequest, **options: Any) -> Any:
    return json.loads(ask(protocol, site(protocol, **options), asked).request.body)


def answer(protocol: JsonText, body: str | bytes, status: int = 200, **headers: str) -> Outcome:
    """The outcome, which is the same for any cut."""
    data = body.encode() if isinstance(body, str) else body
    call = ask(protocol, site(protocol), turn())
    head = Head(status, {name.replace("_", "-"): value for name, value in headers.items()})
    whole = read(call.decoder(head), [data])
    assert read(call.decoder(head), by_bytes(data)).said == whole.said
    return whole


# The request


def test_aichat_request():
    call = ask(AICHAT, SITE, turn("hi", temperature=0.7))
    assert call.request.method == "POST"
    assert call.request.url == "http://chat.test:8190/api/text"
    assert json.loads(call.request.body) == {
        "message": "hi",
        "temperature": 0.7,
        "presence_penalty": 0,
        "top_p": 1,
        "frequency_penalty": 0,
    }
    assert call.request.headers == {
        "accept": "application/json, text/plain, */*",
        "content-type": "application/json",
        "origin": "http://chat.test:8190",
        "referer": "http://chat.test:8190/Aichat",
    }
    assert AICHAT.features == {"temperature", "top_p"}
    assert AICHAT.traits == frozenset()


def test_aichat_is_pure_data():
    assert create("json-text", msgspec.to_builtins(AICHAT)) == AICHAT


def test_several_messages_become_one_text():
    body = sent(AICHAT, turn([{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}]))
    assert body["message"] == "System: be brief\nUser: hi\nAssistant:"


def test_credentials_in_the_address_are_not_told():
    call = ask(AICHAT, site(AICHAT, "http://user:secret@chat.test/Aichat?x=1#y"), turn())
    assert call.request.headers["origin"] == "http://chat.test"
    assert call.request.headers["referer"] == "http://chat.test/Aichat"


def test_history_and_roles():
    protocol = JsonText(
        template={
            "q": "{{message}}",
            "past": "{{history}}",
            "prompt": "{{system}}",
            "model": "{{model}}",
            "note": "for {{model}}, {{seed}}",
            "seed": "{{seed}}",
        },
        history_item={"who": "{{role}}", "say": ["{{content}}"]},
        roles={"assistant": "bot"},
    )
    messages = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": "three"},
    ]
    assert sent(protocol, turn(messages, model="m")) == {
        "q": "three",
        "past": [{"who": "user", "say": ["one"]}, {"who": "bot", "say": ["two"]}],
        "prompt": "be brief",
        "model": "m",
        "note": "for m, ",
    }
    assert protocol.features == {"seed"}
    assert protocol.traits == {"history", "system"}


def test_all_messages_key_and_full_address():
    protocol = JsonText(
        path="https://api.chat.test/v2?x=1", template={"messages": "{{messages}}", "stream": "{{stream}}"}
    )
    request = ask(protocol, site(protocol, api_key="k"), turn(stream=False)).request
    assert request.url == "https://api.chat.test/v2?x=1"
    assert request.headers["authorization"] == "Bearer k"
    assert json.loads(request.body) == {"messages": [{"role": "user", "content": "hello"}], "stream": False}


def test_form_and_query():
    fields = {"q": "{{message}}", "past": "{{history}}", "live": "{{stream}}", "t": "{{temperature}}"}
    form = JsonText(body="form", template=fields)
    request = ask(form, site(form), turn("a&b ц", temperature=1)).request
    assert request.headers["content-type"] == "application/x-www-form-urlencoded"
    assert parse_qs(request.body.decode()) == {"q": ["a&b ц"], "past": ["[]"], "live": ["true"], "t": ["1"]}
    query = JsonText(method="GET", body="query", path="/ask", template={"q": "{{message}}"})
    request = ask(query, site(query), turn("a&b ц")).request
    assert (request.method, request.body) == ("GET", b"")
    assert parse_qs(urlsplit(request.url).query) == {"q": ["a&b ц"]}


def test_what_json_cannot_hold_is_a_config_error():
    with pytest.raises(ConfigError, match="JSON"):
        ask(AICHAT, SITE, turn(temperature=object()))


def test_no_handshake():
    assert AICHAT.ready(SITE, new_state())
    assert list(AICHAT.prepare(SITE, new_state())) == []


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"answer": "message"}, "'message' is no JSON pointer"),
        ({"ok": "/a~2"}, "no JSON pointer"),
        ({"errors": ["error"]}, "no JSON pointer"),
        ({"end_flag": "done"}, "no JSON pointer"),
        ({"template": {"q": "{{message}}", "x": "{{colour}}"}}, "colour"),
        ({"template": {"q": "hello"}}, "message"),
        ({"history_item": {"x": "{{name}}"}}, "name"),
        ({"path": "api"}, "path"),
        ({"path": "//evil.test/api"}, "path"),
        ({"path": "ftp://chat.test/"}, "path"),
        ({"method": "GET"}, "body"),
        ({"body": "query"}, "body"),
        ({"body": "xml"}, "xml"),
        ({"error_kinds": {"429": "angry"}}, "angry"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_wrong_options(options, named):
    with pytest.raises(ConfigError, match=named):
        create("json-text", options)


def test_wrong_options_of_a_direct_construction():
    with pytest.raises(ConfigError):
        JsonText(answer="message")


def test_options_of_the_sites_own_need_a_default():
    protocol = JsonText(template={"q": "{{message}}", "c": "{{colour}}"}, defaults={"colour": "red"})
    assert protocol.features == {"colour"}
    assert sent(protocol, turn(colour="blue")) == {"q": "hello", "c": "blue"}


def test_address_that_is_none():
    with pytest.raises(ConfigError):
        ask(AICHAT, site(AICHAT, "chat.test"), turn())


# The answer: recordings

OUTCOMES: dict[str, Any] = {
    "answer": None,
    "answer-escaped": None,
    "answer-behind-warning": None,
    "error-flag-false": (ProviderUnavailable, "Daily limit is used up", 200, "upstream", None),
    "error-flag-absent": (ProviderUnavailable, '{"status":"busy","queue":17}', 200, "upstream", None),
    "error-empty": (ProviderUnavailable, "empty", 200, "empty", None),
    "error-html": (RemoteProtocolError, "Maintenance Back soon", 200, "html", None),
    "error-challenge": (ChallengeRequired, "Just a moment", 403, None, None),
    "error-401": (AuthError, "Unauthenticated.", 401, None, None),
    "error-429": (RateLimited, "Too Many Attempts.", 429, None, 37.0),
    "error-500": (ProviderUnavailable, "upstream failed", 502, None, None),
}


def test_every_recording_has_an_outcome():
    assert set(cases("json-text")) == set(OUTCOMES)


def test_recordings_are_as_written():
    for path, text in recordings().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name}: run python -m tests.captures.make_written"


@pytest.mark.parametrize("case", OUTCOMES)
def test_recordings(case):
    (recorded,) = load("json-text", case)
    reader = AICHAT.reader(recorded.request)
    assert reader is not None
    outcome = read(reader(recorded.head), recorded.chunks)
    for chunks in ([recorded.body], by_bytes(recorded.body)):
        assert read(reader(recorded.head), chunks).said == outcome.said
    expected = OUTCOMES[case]
    if expected is None:
        assert outcome == ([Delta(TEXT), Done("stop")], None)
        return
    error = outcome.failure
    kind, words, status, code, wait = expected
    assert type(error) is kind
    assert words in error.text
    assert (error.status, error.code, error.retry_after) == (status, code, wait)


@pytest.mark.parametrize("case", OUTCOMES)
def test_truncated_at_every_length(case):
    (recorded,) = load("json-text", case)
    reader = AICHAT.reader(recorded.request)
    assert reader is not None
    for length in range(len(recorded.body)):
        outcome = read(reader(recorded.head), [recorded.body[:length]])
        assert outcome.error is not None
        assert not any(isinstance(event, Done) for event in outcome.events)
        if case == "answer" and length:
            assert type(outcome.error) is TruncatedAnswer


def test_without_a_declaration_recordings_of_aichat_are_read():
    reader, (recorded,) = JsonText().reader, load("json-text", "error-flag-false")
    read_as = reader(recorded.request)
    assert read_as is not None
    assert type(read(read_as(recorded.head), recorded.chunks).error) is ProviderUnavailable
    assert ask(JsonText(), site(JsonText()), turn()).decoder(Head(200)) is not None
    assert answer(JsonText(), '{"message": "no flag"}').text == "no flag"


def test_reader_knows_its_questions():
    assert AICHAT.reader(Request("POST", "http://x.test/api/text?a=1")) is not None
    assert AICHAT.reader(Request("GET", "http://x.test/api/text")) is None
    assert AICHAT.reader(Request("POST", "http://x.test/api/text/2")) is None
    assert AICHAT.reader(Request("POST", "http://[x/api/text")) is None


# The answer: other declarations


def test_declared_errors():
    protocol = JsonText(
        answer="/data/0/text",
        errors=("/fault/words", "/error"),
        error_code="/code",
        error_kinds={"429": "refused", "17": "rate_limited", "418": "context_too_long", "403": "bad_request"},
    )
    rows: list[tuple[Any, int, type[TolmachError], str, str | None]] = [
        ({"fault": {"words": "no"}, "code": 17}, 200, RateLimited, "no", "17"),
        ({"error": {"message": "bad"}}, 200, ProviderUnavailable, "bad", "upstream"),
        ({"error": True, "code": "x"}, 200, ProviderUnavailable, '{"error":true,"code":"x"}', "x"),
        ({"fault": {"words": "slow"}}, 429, Refused, "slow", None),
        ({"message": "tea"}, 418, ContextTooLong, "tea", None),
        ({"message": "no"}, 400, BadRequest, "no", None),
    ]
    for value, status, kind, text, code in rows:
        error = answer(protocol, json.dumps(value), status).failure
        assert type(error) is kind, value
        assert (error.text, error.status, error.code) == (text, status, code)
    assert answer(protocol, '{"data": [{"text": "yes"}], "error": null}').text == "yes"
    assert type(answer(protocol, '{"data": []}').error) is RemoteProtocolError
    assert type(answer(protocol, '{"data": [5]}').error) is RemoteProtocolError
    challenge = answer(protocol, "<title>Just a moment...</title>", 403, content_type="text/html").error
    assert type(challenge) is ChallengeRequired


@pytest.mark.parametrize("body", ["[]", "3", "null", '"text"', '{"message": 5}', '{"message": ["a"]}', "{}", "{]}"])
def test_answers_of_another_shape(body):
    assert type(answer(JsonText(), body).error) is RemoteProtocolError


def test_the_answer_may_be_the_whole_document():
    assert answer(JsonText(answer=""), '"text"').text == "text"


def test_plain_text():
    protocol = JsonText(format="text")
    assert answer(protocol, "\ufeff" + TEXT).text == TEXT
    assert answer(protocol, b"a\xff\xd0").text == "a\ufffd\ufffd"
    assert answer(protocol, TEXT * 5).text == TEXT * 5
    assert answer(protocol, "").failure.code == "empty"
    assert answer(protocol, "\n<!DOCTYPE html><p>x").failure.code == "html"
    assert protocol.traits == {"stream"}


def lines(*values: Any, end: str = "\n") -> str:
    return "".join((value if isinstance(value, str) else json.dumps(value)) + end for value in values)


OLLAMA = JsonText(format="ndjson", path="/api/chat", answer="/message/content", end=None, end_flag="/done")


def test_lines():
    pieces = [{"message": {"content": piece}, "done": False} for piece in ("a", "б", "🚀")]
    body = lines(*pieces, {"message": {"content": ""}, "done": True})
    assert answer(OLLAMA, body) == ([Delta("a"), Delta("б"), Delta("🚀"), Done()], None)
    assert answer(OLLAMA, lines({"model": "x"}, {}) + body).text == "aб🚀"
    assert answer(OLLAMA, body.rstrip("\n")).text == "aб🚀"
    assert answer(OLLAMA, body.replace("\n", "\r\n")).text == "aб🚀"
    for length in range(len(body) - 2):
        assert answer(OLLAMA, body[:length]).error is not None
    assert answer(OLLAMA, body + lines("not read")).error is None
    failed = answer(OLLAMA, lines(pieces[0], {"error": "out of memory"}))
    assert type(failed.error) is ProviderUnavailable
    assert failed.error.partial == "a"


def test_events():
    protocol = JsonText(format="sse", answer="/t")
    body = "".join(f"data: {json.dumps({'t': piece})}\n\n" for piece in ("a", "\ud83d", "\ude80", "\ud83d"))
    body += ": comment\n\nevent: meta\ndata: {}\n\n"
    assert answer(protocol, body + "data: [DONE]\n\n") == ([Delta("a"), Delta("🚀"), Delta("\ufffd"), Done()], None)
    assert type(answer(protocol, body).error) is TruncatedAnswer
    assert type(answer(protocol, body + "data: [DONE]\n").error) is TruncatedAnswer
    assert type(answer(protocol, '{"error": "no"}').error) is ProviderUnavailable
    assert answer(protocol, '{"t": "whole"}').text == "whole"
    assert type(answer(protocol, '{"t": "whole').error) is TruncatedAnswer
    assert answer(protocol, "<!DOCTYPE html>\n<p>a: b</p>\n").failure.code == "html"
    assert type(answer(protocol, "data: {oops}\n\n").error) is RemoteProtocolError


def test_events_of_text_without_an_end_mark():
    protocol = JsonText(format="sse", pieces="text", end=None)
    assert answer(protocol, "data: Hello\n\ndata:  you\n\n").text == "Hello you"
    assert type(answer(protocol, "data: Hello\n\ndata: you\n").error) is TruncatedAnswer


def test_snapshots():
    protocol = JsonText(format="sse", answer="/t", snapshots=True, end=None, end_flag="/end")
    body = "".join(
        f"data: {json.dumps({'t': text, 'end': text.endswith('.')})}\n\n"
        for text in ("", "He", "He \ud83d", "He 🚀", "He 🚀", "She 🚀", "She 🚀 is.")
    )
    assert answer(protocol, body) == (
        [Delta("He"), Delta(" "), Delta("🚀"), Notice("rewritten", "She 🚀"), Delta(" is."), Done()],
        None,
    )


def test_limits():
    state = new_state()
    state.limits = Limits(answer_bytes=100, event_bytes=100)
    for protocol in (JsonText(), JsonText(format="text"), JsonText(format="sse"), OLLAMA):
        call = ask(protocol, site(protocol), turn(), state=state)
        outcome = read(call.decoder(Head(200)), [b"x" * 60] * 3)
        assert isinstance(outcome.error, RemoteProtocolError)
        failed = read(call.decoder(Head(500)), [b"x" * 60] * 3)
        assert isinstance(failed.error, ProviderUnavailable)


DECLARED = [
    AICHAT,
    JsonText(format="text"),
    JsonText(format="sse"),
    JsonText(format="sse", snapshots=True, end=None, end_flag="/end"),
    JsonText(format="sse", pieces="text", end=None),
    OLLAMA,
]
FRAGMENTS = [
    b'data: {"message": "a\\ud83d"}\n\n',
    b'{"message": {"content": "x"}, "done": true}\n',
    b'{"response": true, "message": "ok"}',
    b'{"message":',
    b"[" * 3000,
    b'{"a":' * 3000,
    b"data: ",
    b"1" * 5000,
    b"1e999",
    b"\xff\xd0",
    b"\xef\xbb\xbf",
    b"\r\n\r\n",
    b"data: [DONE]\n\n",
    b'{"error": [[1e400, -3]], "message": null}\n',
    b"<html>",
]


@given(
    st.sampled_from(DECLARED),
    st.lists(st.sampled_from(FRAGMENTS) | st.binary(max_size=8), max_size=6),
    st.lists(st.integers(0, 1 << 20), max_size=6),
    st.sampled_from([200, 204, 302, 403, 429, 500]),
)
def test_any_bytes_give_events_or_our_errors_whatever_the_cuts(protocol, fragments, places, status):
    data = b"".join(fragments)
    reader = ask(protocol, site(protocol), turn()).decoder
    whole = read(reader(Head(status)), [data])
    assert read(reader(Head(status)), cut_at(data, places)).said == whole.said
    assert whole.error is not None or isinstance(whole.events[-1], Done)
