"""Routes over real sockets: what the fault matrix has no column for."""

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import anthropic
import httpx2
import openai
import pytest

from tests.gateway.answers.fault_stage import APIS
from tests.gateway.heard import PATHS, Heard, heard, question
from tolmach.demo import Demo
from tolmach.gateway.core import Gateway
from tolmach.gateway.serving.server import serving
from tolmach.protocols import create
from tolmach.protocols.base import Site
from tolmach.providers.base import Access
from tolmach.routing.health import Circuit, Health
from tolmach.routing.policy import Rules
from tolmach.routing.router import Router
from tolmach.routing.targets import Provider, Route, Targets
from tolmach.transport import Timeouts

pytestmark = pytest.mark.asyncio

SURFACES = tuple(PATHS)
LIMITS = Timeouts(connect=15, first_byte=15, idle=15, total=20)


class Scene:
    """Two demos, a gateway with the route `m` over both, and a caller."""

    def __init__(self, first: Demo, second: Demo, gateway: Gateway, url: str, client: httpx2.AsyncClient) -> None:
        self.first = first
        self.second = second
        self.gateway = gateway
        self.url = url
        self.client = client

    async def send(self, surface: str, text: str = "Hello", model: str = "m", **fields: Any) -> httpx2.Response:
        headers = {"x-tolmach-debug": "1"}
        body = question(surface, model, text, **fields)
        return await self.client.post(self.url + PATHS[surface], json=body, headers=headers)

    async def ask(self, surface: str, text: str = "Hello", **fields: Any) -> tuple[Heard, httpx2.Response]:
        reply = await self.send(surface, text, **fields)
        return heard(surface, reply.status_code, reply.content), reply

    def asked(self, surface: str) -> tuple[int, int]:
        """The questions that each of the two was sent."""
        mount = APIS[surface][1]
        return self.first.log.chats(mount), self.second.log.chats(mount)

    async def faults(self, surface: str, first: str = "", second: str = "") -> None:
        self.first.faults[APIS[surface][1]] = first
        self.second.faults[APIS[surface][1]] = second

    async def quiet(self) -> None:
        """Return once no answer of the demos is under way."""
        for demo in (self.first, self.second):
            await demo.log.wait_until(lambda log: all(seen.ended for seen in log.requests))


def provider(name: str, demo: Demo, surface: str, **settings: Any) -> Provider:
    protocol, path, model = APIS[surface]
    site = Site(name=name, url=demo.url + path, protocol=create(protocol), api_key=f"{name}-key-1")
    return Provider(name=name, site=site, access=Access(), models={"m": model}, **settings)


@asynccontextmanager
async def scene(
    surface: str,
    rules: Rules,
    *,
    timeouts: Timeouts = LIMITS,
    health: Health | None = None,
    target: str = "",
    delay: float = 0,
    **settings: Any,
) -> AsyncGenerator[Scene, None]:
    """A scene for a surface. `target` is the API of both targets, by its surface: by default the surface's own."""
    api = target or surface
    async with Demo(delay=delay) as first, Demo(delay=delay) as second:
        providers = [provider("first", first, api, **settings), provider("second", second, api, **settings)]
        routes = {"m": Route(targets=("first/m", "second/m"), rules=rules, timeouts=timeouts)}
        gateway = Gateway(Targets(providers, routes), router=Router(health))
        async with serving(gateway, interface="rsgi") as url, httpx2.AsyncClient(timeout=60) as client:
            yield Scene(first, second, gateway, url, client)


def resuming(**settings: Any) -> Rules:
    return Rules(recover="resume", backoff=0.01, **settings)


# Resuming


@pytest.mark.parametrize("surface", SURFACES)
@pytest.mark.parametrize("target", ["", "other"])
async def test_the_second_malformed_event_is_rescued_and_nothing_that_was_told_comes_twice(
    surface: str, target: str
) -> None:
    api = {"openai": "anthropic", "responses": "openai", "anthropic": "openai"}[surface] if target else surface
    async with scene(surface, resuming(), target=api) as on:
        whole, _ = await on.ask(surface)
        await on.faults(api, "malformed=4,upstream-cut=9")
        found, _ = await on.ask(surface, stream=True)
        assert (found.outcome, on.asked(api)) == ("ok", (2, 1))
        # The fourth token was left out, with a notice; the rescue has it and is joined where the answer broke off.
        assert found.text.endswith(whole.text[-60:])
        assert found.text.count("Готово") == 1
        await on.quiet()


@pytest.mark.parametrize("surface", SURFACES)
async def test_a_malformed_event_that_is_left_out_is_told_in_a_comment(surface: str) -> None:
    async with scene(surface, resuming()) as on:
        await on.faults(surface, "malformed=4")
        reply = await on.send(surface, stream=True)
        assert reply.content.count(b": an event of the service could not be read") == 1


@pytest.mark.parametrize("surface", SURFACES)
async def test_the_caller_sees_the_first_failure_when_the_rescue_fails(surface: str) -> None:
    async with scene(surface, resuming()) as on:
        await on.faults(surface, "cut=5", "401")
        found, reply = await on.ask(surface, stream=True)
        assert (found.outcome, on.asked(surface)) == ("cut", (2, 1))
        assert b"the connection broke" in reply.content
        assert b"Incorrect API key" not in reply.content
        assert b"invalid x-api-key" not in reply.content


TOOL = {
    "name": "weather",
    "description": "d",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}
TOOLS: dict[str, list[dict[str, Any]]] = {
    "openai": [{"type": "function", "function": TOOL}],
    "responses": [{"type": "function", **TOOL}],
    "anthropic": [{"name": "weather", "description": "d", "input_schema": TOOL["parameters"]}],
}


@pytest.mark.parametrize("surface", SURFACES)
@pytest.mark.parametrize("target", ["", "other"])
async def test_a_tool_call_that_has_begun_is_never_resumed(surface: str, target: str) -> None:
    api = {"openai": "anthropic", "responses": "openai", "anthropic": "openai"}[surface] if target else surface
    async with scene(surface, resuming(), target=api) as on:
        await on.faults(api, "cut=2")
        found, _ = await on.ask(surface, "use tool weather", tools=TOOLS[surface], stream=True)
        assert (found.outcome, on.asked(api)) == ("cut", (1, 0))


@pytest.mark.parametrize("surface", SURFACES)
async def test_two_targets_that_break_in_turn_still_give_the_answer_once(surface: str) -> None:
    async with scene(surface, resuming(attempts=4)) as on:
        whole, _ = await on.ask(surface)
        await on.faults(surface, "cut=6*1", "cut=11*1")
        found, _ = await on.ask(surface, stream=True)
        assert (found.outcome, found.text) == ("ok", whole.text)
        assert on.asked(surface) == (3, 1)


@pytest.mark.parametrize("surface", SURFACES)
async def test_a_restarted_answer_is_held_back_until_it_is_whole(surface: str) -> None:
    rules = Rules(recover="restart", backoff=0.01)
    async with scene(surface, rules, timeouts=Timeouts(connect=15, first_byte=15, idle=0.5, total=20)) as on:
        await on.faults(surface, "stall=5")
        body = question(surface, "m", "Hello", stream=True)
        async with on.client.stream("POST", on.url + PATHS[surface], json=body) as reply:
            # The head comes when all is there; the target that stalled is not to be seen in it.
            assert reply.headers["x-tolmach-target"].startswith("second/")
            assert on.second.log.answers[APIS[surface][1]] == 1
            found = heard(surface, reply.status_code, await reply.aread())
        assert found.outcome == "ok"


@pytest.mark.parametrize("fault", ["cut=5", "stall=5", "malformed=3,upstream-cut=9"])
@pytest.mark.parametrize("surface", SURFACES)
async def test_the_packages_read_a_resumed_stream_as_one_answer(surface: str, fault: str) -> None:
    limits = Timeouts(connect=15, first_byte=15, idle=0.5, total=20)
    async with scene(surface, resuming(), timeouts=limits) as on:
        whole, _ = await on.ask(surface)
        await on.faults(surface, fault)
        text = await _READERS[surface](on.url)
        assert on.asked(surface) == (2, 1)
        assert text == whole.text if "malformed" not in fault else text.endswith(whole.text[-60:])


async def _read_completion(url: str) -> str:
    async with openai.AsyncOpenAI(api_key="k", base_url=f"{url}/v1", max_retries=0) as client:
        asked: Any = question("openai", "m", "Hello")
        async with client.chat.completions.stream(**asked) as stream:
            completion = await stream.get_final_completion()
        assert completion.choices[0].finish_reason == "stop"
        return completion.choices[0].message.content or ""


async def _read_response(url: str) -> str:
    async with openai.AsyncOpenAI(api_key="k", base_url=f"{url}/v1", max_retries=0) as client:
        async with client.responses.stream(model="m", input="Hello") as stream:
            numbers = [event.sequence_number async for event in stream]
            response = await stream.get_final_response()
        assert response.status == "completed"
        assert numbers == sorted(set(numbers))
        return response.output_text


async def _read_message(url: str) -> str:
    async with anthropic.AsyncAnthropic(api_key="k", base_url=url, max_retries=0) as client:
        asked: Any = question("anthropic", "m", "Hello")
        async with client.messages.stream(**asked) as stream:
            message = await stream.get_final_message()
        assert message.stop_reason == "end_turn"
        return "".join(block.text for block in message.content if block.type == "text")


_READERS = {"openai": _read_completion, "responses": _read_response, "anthropic": _read_message}


# What goes on to another, and what does not


@pytest.mark.parametrize("surface", SURFACES)
async def test_a_refused_key_leads_to_the_next_key_and_is_left_alone(surface: str) -> None:
    async with scene(surface, Rules(backoff=0.01), more_keys=("key-two",)) as on:
        await on.faults(surface, "401*1")
        found, reply = await on.ask(surface)
        assert (found.outcome, on.asked(surface)) == ("ok", (2, 0))
        assert reply.headers["x-tolmach-attempts"] == "2"
        assert re.search(r"first/\S+ \(key 2\) answered", reply.headers["x-tolmach-route"])
        found, reply = await on.ask(surface)
        assert (found.outcome, on.asked(surface)) == ("ok", (3, 0))
        assert reply.headers["x-tolmach-attempts"] == "1"
        states = {re.sub(r"/[^#]+", "", one.id): one.state for one in on.gateway.router.health.snapshot(0.0)}
        assert states["first#0"] == "open"
        assert states["first#1"] == "closed"


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("surface", SURFACES)
async def test_too_long_a_context_goes_to_each_target_once(surface: str, streamed: bool) -> None:
    async with scene(surface, Rules(backoff=0.01, attempts=5)) as on:
        reply = await on.send(surface, "long " * 200_000, stream=streamed)
        assert reply.status_code == 400
        assert on.asked(surface) == (1, 1)


@pytest.mark.parametrize("surface", SURFACES)
async def test_a_request_that_is_wrong_goes_to_nobody_else(surface: str) -> None:
    async with scene(surface, Rules(backoff=0.01)) as on:
        reply = await on.send(surface, temperature=17)
        assert reply.status_code == 400
        assert on.asked(surface) == (1, 0)


@pytest.mark.parametrize("surface", SURFACES)
async def test_a_name_that_no_route_names_is_asked_once(surface: str) -> None:
    async with scene(surface, Rules(backoff=0.01)) as on:
        await on.faults(surface, "500")
        reply = await on.send(surface, model="first/m")
        assert (reply.status_code, on.asked(surface)) == (500, (1, 0))


@pytest.mark.parametrize("surface", SURFACES)
async def test_an_asked_for_wait_is_told_when_nobody_is_left(surface: str) -> None:
    async with scene(surface, Rules(backoff=0.01)) as on:
        await on.faults(surface, "429-retry-after=90", "429-retry-after=40")
        reply = await on.send(surface)
        assert (reply.status_code, on.asked(surface)) == (429, (1, 1))
        assert reply.headers["retry-after"] == "40"


async def test_the_route_of_a_question_is_told_who_asks_for_it() -> None:
    async with scene("openai", Rules(backoff=0.01)) as on:
        await on.faults("openai", "500")
        reply = await on.send("openai")
        assert reply.headers["x-tolmach-target"].startswith("second/")
        assert reply.headers["x-tolmach-attempts"] == "3"
        told = reply.headers["x-tolmach-route"]
        assert len(re.findall(r"first/\S+ failed \(ProviderUnavailable\)", told)) == 2
        assert "again, after transient" in told
        assert re.search(r"second/\S+ answered", told)
        body = question("openai", "m", "Hello")
        plain = await on.client.post(on.url + PATHS["openai"], json=body)
        assert "x-tolmach-route" not in plain.headers


# Two at once


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("surface", SURFACES)
async def test_the_quicker_of_two_answers_and_the_other_is_closed(surface: str, streamed: bool) -> None:
    async with scene(surface, Rules(hedge_after=0.05)) as on:
        await on.faults(surface, "silence")
        found, reply = await on.ask(surface, stream=streamed)
        assert (found.outcome, on.asked(surface)) == ("ok", (1, 1))
        assert reply.headers["x-tolmach-target"].startswith("second/")
        assert reply.headers["x-tolmach-attempts"] == "2"
        await on.first.log.wait_hangups(1)
        await on.first.log.wait_open_connections(0)
        # It was not at fault: it may be asked again at once.
        states = {
            re.sub(r"/[^#]+", "", one.id): (one.state, one.failures, one.probing)
            for one in on.gateway.router.health.snapshot(0.0)
        }
        assert states["first#0"] == ("closed", 0, False)


@pytest.mark.parametrize("surface", SURFACES)
async def test_who_answers_in_time_is_not_raced(surface: str) -> None:
    async with scene(surface, Rules(hedge_after=15.0)) as on:
        found, _ = await on.ask(surface, stream=True)
        assert (found.outcome, on.asked(surface)) == ("ok", (1, 0))


@pytest.mark.parametrize("surface", SURFACES)
async def test_both_racers_are_closed_when_the_caller_goes_away(surface: str) -> None:
    async with scene(surface, Rules(hedge_after=0.05)) as on:
        await on.faults(surface, "silence", "silence")
        asking = asyncio.ensure_future(on.send(surface, stream=True))
        await on.second.log.wait_until(lambda log: log.chats(APIS[surface][1]))
        asking.cancel()
        for demo in (on.first, on.second):
            await demo.log.wait_hangups(1)
            await demo.log.wait_open_connections(0)
        assert (on.first.log.hangups, on.second.log.hangups) == (1, 1)


# Circuits


class Watched(Health):
    """Counts the probes that are under way at once, in `most`."""

    def __init__(self, circuit: Circuit) -> None:
        super().__init__(circuit)
        self.most = 0
        self._running: list[str] = []

    def started(self, id: str, now: float, probe: bool = False) -> None:
        super().started(id, now, probe)
        if probe:
            self._running.append(id)
            self.most = max(self.most, len(self._running))

    def succeeded(self, id: str, now: float, first_token: float | None = None) -> None:
        super().succeeded(id, now, first_token)
        self._running = [other for other in self._running if other != id]

    def released(self, id: str) -> None:
        super().released(id)  # also at the end of `failed`
        self._running = [other for other in self._running if other != id]


async def test_twenty_questions_through_a_flapping_target_are_all_answered() -> None:
    """It is probed by one question at a time, and asked first again within an interval of it being well."""
    health = Watched(Circuit(failures=2, first_open=0.3, growth=1.0, longest_open=0.3))
    async with scene("openai", Rules(backoff=0.01), health=health) as on:
        mount = APIS["openai"][1]
        await on.faults("openai", "500")
        for _ in range(5):
            found = await asyncio.gather(*(on.ask("openai", stream=True) for _ in range(4)))
            assert [one.outcome for one, _ in found] == ["ok"] * 4
        shut = on.first.log.chats(mount)
        assert shut < 20
        await on.faults("openai")  # it is well again
        began = asyncio.get_running_loop().time()
        while True:
            _, reply = await on.ask("openai")
            if reply.headers["x-tolmach-target"].startswith("first/"):
                break
        # The next opening is over by then; what is added is a question's own time.
        assert asyncio.get_running_loop().time() - began < 0.3 + 10
        found = await asyncio.gather(*(on.ask("openai", stream=True) for _ in range(8)))
        assert {reply.headers["x-tolmach-target"].partition("/")[0] for _, reply in found} == {"first"}
        assert health.most == 1
