"""Which requests are for the gateway: their host and their path, on both server interfaces."""

import asyncio
import re
from collections.abc import AsyncGenerator
from itertools import product
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.gateway.program import PATIENCE, question_body
from tests.gateway.served import served
from tolmach.gateway.core import Gateway
from tolmach.gateway.policy import Policy
from tolmach.gateway.request_target import LOOPBACK_HOSTS, BadHost, Misdirected, check_host, is_canonical

PATHS = (
    "/v1/chat/completions",
    "/v1/messages",
    "/v1/models",
    "/v1/models/x",
    "/health/live",
    "/health/ready",
    "/metrics",
    "/admin/explain?model=x",
    "/openapi.json",
    "/nothing",
    "//metrics",
)
METHODS = ("GET", "HEAD", "POST", "OPTIONS", "PUT", "DELETE")
BODY = question_body("openai/gpt-4o-mini")


@pytest.fixture(params=["rsgi", "asgi"])
async def here(request: pytest.FixtureRequest) -> AsyncGenerator[tuple[str, Gateway]]:
    async with served(request.param) as (url, _, gateway):
        yield url, gateway


async def sent(
    url: str, method: str, target: str, *lines: str, body: bytes = b"", version: str = "1.1"
) -> tuple[int, str | None]:
    """One request with these header lines and no other but the body's length: status and the error's code."""
    parts = urlsplit(url)
    async with asyncio.timeout(PATIENCE):
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        length = [f"Content-Length: {len(body)}"] if body else []
        head = [f"{method} {target} HTTP/{version}", *lines, "Connection: close", *length, "", ""]
        writer.write("\r\n".join(head).encode("latin-1") + body)
        answer = await reader.read()
        writer.close()
    code = re.search(rb'"code":"(\w+)"', answer)
    return int(answer.split()[1]), code[1].decode() if code else None


async def test_another_host_is_answered_nothing_whatever_it_asks(here: tuple[str, Gateway]) -> None:
    url, _ = here
    port = urlsplit(url).port
    for method, path in product(METHODS, PATHS):
        origin = f"Origin: http://evil.example:{port}"
        body = BODY if method == "POST" else b""
        status, code = await sent(url, method, path, f"Host: evil.example:{port}", origin, body=body)
        assert (status, code) == (421, None if method == "HEAD" else "misdirected_request"), (method, path)


async def test_names_of_this_machine_and_those_that_are_listed_are_answered(here: tuple[str, Gateway]) -> None:
    url, gateway = here
    gateway.policy = Policy(hosts=LOOPBACK_HOSTS | {"ai.example"})
    for host in ("localhost", "LocalHost:1", "127.0.0.1", "127.0.0.1:99999", "[::1]", "[::1]:8080", "ai.example:443"):
        assert (await sent(url, "POST", "/v1/chat/completions", f"Host: {host}", body=BODY))[0] == 200, host
        assert (await sent(url, "GET", "/metrics", f"Host: {host}"))[0] == 200, host


NO_ONE_HOST: tuple[tuple[str, ...], ...] = (
    (),
    ("Host: localhost", "Host: localhost"),
    ("Host: localhost", "Host: evil.example"),
    ("Host: evil.example", "Host: localhost"),
    ("Host:",),
    ("Host: local host",),
    ("Host: localhost, evil.example",),
    ("Host: user@localhost",),
    ("Host: localhost:port",),
    ("Host: \xe9",),
    (f"Host: {'a' * 300}",),
)


@pytest.mark.parametrize("hosts", [LOOPBACK_HOSTS, None], ids=["loopback", "everywhere"])
async def test_a_request_has_one_host(here: tuple[str, Gateway], hosts: Any) -> None:
    url, gateway = here
    gateway.policy = Policy(hosts=hosts)
    for lines in NO_ONE_HOST:
        for path in ("/health/live", "/metrics", "/nothing"):
            assert await sent(url, "GET", path, *lines) == (400, "bad_host"), lines
        assert await sent(url, "POST", "/v1/chat/completions", *lines, body=BODY) == (400, "bad_host"), lines
        assert await sent(url, "GET", "/health/live", *lines, version="1.0") == (400, "bad_host"), lines


async def test_elsewhere_any_one_host_is_answered(here: tuple[str, Gateway]) -> None:
    url, gateway = here
    gateway.policy = Policy(hosts=None, loopback=False)
    assert (await sent(url, "GET", "/health/live", "Host: gateway.default.svc:8080"))[0] == 200


MISSPELLED = (
    "//metrics",
    "/metrics//",
    "/./metrics",
    "/x/../metrics",
    "/../metrics",
    "/metrics/.",
    "/metrics/..",
    "/v1/models/../../metrics",
    "/v1//models",
    "/v1/models/%2e%2e/%2e%2e/metrics",
    "/admin/../metrics",
)


async def test_a_path_has_one_spelling(here: tuple[str, Gateway]) -> None:
    url, _ = here
    for method, target in product(METHODS, MISSPELLED):
        lines = ("Host: localhost", "Origin: http://localhost", "Access-Control-Request-Method: POST")
        assert (await sent(url, method, target, *lines))[0] == 404, (method, target)
    assert (await sent(url, "GET", "/metrics", "Host: localhost"))[0] == 200


async def test_what_need_not_be_encoded_must_not_be() -> None:
    async with served("asgi") as (url, _, _):
        for target in ("/%6detrics", "/m%65trics", "/%61dmin/explain", "/v1/%6dodels", "/v1/models/%67pt"):
            assert (await sent(url, "GET", target, "Host: localhost"))[0] == 404


async def test_where_the_server_has_decoded_it_an_encoded_path_is_guarded_as_the_plain_one() -> None:
    async with served("rsgi") as (url, _, gateway):
        gateway.policy = Policy(admin_key="hush")
        for target in ("/%6detrics", "/m%65trics", "/%61dmin/explain?model=x"):
            assert (await sent(url, "GET", target, "Host: localhost"))[0] == 401


async def test_an_absolute_target_is_of_this_host_or_of_none() -> None:
    async with served("rsgi") as (url, _, _):
        assert (await sent(url, "GET", "http://localhost/metrics", "Host: localhost"))[0] == 200
        for target in ("http://evil.example/metrics", "http://localhost:1/metrics", "http://u@localhost/metrics"):
            for method in METHODS:
                assert (await sent(url, method, target, "Host: localhost"))[0] == 404, (method, target)
        for method, target in (("CONNECT", "evil.example:80"), ("GET", "metrics"), ("OPTIONS", "*")):
            assert (await sent(url, method, target, "Host: localhost"))[0] == 404, target


async def test_a_models_name_is_decoded_once(here: tuple[str, Gateway]) -> None:
    url, _ = here
    assert (await sent(url, "GET", "/v1/models/openai%2Fgpt-4o-mini", "Host: localhost"))[0] == 200
    assert (await sent(url, "GET", "/v1/models/openai/gpt-4o-mini", "Host: localhost"))[0] == 200
    assert (await sent(url, "GET", "/v1/models/openai%252Fgpt-4o-mini", "Host: localhost"))[0] == 404


def test_hosts_are_held_to_the_grammar() -> None:
    check_host(["ai.example:1"], None)
    check_host(["[::1]:1"], LOOPBACK_HOSTS)
    with pytest.raises(Misdirected):
        check_host(["localhost.evil.example"], LOOPBACK_HOSTS)
    with pytest.raises(Misdirected):
        check_host(["[::ffff:127.0.0.1]"], LOOPBACK_HOSTS)
    with pytest.raises(BadHost):
        check_host(["ai.example:123456"], None)


@pytest.mark.parametrize(
    ("path", "raw", "canonical"),
    [
        ("/", "/", True),
        ("/v1/models/a b", "/v1/models/a%20b", True),
        ("/v1/models/a/b", "/v1/models/a%2fb", True),
        ("/v1/models/a%2Fb", "/v1/models/a%252Fb", True),
        ("/v1/models/é", "/v1/models/%C3%A9", True),
        ("/v1/models/a.b", None, True),
        ("/v1/models/a.b", "/v1/models/a%2Eb", False),
        ("/v1/models/%zz", "/v1/models/%zz", False),
        ("/metrics", "/metric%73", False),
        ("", "", False),
        ("*", "*", False),
        ("/a//b", None, False),
        ("/a/", None, True),
        ("/a/..", None, False),
        ("/a/...", None, True),
    ],
)
def test_canonical_paths(path: str, raw: str | None, canonical: bool) -> None:
    assert is_canonical(path, raw) is canonical
