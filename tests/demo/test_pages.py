"""The demo's pages: each is as it was recorded, and a visitor who knows its protocol gets what the table says."""

import re
from collections.abc import AsyncIterator
from contextlib import aclosing
from html import unescape
from pathlib import Path

import pytest

from tolmach.chat import ChatRequest, Conversation, Delta, Done, Message
from tolmach.demo import Demo
from tolmach.demo.pages import PAGES, DemoPage, Outcome, markup
from tolmach.errors import AuthError, ChallengeRequired, StaleSession, TolmachError
from tolmach.protocols import create
from tolmach.protocols.base import Site
from tolmach.session import Session
from tolmach.testing.recordings import load
from tolmach.transport import Timeouts, read, shared
from tolmach.wire import Request

ERRORS: dict[Outcome, type[TolmachError]] = {
    "no-guests": AuthError,
    "stale": StaleSession,
    "login": AuthError,
    "challenge": ChallengeRequired,
}

ANSWERED = [page for page in PAGES if page.outcome not in ERRORS]
REFUSED = [page for page in PAGES if page.outcome in ERRORS]


def _name(page: object) -> str:
    return page.path if isinstance(page, DemoPage) else str(page)


@pytest.fixture
async def demo() -> AsyncIterator[Demo]:
    async with Demo(delay=0) as demo:
        yield demo


def _session(demo: Demo, page: DemoPage, **options: object) -> Session:
    protocol = create(page.protocol, {**page.options, **options})
    return Session(Site(name="page", url=f"{demo.url}{page.path}", protocol=protocol), shared())


async def _ask(
    session: Session, messages: list[Message], conversation: Conversation | None = None, stream: bool = True
) -> tuple[str, Conversation | None]:
    text, events = "", []
    turn = ChatRequest(messages=tuple(messages), conversation=conversation, stream=stream)
    async with aclosing(session.ask(turn)) as answer:
        async for event in answer:
            events.append(event)
            text += event.text if isinstance(event, Delta) else ""
            conversation = event if isinstance(event, Conversation) else conversation
    assert isinstance(events[-1], Done)
    return text, conversation


async def _two_questions(session: Session, stream: bool = True) -> tuple[str, str]:
    """The answers to a question and to a second one in the same conversation."""
    first = Message("user", "What is the first thing?")
    text, conversation = await _ask(session, [first], None, stream)
    second = Message("user", "And the second?")
    messages = [first, Message("assistant", text), second]
    return text, (await _ask(session, messages, conversation, stream))[0]


def _history(text: str) -> int:
    """How many messages the model behind the demo was sent."""
    found = re.search(r"hist=(\d+)", text)
    assert found is not None
    return int(found[1])


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("page", ANSWERED, ids=_name)
async def test_two_questions_in_one_conversation(demo: Demo, page: DemoPage, stream: bool) -> None:
    session = _session(demo, page)
    first, second = await _two_questions(session, stream)
    assert "> What is the first thing?" in first
    assert "> And the second?" in second
    if page.protocol != "ai-power":  # there all turns go in one text, and the demo's model counts one
        assert _history(second) == _history(first) + 2
    assert demo.log.answers[page.path] == 2
    assert demo.log.refusals[page.path] == (1 if page.outcome == "renews" else 0)


@pytest.mark.parametrize("page", REFUSED, ids=_name)
async def test_what_a_visitor_cannot_have_is_a_typed_error(demo: Demo, page: DemoPage) -> None:
    with pytest.raises(ERRORS[page.outcome]) as caught:
        await _ask(_session(demo, page), [Message("user", "Hello?")])
    assert caught.value.partial == ""


@pytest.mark.parametrize("page", [page for page in PAGES if len(page.bots) > 1], ids=_name)
async def test_each_bot_of_a_page_answers(demo: Demo, page: DemoPage) -> None:
    for bot in page.bots:
        number = bot if page.protocol == "ai-engine" else int(bot)
        text, _ = await _ask(_session(demo, page, bot_id=number), [Message("user", f"Hello {bot}?")])
        assert f"> Hello {bot}?" in text


async def test_an_expired_nonce_is_renewed_on_every_family(demo: Demo) -> None:
    for path in (
        "/ai-engine-3-chat",
        "/ai-engine-2.4.3-chat",
        "/ai-power-json",
        "/aipkit-2.3-main",
        "/aipkit-2.4-main",
    ):
        page = next(page for page in PAGES if page.path == path)
        demo.faults[path] = "nonce-expires"
        await _two_questions(_session(demo, page))
        assert (demo.log.answers[path], demo.log.refusals[path]) == (2, 1), path


async def _get(url: str) -> tuple[int, str, bytes]:
    exchange = await shared().send(Request("GET", url), Timeouts())
    return exchange.head.status, exchange.head.content_type, await read(exchange, 1 << 20)


@pytest.mark.parametrize(
    ("path", "rest", "status"),
    [
        ("/ai-engine-3-chat", "/wp-json/", 200),
        ("/ai-engine-3-moved", "/api/", 200),
        ("/ai-engine-3-moved", "/wp-json/", 404),
        ("/ai-engine-3-plain", "/index.php?rest_route=/", 200),
        ("/ai-engine-3-plain", "/?rest_route=/", 200),
        # As recorded: its server knows this path as well, only its pages do not name it.
        ("/ai-engine-3-plain", "/wp-json/", 200),
    ],
)
async def test_the_rest_index_is_where_the_page_says(demo: Demo, path: str, rest: str, status: int) -> None:
    got, kind, body = await _get(f"{demo.url}{path}{rest}")
    assert (got, kind) == (status, "application/json" if status == 200 else "text/html")
    assert (b"mwai" in body) is (status == 200)


@pytest.mark.parametrize(("path", "rest"), [("/ai-engine-3-plain", "/index.php"), ("/ai-engine-3-moved", "/api/")])
async def test_questions_go_to_the_rest_api_that_the_page_names(demo: Demo, path: str, rest: str) -> None:
    page = next(page for page in PAGES if page.path == path)
    await _ask(_session(demo, page), [Message("user", "Hello?")])
    chats = [seen.path for seen in demo.log.requests if seen.step == "chat"]
    assert [chat.startswith(f"{path}{rest}") for chat in chats] == [True]


async def test_the_frame_the_login_and_the_version_are_there(demo: Demo) -> None:
    _, _, outer = await _get(f"{demo.url}/aipkit-2.4-framed/")
    assert f'<iframe src="{demo.url}/aipkit-2.4-framed/framed/"'.encode() in outer
    assert b"data-config" not in outer
    assert b"data-config" in (await _get(f"{demo.url}/aipkit-2.4-framed/framed/"))[2]
    status, _, _ = await _get(f"{demo.url}/ai-engine-3-login/")
    assert status == 302
    assert b"user_pass" in (await _get(f"{demo.url}/ai-engine-3-login/wp-login.php"))[2]
    readme = "/ai-engine-2-chat/wp-content/plugins/ai-engine/readme.txt"
    assert b"Stable tag: 2.4.5" in (await _get(f"{demo.url}{readme}"))[2]


@pytest.mark.parametrize("page", [page for page in PAGES if page.outcome == "consent"], ids=_name)
async def test_a_page_that_asks_for_consent_says_so(demo: Demo, page: DemoPage) -> None:
    _, _, body = await _get(f"{demo.url}{page.path}/")
    assert b"gdpr" in body or b"requireConsentCompliance&quot;:true" in body


async def test_an_old_page_says_its_age_until_it_is_asked_for_with_a_query(demo: Demo) -> None:
    for path, old in (("/aipkit-2.4-cached/", True), ("/aipkit-2.4-cached/?x=1", False), ("/aipkit-2.4-main/", False)):
        exchange = await shared().send(Request("GET", f"{demo.url}{path}"), Timeouts())
        assert (int(exchange.head.header("age") or 0) > 86400) is old
        await exchange.aclose()


async def test_a_floating_bot_keeps_its_history(demo: Demo) -> None:
    page = next(page for page in PAGES if page.path == "/ai-power-widget")
    first, second = await _two_questions(_session(demo, page, history="native"))
    assert _history(second) == _history(first) + 2


# The table


def test_the_table_has_each_family_version_and_situation() -> None:
    assert {(page.protocol, page.version) for page in PAGES} == {
        ("ai-engine", "2.4.3"),
        ("ai-engine", "2.4.5"),
        ("ai-engine", "3.6.2"),
        ("ai-power", "1.9.18"),
        ("aipkit", "2.3"),
        ("aipkit", "2.4.71"),
    }
    assert len({page.path for page in PAGES}) == len(PAGES) >= 40
    outcomes = {"answers", "renews", "consent", "no-guests", "stale", "login", "challenge"}
    assert {page.outcome for page in PAGES} == outcomes
    assert {page.rest for page in PAGES} == {"/wp-json", "/api", "?rest_route="}


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_the_markup_shows_the_bots_of_the_table(page: DemoPage) -> None:
    text = unescape(markup(page.markup))
    ids = re.findall(r'"(?:botId|customId)":"?([\w-]+)"?|data-bot-id="(\d+)"', text)
    found = dict.fromkeys(one or two for one, two in ids if (one or two) != "null")
    assert [bot for bot in found if bot in page.bots] == list(page.bots)
    assert "wordpress.test" in text
    assert "<style" not in text


@pytest.mark.parametrize("name", sorted({page.markup for page in PAGES}))
def test_the_markup_is_that_of_the_recording(name: str) -> None:
    family, version, case = name.split("-", 2)
    folder = Path(__file__).parents[1] / "captures" / f"{family}-{version}"
    [path] = [path for path in (folder / f"page-{case}.json", folder / f"{case}.json") if path.is_file()]
    recorded = load(path).exchanges[0].body().decode()
    widgets = re.compile(r"""data-(?:system|params|config|bot-id|nonce|openai_stream_nav)=("[^"]*"|'[^']*')""")
    shown = [found[0] for found in widgets.finditer(markup(name))]
    assert len(shown) >= 2
    recorded = re.sub(r'(nonce(?:&quot;:&quot;|="))[0-9a-f]{10}', r"\1{nonce}", recorded, flags=re.I)
    known = [found[0] for found in widgets.finditer(recorded)]
    assert shown == known


async def test_the_index_lists_every_page(demo: Demo) -> None:
    index = (await _get(f"{demo.url}/"))[2].decode()
    assert [page.path for page in PAGES if f'href="{page.path}/"' not in index] == []


def test_what_is_wrong_with_a_page_can_be_changed() -> None:
    demo = Demo(faults={"/ai-power-cached": "429"})
    assert demo.faults["/ai-power-cached"] == "429"
    assert demo.faults["/aipkit-2.4-cached"] == "cached-page"
