"""Callers who close the connection at the end mark, as the openai package does, while the service's body stays open."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.gateway.heard import question
from tests.gateway.serving.test_sockets import PATHS, all_answered, both, connected, request
from tolmach.gateway.context import RequestContext
from tolmach.gateway.core import Gateway
from tolmach.gateway.serving.server import serving
from tolmach.protocols import create
from tolmach.protocols.base import Site
from tolmach.providers.base import Access
from tolmach.routing.policy import Rules
from tolmach.routing.targets import Provider, Route, Targets
from tolmach.transport import drain

END_MARKS = {
    "/v1/chat/completions": b"data: [DONE]\n\n",
    "/v1/responses": b"event: response.completed\n",
    "/v1/messages": b'data: {"type":"message_stop"}\n\n',
}
SURFACES = dict(zip(PATHS, ("openai", "responses", "anthropic"), strict=True))
_CONFIG = json.dumps({"botId": 7, "nonce": "abcdef0123", "ajaxUrl": "/wp-admin/admin-ajax.php", "postId": 3})
_PAGE = f'<div class="aipkit_chat_container" data-config="{_CONFIG.replace(chr(34), "&quot;")}"></div>'
_CHUNK = (
    b'data: {"id":"1","object":"chat.completion.chunk","created":1,"model":"m","choices":'
    b'[{"index":0,"delta":{"content":"Hello"},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
)


class Service:
    """A site with AIPKit, and a service with OpenAI's API at /v1. The bodies of both stay open after the answer's end.

    `asked` has the texts of the questions to the site. `cut` breaks off the next stream after its first token.
    """

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.cut = False
        self.let_end = asyncio.Event()
        self._writers: set[asyncio.StreamWriter] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = int(head.lower().partition("content-length:")[2].partition("\r\n")[0] or 0)
                await self._answer(head.split()[1], (await reader.readexactly(length)).decode(), writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()

    async def _answer(self, path: str, body: str, writer: asyncio.StreamWriter) -> None:
        if path.startswith("/v1/"):
            await self._stream(_CHUNK, writer)
        elif "action=aipkit_cache_sse_message" in body:
            self.asked.append(parse_qs(body)["message"][0])
            key = f"k{len(self.asked) - 1}"
            _whole(writer, json.dumps({"success": True, "data": {"cache_key": key}}))
        elif path.startswith("/wp-admin/"):
            said = "You said: " + self.asked[int(parse_qs(urlsplit(path).query)["cache_key"][0][1:])]
            delta = f"data: {json.dumps({'delta': said})}\n\n".encode()
            if self.cut:
                self.cut = False
                _head(writer)
                writer.write(b"%x\r\n%b\r\n" % (len(delta), delta))
                raise ConnectionResetError
            await self._stream(delta + b'event: done\ndata: {"finished":true}\n\n', writer)
        else:
            _whole(writer, _PAGE)

    async def _stream(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        _head(writer)
        writer.write(b"%x\r\n%b\r\n" % (len(data), data))
        await self.let_end.wait()
        writer.write(b"0\r\n\r\n")

    def close(self) -> None:
        for writer in self._writers:
            writer.transport.abort()


def _head(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")


def _whole(writer: asyncio.StreamWriter, body: str) -> None:
    writer.write(f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())


class Stage:
    """A gateway in front of the service. `ended` has the questions that have come to their end."""

    def __init__(self, service: Service, core: Gateway, url: str) -> None:
        self.service = service
        self.core = core
        self.url = url
        self.ended: list[RequestContext] = []
        core.observers.append(self.ended.append)

    async def ask(self, path: str, model: str, **fields: Any) -> bytes:
        """Read a stream up to its end mark, and close the connection."""
        data = json.dumps({**question(SURFACES[path], model, ""), **fields, "stream": True}).encode()
        async with connected(self.url) as (reader, writer):
            writer.write(request(path, data))
            said = await reader.readuntil(END_MARKS[path])
        await all_answered(self.core)
        self.core._draining = False
        return said

    def assert_answered(self, number: int) -> None:
        assert [(one.status, one.gone, one.error) for one in self.ended] == [(200, False, "")] * number
        assert {one.journal.attempts[-1].outcome for one in self.ended} == {"answered"}
        assert b"tolmach_requests_cancelled_total{" not in self.core.metrics.text()


@asynccontextmanager
async def staged(interface: Any, routes: dict[str, Route] | None = None) -> AsyncGenerator[Stage, None]:
    service = Service()
    async with await asyncio.start_server(service.serve, "127.0.0.1", 0) as server:
        at = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        sites = {
            "kit": Site(name="kit", url=at, protocol=create("aipkit")),
            "api": Site(name="api", url=f"{at}/v1", protocol=create("openai"), api_key="key"),
        }
        core = Gateway(Targets([Provider(name=n, site=site, access=Access()) for n, site in sites.items()], routes))
        try:
            async with serving(core, interface=interface) as url:
                yield Stage(service, core, url)
        finally:
            service.close()
            await asyncio.gather(*drain._closing)


@both
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("model", ["kit/default", "api/m"])
async def test_who_closes_at_the_end_mark_was_answered(interface: Any, path: str, model: str) -> None:
    async with staged(interface) as stage:
        for _ in range(5):
            await stage.ask(path, model, **_texts(path, "Hello"))
        stage.assert_answered(5)


@both
@pytest.mark.parametrize("path", PATHS)
async def test_the_next_question_goes_on_with_the_conversation(interface: Any, path: str) -> None:
    async with staged(interface) as stage:
        for i in range(5):
            first = f"I am Ann {i}"
            await stage.ask(path, "kit/default", **_texts(path, first))
            await stage.ask(path, "kit/default", **_texts(path, first, f"You said: {first}", "And I am?"))
        assert stage.service.asked[1::2] == ["And I am?"] * 5
        stage.assert_answered(10)


@both
async def test_the_next_question_goes_on_with_the_response(interface: Any) -> None:
    async with staged(interface) as stage:
        for i in range(5):
            said = await stage.ask("/v1/responses", "kit/default", input=f"I am Ann {i}")
            id = said.partition(b'"id":"')[2].partition(b'"')[0].decode()
            await stage.ask("/v1/responses", "kit/default", input="And I am?", previous_response_id=id)
        assert stage.service.asked[1::2] == ["And I am?"] * 5


@both
async def test_several_answers_in_one_stream(interface: Any) -> None:
    async with staged(interface) as stage:
        for _ in range(5):
            await stage.ask(PATHS[0], "kit/default", n=2, **_texts(PATHS[0], "Hello"))
        stage.assert_answered(5)


@both
@pytest.mark.parametrize("path", PATHS)
async def test_an_answer_that_another_target_went_on_with(interface: Any, path: str) -> None:
    route = Route(targets=("kit/default", "kit/other"), rules=Rules(attempts=2, recover="resume"))
    async with staged(interface, {"twice": route}) as stage:
        for _ in range(5):
            stage.service.cut = True
            await stage.ask(path, "twice", **_texts(path, "Hello"))
        stage.assert_answered(5)
        assert {len(one.journal.attempts) for one in stage.ended} == {2}


@both
async def test_a_response_that_another_target_went_on_with_is_remembered(interface: Any) -> None:
    route = Route(targets=("kit/default", "kit/other"), rules=Rules(attempts=2, recover="resume"))
    async with staged(interface, {"twice": route}) as stage:
        stage.service.cut = True
        said = await stage.ask("/v1/responses", "twice", input="I am Ann")
        id = said.partition(b'"id":"')[2].partition(b'"')[0].decode()
        await stage.ask("/v1/responses", "twice", input="And I am?", previous_response_id=id)
        assert "You said: I am Ann" in stage.service.asked[-1]
        assert "And I am?" in stage.service.asked[-1]


def _texts(path: str, *texts: str) -> dict[str, Any]:
    """A conversation, the user's and the assistant's texts in turn."""
    roles = ("user", "assistant")
    messages = [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)]
    return {"input" if path == "/v1/responses" else "messages": messages}
