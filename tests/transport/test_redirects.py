"""Redirects and cookies, over sockets: what another origin gets to see."""

from contextlib import aclosing

import pytest

from tests.transport.conftest import LONG
from tests.transport.server import Conn, Got, Server, serving
from tolmach.cookies import CookieJar
from tolmach.errors import RemoteProtocolError, TimedOut
from tolmach.transport import Timeouts, Transport, open_exchange, read
from tolmach.transport.memory import MemoryTransport
from tolmach.wire import Head, Limits, Request

CREDENTIALS = {
    "authorization": "Bearer s3cr3t",
    "cookie": "given=s3cr3t",
    "x-wp-nonce": "s3cr3t",
    "x-api-key": "s3cr3t",
    "api-key": "s3cr3t",
    "openai-sentinel-proof-token": "s3cr3t",
    "x-anything": "s3cr3t",
}
HARMLESS = {"accept": "text/html", "accept-language": "de", "user-agent": "mine"}


def redirecting(server: Server, target: str, status: int = 302, path: str = "/") -> None:
    async def redirect(conn: Conn, got: Got) -> None:
        lines = f"Location: {target}\r\nSet-Cookie: kept=1\r\n"
        await conn.reply(b"moved", status=f"{status} Moved", headers=lines)

    server.routes[path] = redirect


def ending(server: Server, path: str = "/end") -> None:
    async def end(conn: Conn, got: Got) -> None:
        await conn.reply(b"ok")

    server.routes[path] = end


async def _open(
    transport: Transport, request: Request, jar: CookieJar | None = None, limits: Limits = Limits()
) -> bytes:
    exchange = await open_exchange(transport, request, jar or CookieJar(), LONG, limits)
    return await read(exchange, 1000)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_another_origin_gets_no_credentials(server: Server, transport: Transport, status: int) -> None:
    async with serving() as other:
        redirecting(server, f"{other.url}/end", status)
        ending(other)
        request = Request("GET", f"{server.url}/", {**CREDENTIALS, **HARMLESS})
        assert await _open(transport, request) == b"ok"

    [first], [second] = server.got, other.got
    assert {name: first.header(name) for name in CREDENTIALS} == CREDENTIALS
    assert {name: second.header(name) for name in HARMLESS} == HARMLESS
    # Cookies do not know ports (RFC 6265, 8.5): the one that the redirect set may go to another port of the host.
    assert second.header("cookie") == "kept=1"
    assert not [name for name, value in second.headers if "s3cr3t" in value]


async def test_another_host_does_not_get_the_jars_cookies(server: Server, transport: Transport) -> None:
    redirecting(server, f"http://localhost:{server.port}/end")
    ending(server)
    jar = CookieJar()
    jar.set("http://127.0.0.1/", {"session": "s3cr3t"})
    assert await _open(transport, Request("GET", f"{server.url}/"), jar) == b"ok"
    assert [got.header("cookie") for got in server.got] == ["session=s3cr3t", ""]


async def test_the_same_origin_keeps_them(server: Server, transport: Transport) -> None:
    redirecting(server, "/end")
    ending(server)
    assert await _open(transport, Request("GET", f"{server.url}/", CREDENTIALS)) == b"ok"
    assert server.got[1].header("authorization") == "Bearer s3cr3t"
    assert server.got[1].header("cookie") == "given=s3cr3t; kept=1", "and the cookie that the redirect set"


@pytest.mark.parametrize("status", [307, 308])
async def test_a_question_is_not_told_to_strangers(server: Server, transport: Transport, status: int) -> None:
    async with serving() as other:
        redirecting(server, f"{other.url}/end?x=1", status)
        ending(other)
        request = Request("POST", f"{server.url}/", {"content-type": "text/plain"}, b"my question")
        with pytest.raises(RemoteProtocolError, match="redirects the question to another origin") as caught:
            await _open(transport, request)
    assert (caught.value.code, caught.value.status) == ("redirects", status)
    assert other.got == []


@pytest.mark.parametrize(("status", "method", "body"), [(302, "GET", b""), (303, "GET", b""), (307, "POST", b"hi")])
async def test_methods_and_bodies_at_the_same_origin(
    server: Server, transport: Transport, status: int, method: str, body: bytes
) -> None:
    redirecting(server, "/end", status)
    ending(server)
    request = Request("POST", f"{server.url}/", {"content-type": "text/plain", "x-a": "1"}, b"hi")
    assert await _open(transport, request) == b"ok"
    second = server.got[1]
    assert (second.method, second.body, second.header("x-a")) == (method, body, "1")
    assert second.header("content-type") == ("text/plain" if body else "")


async def test_a_question_that_would_become_a_get_goes_nowhere_else(server: Server, transport: Transport) -> None:
    """What is at another origin is no answer to a question, and may be for nobody but this machine to read."""
    async with serving() as other:
        ending(other)
        for status in (301, 302, 303):
            redirecting(server, f"{other.url}/end", status)
            for body in (b"my question", b""):
                request = Request("POST", f"{server.url}/", {"content-type": "text/plain"}, body)
                with pytest.raises(RemoteProtocolError, match="redirects the question to another origin") as caught:
                    await _open(transport, request)
                assert (caught.value.code, caught.value.status) == ("redirects", status)
    assert other.got == []


async def test_chains_end(server: Server, transport: Transport) -> None:
    redirecting(server, "/")
    with pytest.raises(RemoteProtocolError, match="more than 3 redirects"):
        await _open(transport, Request("GET", f"{server.url}/"), limits=Limits(redirects=3))
    assert len(server.got) == 4


async def test_a_chain_within_the_limit(server: Server, transport: Transport) -> None:
    redirecting(server, "/a")
    redirecting(server, "/b", path="/a")
    redirecting(server, "end", path="/b")
    ending(server)
    assert await _open(transport, Request("GET", f"{server.url}/"), limits=Limits(redirects=3)) == b"ok"
    assert [got.path for got in server.got] == ["/", "/a", "/b", "/end"]


@pytest.mark.parametrize(
    "target", ["ftp://x.test/", "file:///etc/passwd", "http://", "http://[x", "http://u:p@x.test/", "//x.test:y/"]
)
async def test_redirects_that_are_not_followed(server: Server, transport: Transport, target: str) -> None:
    redirecting(server, target)
    with pytest.raises(RemoteProtocolError) as caught:
        await _open(transport, Request("GET", f"{server.url}/"))
    assert caught.value.status == 302


async def test_a_redirect_without_a_place_is_an_answer(server: Server, transport: Transport) -> None:
    async def nowhere(conn: Conn, got: Got) -> None:
        await conn.reply(b"here", status="302 Found")

    server.routes["/"] = nowhere
    assert await _open(transport, Request("GET", f"{server.url}/")) == b"here"


async def test_tls_is_not_left_with_credentials() -> None:
    """From https to http, or from one port to another, is another origin."""
    asked = []

    async def handler(request: Request):
        asked.append(request)

        async def body():
            yield b"ok"

        return (Head(302, {"location": targets.pop(0)}) if targets else Head(200)), body()

    targets = ["http://a.test/"]
    async with aclosing(MemoryTransport(handler=handler)) as transport:
        await _open(transport, Request("GET", "https://a.test/", CREDENTIALS))
        targets = ["https://a.test/"]
        await _open(transport, Request("GET", "http://a.test/", CREDENTIALS))
        targets = ["https://a.test:444/"]
        await _open(transport, Request("GET", "https://a.test/", CREDENTIALS))
        targets = ["https://b.a.test/"]
        await _open(transport, Request("GET", "https://a.test/", CREDENTIALS))
        targets = ["https://a.test:443/x"]
        await _open(transport, Request("GET", "https://a.test/", CREDENTIALS))
    carried = [bool(set(request.headers) & set(CREDENTIALS)) for request in asked]
    assert carried == [True, False, True, True, True, False, True, False, True, True]


async def test_the_total_holds_for_the_whole_chain(server: Server, transport: Transport) -> None:
    """A chain of redirects does not get the limit anew at each step."""
    redirecting(server, "/")
    with pytest.raises(TimedOut) as caught:
        await open_exchange(
            transport,
            Request("GET", f"{server.url}/"),
            CookieJar(),
            Timeouts(total=0.2),
            Limits(redirects=100_000),
        )
    assert (caught.value.phase, caught.value.seconds) == ("total", 0.2)
