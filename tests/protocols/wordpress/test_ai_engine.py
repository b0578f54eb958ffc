"""AI Engine: every recorded answer, and its handshakes against the documented requests."""

import json
from typing import Any

import pytest

from tests.protocols.driving import Outcome, Plugin, ask, by_bytes, drive, new_state, read, response, turn
from tests.protocols.wordpress.raw import raw
from tolmach.chat import Conversation, Delta, Done, Notice, Reasoning, Usage
from tolmach.errors import (
    AssistantGone,
    AuthError,
    BadRequest,
    ChallengeRequired,
    ContextTooLong,
    ProtocolDrift,
    ProviderUnavailable,
    RateLimited,
    Refused,
    StaleSession,
    TruncatedAnswer,
)
from tolmach.protocols.base import Site
from tolmach.protocols.wordpress.ai_engine import AIEngine
from tolmach.wire import Head, Request, Response

PLUGIN = Plugin(AIEngine(), "aiengine-*", "aiengine-")
RECORDINGS, READERS, ANSWERS = PLUGIN.exchanges, PLUGIN.readers, PLUGIN.answers
outcome = PLUGIN.outcome

REJECTED = (BadRequest, "Sorry, your query has been rejected.", None)
BANNED = (Refused, "Your query has been rejected.", None)
STALE = (StaleSession, "Cookie check failed", "rest_cookie_invalid_nonce")
FORBIDDEN = (StaleSession, "Sorry, you are not allowed", "rest_forbidden")
TOO_LONG = (ContextTooLong, "Sorry, your query has been rejected.", None)
LIMIT = (RateLimited, "You have reached the limit", "guest_limit")
FATAL = (ProviderUnavailable, "There has been a critical error on this website.", "internal_server_error")
EMPTY = (ProviderUnavailable, "empty answer", "empty")
DEAD = (ProviderUnavailable, "Recv failure: Connection reset by peer", "upstream")

# By recording and number of the exchange, for 2.4.5 and 3.6.2 alike. All others end with `Done`.
ERRORS: dict[str, tuple[type[Exception], str, str | None]] = {
    "chat-client-abort[0]": (TruncatedAnswer, "broke off", None),
    "error-bad-request[0]": (BadRequest, "Invalid JSON body passed.", "rest_invalid_json"),
    "error-bad-request[1]": REJECTED,
    **{f"error-banned-{what}[{i}]": BANNED for what in ("ip", "word") for i in (0, 1)},
    **{f"error-empty-message[{i}]": REJECTED for i in (0, 1, 2)},
    **{f"error-guest-limit[{i}]": LIMIT for i in (0, 1)},
    **{f"error-no-bot[{i}]": REJECTED for i in (0, 1)},
    **{f"error-nonce-{what}[{i}]": STALE for what in ("expired", "wrong") for i in (0, 1)},
    **{f"error-nonce-missing[{i}]": FORBIDDEN for i in (0, 1)},
    "error-nonce-in-query[0]": FORBIDDEN,
    "error-plugin-deactivated[1]": STALE,
    "error-rest-blocked[1]": (AuthError, "You are not currently logged in.", "rest_not_logged_in"),
    "error-too-long[0]": TOO_LONG,
    "error-too-long[1]": TOO_LONG,
    "error-wrong-types[0]": FATAL,
    "error-wrong-types[1]": FATAL,
    "recover-expired-nonce[0]": STALE,
    **{f"upstream-401[{i}]": (ProviderUnavailable, "Incorrect API key provided", "upstream_auth") for i in (0, 1)},
    **{f"upstream-429[{i}]": (ProviderUnavailable, "Rate limit reached", "upstream_rate_limited") for i in (0, 1)},
    **{f"upstream-500[{i}]": (ProviderUnavailable, "The server had an error", "upstream") for i in (0, 1)},
    **{f"upstream-die[{i}]": DEAD for i in (0, 1)},
    **{f"upstream-empty[{i}]": EMPTY for i in (0, 1)},
    "upstream-html[0]": EMPTY,
    "upstream-html[1]": (ProviderUnavailable, "No content received", "empty"),
    # Where the versions differ.
    "2.4.3/error-nonce-wrong-missing[0]": STALE,
    "2.4.3/error-nonce-wrong-missing[1]": FORBIDDEN,
    "2.4.3/errors-various[0]": REJECTED,
    "2.4.3/errors-various[1]": REJECTED,
    "2.4.3/errors-various[2]": (ProviderUnavailable, "From OpenAI: Error: Incorrect API key", "upstream_auth"),
    "2.4.3/errors-various[3]": (ProviderUnavailable, "From OpenAI: Incorrect API key", "upstream_auth"),
    "2.4.5/error-too-long[2]": TOO_LONG,  # the old version counts bytes
    "2.4.5/unknown-bot[0]": REJECTED,
    "2.4.5/unknown-bot[1]": REJECTED,
    "2.4.5/unknown-custom-id[0]": REJECTED,
}

SITE = Site(name="Chatgpt4Online", url="http://chat.test", protocol=AIEngine())


@pytest.mark.parametrize("name", ANSWERS)
def test_every_recorded_answer_comes_to_what_the_site_meant(name):
    whole = outcome(name)
    assert outcome(name, cut=by_bytes).said == whole.said
    expected = ERRORS.get(name) or ERRORS.get(name.partition("/")[2])
    if expected is None:
        assert whole.error is None
        assert whole.events[-1] == Done("stop")
        assert whole.text.startswith("pong: ")
        assert not any(isinstance(event, Notice) and event.kind == "rewritten" for event in whole.events)
        return
    kind, text, code = expected
    assert type(whole.error) is kind
    assert text in whole.failure.text
    assert (whole.failure.code, whole.failure.status) == (code, RECORDINGS[name].head.status)


def test_the_table_of_errors_names_only_what_there_is():
    known = set(ANSWERS) | {name.partition("/")[2] for name in ANSWERS}
    assert set(ERRORS) <= known
    assert len(ANSWERS) == 157


def test_what_is_not_a_question_is_not_read():
    for name in ("3.6.2/start-session[0]", "3.6.2/page-chat[0]", "3.6.2/upload-image[0]", "3.6.2/discussions-list[0]"):
        assert READERS[name] is None
    assert READERS["3.6.2/plain-permalinks[2]"] is not None


def test_status_events_are_notices_and_the_usage_is_told_as_guessed():
    events = outcome("3.6.2/event-logs-on[1]").events
    assert events[0] == Notice("status", "Starting stream...")
    assert Usage(1, 18, 19, True) in events
    assert Usage(11, 22, 33, False) in outcome("3.6.2/chat-stream-responses-api[0]").events
    assert Usage(11, 22, 33, False) in outcome("2.4.5/chat-minimal-body[1]").events
    assert (
        Conversation({"chatId": "2mg79kelsar", "previousResponseId": "resp_mock1795219921855"})
        in outcome("3.6.2/chat-stream-responses-api[0]").events
    )


# Answers that were not recorded


def events(*values: Any, kind: str = "text/event-stream", status: int = 200) -> Outcome:
    body = "".join(f"data: {json.dumps(value)}\n\n" for value in values).encode()
    return answer(body, kind, status)


def answer(body: bytes, kind: str = "application/json", status: int = 200, message: str = "hi") -> Outcome:
    asked = json.dumps({"botId": "b", "newMessage": message, "stream": True}).encode()
    reader = AIEngine().reader(Request("POST", "/wp-json/mwai-ui/v1/chats/submit", {}, asked))
    assert reader is not None
    return read(reader(Head(status, {"content-type": kind})), [body])


def live(text: str, **more: str) -> dict[str, str]:
    return {"type": "live", "data": text, **more}


def end(**value: Any) -> dict[str, str]:
    return {"type": "end", "data": json.dumps({"success": True, **value})}


def test_the_ends_reply_counts_more_than_the_pieces():
    longer = events(live("one"), end(reply="one two"))
    assert longer.events == [Delta("one"), Delta(" two"), Done()]
    other = events(live("one"), end(reply="two"))
    assert other.events == [Delta("one"), Notice("rewritten", "two"), Done()]
    trimmed = events(live("one "), end(reply="one"))
    assert trimmed.events == [Delta("one "), Done()]
    alone = events(end(reply="two"))
    assert alone.events == [Delta("two"), Done()]


def test_subtypes_are_never_text():
    came = events(
        live("hmm", subtype="thinking"), live("tool", subtype="tool_call"), live("a", subtype="content"), end(reply="a")
    )
    assert came.events == [Reasoning("hmm"), Notice("tool_call", "tool"), Delta("a"), Done()]


def test_pictures_without_a_text_are_the_answer():
    came = events(end(reply="", images=["https://chat.test/a.png"]))
    assert came.text == "![](https://chat.test/a.png)"


def test_errors_that_only_their_place_tells_apart():
    early = events({"type": "error", "data": "Nein."}, kind="application/json")
    assert type(early.error) is BadRequest
    late = events({"type": "error", "data": "Nein."})
    assert (type(late.error), late.failure.code) == (RateLimited, "guest_limit")
    after_text = events(live("a"), {"type": "error", "data": "Nein."})
    assert (type(after_text.error), after_text.failure.code) == (ProviderUnavailable, "upstream")
    moderated = events({"type": "error", "data": "Your query was rejected by moderation."})
    assert (type(moderated.error), moderated.failure.code) == (Refused, "moderation")


def asked_with(stream: bool, head: Head, body: bytes, message: str = "hi") -> Outcome:
    asked = json.dumps({"botId": "b", "newMessage": message, "stream": stream}).encode()
    reader = AIEngine().reader(Request("POST", "/wp-json/mwai-ui/v1/chats/submit", {}, asked))
    assert reader is not None
    return read(reader(head), [body])


@pytest.mark.parametrize("how", ["stream", "whole"])
@pytest.mark.parametrize("words", ["default", "ru"])
@pytest.mark.parametrize("version", ["ae243", "ae362"])
def test_a_guests_limit_in_the_owners_words_is_a_limit(version, words, how):
    head, body = raw(f"guest_limit_{version}_{words}_{how}")
    for message in ("hi", "x" * 600):
        came = asked_with(how == "stream", head, body, message)
        assert (type(came.error), came.failure.code, came.failure.status) == (RateLimited, "guest_limit", head.status)
        assert came.failure.text.startswith({"default": "Our chatbot went to sleep.", "ru": "Вы исчерпали"}[words])


def test_a_stream_without_the_ais_own_count_is_told_as_unconfirmed():
    broke_off = asked_with(True, *raw("ai_broke_off_ae362"))
    [notice] = [event for event in broke_off.events if isinstance(event, Notice)]
    assert (notice.kind, broke_off.events[-1]) == ("unconfirmed", Done("stop"))
    assert "may have broken off" in notice.text
    completions = outcome("3.6.2/event-logs-on[1]")  # estimated although it is whole
    for whole in (asked_with(True, *raw("whole_ae362")), completions):
        assert not [event for event in whole.events if isinstance(event, Notice) and event.kind == "unconfirmed"]
        assert whole.events[-1] == Done("stop")
    alone = answer(json.dumps({"success": True, "reply": "a", "usage": {"accuracy": "estimated"}}).encode())
    assert alone.events == [Delta("a"), Done("stop")]


@pytest.mark.parametrize(
    ("text", "error", "code"),
    [
        ("Your query has been rejected.", Refused, None),
        ("Unauthorized query.", Refused, None),
        ("No API Key provided. Please visit the Settings.", ProviderUnavailable, "upstream_auth"),
    ],
)
def test_the_plugins_own_words_are_no_limit(text, error, code):
    streamed = events({"type": "error", "data": text})
    whole = answer(json.dumps({"success": False, "message": text}).encode(), status=500)
    for came in (streamed, whole):
        assert (type(came.error), came.failure.code) == (error, code)


@pytest.mark.parametrize(
    ("body", "kind", "status", "error", "text"),
    [
        (b'{"code":"rest_no_route","message":"No route"}', "application/json", 404, AssistantGone, "No route"),
        (b"<html><title>Just a moment...</title>", "text/html", 403, ChallengeRequired, "challenge"),
        (b"slow down", "text/plain", 429, RateLimited, "slow down"),
        (b"<html>bad gateway", "text/html", 502, ProviderUnavailable, "bad gateway"),
        (b"", "text/event-stream", 200, TruncatedAnswer, "broke off"),
        (b'data: {"type":"live","data":"a"}\n', "text/event-stream", 200, TruncatedAnswer, "broke off"),
    ],
)
def test_failures_around_the_plugin(body, kind, status, error, text):
    came = answer(body, kind, status)
    assert type(came.error) is error
    assert text in came.failure.text
    assert came.failure.status == status


# Handshakes


def page(name: str, **replaced: str) -> Response:
    return PLUGIN.page(name, 200, **replaced)


def recorded(name: str) -> Response:
    exchange = RECORDINGS[name]
    return Response(exchange.head, exchange.body())


STARTED = recorded("3.6.2/start-session[0]")
NO_ROUTE = recorded("2.4.3/start-session[0]")
NOW = 1_795_219_915.0  # when most of it was recorded


def body_of(call: Any) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(call.request.body)
    return value


def test_the_bootstrap_is_enough_for_a_question():
    state, protocol = new_state(NOW), AIEngine()
    assert not protocol.ready(SITE, state)
    [request] = drive(protocol.prepare(SITE, state), STARTED).requests
    assert (request.method, request.url, request.body) == (
        "POST",
        "http://chat.test/wp-json/mwai/v1/start_session",
        b"",
    )
    assert not {"x-wp-nonce", "origin"} & set(request.headers)
    assert protocol.ready(SITE, state)
    call = ask(protocol, SITE, turn("hello"), state=state)
    assert call.request.url == "http://chat.test/wp-json/mwai-ui/v1/chats/submit"
    assert call.request.headers["x-wp-nonce"] == "293ca38f81"
    assert call.request.headers["content-type"] == "application/json"
    assert "origin" not in call.request.headers
    sent = body_of(call)
    assert len(sent.pop("chatId")) == 11
    assert sent == {
        "botId": "default",
        "customId": None,
        "session": "6b00e1cbf3d3f",
        "contextId": None,
        "messages": [],
        "newMessage": "hello",
        "newFileId": None,
        "stream": True,
    }


def test_the_nonce_ends_when_wordpress_ends_it():
    state = new_state(NOW)
    drive(AIEngine().prepare(SITE, state), STARTED)
    ends = state.tokens["nonce"].expires
    assert ends is not None
    assert 23.5 * 3600 < ends - NOW < 24 * 3600


HISTORY = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "one"},
    {"role": "assistant", "content": "two"},
    {"role": "user", "content": "three"},
]


@pytest.mark.parametrize(
    ("history", "messages", "message"),
    [
        (
            "native",
            [{"role": "user", "content": "Be kind.\n\none"}, {"role": "assistant", "content": "two"}],
            "three",
        ),
        ("prompt", [], "System: Be kind.\nUser: one\nAssistant: two\nUser: three\nAssistant:"),
    ],
)
def test_history(history, messages, message):
    state, protocol = new_state(NOW), AIEngine(history=history, bot_id="b1", context_id=4)
    drive(protocol.prepare(SITE, state), STARTED)
    known = Conversation({"chatId": "abc", "previousResponseId": "resp_1"})
    sent = body_of(ask(protocol, SITE, turn(HISTORY, conversation=known, stream=False), state=state))
    assert (sent["messages"], sent["newMessage"]) == (messages, message)
    assert (sent["chatId"], sent["previousResponseId"], sent["stream"]) == ("abc", "resp_1", False)
    assert (sent["botId"], sent["contextId"]) == ("b1", 4)


def test_an_empty_message_is_not_sent():
    state = new_state(NOW)
    drive(AIEngine().prepare(SITE, state), STARTED)
    with pytest.raises(BadRequest, match="empty"):
        ask(AIEngine(), SITE, turn(" \n"), state=state)


def test_a_page_gives_bot_context_and_on_old_versions_the_nonce():
    state, protocol = new_state(NOW), AIEngine(page="/chat/")
    [request] = drive(protocol.prepare(SITE, state), page("2.4.3/page-chat[0]")).requests
    assert (request.method, request.url) == ("GET", "http://chat.test/chat/")
    call = ask(protocol, SITE, turn("hello"), state=state)
    assert call.request.headers["x-wp-nonce"] == "80623b9566"
    sent = body_of(call)
    assert (sent["botId"], sent["contextId"], sent["session"]) == ("chatbot-main1", 4, "N/A")


def test_a_page_without_a_nonce_is_followed_by_the_bootstrap_where_it_says():
    state, protocol = new_state(NOW), AIEngine(page="/?page_id=4")
    requests = drive(protocol.prepare(SITE, state), page("3.6.2/plain-permalinks[0]"), STARTED).requests
    assert [request.url for request in requests] == [
        "http://chat.test/?page_id=4",
        "http://chat.test/index.php?rest_route=/mwai/v1/start_session",
    ]
    call = ask(protocol, SITE, turn("hello"), state=state)
    assert call.request.url == "http://chat.test/index.php?rest_route=/mwai-ui/v1/chats/submit"


@pytest.mark.parametrize(
    ("name", "options", "bot", "custom"),
    [
        ("3.6.2/page-chat-custom2[0]", {}, None, "my-own-id"),
        ("3.6.2/page-chat-custom[0]", {}, "chatbot-main1", "c7df4b7af2417f59c2da6c606ca3ca64"),
        ("3.6.2/page-chat[0]", {"bot_id": "elsewhere"}, "elsewhere", None),
    ],
)
def test_which_bot_of_a_page(name, options, bot, custom):
    state, protocol = new_state(NOW), AIEngine(page="/chat/", **options)
    drive(protocol.prepare(SITE, state), page(name), STARTED)
    sent = body_of(ask(protocol, SITE, turn("hello"), state=state))
    assert (sent["botId"], sent["customId"]) == (bot, custom)


def test_without_a_bootstrap_the_page_is_read():
    state, protocol = new_state(NOW), AIEngine()
    requests = drive(protocol.prepare(SITE, state), NO_ROUTE, page("2.4.3/page-chat[0]")).requests
    assert [request.method for request in requests] == ["POST", "GET"]
    assert protocol.ready(SITE, state)


def test_a_site_on_plain_permalinks_is_found_through_its_page():
    state, protocol = new_state(NOW), AIEngine()
    replies = (NO_ROUTE, page("2.4.5/plain-permalinks[0]"), STARTED)
    requests = drive(protocol.prepare(SITE, state), *replies).requests
    assert requests[-1].url == "http://chat.test/index.php?rest_route=/mwai/v1/start_session"
    assert protocol.ready(SITE, state)


@pytest.mark.parametrize(
    ("replies", "error"),
    [
        ((NO_ROUTE, page("3.6.2/error-plugin-deactivated[2]")), AssistantGone),
        ((NO_ROUTE, response(b"<html>a shop", kind="text/html")), AssistantGone),
        ((NO_ROUTE, page("3.6.2/page-chat[0]")), ProtocolDrift),
        ((response({"code": "rest_not_logged_in", "message": "no"}, 401),), AuthError),
        ((response({"code": "rest_forbidden", "message": "no"}, 403),), AuthError),
        ((response(b"<html><title>Just a moment...</title>", 403, kind="text/html"),), ChallengeRequired),
        ((response({"success": True}),), ProtocolDrift),
        ((response(b"<html>down", 503, kind="text/html"),), ProviderUnavailable),
    ],
)
def test_failed_handshakes(replies, error):
    with pytest.raises(error) as caught:
        drive(AIEngine().prepare(SITE, new_state(NOW)), *replies)
    assert type(caught.value) is error


def refuse(protocol: AIEngine, state: Any) -> None:
    """Have the site refuse the nonce, and drop it as a session does."""
    call = ask(protocol, SITE, turn("hello"), state=state)
    refusal = RECORDINGS["3.6.2/error-nonce-expired[0]"]
    assert type(read(call.decoder(refusal.head), [refusal.body()]).error) is StaleSession
    state.tokens.clear()


def test_a_refused_nonce_of_a_page_is_not_taken_again():
    state, protocol = new_state(NOW), AIEngine(page="/chat/")
    drive(protocol.prepare(SITE, state), page("2.4.3/page-chat[0]"))
    refuse(protocol, state)
    cached = page("2.4.3/page-chat[0]")
    with pytest.raises(StaleSession, match="cache") as caught:
        drive(protocol.prepare(SITE, state), cached, NO_ROUTE, cached)
    assert caught.value.code == "cached_nonce"
    fresh = Response(cached.head, cached.body.replace(b"80623b9566", b"1111111111"))
    [request] = drive(protocol.prepare(SITE, state), fresh).requests
    assert "nocache=" in request.url
    assert request.headers["cache-control"] == "no-cache"
    assert state.token("nonce") == "1111111111"


@pytest.mark.parametrize(
    ("name", "without"),
    [
        ("2.4.5/nonce-12-24h-old[0]", ""),
        ("3.6.2/nonce-12-24h-old[0]", "x-wp-nonce"),
        ("3.6.2/nonce-12-24h-old[1]", "x-wp-nonce"),
    ],
)
def test_a_fresh_nonce_that_comes_with_an_answer_is_adopted(name, without):
    recorded, state, protocol = RECORDINGS[name], new_state(NOW), AIEngine()
    used, fresh = recorded.request.headers["x-wp-nonce"], recorded.head.header("x-wp-nonce")
    assert (b"new_token" in recorded.body()) is bool(without)
    drive(protocol.prepare(SITE, state), Response(STARTED.head, STARTED.body.replace(b"293ca38f81", used.encode())))
    call = ask(protocol, SITE, turn("x"), state=state)
    assert call.request.headers["x-wp-nonce"] == used
    headers = {header: value for header, value in recorded.head.headers.items() if header != without}
    assert read(call.decoder(Head(200, headers)), [recorded.body()]).error is None
    assert state.token("nonce") == fresh != used


def test_the_sites_request_for_consent_is_passed_on_with_the_first_answer():
    state, protocol = new_state(NOW), AIEngine(page="/chat/")
    drive(protocol.prepare(SITE, state), page("3.6.2/gdpr-on[0]"), STARTED)
    recorded = RECORDINGS["3.6.2/gdpr-on[1]"]
    first = read(ask(protocol, SITE, turn("x"), state=state).decoder(recorded.head), [recorded.body()])
    [notice] = [event for event in first.events if isinstance(event, Notice)]
    assert notice.kind == "consent"
    assert notice.text.startswith("By using this chatbot, you agree")
    again = turn("x", conversation=Conversation({"chatId": "abc"}))
    second = read(ask(protocol, SITE, again, state=state).decoder(recorded.head), [recorded.body()])
    assert not [event for event in second.events if isinstance(event, Notice)]


def test_the_pages_limit_decides_what_is_too_long():
    long_page = page("3.6.2/page-chat[0]")
    body = long_page.body.replace(b"textInputMaxLength&quot;:512", b"textInputMaxLength&quot;:2000")
    assert body != long_page.body
    state, protocol = new_state(NOW), AIEngine(page="/chat/")
    drive(protocol.prepare(SITE, state), Response(long_page.head, body), STARTED)
    recorded = RECORDINGS["3.6.2/error-too-long[0]"]
    call = ask(protocol, SITE, turn("x" * 1000), state=state)
    assert read(call.decoder(recorded.head), [recorded.body()]).failure.code == "unknown_bot"
    with pytest.raises(ContextTooLong, match="3000 characters, and the site takes 2000"):
        ask(protocol, SITE, turn("x" * 3000), state=state)


@pytest.mark.parametrize(
    ("name", "fits", "too_long", "said"),
    [
        ("2.4.5/page-chat[0]", "é" * 256, "é" * 257, "514 bytes"),
        ("3.6.2/page-chat[0]", "é" * 512, "é" * 513, "513 characters"),
    ],
)
def test_a_message_over_the_limit_is_not_sent_and_counted_as_the_version_counts(name, fits, too_long, said):
    state, protocol = new_state(NOW), AIEngine(page="/chat/")
    drive(protocol.prepare(SITE, state), page(name), STARTED)
    assert ask(protocol, SITE, turn(f" {fits}\n"), state=state).request.method == "POST"
    with pytest.raises(ContextTooLong, match=f"the message has {said}, and the site takes 512 at most"):
        ask(protocol, SITE, turn(too_long), state=state)


def test_without_a_page_no_length_is_refused_beforehand():
    state, protocol = new_state(NOW), AIEngine()
    drive(protocol.prepare(SITE, state), STARTED)
    assert ask(protocol, SITE, turn("x" * 5000), state=state).request.method == "POST"


# A bot that was renamed, or a custom one whose page was not shown for 24 hours (to 2.9.9)


@pytest.mark.parametrize("name", ["ae243_stream", "ae243_whole", "ae299_stream"])
def test_an_unknown_bot_has_the_page_looked_at_once_and_is_gone_then(name):
    head, body = raw(f"no_such_bot_{name}")
    state, protocol = new_state(NOW), AIEngine(page="/chat/")
    asked = turn("é" * 200, stream=name.endswith("stream"))
    drive(protocol.prepare(SITE, state), page("2.4.5/page-chat[0]"), STARTED)
    first = read(ask(protocol, SITE, asked, state=state).decoder(head), [body])
    assert (type(first.error), first.failure.code, first.failure.status) == (StaleSession, "unknown_bot", head.status)
    state.tokens.clear()  # as a session does
    looked = drive(protocol.prepare(SITE, state), page("2.4.5/page-chat[0]"), STARTED).requests
    assert "nocache=" in looked[0].url
    for _ in range(2):  # and the page is not looked at for each question
        second = read(ask(protocol, SITE, asked, state=state).decoder(head), [body])
        assert (type(second.error), second.failure.status) == (AssistantGone, head.status)
        assert "does not know this chatbot" in second.failure.text
    started = state.now()
    state.now = lambda: started + 901
    assert type(read(ask(protocol, SITE, asked, state=state).decoder(head), [body]).error) is StaleSession


def test_a_renamed_bot_is_asked_by_the_name_that_the_page_has_now():
    head, body = raw("no_such_bot_ae243_whole")
    state, protocol = new_state(NOW), AIEngine(page="/chat/")
    known = page("2.4.5/page-chat[0]")
    drive(protocol.prepare(SITE, state), known, STARTED)
    call = ask(protocol, SITE, turn("hi", stream=False), state=state)
    old = json.loads(call.request.body)["botId"]
    read(call.decoder(head), [body])
    state.tokens.clear()
    marked = f"botId&quot;:&quot;{old}".encode()
    assert marked in known.body
    renamed = Response(known.head, known.body.replace(marked, b"botId&quot;:&quot;support"))
    drive(protocol.prepare(SITE, state), renamed, STARTED)
    assert json.loads(ask(protocol, SITE, turn("hi"), state=state).request.body)["botId"] == "support"


@pytest.mark.parametrize(
    ("protocol", "error"),
    [
        (AIEngine(bot_id="chatbot-old"), AssistantGone),
        (AIEngine(custom_id="abc"), AssistantGone),
        (AIEngine(), BadRequest),  # every installation has that bot: the site's limit may be lower than usual
    ],
)
def test_without_a_page_a_chosen_bot_that_is_rejected_is_gone(protocol, error):
    head, body = raw("no_such_bot_ae243_whole")
    state = new_state(NOW)
    drive(protocol.prepare(SITE, state), STARTED)
    assert type(read(ask(protocol, SITE, turn("hi"), state=state).decoder(head), [body]).error) is error
    too_long = read(ask(protocol, SITE, turn("x" * 600), state=state).decoder(head), [body])
    assert type(too_long.error) is ContextTooLong
