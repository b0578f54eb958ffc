"""The fetching for discovery: over real sockets, politely, and bounded."""

import asyncio
import gzip
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tolmach.client.clients import AsyncClient
from tolmach.demo.pages import PAGES, DemoPage
from tolmach.demo.server import ThreadedDemo, serve_in_thread
from tolmach.discovery import Findings, Page
from tolmach.errors import ConfigError, ConnectFailed, TolmachError
from tolmach.pages.search import USER_AGENT, Manners, Visitor, discover
from tolmach.transport import create

ENGINE = "<div class='mwai-chatbot-container' data-system='{&quot;botId&quot;:&quot;%s&quot;}'></div>"
Answer = tuple[int, dict[str, str], bytes]


class Web:
    """A small web server: path -> answer; notes what it was asked, and how many asked at once."""

    def __init__(self, answers: dict[str, Answer | str]) -> None:
        self.answers = answers
        self.asked: list[str] = []
        self.agents: set[str] = set()
        self.most = 0
        self._open = 0
        self._lock = threading.Lock()
        web = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                with web._lock:
                    web._open += 1
                    web.most = max(web.most, web._open)
                    web.asked.append(self.path)
                    web.agents.add(self.headers.get("user-agent", ""))
                answer = web.answers.get(self.path, (404, {}, b"none"))
                status, headers, body = (200, {}, answer.encode()) if isinstance(answer, str) else answer
                self.send_response(status)
                for name, value in ({"content-type": "text/html"} | headers).items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                try:
                    self.wfile.write(body)
                except OSError:
                    self.close_connection = True  # the visitor had read enough
                with web._lock:
                    web._open -= 1

            do_POST = do_GET

            def log_message(self, format: str, *args: object) -> None:
                """Nothing is printed."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def web() -> Iterator[Callable[[dict[str, Answer | str]], Web]]:
    running: list[Web] = []

    def start(answers: dict[str, Answer | str]) -> Web:
        running.append(Web(answers))
        return running[-1]

    yield start
    for one in running:
        one.server.shutdown()
        one.server.server_close()


@pytest.fixture(scope="module")
def demo() -> Iterator[ThreadedDemo]:
    with serve_in_thread(delay=0.0) as running:
        yield running


def look(url: str, *, crawl: int = 0, manners: Manners | None = None) -> tuple[Findings, Visitor]:
    async def run() -> tuple[Findings, Visitor]:
        transport = create()
        try:
            visitor = Visitor(transport, manners)
            return await discover(url, visitor.fetch, crawl=crawl, visitor=visitor), visitor
        finally:
            await transport.aclose()

    return asyncio.run(run())


# The demo: a page for each family and version


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.path[1:])
def test_what_stands_on_a_page_is_found_and_answers_twice(demo, page):
    findings, _ = look(f"{demo.url}{page.path}/")
    if page.outcome in ("login", "challenge"):
        assert findings.found == ()
        assert [missing.kind for missing in findings.missing] == [page.outcome]
        return
    assert [(found.protocol, found.bot) for found in findings.found] == [(page.protocol, bot) for bot in page.bots]
    kinds = {missing.kind for missing in findings.found[0].missing}
    assert ("consent" in kinds) == (page.outcome == "consent")
    if page.outcome in ("renews", "stale"):
        assert "cached-nonce" in kinds
    outcome = asyncio.run(ask_twice(findings.found[0].row))
    assert outcome == {"no-guests": "AuthError", "stale": "StaleSession"}.get(page.outcome, "answered twice"), page


async def ask_twice(row: dict[str, Any]) -> str:
    """Two questions of one conversation, to a row as it was found."""
    options = {key: value for key, value in row.items() if key not in ("url", "protocol")}
    client = AsyncClient(base_url=row["url"], protocol=row["protocol"], strict=False, **options)
    messages = [{"role": "user", "content": "first"}]
    try:
        first = await client.chat.completions.create(messages=messages)
        messages += [{"role": "assistant", "content": first.choices[0].message.content or ""}]
        messages += [{"role": "user", "content": "second"}]
        second = await client.chat.completions.create(messages=messages, conversation=first.conversation)
    except TolmachError as error:
        return type(error).__name__
    return "answered twice" if "second" in (second.choices[0].message.content or "") else "not answered"


@pytest.mark.parametrize("page", [page for page in PAGES if page.version.startswith(("2.4.3", "3.6"))][:3])
def test_the_version_comes_from_the_readme_of_the_plugin(demo, page: DemoPage):
    findings, _ = look(f"{demo.url}{page.path}/")
    assert findings.found[0].version == page.version


def test_a_guest_who_is_shut_out_is_told_before_a_question(demo):
    findings, _ = look(f"{demo.url}/ai-engine-3-no-guests/")
    assert findings.found[0].guests is False
    assert [missing.kind for missing in findings.found[0].missing] == ["login"]


def test_apis_are_found_by_their_lists(demo):
    (ollama,), (openai,) = look(f"{demo.url}/ollama")[0].found, look(f"{demo.url}/v1")[0].found
    assert (ollama.protocol, openai.protocol) == ("ollama", "openai")
    assert ollama.row["url"] == f"{demo.url}/ollama"
    assert [missing.kind for missing in openai.missing] == ["key"]
    keyed = Manners(headers={"authorization": "Bearer x"})
    assert look(f"{demo.url}/v1", manners=keyed)[0].found[0].models


# Manners


def test_one_request_at_a_time_and_a_name(web):
    site = web({"/": '<iframe src="/a"></iframe><iframe src="/b"></iframe><iframe src="/a"></iframe>'})
    _, visitor = look(f"{site.url}/")
    assert site.asked == ["/", "/a", "/b"]
    assert (site.most, visitor.fetched) == (1, 3)
    assert site.agents == {USER_AGENT}
    look(f"{site.url}/", manners=Manners(user_agent="me/1"))
    assert site.agents == {USER_AGENT, "me/1"}


def test_between_two_requests_to_a_host_there_is_a_pause(monkeypatch):
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    async def get(self: Visitor, url: str, method: str) -> Page:
        return Page(url, b"")

    monkeypatch.setattr(asyncio, "sleep", sleep)
    monkeypatch.setattr(Visitor, "_get", get)

    async def run() -> None:
        visitor = Visitor(create(), Manners(pause=60.0))
        for url in (
            "https://a.example/1",
            "https://b.example/",
            "https://a.example/2",
            "http://127.0.0.1/",
            "http://127.0.0.1/",
        ):
            await visitor.fetch(url)
        visitor.delays["b.example"] = 90.0
        await visitor.fetch("https://b.example/2")

    asyncio.run(run())
    assert [round(seconds) for seconds in waited] == [60, 90]


def test_headers_for_a_site_go_to_no_other(web):
    other = web({"/": "x"})
    heard: list[str | None] = []

    class Noting:
        async def send(self, request, timeouts):
            heard.append(request.headers.get("authorization"))
            raise ConnectFailed("enough")

        async def aclose(self) -> None:
            heard.append("closed")

    async def run() -> None:
        visitor = Visitor(Noting(), Manners(headers={"authorization": "Bearer x"}))
        for url in ("https://a.example/", "https://a.example/1", other.url):
            with pytest.raises(ConnectFailed):
                await visitor.fetch(url)

    asyncio.run(run())
    assert heard == ["Bearer x", "Bearer x", None]


# Bounds


def test_a_long_page_is_cut_also_when_it_was_small_on_the_way(web):
    bomb = gzip.compress(b"<p>" + b"x" * (64 << 20), 9)
    site = web({"/": (200, {"content-encoding": "gzip"}, bomb)})
    findings, _ = look(f"{site.url}/", manners=Manners(page_bytes=100_000))
    assert [missing.kind for missing in findings.missing] == ["page"]
    assert "longer" in findings.missing[0].text


def test_the_number_of_pages_is_bounded(web):
    frames = "".join(f'<iframe src="/{number}"></iframe>' for number in range(9))
    site = web({"/": frames} | {f"/{number}": frames.replace("/", f"/{number}") for number in range(9)})
    _, visitor = look(f"{site.url}/", manners=Manners(fetches=5))
    assert (len(site.asked), visitor.fetched) == (5, 5)


def test_redirects_in_a_circle_end(web):
    site = web({"/": (302, {"location": "/"}, b"")})
    with pytest.raises(TolmachError, match="redirects"):
        look(f"{site.url}/")
    assert len(site.asked) == 6


def test_what_is_no_address_is_refused():
    with pytest.raises(ConfigError, match="no http or https address"):
        look("ftp://a.example/")


# Crawling

PAGES_OF_A_SITE: dict[str, Answer | str] = {
    "/": '<a href="/help">help</a> <a href="/secret/a">secret</a> <a href="https://other.example/">other</a>',
    "/help": '<a href="/help/chat">chat</a>',
    "/help/chat": '<a href="/help/chat/deep">deep</a>' + ENGINE % "two-links-away",
    "/help/chat/deep": ENGINE % "too-deep",
    "/secret/a": ENGINE % "forbidden",
    "/robots.txt": (200, {"content-type": "text/plain"}, b"User-agent: tolmach\nDisallow: /secret/\nCrawl-delay: 3\n"),
}


def test_a_crawl_goes_two_links_deep_and_heeds_robots_txt(web):
    site = web(PAGES_OF_A_SITE)
    findings, visitor = look(f"{site.url}/", crawl=9)
    assert [found.bot for found in findings.found] == ["two-links-away"]
    assert "/secret/a" not in site.asked
    assert "/help/chat/deep" not in site.asked
    assert visitor.delays == {site.url.removeprefix("http://"): 3.0}


def test_without_a_crawl_no_link_is_followed(web):
    site = web(PAGES_OF_A_SITE)
    assert look(f"{site.url}/")[0].found == ()
    assert site.asked == ["/"]


@pytest.mark.parametrize(("status", "asked"), [(404, True), (503, False)])
def test_no_robots_txt_allows_all_and_a_failing_one_nothing(web, status, asked):
    site = web(PAGES_OF_A_SITE | {"/robots.txt": (status, {}, b"")})
    look(f"{site.url}/", crawl=1)
    assert ("/secret/a" in site.asked) == asked
