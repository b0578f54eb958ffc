"""The in-memory transport: what an application is told, and what it does wrong."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest

from tests.transport.app import App, Receive, Send, start
from tests.transport.conftest import LONG, SHORT
from tolmach.errors import ConfigError, ConnectionLost, RemoteProtocolError, TimedOut
from tolmach.transport import Timeouts, read
from tolmach.transport.memory import AsgiApp, MemoryTransport
from tolmach.wire import Head, Request

URL = "http://user@service.test:81/a%20b?q=1"


async def _ask(app: AsgiApp, method: str = "GET") -> bytes:
    async with aclosing(MemoryTransport(app)) as transport:
        return await read(await transport.send(Request(method, URL), LONG), 1 << 20)


async def test_the_scope_is_a_servers() -> None:
    scopes = []

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        scopes.append(scope)
        await start(send, 204)
        await send({"type": "http.response.body"})

    await _ask(app, "POST")
    [scope] = scopes
    assert {key: scope[key] for key in ("type", "method", "path", "raw_path", "query_string", "scheme", "server")} == {
        "type": "http",
        "method": "POST",
        "path": "/a b",
        "raw_path": b"/a%20b",
        "query_string": b"q=1",
        "scheme": "http",
        "server": ("service.test", 81),
    }
    assert scope["asgi"]["version"] == "3.0"
    assert (b"host", b"service.test:81") in scope["headers"]
    assert (b"content-length", b"0") in scope["headers"]


async def test_an_application_waits_for_its_reader_and_is_told_when_nobody_reads() -> None:
    sent, told = [], asyncio.Event()

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await start(send)
        try:
            for number in range(1000):
                await send({"type": "http.response.body", "body": b"%d" % number, "more_body": True})
                sent.append(number)
        except OSError:
            told.set()

    async with aclosing(MemoryTransport(app)) as transport:
        exchange = await transport.send(Request("GET", URL), LONG)
        assert await anext(aiter(exchange)) == b"0"
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(sent) <= 3, "it runs no further ahead than a socket's buffer would let it"
        await exchange.aclose()
        await asyncio.wait_for(told.wait(), 2)


async def test_an_answer_that_begins_too_late_is_refused() -> None:
    told = asyncio.Event()

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await receive()
        assert (await receive())["type"] == "http.disconnect"
        with pytest.raises(OSError, match="went away"):
            await start(send)
        told.set()

    async with aclosing(MemoryTransport(app)) as transport:
        with pytest.raises(TimedOut):
            await transport.send(Request("GET", URL), Timeouts(first_byte=SHORT))
        await asyncio.wait_for(told.wait(), 2)


async def test_a_failing_application_is_the_cause() -> None:
    with pytest.raises(ConnectionLost) as caught:
        await _ask(_calls("/fails"))
    assert isinstance(caught.value.__cause__, LookupError)


def _calls(path: str) -> AsgiApp:
    app = App()

    async def call(scope: Any, receive: Receive, send: Send) -> None:
        await app({**scope, "path": path}, receive, send)

    return call


BODY = {"type": "http.response.body", "body": b"12345"}
START = {"type": "http.response.start", "status": 200, "headers": []}
LENGTH = {**START, "headers": [(b"content-length", b"4")]}


@pytest.mark.parametrize(
    "messages",
    [[BODY], [START], [START, START], [LENGTH, BODY], [START, BODY | {"more_body": True}], [{"type": "no.such"}]],
    ids=["no start", "no body", "two starts", "too long", "no end", "unknown"],
)
async def test_a_wrong_order_of_messages_is_a_lost_connection(messages: list[dict[str, Any]]) -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    with pytest.raises(ConnectionLost):
        await _ask(app)


async def test_a_head_request_has_no_body() -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send(START | {"headers": [(b"content-length", b"5")]})
        await send(BODY)

    assert (await _ask(app, "HEAD"), await _ask(app)) == (b"", b"12345")


async def test_content_codings_are_undone() -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send(START | {"headers": [(b"content-encoding", b"gzip")]})
        packed = gzip.compress(b"one") + gzip.compress(b"two")
        for at in range(len(packed)):
            await send({"type": "http.response.body", "body": packed[at : at + 1], "more_body": True})
        await send({"type": "http.response.body"})

    assert await _ask(app) == b"onetwo"


async def test_a_coding_nobody_asked_for_is_refused() -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send(START | {"headers": [(b"content-encoding", b"rot13")]})
        await send(BODY)

    with pytest.raises(RemoteProtocolError, match="'rot13' was not asked for"):
        await _ask(app)


async def test_closing_the_transport_ends_what_runs() -> None:
    app, ended = App(), asyncio.Event()

    async def deaf(scope: Any, receive: Receive, send: Send) -> None:
        app.reached.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    transport = MemoryTransport(deaf)
    task = asyncio.create_task(transport.send(Request("GET", URL), LONG))
    await app.reached.wait()
    task.cancel()
    await asyncio.wait([task])
    assert not ended.is_set(), "a server does not kill an application whose caller went away"
    await transport.aclose()
    assert ended.is_set()
    with pytest.raises(ConfigError, match="closed"):
        await transport.send(Request("GET", URL), LONG)


async def test_a_handler() -> None:
    closed = asyncio.Event()

    async def handler(request: Request) -> tuple[Head, AsyncIterator[bytes]]:
        async def body() -> AsyncIterator[bytes]:
            try:
                yield b""
                yield json.dumps([request.method, request.body.decode()]).encode()
                yield b" "
            finally:
                closed.set()

        return Head(200, {"content-type": "application/json"}), body()

    async with aclosing(MemoryTransport(handler=handler)) as transport:
        exchange = await transport.send(Request("POST", URL, {}, b"hi"), LONG)
        assert (exchange.head.status, exchange.head.url) == (200, URL)
        assert await anext(aiter(exchange)) == b'["POST", "hi"]'
        await exchange.aclose()
        await asyncio.wait_for(closed.wait(), 2)


@pytest.mark.parametrize("when", ["head", "body"])
async def test_a_failing_handler(when: str) -> None:
    async def handler(request: Request) -> tuple[Head, AsyncIterator[bytes]]:
        async def body() -> AsyncIterator[bytes]:
            yield b"one"
            raise LookupError

        if when == "head":
            raise LookupError
        return Head(200), body()

    async with aclosing(MemoryTransport(handler=handler)) as transport:
        with pytest.raises(ConnectionLost, match="LookupError"):
            await read(await transport.send(Request("GET", URL), LONG), 100)


def test_it_takes_one_of_both() -> None:
    with pytest.raises(ConfigError):
        MemoryTransport()
