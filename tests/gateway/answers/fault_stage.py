"""A served gateway over pairs of demos: in each pair one whose services have faults, and one that is healthy."""

import asyncio
import time
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from typing import Literal

import httpx2
from msgspec import Struct, structs

from tests.gateway.heard import PATHS, Heard, heard, question
from tolmach.demo import Demo
from tolmach.demo.faults import FAULTS, parse
from tolmach.gateway.core import Gateway
from tolmach.gateway.serving.server import serving
from tolmach.protocols import create
from tolmach.protocols.base import Site
from tolmach.providers.base import Access
from tolmach.providers.registry import get_provider
from tolmach.routing.health import Circuit, Health
from tolmach.routing.policy import Rules
from tolmach.routing.router import Router
from tolmach.routing.targets import Provider, Route, Targets
from tolmach.transport import Timeouts

__all__ = ["APIS", "Case", "Result", "Stage", "Way", "site_of", "staged"]

Way = Literal["passed", "read"]
"""Whether the first target takes the caller's body as it is, or is asked in its own protocol."""

APIS = {
    "openai": ("openai", "/v1", "gpt-4o-mini"),
    "responses": ("openai-responses", "/v1", "gpt-5-mini"),
    "anthropic": ("anthropic", "/anthropic", "claude-sonnet-4-5"),
}
"""The surfaces -> protocol, mount and model of the target that speaks it."""

SLOW = ("silence", "stall", "slow-first-token")
"""The faults that time limits are for: theirs are short. Those of the others never pass, however busy it is."""


def timeouts_of(fault: str) -> Timeouts:
    short = 0.8 if fault.startswith(SLOW) else 15.0
    return Timeouts(connect=15, first_byte=15.0 if fault.startswith("stall") else short, idle=short, total=20)


class Case(Struct, frozen=True):
    """One question of the matrix. `fault` as the demo is asked for it; `well` has it not happen."""

    number: int
    fault: str
    way: Way
    surface: str
    streamed: bool
    recover: Literal["off", "restart", "resume"]
    another: bool
    well: bool = False

    @property
    def service(self) -> str:
        """The service of the demo that is asked."""
        name = site_of(self.fault, self.surface, self.way)
        assert name is not None
        return name

    @property
    def mount(self) -> str:
        return APIS[self.service][1] if self.service in APIS else f"/{self.service}"

    def __str__(self) -> str:
        kind = "stream" if self.streamed else "whole"
        others = "with another" if self.another else "alone"
        return f"{self.fault}, {self.way}, {self.surface}, {kind}, {self.recover}, {others}"


class Result(Struct, frozen=True):
    """What became of it: what the caller heard, the questions that each target got, the seconds it took."""

    heard: Heard
    first: int
    second: int
    seconds: float
    attempts: int
    target: str

    def __str__(self) -> str:
        return f"{self.heard.outcome} {self.first}" + (f"+{self.second}" if self.second else "")


def site_of(fault: str, surface: str, way: Way) -> str | None:
    """The service of the demo that has the fault, by its name; None where a body that is passed on cannot meet it."""
    services = FAULTS[parse(fault)[0].fault.name].services
    if way == "passed":
        protocol = "anthropic" if surface == "anthropic" else "openai"
        return surface if not services or protocol in services else None
    for name, protocol in (("ChatGptt", "ai_power"), ("Chatgpt4Online", "ai_engine"), ("ChatGpt", "chatgpt_web")):
        if not services or protocol in services:
            return name
    return None


class Stage:
    """The gateway, and pairs of demos that cases take in turn."""

    def __init__(self, pairs: list[tuple[Demo, Demo]], cases: list[Case]) -> None:
        self.pairs = pairs
        self.cases = cases
        self.healthy = _healthy(cases)
        self.gateway = Gateway(self._targets(), router=Router(Health(Circuit(rest=0.05))))
        self.url = ""
        self.client = httpx2.AsyncClient(timeout=60, limits=httpx2.Limits(max_connections=len(pairs)))

    def pair(self, case: Case) -> tuple[Demo, Demo]:
        return self.pairs[case.number % len(self.pairs)]

    def _targets(self) -> Targets:
        providers, routes = [], {}
        for case in (*self.cases, *self.healthy):
            for which, demo in zip(("first", "second"), self.pair(case), strict=True):
                providers.append(_provider(f"{which}{case.number}", demo, case))
            rules = Rules(attempts=3, recover=case.recover, backoff=0.01)
            names = (f"first{case.number}/m", f"second{case.number}/m")[: 1 + case.another]
            routes[f"m{case.number}"] = Route(targets=names, rules=rules, timeouts=timeouts_of(case.fault))
        return Targets(providers, routes)

    async def run(self, cases: Iterable[Case]) -> dict[Case, Result]:
        """All cases, each pair of demos with one of them at a time."""
        waiting: dict[int, list[Case]] = {}
        for case in cases:
            waiting.setdefault(case.number % len(self.pairs), []).append(case)
        results: dict[Case, Result] = {}

        async def one_after_the_other(mine: list[Case]) -> None:
            for case in mine:
                results[case] = await self.ask(case)

        await asyncio.gather(*map(one_after_the_other, waiting.values()))
        return results

    async def ask(self, case: Case) -> Result:
        first, second = self.pair(case)
        mount = case.mount
        if not case.well:
            first.faults[mount] = case.fault
        chats = [demo.log.chats(mount) for demo in (first, second)]
        body = question(case.surface, f"m{case.number}", "Hello", stream=case.streamed)
        began = time.monotonic()
        reply = await self.client.post(self.url + PATHS[case.surface], json=body)
        took = time.monotonic() - began
        for demo in (first, second):
            # No answer is left running: each ended, or its connection was closed.
            await demo.log.wait_until(lambda log: all(seen.ended for seen in log.requests))
            demo.log.requests.clear()
        if not case.well:
            del first.faults[mount]
        return Result(
            heard(case.surface, reply.status_code, reply.content),
            first.log.chats(mount) - chats[0],
            second.log.chats(mount) - chats[1],
            took,
            int(reply.headers["x-tolmach-attempts"]),
            reply.headers["x-tolmach-target"],
        )


def _healthy(cases: list[Case]) -> list[Case]:
    """A question to each service by each surface, at pairs of demos that have had the cases; no fault happens."""
    kinds = {(case.surface, case.service): case for case in cases}
    return [
        structs.replace(case, number=len(cases) + at, streamed=False, recover="off", another=False, well=True)
        for at, case in enumerate(kinds.values())
    ]


def _provider(name: str, demo: Demo, case: Case) -> Provider:
    site_name = case.service
    access = Access(cookies={"visit": "1"})
    if site_name in APIS:
        protocol, path, model = APIS[site_name]
        site = Site(name=name, url=demo.url + path, protocol=create(protocol), api_key="key")
        return Provider(name=name, site=site, access=access, models={"m": model})
    return Provider(
        name=name,
        site=get_provider(site_name).site_at(f"{demo.url}/{site_name}"),
        access=access,
        models={"m": "default"},
    )


@asynccontextmanager
async def staged(cases: list[Case], pairs: int = 24) -> AsyncGenerator[Stage, None]:
    """The stage for these cases, served."""
    demos = [Demo(delay=0) for _ in range(2 * pairs)]
    for demo in demos:
        await demo.start()
    stage = Stage(list(zip(demos[::2], demos[1::2], strict=True)), cases)
    try:
        async with serving(stage.gateway, interface="rsgi") as stage.url, stage.client:
            yield stage
    finally:
        for demo in demos:
            await demo.stop()
