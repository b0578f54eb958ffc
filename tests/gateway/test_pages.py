"""A row with only `page`: the gateway finds the assistant there, asks it for all callers, and goes nowhere else."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from tests.gateway.program import ask, raw
from tests.serving_pages import serving_page
from tolmach.configuration import Settings
from tolmach.configuration.problems import InvalidSettings
from tolmach.configuration.rendering import show
from tolmach.demo import Demo
from tolmach.demo.pages import PAGES, DemoPage
from tolmach.gateway.assembly import build
from tolmach.gateway.serving.server import serving
from tolmach.pages import cache as findings_cache
from tolmach.pages.assistants import Finding

ANSWERED = [page for page in PAGES if page.outcome not in ("no-guests", "stale", "login", "challenge")]
STATUS = {"no-guests": 401, "login": 401, "challenge": 502, "stale": 502}


def _name(page: DemoPage) -> str:
    return page.path


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(findings_cache, "_memory", {})


@pytest.fixture
async def demo() -> AsyncIterator[Demo]:
    async with Demo(delay=0) as demo:
        yield demo


def _settings(folder: Path, text: str) -> Settings:
    (folder / "tolmach.toml").write_text(f'[ledger]\nurl = "off"\n{text}', "utf-8")
    return Settings.load(folder / "tolmach.toml")


def _row(demo: Demo, path: str, more: str = "") -> str:
    return f'[providers.shop]\npage = "{demo.url}{path}/"\n{more}\n'


@asynccontextmanager
async def served(folder: Path, text: str) -> AsyncGenerator[str, None]:
    async with serving(build(_settings(folder, text))) as url:
        yield url


async def _asked(url: str, messages: list[dict[str, str]], **more: Any) -> str:
    body = json.dumps({"model": "shop/default", "messages": messages} | more).encode()
    status, _, answer = await raw(url, "POST", "/v1/chat/completions", body)
    assert status == 200, answer
    return str(json.loads(answer)["choices"][0]["message"]["content"])


def _looks(demo: Demo) -> int:
    return sum(seen.path.endswith("/readme.txt") for seen in demo.log.requests)


@pytest.mark.parametrize("page", ANSWERED, ids=_name)
async def test_two_questions_in_one_conversation(demo: Demo, tmp_path: Path, page: DemoPage) -> None:
    agreed = "accept_consent = true" if page.outcome == "consent" else ""
    async with served(tmp_path, _row(demo, page.path, agreed)) as url:
        messages = [{"role": "user", "content": "What is the first thing?"}]
        first = await _asked(url, messages)
        pages = demo.log.steps[page.path, "page"]
        messages += [{"role": "assistant", "content": first}, {"role": "user", "content": "And the second?"}]
        assert "> What is the first thing?" in first
        assert "> And the second?" in await _asked(url, messages)
    assert demo.log.answers[page.path] == 2
    assert demo.log.steps[page.path, "page"] == pages


@pytest.mark.parametrize("page", [page for page in PAGES if page.outcome in STATUS], ids=_name)
async def test_what_a_visitor_cannot_have_is_told(demo: Demo, tmp_path: Path, page: DemoPage) -> None:
    async with served(tmp_path, _row(demo, page.path)) as url:
        status, _, body = await ask(url, "shop/default")
    assert status == STATUS[page.outcome], body


async def test_callers_at_once_share_one_look(demo: Demo, tmp_path: Path) -> None:
    async with served(tmp_path, _row(demo, "/ai-engine-3-chat")) as url:
        answers = await asyncio.gather(*(ask(url, "shop/default", f"Number {n}?") for n in range(20)))
    assert [status for status, *_ in answers] == [200] * 20
    assert _looks(demo) == 1


async def test_a_stream_and_the_list_of_models(demo: Demo, tmp_path: Path) -> None:
    async with served(tmp_path, _row(demo, "/aipkit-2.4-two", 'bot = "6"\nmodels = ["helper"]')) as url:
        status, _, body = await ask(url, "helper", stream=True)
        models = json.loads((await raw(url, "GET", "/v1/models"))[2])
    assert status == 200
    assert body.endswith(b"data: [DONE]\n\n")
    assert [model["id"] for model in models["data"]] == ["helper", "shop/helper"]


async def test_consent_and_the_limit_are_told_before_anything_is_sent(demo: Demo, tmp_path: Path) -> None:
    async with served(tmp_path, _row(demo, "/ai-engine-3-consent")) as url:
        status, _, body = await ask(url, "shop/default")
        assert (status, b"consent" in body) == (401, True)
    async with served(tmp_path, _row(demo, "/ai-engine-3-chat")) as url:
        status, _, body = await ask(url, "shop/default", "x" * 513)
        assert (status, b"513 characters" in body) == (400, True)
    assert demo.log.chats("/ai-engine-3-consent") == demo.log.chats("/ai-engine-3-chat") == 0


async def test_a_refused_finding_is_made_again(demo: Demo, tmp_path: Path) -> None:
    address = f"{demo.url}/ai-engine-3-chat/"
    async with served(tmp_path, _row(demo, "/ai-engine-3-chat")) as url:
        assert (await ask(url, "shop/default"))[0] == 200
    finding = findings_cache.kept(address)
    assert finding is not None
    found = finding.found[0]
    findings_cache.keep(address, Finding((structs.replace(found, row=found.row | {"page": "/before/"}),), finding.at))
    async with served(tmp_path, _row(demo, "/ai-engine-3-chat")) as url:
        assert (await ask(url, "shop/default"))[0] == 200
    assert _looks(demo) == 2


# Where it goes


@pytest.mark.parametrize(("allow", "status"), [("", 502), ('[gateway.egress]\nallow = ["127.0.0.0/8"]\n', 200)])
async def test_what_the_page_names_is_asked_only_where_the_operator_allows(
    demo: Demo, tmp_path: Path, allow: str, status: int
) -> None:
    frame = f'<iframe src="{demo.url}/ai-engine-3-chat/"></iframe>'
    async with serving_page(frame, host="localhost") as page:
        async with served(tmp_path, f'{allow}[providers.shop]\npage = "{page}"\n') as url:
            got, _, body = await ask(url, "shop/default")
    assert got == status, body
    assert demo.log.chats("/ai-engine-3-chat") == (1 if status == 200 else 0)
    assert (demo.log.connections > 0) is (status == 200)


async def test_a_finding_made_elsewhere_opens_no_way_past_the_guard(demo: Demo, tmp_path: Path) -> None:
    async with served(tmp_path, _row(demo, "/ai-engine-3-chat")) as url:
        assert (await ask(url, "shop/default"))[0] == 200
    finding = findings_cache.kept(f"{demo.url}/ai-engine-3-chat/")
    assert finding is not None
    async with serving_page("<p>nothing</p>", host="localhost") as page:
        findings_cache.keep(page, finding)
        async with served(tmp_path, f'[providers.shop]\npage = "{page}"\n') as url:
            status, _, body = await ask(url, "shop/default")
    assert (status, b"127.0.0.1 is no public address" in body) == (502, True), body
    assert demo.log.chats("/ai-engine-3-chat") == 1


# What the configuration takes


@pytest.mark.parametrize(
    ("row", "key", "says"),
    [
        ('page = "https://"', "page", "the http or https address of a page"),
        ('page = "https://u:p@shop.example"', "page", "no name and password"),
        ('page = "https://shop.example"\nproxy = "http://127.0.0.1:1"', "proxy", "is asked without one"),
        ('page = "https://shop.example"\nbot_id = "x"', "bot_id", "page alone says what speaks"),
        ('page = "https://shop.example"\nallow = ["10.0.0.0/8"]', "allow", "unknown key"),
        ('page = "https://shop.example"\naccept_consent = "yes"', "accept_consent", "true or false"),
        ('page = "/chat/"', "", "needs url and protocol"),
    ],
)
def test_what_is_wrong_with_a_row(tmp_path: Path, row: str, key: str, says: str) -> None:
    with pytest.raises(InvalidSettings) as caught:
        _settings(tmp_path, f"[providers.shop]\n{row}\n")
    [problem] = caught.value.problems
    assert problem.key == f"providers.shop{f'.{key}' if key else ''}"
    assert says in problem.text


def test_page_is_still_an_option_of_protocols(tmp_path: Path) -> None:
    text = '[providers.shop]\nprotocol = "ai-engine"\nurl = "https://shop.example"\npage = "/chat/"\n'
    assert _settings(tmp_path, text).providers["shop"].options == {"page": "/chat/"}


def test_a_row_is_shown_as_it_was_written(tmp_path: Path) -> None:
    text = '[providers.shop]\npage = "https://shop.example/help?key=hush"\naccept_consent = true\n'
    shown = [one for one in show(_settings(tmp_path, text)) if one.path[:2] == ("providers", "shop")]
    written = {one.key: (one.value, one.source) for one in shown if one.source != "default"}
    assert written == {
        "providers.shop.page": ("https://shop.example/help?…", "tolmach.toml:4"),
        "providers.shop.accept_consent": (True, "tolmach.toml:5"),
    }


def test_the_guard_follows_the_settings(tmp_path: Path) -> None:
    text = '[gateway.egress]\nallow = ["10.0.0.0/8"]\n[providers.shop]\npage = "https://shop.example/help/"\n'
    gateway = build(_settings(tmp_path, text))
    [provider] = gateway.targets.providers()
    assert provider.site.egress == ("10.0.0.0/8",)
    assert provider.site.url == "https://shop.example/help/"
