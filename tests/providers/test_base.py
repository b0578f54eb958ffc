"""Provider classes: what they declare, the three calls, sessions shared and not, and nothing secret in sight."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import ClassVar

import pytest

from tolmach import Access, Aichat, Chatgpt4o, Chatgpt4Online, ChatGptt, open_session, set_cookies
from tolmach.chat import Delta, Done, Notice
from tolmach.cookies import set_cookies_dir
from tolmach.demo.server import Demo
from tolmach.errors import ConfigError, MissingCookies, ModelNotFound, RateLimited, TimedOut, UnsupportedFeature
from tolmach.protocols.base import Answer
from tolmach.protocols.recipe.json_text import JsonText
from tolmach.providers.base import (
    AbstractProvider,
    AsyncProvider,
    ProviderModelMixin,
    Sessions,
    checked_url,
    split_options,
)
from tolmach.session import Session
from tolmach.transport import Timeouts, TransportOptions

HI = [{"role": "user", "content": "hi"}]


@pytest.fixture
async def demo(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Demo]:
    async with Demo(delay=0) as demo:
        for provider in (Chatgpt4o, Chatgpt4Online, ChatGptt, Aichat):
            monkeypatch.setattr(provider, "url", f"{demo.url}/{provider.__name__}")
        yield demo


def pages(demo: Demo) -> int:
    return demo.log.steps["/Chatgpt4o", "page"]


# Declarations


class Plain(AbstractProvider):
    """Takes any model."""

    url = "https://plain.test/chat/"
    api_endpoint = "https://plain.test/chat/api"
    protocol = JsonText()
    default_model = "plain-1"
    model_aliases: ClassVar[dict[str, str]] = {"p": "plain-1"}
    headers: ClassVar[dict[str, str]] = {"Origin": "{origin}", "referer": "{url}/x", "x-json": '{"a": {}}'}


def test_a_class_as_data(monkeypatch):
    site = Plain.site()
    assert (site.name, site.url, site.api_endpoint) == (
        "Plain",
        "https://plain.test/chat",
        "https://plain.test/chat/api",
    )
    assert site.headers == {
        "origin": "https://plain.test",
        "referer": "https://plain.test/chat/x",
        "x-json": '{"a": {}}',
    }
    monkeypatch.setattr(Plain, "url", "http://127.0.0.1:8190/Plain/")
    moved = Plain.site()
    assert (moved.url, moved.api_endpoint) == ("http://127.0.0.1:8190/Plain", "http://127.0.0.1:8190/Plain/api")
    assert moved.headers["origin"] == "http://127.0.0.1:8190"
    assert Plain.site_at("https://b.test").headers["referer"] == "https://b.test/x"


def test_a_subclass_moves_with_its_own_url(monkeypatch):
    child: type[AbstractProvider] = type("Child", (Plain,), {})
    monkeypatch.setattr(child, "url", "https://c.test")
    assert child.site().api_endpoint == "https://c.test/api"
    assert Plain.site().url == "https://plain.test/chat"


@pytest.mark.parametrize("bases", [(AsyncProvider, ProviderModelMixin), (ProviderModelMixin, AsyncProvider)])
def test_the_mixin_checks_models_wherever_it_stands(bases):
    listed: type[AbstractProvider] = type(
        "Listed", bases, {"default_model": "a", "models": ["a", "b"], "model_aliases": {"short": "long"}}
    )
    assert [listed.get_model(name) for name in ("", "b", "short")] == ["a", "b", "long"]
    with pytest.raises(ModelNotFound, match="Listed has no model 'c'; it has: a, b"):
        listed.get_model("c")


def test_a_provider_without_a_list_takes_any_model():
    assert [Plain.get_model(name) for name in ("", "p", "other")] == ["plain-1", "plain-1", "other"]


@pytest.mark.parametrize("url", ["nonsense", "ftp://a.test", "https://ann:s3cret@a.test", "https://a.test:0"])
def test_a_url_that_is_none_is_named(monkeypatch, url):
    monkeypatch.setattr(Plain, "url", url)
    with pytest.raises(ConfigError, match=r"^Plain\.url: ") as caught:
        Plain.site()
    assert "s3cret" not in str(caught.value)
    with pytest.raises(ConfigError, match=r"^mine: "):
        checked_url(url, "mine")


# What a call brings along


def test_options_are_parted():
    access, rest = split_options({"proxy": None, "timeout": 3, "cookies": {"a": "1"}, "temperature": 0.5, "n": None})
    assert access == Access(timeout=3.0, cookies={"a": "1"})
    assert rest == {"temperature": 0.5, "n": None}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"timeout": -1}, "timeout: a number of seconds above zero, not -1"),
        ({"timeout": 0}, "timeout: a number of seconds above zero"),
        ({"timeout": float("nan")}, "timeout: a number of seconds above zero"),
        ({"timeout": "5"}, "timeout: Expected `float"),
        ({"cookies": "a=1"}, "cookies: Expected `object"),
        ({"cookies": {"a": 1}}, r"cookies.*Expected `str`"),
        ({"headers": [("a", "b")]}, "headers: Expected `object`"),
        ({"api_key": 3}, "api_key: Expected `str`"),
        ({"verify": 3}, "verify: Expected `"),
        ({"browsers": "yes"}, "browsers: Expected `bool`"),
        ({"proxy": "gopher://h:1"}, "a proxy is http"),
        ({"proxy": "http://[::1"}, "the proxy's address cannot be read"),
        ({"transport": "carrier-pigeon"}, "transport: there is no 'carrier-pigeon', only auto, wreq, aiohttp"),
    ],
)
async def test_wrong_arguments_are_named(options, says):
    with pytest.raises(ConfigError, match=says):
        split_options(options)
    with pytest.raises(ConfigError, match=says):
        await Chatgpt4o.create_async("", HI, **options)


def test_a_time_limit_for_the_whole_moves_those_for_its_parts():
    site = Plain.site()
    assert Access().timeouts(site) == Timeouts()
    long = Access(timeout=900).timeouts(site)
    assert (long.first_byte, long.idle, long.total) == (900, 900, 900)
    short = Access(timeout=3).timeouts(site)
    assert (short.first_byte, short.idle, short.total) == (120, 130, 3)
    assert Access().timeouts(Chatgpt4o.site()).total == 120
    assert Access(timeout=5).timeouts(Chatgpt4o.site()).total == 5


@pytest.mark.parametrize(
    ("messages", "says"),
    [
        ("hi", r"messages: a list such as"),
        ([], "messages: at least one message is needed"),
        ([{"content": "hi"}], r"messages\[0\]: an object with a role"),
        ([{"role": "user", "content": 3}], r"messages\[0\]\.content"),
    ],
)
async def test_wrong_messages_are_named(messages, says):
    with pytest.raises(ConfigError, match=says):
        await Chatgpt4o.create_async("", messages)


# The calls


async def test_the_three_calls_give_the_same(demo):
    whole = await ChatGptt.create_async("gpt-4o", HI)
    pieces = [piece async for piece in ChatGptt.create_async_generator("gpt-4o", HI)]
    assert len(pieces) > 30
    assert "".join(pieces) == whole
    told = await asyncio.to_thread(lambda: list(ChatGptt.create_completion("gpt-4o", HI)))
    assert told == pieces
    told = await asyncio.to_thread(lambda: list(ChatGptt.create_completion("gpt-4o", HI, stream=False)))
    assert told == [whole]


async def test_closing_an_answer_closes_its_connection_at_once(demo):
    demo.faults["/ChatGptt"] = "stall=3"
    pieces = ChatGptt.create_async_generator("gpt-4o", HI)
    await anext(pieces)
    await pieces.aclose()
    await demo.log.wait_hangups(1)
    assert demo.log.hangups == 1


async def test_errors_carry_the_provider_the_status_and_what_had_come(demo):
    demo.faults["/ChatGptt"] = "429-retry-after=9"
    with pytest.raises(RateLimited) as caught:
        await ChatGptt.create_async("gpt-4o", HI)
    assert (caught.value.provider, caught.value.status, caught.value.retry_after) == ("ChatGptt", 429, 9)
    demo.faults["/ChatGptt"] = "stall=3"
    with pytest.raises(TimedOut) as late:
        await ChatGptt.create_async("gpt-4o", HI, timeout=0.2)
    assert late.value.phase == "total"
    assert late.value.partial.startswith("## C")


async def test_what_a_site_cannot_honour_is_refused_or_dropped_with_a_word(demo, caplog):
    with pytest.raises(UnsupportedFeature, match="Chatgpt4o cannot honour: tools, n") as caught:
        await Chatgpt4o.create_async("", HI, tools=[{"type": "function"}], n=2)
    assert caught.value.feature == "tools"
    assert list(demo.log.requests) == []
    with caplog.at_level(logging.WARNING, "tolmach"):
        assert "✅" in await Chatgpt4o.create_async("", HI, tools=[{"type": "function"}], strict=False)
    assert caplog.messages == ["Chatgpt4o: dropped: Chatgpt4o cannot honour 'tools'; it was left out"]


class Rewriting(Answer):
    """Says one thing and then another."""

    def feed(self, data: bytes):
        yield Delta("first")
        yield Notice("rewritten", "second")
        yield Delta(" and last")
        yield Done()

    def close(self):
        yield from ()


async def test_a_rewritten_answer_is_whole_in_the_end_and_not_in_the_log(demo, monkeypatch, caplog):
    monkeypatch.setattr("tolmach.protocols.recipe.protocol.DECODERS", {"json": lambda reading, head: Rewriting(head)})
    with caplog.at_level(logging.WARNING, "tolmach"):
        assert await Aichat.create_async("", HI, cookies={"a": "1"}) == "second and last"
    assert caplog.messages == ["Aichat: rewritten: the service took back what it had said"]


# Sessions


def test_calls_share_the_nonce_over_several_loops(monkeypatch):
    from tolmach.demo.server import serve_in_thread

    with serve_in_thread(delay=0) as demo:
        monkeypatch.setattr(Chatgpt4o, "url", f"{demo.url}/Chatgpt4o")
        for _ in range(3):
            assert "✅" in asyncio.run(Chatgpt4o.create_async("", HI))
        assert "✅" in "".join(Chatgpt4o.create_completion("", HI))
        assert demo.log.steps["/Chatgpt4o", "page"] == 1
        assert demo.log.chats("/Chatgpt4o") == 4


async def test_other_cookies_headers_or_proxies_are_other_sessions(demo):
    await Chatgpt4o.create_async("", HI)
    await Chatgpt4o.create_async("", HI, timeout=50)
    assert pages(demo) == 1
    await Chatgpt4o.create_async("", HI, cookies={"a": "1"})
    assert pages(demo) == 2
    await Chatgpt4o.create_async("", HI, cookies={"a": "2"})
    assert pages(demo) == 3
    await Chatgpt4o.create_async("", HI, headers={"x-a": "1"})
    assert pages(demo) == 4
    await Chatgpt4o.create_async("", HI, cookies={"a": "1"})
    assert pages(demo) == 4


async def test_many_first_calls_at_once_shake_hands_once(demo):
    answers = await asyncio.gather(*(Chatgpt4o.create_async("", HI) for _ in range(20)))
    assert len(set(answers)) == 1
    assert pages(demo) == 1


async def test_threads_that_come_at_the_same_time_get_one_session(demo):
    sessions = Sessions()
    site = Chatgpt4o.site()
    found = await asyncio.gather(*(asyncio.to_thread(sessions.get, site, Access()) for _ in range(16)))
    assert len(set(found)) == 1


def test_the_least_recently_used_sessions_go_first():
    sessions = Sessions(most=2)
    sites = [Plain.site_at(f"https://{name}.test") for name in "abc"]
    first, second = (sessions.get(site, Access()) for site in sites[:2])
    assert sessions.get(sites[0], Access()) is first
    sessions.get(sites[2], Access())
    assert sessions.get(sites[0], Access()) is first
    assert sessions.get(sites[1], Access()) is not second


def test_a_class_that_changes_gets_another_session(monkeypatch):
    sessions = Sessions()
    before = sessions.get(Plain.site(), Access())
    monkeypatch.setattr(Plain, "headers", {"x-new": "1"})
    assert sessions.get(Plain.site(), Access()) is not before


async def test_the_visitor_stays_when_the_nonce_is_refused(demo):
    session = open_session(ChatGptt.site())
    visitors = set()
    for fault in ("", "stale-nonce", "429"):
        demo.faults["/ChatGptt"] = fault
        with contextlib.suppress(RateLimited):
            await ChatGptt.create_async("gpt-4o", HI, session=session)
        visitors.add(session.state.visitor["ai-power.client"])
    assert len(visitors) == 1
    assert demo.log.refusals["/ChatGptt"] == 1


async def test_a_session_of_ones_own(demo):
    session = open_session(Chatgpt4o.site(), Access(timeout=9))
    assert isinstance(session, Session)
    assert session.timeouts.total == 9
    await Chatgpt4o.create_async("", HI)
    assert session.state.tokens == {}
    await Chatgpt4o.create_async("", HI, session=session, timeout=5)
    assert session.state.tokens != {}
    with pytest.raises(ConfigError, match="cookies: session= has its own way"):
        await Chatgpt4o.create_async("", HI, session=session, cookies={"a": "1"})


async def test_cookies_that_are_found_and_change(demo, tmp_path, monkeypatch):
    set_cookies_dir(tmp_path)
    try:
        with pytest.raises(MissingCookies, match=r"Aichat needs cookies of chat-gpt\.org") as caught:
            await Aichat.create_async("", HI)
        assert "set_cookies" in caught.value.hint
        (tmp_path / "cookies.txt").write_text("chat-gpt.org\tFALSE\t/\tTRUE\t0\tvisit\t1\n")
        assert "✅" in await Aichat.create_async("", HI)
        sessions = Sessions()
        before = sessions.get(Aichat.site(), Access())
        assert sessions.get(Aichat.site(), Access()) is before
        set_cookies("chat-gpt.org", {"visit": "2"})
        after = sessions.get(Aichat.site(), Access())
        assert [cookie.value for cookie in after.cookies] == ["2"]
        assert after is not before
    finally:
        set_cookies("chat-gpt.org")
        set_cookies_dir(None)


# Secrets

SECRETS = {"k3y-secret", "c00kie-secret", "h3ader-secret", "pr0xy-secret"}


def test_nothing_secret_in_what_is_shown():
    access = Access(
        api_key="k3y-secret",
        cookies={"visit": "c00kie-secret"},
        headers={"authorization": "h3ader-secret"},
        proxy="http://ann:pr0xy-secret@127.0.0.1:9",
        verify=False,
    )
    session = open_session(Plain.site(), access)
    session.state.keep("nonce", "n0nce-secret")
    shown = [
        *(
            repr(thing)
            for thing in (access, session, session.site, session.state, session.state.tokens, session.cookies)
        ),
        repr(TransportOptions(proxy=access.proxy)),
        *(repr(thing.__rich_repr__()) for thing in (access, session.site, TransportOptions(proxy=access.proxy))),
    ]
    assert [text for text in shown for secret in {*SECRETS, "n0nce-secret"} if secret in text] == []
    assert repr(access) == (
        "Access(proxy='http://127.0.0.1:9', cookies=['visit'], headers=['authorization'], verify=False, api_key='…')"
    )
    assert repr(TransportOptions(proxy="socks5://h:1")).startswith("TransportOptions(proxy='socks5://h:1', verify=True")


@pytest.mark.parametrize("fault", ["401", "403-challenge", "429", "500", "html", "cut=1", "malformed=1", "reset"])
async def test_nothing_secret_in_errors(demo, fault):
    demo.faults["/Aichat"] = fault
    with pytest.raises(Exception) as caught:  # noqa: PT011  # whatever it is, it must not tell
        await Aichat.create_async(
            "", HI, cookies={"visit": "c00kie-secret"}, api_key="k3y-secret", headers={"x-mine": "h3ader-secret"}
        )
    error: BaseException | None = caught.value
    assert type(error).__module__ == "tolmach.errors"
    while error is not None:
        assert [secret for secret in SECRETS if secret in f"{error!r}{error}{vars(error)}"] == []
        error = error.__cause__ or error.__context__
