"""What a caller gets while it waits for the first token, on both server interfaces."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.gateway.heard import heard
from tests.gateway.served import providers, served
from tests.gateway.serving.test_sockets import PATHS, all_answered, body, both, connected, read_to_end, request
from tolmach.demo import Demo
from tolmach.gateway.core import Gateway
from tolmach.gateway.serving.server import Interface
from tolmach.routing.policy import Rules
from tolmach.routing.targets import Route, Targets
from tolmach.transport import Timeouts

NAMES = dict(zip(PATHS, ("openai", "responses", "anthropic"), strict=True))
LIFE = b": keep-alive\n\n"
KEEP_ALIVE = 0.02

SILENT = ("openai/fault:silence", "responses/fault:silence", "anthropic/fault:silence")
"""Targets that answer nothing; each has one of the surfaces passed on to it."""


@asynccontextmanager
async def waited_for(
    interface: Interface, *targets: str, seconds: float, keep_alive: float = KEEP_ALIVE, **rules: Any
) -> AsyncGenerator[tuple[str, Demo, Gateway], None]:
    """A gateway whose route `slow` waits so many seconds for the first token of each target."""
    async with served(interface, keep_alive=keep_alive) as (url, demo, core):
        route = Route(
            targets=targets,
            rules=Rules(attempts=len(targets), **rules),
            timeouts=Timeouts(first_byte=seconds, idle=9, total=20),
        )
        core.targets = Targets(providers(demo), {"slow": route})
        yield url, demo, core


async def asked(url: str, path: str, **fields: Any) -> tuple[bytes, bytes]:
    """The head, and the body without the marks of its chunks."""
    async with connected(url) as (reader, writer):
        writer.write(request(path, body(path, "slow", **fields), "Connection: close\r\n"))
        head, _, rest = (await read_to_end(reader)).partition(b"\r\n\r\n")
    if b"chunked" not in head.lower():
        return head, rest
    data = b""
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size, 16)
        data, rest = data + rest[:length], rest[length + 2 :]
    return head, data


@both
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("recover", ["off", "restart", "resume"])
async def test_who_waits_long_hears_of_it_and_is_answered_by_the_next(interface: Any, path: str, recover: str):
    silent = SILENT[PATHS.index(path)]
    async with waited_for(interface, silent, "gemini/gemini-2.5-flash", seconds=0.3, recover=recover) as (url, _, core):
        head, said = await asked(url, path, stream=True)
        await all_answered(core)
        assert b"tolmach_open_streams 0.0" in core.metrics.text()
    assert head.startswith(b"HTTP/1.1 200")
    assert b"text/event-stream" in head
    assert b"x-request-id" in head
    assert said.startswith(LIFE * 2)
    assert heard(NAMES[path], 200, said).outcome == "ok"


@both
@pytest.mark.parametrize("path", PATHS)
async def test_who_was_sent_the_head_is_told_a_failure_by_an_event(interface: Any, path: str):
    async with waited_for(interface, SILENT[PATHS.index(path)], seconds=0.3) as (url, demo, core):
        head, said = await asked(url, path, stream=True)
        await all_answered(core)
        await demo.log.wait_hangups(1)
        counted = core.metrics.text()
    assert head.startswith(b"HTTP/1.1 200")
    assert said.startswith(LIFE)
    assert heard(NAMES[path], 200, said).outcome == "cut"
    assert b"no token within 0.3 s" in said
    assert b'error="TimedOut"' in counted


@both
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("streamed", [True, False])
async def test_what_fails_before_has_its_status(interface: Any, path: str, streamed: bool):
    """And what is not streamed has it however long it takes."""
    keep_alive = 9.0 if streamed else KEEP_ALIVE
    async with waited_for(interface, SILENT[0], seconds=0.3, keep_alive=keep_alive) as (url, _, _):
        head, said = await asked(url, path, stream=streamed)
    assert head.startswith(b"HTTP/1.1 504")
    assert LIFE not in said


@both
async def test_several_answers_are_waited_for_in_the_same_way(interface: Any):
    silent = "anthropic/fault:silence"
    async with waited_for(interface, silent, "gemini/gemini-2.5-flash", seconds=0.3) as (url, _, _):
        head, said = await asked(url, PATHS[0], stream=True, n=2)
    assert head.startswith(b"HTTP/1.1 200")
    assert said.startswith(LIFE)
    assert said.count(b'"finish_reason":"stop"') == 2
    assert said.endswith(b"data: [DONE]\n\n")


@both
@pytest.mark.parametrize("path", PATHS)
async def test_who_leaves_while_it_waits_is_forgotten(interface: Any, path: str):
    async with waited_for(interface, SILENT[0], seconds=9) as (url, demo, core):
        async with connected(url) as (reader, writer):
            writer.write(request(path, body(path, "slow", stream=True)))
            await reader.readuntil(LIFE)
        await demo.log.wait_hangups(1)
        await all_answered(core)
        assert b"tolmach_open_streams 0.0" in core.metrics.text()


@both
@pytest.mark.parametrize("path", PATHS)
async def test_who_waits_when_the_gateway_is_stopped_is_told_so(interface: Any, path: str):
    async with waited_for(interface, SILENT[0], seconds=9) as (url, _, core), connected(url) as (reader, writer):
        writer.write(request(path, body(path, "slow", stream=True)))
        await reader.readuntil(LIFE)
        await core.drain(0)
        stopping = asyncio.ensure_future(core.cut_off())
        said = await reader.readuntil(b"\r\n0\r\n\r\n")
        await stopping
    assert b"the gateway was stopped before the answer's end" in said
    assert b"[DONE]" not in said
