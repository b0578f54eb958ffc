"""AIPKit: every recorded answer, and its handshakes against the documented requests."""

import json
import re
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

import pytest

from tests.protocols.driving import Outcome, Plugin, ask, by_bytes, drive, new_state, read, response, turn
from tests.protocols.wordpress.raw import raw
from tolmach.chat import Conversation, Delta, Done, Notice
from tolmach.errors import (
    AssistantGone,
    AuthError,
    BadRequest,
    ChallengeRequired,
    ProtocolDrift,
    ProviderUnavailable,
    RateLimited,
    Refused,
    RemoteProtocolError,
    StaleSession,
    TruncatedAnswer,
    UnsupportedFeature,
)
from tolmach.protocols.base import Site
from tolmach.protocols.wordpress.aipkit import AIPKit
from tolmach.wire import Call, Head, Request, Response

PLUGIN = Plugin(AIPKit(), "aipkit-*", "aipkit-")
RECORDINGS, READERS, ANSWERS = PLUGIN.exchanges, PLUGIN.readers, PLUGIN.answers
outcome = PLUGIN.outcome

STALE = (StaleSession, "Your session has expired", "nonce_failure_cache_sse")
INSECURE = (StaleSession, "Security check failed", "nonce")
NO_KEY = (StaleSession, "Message not found in cache.", "cache_key")
KEYLESS = (BadRequest, "Message cache key is missing.", None)
OFF = (AssistantGone, "does not know this action", "0")
QUOTA = (RateLimited, "You have reached your quota", "guest_limit")
BANNED_WORD = (Refused, "contains prohibited words.", None)
NO_BOT = (AssistantGone, "Invalid chatbot specified.", None)
FATAL = (ProviderUnavailable, "There has been a critical error", None)
SLOW = (ProviderUnavailable, "Operation timed out after 120001 milliseconds", "upstream")

# By recording and number of the exchange, for both versions alike. All others end with `Done`, or
# prepare the question.
ERRORS: dict[str, tuple[type[Exception], str, str | None]] = {
    "cache-key-expired[1]": (StaleSession, "Cached message has expired.", "cache_key"),
    "cache-key-reuse[2]": NO_KEY,
    "chat-client-abort[1]": (TruncatedAnswer, "broke off", None),
    "error-banned-ip[1]": (Refused, "Access from your IP address has been blocked.", None),
    "error-banned-word[1]": BANNED_WORD,
    "error-cache-key[0]": NO_KEY,
    "error-cache-key[1]": KEYLESS,
    "error-empty-message[0]": (BadRequest, "cannot be empty", "empty_data_to_cache"),
    "error-guest-limit[3]": QUOTA,
    "error-guest-limit[5]": QUOTA,
    "error-guest-zero[1]": (AuthError, "Access disabled for guests.", None),
    "error-missing-params[1]": (BadRequest, "Conversation ID is missing.", None),
    "error-missing-params[3]": (BadRequest, "Session ID is missing for guest.", None),
    "error-missing-params[5]": NO_BOT,
    "error-missing-params[7]": NO_BOT,
    "error-nonce-cache[0]": STALE,
    "error-nonce-cache[1]": STALE,
    "error-nonce-expired-then-refresh[0]": STALE,
    "error-nonce-stream[1]": INSECURE,
    "error-nonce-stream[2]": INSECURE,
    "error-plugin-deactivated[0]": OFF,
    "error-plugin-deactivated[1]": OFF,
    "stream-by-post[1]": KEYLESS,
    "upstream-401[1]": (ProviderUnavailable, "API Error: Incorrect API key provided", "upstream_auth"),
    "upstream-429[1]": (ProviderUnavailable, "API Error: Rate limit reached", "upstream_rate_limited"),
    "upstream-500[1]": (ProviderUnavailable, "API Error: The server had an error", "upstream"),
    "upstream-die[1]": (ProviderUnavailable, "Connection Error: ", "upstream"),
    "upstream-html[1]": (ProviderUnavailable, "API Error: 502 Bad Gateway", "upstream"),
    "upstream-stall[1]": SLOW,
    # Where the versions differ.
    "2.3/error-json-various[2]": (BadRequest, "Message or image cannot be empty.", None),
    "2.3/error-json-various[3]": (BadRequest, "Conversation ID is required.", None),
    "2.3/error-json-various[4]": (BadRequest, "Session ID is missing for guest.", None),
    "2.3/error-json-various[5]": FATAL,
    "2.3/error-json-various[6]": FATAL,
    "2.3/error-json-various[7]": BANNED_WORD,
    "2.3/upstream-empty[1]": (ProviderUnavailable, "no data received from AI", "empty"),
    "2.3/upstream-errstream[1]": (ProviderUnavailable, "An unknown API error occurred.", "upstream"),
    **{f"2.3/upstream-json-{what}[0]": FATAL for what in ("401", "429", "500", "die", "html")},
    "2.3/upstream-json-empty[0]": (ProviderUnavailable, "empty answer", "empty"),
    "2.4.71/chat-json-on-streaming-bot[0]": OFF,
    "2.4.71/chat-json-two-turns[0]": OFF,
    "2.4.71/chat-json-two-turns[1]": OFF,
    "2.4.71/cross-origin[0]": (AuthError, "Embed feature is not available", "embed_not_available"),
    "2.4.71/cross-origin[1]": (AuthError, "This domain is not permitted", None),
    "2.4.71/upload-image-bad[0]": (BadRequest, "Invalid image data provided.", "invalid_image_payload"),
    "2.4.71/upload-image-bad[1]": (BadRequest, "Invalid image upload payload.", "invalid_image_payload"),
    "2.4.71/upstream-empty[1]": (ProviderUnavailable, "empty answer", "empty"),
    "2.4.71/upstream-errstream[1]": (ProviderUnavailable, "mock mid-stream failure", "upstream"),
}

SITE = Site(name="kit", url="http://chat.test", protocol=AIPKit())


def prepares(name: str) -> bool:
    return b"aipkit_cache_sse_message" in RECORDINGS[name].request.body


@pytest.mark.parametrize("name", ANSWERS)
def test_every_recorded_answer_comes_to_what_the_site_meant(name):
    whole = outcome(name)
    assert outcome(name, cut=by_bytes).said == whole.said
    expected = ERRORS.get(name) or ERRORS.get(name.partition("/")[2])
    if expected is not None:
        kind, text, code = expected
        assert type(whole.error) is kind
        assert text in whole.failure.text
        assert (whole.failure.code, whole.failure.status) == (code, RECORDINGS[name].head.status)
        return
    assert whole.error is None
    if prepares(name):
        assert whole.events == []
    else:
        assert whole.events[-1] == Done("stop")
        assert whole.text.startswith("pong: ")


def test_the_table_of_errors_names_only_what_there_is():
    assert set(ERRORS) <= set(ANSWERS) | {name.partition("/")[2] for name in ANSWERS}
    assert len(ANSWERS) == 262
    assert sum(prepares(name) for name in ANSWERS) == 124
    assert all(READERS[name] is None for name in ("2.3/page-plain[0]", "2.4.71/get-nonce[0]", "2.3/upload-file[0]"))


def test_the_conversation_that_an_answer_belongs_to():
    [conversation] = [e for e in outcome("2.4.71/chat-openai-state[1]").events if isinstance(e, Conversation)]
    assert set(conversation.state) == {"conversation_uuid", "previous_openai_response_id"}
    assert conversation.state["previous_openai_response_id"].startswith("resp_mock")


# Answers that were not recorded


def answer(body: str, kind: str = "text/event-stream", status: int = 200, action: str = "stream") -> Outcome:
    url = f"/wp-admin/admin-ajax.php?action=aipkit_frontend_chat_{action}&conversation_uuid=u"
    reader = AIPKit().reader(Request("GET", url))
    assert reader is not None
    return read(reader(Head(status, {"content-type": kind})), [body.encode()])


def event(name: str, **data: Any) -> str:
    return (f"event: {name}\n" if name else "") + f"data: {json.dumps(data)}\n\n"


DONE = event("done", finished=True)


def test_done_after_an_error_makes_it_a_refusal_and_the_end_of_the_body_a_fault_of_the_ai():
    error = event("error", error="Nein.")
    assert type(answer(error + DONE).error) is Refused
    failed = answer(event("message_start", message_id="m") + error)
    assert (type(failed.error), failed.failure.code) == (ProviderUnavailable, "upstream")
    told = answer(event("error", error="API Error: quota") + DONE)
    assert (type(told.error), told.failure.code) == (ProviderUnavailable, "upstream_rate_limited")
    after_text = answer(event("", delta="a") + error + DONE)
    assert (after_text.text, type(after_text.error)) == ("a", ProviderUnavailable)


def test_a_quota_notice_is_a_limit_in_any_language():
    came = answer(event("error", error="Genug.", quota_notice={"type": "quota_notice"}) + DONE)
    assert (type(came.error), came.failure.text) == (RateLimited, "Genug.")


def raw_answer(name: str) -> Outcome:
    head, body = raw(name)
    reader = AIPKit().reader(Request("GET", "/wp-admin/admin-ajax.php?action=aipkit_frontend_chat_stream"))
    assert reader is not None
    return read(reader(head), [body])


@pytest.mark.parametrize("version", ["kit2343", "kit2471"])
def test_a_guests_quota_in_the_owners_words_is_a_limit(version):
    came = raw_answer(f"guest_limit_{version}_ru")
    assert (type(came.error), came.failure.code) == (RateLimited, "guest_limit")
    assert came.failure.text == "Вы исчерпали дневной запас вопросов."


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("Доступ для гостей отключён.", AuthError),
        ("Zugriff für Gäste deaktiviert.", AuthError),
        ("Accès désactivé pour les invités.", AuthError),
        ("Acceso deshabilitado para invitados.", AuthError),
        ("ゲストのアクセスは無効です。", AuthError),
        ("Лимит для гостей исчерпан.", RateLimited),
        ("Das Kontingent für Gäste ist aufgebraucht.", RateLimited),
        ("Vous avez atteint la limite.", RateLimited),
        ("Has alcanzado tu límite.", RateLimited),
        ("Сообщение содержит запрещённые слова.", Refused),
        ("Die Nachricht enthält verbotene Wörter.", Refused),
    ],
)
def test_refusals_in_the_sites_language(text, error):
    assert type(answer(event("error", error=text) + DONE).error) is error


def test_an_answer_of_responses_without_its_id_broke_off():
    came = raw_answer("ai_broke_off_kit2471")
    assert came.text == "pong: hi "
    assert isinstance(came.error, TruncatedAnswer)
    assert (came.error.partial, came.error.status) == ("pong: hi ", 200)
    for name in ("whole_kit2471", "whole_kit23", "ai_broke_off_kit23"):  # the last one cannot be told from a whole one
        assert raw_answer(name).events[-1] == Done("stop")
    told = event("status", type="response.created") + event("", delta="a")
    for last in ("completed", "incomplete"):
        assert answer(told + event("status", type=f"response.{last}") + DONE).events[-1] == Done("stop")
    again = event("openai_response_id", id="r1") + event("status", type="response.created") + event("", delta="b")
    assert type(answer(told + again + DONE).error) is TruncatedAnswer
    assert answer(told + again + event("openai_response_id", id="r2") + DONE).text == "ab"


def test_events_that_are_not_text():
    came = answer(
        event("message_start", message_id="m")
        + event("status", type="response.created")
        + event("warning", error="slow today")
        + event("", delta="a")
        + event("citations", urls=["x"])
        + event("google_interaction_id", id="g1")
        + DONE
    )
    assert came.events == [
        Notice("warning", "slow today"),
        Delta("a"),
        Notice("citations", '{"urls": ["x"]}'),
        Conversation({"conversation_uuid": "u", "previous_google_interaction_id": "g1"}),
        Done(),
    ]


def failure(message: str, **more: str) -> str:
    return json.dumps({"success": False, "data": {"message": message, **more}})


@pytest.mark.parametrize(
    ("body", "status", "error", "code"),
    [
        (failure("Security check failed. Please refresh"), 403, StaleSession, "nonce"),
        (failure("OpenAI API Error (HTTP 429): Rate limit reached"), 429, ProviderUnavailable, "upstream_rate_limited"),
        (failure("OpenAI API Error (HTTP 401): key"), 401, ProviderUnavailable, "upstream_auth"),
        (failure("OpenAI API Error (HTTP 500): oops"), 500, ProviderUnavailable, "upstream"),
        (failure("Connection reset"), 503, ProviderUnavailable, "upstream"),
        (failure("too big", code="image_too_large"), 413, BadRequest, "image_too_large"),
        (failure("no", code="cors_denied"), 403, AuthError, "cors_denied"),
        ("-1", 403, StaleSession, "-1"),
        ("<html><title>Just a moment...</title>", 403, ChallengeRequired, None),
        ("<html>slow down", 429, RateLimited, None),
        ('{"success":true,"data":{"reply":5}}', 200, RemoteProtocolError, None),
        ('{"success":true}', 200, RemoteProtocolError, None),
        ("", 200, TruncatedAnswer, None),
    ],
)
def test_failures_of_the_single_request(body, status, error, code):
    kind = "text/html" if body.startswith("<") else "application/json"
    came = answer(body, kind, status, action="message")
    assert type(came.error) is error
    assert (came.failure.code, came.failure.status) == (code, status)


# Handshakes


page = PLUGIN.page
MAIN = page("2.4.71/page-chat-main[0]")
LEFT = response({"success": True, "data": {"cache_key": "aipkit_sse_k"}})
FRESH = response({"success": True, "data": {"nonce": "1111111111"}}, date="Sat, 21 Nov 2026 00:10:00 GMT")
UNKNOWN = page("2.3/get-nonce[0]")
NONCE = "fe245797ac"
UUID = "[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"


def form(request: Request) -> dict[str, str]:
    assert "origin" not in request.headers
    assert all(len(values) == 1 for values in parse_qs(request.body.decode(), keep_blank_values=True).values())
    return dict(parse_qsl(request.body.decode(), keep_blank_values=True))


def query(call: Call) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(call.request.url).query, keep_blank_values=True))


def prepared(protocol: AIPKit, reply: Response = MAIN) -> Any:
    state = new_state()
    drive(protocol.prepare(SITE, state), reply)
    assert protocol.ready(SITE, state)
    return state


def test_a_question_is_left_and_then_its_stream_fetched(check_uuid):
    protocol, state = AIPKit(page="/chat-main/"), new_state()
    assert not protocol.ready(SITE, state)
    [first] = drive(protocol.prepare(SITE, state), MAIN).requests
    assert (first.method, first.url) == ("GET", "http://chat.test/chat-main/")
    driven = drive(protocol.open(SITE, turn("привет"), state), LEFT)
    assert driven.call is not None
    [left] = driven.requests
    assert (left.method, left.url) == ("POST", "http://chat.test/wp-admin/admin-ajax.php")
    sent = form(left)
    assert sent.pop("user_client_message_id").startswith("aipkit-client-msg-5-1795000000000-")
    assert sent == {
        "action": "aipkit_cache_sse_message",
        "message": "привет",
        "_ajax_nonce": NONCE,
        "bot_id": "5",
    }
    request = driven.call.request
    assert (request.method, request.body) == ("GET", b"")
    assert request.headers == {"accept": "text/event-stream", "cache-control": "no-cache"}
    asked = query(driven.call)
    check_uuid(asked.pop("session_id"))
    check_uuid(asked.pop("conversation_uuid"))
    assert asked == {
        "action": "aipkit_frontend_chat_stream",
        "cache_key": "aipkit_sse_k",
        "bot_id": "5",
        "post_id": "13",
        "_ts": "1795000000000",
        "_ajax_nonce": NONCE,
    }


@pytest.fixture
def check_uuid():
    def check(text: str) -> None:
        assert re.fullmatch(UUID, text)

    return check


HISTORY = [
    {"role": "user", "content": "one"},
    {"role": "assistant", "content": "two"},
    {"role": "user", "content": "three"},
]


def test_a_conversation_goes_on_with_the_new_message_only():
    protocol = AIPKit()
    state = prepared(protocol, page("2.4.71/page-chat-state[0]"))
    known = Conversation({"conversation_uuid": "u1", "previous_openai_response_id": "resp_1"})
    driven = drive(protocol.open(SITE, turn(HISTORY, conversation=known), state), LEFT)
    assert driven.call is not None
    assert form(driven.requests[0])["message"] == "three"
    asked = query(driven.call)
    assert (asked["conversation_uuid"], asked["previous_openai_response_id"]) == ("u1", "resp_1")
    stream = RECORDINGS["2.4.71/chat-openai-state[1]"]
    came = read(driven.call.decoder(stream.head), [stream.body()])
    [conversation] = [e for e in came.events if isinstance(e, Conversation)]
    assert conversation.state["conversation_uuid"] == "u1"


def test_a_bot_that_keeps_no_state_at_the_ai_is_not_given_one():
    protocol = AIPKit()
    known = Conversation({"conversation_uuid": "u1", "previous_openai_response_id": "resp_1"})
    call = ask(protocol, SITE, turn(HISTORY, conversation=known), LEFT, state=prepared(protocol))
    assert "previous_openai_response_id" not in query(call)


def test_a_new_conversation_brings_all_turns_along_and_the_visitor_stays_the_same():
    protocol = AIPKit()
    state = prepared(protocol)
    driven = drive(protocol.open(SITE, turn(HISTORY), state), LEFT)
    assert form(driven.requests[0])["message"] == "User: one\nAssistant: two\nUser: three\nAssistant:"
    other = ask(protocol, SITE, turn("hi"), LEFT, state=state)
    assert driven.call is not None
    assert query(driven.call)["session_id"] == query(other)["session_id"]
    assert query(driven.call)["conversation_uuid"] != query(other)["conversation_uuid"]


PIXEL = "data:image/png;base64,iVBORw0KGgo="


def pictures(*urls: str, text: str = "what is it?") -> Any:
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return turn([{"role": "user", "content": [{"type": "text", "text": text}, *parts]}])


def test_pictures_are_sent_as_data():
    protocol = AIPKit()
    driven = drive(protocol.open(SITE, pictures(PIXEL, text=""), prepared(protocol)), LEFT)
    sent = form(driven.requests[0])
    assert sent["message"] == ""
    assert json.loads(sent["image_inputs"]) == [
        {"mime_type": "image/png", "base64_data": "iVBORw0KGgo=", "filename": "image1.png"}
    ]


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        (pictures("https://chat.test/a.png"), UnsupportedFeature),
        (pictures("data:image/png;base64,@@@"), BadRequest),
        (pictures("data:text/html;base64,AAAA"), UnsupportedFeature),
        (pictures(*[PIXEL] * 5), BadRequest),
        (turn("  "), BadRequest),
    ],
)
def test_questions_that_are_not_sent(asked, error):
    protocol = AIPKit()
    with pytest.raises(error):
        ask(protocol, SITE, asked, state=prepared(protocol))


def test_the_single_request_of_older_versions_where_no_stream_is_wanted():
    protocol = AIPKit(prefer_stream=False)
    state = prepared(protocol, page("2.3/page-chat-main[0]"))
    call = ask(protocol, SITE, turn("hi", stream=False), state=state)
    sent = form(call.request)
    assert sent.keys() == {
        "action", "message", "_ajax_nonce", "bot_id", "post_id", "session_id", "conversation_uuid"
    }  # fmt: skip
    assert sent["action"] == "aipkit_frontend_chat_message"
    recorded = RECORDINGS["2.3/chat-json-two-turns[0]"]
    assert read(call.decoder(recorded.head), [recorded.body()]).text.startswith("pong: ")
    assert ask(protocol, SITE, turn("hi"), LEFT, state=state).request.method == "GET"


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("2.4.71/error-nonce-cache[0]", StaleSession),
        ("2.4.71/error-empty-message[0]", BadRequest),
        ("2.4.71/upload-image-bad[0]", BadRequest),
        ("2.4.71/cross-origin[0]", AuthError),
        ("2.4.71/error-plugin-deactivated[0]", AssistantGone),
    ],
)
def test_the_first_request_may_fail(name, error):
    protocol = AIPKit()
    state = prepared(protocol)
    with pytest.raises(error):
        ask(protocol, SITE, turn("hi"), page(name), state=state)
    assert ("refused_nonce" in state.visitor) is (error is StaleSession)


def test_no_key_for_the_message_is_drift():
    with pytest.raises(ProtocolDrift) as caught:
        ask(AIPKit(), SITE, turn("hi"), response({"success": True, "data": {}}), state=prepared(AIPKit()))
    assert caught.value.missing == "cache_key"


def refused(protocol: AIPKit) -> Any:
    """A state whose nonce the site refused at the second request, as a session leaves it."""
    state = prepared(protocol)
    call = ask(protocol, SITE, turn("hi"), LEFT, state=state)
    refusal = RECORDINGS["2.4.71/error-nonce-stream[1]"]
    assert type(read(call.decoder(refusal.head), [refusal.body()]).error) is StaleSession
    state.tokens.clear()
    return state


def test_a_refused_nonce_is_refreshed_without_the_page():
    protocol = AIPKit()
    state = refused(protocol)
    [request] = drive(protocol.prepare(SITE, state), FRESH).requests
    assert request.method == "POST"
    assert form(request) == {"action": "aipkit_get_frontend_chat_nonce", "bot_id": "5"}
    assert state.token("nonce") == "1111111111"
    assert state.tokens["nonce"].expires is not None


def test_older_versions_are_refreshed_by_the_page_past_caches():
    protocol = AIPKit(page="/chat-main/")
    state = refused(protocol)
    fresh = page("2.4.71/page-chat-main[0]", _fe245797ac="2222222222")
    requests = drive(protocol.prepare(SITE, state), UNKNOWN, fresh).requests
    assert [request.method for request in requests] == ["POST", "GET"]
    assert requests[1].url.startswith("http://chat.test/chat-main/?nocache=")
    assert state.token("nonce") == "2222222222"


def test_a_cached_page_with_the_refused_nonce_is_an_error():
    protocol = AIPKit()
    with pytest.raises(StaleSession, match="cache") as caught:
        drive(protocol.prepare(SITE, refused(protocol)), UNKNOWN, MAIN)
    assert caught.value.code == "cached_nonce"


def test_a_lost_key_does_not_blame_the_nonce():
    protocol = AIPKit()
    state = prepared(protocol)
    call = ask(protocol, SITE, turn("hi"), LEFT, state=state)
    lost = RECORDINGS["2.4.71/cache-key-expired[1]"]
    assert type(read(call.decoder(lost.head), [lost.body()]).error) is StaleSession
    assert "refused_nonce" not in state.visitor


@pytest.mark.parametrize(
    ("name", "options", "bot"),
    [
        ("2.4.71/page-chat-popup[0]", {}, "7"),
        ("2.4.71/page-sitewide[0]", {}, None),
        ("2.4.71/page-chat-main[0]", {"bot_id": 99}, "99"),
        ("2.3/page-chat-main[0]", {}, "8"),
    ],
)
def test_which_bot_of_a_page(name, options, bot):
    protocol = AIPKit(**options)
    state = prepared(protocol, page(name))
    asked = query(ask(protocol, SITE, turn("hi"), LEFT, state=state))
    assert asked["bot_id"] == bot if bot else asked["bot_id"].isdigit()


@pytest.mark.parametrize(
    ("replies", "options", "error"),
    [
        ((page("2.4.71/error-plugin-deactivated[2]"),), {}, AssistantGone),
        ((page("2.4.71/page-plain[0]"),), {}, ProtocolDrift),
        ((page("2.4.71/page-plain[0]"), UNKNOWN), {"bot_id": 5}, ProtocolDrift),
        ((response(b"<html><title>Just a moment...</title>", 403, kind="text/html"),), {}, ChallengeRequired),
    ],
)
def test_failed_handshakes(replies, options, error):
    with pytest.raises(error) as caught:
        drive(AIPKit(**options).prepare(SITE, new_state()), *replies)
    assert type(caught.value) is error


def test_a_known_bot_needs_no_page_where_the_site_gives_nonces():
    protocol, state = AIPKit(bot_id=5), new_state()
    drive(protocol.prepare(SITE, state), page("2.4.71/page-plain[0]"), FRESH)
    assert protocol.ready(SITE, state)
    assert query(ask(protocol, SITE, turn("hi"), LEFT, state=state))["bot_id"] == "5"


# The site's own history, which loses what stands between `<` and `>`

ANSWERED = event("", delta="a") + DONE


def follow_up(protocol: AIPKit, earlier: str) -> tuple[Call, str, list[Notice]]:
    """A second question's stream, the text that was left for it, and the notices of its answer."""
    messages = [{"role": "user", "content": earlier}, {"role": "assistant", "content": "two"}, *HISTORY[2:]]
    asked = turn(messages, conversation=Conversation({"conversation_uuid": "u1"}))
    driven = drive(protocol.open(SITE, asked, prepared(protocol)), LEFT)
    assert driven.call is not None
    came = read(driven.call.decoder(Head(200, {"content-type": "text/event-stream"})), [ANSWERED.encode()])
    assert came.events[-1] == Done()
    return driven.call, form(driven.requests[0])["message"], [e for e in came.events if isinstance(e, Notice)]


def test_a_history_that_the_site_damages_is_told():
    call, left, notices = follow_up(AIPKit(), "what does <b>x</b> mean?")
    assert (query(call)["conversation_uuid"], left) == ("u1", "three")
    assert [notice.kind for notice in notices] == ["damaged"]
    assert 'history = "prompt"' in notices[0].text
    assert follow_up(AIPKit(), "is 1 < 2?")[2] == []


def test_with_history_prompt_each_question_has_all_turns_and_a_conversation_of_its_own(check_uuid):
    call, left, notices = follow_up(AIPKit(history="prompt"), "what does <b>x</b> mean?")
    check_uuid(query(call)["conversation_uuid"])
    assert "<b>x</b>" in left
    assert left.rstrip().endswith(("three", "Assistant:"))
    assert notices == []
