"""Sixteen faults of a first target beside a healthy second one: what the caller gets, and who was asked how often."""

import json
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Literal

import httpx2
import pytest
from msgspec import Struct

from tests.gateway.heard import Heard, heard, question
from tolmach.demo import Demo
from tolmach.gateway.core import Gateway
from tolmach.gateway.serving.server import serving
from tolmach.protocols import create
from tolmach.protocols.base import Site
from tolmach.providers.base import Access
from tolmach.routing.policy import Rules
from tolmach.routing.router import Router
from tolmach.routing.targets import Provider, Route, Targets
from tolmach.transport import Timeouts

pytestmark = pytest.mark.asyncio

APIS = {"openai": ("/v1", "gpt-4o-mini"), "anthropic": ("/anthropic", "claude-sonnet-4-5")}
HELLO = "Hello"
LONG = "long " * 110_000
"""More than the first target takes, and less than the second."""


class Row(Struct, frozen=True):
    """`first` and `second` are the faults of the targets. What is `asked` is questions to each, streamed and not."""

    first: str
    asked: tuple[int, int]
    whole: tuple[int, int] | None = None
    """Where an answer in one piece takes other questions."""
    second: str = ""
    outcome: str = "ok"
    recover: Literal["off", "restart", "resume"] = "resume"
    text: str = HELLO
    seconds: float = 15.0
    """The first target's limits for the first token and between two pieces."""
    api: str = "openai"
    """Of the second target."""
    prefill: bool = False
    retries: int | None = None
    more: int = 0
    """Questions that the first may get besides: on a kept connection nobody knows whether it saw the one that broke."""


QUICK = 0.5
ROWS = {
    # Asked: the first target, the second. A passing fault (5xx) is asked for once more, at once.
    "429 once with Retry-After 2": Row("429-retry-after=2*1", (1, 1)),
    "429 once with Retry-After 1, waited for": Row("429-retry-after=1*1", (2, 0), retries=1),
    "429 always": Row("429", (1, 1)),
    "500 once": Row("500*1", (2, 0)),
    "503 always": Row("upstream-error", (2, 1)),
    "a reset before the head": Row("reset", (1, 1), more=1),
    "silence": Row("silence", (1, 1), seconds=QUICK),
    "the first token late": Row("slow-first-token=3", (1, 1), seconds=QUICK),
    "cut": Row("cut=5", (1, 1)),
    "cut, held back": Row("cut=5", (1, 1), recover="restart"),
    "a stall": Row("stall=5", (1, 1), seconds=QUICK),
    "a malformed event": Row("malformed=5", (1, 0), (1, 1)),
    "two malformed events": Row("malformed=5,upstream-cut=9", (1, 1), (2, 1)),
    "no [DONE]": Row("missing-done", (1, 0)),
    "no reason either": Row("missing-end", (1, 1)),
    "the context too long": Row("", (1, 1), text=LONG, api="anthropic"),
    "content refused": Row("banned", (1, 0), outcome="400"),
    "cut, and the second refuses a prefill": Row("cut=5", (1, 2), (1, 1), "no-prefill", prefill=True),
    "the same with an API that always takes one": Row(
        "cut=5", (1, 2), (1, 1), "no-prefill", prefill=True, api="anthropic"
    ),
}


class Place:
    """A gateway with the route `m` over two demos."""

    def __init__(self, row: Row, first: Demo, second: Demo, url: str, client: httpx2.AsyncClient) -> None:
        self.row = row
        self.demos = (first, second)
        self.mounts = ("/v1", APIS[row.api][0])
        self._url = url
        self._client = client

    async def ask(self, streamed: bool, text: str = HELLO) -> tuple[Heard, httpx2.Response]:
        body = question("openai", "m", text, stream=streamed)
        reply = await self._client.post(f"{self._url}/v1/chat/completions", json=body)
        return heard("openai", reply.status_code, reply.content), reply

    @property
    def asked(self) -> tuple[int, int]:
        first, second = (demo.log.chats(mount) for demo, mount in zip(self.demos, self.mounts, strict=True))
        return first, second


@asynccontextmanager
async def place(row: Row, router: Router | None = None) -> AsyncGenerator[Place, None]:
    async with Demo(delay=0) as first, Demo(delay=0) as second:
        path, model = APIS[row.api]
        sites = {
            "first": Site(name="first", url=f"{first.url}/v1", protocol=create("openai"), api_key="k"),
            "second": Site(name="second", url=f"{second.url}{path}", protocol=create(row.api), api_key="k"),
        }
        models = {"first": "gpt-4o-mini", "second": model}
        providers = [
            Provider(name=name, site=site, access=Access(), models={"m": models[name]}, prefill=row.prefill)
            for name, site in sites.items()
        ]
        rules = Rules(recover=row.recover, backoff=0.01, retries=row.retries)
        limits = Timeouts(connect=15, first_byte=max(row.seconds, QUICK), idle=row.seconds, total=600)
        route = Route(targets=("first/m", "second/m"), rules=rules, timeouts=limits)
        gateway = Gateway(Targets(providers, {"m": route}), router=router)
        async with serving(gateway) as url, httpx2.AsyncClient(timeout=60) as client:
            yield Place(row, first, second, url, client)


@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("name", ROWS)
async def test_a_fault_of_the_first_target(name: str, streamed: bool) -> None:
    row = ROWS[name]
    async with place(row) as here:
        well, _ = await here.ask(streamed)
        before = here.asked
        here.demos[0].faults["/v1"] = row.first
        here.demos[1].faults[here.mounts[1]] = row.second
        found, reply = await here.ask(streamed, row.text)
        asked = tuple(now - then for now, then in zip(here.asked, before, strict=True))
        first, second = row.asked if streamed or row.whole is None else row.whole
        assert found.outcome == row.outcome
        assert first <= asked[0] <= first + row.more
        assert asked[1] == second
        if row.outcome == "ok" and not (streamed and row.recover == "resume"):
            # The head of a resumed stream was sent before it broke.
            assert reply.headers["x-tolmach-target"] == (
                f"second/{APIS[row.api][1]}" if asked[1] else "first/gpt-4o-mini"
            )
        if row.outcome == "ok" and row.text == HELLO and "malformed" not in row.first:
            assert found.text == well.text
        assert "long long" in found.text or row.text == HELLO


async def test_the_answer_names_the_second_where_it_answers_a_503() -> None:
    async with place(ROWS["503 always"]) as here:
        here.demos[0].faults["/v1"] = "upstream-error"
        _, reply = await here.ask(False)
        assert reply.status_code == 200
        assert reply.headers["x-tolmach-target"] == "second/gpt-4o-mini"
        assert reply.headers["x-tolmach-attempts"] == "3"
        assert json.loads(reply.content)["choices"][0]["finish_reason"] == "stop"


class Clock:
    """The clock of a router, which the test puts forward."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


@pytest.mark.parametrize("fault", ["500", "reset", "429", "401", "502-html"])
async def test_a_target_that_was_down_for_long_answers_within_thirty_seconds_of_being_well(
    fault: str,
) -> None:
    clock = Clock()

    async def at_each_second(here: Place, seconds: int, until: Callable[[], bool]) -> int:
        for second in range(seconds):
            found, _ = await here.ask(False)
            assert found.outcome == "ok"
            if until():
                return second
            clock.ahead += 1.0
        return seconds

    async with place(Row("", (0, 0)), Router(clock=clock)) as here:
        here.demos[0].faults["/v1"] = fault
        await at_each_second(here, 70, lambda: False)
        assert here.demos[1].log.answers["/v1"] == 70
        here.demos[0].faults["/v1"] = ""
        assert await at_each_second(here, 31, lambda: here.demos[0].log.answers["/v1"] > 0) <= 30
