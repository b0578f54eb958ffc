"""The gateway before callers that are slow, broken, hostile or gone, on both server interfaces."""

import asyncio
import json
import logging
import random
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from tests.gateway.served import MODELS, served
from tolmach.gateway.core import Gateway
from tolmach.gateway.http import Incoming, Reply, ServerLimits
from tolmach.wire import Request

both = pytest.mark.parametrize("interface", ["rsgi", "asgi"])

PATHS = ("/v1/chat/completions", "/v1/responses", "/v1/messages")


def body(path: str, model: str, text: str = "Hm?", **more: Any) -> bytes:
    """A question in the shape of the surface at `path`."""
    asked: dict[str, Any] = {"messages": [{"role": "user", "content": text}]}
    if path == "/v1/responses":
        asked = {"input": text}
    if path == "/v1/messages":
        asked["max_tokens"] = 1000
    return json.dumps({"model": model, **asked, **more}).encode()


def request(path: str, data: bytes, headers: str = "", method: str = "POST") -> bytes:
    return (
        f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n{headers}\r\n".encode() + data
    )


@asynccontextmanager
async def connected(url: str) -> AsyncGenerator[tuple[asyncio.StreamReader, asyncio.StreamWriter], None]:
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        async with asyncio.timeout(10):
            yield reader, writer
    finally:
        writer.transport.abort()


async def read_to_end(reader: asyncio.StreamReader) -> bytes:
    """What came until the server closed the connection, whichever way."""
    data = b""
    try:
        while piece := await reader.read(65536):
            data += piece
    except ConnectionResetError:
        pass
    return data


async def still_answers(url: str) -> None:
    async with connected(url) as (reader, writer):
        writer.write(request("/health/live", b"", "Connection: close\r\n", "GET"))
        assert (await read_to_end(reader)).startswith(b"HTTP/1.1 200")


async def all_answered(core: Gateway) -> None:
    await core.drain(5)
    assert core.under_way == 0


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


# Slow callers


@both
async def test_a_head_that_does_not_come_is_not_waited_for(interface: Any):
    async with served(interface, header_seconds=0.1) as (url, _, _):
        for began in (b"", b"POST /v1/messages HTTP/1.1\r\nHos"):
            async with connected(url) as (reader, writer):
                writer.write(began)
                assert b" 200 " not in await read_to_end(reader)
        await still_answers(url)


@both
@pytest.mark.parametrize("path", [*PATHS, "/v1/embeddings", "/v1/messages/count_tokens"])
@pytest.mark.parametrize(
    "began",
    [b"Content-Length: 100\r\n\r\n{", b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n"],
    ids=["length", "chunked"],
)
async def test_a_body_that_does_not_come_is_not_waited_for(interface: Any, path: str, began: bytes):
    async with served(interface, limits=ServerLimits(body_seconds=0.1)) as (url, demo, core):

        async def dribble() -> bytes:
            async with connected(url) as (reader, writer):
                writer.write(b"POST %b HTTP/1.1\r\nHost: localhost\r\n" % path.encode() + began)
                return await read_to_end(reader)

        # Many at once: what closes a connection is a matter of who lets go of it first.
        for answer in await asyncio.gather(*[dribble() for _ in range(20)]):
            head, _, said = answer.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 408")
            assert b"connection: close" in head.lower()
            assert b'"the body did not come within 0.1 seconds"' in said
        assert core.under_way == 0
        assert not demo.log.requests
        await still_answers(url)


@both
async def test_a_caller_who_leaves_while_sending_is_forgotten(
    interface: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    async with served(interface) as (url, _, core):
        begun = asyncio.Event()
        handle = core.handle

        async def watched(incoming: Incoming, reply: Reply) -> None:
            begun.set()
            await handle(incoming, reply)

        monkeypatch.setattr(core, "handle", watched)
        async with connected(url) as (_, writer):
            writer.write(b"POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
            await begun.wait()
        await all_answered(core)
        assert b'tolmach_requests_cancelled_total{surface="anthropic"} 1.0' in core.metrics.text()
    assert errors(caplog) == []


# Broken callers

GARBAGE = {
    "noise": bytes(range(256)) * 8,
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
    "no path": b"GET\r\n\r\n",
    "version": b"GET / HTTP/9.9\r\n\r\n",
    "control characters": b"GET /\x01 HTTP/1.1\r\nHost: localhost\r\nA: \x00\r\n\r\n",
    "two lengths": b"POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
    "negative length": b"POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n{}",
    "long head": b"GET / HTTP/1.1\r\nHost: localhost\r\nA: " + b"a" * 200_000 + b"\r\n\r\n",
    "many headers": b"GET / HTTP/1.1\r\nHost: localhost\r\n"
    + b"".join(b"a%d: b\r\n" % i for i in range(5000))
    + b"\r\n",
    "long path": b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "bad chunk": b"POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"zz\r\n{}\r\n0\r\n\r\n",
    "bodies of other kinds": request("/v1/messages", b"\xff\xfe\x00{", "Content-Type: image/png\r\n"),
}


@both
async def test_garbage_is_refused_and_hurts_nobody(interface: Any, caplog: pytest.LogCaptureFixture):
    async with served(interface, header_seconds=0.2, limits=ServerLimits(body_seconds=0.2)) as (url, demo, core):
        for name, data in GARBAGE.items():
            async with connected(url) as (reader, writer):
                writer.write(data)
                with suppress(OSError):  # the server may have closed it by now
                    writer.write_eof()
                said = await read_to_end(reader)
            status = int(said.split()[1]) if said else 0
            assert status == 0 or 400 <= status < 500, (name, said[:200])
        await still_answers(url)
        assert not demo.log.requests
        await all_answered(core)
    assert errors(caplog) == []


@both
async def test_requests_in_one_go_are_answered_in_their_order(interface: Any):
    async with served(interface) as (url, _, _):
        async with connected(url) as (reader, writer):
            data = body(PATHS[0], "openai/gpt-4o-mini", "first", stream=True)
            last = request("/health/live", b"", "Connection: close\r\n", "GET")
            writer.write(
                request(PATHS[0], data) + request(PATHS[2], body(PATHS[2], "ChatGptt/default", "second")) + last
            )
            said = (await read_to_end(reader)).decode()
    assert said.count("HTTP/1.1 200 OK") == 3
    assert said.index("> first") < said.index("data: [DONE]") < said.index("> second") < said.index('"status":"live"')


# Callers who leave

ENDS = {
    "/v1/chat/completions": b"data: [DONE]\n\n\r\n0\r\n\r\n",
    "/v1/responses": b"}\n\n\r\n0\r\n\r\n",
    "/v1/messages": b'{"type":"message_stop"}\n\n\r\n0\r\n\r\n',
}


@both
async def test_a_hundred_leave_at_any_time_while_a_hundred_are_answered(
    interface: Any, caplog: pytest.LogCaptureFixture
):
    chance = random.Random(17)
    async with served(interface) as (url, demo, core):

        async def stay(i: int) -> None:
            path, model = PATHS[i % 3], MODELS[i % len(MODELS)]
            async with connected(url) as (reader, writer):
                asked = body(path, model, f"number {i}", stream=i % 2 == 0)
                writer.write(request(path, asked, "Connection: close\r\n"))
                said = await read_to_end(reader)
            assert said.startswith(b"HTTP/1.1 200"), said[:300]
            assert said.endswith(ENDS[path] if i % 2 == 0 else b"}"), said[-300:]

        async def leave(i: int, pieces: int) -> None:
            path, model = PATHS[i % 3], MODELS[i % len(MODELS)]
            async with connected(url) as (reader, writer):
                data = request(path, body(path, model, "[[fault:delay=0.01]] leave", stream=i % 4 != 0))
                if pieces == 0:
                    data = data[: chance.randrange(len(data))]
                writer.write(data)
                await writer.drain()
                for _ in range(pieces):
                    await reader.read(chance.randrange(1, 400))

        everybody = [stay(i) for i in range(100)] + [leave(i, chance.randrange(4)) for i in range(100)]
        chance.shuffle(everybody)
        await asyncio.gather(*everybody)
        await all_answered(core)
        assert b"tolmach_open_streams 0.0" in core.metrics.text()
        await demo.log.wait_until(lambda log: all(seen.ended for seen in log.requests))
        hung_up = demo.log.hangups
        await still_answers(url)
    assert errors(caplog) == []
    assert hung_up > 0
    assert demo.log.open_connections == 0


# Silence

PINGS = {
    "/v1/chat/completions": b": keep-alive\n\n",
    "/v1/responses": b": keep-alive\n\n",
    "/v1/messages": b"event: ping\n",
}


@both
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("target", ["openai", "anthropic", "gemini", "responses"])
async def test_a_silent_stream_says_that_it_lives(interface: Any, path: str, target: str):
    async with served(interface, keep_alive=0.02) as (url, demo, core):
        async with connected(url) as (reader, writer):
            writer.write(request(path, body(path, f"{target}/fault:stall=5", stream=True)))
            said = b""
            while said.count(PINGS[path]) < 4:
                said += await reader.read(65536)
        assert said.index(b"##") < said.rindex(PINGS[path])  # the answer has begun
        await demo.log.wait_hangups(1)
        await all_answered(core)
        assert b"tolmach_open_streams 0.0" in core.metrics.text()


@both
async def test_several_silent_answers_in_one_stream_too(interface: Any):
    async with served(interface, keep_alive=0.02) as (url, demo, core):
        async with connected(url) as (reader, writer):
            writer.write(request(PATHS[0], body(PATHS[0], "gemini/fault:stall=5", stream=True, n=2)))
            said = b""
            while said.count(b": keep-alive\n\n") < 2:
                said += await reader.read(65536)
        await demo.log.wait_hangups(2)
        await all_answered(core)
        assert b"[DONE]" not in said
        assert b"tolmach_open_streams 0.0" in core.metrics.text()


@both
async def test_a_stream_that_flows_is_not_padded(interface: Any):
    async with served(interface, keep_alive=0.3, delay=0.005) as (url, _, _):
        async with connected(url) as (reader, writer):
            data = body(PATHS[0], "gemini/gemini-2.5-flash", stream=True)
            writer.write(request(PATHS[0], data, "Connection: close\r\n"))
            said = await read_to_end(reader)
    assert b"[DONE]" in said
    assert b"keep-alive\n" not in said


# Being stopped


@both
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("model", ["openai/fault:silence", "gemini/fault:stall=9", "ChatGptt/default"])
@pytest.mark.parametrize("streamed", [False, True])
async def test_what_is_under_way_when_the_time_is_up_is_told_so(interface: Any, path: str, model: str, streamed: bool):
    text = "go on" if "fault" in model else "[[fault:slow-first-token=9]] go on"
    async with served(interface) as (url, demo, core), connected(url) as (reader, writer):
        writer.write(request(path, body(path, model, text, stream=streamed)))
        await demo.log.wait_until(lambda log: log.requests)
        began = streamed and "stall" in model
        said = await reader.readuntil(b"##") if began else b""
        await core.drain(0)
        await core.cut_off()
        said += await reader.readuntil(b"\r\n0\r\n\r\n") if began else await read_to_end(reader)
        await all_answered(core)
        await demo.log.wait_until(lambda log: all(seen.ended for seen in log.requests))
    head, _, rest = said.partition(b"\r\n\r\n")
    assert b"the gateway was stopped before the answer's end" in rest
    assert b"[DONE]" not in rest
    assert b"message_stop" not in rest
    assert head.startswith(b"HTTP/1.1 200" if began else b"HTTP/1.1 503")
    if not began:
        assert b"connection: close" in head.lower()
        assert b"retry-after: 1" in head.lower()
        error = json.loads(rest)["error"]
        assert error["type"] == ("overloaded_error" if path == "/v1/messages" else "server_error")


# What stays here


@both
async def test_addresses_of_targets_are_for_the_log_only(interface: Any, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, "tolmach.gateway")
    async with served(interface) as (url, demo, _):
        for path in PATHS:
            for target in ("openai", "anthropic", "gemini"):
                for fault, streamed in (("reset", False), ("reset", True), ("cut=5", True)):
                    caplog.clear()
                    async with connected(url) as (reader, writer):
                        asked = body(path, f"{target}/fault:{fault}", stream=streamed)
                        writer.write(request(path, asked, "Connection: close\r\n"))
                        said = (await read_to_end(reader)).decode()
                    assert "127.0.0.1" not in said
                    assert f"{target}/fault:{fault}: the connection broke" in said
                    assert f"{demo.url}: the connection broke" in caplog.text


OWN = (
    "Authorization: Bearer caller-key\r\nX-Api-Key: caller-key\r\nCookie: caller=caller-cookie\r\n"
    "User-Agent: caller-agent\r\nX-Forwarded-For: 203.0.113.7\r\nX-Caller-Header: caller-value\r\n"
    "OpenAI-Organization: caller-org\r\nOrigin: http://caller.example\r\nReferer: http://caller.example/\r\n"
    "X-Request-Id: caller-request\r\nProxy-Authorization: Basic caller-proxy\r\nAccept-Language: caller-tongue\r\n"
)


@both
async def test_headers_of_callers_stay_here(interface: Any, monkeypatch: pytest.MonkeyPatch):
    async with served(interface) as (url, demo, _):
        arrived: list[Request] = []
        respond = demo.app.respond

        async def spy(request: Request) -> Any:
            arrived.append(request)
            return await respond(request)

        monkeypatch.setattr(demo.app, "respond", spy)
        for path in PATHS:
            for model in MODELS:
                arrived.clear()
                async with connected(url) as (reader, writer):
                    writer.write(request(path, body(path, model), OWN + "Connection: close\r\n"))
                    said = await read_to_end(reader)
                if said.startswith(b"HTTP/1.1 200"):
                    assert arrived
                else:
                    assert said.startswith(b"HTTP/1.1 403")  # a page of another origin, which is not let in
                for seen in arrived:
                    assert "x-caller-header" not in seen.headers
                    told = [f"{k}: {v}" for k, v in seen.headers.items() if "caller" in v or "203.0.113.7" in v]
                    assert told == [], (path, model)
