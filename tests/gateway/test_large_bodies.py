"""Bodies that are cheap to send and dear to read."""

import asyncio
import json
from typing import Any

import pytest

from tests.gateway.served import served
from tests.gateway.serving.test_sockets import all_answered, body, both, connected, read_to_end, request
from tolmach.errors import BadRequest
from tolmach.gateway import core as core_module
from tolmach.gateway.http import ServerLimits
from tolmach.gateway.surfaces.bodies import check_depth

PATH = "/v1/chat/completions"


@pytest.mark.parametrize("value", [b"[]", b"{}", b"1", b'""'])
def test_a_body_of_too_many_values_is_refused_before_it_is_read(value: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*_: Any) -> None:
        raise AssertionError("it was read")

    monkeypatch.setattr("msgspec.json.decode", read)
    with pytest.raises(BadRequest, match="more than 200,000 brackets or 1,000,000 commas"):
        check_depth(b'{"x":[' + b",".join([value] * 1_100_000) + b"]}", 100)


def test_a_long_text_is_no_body_of_many_values() -> None:
    check_depth(json.dumps({"messages": [{"content": "One, two (three), [four]. " * 90_000}]}).encode(), 100)


@both
async def test_the_bodies_of_all_together_have_a_limit(interface: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core_module, "_MOST_HELD", 1000)
    async with served(interface, limits=ServerLimits(body_bytes=1000)) as (url, _, core):
        data = body(PATH, "openai/fault:stall=5", "x" * 500, stream=True)
        async with connected(url) as (reader, writer):
            writer.write(request(PATH, data))
            await reader.readuntil(b"##")
            async with connected(url) as (other, sending):
                sending.write(request(PATH, data, "Connection: close\r\n"))
                said = await read_to_end(other)
            assert said.startswith(b"HTTP/1.1 503 ")
            assert b"retry-after: 1" in said.lower()
        await all_answered(core)
        core._draining = False
        async with asyncio.timeout(5), connected(url) as (reader, writer):
            writer.write(request(PATH, body(PATH, "openai/gpt-4o-mini"), "Connection: close\r\n"))
            assert (await read_to_end(reader)).startswith(b"HTTP/1.1 200 ")
        assert (core._read, core._coming) == (0, 0)
