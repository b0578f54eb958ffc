"""What services say of their tokens, as it was seen at real ones, on every way through the gateway."""

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest
import pytest_asyncio
from msgspec import Struct

from tests.gateway.answers.test_passing_on import PATHS, Replay, question
from tests.gateway.test_core import raw
from tolmach.chat import Usage
from tolmach.gateway.context import RequestContext
from tolmach.gateway.core import Gateway
from tolmach.gateway.serving.server import serving
from tolmach.ledger.prices import Prices, Rate
from tolmach.protocols import create
from tolmach.protocols.base import Site
from tolmach.providers.base import Access
from tolmach.routing.targets import Provider, Targets

pytestmark = pytest.mark.asyncio(loop_scope="module")

PRICES = Prices({"*": Rate(100.0, 100.0, 1.0)})
SIGN = b"data: [DONE]\n\n"


class Served(Struct):
    """A gateway before an upstream of chat completions; `ended` has the questions that are over."""

    url: str
    upstream: Replay
    ended: "asyncio.Queue[RequestContext]"

    async def ask(self, api: str, **fields: Any) -> tuple[int, bytes, Usage, int | None]:
        """Status and body, the tokens that the attempt took, and what they cost."""
        body = {**question(api), "model": "openai/m", **fields}
        status, _, answer = await raw(self.url, "POST", PATHS[api], json.dumps(body).encode())
        async with asyncio.timeout(20):
            (attempt,) = (await self.ended.get()).journal.attempts
        usage = attempt.usage
        assert usage is not None
        cost = PRICES.cost(attempt.target.name, usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens)
        return status, answer, usage, cost


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served() -> AsyncGenerator[Served, None]:
    replay = Replay()
    server = await asyncio.start_server(replay.answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    site = Site(name="openai", url=f"http://127.0.0.1:{port}/v1", protocol=create("openai"))
    gateway = Gateway(Targets([Provider(name="openai", site=site, access=Access())]))
    ended: asyncio.Queue[RequestContext] = asyncio.Queue()
    gateway.observers.append(ended.put_nowait)
    async with server, serving(gateway, interface="rsgi") as url:
        yield Served(url, replay, ended)


def chunk(choices: list[Any], **more: Any) -> bytes:
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_700_000_000, "model": "m"}
    return b"data: " + json.dumps({**head, "choices": choices, **more}).encode() + b"\n\n"


HI = chunk([{"index": 0, "delta": {"role": "assistant", "content": "Hi"}, "finish_reason": None}])
STOP = chunk([{"index": 0, "delta": {}, "finish_reason": "stop"}])


def whole(usage: Any) -> bytes:
    message = {"role": "assistant", "content": "Hi"}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return json.dumps(
        {"id": "x", "object": "chat.completion", "created": 1, "choices": [choice], "usage": usage}
    ).encode()


CACHED = {
    "prompt_tokens": 16111,
    "completion_tokens": 2,
    "total_tokens": 16113,
    "prompt_tokens_details": {"cached_tokens": 15872},
}
COST = 39972
USAGES = {
    "at the end": [HI, STOP, chunk([], usage=CACHED), SIGN],
    "beside a choice": [HI, STOP, chunk([{"index": 0, "delta": {}}], usage=CACHED), SIGN],
    "in a choice": [HI, chunk([{"index": 0, "delta": {}, "finish_reason": "stop", "usage": CACHED}]), SIGN],
    "counting on": [
        HI.replace(b'"choices"', b'"usage":{"prompt_tokens":16111,"completion_tokens":1},"choices"'),
        STOP,
        chunk([], usage=CACHED),
        SIGN,
    ],
    "in fractions": [HI, STOP, chunk([], usage={**CACHED, "prompt_tokens": 16111.0, "completion_tokens": 2.0}), SIGN],
}


@pytest.mark.parametrize("where", USAGES)
@pytest.mark.parametrize("asked", [False, True])
async def test_cached_tokens_have_their_price_in_streams(served: Served, where: str, asked: bool):
    served.upstream.gives("text/event-stream", USAGES[where])
    more = {"stream_options": {"include_usage": True}} if asked else {}
    for api, fields in (("openai", more), ("anthropic", {}), ("responses", {})):
        status, answer, usage, cost = await served.ask(api, stream=True, **fields)
        assert status == 200
        assert b"[DONE]" in answer or b"message_stop" in answer or b"response.completed" in answer
        assert (usage, cost) == (Usage(16111, 2, 16113, cached_tokens=15872), COST)
        assert json.loads(served.upstream.asked[-1][2])["stream_options"] == {"include_usage": True}
        if api == "openai" and where == "at the end":
            assert (b'"prompt_tokens"' in answer) is asked


async def test_cached_tokens_have_their_price_in_whole_answers(served: Served):
    served.upstream.gives("application/json", [whole(CACHED)])
    for api in PATHS:
        status, _, usage, cost = await served.ask(api)
        assert (status, usage, cost) == (200, Usage(16111, 2, 16113, cached_tokens=15872), COST)


WRONG: list[Any] = [
    {"prompt_tokens": -1_000_000, "completion_tokens": -1_000_000, "total_tokens": -2_000_000},
    {"prompt_tokens": 99999999999999999999999999, "completion_tokens": -5, "total_tokens": 1e308},
    {"prompt_tokens": 2**63 - 1, "completion_tokens": 2**63 - 1, "total_tokens": 1},
    {"prompt_tokens": 5, "completion_tokens": None, "total_tokens": None},
    {"prompt_tokens": 5.5, "completion_tokens": 1.5, "total_tokens": 7},
    {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
    [5, 1],
    None,
]


@pytest.mark.parametrize("wrong", WRONG)
async def test_what_is_no_count_is_estimated(served: Served, wrong: Any):
    for streamed in (False, True):
        pieces = [HI, STOP, chunk([], usage=wrong), SIGN] if streamed else [whole(wrong)]
        served.upstream.gives("text/event-stream" if streamed else "application/json", pieces)
        for api in PATHS:
            status, _, usage, cost = await served.ask(api, stream=streamed)
            assert status == 200
            assert usage.estimated
            assert (usage.prompt_tokens, usage.completion_tokens, cost) == (5, 1, 600)


async def test_the_text_of_an_answer_that_is_passed_on_is_what_is_estimated(served: Served):
    text = "Fifteen words of an answer make about twenty tokens, however many pieces they came in. " * 20
    piece = chunk([{"index": 0, "delta": {"content": text}, "finish_reason": None}])
    served.upstream.gives("text/event-stream", [piece, STOP, SIGN])
    for api in PATHS:
        _, _, usage, _ = await served.ask(api, stream=True)
        assert 300 < usage.completion_tokens < 500
    served.upstream.gives("application/json", [whole(None).replace(b'"Hi"', json.dumps(text).encode())])
    for api in PATHS:
        _, _, usage, _ = await served.ask(api)
        assert 300 < usage.completion_tokens < 500
