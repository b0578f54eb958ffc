"""Where an answer ends without its end mark: whole when its reason had come and its body ended, else broken."""

import json
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest

from tests.gateway.heard import PATHS, heard, question
from tests.gateway.program import raw
from tests.transport.server import Conn, Got, Server, serving
from tolmach.gateway.core import Gateway
from tolmach.gateway.serving.server import serving as gateway_serving
from tolmach.protocols import create
from tolmach.protocols.base import Site
from tolmach.providers.base import Access
from tolmach.routing.policy import Rules
from tolmach.routing.targets import Provider, Route, Targets


def _chunks(*choices: dict[str, Any]) -> list[bytes]:
    return [b"data: %b\n\n" % json.dumps({"id": "1", "choices": [one]}).encode() for one in choices]


OPENAI = _chunks(
    {"index": 0, "delta": {"role": "assistant", "content": ""}},
    {"index": 0, "delta": {"content": "Hello "}},
    {"index": 0, "delta": {"content": "there"}},
    {"index": 0, "delta": {}, "finish_reason": "stop"},
)
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}\n\n'
DONE = b"data: [DONE]\n\n"


def _event(kind: str, **fields: Any) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), json.dumps({"type": kind, **fields}).encode())


ANTHROPIC = [
    _event("message_start", message={"id": "m", "usage": {"input_tokens": 1, "output_tokens": 1}}),
    _event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
    _event("content_block_delta", index=0, delta={"type": "text_delta", "text": "Hello "}),
    _event("content_block_delta", index=0, delta={"type": "text_delta", "text": "there"}),
    _event("content_block_stop", index=0),
    _event("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 2}),
]
STREAMS = {"openai": OPENAI, "anthropic": ANTHROPIC}
MARKS = {"openai": DONE, "anthropic": b'event: message_stop\ndata: {"type":"message_stop"}\n\n'}
PLACES = {"openai": "/v1/chat/completions", "anthropic": "/v1/messages"}


class Ending:
    """A service whose answer is `pieces`, in chunks; `end` says how the body ends."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.pieces: list[bytes] = []
        self.end = "last chunk"
        for path in PLACES.values():
            server.routes[path] = self._answer

    async def _answer(self, conn: Conn, got: Got) -> None:
        kind = "Content-Type: text/event-stream\r\n"
        if self.end == "length":
            await conn.reply(b"".join(self.pieces), headers=kind)
            return
        await conn.start(kind)
        for piece in self.pieces:
            await conn.chunk(piece)
        if self.end == "last chunk":
            await conn.chunk(b"")
        elif self.end == "reset":
            conn.reset()
        else:
            conn.close()


@pytest.fixture
async def ending() -> AsyncIterator[Ending]:
    async with serving() as server:
        yield Ending(server)


@pytest.fixture
async def url(ending: Ending) -> AsyncIterator[str]:
    sites = {
        "openai": Site(name="openai", url=f"{ending.server.url}/v1", protocol=create("openai"), api_key="k"),
        "anthropic": Site(name="anthropic", url=ending.server.url, protocol=create("anthropic"), api_key="k"),
    }
    providers = [Provider(name=name, site=site, access=Access()) for name, site in sites.items()]
    routes = {
        f"resumed-{name}": Route(targets=(f"{name}/m",), rules=Rules(recover="resume", attempts=2)) for name in sites
    }
    async with gateway_serving(Gateway(Targets(providers, routes))) as url:
        yield url


async def streamed(url: str, surface: str, model: str, **more: Any) -> bytes:
    body = json.dumps(question(surface, model, "Hello", stream=True, **more)).encode()
    status, _, answer = await raw(url, "POST", PATHS[surface], body)
    assert status == 200, answer
    return answer


@pytest.mark.parametrize("end", ["last chunk", "length"])
@pytest.mark.parametrize("api", STREAMS)
@pytest.mark.parametrize("model", ["{}/m", "resumed-{}"])
async def test_an_answer_passed_on_gets_the_mark_that_it_lacks(
    url: str, ending: Ending, api: str, end: str, model: str
) -> None:
    ending.pieces, ending.end = STREAMS[api], end
    answer = await streamed(url, api, model.format(api))
    assert answer == b"".join(STREAMS[api]) + MARKS[api]
    found = heard(api, 200, answer)
    assert (found.outcome, found.text) == ("ok", "Hello there")


@pytest.mark.parametrize("end", ["last chunk", "length"])
async def test_neither_usage_that_was_asked_for_nor_half_a_mark_is_waited_for(
    url: str, ending: Ending, end: str
) -> None:
    for rest in (b"", b"data: [DONE]", b"data: [DONE]\n", b"data: [DO"):
        ending.pieces, ending.end = [*OPENAI, *([rest] if rest else [])], end
        answer = await streamed(url, "openai", "openai/m", stream_options={"include_usage": True})
        assert answer == b"".join(OPENAI) + DONE, rest
    ending.pieces = [*OPENAI, USAGE, DONE]
    answer = await streamed(url, "openai", "openai/m", stream_options={"include_usage": True})
    assert answer == b"".join(ending.pieces), "nothing is added to what ends as it should"


@pytest.mark.parametrize("end", ["last chunk", "length"])
@pytest.mark.parametrize("pair", ["anthropic openai", "openai anthropic", "responses openai"])
async def test_an_answer_that_is_translated_is_whole(url: str, ending: Ending, pair: str, end: str) -> None:
    surface, api = pair.split()
    ending.pieces, ending.end = STREAMS[api], end
    found = heard(surface, 200, await streamed(url, surface, f"{api}/m"))
    assert (found.outcome, found.text) == ("ok", "Hello there")


@pytest.mark.parametrize("end", ["reset", "close"])
@pytest.mark.parametrize("pair", ["openai openai", "anthropic anthropic", "responses openai"])
async def test_a_connection_that_breaks_behind_the_reason_is_a_broken_answer(
    url: str, ending: Ending, pair: str, end: str
) -> None:
    surface, api = pair.split()
    ending.pieces, ending.end = STREAMS[api], end
    answer = await streamed(url, surface, f"{api}/m")
    assert heard(surface, 200, answer).outcome == "cut"
    assert MARKS[api] not in answer


@pytest.mark.parametrize("api", STREAMS)
async def test_a_body_that_ends_before_its_reason_is_a_broken_answer(url: str, ending: Ending, api: str) -> None:
    ending.pieces = STREAMS[api][:-1]
    assert heard(api, 200, await streamed(url, api, f"{api}/m")).outcome == "cut"


async def test_of_several_choices_each_has_to_have_its_reason(url: str, ending: Ending) -> None:
    second = _chunks({"index": 1, "delta": {"content": "Hi"}})
    ending.pieces = [*OPENAI[:2], *second, *OPENAI[2:]]
    assert heard("openai", 200, await streamed(url, "openai", "openai/m", n=2)).outcome == "cut"
    ending.pieces += _chunks({"index": 1, "delta": {}, "finish_reason": "length"}, {"index": 0, "delta": {}})
    answer = await streamed(url, "openai", "openai/m", n=2)
    assert answer == b"".join(ending.pieces) + DONE


async def test_the_openai_package_reads_it_to_its_end(url: str, ending: Ending) -> None:
    ending.pieces = OPENAI
    async with openai.AsyncOpenAI(api_key="k", base_url=f"{url}/v1", max_retries=0) as client:
        stream = await client.chat.completions.create(
            model="openai/m", messages=[{"role": "user", "content": "Hello"}], stream=True
        )
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])
    assert text == "Hello there"
