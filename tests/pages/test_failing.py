"""A page that fails at the first look, and one that is for members only now."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.transport.server import Conn, Got, Server, serving
from tolmach import AsyncClient
from tolmach.discovery import Page, recognise
from tolmach.errors import AssistantGone, AuthError, ProviderUnavailable, RateLimited, TolmachError
from tolmach.gateway.surfaces.openai_errors import error_body
from tolmach.pages import cache as findings_cache
from tolmach.protocols.wordpress.common import no_widget
from tolmach.wire import Head, Response

PAGE = b"<html><title>There has been a critical error on this website.</title><body><p>Sorry.</p></body></html>"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(findings_cache, "_memory", {})


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with serving() as server:
        yield server


ROWS: list[tuple[int, type[TolmachError]]] = [
    *((status, ProviderUnavailable) for status in (408, 500, 502, 503, 504, 520, 522)),
    (429, RateLimited),
    (404, AssistantGone),
    (403, AuthError),
]


@pytest.mark.parametrize(("status", "kind"), ROWS)
async def test_a_page_that_fails_is_told_with_its_status_and_when_to_come_back(
    server: Server, status: int, kind: type[TolmachError]
) -> None:
    async def fail(conn: Conn, got: Got) -> None:
        await conn.reply(PAGE, status=f"{status} X", headers="Content-Type: text/html\r\nRetry-After: 30\r\n")

    server.routes["/"] = fail
    async with AsyncClient(page=f"{server.url}/") as client:
        with pytest.raises(kind) as caught:
            await client.chat.completions.create(messages=[{"role": "user", "content": "Hi"}])
    assert type(caught.value) is kind
    if kind in (ProviderUnavailable, RateLimited):
        assert isinstance(caught.value, ProviderUnavailable | RateLimited)
        assert (caught.value.status, caught.value.retry_after) == (status, 30.0)
        assert f"HTTP {status}" in str(caught.value)


@pytest.mark.parametrize(
    ("url", "body"),
    [
        ("https://shop.example/wp-login.php?redirect_to=x", b"<html><form></form></html>"),
        ("https://shop.example/chat/", b'<html><form class="post-password-form"></form></html>'),
    ],
)
def test_a_page_behind_a_login_is_told_as_one(url: str, body: bytes) -> None:
    error = no_widget(Response(Head(200, {"content-type": "text/html"}, (), url), body), "widget")
    assert type(error) is AuthError
    assert error.code == "login"


@pytest.mark.parametrize("code", ["0", "rest_no_route"])
def test_a_plugin_that_is_switched_off_has_one_code_at_the_gateway(code: str) -> None:
    assert b'"code":"assistant_gone"' in error_body(AssistantGone("off", missing="x", status=404, code=code))


def test_the_name_of_a_bot_of_ai_power() -> None:
    markup = b'<div class="wpaicg-chat-shortcode" data-ai-name="Otto" data-nonce="30ebc68ea8" data-bot-id="0"></div>'
    page = Page("https://shop.example/chat", b"<html><body>" + markup, headers={"content-type": "text/html"})
    [found] = recognise(page).found
    assert (found.name, found.fits("otto")) == ("Otto", True)
