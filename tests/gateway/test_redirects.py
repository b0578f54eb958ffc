"""Where a provider or a page redirects to: a question goes to no other origin, and nothing private is read out."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.gateway.heard import PATHS, question
from tests.gateway.program import raw
from tests.serving_pages import serving_page
from tests.transport.server import Conn, Got, Server, serving
from tests.transport.test_redirects import redirecting
from tolmach.configuration import Settings
from tolmach.demo import Demo
from tolmach.gateway.assembly import build
from tolmach.gateway.serving import server as gateway_server
from tolmach.pages import cache as findings_cache

INSIDE = b'{"Code":"Success","SecretAccessKey":"wJalrINTERNALSECRET"}'
STATUSES = (301, 302, 303, 307, 308)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(findings_cache, "_memory", {})


@pytest.fixture
async def inside() -> AsyncIterator[Server]:
    """What only the gateway can reach: it answers everything with a secret."""
    async with serving() as server:

        async def tell(conn: Conn, got: Got) -> None:
            await conn.reply(INSIDE, status="400 X", headers="Content-Type: text/plain\r\n")

        for path in ("/", "/latest/meta-data/iam", "/page", "/v1/chat/completions"):
            server.routes[path] = tell
        yield server


@pytest.fixture
async def site() -> AsyncIterator[Server]:
    async with serving() as server:
        yield server


@asynccontextmanager
async def served(folder: Path, text: str) -> AsyncIterator[str]:
    (folder / "tolmach.toml").write_text(f'[ledger]\nurl = "off"\n{text}', "utf-8")
    async with gateway_server.serving(build(Settings.load(folder / "tolmach.toml"))) as url:
        yield url


async def ask(url: str, surface: str, model: str, *, stream: bool = False) -> tuple[int, bytes]:
    body = json.dumps(question(surface, model, "Hello", stream=stream)).encode()
    status, _, answer = await raw(url, "POST", PATHS[surface], body)
    return status, answer


APIS = {
    "openai": ("openai", "/v1/chat/completions"),
    "responses": ("openai-responses", "/v1/responses"),
    "anthropic": ("anthropic", "/v1/messages"),
}


@pytest.mark.parametrize("surface", APIS)
@pytest.mark.parametrize("target", APIS)
async def test_a_question_that_is_redirected_elsewhere_is_an_error_and_nothing_is_asked_there(
    tmp_path: Path, site: Server, inside: Server, surface: str, target: str
) -> None:
    protocol, path = APIS[target]
    base = f"{site.url}/v1" if target != "anthropic" else site.url
    row = f'[providers.site]\nprotocol = "{protocol}"\nurl = "{base}"\napi_key = "sk-topsecret-0123456789"\n'
    async with served(tmp_path, row) as url:
        for status in STATUSES:
            redirecting(site, f"{inside.url}/latest/meta-data/iam", status, path)
            for stream in (False, True):
                got, answer = await ask(url, surface, "site/a", stream=stream)
                assert (got, b"another origin" in answer) == (502, True), (status, stream, answer)
                assert b"SECRET" not in answer
                assert str(inside.port).encode() not in answer, "nor where it led"
    assert inside.connections == 0
    assert {got.path for got in site.got} == {path}


WORDPRESS = '[providers.shop]\nprotocol = "ai-power"\nurl = "{url}"\n'


@pytest.mark.parametrize("status", STATUSES)
async def test_a_page_that_redirects_to_a_private_address_is_not_followed(
    tmp_path: Path, site: Server, inside: Server, status: int
) -> None:
    redirecting(site, f"{inside.url}/page", status)
    async with served(tmp_path, WORDPRESS.format(url=site.url)) as url:
        got, answer = await ask(url, "openai", "shop/default")
    assert got == 502, answer
    assert b"SECRET" not in answer
    assert (len(site.got), inside.connections) == (1, 0)


async def test_the_operator_may_list_where_it_redirects_to(tmp_path: Path, site: Server) -> None:
    async with Demo(delay=0) as demo:
        redirecting(site, f"{demo.url}/Chatgpt4o/")
        allow = '[gateway.egress]\nallow = ["127.0.0.0/8"]\n'
        async with served(tmp_path, allow + WORDPRESS.format(url=site.url)) as url:
            got, answer = await ask(url, "openai", "shop/default")
        assert got == 200, answer
        assert demo.log.chats("/Chatgpt4o") == 1


async def test_another_target_answers_where_one_redirects_to_a_private_address(
    tmp_path: Path, site: Server, inside: Server
) -> None:
    async with Demo(delay=0) as demo:
        redirecting(site, f"{inside.url}/page")
        rows = (
            WORDPRESS.format(url=site.url)
            + f'[providers.well]\nprotocol = "openai"\nurl = "{demo.url}/v1"\napi_key = "k"\n'
        )
        route = '[routes.m]\ntargets = ["shop/default", "well/gpt-4o"]\n'
        async with served(tmp_path, rows + route) as url:
            got, answer = await ask(url, "openai", "m")
    assert got == 200, answer
    assert inside.connections == 0


# Pages: their own host, at their own port


@pytest.mark.parametrize("status", STATUSES)
async def test_a_page_does_not_redirect_to_another_port_of_its_host(
    tmp_path: Path, site: Server, inside: Server, status: int
) -> None:
    redirecting(site, f"{inside.url}/page", status)
    async with served(tmp_path, f'[providers.shop]\npage = "{site.url}/"\n') as url:
        got, answer = await ask(url, "openai", "shop/default")
    assert got == 502, answer
    assert b"SECRET" not in answer
    assert inside.connections == 0


@pytest.mark.parametrize(
    "markup",
    [
        '<iframe src="{url}/page"></iframe>',
        """<a onclick="window.open('{url}/page')">chat</a>""",
        '<iframe data-src="{url}/page"></iframe>',
    ],
)
async def test_frames_of_a_page_stay_on_its_own_port(tmp_path: Path, inside: Server, markup: str) -> None:
    async with serving_page(markup.format(url=inside.url)) as page:
        async with served(tmp_path, f'[providers.shop]\npage = "{page}"\n') as url:
            got, answer = await ask(url, "openai", "shop/default")
    assert got == 502, answer
    assert inside.connections == 0
