"""`StreamSession`, `Session` and `raise_for_status` against a small server that tells what it was sent."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
import trustme

from tests.transport.proxies import proxying
from tests.transport.server import listening
from tolmach import StreamSession, raise_for_status
from tolmach.demo.server import Demo, ThreadedDemo, serve_in_thread
from tolmach.errors import (
    AuthError,
    ConfigError,
    ConnectFailed,
    ProviderUnavailable,
    RateLimited,
    RemoteProtocolError,
    TimedOut,
    UnsupportedFeature,
)
from tolmach.providers.stream_session import Session

PIECES = [b"caf\xc3", b"\xa9\nsecond\r", b"\nthird\n\nlast"]
EVENTS = b'data: {"n": 1}\n\n: ping\n\nevent: x\ndata: {"n":\ndata: 2}\n\ndata: [DONE]\n\ndata: {"n": 3}\n\n'


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """`/echo` tells the request as JSON; the other paths are odd in their own ways."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
    except asyncio.IncompleteReadError:
        return
    first, *lines = head.split("\r\n")
    method, target, _ = first.split(" ")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines if line)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    url = urlsplit(target)
    if url.path == "/stall":
        await reader.read()
        return
    told = {
        "method": method,
        "path": url.path,
        "query": parse_qsl(url.query),
        "headers": headers,
        "body": body.decode(),
    }
    status, extra, pieces = {
        "/cookie": (200, "Set-Cookie: visit=new; Path=/\r\nSet-Cookie: deep=1; Path=/deep\r\n", [b"{}"]),
        "/moved": (302, "Location: /echo\r\nSet-Cookie: moved=1; Path=/\r\n", [b""]),
        "/away": (302, f"Location: http://localhost:{url.query}/echo\r\n", [b""]),
        "/pieces": (200, "", PIECES),
        "/events": (200, "Content-Type: text/event-stream\r\n", [EVENTS[i : i + 7] for i in range(0, len(EVENTS), 7)]),
        "/text": (200, "", [b"no JSON \xff"]),
        "/401": (401, "", [b"<title>Sign in</title><p>Who are you?"]),
        "/429": (429, "Retry-After: 7\r\n", [b"slow down"]),
        "/500": (500, "", [b""]),
    }.get(url.path, (200, "Content-Type: application/json\r\nX-Two: a\r\nX-Two: b\r\n", [json.dumps(told).encode()]))
    writer.write(f"HTTP/1.1 {status} X\r\n{extra}Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n".encode())
    for piece in pieces:
        if piece:
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await writer.drain()
            await asyncio.sleep(0)
    writer.write(b"0\r\n\r\n")


@pytest.fixture
async def base() -> AsyncIterator[str]:
    async with listening(answer) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def demo() -> Iterator[ThreadedDemo]:
    with serve_in_thread(delay=0) as demo:
        yield demo


async def echoed(session: StreamSession, url: str, method: str = "POST", **arguments: object) -> dict[str, Any]:
    async with session.request(method, url, **arguments) as response:
        await raise_for_status(response)
        told: dict[str, Any] = await response.json()
    return told


# As older code uses it


async def test_as_older_code_uses_it(base):
    proxies: dict[str, str | None] = {"all": None}
    async with StreamSession(
        headers={"X-Mine": "1", "User-Agent": "mine"},
        cookies={"a": "1"},
        proxies=proxies,
        timeout=6,
        impersonate="chrome110",
        verify=False,
    ) as session:
        async with session.post(f"{base}/echo", json={"message": "Привет", "n": 1}) as response:
            await raise_for_status(response)
            assert (response.status, response.status_code, response.ok) == (200, 200, True)
            assert response.url == f"{base}/echo"
            assert response.headers["content-type"] == "application/json"
            assert response.headers["x-two"] == "a, b"
            told = await response.json()
            assert await response.json() == told == json.loads(await response.text())
        assert told["method"] == "POST"
        assert json.loads(told["body"]) == {"message": "Привет", "n": 1}
        assert told["headers"]["content-type"] == "application/json"
        assert told["headers"]["x-mine"] == "1"
        assert told["headers"]["cookie"] == "a=1"
        assert told["headers"]["user-agent"] == "mine"
        assert 'v="110"' in told["headers"]["sec-ch-ua"], "the browser profile shows"
        async with session.get(f"{base}/pieces") as response:
            lines = [line async for line in response.iter_lines()]
        assert lines == ["café".encode(), b"second", b"third", b"", b"last"]


async def test_pieces_and_events(base):
    async with StreamSession() as session:
        async with session.get(f"{base}/pieces") as response:
            assert b"".join([piece async for piece in response.iter_content()]) == b"".join(PIECES)
        async with session.get(f"{base}/events") as response:
            assert [event async for event in response.sse()] == [{"n": 1}, {"n": 2}]
        async with session.get(f"{base}/events") as response:
            whole = await response.read()
            assert whole == EVENTS
            assert b"".join([piece async for piece in response.iter_content()]) == whole
            assert [event async for event in response.sse()] == [{"n": 1}, {"n": 2}]
        async with session.get(f"{base}/text") as response:
            assert await response.text() == "no JSON \ufffd"
            with pytest.raises(RemoteProtocolError, match="not JSON"):
                await response.json()


async def test_a_response_that_is_left_early_closes_its_connection():
    async with Demo(delay=0, faults={"/v1": "stall=3"}) as demo, StreamSession() as session:
        body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}], "stream": True}
        headers = {"authorization": "Bearer x"}
        async with session.post(f"{demo.url}/v1/chat/completions", json=body, headers=headers) as response:
            await raise_for_status(response)
            async for event in response.sse():
                assert event["object"] == "chat.completion.chunk"
                break
        await demo.log.wait_hangups(1)
    assert demo.log.hangups == 1


# What is sent


async def test_bodies(base):
    async with StreamSession() as session:
        form = await echoed(session, f"{base}/echo", data={"a": "1 2", "b": ["x", "y"], "c": None})
        assert form["body"] == "a=1+2&b=x&b=y"
        assert form["headers"]["content-type"] == "application/x-www-form-urlencoded"
        pairs = await echoed(session, f"{base}/echo", data=[("a", 1), ("a", 2)])
        assert pairs["body"] == "a=1&a=2"
        text = await echoed(session, f"{base}/echo", data="a=ж", headers={"Content-Type": "text/plain"})
        assert (text["body"], text["headers"]["content-type"]) == ("a=ж", "text/plain")
        assert (await echoed(session, f"{base}/echo", data=b"raw"))["body"] == "raw"
        half = await echoed(session, f"{base}/echo", json={"half": "\ud83d"})
        assert json.loads(half["body"]) == {"half": "\ud83d"}
        asked = await echoed(session, f"{base}/echo?a=1", "get", params={"b": [2, 3], "c": None, "d": "ж"})
        assert (asked["method"], asked["query"]) == ("GET", [["a", "1"], ["b", "2"], ["b", "3"], ["d", "ж"]])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"data": 3}, "data: bytes, text, or names with values for a form, not int"),
        ({"data": [1, 2]}, "data: a sequence holds pairs"),
        ({"json": {1, 2}}, "json: "),
        ({"json": {}, "data": b""}, "data, json: one of them"),
        ({"timeout": -1}, "timeout: seconds above zero, not -1"),
        ({"timeout": (0, 3)}, "timeout: seconds above zero, not 0"),
        ({"timeout": "3"}, "timeout: seconds above zero, not '3'"),
        ({"proxy": "gopher://h"}, "a proxy is http"),
    ],
)
async def test_wrong_arguments_are_named(base, arguments, says):
    with pytest.raises(ConfigError, match=says):
        await echoed(StreamSession(), f"{base}/echo", **arguments)


def test_wrong_settings_are_named_at_once():
    with pytest.raises(ConfigError, match="a proxy is http"):
        StreamSession(proxy="gopher://h")
    with pytest.raises(ConfigError, match="timeout: seconds, or a pair"):
        StreamSession(timeout=(1, 2, 3))  # type: ignore[arg-type]
    with pytest.raises(UnsupportedFeature, match="one session uses one proxy"):
        StreamSession(proxies={"http": "http://a:1", "https": "http://b:1"})
    with pytest.raises(TypeError, match="colour"):
        Session(colour="red")


async def test_headers_of_a_request_win_over_those_of_the_session(base):
    async with StreamSession(headers={"X-A": "session", "X-B": "session", "accept": "x/y"}) as session:
        told = await echoed(session, f"{base}/echo", headers={"x-a": "request", "x-B": None})
        assert told["headers"]["x-a"] == "request"
        assert "x-b" not in told["headers"]
        assert told["headers"]["accept"] == "x/y"
        session.headers["x-later"] = "1"
        assert (await echoed(session, f"{base}/echo"))["headers"]["x-later"] == "1"


async def test_cookies_of_the_caller_and_of_the_site(base):
    async with StreamSession(headers={"Cookie": "own=0"}, cookies={"visit": "old", "a": "1"}) as session:
        assert (await echoed(session, f"{base}/echo"))["headers"]["cookie"] == "own=0; visit=old; a=1"
        async with session.get(f"{base}/cookie"):
            pass
        assert (await echoed(session, f"{base}/echo"))["headers"]["cookie"] == "own=0; a=1; visit=new"
        assert (await echoed(session, f"{base}/deep/x"))["headers"]["cookie"] == "own=0; a=1; deep=1; visit=new"
        once = await echoed(session, f"{base}/echo", cookies={"once": "1"})
        assert "once=1" in once["headers"]["cookie"]
        assert "once" not in (await echoed(session, f"{base}/echo"))["headers"]["cookie"]
        assert {cookie.name for cookie in session.jar} == {"visit", "deep"}
    assert "visit" not in (await echoed(StreamSession(), f"{base}/echo"))["headers"].get("cookie", "")


async def test_redirects_keep_cookies_at_home(base):
    async with StreamSession(headers={"authorization": "Bearer s3cret"}, cookies={"a": "1"}) as session:
        told = await echoed(session, f"{base}/moved", "GET")
        assert told["headers"]["cookie"] == "a=1; moved=1"
        assert told["headers"]["authorization"] == "Bearer s3cret"
        away = await echoed(session, f"{base}/away?{base.rpartition(':')[2]}", "GET")
        assert away["headers"]["host"].startswith("localhost:")
        assert {"cookie", "authorization"} & away["headers"].keys() == set()


# Errors


@pytest.mark.parametrize(
    ("path", "error", "text"),
    [
        ("/401", AuthError, "Sign in Who are you?"),
        ("/429", RateLimited, "slow down"),
        ("/500", ProviderUnavailable, "HTTP 500"),
    ],
)
async def test_raise_for_status(base, path, error, text):
    async with StreamSession() as session, session.get(base + path) as response:
        assert not response.ok
        with pytest.raises(error) as caught:
            await raise_for_status(response)
    assert caught.value.text == text
    assert caught.value.status == int(path[1:])
    assert caught.value.retry_after == (7 if path == "/429" else None)


async def test_time_limits(base):
    async with StreamSession(timeout=0.1) as session:
        with pytest.raises(TimedOut) as caught:
            await echoed(session, f"{base}/stall")
        assert isinstance(caught.value, TimeoutError)
        assert caught.value.seconds == 0.1
        assert (await echoed(session, f"{base}/echo", timeout=(5, 5)))["path"] == "/echo"
    with pytest.raises(TimedOut):
        await echoed(StreamSession(timeout=(5, 0.1)), f"{base}/stall")


@pytest.mark.parametrize("how", ["proxies", "proxy", "of the request"])
async def test_a_proxy(base, how):
    async with proxying("http", demands=True) as proxy:
        address = f"http://user%40home:p%3Aa%2Fs%20s%25@127.0.0.1:{proxy.port}"
        settings = {"proxies": {"all": address}} if how == "proxies" else {"proxy": address} if how == "proxy" else {}
        async with StreamSession(**settings) as session:
            arguments = {"proxy": address} if how == "of the request" else {}
            assert (await echoed(session, f"{base}/echo", **arguments))["path"] == "/echo"
        assert [kind for kind, *_ in proxy.asked] == ["absolute"]


async def test_a_dead_proxy_fails_to_connect_without_its_password(base):
    session = StreamSession(proxies={"all": "http://ann:s3cret@127.0.0.1:9"})
    with pytest.raises(ConnectFailed, match=r"the proxy http://127\.0\.0\.1:9") as caught:
        await echoed(session, f"{base}/echo")
    assert "s3cret" not in f"{caught.value}{caught.value.__cause__}{session!r}{vars(session)}"


async def test_certificates_are_checked_unless_told_otherwise(tmp_path):
    authority = trustme.CA()
    pem = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(pem)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    async with listening(answer, tls) as port:
        url = f"https://127.0.0.1:{port}/echo"
        with pytest.raises(ConnectFailed):
            await echoed(StreamSession(), url)
        assert (await echoed(StreamSession(verify=False), url))["path"] == "/echo"
        assert (await echoed(StreamSession(verify=str(pem)), url))["path"] == "/echo"
        async with StreamSession(verify=False, impersonate="chrome110", timeout=6) as session:
            assert (await echoed(session, url))["path"] == "/echo"


# Synchronously


def test_the_synchronous_session(demo):
    with Session(headers={"authorization": "Bearer x"}, timeout=5) as session:
        url = f"{demo.url}/v1/chat/completions"
        body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}
        response = session.post(url, json=body)
        raise_for_status(response)
        assert (response.status_code, response.ok, response.url) == (200, True, url)
        assert response.headers["content-type"].startswith("application/json")
        assert response.json() == json.loads(response.text) == json.loads(response.content)
        assert b"".join(response.iter_content()) == response.content
        with session.post(url, json={**body, "stream": True}, stream=True) as response:
            raise_for_status(response)
            assert next(response.sse())["choices"][0]["delta"]["role"] == "assistant"
        lines = list(session.post(url, json={**body, "stream": True}).iter_lines())
        assert lines[-2] == b"data: [DONE]"
        with pytest.raises(AuthError) as caught:
            raise_for_status(session.get(f"{demo.url}/v1/models", headers={"authorization": None}))
        assert caught.value.status == 401


async def test_a_stream_that_is_left_early_closes_its_connection():
    def ask(url: str) -> bytes:
        body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}], "stream": True}
        session = Session(headers={"authorization": "Bearer x"})
        with session.post(f"{url}/v1/chat/completions", json=body, stream=True) as response:
            return next(response.iter_content())

    async with Demo(delay=0, faults={"/v1": "stall=3"}) as demo:
        assert await asyncio.to_thread(ask, demo.url)
        await demo.log.wait_hangups(1)
    assert demo.log.hangups == 1


def test_headers_and_cookies_of_a_synchronous_session_may_be_replaced(demo):
    session = Session()
    session.headers = {"authorization": "Bearer x"}
    session.cookies = {"a": "1"}
    assert session.get(f"{demo.url}/v1/models").ok
    assert (session.headers, session.cookies) == ({"authorization": "Bearer x"}, {"a": "1"})
    session.get(f"{demo.url}/ChatGpt/")
    assert {cookie.name for cookie in session.jar} == {"oai-did", "__cf_bm"}
    assert len(session.jar) == 2
