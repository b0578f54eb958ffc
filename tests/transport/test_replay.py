"""The replay transport: which recording answers what, and when."""

import asyncio
import gzip
from pathlib import Path

import pytest

from tests.transport.conftest import LONG
from tolmach.errors import ConfigError, ConnectionLost, TimedOut
from tolmach.testing.recordings import Chunk, Exchange, load
from tolmach.transport import Timeouts, read
from tolmach.transport.replay import ReplayTransport
from tolmach.wire import Head, Request

CAPTURES = Path(__file__).parents[1] / "captures"


def recorded(path: str, body: bytes = b"", *chunks: bytes, method: str = "GET", broken: str = "") -> Exchange:
    request = Request(method, f"http://recorded.test{path}", {}, body)
    return Exchange(request, Head(200), tuple(Chunk(chunk, 10.0 * n) for n, chunk in enumerate(chunks)), broken)


async def _ask(transport: ReplayTransport, path: str, body: bytes = b"", method: str = "GET") -> bytes:
    request = Request(method, f"http://anywhere.test{path}", {}, body)
    return await read(await transport.send(request, LONG), 1 << 20)


async def test_equal_requests_are_answered_in_order_and_each_once() -> None:
    transport = ReplayTransport([recorded("/a", b"", b"1"), recorded("/b", b"", b"2"), recorded("/a", b"", b"3")])
    assert [await _ask(transport, path) for path in ("/a", "/a", "/b")] == [b"1", b"3", b"2"]
    with pytest.raises(ConfigError, match="no recording answers GET /a; all were given already"):
        await _ask(transport, "/a")
    assert [request.url for request in transport.asked] == [f"http://anywhere.test/{path}" for path in "aaba"]


async def test_the_last_one_again() -> None:
    transport = ReplayTransport([recorded("/a", b"", b"1"), recorded("/a", b"", b"2")], again=True)
    assert [await _ask(transport, "/a") for _ in range(4)] == [b"1", b"2", b"2", b"2"]


async def test_method_path_and_names_in_the_query_count() -> None:
    transport = ReplayTransport([recorded("/a?x=1&nonce=s3cret", b"", b"1")])
    for method, path in (("POST", "/a?x=1&nonce=1"), ("GET", "/b?x=1&nonce=1"), ("GET", "/a?x=1"), ("GET", "/a")):
        with pytest.raises(ConfigError) as caught:
            await _ask(transport, path, method=method)
        named = f"{method} {path.replace('x=1&nonce=1', 'nonce=&x=').replace('x=1', 'x=')}"
        assert str(caught.value) == f"no recording answers {named}; left are GET /a?nonce=&x="
    assert await _ask(transport, "/a?nonce=2&x=") == b"1"


async def test_bodies_count_when_asked_to() -> None:
    exchanges = [recorded("/a", b"q1", b"1", method="POST"), recorded("/a", b"q2", b"2", method="POST")]
    assert await _ask(ReplayTransport(exchanges), "/a", b"q2", "POST") == b"1"
    transport = ReplayTransport(exchanges, compare_bodies=True)
    assert await _ask(transport, "/a", b"q2", "POST") == b"2"
    with pytest.raises(ConfigError):
        await _ask(transport, "/a", b"q3", "POST")


async def test_pieces_come_as_they_were_recorded() -> None:
    transport = ReplayTransport([recorded("/a", b"", b"one", b"", b"two")])
    exchange = await transport.send(Request("GET", "http://x.test/a"), LONG)
    assert [piece async for piece in exchange] == [b"one", b"two"]
    assert exchange.head.url == "http://x.test/a"


async def test_times_are_kept_on_request() -> None:
    loop = asyncio.get_running_loop()
    started = loop.time()
    transport = ReplayTransport([recorded("/a", b"", *[b"x"] * 6)] * 2, speed=0.5)
    await _ask(transport, "/a")
    assert loop.time() - started >= 0.1
    with pytest.raises(TimedOut) as caught:
        await read(await transport.send(Request("GET", "http://x.test/a"), Timeouts(idle=0.005)), 10)
    assert caught.value.phase == "idle"


async def test_a_speed_is_over_zero() -> None:
    with pytest.raises(ConfigError, match="speed"):
        ReplayTransport([], speed=0)


async def test_a_transfer_that_broke_breaks_again() -> None:
    transport = ReplayTransport([recorded("/a", b"", b"one", broken="reset")])
    with pytest.raises(ConnectionLost, match="reset"):
        await _ask(transport, "/a")


async def test_a_compressed_recording_is_given_decompressed() -> None:
    exchange = recorded("/a", b"", gzip.compress(b"text"))
    exchange = Exchange(exchange.request, Head(200, {"content-encoding": "gzip"}), exchange.chunks)
    assert await _ask(ReplayTransport([exchange]), "/a") == b"text"
    assert exchange.head.header("content-encoding") == "gzip", "the recording stays as it is"


async def test_a_real_recording() -> None:
    recording = load(CAPTURES / "aiengine-2.4.5" / "chat-minimal-body.json")
    transport = ReplayTransport(recording.exchanges)
    body = await _ask(transport, "/wp-json/mwai-ui/v1/chats/submit", b"{}", "POST")
    assert body == recording.exchanges[0].body()
