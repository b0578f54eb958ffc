"""`tolmach ask --url` and `tolmach chat --url`: the assistant of a page is found, and asked."""

import asyncio
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tolmach.chat import ChatRequest, Event, Message
from tolmach.configuration import Settings, provider_site
from tolmach.demo.pages import PAGES, DemoPage
from tolmach.demo.server import ThreadedDemo
from tolmach.errors import ContextTooLong
from tolmach.pages.cache import forget, kept_file
from tolmach.providers.base import open_session

ANSWERED = [page for page in PAGES if page.outcome not in ("no-guests", "stale", "login", "challenge")]


def _name(page: DemoPage) -> str:
    return page.path


@pytest.fixture
def address(demo: ThreadedDemo, home: Path, monkeypatch: pytest.MonkeyPatch):
    """The address of a page of the demo, of which nothing is known."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))

    def address(path: str) -> str:
        url = f"{demo.url}{path}/"
        forget(url)
        return url

    return address


def _looks(demo: ThreadedDemo, path: str) -> int:
    """How often discovery looked at a page of AI Engine: only it reads the plugin's readme."""
    return sum(seen.path.startswith(path) and seen.path.endswith("/readme.txt") for seen in demo.log.requests)


@pytest.mark.parametrize("page", ANSWERED, ids=_name)
def test_every_page_is_asked(run: Run, address, page: DemoPage) -> None:
    agreed = ("--accept-consent",) if page.outcome == "consent" else ()
    result = run("ask", "--url", address(page.path), *agreed, "Are you open?")
    assert result.exit_code == 0, result.output
    assert "> Are you open?" in result.stdout
    assert ("--bot ID chooses" in result.stderr) is (len(page.bots) > 1)


@pytest.mark.parametrize(
    "path", ["/ai-engine-2.4.3-cached", "/ai-engine-3-two", "/ai-power-stream", "/aipkit-2.4-main"]
)
def test_two_questions_in_one_conversation(run: Run, address, path: str) -> None:
    result = run("chat", "--url", address(path), input="First?\nSecond?\n")
    assert result.exit_code == 0, result.output
    first, second = result.stdout.split("Готово ✅")[:2]
    assert "> First?" in first
    assert "> Second?" in second


def test_the_greeting_comes_first_in_a_chat(run: Run, address) -> None:
    result = run("chat", "--url", address("/ai-engine-3-two"), "--bot", "chatbot-up1", input="Hello\n")
    lines = result.stderr.splitlines()
    assert lines[0] == "Hi! How can I help you?"
    assert lines[1].startswith("AI (chatbot-up1), ai-engine 3.6.2, 512 characters a message")
    assert lines[2] == "this asks AI (chatbot-up1); also on the page: AI (chatbot-main1) (--bot ID chooses)"
    assert "> Hello" in result.stdout


def test_ask_shows_them_only_when_it_is_told_to(run: Run, address) -> None:
    url = address("/ai-engine-3-chat")
    assert run("ask", "--url", url, "Hello").stderr == ""
    told = run("ask", "-v", "--url", url, "Hello")
    assert told.stderr.splitlines()[0] == "tolmach: Привет! Чем помочь? 👋"
    assert "512 characters a message" in told.stderr
    assert "Привет! Чем помочь" not in told.stdout


@pytest.mark.parametrize("command", ["ask", "chat"])
def test_consent_is_asked_for(run: Run, address, demo: ThreadedDemo, command: str) -> None:
    before = demo.log.chats("/aipkit-2.4-consent")
    words = ("Hello",) if command == "ask" else ()
    result = run(command, "--url", address("/aipkit-2.4-consent"), *words, input="Hello\n")
    assert result.exit_code == 4
    assert "ConsentNeeded: the site asks its visitors for consent before they chat: Consent Required" in result.stderr
    assert "agree: --accept-consent" in result.stderr
    assert demo.log.chats("/aipkit-2.4-consent") == before


def test_a_message_over_the_limit_is_not_sent(run: Run, address, demo: ThreadedDemo) -> None:
    before = demo.log.chats("/ai-engine-2-chat")
    result = run("ask", "--url", address("/ai-engine-2-chat"), "é" * 300)
    assert result.exit_code == 4
    assert "the message has 600 bytes, and the site takes 512 at most" in result.stderr
    assert demo.log.chats("/ai-engine-2-chat") == before


def test_a_saved_row_keeps_to_the_limit_too(run: Run, address, demo: ThreadedDemo, home: Path) -> None:
    before = demo.log.chats("/ai-engine-3-moved")
    saved = run("discover", address("/ai-engine-3-moved"), "--save", "shop", "-c", str(home / "tolmach.toml"))
    assert saved.exit_code == 0, saved.output
    session = open_session(*provider_site(Settings.load(home / "tolmach.toml").providers["shop"]))
    turn = ChatRequest(messages=(Message("user", "é" * 513),))

    async def asked() -> list[Event]:
        return [event async for event in session.ask(turn)]

    with pytest.raises(ContextTooLong, match="513 characters"):
        asyncio.run(asked())
    assert demo.log.chats("/ai-engine-3-moved") == before


def test_what_was_found_is_kept_until_it_is_forgotten(run: Run, address, demo: ThreadedDemo) -> None:
    url, path = address("/ai-engine-3-plain"), "/ai-engine-3-plain"
    before = _looks(demo, path)
    assert run("ask", "--url", url, "one").exit_code == 0
    assert run("ask", "--url", url, "two").exit_code == 0
    assert _looks(demo, path) == before + 1
    assert path in kept_file().read_text("utf-8")
    assert run("ask", "--url", url, "--fresh", "three").exit_code == 0
    assert _looks(demo, path) == before + 2


@pytest.mark.parametrize(
    ("path", "code", "says"),
    [
        ("/ai-engine-3-login", 4, "AuthError: no assistant that can be asked was found on the page; "),
        ("/ai-engine-3-challenge", 6, "ChallengeRequired: no assistant that can be asked was found on the page"),
        ("/nothing-here", 4, "AssistantGone: no assistant that can be asked was found on the page"),
    ],
)
def test_what_stands_before_an_assistant(run: Run, address, path: str, code: int, says: str) -> None:
    result = run("ask", "--url", address(path), "Hello")
    assert result.exit_code == code
    assert says in result.stderr
    assert '"type":"error"' in run("ask", "--json", "--url", address(path), "Hello").stdout


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("--url", "https://shop.example", "-p", "ChatGptt"), "--url goes without --provider"),
        (("--url", "https://shop.example", "--base-url", "https://shop.example"), "--url goes without"),
        (("--url", "shop.example"), "is no http or https address"),
        (("--bot", "x", "-p", "ChatGptt"), "go with --url"),
        (("--fresh", "-p", "ChatGptt"), "go with --url"),
    ],
)
def test_what_does_not_fit_together(run: Run, args: tuple[str, ...], says: str) -> None:
    result = run("ask", *args, "Hello")
    assert result.exit_code == 2
    assert says in result.stderr


def test_a_provider_of_the_environment_gives_way(run: Run, address, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOLMACH_PROVIDER", "ChatGptt")
    monkeypatch.setenv("TOLMACH_MODEL", "gpt-4o")
    assert run("ask", "--url", address("/aipkit-2.3-main"), "Hello").exit_code == 0
