"""Pages in browsers that ask the gateway, on both server interfaces."""

from typing import Any

import pytest

from tests.gateway.program import ask, question_body, raw
from tests.gateway.served import served
from tolmach.gateway.cors import EXPOSED, CorsRules
from tolmach.gateway.policy import Policy

OURS = "https://app.example"
PREFLIGHT = "Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: authorization, x-stainless-os\r\n"


@pytest.fixture(params=["rsgi", "asgi"])
def interface(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.mark.parametrize(("origins", "answered"), [((OURS,), OURS), (("*",), "*"), (("http://a.b", OURS), OURS)])
async def test_a_page_that_may_ask_is_answered(interface: Any, origins: tuple[str, ...], answered: str):
    async with served(interface) as (url, _, gateway):
        gateway.policy = Policy(cors=CorsRules(origins, max_age=77))
        status, headers, body = await raw(
            url, "OPTIONS", "/v1/chat/completions", headers=f"Origin: {OURS}\r\n{PREFLIGHT}"
        )
        assert (status, body) == (204, b"")
        assert headers["access-control-allow-origin"] == answered
        assert headers["access-control-allow-methods"] == "GET, POST, OPTIONS"
        assert headers["access-control-allow-headers"] == "authorization, x-stainless-os"
        assert headers["access-control-max-age"] == "77"
        for stream in (False, True):
            status, headers, _ = await ask(url, "openai/gpt-4o-mini", stream=stream, headers=f"Origin: {OURS}\r\n")
            assert (status, headers["access-control-allow-origin"]) == (200, answered)
            assert headers["access-control-expose-headers"] == EXPOSED
            assert {name for name in headers if name.startswith("x-")} <= set(EXPOSED.split(", "))
            assert headers.get("vary") == (None if answered == "*" else "origin")
        # Failures can be read, too.
        status, headers, _ = await ask(url, "nothing", headers=f"Origin: {OURS}\r\n")
        assert (status, headers["access-control-allow-origin"]) == (404, answered)
        assert "access-control-allow-credentials" not in headers


@pytest.mark.parametrize("origins", [(), ("https://other.example",)])
async def test_a_page_that_may_not_is_not_even_heard(interface: Any, origins: tuple[str, ...]):
    async with served(interface) as (url, demo, gateway):
        gateway.policy = Policy(cors=CorsRules(origins))
        for origin in (OURS, "null", "http://127.0.0.1:1", "https://other.example.evil"):
            status, headers, _ = await raw(
                url, "OPTIONS", "/v1/chat/completions", headers=f"Origin: {origin}\r\n{PREFLIGHT}"
            )
            assert status == 403
            assert not [name for name in headers if name.startswith("access-control")]
            # What a form sends goes without a preflight.
            for path in ("/v1/chat/completions", "/v1/messages", "/v1/responses", "/v1/embeddings"):
                body = question_body("openai/gpt-4o-mini")
                status, headers, body = await raw(
                    url, "POST", path, body, f"Origin: {origin}\r\nContent-Type: text/plain\r\n"
                )
                assert status == 403
                assert b"origin" in body
                assert not [name for name in headers if name.startswith("access-control")]
        assert not demo.log.requests


async def test_programs_and_pages_of_the_gateways_own_origin_ask_as_ever(interface: Any):
    async with served(interface) as (url, _, _):
        assert (await ask(url, "openai/gpt-4o-mini"))[0] == 200
        assert (await ask(url, "openai/gpt-4o-mini", headers=f"Origin: {url}\r\n"))[0] == 200


async def test_headers_that_are_none_are_not_repeated(interface: Any):
    async with served(interface) as (url, _, gateway):
        gateway.policy = Policy(cors=CorsRules(("*",)))
        wanted = "Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: a b; c\r\n"
        status, headers, _ = await raw(url, "OPTIONS", "/v1/models", headers=f"Origin: {OURS}\r\n{wanted}")
        assert status == 204
        assert "access-control-allow-headers" not in headers


async def test_options_that_are_no_preflight_are_not_served(interface: Any):
    async with served(interface) as (url, _, gateway):
        gateway.policy = Policy(cors=CorsRules(("*",)))
        assert (await raw(url, "OPTIONS", "/v1/models"))[0] == 405
