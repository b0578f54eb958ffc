"""What the WordPress protocols share: nonces and their end, pages, forms, what an AI's fault is called."""

from random import Random

import pytest

from tests.protocols.driving import CAPTURES, drive, new_state, response, turn
from tolmach.errors import (
    AssistantGone,
    ChallengeRequired,
    ContextTooLong,
    ProtocolDrift,
    ProviderUnavailable,
    TolmachError,
)
from tolmach.protocols import create
from tolmach.protocols.base import ChatProtocol, Site
from tolmach.protocols.recipe.json_text import JsonText
from tolmach.protocols.wordpress import common
from tolmach.testing import conformance, recordings
from tolmach.wire import Head, Request, Response

MIDNIGHT = 1_795_219_200.0  # Sat, 21 Nov 2026 00:00:00 GMT
HOUR = 3600.0
SITE = Site(name="site", url="http://chat.test", protocol=JsonText())


@pytest.mark.parametrize(
    ("date", "age", "now", "ends"),
    [
        ("Sat, 21 Nov 2026 00:11:55 GMT", "", MIDNIGHT + 715, MIDNIGHT + 24 * HOUR),
        ("Fri, 20 Nov 2026 23:58:11 GMT", "", MIDNIGHT - 109, MIDNIGHT + 12 * HOUR),
        ("Sat, 21 Nov 2026 00:00:00 GMT", "", MIDNIGHT, MIDNIGHT + 12 * HOUR),  # wp_nonce_tick rounds up
        ("Sat, 21 Nov 2026 00:11:55 GMT", "36000", MIDNIGHT + 36715, MIDNIGHT + 24 * HOUR),  # out of a cache
        ("Sat, 21 Nov 2026 00:11:55 GMT", "", MIDNIGHT + 715 + 300, MIDNIGHT + 24 * HOUR + 300),  # our clock is ahead
        ("Sat, 21 Nov 2026 00:11:55 GMT", "soon", MIDNIGHT + 715, MIDNIGHT + 24 * HOUR),
        ("", "", MIDNIGHT, None),
        ("yesterday", "", MIDNIGHT, None),
    ],
)
def test_a_nonce_ends_with_the_tick_after_its_own_on_our_clock(date, age, now, ends):
    headers = {name: value for name, value in (("date", date), ("age", age)) if value}
    assert common.nonce_expiry(Head(200, headers), now) == ends


@pytest.mark.parametrize(("age", "kept_until"), [("", MIDNIGHT + 24 * HOUR), ("86000", None), ("130000", None)])
def test_a_nonce_that_has_ended_by_its_own_page_is_for_the_site_to_refuse(age, kept_until):
    state = new_state()
    state.now = lambda: MIDNIGHT + 715
    common.keep_nonce(state, "0123456789", Head(200, {"date": "Sat, 21 Nov 2026 00:11:55 GMT", "age": age}))
    assert state.token(common.NONCE) == "0123456789"
    assert state.tokens[common.NONCE].expires == kept_until


def test_a_nonce_is_refreshed_before_it_ends_and_then_counts_as_ended():
    clock = [MIDNIGHT]
    state = new_state()
    state.now = lambda: clock[0]
    state.keep(common.NONCE, "aaaaaaaaaa", MIDNIGHT + HOUR)
    assert state.token(common.NONCE) == "aaaaaaaaaa"
    assert common.ended_nonces(state) == set()
    clock[0] += HOUR - 20
    assert state.token(common.NONCE) is None
    assert common.ended_nonces(state) == {"aaaaaaaaaa"}


def test_a_fresh_nonce_is_adopted_only_for_the_one_that_was_used():
    state = new_state()
    head = Head(200, {"date": "Sat, 21 Nov 2026 00:11:55 GMT"})
    common.adopt_nonce(state, "old", "new", head)
    assert state.token(common.NONCE) is None  # dropped in the meantime
    state.keep(common.NONCE, "other")
    common.adopt_nonce(state, "old", "new", head)
    assert state.token(common.NONCE) == "other"
    state.keep(common.NONCE, "old")
    common.adopt_nonce(state, "old", "", head)
    assert state.token(common.NONCE) == "old"
    common.adopt_nonce(state, "old", "new", head)
    assert state.token(common.NONCE) == "new"
    assert state.tokens[common.NONCE].expires is not None


@pytest.mark.parametrize(
    ("given", "address"),
    [
        ("http://chat.test/wp-admin/admin-ajax.php", "http://chat.test/wp-admin/admin-ajax.php"),
        ("/wp-json", "http://chat.test/wp-json"),
        ("https://www.chat.test/wp-json", "http://chat.test/wp-json"),
        ("http://evil.test/index.php?rest_route=", "http://chat.test/index.php?rest_route="),
        ("javascript:alert(1)", ""),
        ("http://[bad", ""),
        ("", ""),
        (None, ""),
        (5, ""),
    ],
)
def test_addresses_of_a_page_stay_on_its_origin(given, address):
    assert common.on_site("http://chat.test/chat/", given) == address


def test_a_page_is_fetched_past_caches_with_a_query_of_its_own():
    steps = [common.fetch_page(SITE, new_state(), path, fresh=fresh) for path, fresh in PAGES]
    requests = [drive(step, response(b"<html>", kind="text/html")).requests[0] for step in steps]
    assert [request.url for request in requests] == [
        "http://chat.test/",
        "http://chat.test/chat/",
        "http://chat.test/?page_id=4&nocache=000000000001",
        "http://chat.test/chat/?nocache=000000000001",
    ]
    assert [request.headers.get("cache-control") for request in requests] == [None, None, "no-cache", "no-cache"]


PAGES = (("/", False), ("chat/", False), ("?page_id=4", True), ("/chat/", True))


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (404, b"<html>not here", ProtocolDrift),
        (503, b"<html>maintenance", ProviderUnavailable),
        (403, b"<html><title>Just a moment...</title>", ChallengeRequired),
    ],
)
def test_a_page_that_is_not_served_is_an_error(status, body, error):
    with pytest.raises(error) as caught:
        drive(common.fetch_page(SITE, new_state(), "/", fresh=False), response(body, status, kind="text/html"))
    assert caught.value.status == status


def test_raw_shortcode_text_means_that_the_plugin_is_off():
    off = common.no_widget(response(b"<p>[mwai_chatbot id=&#8221;x&#8243;]</p>", kind="text/html"), "div.x")
    assert isinstance(off, AssistantGone)
    assert "[mwai_chatbot" in off.text
    other = common.no_widget(response(b"<p>a shop</p>", kind="text/html"), "div.x")
    assert type(other) is ProtocolDrift
    assert other.missing == "div.x"


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        (b"action=a&message=%D0%B4%D0%B0+1&empty=", {"q": "1", "action": "a", "message": "да 1", "empty": ""}),
        (
            b'--b1\r\nContent-Disposition: form-data; name="action"\r\n\r\na\r\n'
            b'--b1\r\nContent-Disposition: form-data; name="message"\r\n\r\nline 1\r\n\r\nline 2\r\n'
            b'--b1\r\nContent-Disposition: form-data; name="f"; filename="x"\r\n'
            b"Content-Type: a/b\r\n\r\nX\r\n--b1--\r\n",
            {"q": "1", "action": "a", "message": "line 1\r\n\r\nline 2", "f": "X"},
        ),
        (b'{"message": "json"}', {"q": "1"}),
        (b"--", {"q": "1"}),
    ],
)
def test_the_fields_of_a_recorded_form(body, fields):
    assert common.form_fields(Request("POST", "http://chat.test/a?q=1", {}, body)) == fields


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("Incorrect API key provided: sk-mock.", "upstream_auth"),
        ("Rate limit reached for mock: Limit 3.", "upstream_rate_limited"),
        ("You exceeded your current quota, check your plan and API key", "upstream_rate_limited"),
        ("The server had an error while processing your request.", "upstream"),
        ("Connection error: no data received from AI.", "empty"),
        ("", "upstream"),
    ],
)
def test_a_fault_of_the_ai_is_named_by_its_words(text, code):
    error = common.upstream_error(text, 200)
    assert isinstance(error, ProviderUnavailable)
    assert (error.code, error.status) == (code, 200)


def test_a_conversation_too_long_for_the_model_is_the_callers_to_mend():
    error = common.upstream_error("This model's maximum context length is 8192 tokens", 200)
    assert isinstance(error, ContextTooLong)


PAGES_OF = {
    "ai-engine": "aiengine-2.4.3/page-chat",
    "ai-power": "aipower-1.9.18/page-chat",
    "aipkit": "aipkit-2.4.71/page-chat-main",
}
REPLIES = {
    "ai-engine": b'{"success":true,"sessionId":"s","restNonce":"a"}',
    "ai-power": b"",
    "aipkit": b'{"success":true,"data":{"nonce":"b","cache_key":"k"}}',
}
ODD = (b"\\ud83d", b"99999999999999999999999999", b"&quot;", b"null", b"[", b"{", b"-1", b"http://[x", b"\xff", b"\x00")


def question(protocol: ChatProtocol, page: bytes, reply: bytes) -> Request:
    """The question after a handshake where each GET brings the page, and each POST the reply."""
    state = new_state()
    for steps in (protocol.prepare(SITE, state), protocol.open(SITE, turn("hi"), state)):
        answer = None
        try:
            while True:
                request = steps.send(answer)
                assert isinstance(request, Request)
                answer = Response(Head(200, {}), page if request.method == "GET" else reply)
        except StopIteration as stop:
            call = stop.value
    asked: Request = call.request
    return asked


@pytest.mark.parametrize("name", PAGES_OF)
def test_whatever_a_site_says_a_handshake_ends_in_a_question_to_it_or_in_our_error(name):
    protocol, rng = create(name, {"page": "/chat/"}), Random(name)
    body = recordings.load(CAPTURES / f"{PAGES_OF[name]}.json").exchanges[0].body()
    start = next(at for at in map(body.find, (b"data-params", b"data-config", b"data-nonce")) if at >= 0)
    asked = 0
    for i in range(400):
        # Half of the damage falls into the widget's own attributes.
        at = rng.randrange(start, start + 1500)
        odd = body[:at] + rng.choice(ODD) + body[at + rng.choice((0, 1, 3)) :]
        reply = REPLIES[name] if i % 3 else conformance.mutate(REPLIES[name], rng)
        try:
            request = question(protocol, odd if i % 2 else conformance.mutate(body, rng), reply)
        except TolmachError:
            continue
        assert request.url.startswith("http://chat.test/")
        asked += 1
    assert asked > 100


@pytest.mark.parametrize(
    ("name", "page"),
    [
        (
            "ai-engine",
            '<div class=mwai-chatbot-container data-system=\'{"restNonce":"n","botId":"b\\ud83d","contextId":%d,'
            '"restUrl":"/wp-json\\ud83d"}\' data-params=\'{"textInputMaxLength":%d}\'></div>',
        ),
        (
            "aipkit",
            '<div data-config=\'{"nonce":"n","botId":%d,"postId":%d,"ajaxUrl":"/a.php\\ud83d"}\'></div>',
        ),
        (
            "ai-power",
            "<div class=wpaicg-chatbox data-nonce=n data-bot-id=%d data-post-id=%d></div>"
            '<script>var wpaicgParams = {"ajax_url":"/a.php\\ud83d"};</script>',
        ),
    ],
)
def test_ids_that_no_id_can_be_and_halves_of_characters_are_not_sent_on(name, page):
    request = question(create(name, {"page": "/chat/"}), (page % (10**30, 10**30)).encode(), REPLIES["aipkit"])
    request.url.encode()
    assert str(10**30).encode() not in request.url.encode() + request.body
