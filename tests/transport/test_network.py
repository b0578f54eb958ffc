"""What holds for every transport that reaches the network, seen from the server's socket."""

import asyncio
import gzip
import threading
import time
import zlib
from collections.abc import Awaitable, Callable
from contextlib import aclosing

import pytest
from msgspec.structs import replace

from tests.transport.conftest import LONG, SHORT
from tests.transport.server import Conn, Got, Server, closed_port, full_backlog, listening, serving
from tolmach.errors import ConfigError, ConnectFailed, ConnectionLost, RemoteProtocolError, TimedOut
from tolmach.transport import Timeouts, Transport, TransportOptions, create, read
from tolmach.version import __version__
from tolmach.wire import Request

SECRET = "s3cr3t"


async def _get(transport: Transport, url: str, timeouts: Timeouts = LONG, limit: int = 1 << 20) -> bytes:
    return await read(await transport.send(Request("GET", url), timeouts), limit)


# What goes out


async def test_a_request_goes_out_as_given(server: Server, transport: Transport) -> None:
    @server.on("/echo")
    async def _(conn: Conn, got: Got) -> None:
        await conn.reply(got.body)

    headers = {"x-b": "1", "accept": "text/event-stream", "content-type": "application/json", "x-a": "ж"}
    request = Request("POST", f"{server.url}/echo?a=%2F&b=c%20d", headers, '{"q": "é"}'.encode())
    exchange = await transport.send(request, LONG)

    assert await read(exchange, 100) == request.body
    [got] = server.got
    assert (got.method, got.target) == ("POST", "/echo?a=%2F&b=c%20d")
    names = [name for name, _ in got.headers]
    assert [name for name in names if name in headers] == list(headers), "in the order given"
    assert {name: got.header(name) for name in headers} == headers
    assert got.all("user-agent") == [f"tolmach/{__version__}"]
    assert not {"origin", "referer", "cookie", "authorization", "via"} & set(names)
    assert not [name for name in names if name.startswith(("x-forwarded", "sec-"))]


async def test_the_user_agent_given_is_the_only_one(server: Server, transport: Transport) -> None:
    await read(await transport.send(Request("GET", f"{server.url}/", {"user-agent": "mine"}), LONG), 100)
    assert server.got[0].all("user-agent") == ["mine"]


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
async def test_methods(server: Server, transport: Transport, method: str) -> None:
    @server.on("/")
    async def _(conn: Conn, got: Got) -> None:
        await conn.reply(b"" if got.method == "HEAD" else b"ok")

    body = await read(await transport.send(Request(method, f"{server.url}/"), LONG), 100)
    assert (server.got[0].method, body) == (method, b"" if method == "HEAD" else b"ok")


@pytest.mark.parametrize(
    "request_",
    [
        Request("GET", "ftp://127.0.0.1/"),
        Request("GET", "127.0.0.1/"),
        Request("GET", "http://"),
        Request("GET", "http://127.0.0.1:99999/"),
        Request("NO SUCH", "http://127.0.0.1:{port}/"),
        Request("GET", "http://127.0.0.1:{port}/", {"a": f"b\r\nc: {SECRET}"}),
        Request("GET", "http://127.0.0.1:{port}/", {"a": "b\0"}),
        Request("GET", "http://127.0.0.1:{port}/", {"a b": SECRET}),
        Request("GET", "http://127.0.0.1:{port}/", {"": SECRET}),
    ],
)
async def test_a_request_that_cannot_be_written_is_a_config_error(
    server: Server, transport: Transport, request_: Request
) -> None:
    request = replace(request_, url=request_.url.replace("{port}", str(server.port)))
    with pytest.raises(ConfigError) as caught:
        await transport.send(request, LONG)
    assert server.got == []
    assert SECRET not in str(caught.value)


async def test_connections_are_used_again_and_cookies_are_not(server: Server, transport: Transport) -> None:
    @server.on("/")
    async def _(conn: Conn, got: Got) -> None:
        await conn.reply(b"ok", headers="Set-Cookie: a=1; Path=/\r\n")

    for _turn in range(3):
        assert await _get(transport, server.url + "/") == b"ok"
    assert server.connections == 1
    assert [got.header("cookie") for got in server.got] == ["", "", ""]


# What comes back


async def test_the_head(server: Server, transport: Transport) -> None:
    @server.on("/")
    async def _(conn: Conn, got: Got) -> None:
        lines = (
            "Set-Cookie: a=1; Path=/, x\r\nSet-Cookie: b=2\r\nX-Two: 1\r\nX-Two: 2\r\nContent-Type: Text/HTML; a=b\r\n"
        )
        await conn.send(f"HTTP/1.1 418 Teapot\r\n{lines}X-Utf: ж\r\nContent-Length: 0\r\n\r\n".encode())

    exchange = await transport.send(Request("GET", f"{server.url}/"), LONG)
    head = exchange.head
    assert await read(exchange, 10) == b""
    assert (head.status, head.cookies, head.url) == (418, ("a=1; Path=/, x", "b=2"), f"{server.url}/")
    assert (head.header("x-two"), head.header("x-utf"), head.content_type) == ("1, 2", "ж", "text/html")


async def test_redirects_are_not_followed(server: Server, transport: Transport) -> None:
    @server.on("/")
    async def _(conn: Conn, got: Got) -> None:
        await conn.reply(status="302 Found", headers="Location: /other\r\n")

    exchange = await transport.send(Request("GET", f"{server.url}/"), LONG)
    await exchange.aclose()
    assert (exchange.head.status, exchange.head.header("location"), len(server.got)) == (302, "/other", 1)


async def test_pieces_arrive_as_they_are_sent(server: Server, transport: Transport) -> None:
    more = asyncio.Event()

    @server.on("/")
    async def _(conn: Conn, got: Got) -> None:
        await conn.start()
        for piece in (b"one", b"two", b""):
            await conn.chunk(piece)
            await more.wait()
            more.clear()

    exchange = await transport.send(Request("GET", f"{server.url}/"), LONG)
    pieces = []
    async for piece in exchange:
        pieces.append(piece)
        more.set()
    more.set()
    assert pieces == [b"one", b"two"]
    assert all(type(piece) is bytes for piece in pieces)


def _deflate_raw(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


@pytest.mark.parametrize(("coding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress), ("identity", bytes)])
async def test_content_codings(
    server: Server, transport: Transport, coding: str, pack: Callable[[bytes], bytes]
) -> None:
    @server.on("/")
    async def _(conn: Conn, got: Got) -> None:
        await conn.reply(pack(b"text " * 1000), headers=f"Content-Encoding: {coding}\r\n")

    exchange = await transport.send(Request("GET", f"{server.url}/"), LONG)
    assert await read(exchange, 10_000) == b"text " * 1000
    assert "gzip" in server.got[0].header("accept-encoding")
    if coding != "identity":
        assert exchange.head.header("content-encoding") == ""


async def test_a_coding_asked_for_by_hand_is_undone_too(server: Server, transport: Transport) -> None:
    @server.on("/")
    async def _(conn: Conn, got: Got) -> None:
        await conn.reply(gzip.compress(b"text"), headers="Content-Encoding: gzip\r\n")

    request = Request("GET", f"{server.url}/", {"accept-encoding": "gzip"})
    assert await read(await transport.send(request, LONG), 10) == b"text"
    assert server.got[0].all("accept-encoding") == ["gzip"]


async def test_compressed_pieces_arrive_as_they_are_flushed(server: Server, transport: Transport) -> None:
    more = asyncio.Event()

    @server.on("/")
    async def _(conn: Conn, got: Got) -> None:
        packer = zlib.compressobj(wbits=31)
        await conn.start("Content-Encoding: gzip\r\n")
        await conn.chunk(packer.compress(b"one") + packer.flush(zlib.Z_SYNC_FLUSH))
        await more.wait()
        await conn.chunk(packer.compress(b"two") + packer.flush())
        await conn.chunk(b"")

    exchange = await transport.send(Request("GET", f"{server.url}/"), LONG)
    assert await anext(aiter(exchange)) == b"one"
    more.set()
    assert [piece async for piece in exchange] == [b"two"]


async def test_a_body_over_the_limit_is_cut_off(server: Server, transport: Transport) -> None:
    gone = asyncio.Event()

    @server.on("/")
    async def _(conn: Conn, got: Got) -> None:
        await conn.start()
        try:
            while True:
                await conn.chunk(bytes(100_000))
        finally:
            gone.set()

    with pytest.raises(RemoteProtocolError, match="longer than 1000000 bytes") as caught:
        await _get(transport, server.url + "/", limit=1_000_000)
    assert caught.value.code == "too_large"
    await asyncio.wait_for(gone.wait(), 5)


async def test_a_gzip_bomb_is_cut_off(server: Server, transport: Transport) -> None:
    bomb = gzip.compress(bytes(64 << 20))

    @server.on("/")
    async def _(conn: Conn, got: Got) -> None:
        await conn.reply(bomb, headers="Content-Encoding: gzip\r\n")

    sizes = []
    exchange = await transport.send(Request("GET", f"{server.url}/"), LONG)
    async for piece in exchange:
        sizes.append(len(piece))
        if sum(sizes) > 1 << 20:
            break
    await exchange.aclose()
    assert len(bomb) < 100_000
    assert max(sizes) <= 1 << 20, "no piece of it is huge"


# What breaks

BROKEN: list[tuple[str, bytes, type[Exception]]] = [
    ("short", b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nabc", ConnectionLost),
    ("no last chunk", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", ConnectionLost),
    ("half a chunk", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc", ConnectionLost),
    ("no last line", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n", ConnectionLost),
    ("no size", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n", RemoteProtocolError),
    ("nothing", b"", ConnectionLost),
    ("half a head", b"HTTP/1.1 200 OK\r\nContent-", ConnectionLost),
    ("no HTTP", b"HELLO\r\n\r\n", RemoteProtocolError),
    (
        "no gzip",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 10\r\n\r\n0123456789",
        RemoteProtocolError,
    ),
    (
        "half a gzip",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 30\r\n\r\n"
        + gzip.compress(b"0123456789" * 9)[:30],
        ConnectionLost,
    ),
]


@pytest.mark.parametrize(("data", "error"), [row[1:] for row in BROKEN], ids=[row[0] for row in BROKEN])
async def test_a_broken_answer_is_an_error(
    server: Server, transport: Transport, data: bytes, error: type[Exception]
) -> None:
    @server.on("/x")
    async def _(conn: Conn, got: Got) -> None:
        await conn.send(data)
        conn.close()

    with pytest.raises(error) as caught:
        await _get(transport, f"{server.url}/x?a=1,2&token={SECRET},x")
    assert str(caught.value).startswith(f"{server.url}: ")
    assert SECRET not in str(caught.value)
    assert SECRET not in str(caught.value.__cause__)


async def test_a_body_without_length_ends_with_its_connection(server: Server, transport: Transport) -> None:
    @server.on("/")
    async def _(conn: Conn, got: Got) -> None:
        await conn.send(b"HTTP/1.1 200 OK\r\n\r\nabc")
        conn.close()

    assert await _get(transport, server.url + "/") == b"abc"


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nabc"], ids=["before", "within"])
async def test_a_reset_is_a_lost_connection(server: Server, transport: Transport, head: bytes) -> None:
    @server.on("/")
    async def _(conn: Conn, got: Got) -> None:
        await conn.send(head)
        conn.reset()

    with pytest.raises(ConnectionLost, match=f"{server.url}: the connection broke") as caught:
        await _get(transport, server.url + "/")
    assert caught.value.__cause__ is not None


async def test_a_broken_exchange_is_over(server: Server, transport: Transport) -> None:
    @server.on("/")
    async def _(conn: Conn, got: Got) -> None:
        await conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nabc")
        conn.close()

    exchange = await transport.send(Request("GET", f"{server.url}/"), LONG)
    with pytest.raises(ConnectionLost):
        await read(exchange, 100)
    assert [piece async for piece in exchange] == []
    await exchange.aclose()
    await exchange.aclose()


async def test_nobody_listens(transport: Transport) -> None:
    port = closed_port()
    with pytest.raises(ConnectFailed) as caught:
        await _get(transport, f"http://127.0.0.1:{port}/x?a=1,2&token={SECRET},x")
    assert str(caught.value) == f"http://127.0.0.1:{port}: no connection: connection refused"
    assert SECRET not in str(caught.value.__cause__)


async def test_an_unknown_name(transport: Transport) -> None:
    with pytest.raises(ConnectFailed, match=r"http://no-such-host.invalid:80: no connection"):
        await _get(transport, "http://no-such-host.invalid/")


# Time limits


async def test_connecting_has_a_limit(transport: Transport) -> None:
    held, port = full_backlog()
    try:
        with pytest.raises(TimedOut) as caught:
            await _get(transport, f"http://127.0.0.1:{port}/", Timeouts(connect=SHORT))
    finally:
        for one in held:
            one.close()
    assert (caught.value.phase, caught.value.seconds) == ("connect", SHORT)


async def test_connecting_counts_the_tls_handshake(transport: Transport) -> None:
    async def never_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with listening(never_answer) as port:
        with pytest.raises(TimedOut) as caught:
            await _get(transport, f"https://localhost:{port}/", Timeouts(connect=SHORT))
    assert (caught.value.phase, caught.value.seconds) == ("connect", SHORT)


@pytest.mark.parametrize(
    ("path", "timeouts", "phase"),
    [
        ("/silent", Timeouts(first_byte=SHORT), "first_byte"),
        ("/silent", Timeouts(total=SHORT), "total"),
        ("/stalls", Timeouts(idle=SHORT), "idle"),
        ("/stalls", Timeouts(idle=SHORT, first_byte=None, connect=None, total=None), "idle"),
        ("/stalls", Timeouts(total=SHORT), "total"),
        ("/drips", Timeouts(total=3 * SHORT, idle=2 * SHORT), "total"),
    ],
)
async def test_every_limit_says_which_it_was(
    server: Server, transport: Transport, path: str, timeouts: Timeouts, phase: str
) -> None:
    gone = asyncio.Event()

    async def stall(conn: Conn, got: Got) -> None:
        if got.path != "/silent":
            await conn.start()
            await conn.chunk(b"abc")
        await conn.gone()
        gone.set()

    async def drip(conn: Conn, got: Got) -> None:
        await conn.start()
        over = asyncio.create_task(conn.gone())
        while not over.done():
            await conn.chunk(b"abc")
            await asyncio.wait([over], timeout=SHORT / 2)
        gone.set()

    server.routes.update({"/silent": stall, "/stalls": stall, "/drips": drip})
    started = time.perf_counter()
    with pytest.raises(TimedOut) as caught:
        await _get(transport, server.url + path, timeouts)
    took = time.perf_counter() - started
    seconds = getattr(timeouts, phase)
    assert (caught.value.phase, caught.value.seconds) == (phase, seconds)
    assert seconds <= took < seconds + 2
    assert isinstance(caught.value, TimeoutError)
    await asyncio.wait_for(gone.wait(), 2)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_the_limit_on_silence_does_not_count_the_reader(server: Server, transport: Transport) -> None:
    """A consumer that is slower than the limit has lost nothing."""
    more = asyncio.Event()

    @server.on("/")
    async def _(conn: Conn, got: Got) -> None:
        await conn.start()
        await conn.chunk(b"one")
        await more.wait()
        await conn.chunk(b"two")
        await conn.chunk(b"")

    exchange = await transport.send(Request("GET", f"{server.url}/"), Timeouts(idle=SHORT))
    assert await anext(aiter(exchange)) == b"one"
    loop = asyncio.get_running_loop()
    later = loop.create_future()
    loop.call_later(3 * SHORT, later.set_result, None)
    await later
    more.set()
    assert [piece async for piece in exchange] == [b"two"]


async def test_the_total_counts_the_reader(server: Server, transport: Transport) -> None:
    @server.on("/")
    async def _(conn: Conn, got: Got) -> None:
        await conn.reply(b"one")

    exchange = await transport.send(Request("GET", f"{server.url}/"), Timeouts(total=SHORT))
    loop = asyncio.get_running_loop()
    later = loop.create_future()
    loop.call_later(2 * SHORT, later.set_result, None)
    await later
    with pytest.raises(TimedOut) as caught:
        await read(exchange, 10)
    assert caught.value.phase == "total"


async def test_a_limit_that_did_not_pass_leaves_nothing_behind(server: Server, transport: Transport) -> None:
    @server.on("/")
    async def _(conn: Conn, got: Got) -> None:
        await conn.reply(b"one")

    assert await _get(transport, server.url + "/", Timeouts(total=SHORT, idle=SHORT, first_byte=SHORT)) == b"one"
    loop = asyncio.get_running_loop()
    later = loop.create_future()
    loop.call_later(2 * SHORT, later.set_result, None)
    await later  # a timer left behind would cancel this


# Going away


async def _seen_within(leave: Callable[[], Awaitable[None]], gone: asyncio.Event) -> float:
    """Seconds from leaving until the server's socket saw it."""
    started = time.perf_counter()
    await leave()
    await asyncio.wait_for(gone.wait(), 5)
    return time.perf_counter() - started


@pytest.mark.parametrize("when", ["head", "body", "close", "close unread", "break"])
async def test_who_leaves_closes_the_connection_at_once(server: Server, transport: Transport, when: str) -> None:
    reached, gone = asyncio.Event(), asyncio.Event()

    @server.on("/")
    async def _(conn: Conn, got: Got) -> None:
        if when != "head":
            await conn.start()
            await conn.chunk(b"one")
        reached.set()
        await conn.gone()
        gone.set()

    async def ask() -> None:
        await _get(transport, server.url + "/")

    async def cancelled() -> Callable[[], Awaitable[None]]:
        task = asyncio.create_task(ask())
        await reached.wait()
        await asyncio.sleep(0.02)  # so that the reader waits for the second piece

        async def leave() -> None:
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        return leave

    async def closed() -> Callable[[], Awaitable[None]]:
        exchange = await transport.send(Request("GET", f"{server.url}/"), LONG)
        if when != "close unread":
            async for piece in exchange:
                assert piece == b"one"
                break
        return exchange.aclose

    times = []
    for _turn in range(3):
        reached.clear()
        gone.clear()
        leave = await (cancelled() if when in ("head", "body") else closed())
        times.append(await _seen_within(leave, gone))
    assert min(times) < 0.1, "seconds until the server's socket saw it"


async def test_cancelled_while_connecting(transport: Transport) -> None:
    met, gone = asyncio.Event(), asyncio.Event()

    async def never_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        met.set()
        await Conn(reader, writer).gone()
        gone.set()

    async with listening(never_answer) as port:
        task = asyncio.create_task(_get(transport, f"https://127.0.0.1:{port}/"))
        await asyncio.wait_for(met.wait(), 5)

        async def leave() -> None:
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        assert await _seen_within(leave, gone) < 1


async def test_a_cancelled_task_is_cancelled_even_when_its_time_is_up(server: Server, transport: Transport) -> None:
    """Who cancels is told so; the time limit is not an excuse."""

    @server.on("/")
    async def _(conn: Conn, got: Got) -> None:
        await conn.gone()

    task = asyncio.create_task(_get(transport, server.url + "/", Timeouts(first_byte=SHORT)))
    loop = asyncio.get_running_loop()
    loop.call_later(SHORT, task.cancel)
    with pytest.raises((asyncio.CancelledError, TimedOut)):
        await task
    assert task.done()


async def test_a_closed_transport_says_so(server: Server, kind: str) -> None:
    async with aclosing(create(kind=kind)) as transport:
        pass
    with pytest.raises(ConfigError, match="closed"):
        await _get(transport, server.url + "/")


async def test_closing_ends_requests_that_wait(server: Server, kind: str) -> None:
    reached, gone = asyncio.Event(), asyncio.Event()

    @server.on("/")
    async def _(conn: Conn, got: Got) -> None:
        reached.set()
        await conn.gone()
        gone.set()

    async with aclosing(create(kind=kind)) as transport:
        task = asyncio.create_task(_get(transport, server.url + "/"))
        await reached.wait()
    with pytest.raises(ConnectionLost):
        await task
    await asyncio.wait_for(gone.wait(), 5)


# Several event loops


def _in_loop(transport: Transport, url: str, answers: list[bytes]) -> None:
    answers.append(asyncio.run(_get(transport, url)))


def test_one_transport_serves_several_loops(kind: str) -> None:
    async def answer(conn: Conn, got: Got) -> None:
        await conn.start()
        await conn.chunk(b"one")
        await conn.chunk(b"")

    started, stop = threading.Event(), asyncio.Event()
    place: list[str] = []
    loops: list[asyncio.AbstractEventLoop] = []

    async def serve() -> None:
        async with serving() as server:
            server.routes["/"] = answer
            place.append(server.url + "/")
            loops.append(asyncio.get_running_loop())
            started.set()
            await stop.wait()

    host = threading.Thread(target=asyncio.run, args=(serve(),))
    host.start()
    started.wait(5)
    transport = create(TransportOptions(), kind)
    answers: list[bytes] = []
    for _ in range(2):
        _in_loop(transport, place[0], answers)
    threads = [threading.Thread(target=_in_loop, args=(transport, place[0], answers)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    asyncio.run(transport.aclose())
    loops[0].call_soon_threadsafe(stop.set)
    host.join(10)
    assert answers == [b"one"] * 6
