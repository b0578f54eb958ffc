"""Every fault in the table, on a service that has it, seen from the other end of the socket."""

import asyncio
import gzip
import json
import re
import time

import pytest

from tests.demo.client import Connection, Got, ask, post_form, post_json
from tolmach.demo import FAULTS, Demo, UnknownFault, help_text
from tolmach.demo.faults import Faults, parse, wish_in
from tolmach.errors import ConfigError

CHAT = "/v1/chat/completions"
KEY = {"authorization": "Bearer any"}


async def stream(demo: Demo, fault: str = "", *, model: str = "demo", question: str = "hi") -> Got:
    """A streamed answer of the OpenAI service."""
    body = {"model": model, "stream": True, "messages": [{"role": "user", "content": question}]}
    return await post_json(demo.url, CHAT, body, fault=fault, headers=KEY)


def contents(got: Got) -> list[str]:
    chunks = [json.loads(data) for _, data in got.events if data.startswith("{")]
    return [c["choices"][0]["delta"].get("content") or "" for c in chunks if c.get("choices")]


async def form(demo: Demo, mount: str, nonce: str, fault: str = "", message: str = "hi") -> Got:
    fields = {"action": "wpaicg_chat_shortcode_message", "_wpnonce": nonce, "message": message}
    return await post_form(demo.url, f"{mount}/wp-admin/admin-ajax.php", fields, fault=fault)


async def nonce_of(demo: Demo, mount: str, query: str = "", fault: str = "") -> str:
    got = await ask(demo.url, "GET", f"{mount}/{query}", fault=fault)
    found = re.search(r'data-nonce="(\w+)"', got.text)
    assert found
    return found[1]


def test_the_table_has_all_that_was_promised() -> None:
    promised = (
        "stale-nonce stale-nonce-every nonce-expires 401 403-challenge 429 429-retry-after 500 502-html reset silence "
        "slow-first-token delay cut stall malformed missing-end junk split-utf8 lone-surrogate big-event gzip "
        "cached-page html turnstile arkose guest-limit banned empty upstream-error"
    )
    assert set(promised.split()) <= set(FAULTS)
    assert all(fault.about for fault in FAULTS.values())
    lines = help_text().splitlines()
    assert len(lines) == len(FAULTS)
    assert any(line.startswith("cut=K") and "default 5" in line for line in lines)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nope", "there is no fault 'nope'; there are: stale-nonce"),
        ("cut=", "there is no fault 'cut='"),
        ("cut=-1", "there is no fault"),
        ("reset=3", "takes no value"),
        ("cut=3@moon", "no step 'moon'"),
    ],
)
def test_a_fault_that_is_none_is_refused(text: str, message: str) -> None:
    with pytest.raises(UnknownFault, match=re.escape(message)):
        parse(text)


def test_a_setting_for_a_service_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match="no service at '/nowhere'"):
        Demo(faults={"/nowhere": "cut"})


def test_faults_are_counted() -> None:
    faults = Faults({"/v1": "500*2, 429/3"})
    seen = [set(faults.wanted("/v1", "openai", "chat", "")) for _ in range(6)]
    assert seen == [{"500"}, {"500"}, {"429"}, set(), set(), {"429"}]
    assert faults.wanted("/v1", "openai", "other", "") == {}
    assert faults.wanted("/v1", "openai", "page", "cut=3@page") == {"cut": 3.0}


def test_wishes_stand_in_the_question_and_the_model() -> None:
    assert wish_in("say [[fault:cut=3]] please [[fault:junk]]") == "cut=3,junk"
    assert wish_in("hello", "fault:stall=2") == "fault:stall=2"
    assert wish_in("a fault: no", "gpt-4o") == ""


async def test_an_unknown_fault_is_answered_with_the_list() -> None:
    async with Demo(delay=0) as demo:
        got = await stream(demo, "nope")
        assert got.status == 400
        assert "there is no fault 'nope'" in got.text
        assert "cut=K" in got.text
        assert (await stream(demo, "turnstile")).text == "the fault 'turnstile' means nothing at /v1\n"


@pytest.mark.parametrize("where", ["header", "model", "question", "settings"])
async def test_a_fault_can_be_asked_for_in_four_ways(where: str) -> None:
    async with Demo(delay=0) as demo:
        if where == "settings":
            demo.faults["/v1"] = "429"
        got = await stream(
            demo,
            "429" if where == "header" else "",
            model="fault:429" if where == "model" else "demo",
            question="[[fault:429]]" if where == "question" else "hi",
        )
        assert got.status == 429
        assert (await stream(demo)).status == (429 if where == "settings" else 200)


async def test_an_earlier_question_asks_for_nothing() -> None:
    async with Demo(delay=0) as demo:
        messages = [
            {"role": "user", "content": "[[fault:429]]"},
            {"role": "assistant", "content": "ok"},
            {"role": "user", "content": "and now?"},
        ]
        got = await post_json(demo.url, CHAT, {"model": "demo", "messages": messages}, headers=KEY)
        assert got.status == 200
        folded = {"message": "User: [[fault:500]]\nAssistant: ok\nUser: and now?\nAssistant:"}
        got = await post_json(demo.url, "/api/text", folded, headers={"cookie": "a=b"})
        assert (got.status, "> and now?" in got.json["message"], "hist=3" in got.json["message"]) == (200, True, True)


@pytest.mark.parametrize(
    ("fault", "status", "content_type", "words"),
    [
        ("401", 401, "application/json", "Incorrect API key"),
        ("403-challenge", 403, "text/html; charset=UTF-8", "Just a moment"),
        ("429", 429, "application/json", "Rate limit"),
        ("429-retry-after=30", 429, "application/json", "Rate limit"),
        ("500", 500, "application/json", "server had an error"),
        ("502-html", 502, "text/html; charset=UTF-8", "502 Bad Gateway"),
        ("html", 200, "text/html; charset=UTF-8", "Welcome"),
        ("guest-limit", 429, "application/json", "insufficient_quota"),
        ("banned", 400, "application/json", "safety system"),
        ("upstream-error", 503, "application/json", "overloaded"),
    ],
)
async def test_an_answer_that_is_none(fault: str, status: int, content_type: str, words: str) -> None:
    async with Demo(delay=0) as demo:
        got = await stream(demo, fault)
        assert (got.status, got.header("content-type")) == (status, content_type)
        assert words in got.text
        assert got.header("retry-after") == ("30" if "after" in fault else "")
        assert got.header("cf-mitigated") == ("challenge" if "challenge" in fault else "")


async def test_reset_comes_before_the_head() -> None:
    async with Demo(delay=0) as demo:
        with pytest.raises(ConnectionResetError):
            await stream(demo, "reset")
        assert demo.log.requests[-1].ended == "cut"


async def test_silence_and_stall_last_until_the_client_has_gone() -> None:
    async with Demo(delay=0) as demo:
        for fault, has_head in (("silence", False), ("stall=2", True)):
            before = demo.log.hangups
            async with Connection(demo.url) as connection:
                body = b'{"model": "demo", "stream": true, "messages": [{"role": "user", "content": "hi"}]}'
                headers = {"content-type": "application/json", "x-tolmach-demo": fault, **KEY}
                await connection.send("POST", CHAT, headers, body)
                got = await connection.head() if has_head else None
                waiting = connection.rest(got) if got else connection.event()
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(waiting, 0.1)
            await demo.log.wait_hangups(before + 1)
            assert demo.log.requests[-1].ended == "hangup"
        assert got is not None
        assert len(contents(got)) == 1 + 2


async def test_cut_ends_the_connection_without_the_last_chunk() -> None:
    async with Demo(delay=0) as demo:
        async with Connection(demo.url) as connection:
            body = b'{"model": "demo", "stream": true, "messages": [{"role": "user", "content": "hi"}]}'
            headers = {"content-type": "application/json", "x-tolmach-demo": "cut=4", **KEY}
            await connection.send("POST", CHAT, headers, body)
            got = await connection.head()
            with pytest.raises(Exception, match="peer closed connection without sending complete message body"):
                await connection.rest(got)
        assert len(contents(got)) == 1 + 4
        assert demo.log.answers["/v1"] == 0


async def test_cut_takes_half_of_a_json_answer() -> None:
    async with Demo(delay=0) as demo:
        with pytest.raises(Exception, match="peer closed connection"):
            await post_json(demo.url, "/api/text", {"message": "hi"}, fault="cut", headers={"cookie": "a=b"})


async def test_malformed_and_missing_end() -> None:
    async with Demo(delay=0) as demo:
        whole, broken, endless = (
            await stream(demo),
            await stream(demo, "malformed=2"),
            await stream(demo, "missing-end"),
        )
        bad = [data for _, data in broken.events if data.startswith("{") and not data.endswith("}")]
        assert len(bad) == 1
        assert len(broken.events) == len(whole.events)
        assert whole.text.endswith("data: [DONE]\n\n")
        assert "[DONE]" not in endless.text
        assert '"finish_reason":"stop"' not in endless.text
        assert contents(endless) == contents(whole)[:-1]
        cookie = {"cookie": "a=b"}
        for fault in ("malformed", "missing-end"):
            got = await post_json(demo.url, "/api/text", {"message": "hi"}, fault=fault, headers=cookie)
            assert got.status == 200
            with pytest.raises(ValueError, match=r"char|decode"):
                json.loads(got.body)


async def test_missing_done_leaves_the_reason_and_nothing_behind_it() -> None:
    async with Demo(delay=0) as demo:
        whole, endless = await stream(demo), await stream(demo, "missing-done")
        assert whole.text.endswith("data: [DONE]\n\n")
        assert '"finish_reason":"stop"' in endless.events[-1][1]
        assert contents(endless) == contents(whole)


async def test_gzip_can_be_read_while_it_comes() -> None:
    async with Demo(delay=0) as demo:
        whole, packed = await stream(demo), await stream(demo, "gzip")
        assert packed.header("content-encoding") == "gzip"
        assert contents(Got(200, [], [gzip.decompress(packed.body)])) == contents(whole)
        assert len(packed.chunks) > 10


async def test_chunks_are_cut_inside_characters() -> None:
    async with Demo(delay=0) as demo:
        whole, cut = await stream(demo), await stream(demo, "split-utf8")
        assert contents(cut) == contents(whole)
        undecodable = 0
        for chunk in cut.chunks:
            try:
                chunk.decode()
            except UnicodeDecodeError:
                undecodable += 1
        assert undecodable > 20


async def test_halves_of_surrogate_pairs() -> None:
    async with Demo(delay=0) as demo:
        lone = await stream(demo, "lone-surrogate")
        assert "\\ud83d." in lone.text
        split = await stream(demo, "split-surrogate")
        assert '"content":"\\ud83d"' in split.text
        assert '"content":"\\ude00"' in split.text


async def test_a_big_event_and_an_empty_answer() -> None:
    async with Demo(delay=0) as demo:
        big = await stream(demo, "big-event")
        assert max(len(data) for _, data in big.events) > 10_000_000
        small = await stream(demo, "big-event=1")
        assert 1_000_000 < max(len(data) for _, data in small.events) < 1_100_000
        assert "".join(contents(await stream(demo, "empty"))) == ""


async def test_times() -> None:
    async with Demo(delay=0) as demo:
        start = time.monotonic()
        async with Connection(demo.url) as connection:
            body = b'{"model": "demo", "stream": true, "messages": [{"role": "user", "content": "hi"}]}'
            headers = {"content-type": "application/json", "x-tolmach-demo": "slow-first-token=0.2", **KEY}
            await connection.send("POST", CHAT, headers, body)
            got = await connection.head()
            head = time.monotonic() - start
            await connection.rest(got)
        assert head < 0.15
        assert time.monotonic() - start >= 0.2
        start = time.monotonic()
        await stream(demo, "delay=0.005")
        assert time.monotonic() - start >= 0.15
        start = time.monotonic()
        fault = "slow-first-token=0.1"
        await post_json(demo.url, "/api/text", {"message": "hi"}, fault=fault, headers={"cookie": "a=b"})
        assert time.monotonic() - start >= 0.1


async def test_junk_stands_before_the_handshake_too() -> None:
    async with Demo(delay=0) as demo:
        got = await ask(demo.url, "POST", "/Chatgpt4Online/wp-json/mwai/v1/start_session", fault="junk")
        assert got.text.startswith("\ufeff\n<br />\n<b>Warning</b>")
        assert json.loads(got.text[got.text.index("{") :])["success"]


async def test_a_step_can_be_named() -> None:
    async with Demo(delay=0) as demo:
        session = "/Chatgpt4Online/wp-json/mwai/v1/start_session"
        assert (await ask(demo.url, "POST", session, fault="500")).status == 200
        assert (await ask(demo.url, "POST", session, fault="500@handshake")).status == 500
        assert (await ask(demo.url, "GET", "/ChatGptt/", fault="429@any")).status == 429


# Nonces


async def test_a_stale_nonce_is_refused_once_for_each_question() -> None:
    async with Demo(delay=0) as demo:
        nonce = await nonce_of(demo, "/Chatgpt4o")
        for _ in range(3):
            assert (await form(demo, "/Chatgpt4o", nonce, "stale-nonce")).status == 403
            assert (await form(demo, "/Chatgpt4o", nonce)).status == 403
            fresh = await nonce_of(demo, "/Chatgpt4o", fault="stale-nonce")
            assert fresh != nonce
            assert (await form(demo, "/Chatgpt4o", fresh, "stale-nonce")).json["status"] == "success"
            nonce = fresh
        assert demo.log.refusals["/Chatgpt4o"] == 6
        assert demo.log.handshakes["/Chatgpt4o"] == 4


async def test_every_nth_question_wears_the_nonce_out() -> None:
    async with Demo(delay=0, faults={"/ChatGptt": "stale-nonce-every=5"}) as demo:
        statuses = []
        nonce = await nonce_of(demo, "/ChatGptt")
        for _ in range(12):
            got = await form(demo, "/ChatGptt", nonce)
            statuses.append(got.status)
            if got.status == 403:
                nonce = await nonce_of(demo, "/ChatGptt")
        assert statuses == [200, 200, 200, 200, 403, 200, 200, 200, 200, 403, 200, 200]


async def test_a_nonce_that_expires_between_two_turns_and_one_that_is_never_good() -> None:
    async with Demo(delay=0) as demo:
        nonce = await nonce_of(demo, "/ChatGptt")
        assert (await form(demo, "/ChatGptt", nonce, "nonce-expires")).status == 200
        assert (await form(demo, "/ChatGptt", nonce)).status == 403
        nonce = await nonce_of(demo, "/ChatGptt")
        assert (await form(demo, "/ChatGptt", nonce, "nonce-refused")).status == 403
        assert (await form(demo, "/ChatGptt", nonce)).status == 200


async def test_a_cached_page_has_an_old_nonce_until_it_is_fetched_with_a_query() -> None:
    async with Demo(delay=0) as demo:
        got = await ask(demo.url, "GET", "/ChatGptt/", fault="cached-page")
        assert int(got.header("age")) > 0
        old = await nonce_of(demo, "/ChatGptt", fault="cached-page")
        assert (await form(demo, "/ChatGptt", old)).status == 403
        new = await nonce_of(demo, "/ChatGptt", "?fresh=1", fault="cached-page")
        assert (await form(demo, "/ChatGptt", new)).status == 200


async def test_a_nonce_lives_for_two_ticks() -> None:
    now = [1_000_000.0]
    async with Demo(delay=0, nonce_life=20, now=lambda: now[0]) as demo:
        nonce = await nonce_of(demo, "/ChatGptt")
        assert nonce == await nonce_of(demo, "/ChatGptt")
        assert nonce != await nonce_of(demo, "/Chatgpt4o")
        now[0] += 10
        assert (await form(demo, "/ChatGptt", nonce)).status == 200
        now[0] += 10
        assert (await form(demo, "/ChatGptt", nonce)).status == 403
        assert (await form(demo, "/ChatGptt", await nonce_of(demo, "/ChatGptt"))).status == 200


async def test_what_the_plugins_say_of_limits() -> None:
    async with Demo(delay=0) as demo:
        json_bot, stream_bot = await nonce_of(demo, "/Chatgpt4o"), await nonce_of(demo, "/ChatGptt")
        got = await form(demo, "/Chatgpt4o", json_bot, "guest-limit")
        assert got.json == {"msg": "You have reached your token limit.", "tokenLimitReached": True}
        got = await form(demo, "/ChatGptt", stream_bot, "guest-limit")
        assert got.events == [("", '{"msg":"You have reached your token limit.","tokenLimitReached":true}')]
        got = await form(demo, "/Chatgpt4o", json_bot, "[[nothing")
        assert got.status == 400
        got = await form(demo, "/Chatgpt4o", json_bot, message="[[fault:guest-limit]]")
        assert got.json["tokenLimitReached"] is True
