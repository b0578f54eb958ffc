"""What holds for every transport: over sockets, in memory, from recordings, and while recording."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from tests.transport.app import App, over_socket
from tests.transport.conftest import LONG, SHORT
from tests.transport.server import serving
from tolmach.errors import ConnectionLost, TimedOut
from tolmach.testing.record import RecordingTransport
from tolmach.testing.recordings import load
from tolmach.transport import Timeouts, Transport, create, read
from tolmach.transport.memory import MemoryTransport
from tolmach.transport.replay import ReplayTransport
from tolmach.wire import Request


class Place:
    """An application and a transport that reaches it at `url`."""

    def __init__(self, app: App, transport: Transport, url: str) -> None:
        self.app = app
        self.transport = transport
        self.url = url

    async def get(self, path: str, timeouts: Timeouts = LONG) -> bytes:
        return await read(await self.transport.send(Request("GET", self.url + path), timeouts), 1 << 20)


KINDS = ["auto", "wreq", "aiohttp", "memory", "recording"]


@pytest.fixture(params=KINDS)
async def place(request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    app = App()
    if request.param in ("memory", "recording"):
        memory: Transport = MemoryTransport(app)
        transport = RecordingTransport(memory) if request.param == "recording" else memory
        async with aclosing(transport):
            yield Place(app, transport, "http://service.test:8080")
    else:
        async with serving() as server, aclosing(create(kind=request.param)) as transport:
            over_socket(app, server)
            yield Place(app, transport, server.url)


async def test_request_and_head(place: Place) -> None:
    request = Request("POST", f"{place.url}/echo?a=%20b&c", {"x-b": "ж"}, '{"q": "é"}'.encode())
    exchange = await place.transport.send(request, LONG)
    told: dict[str, Any] = json.loads(await read(exchange, 10_000))
    head = exchange.head

    assert (head.status, head.content_type, head.header("x-a")) == (201, "application/json", "1, 2")
    assert head.url == request.url
    assert (told["method"], told["query"], told["body"]) == ("POST", "a=%20b&c", '{"q": "é"}')
    assert told["headers"]["x-b"] == "ж"
    assert told["headers"]["host"] == place.url.removeprefix("http://")
    assert told["headers"]["content-length"] == "11"


async def test_set_cookie_lines_are_kept_apart(place: Place) -> None:
    exchange = await place.transport.send(Request("GET", f"{place.url}/cookies"), LONG)
    assert await read(exchange, 10) == b"ok"
    assert exchange.head.cookies == ("a=1; Path=/, x", "b=2")


async def test_pieces_arrive_as_they_are_sent(place: Place) -> None:
    exchange = await place.transport.send(Request("GET", f"{place.url}/stream"), LONG)
    pieces = aiter(exchange)
    for number, piece in enumerate((b"one", b"two", b"three"), 1):
        assert len(place.app.sent) == number - 1
        place.app.more.release()
        assert await anext(pieces) == piece
    with pytest.raises(StopAsyncIteration):
        await anext(pieces)
    with pytest.raises(StopAsyncIteration):
        await anext(pieces)
    await exchange.aclose()


@pytest.mark.parametrize("path", ["/short", "/cut", "/fails"])
async def test_an_answer_without_its_end_is_an_error(place: Place, path: str) -> None:
    with pytest.raises(ConnectionLost, match=f"{place.url}: the connection broke"):
        await place.get(path)


@pytest.mark.parametrize(
    ("path", "timeouts", "phase"),
    [
        ("/silent", Timeouts(first_byte=SHORT), "first_byte"),
        ("/silent", Timeouts(total=SHORT), "total"),
        ("/stall", Timeouts(idle=SHORT), "idle"),
        ("/stall", Timeouts(total=SHORT), "total"),
    ],
)
async def test_every_limit_says_which_it_was(place: Place, path: str, timeouts: Timeouts, phase: str) -> None:
    with pytest.raises(TimedOut) as caught:
        await place.get(path, timeouts)
    assert (caught.value.phase, caught.value.seconds) == (phase, SHORT)
    await asyncio.wait_for(place.app.gone.wait(), 2)


@pytest.mark.parametrize("path", ["/silent", "/stall"])
async def test_a_cancelled_call_is_told_to_the_service(place: Place, path: str) -> None:
    task = asyncio.create_task(place.get(path))
    await place.app.reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(place.app.gone.wait(), 2)


async def test_a_closed_exchange_is_told_to_the_service(place: Place) -> None:
    exchange = await place.transport.send(Request("GET", f"{place.url}/stall"), LONG)
    assert await anext(aiter(exchange)) == b"one"
    await exchange.aclose()
    await exchange.aclose()
    await asyncio.wait_for(place.app.gone.wait(), 2)
    assert [piece async for piece in exchange] == []


async def test_a_recording_replays_what_was_recorded(place: Place, tmp_path: Path) -> None:
    """Any transport, recorded, saved, loaded and replayed, gives the same heads, pieces and errors."""
    recorder = RecordingTransport(place.transport)
    place.app.more = asyncio.Semaphore(3)

    async def ask(transport: Transport) -> list[object]:
        told: list[object] = []
        for path in ("/cookies", "/stream", "/cut"):
            exchange = await transport.send(Request("GET", place.url + path), LONG)
            told.append((exchange.head.status, exchange.head.url))
            try:
                told.append(await read(exchange, 1000))
            except ConnectionLost as error:
                told.append(type(error))
        return told

    first = await ask(recorder)
    file = tmp_path / "family" / "case.json"
    recorder.save(file)
    assert await ask(ReplayTransport(load(file).exchanges)) == first
    assert first[1:] == [b"ok", (200, f"{place.url}/stream"), b"onetwothree", (200, f"{place.url}/cut"), ConnectionLost]
