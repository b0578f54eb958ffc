"""Plain HTTP on the event loop itself: what the suite over all transports does not see."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from tests.transport.conftest import LONG
from tests.transport.server import Conn, Got, Server, listening
from tolmach.errors import ConfigError, ConnectFailed, ConnectionLost, RemoteProtocolError, UnsupportedFeature
from tolmach.transport import TransportOptions, read
from tolmach.transport.default import goes_plain
from tolmach.transport.plain.request import place_of
from tolmach.transport.plain.transport import PlainTransport
from tolmach.wire import Request

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.fixture
async def plain() -> AsyncIterator[PlainTransport]:
    async with aclosing(PlainTransport()) as transport:
        yield transport


async def _ask(transport: PlainTransport, url: str, method: str = "GET", body: bytes = b"") -> bytes:
    return await read(await transport.send(Request(method, url, body=body), LONG), 1 << 20)


# Which addresses


@pytest.mark.parametrize(
    ("url", "target", "host"),
    [
        ("http://a.test", "/", "a.test"),
        ("http://A.Test:80/x", "/x", "a.test"),
        ("http://a_b:8080?q=1", "/?q=1", "a_b:8080"),
        ("http://[::1]:11434/v1/models?a=b&c=%20", "/v1/models?a=b&c=%20", "[::1]:11434"),
        ("http://10.0.0.1:8000/a//b/...", "/a//b/...", "10.0.0.1:8000"),
    ],
)
def test_a_plain_address_is_taken_as_it_is_written(url: str, target: str, host: str) -> None:
    place = place_of(url)
    assert place is not None
    assert (place.target, place.shown_host) == (target, host)


@pytest.mark.parametrize(
    "url",
    [
        "https://a.test/",
        "http://user:password@a.test/",
        "http://a.test/a b",
        "http://a.test/a/../b",
        "http://a.test/.",
        "http://a.test/%2e%2E/b",
        "http://a.test/#part",
        "http://a.test\\b",
        "http://a.test/\r\nhost: b",
        "http://ä.test/",
        "http://a.test/ä",
        "http://a.test:0/",
        "http://a.test:65536/",
        "http:///x",
    ],
)
async def test_other_addresses_are_not_plain(plain: PlainTransport, url: str) -> None:
    assert place_of(url) is None
    assert not goes_plain(url, TransportOptions())
    with pytest.raises(ConfigError):
        await plain.send(Request("GET", url), LONG)


HTTP_PROXY = {"HTTP_PROXY": "http://proxy.test:1"}


@pytest.mark.parametrize(
    ("options", "environment", "expected"),
    [
        (TransportOptions(), HTTP_PROXY, True),
        (TransportOptions(verify=False, resolve={"a.test": ("127.0.0.1",)}), {}, True),
        (TransportOptions(proxy="http://proxy.test:1"), {}, False),
        (TransportOptions(impersonate="chrome"), {}, False),
        (TransportOptions(trust_env=True), {}, True),
        (TransportOptions(trust_env=True), HTTP_PROXY, False),
        (TransportOptions(trust_env=True), {"http_proxy": "http://proxy.test:1"}, False),
        (TransportOptions(trust_env=True), {"ALL_PROXY": "socks5://proxy.test:1"}, False),
        (TransportOptions(trust_env=True), {"HTTPS_PROXY": "http://proxy.test:1"}, True),
        (TransportOptions(trust_env=True), HTTP_PROXY | {"NO_PROXY": "b.test,a.test"}, True),
        (TransportOptions(trust_env=True), HTTP_PROXY | {"NO_PROXY": "b.test"}, False),
        (TransportOptions(trust_env=True), HTTP_PROXY | {"NO_PROXY": "*"}, True),
    ],
)
def test_what_only_wreq_can_do_goes_by_wreq(
    monkeypatch: pytest.MonkeyPatch, options: TransportOptions, environment: dict[str, str], expected: bool
) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert goes_plain("http://a.test:8080/v1", options) is expected


@pytest.mark.parametrize("options", [{"proxy": "http://a:1"}, {"impersonate": "chrome"}, {"trust_env": True}])
def test_it_says_what_it_cannot(options: dict[str, object]) -> None:
    with pytest.raises(UnsupportedFeature) as caught:
        PlainTransport(TransportOptions(**options))  # type: ignore[arg-type]
    assert caught.value.feature == next(iter(options))


async def test_the_next_address_of_a_name_is_tried(server: Server) -> None:
    options = TransportOptions(resolve={"Two.test": ("127.0.0.2", "127.0.0.1")})
    async with aclosing(PlainTransport(options)) as plain:
        assert await _ask(plain, f"http://two.test:{server.port}/") == b"no such path"
    assert server.connections == 1
    assert server.got[0].header("host") == f"two.test:{server.port}"


async def test_no_address_of_a_name_answers() -> None:
    options = TransportOptions(resolve={"two.test": ("127.0.0.2", "127.0.0.1")})
    async with aclosing(PlainTransport(options)) as plain:
        with pytest.raises(ConnectFailed, match=r"http://two\.test:1: no connection: connection refused"):
            await _ask(plain, "http://two.test:1/")


# What is written


async def test_the_length_is_that_of_the_body(server: Server, plain: PlainTransport) -> None:
    request = Request("POST", f"{server.url}/", {"Content-Length": "99", "transfer-encoding": "chunked"}, b"four")
    await read(await plain.send(request, LONG), 100)
    assert (server.got[0].body, server.got[0].all("content-length")) == (b"four", ["4"])
    assert server.got[0].all("transfer-encoding") == []


# Connections


async def _served(plain: PlainTransport, *answers: bytes, times: int, method: str = "GET") -> tuple[list[bytes], int]:
    """What is read of `times` requests to a server that gives one answer a request, and how often it was connected."""
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        for answer in answers:
            if not await reader.readuntil(b"\r\n\r\n"):
                break
            writer.write(answer)
            await writer.drain()
        await reader.read()
        writer.close()

    async with listening(serve) as port:
        bodies = [await _ask(plain, f"http://127.0.0.1:{port}/", method) for _ in range(times)]
        await plain.aclose()
    return bodies, connections


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 20\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    ],
)
async def test_answers_without_body_leave_the_connection(plain: PlainTransport, head: bytes) -> None:
    assert await _served(plain, head, OK, times=2) == ([b"", b"ok"], 1)


async def test_what_comes_before_the_head_is_skipped(plain: PlainTransport) -> None:
    early = b"HTTP/1.1 100 Continue\r\nX-A: 1\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    assert await _served(plain, early + OK, OK, times=2) == ([b"ok", b"ok"], 1)


async def test_an_answer_to_head_has_no_body_and_ends_the_connection(plain: PlainTransport) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n"
    assert await _served(plain, head, times=2, method="HEAD") == ([b"", b""], 2)


@pytest.mark.parametrize(
    "answer",
    [
        OK.replace(b"OK\r\n", b"OK\r\nConnection: close\r\n"),
        OK.replace(b"1.1", b"1.0"),
        OK + OK,
        OK + b"HTTP/1.1 200",
        OK + b"x",
    ],
    ids=["closes", "1.0", "two answers", "half an answer more", "a byte more"],
)
async def test_what_leaves_doubt_is_not_used_again(plain: PlainTransport, answer: bytes) -> None:
    """Else what stands behind one answer would be taken for the next one."""
    assert await _served(plain, answer, times=2) == ([b"ok", b"ok"], 2)


async def test_a_byte_that_nobody_asked_for_ends_an_idle_connection(plain: PlainTransport) -> None:
    seen: list[int] = []
    more, gone = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(1)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)
        if len(seen) == 1:
            await more.wait()
            writer.write(OK)
            await reader.read()
            gone.set()

    async with listening(serve) as port:
        assert await _ask(plain, f"http://127.0.0.1:{port}/") == b"ok"
        more.set()
        await asyncio.wait_for(gone.wait(), 5)
        assert await _ask(plain, f"http://127.0.0.1:{port}/") == b"ok"
        await plain.aclose()
    assert len(seen) == 2


async def test_an_idle_connection_that_was_closed_is_replaced_once(plain: PlainTransport) -> None:
    """It closes on the second question, as one does whose time was up when the question was under way."""
    asked: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = len(asked)
        for _ in range(2):
            await reader.readuntil(b"\r\n\r\n")
            asked.append(number)
            if len(asked) > 1 and len(asked) != 3:
                break
            writer.write(OK)
        writer.close()

    async with listening(serve) as port:
        url = f"http://127.0.0.1:{port}/"
        assert await _ask(plain, url) == b"ok"
        assert await _ask(plain, url, "POST") == b"ok"
        assert asked == [0, 0, 2], "the second was asked again, on a new connection"
        with pytest.raises(ConnectionLost):
            await _ask(plain, url)
        assert asked == [0, 0, 2, 2, 4], "and a new connection that breaks is no reason to ask again"


async def test_an_answer_that_has_begun_is_not_asked_for_again(plain: PlainTransport) -> None:
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in (OK, b"HTTP/1.1 20"):
            asked.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(answer)
        writer.close()

    async with listening(serve) as port:
        await _ask(plain, f"http://127.0.0.1:{port}/")
        with pytest.raises(ConnectionLost):
            await _ask(plain, f"http://127.0.0.1:{port}/")
    assert len(asked) == 2


async def test_an_unfinished_body_is_not_used_again(server: Server, plain: PlainTransport) -> None:
    @server.on("/")
    async def _(conn: Conn, got: Got) -> None:
        await conn.start()
        await conn.chunk(b"one")
        await conn.gone()

    for _turn in range(2):
        exchange = await plain.send(Request("GET", f"{server.url}/"), LONG)
        await exchange.aclose()
    assert server.connections == 2


async def test_an_idle_connection_is_closed_in_time(server: Server, plain: PlainTransport) -> None:
    for _ in range(2):
        await _ask(plain, f"{server.url}/")
        [pool] = plain._pools.values()
        for _ in range(2):  # twice half of the time
            pool._old._look()
        assert pool.take(f"http://127.0.0.1:{server.port}") is None
    assert server.connections == 2


# What comes back


async def test_a_reader_who_waits_holds_the_server_back(server: Server, plain: PlainTransport) -> None:
    size = 64 << 20
    sent = 0
    full = asyncio.Event()

    @server.on("/")
    async def _(conn: Conn, got: Got) -> None:
        nonlocal sent
        await conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        while sent < size:
            conn.writer.write(bytes(1 << 20))
            sent += 1 << 20
            if conn.writer.transport.get_write_buffer_size():
                full.set()
            await conn.writer.drain()

    exchange = await plain.send(Request("GET", f"{server.url}/"), LONG)
    await asyncio.wait_for(full.wait(), 10)
    for _turn in range(2000):  # rounds of the loop, in which all of it could have been read
        await asyncio.sleep(0)
    assert sent < size
    assert len(await read(exchange, size)) == size


async def test_a_head_without_end_is_cut_off(server: Server, plain: PlainTransport) -> None:
    @server.on("/")
    async def _(conn: Conn, got: Got) -> None:
        await conn.send(b"HTTP/1.1 200 OK\r\n")
        for number in range(100):
            await conn.send(b"X-%d: %s\r\n" % (number, b"a" * 10_000))
        await conn.gone()

    with pytest.raises(RemoteProtocolError, match="the head of the answer is longer than 262144 bytes"):
        await _ask(plain, f"{server.url}/")


@pytest.mark.parametrize(
    "lines",
    [
        b"Transfer-Encoding: gzip\r\n\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nok",
        b"Content-Encoding: br\r\nContent-Length: 2\r\n\r\nok",
    ],
)
async def test_a_body_whose_end_is_in_doubt_is_refused(server: Server, plain: PlainTransport, lines: bytes) -> None:
    @server.on("/")
    async def _(conn: Conn, got: Got) -> None:
        await conn.send(b"HTTP/1.1 200 OK\r\n" + lines)
        await conn.gone()

    with pytest.raises(RemoteProtocolError) as caught:
        await _ask(plain, f"{server.url}/")
    assert caught.value.code == "http"


async def test_trailers_are_no_headers(plain: PlainTransport) -> None:
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-A:\r\nX-B: 1\r\n\r\n2\r\nok\r\n0\r\nX-A: late\r\n\r\n"

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await reader.read()

    async with listening(serve) as port:
        exchange = await plain.send(Request("GET", f"http://127.0.0.1:{port}/"), LONG)
        assert await read(exchange, 10) == b"ok"
        assert exchange.head.headers == {"transfer-encoding": "chunked", "x-a": "", "x-b": "1"}
        await plain.aclose()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
async def test_a_forked_child_has_none_of_the_connections(server: Server, plain: PlainTransport) -> None:
    await _ask(plain, f"{server.url}/")
    plain._lock.acquire()
    child = os.fork()
    if child == 0:
        os._exit(17 if not plain._pools and plain._lock.acquire(blocking=False) else 18)
    plain._lock.release()
    _, status = await asyncio.to_thread(os.waitpid, child, 0)
    assert os.waitstatus_to_exitcode(status) == 17
    assert len(plain._pools) == 1
