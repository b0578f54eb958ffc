"""`Client(page=...)`: discovery, then the question; the finding is kept, and made again when the site refuses it."""

import asyncio
import re
import stat
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from tests.serving_pages import serving_page
from tolmach import AsyncClient, ChatCompletion, Client
from tolmach.demo import Demo
from tolmach.demo.pages import PAGES, DemoPage, Outcome
from tolmach.demo.server import serve_in_thread
from tolmach.errors import (
    AuthError,
    ChallengeRequired,
    ConfigError,
    ConsentNeeded,
    ContextTooLong,
    ProtocolDrift,
    StaleSession,
    TimedOut,
    TolmachError,
)
from tolmach.pages import cache as findings_cache
from tolmach.pages import session
from tolmach.pages.assistants import Finding, find
from tolmach.pages.cache import forget, keep, kept_file

ERRORS: dict[Outcome, type[TolmachError]] = {
    "no-guests": AuthError,
    "stale": StaleSession,
    "login": AuthError,
    "challenge": ChallengeRequired,
}
ANSWERED = [page for page in PAGES if page.outcome not in ERRORS]
REFUSED = [page for page in PAGES if page.outcome in ERRORS]
CHAT = next(page for page in PAGES if page.path == "/ai-engine-3-chat")
QUESTION = [{"role": "user", "content": "Hello?"}]


def _name(page: DemoPage) -> str:
    return page.path


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of findings; nothing is known before the test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    _as_a_new_process(monkeypatch)
    return tmp_path / "tolmach" / "discovered.json"


def _as_a_new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(findings_cache, "_memory", {})


@pytest.fixture
async def demo() -> AsyncIterator[Demo]:
    async with Demo(delay=0) as demo:
        yield demo


def _address(demo: Demo, page: DemoPage = CHAT) -> str:
    return f"{demo.url}{page.path}/"


def _read(file: Path) -> str:
    return file.read_text("utf-8") if file.exists() else ""


def _write(file: Path, content: bytes) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(content)


def _mode(file: Path) -> int:
    return stat.S_IMODE(file.stat().st_mode)


def _looks(demo: Demo) -> int:
    """How often discovery looked: only it reads the plugin's readme."""
    return sum(seen.path.endswith("/readme.txt") for seen in demo.log.requests)


async def _text(client: AsyncClient) -> str:
    answer = await client.chat.completions.create(messages=QUESTION)
    return str(answer.choices[0].message.content)


# Every page of the demo


@pytest.mark.parametrize("page", ANSWERED, ids=_name)
async def test_two_questions_in_one_conversation(demo: Demo, page: DemoPage) -> None:
    client = AsyncClient(page=_address(demo, page), accept_consent=page.outcome == "consent")
    messages = list(QUESTION)
    first = await client.chat.completions.create(messages=messages)
    pages = demo.log.steps[page.path, "page"]
    assert "> Hello?" in str(first.choices[0].message.content)
    messages += [{"role": "assistant", "content": str(first.choices[0].message.content)}]
    messages += [{"role": "user", "content": "And the second?"}]
    stream = await client.chat.completions.create(messages=messages, conversation=first.conversation, stream=True)
    second = "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])
    assert "> And the second?" in second
    assert demo.log.answers[page.path] == 2
    assert demo.log.steps[page.path, "page"] == pages > 0, "the second question reads no page"


@pytest.mark.parametrize("page", REFUSED, ids=_name)
async def test_what_a_visitor_cannot_have_is_a_typed_error(demo: Demo, page: DemoPage) -> None:
    with pytest.raises(ERRORS[page.outcome]) as caught:
        await _text(AsyncClient(page=_address(demo, page)))
    assert caught.value.provider == demo.url.removeprefix("http://")


def test_without_async() -> None:
    with serve_in_thread(delay=0) as demo, Client(page=f"{demo.url}{CHAT.path}/") as client:
        answer = client.chat.completions.create(messages=QUESTION)
        assert isinstance(answer, ChatCompletion)
        assert "> Hello?" in str(answer.choices[0].message.content)
        assert client.assistant().found.bot == "chatbot-main1"


async def test_an_api_is_asked_with_its_key(demo: Demo) -> None:
    client = AsyncClient(page=f"{demo.url}/v1", api_key="sk-test")
    assert "> Hello?" in await _text(client)
    assert (await client.assistant()).found.kind == "api"


# Which assistant, and on what terms


async def test_the_first_is_asked_unless_another_is_chosen(demo: Demo) -> None:
    page = next(page for page in PAGES if page.path == "/ai-engine-3-two")
    first = AsyncClient(page=_address(demo, page))
    assistant = await first.assistant()
    assert (assistant.found.bot, [one.bot for one in assistant.others]) == ("chatbot-main1", ["chatbot-up1"])
    assert assistant.found.greeting == "Привет! Чем помочь? 👋"
    second = AsyncClient(page=_address(demo, page), bot="chatbot-up1")
    assert (await second.assistant()).found.bot == "chatbot-up1"
    assert "> Hello?" in await _text(second)
    assert _looks(demo) == 1, "both are of one finding"


async def test_a_bot_that_the_page_does_not_have(demo: Demo) -> None:
    with pytest.raises(ConfigError, match=r"bot 'none': .*; there are: chatbot-main1"):
        await _text(AsyncClient(page=_address(demo), bot="none"))


@pytest.mark.parametrize("page", [page for page in PAGES if page.outcome == "consent"], ids=_name)
async def test_nothing_is_asked_without_the_consent_that_the_page_wants(demo: Demo, page: DemoPage) -> None:
    with pytest.raises(ConsentNeeded, match="the site asks its visitors for consent") as caught:
        await _text(AsyncClient(page=_address(demo, page)))
    assert "--accept-consent" in caught.value.hint
    assert demo.log.chats(page.path) == 0


@pytest.mark.parametrize(
    ("path", "fits", "too_long", "said"),
    [
        ("/ai-engine-2-chat", "é" * 256, "é" * 257, "514 bytes"),
        ("/ai-engine-3-chat", "é" * 512, "é" * 513, "513 characters"),
    ],
)
async def test_a_message_over_the_limit_is_not_sent(demo: Demo, path: str, fits: str, too_long: str, said: str) -> None:
    client = AsyncClient(page=f"{demo.url}{path}/")
    with pytest.raises(ContextTooLong, match=f"the message has {said}, and the site takes 512 at most"):
        await client.chat.completions.create(messages=[{"role": "user", "content": too_long}])
    assert demo.log.chats(path) == 0
    await client.chat.completions.create(messages=[{"role": "user", "content": fits}])
    assert demo.log.chats(path) == 1


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"page": "shop.example"}, "page: the http or https address"),
        ({"page": "https://user:secret@shop.example"}, "page: no name and password"),
        ({"page": "https://shop.example", "provider": "ChatGptt"}, "page= goes without"),
        ({"page": "https://shop.example", "bot_id": "x"}, "page= goes without"),
        ({"bot": "x"}, "bot= and accept_consent= go with page="),
        ({"page": "https://shop.example", "bot": 5}, "Expected `str`"),
    ],
)
def test_what_does_not_fit_together(given: dict[str, str], says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)):
        AsyncClient(**given)  # type: ignore[arg-type]


async def test_assistant_is_for_pages() -> None:
    with pytest.raises(ConfigError, match="for a client with page="):
        await AsyncClient(provider="ChatGptt").assistant()


# What is kept


async def test_a_finding_is_kept_for_the_next_process(demo: Demo, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await _text(AsyncClient(page=_address(demo)))
    assert _mode(cache) == 0o600
    assert kept_file() == cache
    _as_a_new_process(monkeypatch)
    assert "> Hello?" in await _text(AsyncClient(page=_address(demo)))
    assert _looks(demo) == 1
    forget(_address(demo))
    assert "> Hello?" in await _text(AsyncClient(page=_address(demo)))
    assert _looks(demo) == 2


async def test_the_file_has_no_nonce_and_no_key(demo: Demo, cache: Path) -> None:
    client = AsyncClient(page=f"{demo.url}/ai-power-shortcode/", headers={"x-own": "hush-1"}, cookies={"own": "hush-2"})
    await _text(client)
    await _text(AsyncClient(page=f"{demo.url}/v1", api_key="hush-3"))
    text = _read(cache)
    assert "ai-power-shortcode" in text
    assert "hush" not in text
    assert client._endpoint is not None
    nonce = client._sessions.get(client._endpoint, client._access)._known.session.state.token("nonce")  # type: ignore[attr-defined]
    assert len(nonce) == 10
    assert nonce not in text


async def test_an_address_with_a_key_in_its_query_is_not_written(demo: Demo, cache: Path) -> None:
    client = AsyncClient(page=f"{_address(demo)}?access_token=hush")
    await _text(client)
    await _text(client)
    assert _looks(demo) == 1
    assert _read(cache) == ""


@pytest.mark.parametrize(
    "content", [b"", b"\xff{", b'{"version":2,"pages":{}}', b'{"version":1,"pages":{"http://x":3}}']
)
async def test_a_file_that_cannot_be_read_is_written_anew(demo: Demo, cache: Path, content: bytes) -> None:
    _write(cache, content)
    assert "> Hello?" in await _text(AsyncClient(page=_address(demo)))
    assert CHAT.path in _read(cache)


async def test_a_folder_that_cannot_be_written_fails_no_question(demo: Demo, cache: Path) -> None:
    _write(cache.parent, b"a file where the folder would be")
    client = AsyncClient(page=_address(demo))
    assert "> Hello?" in await _text(client)
    assert "> Hello?" in await _text(client)
    assert _looks(demo) == 1


async def test_a_finding_of_the_day_before_is_made_again(demo: Demo) -> None:
    found = (await AsyncClient(page=_address(demo)).assistant()).found
    keep(_address(demo), Finding((found,), time.time() - 86_401))
    assert "> Hello?" in await _text(AsyncClient(page=_address(demo)))
    assert _looks(demo) == 2


# When the site has changed


async def test_a_refused_finding_is_made_again(demo: Demo) -> None:
    found = (await AsyncClient(page=_address(demo)).assistant()).found
    before = structs.replace(found, row=found.row | {"page": "/where-it-was/"})
    keep(_address(demo), Finding((before,), time.time()))
    client = AsyncClient(page=_address(demo))
    assert "> Hello?" in await _text(client)
    assert (await client.assistant()).found.row == found.row
    assert _looks(demo) == 2
    assert "> Hello?" in await _text(AsyncClient(page=_address(demo)))
    assert _looks(demo) == 2, "the new finding is kept"


@pytest.mark.parametrize("anew", [False, True], ids=["a session that worked", "a new session"])
async def test_a_site_that_goes_on_refusing_is_looked_at_once(
    demo: Demo, monkeypatch: pytest.MonkeyPatch, anew: bool
) -> None:
    client = AsyncClient(page=_address(demo))
    await _text(client)
    if anew:
        await client.close()
    demo.faults[CHAT.path] = "plugin-off"
    looks = []

    async def counted(*given: Any) -> Finding:
        looks.append(given)
        return await find(*given)

    monkeypatch.setattr(session, "find", counted)
    for _ in range(3):
        with pytest.raises(ProtocolDrift):
            await _text(client)
    assert len(looks) == 1


async def test_many_first_questions_look_once(demo: Demo) -> None:
    client = AsyncClient(page=_address(demo))
    answers = await asyncio.gather(*(_text(client) for _ in range(50)))
    assert all("> Hello?" in text for text in answers)
    assert _looks(demo) == 1


async def test_who_waits_for_anothers_look_goes_on_when_that_one_leaves(demo: Demo) -> None:
    until, asked = asyncio.Event(), asyncio.Event()
    async with serving_page(f'<iframe src="{_address(demo)}"></iframe>', until=until, asked=asked) as url:
        client = AsyncClient(page=url)
        leaving = asyncio.ensure_future(_text(client))
        await asked.wait()
        waiting = asyncio.ensure_future(_text(client))
        await asyncio.sleep(0)
        leaving.cancel()
        until.set()
        assert "> Hello?" in await waiting


async def test_the_time_limit_of_a_question_covers_the_look(demo: Demo) -> None:
    async with serving_page("", until=asyncio.Event()) as url:
        with pytest.raises(TimedOut):
            await _text(AsyncClient(page=url, timeout=0.2))


async def test_what_stands_on_another_origin_is_sent_no_credentials(demo: Demo) -> None:
    async with serving_page(f'<iframe src="{_address(demo)}"></iframe>') as url:
        client = AsyncClient(page=url, headers={"x-own": "secret"}, api_key="secret", cookies={"own": "secret"})
        assert "> Hello?" in await _text(client)
        assert client._endpoint is not None
        asked = client._sessions.get(client._endpoint, client._access)
        inner = asked._known.session  # type: ignore[attr-defined]
        assert (inner.site.api_key, inner.site.headers) == ("", {})
        assert "secret" not in [cookie.value for cookie in inner.cookies]
