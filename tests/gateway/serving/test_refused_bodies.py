"""Bodies that are refused: broken ones are never asked, and who sends all of one first sees why it was refused."""

from contextlib import suppress
from typing import Any

import pytest

from tests.gateway.served import served
from tests.gateway.serving.test_sockets import all_answered, body, both, connected, read_to_end, still_answers
from tolmach.gateway.http import ServerLimits

PATH = "/v1/chat/completions"
DATA = body(PATH, "openai/gpt-4o-mini")
CHUNK = b"%x\r\n%b\r\n" % (len(DATA), DATA)
BROKEN = {
    "no last chunk": (CHUNK, True),
    "no last chunk after two": (b"2\r\n{ \r\n%x\r\n%b\r\n" % (len(DATA) - 1, DATA[1:]), True),
    "junk": (CHUNK + b"ZZZ\r\n", False),
    "junk that looks like a chunk": (CHUNK + b"5\r\nabcdefgh\r\n0\r\n\r\n", False),
    "the next chunk cut": (CHUNK + b"50\r\nabc", True),
    "no chunk at all": (b"ZZZ\r\n", False),
}


def head(headers: str, path: str = PATH) -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{headers}\r\n".encode()


@both
@pytest.mark.parametrize("name", BROKEN)
async def test_a_chunked_body_that_is_broken_is_not_asked(interface: Any, name: str) -> None:
    async with served(interface, limits=ServerLimits(body_seconds=5)) as (url, demo, core):
        data, ends = BROKEN[name]
        async with connected(url) as (reader, writer):
            writer.write(head("Transfer-Encoding: chunked\r\n") + data)
            if ends:
                writer.write_eof()
            said = await read_to_end(reader)
        assert said == b"" or said.startswith(b"HTTP/1.1 400"), said[:200]
        await all_answered(core)
        assert not demo.log.requests


@both
async def test_a_chunked_body_that_is_whole_is_asked(interface: Any) -> None:
    async with served(interface) as (url, demo, _):
        for data in (CHUNK, b"".join(b"1\r\n%c\r\n" % byte for byte in DATA)):
            async with connected(url) as (reader, writer):
                writer.write(head("Transfer-Encoding: chunked\r\nConnection: close\r\n") + data + b"0\r\n\r\n")
                assert (await read_to_end(reader)).startswith(b"HTTP/1.1 200")
        assert demo.log.chats("/v1") == 2


REFUSED = {
    "404": ("/nowhere", ""),
    "405": ("/v1/models", ""),
    "413": (PATH, ""),
    "415": (PATH, "Content-Encoding: gzip\r\n"),
    "403": (PATH, "Origin: http://elsewhere.example\r\n"),
}


@both
@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("status", REFUSED)
async def test_who_sends_all_of_it_first_sees_the_refusal(interface: Any, status: str, chunked: bool) -> None:
    path, headers = REFUSED[status]
    data = b" " * (4 << 20)
    framing = "Transfer-Encoding: chunked\r\n" if chunked else f"Content-Length: {len(data)}\r\n"
    sent = b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data) if chunked else data
    async with served(interface, limits=ServerLimits(body_bytes=1 << 20)) as (url, demo, _):
        for _ in range(5):
            async with connected(url) as (reader, writer):
                writer.write(head(framing + headers, path))
                await writer.drain()
                # Nothing of the answer is read before all of the body is sent.
                writer.write(sent)
                writer.transport.set_write_buffer_limits(0)
                await writer.drain()
                said = await reader.readuntil(b"\r\n\r\n")
            assert said.startswith(f"HTTP/1.1 {status} ".encode()), said[:200]
        assert not demo.log.requests
        await still_answers(url)


@both
async def test_a_body_that_waits_to_be_wanted_is_refused_at_once(interface: Any) -> None:
    async with served(interface) as (url, _, _), connected(url) as (reader, writer):
        writer.write(head("Content-Length: 100\r\nExpect: 100-continue\r\n", "/nowhere"))
        with suppress(ConnectionError):
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 404 ")
