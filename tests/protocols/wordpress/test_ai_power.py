"""AI Power before its second version: every recorded answer, and its handshakes against the documented forms."""

import json
from typing import Any
from urllib.parse import parse_qs, parse_qsl

import pytest

from tests.protocols.driving import Outcome, Plugin, ask, by_bytes, drive, new_state, read, response, turn
from tests.protocols.wordpress.raw import raw
from tolmach.chat import Conversation, Delta, Done, Notice, Usage
from tolmach.errors import (
    AssistantGone,
    AuthError,
    BadRequest,
    ChallengeRequired,
    ConfigError,
    ProtocolDrift,
    ProviderUnavailable,
    RateLimited,
    Refused,
    RemoteProtocolError,
    StaleSession,
    TruncatedAnswer,
)
from tolmach.protocols import create
from tolmach.protocols.base import Site
from tolmach.protocols.wordpress.ai_power import AIPower
from tolmach.wire import Call, Head, Request, Response

PLUGIN = Plugin(AIPower(), "aipower-*", "aipower-1.9.18/")
RECORDINGS, READERS, ANSWERS = PLUGIN.exchanges, PLUGIN.readers, PLUGIN.answers
outcome = PLUGIN.outcome

NOTHING = (BadRequest, "It appears that nothing was inputted.", None)
LIMIT = (RateLimited, "You have reached your token limit.", "guest_limit")
NO_KEY = (ProviderUnavailable, "Unable to initialize the AI instance", "upstream_auth")
EXPIRED = (StaleSession, "The link you followed has expired.", None)
EMPTY = (ProviderUnavailable, "empty answer", "empty")

# By recording and number of the exchange. All others end with `Done`.
ERRORS: dict[str, tuple[type[Exception], str, str | None]] = {
    "chat-client-abort[0]": (TruncatedAnswer, "broke off", None),
    "chat-get-method[0]": NOTHING,
    "error-banned-ip-json[0]": (Refused, "You are not allowed to access this feature.", None),
    "error-banned-ip-stream[0]": (Refused, "You are not allowed to access this feature.", "ip_banned"),
    "error-banned-word-json[0]": (Refused, "Your message contains prohibited words.", None),
    "error-banned-word-stream[0]": (Refused, "Your message contains prohibited words.", "message_flagged"),
    **{f"error-empty-message-{kind}[{i}]": NOTHING for kind in ("json", "stream") for i in (0, 1)},
    **{f"error-guest-limit-{kind}[{i}]": LIMIT for kind in ("json", "stream") for i in (1, 2)},
    "error-json-body[0]": NOTHING,
    "error-no-api-key[0]": NO_KEY,
    "error-no-api-key[1]": NO_KEY,
    "error-nonce-expired[0]": EXPIRED,
    **{f"error-nonce-{what}-{kind}[0]": EXPIRED for what in ("missing", "wrong") for kind in ("json", "stream")},
    "error-plugin-deactivated[0]": (AssistantGone, "does not know this action", "0"),
    "upload-bad-type[0]": (BadRequest, "File type is not allowed.", None),
    **{f"upstream-401[{i}]": (ProviderUnavailable, "Incorrect API key provided", "upstream_auth") for i in (0, 1)},
    **{f"upstream-429[{i}]": (ProviderUnavailable, "Rate limit reached", "upstream_rate_limited") for i in (0, 1)},
    **{f"upstream-500[{i}]": (ProviderUnavailable, "The server had an error", "upstream") for i in (0, 1)},
    "upstream-die[0]": (TruncatedAnswer, "broke off", None),
    "upstream-die[1]": (ProviderUnavailable, "Connection reset by peer", "upstream"),
    "upstream-empty[0]": EMPTY,
    "upstream-empty[1]": EMPTY,
    "upstream-errstream[0]": (ProviderUnavailable, "mock mid-stream failure", "upstream"),
    "upstream-html[0]": (ProviderUnavailable, "502 Bad Gateway", "upstream"),
    "upstream-html[1]": EMPTY,
}

SITE = Site(name="ChatGptt", url="http://chat.test", protocol=AIPower())


@pytest.mark.parametrize("name", ANSWERS)
def test_every_recorded_answer_comes_to_what_the_site_meant(name):
    whole = outcome(name)
    assert outcome(name, cut=by_bytes).said == whole.said
    if name not in ERRORS:
        assert whole.error is None
        assert whole.events[-1] == Done("stop")
        assert whole.text.startswith("pong: ")
        return
    kind, text, code = ERRORS[name]
    assert type(whole.error) is kind
    assert text in whole.failure.text
    assert (whole.failure.code, whole.failure.status) == (code, RECORDINGS[name].head.status)
    assert "Converse as if" not in whole.failure.text


def test_the_table_of_errors_names_only_what_there_is():
    assert set(ERRORS) <= set(ANSWERS)
    assert len(ANSWERS) == 72
    assert all(READERS[name] is None for name in ("page-chat[0]", "error-unknown-action[0]", "readme-fingerprint[0]"))


def test_an_error_that_is_streamed_like_an_answer_is_never_its_text():
    for name in ("upstream-401[0]", "upstream-429[0]", "upstream-500[0]", "error-banned-word-stream[0]"):
        assert outcome(name).events == []
    said = outcome("upstream-500[0]").failure.text
    assert said == "The server had an error while processing your request. Sorry about that!"


# Answers that were not recorded


def answer(body: str | bytes, kind: str = "text/event-stream", status: int = 200) -> Outcome:
    reader = AIPower().reader(
        Request("POST", "/wp-admin/admin-ajax.php", {}, b"action=wpaicg_chatbox_message&message=hi&_wpnonce=n")
    )
    assert reader is not None
    return read(reader(Head(status, {"content-type": kind})), [body if isinstance(body, bytes) else body.encode()])


def chunk(text: str, reason: str | None = None, **more: Any) -> str:
    choice = {"delta": {"content": text} if text else {}, "finish_reason": reason}
    return f"data: {json.dumps({'id': 'c', 'choices': [choice], **more})}\n\n"


def word(text: str) -> str:
    return f'event: message\ndata: {{"choices":[{{"delta":{{"content":"{text}"}}}}]}}\n\n'


def test_words_with_quotes_make_lines_that_are_no_json_and_are_read():
    once = word("Invalid") + word(' "model"') + word(" x") + 'data: {"choices":[{"finish_reason":"stop"}]}\n\n'
    assert answer(once + once).failure.text == 'Invalid "model" x'
    first = word('"model"') + word(" bad") + 'data: {"choices":[{"finish_reason":"stop"}]}\n\n'
    assert answer(first).failure.text == '"model" bad'


def test_an_error_text_after_an_answer_is_an_error():
    came = answer(chunk("half") + word("Server") + word(" died"))
    assert came.text == "half"
    assert (type(came.error), came.failure.text) == (ProviderUnavailable, "Server died")


def test_the_end_is_done_or_a_finish_reason():
    assert answer(chunk("a") + chunk("", "length")).events == [Delta("a"), Done("length")]
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    told = answer(chunk("a") + chunk("", "stop", usage=usage) + "data: [DONE]\n\n" + chunk("late"))
    assert told.events == [Delta("a"), Usage(1, 2, 3), Done()]
    assert type(answer(chunk("a")).error) is TruncatedAnswer


def test_a_legacy_model_streams_texts():
    assert answer('data: {"id":"c","choices":[{"text":"old"}]}\n\ndata: [DONE]\n\n').text == "old"


def test_an_assistants_events_and_its_thread():
    delta = {"delta": {"content": [{"type": "text", "text": {"value": "Hi"}}]}}
    came = answer(
        "event: thread_id\ndata: thread_7\n\n"
        f"event: thread.message.delta\ndata: {json.dumps(delta)}\n\n"
        'event: thread.message.completed\ndata: {"id":"m"}\n\n'
        "event: done\ndata: [DONE]\n\n"
    )
    assert came.events == [Delta("Hi"), Conversation({"thread_id": "thread_7"}), Done()]
    failed = answer('event: assistant_error\ndata: {"msg":"Run failed"}\n\n')
    assert (type(failed.error), failed.failure.text) == (ProviderUnavailable, "Run failed")


@pytest.mark.parametrize(
    ("body", "kind", "status", "error", "code"),
    [
        ('data: {"msg":"m","modflag":true}\n\n', "text/event-stream", 200, Refused, "moderation"),
        ('data: {"msg":"m","pineconeError":true}\n\n', "text/event-stream", 200, ProviderUnavailable, "upstream"),
        ("data: [LIMITED]\n\n", "text/event-stream", 200, RateLimited, "[LIMITED]"),
        ('{"status":"error","msg":"Nonce verification failed"}', "application/json", 200, StaleSession, None),
        ('{"status":"error","msg":"Kein Zutritt"}', "application/json", 200, Refused, None),
        ('{"status":"error","msg":"Kaputt","log":7}', "application/json", 200, ProviderUnavailable, "upstream"),
        ("-1", "text/html", 403, StaleSession, "-1"),
        ("0", "text/html", 200, AssistantGone, "0"),
        ("<html><title>Just a moment...</title>", "text/html", 403, ChallengeRequired, None),
        ("<html>Forbidden", "text/html", 403, AuthError, None),
        ("<html>bad gateway", "text/html", 502, ProviderUnavailable, None),
        ("<html>the home page", "text/html", 200, RemoteProtocolError, "html"),
        ("data: {broken\n\n", "text/event-stream", 200, RemoteProtocolError, None),
        ('{"status":"success","data":5}', "application/json", 200, RemoteProtocolError, None),
        ('{"status":"success","data":null}', "application/json", 200, ProviderUnavailable, "empty"),
        ("", "application/json", 200, TruncatedAnswer, None),
    ],
)
def test_failures(body, kind, status, error, code):
    came = answer(body, kind, status)
    assert type(came.error) is error
    assert (came.failure.code, came.failure.status) == (code, status)
    assert came.events == []


# Handshakes


def page(name: str, **replaced: str) -> Response:
    return PLUGIN.page(name, 200, **replaced)


def form(call: Call | Request) -> dict[str, str]:
    request = call if isinstance(call, Request) else call.request
    assert request.headers["content-type"].startswith("application/x-www-form-urlencoded")
    assert "origin" not in request.headers
    assert all(len(values) == 1 for values in parse_qs(request.body.decode(), keep_blank_values=True).values())
    return dict(parse_qsl(request.body.decode(), keep_blank_values=True))


def prepared(protocol: AIPower, name: str = "page-chat[0]") -> Any:
    state = new_state()
    drive(protocol.prepare(SITE, state), page(name))
    assert protocol.ready(SITE, state)
    return state


def test_the_page_and_the_form_as_browsers_send_it():
    protocol, state = AIPower(), new_state()
    [request] = drive(protocol.prepare(SITE, state), page("page-chat[0]")).requests
    assert (request.method, request.url) == ("GET", "http://chat.test/")
    assert "cache-control" not in request.headers
    call = ask(protocol, SITE, turn("привет"), state=state)
    assert (call.request.method, call.request.url) == ("POST", "http://chat.test/wp-admin/admin-ajax.php")
    sent = form(call)
    assert len(sent.pop("wpaicg_chat_client_id")) == 10
    assert sent == {
        "_wpnonce": "72601de8c4",
        "post_id": "9",
        "url": "http://wordpress.test/chat",
        "action": "wpaicg_chat_shortcode_message",
        "message": "привет",
        "bot_id": "0",
        "chatbot_identity": "shortcode",
        "wpaicg_chat_history": "[]",
    }


def test_without_identity_only_the_six_fields_are_sent():
    protocol = AIPower(send_identity=False)
    sent = form(ask(protocol, SITE, turn("hi"), state=prepared(protocol)))
    assert list(sent) == ["_wpnonce", "post_id", "url", "action", "message", "bot_id"]


def test_a_floating_chat_has_its_own_action_and_a_stray_in_its_post_id():
    protocol = AIPower()
    sent = form(ask(protocol, SITE, turn("hi"), state=prepared(protocol, "widget-sitewide[0]")))
    assert (sent["action"], sent["chatbot_identity"], sent["post_id"]) == ("wpaicg_chatbox_message", "widget", "14")


def test_the_visitor_keeps_its_id():
    protocol = AIPower()
    state = prepared(protocol)
    first, second = (form(ask(protocol, SITE, turn("hi"), state=state)) for _ in range(2))
    assert first["wpaicg_chat_client_id"] == second["wpaicg_chat_client_id"]


def test_options_win_over_the_page():
    protocol = AIPower(bot_id=6, post_id=3, action="wpaicg_chatbox_message")
    sent = form(ask(protocol, SITE, turn("hi"), state=prepared(protocol)))
    assert (sent["bot_id"], sent["post_id"], sent["action"]) == ("6", "3", "wpaicg_chatbox_message")
    assert sent["chatbot_identity"] == "custom_bot_6"


def test_a_configured_endpoint_is_asked():
    site = Site(name="s", url="http://chat.test/x", protocol=AIPower(), api_endpoint="/ajax.php")
    state = prepared(AIPower())
    assert ask(AIPower(), site, turn("hi"), state=state).request.url == "http://chat.test/x/ajax.php"


def test_a_given_nonce_is_used_until_it_is_refused():
    protocol, state = AIPower(nonce="aaaaaaaaaa", post_id=7), new_state()
    assert drive(protocol.prepare(SITE, state)).requests == []
    call = ask(protocol, SITE, turn("hi"), state=state)
    assert (form(call)["_wpnonce"], form(call)["post_id"]) == ("aaaaaaaaaa", "7")
    refuse(call, state)
    [request] = drive(protocol.prepare(SITE, state), page("page-chat[0]")).requests
    assert request.method == "GET"
    assert form(ask(protocol, SITE, turn("hi"), state=state))["_wpnonce"] == "72601de8c4"


def test_the_settings_in_any_page_give_the_nonce_too():
    protocol, state = AIPower(), new_state()
    drive(protocol.prepare(SITE, state), page("page-plain[0]"))
    assert form(ask(protocol, SITE, turn("hi"), state=state))["_wpnonce"] == "72601de8c4"


def refuse(call: Call, state: Any) -> None:
    """Have the site refuse the nonce, and drop it as a session does."""
    refusal = RECORDINGS["error-nonce-wrong-json[0]"]
    assert type(read(call.decoder(refusal.head), [refusal.body()]).error) is StaleSession
    state.tokens.clear()


def test_a_refused_nonce_is_not_taken_from_a_cached_page_again():
    protocol = AIPower(page="/chat/")
    state = prepared(protocol)
    refuse(ask(protocol, SITE, turn("hi"), state=state), state)
    with pytest.raises(StaleSession, match="cache") as caught:
        drive(protocol.prepare(SITE, state), page("page-chat[0]"), page("page-plain[0]"))
    assert caught.value.code == "cached_nonce"
    with pytest.raises(StaleSession, match="cache"):
        drive(protocol.prepare(SITE, state), page("page-chat[0]"), response(b"<html>", 503, kind="text/html"))
    fresh = page("page-chat[0]", _72601de8c4="1111111111")
    [request] = drive(protocol.prepare(SITE, state), fresh).requests
    assert request.url.startswith("http://chat.test/chat/?nocache=")
    assert request.headers["cache-control"] == "no-cache"
    assert state.token("nonce") == "1111111111"


def test_another_page_may_have_the_fresh_nonce():
    protocol = AIPower(page="/chat/")
    state = prepared(protocol)
    refuse(ask(protocol, SITE, turn("hi"), state=state), state)
    other = page("page-plain[0]", _72601de8c4="2222222222")
    requests = drive(protocol.prepare(SITE, state), page("page-chat[0]"), other).requests
    assert [request.url.partition("?")[0] for request in requests] == ["http://chat.test/chat/", "http://chat.test/"]
    sent = form(ask(protocol, SITE, turn("hi"), state=state))
    assert (sent["_wpnonce"], sent["post_id"]) == ("2222222222", "9")


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (page("error-plugin-deactivated[1]"), AssistantGone),
        (response(b"<html>a shop", kind="text/html"), ProtocolDrift),
        (response(b"", 404, kind="text/html"), ProtocolDrift),
        (response(b"<html><title>Just a moment...</title>", 403, kind="text/html"), ChallengeRequired),
    ],
)
def test_failed_handshakes(reply, error):
    with pytest.raises(error) as caught:
        drive(AIPower().prepare(SITE, new_state()), reply)
    assert type(caught.value) is error


MESSAGES = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": 'say "hi"\n\tin C:\\x <b>'},
    {"role": "assistant", "content": "hi"},
    {"role": "user", "content": 'and "bye"\n'},
]


def test_the_history_as_one_text():
    protocol = AIPower()
    sent = form(ask(protocol, SITE, turn(MESSAGES), state=prepared(protocol)))
    assert sent["message"].startswith("System: Be kind.\nUser: say ")
    assert sent["message"].endswith("\nAssistant:")
    assert sent["wpaicg_chat_history"] == "[]"


def test_the_plugins_own_history_survives_what_the_plugin_does_to_it():
    protocol = AIPower(history="native")
    sent = form(ask(protocol, SITE, turn(MESSAGES), state=prepared(protocol)))
    assert sent["message"] == 'and "bye"\n'
    raw = sent["wpaicg_chat_history"]
    assert "\\" not in raw  # the server removes every backslash before it parses
    assert [entry["text"] for entry in json.loads(raw)] == [
        "Human: Be kind. say ”hi” in C:＼x &lt;b>",
        "AI: hi",
    ]


def test_a_thread_goes_on_with_the_new_message_only():
    protocol = AIPower()
    known = Conversation({"thread_id": "thread_7"})
    sent = form(ask(protocol, SITE, turn(MESSAGES, conversation=known), state=prepared(protocol)))
    assert (sent["thread_id"], sent["message"]) == ("thread_7", 'and "bye"\n')


def test_an_empty_message_is_not_sent():
    with pytest.raises(BadRequest, match="empty"):
        ask(AIPower(), SITE, turn("  "), state=prepared(AIPower()))


def test_options_are_checked():
    assert create("ai-power", {"bot_id": 6, "history": "native"}) == AIPower(bot_id=6, history="native")
    for wrong in ({"action": "x"}, {"bot": 6}, {"bot_id": "six"}):
        with pytest.raises(ConfigError):
            create("ai-power", wrong)


# Refusals that no code tells from an ended nonce (to 1.8.90, on translated sites)


def say(call: Call, name: str) -> Outcome:
    head, body = raw(name)
    return read(call.decoder(head), [body])


def test_an_unknown_refusal_has_the_page_looked_at_once_and_another_nonce_there_is_asked_with():
    protocol = AIPower(page="/chat/")
    state = prepared(protocol)
    came = say(ask(protocol, SITE, turn("hi"), state=state), "stale_nonce_1.8.85_translated")
    assert type(came.error) is StaleSession
    state.tokens.clear()  # as a session does
    fresh = page("page-chat[0]", _72601de8c4="1111111111")
    [request] = drive(protocol.prepare(SITE, state), fresh).requests
    assert request.url.startswith("http://chat.test/chat/?nocache=")
    call = ask(protocol, SITE, turn("hi"), state=state)
    assert form(call)["_wpnonce"] == "1111111111"
    assert type(say(call, "stale_nonce_1.8.85_translated").error) is Refused


def test_an_unknown_refusal_with_the_pages_own_nonce_is_one_and_the_nonce_stays():
    protocol = AIPower(page="/chat/")
    state = prepared(protocol)
    say(ask(protocol, SITE, turn("hi"), state=state), "stale_nonce_1.8.85_translated")
    state.tokens.clear()
    assert len(drive(protocol.prepare(SITE, state), page("page-chat[0]")).requests) == 1
    call = ask(protocol, SITE, turn("hi"), state=state)
    assert form(call)["_wpnonce"] == "72601de8c4"
    for _ in range(2):  # and the page is not looked at for each question
        assert type(say(call, "stale_nonce_1.8.85_translated").error) is Refused
    started = state.now()
    state.now = lambda: started + 901
    assert type(say(call, "stale_nonce_1.8.85_translated").error) is StaleSession
    assert type(say(call, "stale_nonce_1.8.85_english").error) is StaleSession


def test_an_unknown_refusal_of_a_given_nonce_is_one_where_no_page_shows_another():
    protocol, state = AIPower(nonce="aaaaaaaaaa"), new_state()
    drive(protocol.prepare(SITE, state))
    came = say(ask(protocol, SITE, turn("hi"), state=state), "stale_nonce_1.8.85_translated")
    assert type(came.error) is StaleSession
    state.tokens.clear()
    drive(protocol.prepare(SITE, state), response(b"<html>a shop", kind="text/html"))
    call = ask(protocol, SITE, turn("hi"), state=state)
    assert form(call)["_wpnonce"] == "aaaaaaaaaa"
    assert type(say(call, "stale_nonce_1.8.85_translated").error) is Refused


# Version 1.8 damages what it is sent


@pytest.mark.parametrize(
    ("version", "message", "kinds"),
    [
        ("1.8.85", "one\ntwo", ["damaged"]),
        ("1.8.85", "is <b> bold?", ["damaged"]),
        ("1.8.85", 'say "hi"', ["damaged"]),
        ("1.8.85", "a%20b", ["damaged"]),
        ("1.8.85", "what is 100% of 5?", []),
        ("1.9.18", "one\ntwo", []),
    ],
)
def test_a_text_that_version_1_8_damages_is_told(version, message, kinds):
    script = "gpt3-ai-content-generator/public/js/wp-ai-content-generator-public.js"
    known = page("page-chat[0]")
    shown = Response(known.head, known.body + f'<script src="/plugins/{script}?ver={version}"></script>'.encode())
    protocol, state = AIPower(), new_state()
    drive(protocol.prepare(SITE, state), shown)
    call = ask(protocol, SITE, turn(message), state=state)
    came = read(call.decoder(Head(200, {"content-type": "application/json"})), [b'{"status":"success","data":"a"}'])
    assert [event.kind for event in came.events if isinstance(event, Notice)] == kinds
    assert came.events[-1] == Done()
