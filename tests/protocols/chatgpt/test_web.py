"""The web conversation: its steps, its two encodings, and what the service says instead of an answer."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.protocols.driving import (
    NOW,
    Driven,
    drive,
    new_state,
    response,
    turn,
)
from tolmach.chat import Conversation, admit, parse_messages
from tolmach.errors import (
    AuthError,
    ChallengeRequired,
    ConfigError,
    ProviderError,
    ProviderUnavailable,
    RateLimited,
    RemoteProtocolError,
    TruncatedAnswer,
    UnsupportedFeature,
)
from tolmach.protocols import create
from tolmach.protocols.base import SessionState, Site
from tolmach.protocols.chatgpt.proof import get_answer_token
from tolmach.protocols.chatgpt.web import USER_AGENT, ChatGptWeb, browser_headers, format_conversation
from tolmach.wire import Head, Response

PROTOCOL = ChatGptWeb()
SITE = Site(name="ChatGpt", url="http://chat.test:8190/ChatGpt", protocol=PROTOCOL)
SIGNED_IN = Site(name="ChatGpt", url="http://chat.test:8190/ChatGpt/", protocol=PROTOCOL, api_key="key")

SEED_HEADERS = {
    "accept": "*/*",
    "accept-language": "en-US,en;q=0.8",
    "cache-control": "no-cache",
    "pragma": "no-cache",
    "priority": "u=0, i",
    "sec-ch-ua": '"Not)A;Brand";v="99", "Google Chrome";v="127", "Chromium";v="127"',
    "sec-ch-ua-arch": '"arm"',
    "sec-ch-ua-bitness": '"64"',
    "sec-ch-ua-mobile": "?0",
    "sec-ch-ua-model": '""',
    "sec-ch-ua-platform": '"macOS"',
    "sec-ch-ua-platform-version": '"14.4.0"',
    "sec-fetch-dest": "document",
    "sec-fetch-mode": "navigate",
    "sec-fetch-site": "none",
    "sec-fetch-user": "?1",
    "upgrade-insecure-requests": "1",
    "user-agent": "agent",
}


PAGE_ONLY = ("sec-fetch-user", "upgrade-insecure-requests")


def required(**parts: Any) -> Response:
    return response({"token": "rt", **parts})


PUZZLE = {"required": True, "seed": "0.42", "difficulty": "0fff"}


def opened(state: SessionState | None = None, site: Site = SITE) -> SessionState:
    """A state that has been through the page."""
    state = state or new_state()
    assert not PROTOCOL.ready(site, state)
    page = response(b"<html></html>", 200, "text/html")
    driven = drive(PROTOCOL.prepare(site, state), page)
    assert [request.method for request in driven.requests] == ["GET"]
    assert PROTOCOL.ready(site, state)
    return state


def go(*responses: Response, site: Site = SITE, answer: str = "", asked: Any = None, state: Any = None) -> Driven:
    return drive(PROTOCOL.open(site, asked or turn(), state or opened()), *responses, answer=answer)


# The steps


def test_page():
    state = new_state()
    (request,) = drive(PROTOCOL.prepare(SITE, state), response(b"<html></html>", 200, "text/html")).requests
    assert (request.method, request.url, request.body) == ("GET", "http://chat.test:8190/ChatGpt/", b"")
    assert request.headers == {**SEED_HEADERS, "user-agent": USER_AGENT, "cookie": "_dd_s="}
    assert browser_headers("agent") == SEED_HEADERS
    later = SessionState(now=lambda: NOW + 1790, random_hex=state.random_hex)
    later.tokens = state.tokens
    assert PROTOCOL.ready(SITE, state)
    assert not PROTOCOL.ready(SITE, later)


def test_requirements_and_conversation():
    state = opened()
    driven = go(required(proofofwork=PUZZLE, turnstile={"required": False}, arkose={"required": False}), state=state)
    (asked,), call = driven.requests, driven.call
    assert call is not None
    device = state.visitor["oai-device-id"]
    common = {
        **{
            name: value
            for name, value in SEED_HEADERS.items()
            if name not in ("sec-fetch-user", "upgrade-insecure-requests")
        },
        "content-type": "application/json",
        "cookie": "_dd_s=",
        "oai-device-id": device,
        "oai-language": "en-US",
        "origin": "http://chat.test:8190",
        "priority": "u=1, i",
        "referer": "http://chat.test:8190/ChatGpt/",
        "sec-fetch-dest": "empty",
        "sec-fetch-mode": "cors",
        "sec-fetch-site": "same-origin",
        "user-agent": USER_AGENT,
    }
    assert (asked.method, asked.url) == (
        "POST",
        "http://chat.test:8190/ChatGpt/backend-anon/sentinel/chat-requirements",
    )
    assert asked.headers == common
    (proof,) = json.loads(asked.body).values()
    assert proof.startswith("gAAAAAC")
    config = json.loads(base64.b64decode(proof[7:]))
    assert config[14] == state.visitor["chatgpt-session"]
    request = call.request
    assert (request.method, request.url) == ("POST", "http://chat.test:8190/ChatGpt/backend-anon/conversation")
    proof = request.headers["openai-sentinel-proof-token"]
    assert request.headers == {
        **common,
        "accept": "text/event-stream",
        "openai-sentinel-chat-requirements-token": "rt",
        "openai-sentinel-proof-token": proof,
    }
    config[3] = config[9] = 0
    assert proof == get_answer_token("0.42", "0fff", config)


def test_body():
    body = json.loads(go(required(), asked=turn("привет", model="gpt-4o")).call.request.body)  # type: ignore[union-attr]
    ids = {body["messages"][0].pop("id"), body.pop("parent_message_id"), body.pop("websocket_request_id")}
    assert len(ids) == 3
    assert body == {
        "action": "next",
        "messages": [
            {
                "author": {"role": "user"},
                "content": {"content_type": "text", "parts": ["привет"]},
                "metadata": {"serialization_metadata": {"custom_symbol_offsets": []}},
                "create_time": NOW,
            }
        ],
        "model": "gpt-4o",
        "timezone_offset_min": 0,
        "history_and_training_disabled": False,
        "conversation_mode": {"kind": "primary_assistant"},
        "system_hints": [],
        "force_use_sse": True,
        "supports_buffering": True,
        "supported_encodings": ["v1"],
    }


def test_a_later_turn_sends_what_is_new():
    messages = [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": "three"},
    ]
    state = {"conversation_id": "c", "parent_message_id": "p"}
    call = go(required(), asked=turn(messages, conversation=Conversation(state))).call
    assert call is not None
    body = json.loads(call.request.body)
    assert (body["conversation_id"], body["parent_message_id"], body["model"]) == ("c", "p", "auto")
    assert [m["content"]["parts"] for m in body["messages"]] == [["three"]]
    first = go(required(), asked=turn(messages)).call
    assert first is not None
    assert [m["content"]["parts"] for m in json.loads(first.request.body)["messages"]] == [["one"], ["two"], ["three"]]
    with pytest.raises(ConfigError, match="chatgpt-web"):
        go(required(), asked=turn(messages, conversation=Conversation({"chat_id": "x"})))


def test_the_device_stays_and_the_proof_is_left_out_when_none_is_asked():
    state = opened()
    first, second = go(required(), state=state), go(required(proofofwork={"required": False}), state=state)
    for name in ("oai-device-id", "user-agent"):
        assert len({driven.requests[0].headers[name] for driven in (first, second)}) == 1
    for driven in (first, second):
        assert driven.call is not None
        assert not any(name.startswith("openai-sentinel-p") for name in driven.call.request.headers)


def test_signed_in():
    driven = go(required(), site=SIGNED_IN)
    assert driven.call is not None
    for request, path in ((driven.requests[0], "sentinel/chat-requirements"), (driven.call.request, "conversation")):
        assert request.url == f"http://chat.test:8190/ChatGpt/backend-api/{path}"
        assert request.headers["authorization"] == "Bearer key"


@pytest.mark.parametrize("kind", ["turnstile", "arkose"])
def test_a_captcha_is_asked_from_a_person(kind):
    driven = go(required(**{kind: {"required": True, "dx": "data"}}), answer=" person ")
    (challenge,) = driven.challenges
    assert (challenge.kind, challenge.data, challenge.url) == (kind, "data", "http://chat.test:8190/ChatGpt/")
    assert driven.call is not None
    assert driven.call.request.headers[f"openai-sentinel-{kind}-token"] == "person"
    for answer in ("", "a\r\nb: c", "é"):
        with pytest.raises(ChallengeRequired) as caught:
            go(required(**{kind: {"required": True}}), answer=answer)
        assert caught.value.kind == kind


def test_format_conversation():
    ids = iter("abc")
    messages = parse_messages([{"role": "developer", "content": "be brief"}, {"role": "user", "content": "hi"}])
    assert format_conversation(messages, lambda: next(ids), 5.0) == [
        {
            "id": id,
            "author": {"role": role},
            "content": {"content_type": "text", "parts": [text]},
            "metadata": {"serialization_metadata": {"custom_symbol_offsets": []}},
            "create_time": 5.0,
        }
        for id, role, text in (("a", "system", "be brief"), ("b", "user", "hi"))
    ]


def test_options():
    protocol = create("chatgpt-web", {"profile": {"language": "de-DE"}, "timezone_offset_min": -60})
    driven = drive(protocol.open(SITE, turn(), new_state()), required())
    assert driven.requests[0].headers["oai-language"] == "de-DE"
    with pytest.raises(ConfigError):
        create("chatgpt-web", {"profile": {"screen": "wide"}})
    with pytest.raises(UnsupportedFeature):
        admit(turn(temperature=1.5), PROTOCOL.features, who="ChatGpt")
    with pytest.raises(ConfigError):
        go(required(), site=Site(name="x", url="chatgpt.com", protocol=PROTOCOL))


UNUSUAL = {"detail": "Unusual activity has been detected from your device."}
CHALLENGE_PAGE = b"<html><title>Just a moment...</title></html>"


@pytest.mark.parametrize(
    ("answer", "kind", "code"),
    [
        (response(UNUSUAL), ChallengeRequired, None),
        (response(UNUSUAL, 403), ChallengeRequired, None),
        (response(CHALLENGE_PAGE, 403, "text/html"), ChallengeRequired, None),
        (response({"detail": "no"}, 403), AuthError, None),
        (response({"detail": {"message": "old", "code": "token_expired"}}, 401), AuthError, "token_expired"),
        (response({"detail": "slow"}, 429, **{"retry-after": "5"}), RateLimited, None),
        (response(b"", 503), ProviderUnavailable, None),
        (response({"detail": "what?"}), ProviderUnavailable, None),
        (response(b"<html>", 200, "text/html"), RemoteProtocolError, "html"),
        (response(b'{"token": "r'), TruncatedAnswer, None),
        (response(b""), ProviderUnavailable, "empty"),
        (response([]), RemoteProtocolError, None),
        (response({}), RemoteProtocolError, None),
        (response({"token": 5}), RemoteProtocolError, None),
        (response({"token": "a\r\nb"}), RemoteProtocolError, None),
        (required(proofofwork=[]), RemoteProtocolError, None),
        (required(proofofwork={"required": True}), RemoteProtocolError, None),
        (required(proofofwork={**PUZZLE, "difficulty": "0ff"}), RemoteProtocolError, None),
        (required(proofofwork={**PUZZLE, "difficulty": "0g"}), RemoteProtocolError, None),
        (required(proofofwork={**PUZZLE, "seed": "\ud800"}), RemoteProtocolError, None),
        (required(turnstile={"required": True, "dx": 5}), RemoteProtocolError, None),
    ],
)
def test_requirements_that_are_none(answer, kind, code):
    with pytest.raises(ProviderError) as caught:
        go(answer)
    assert (type(caught.value), caught.value.code) == (kind, code)
    assert caught.value.retry_after == (5 if kind is RateLimited else None)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (response(CHALLENGE_PAGE, 403, "text/html"), ChallengeRequired),
        (response(UNUSUAL, 403), ChallengeRequired),
        (response(b"", 500), ProviderUnavailable),
    ],
)
def test_a_page_that_is_none(answer, kind):
    state = new_state()
    with pytest.raises(kind):
        drive(PROTOCOL.prepare(SITE, state), answer)
    assert not PROTOCOL.ready(SITE, state)


@given(st.binary(max_size=60) | st.sampled_from([b"[" * 5000, b'{"token":"a","proofofwork":' * 900, b"9" * 5000]))
def test_requirements_of_any_bytes(body):
    for status in (200, 403):
        with pytest.raises(ProviderError):
            go(Response(Head(status), body))
