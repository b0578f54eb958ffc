"""`tolmach explain`, with and without a running gateway, and the route of the gateway that it asks."""

import asyncio
import json
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Run
from tolmach.configuration import Settings
from tolmach.demo import Demo
from tolmach.gateway.core import Gateway
from tolmach.gateway.explain import Explained, explain, with_health
from tolmach.gateway.from_settings import policy
from tolmach.gateway.serving.asgi import AsgiApp
from tolmach.gateway.serving.server import serving
from tolmach.routing.from_settings import targets_of
from tolmach.routing.health import Health
from tolmach.transport import Timeouts, read
from tolmach.transport.memory import MemoryTransport
from tolmach.wire import Request

TABLES: dict[str, Any] = {
    "gateway": {"admin_key": "the-admin"},
    "providers": {
        "local": {
            "protocol": "openai",
            "url": "http://127.0.0.1:9/v1",
            "api_keys": ["key-one", "key-two"],
            "prefill": True,
        },
        "shop": {"type": "ChatGptt", "url": "http://127.0.0.1:9/ChatGptt", "emulate": ["tools"]},
        "claude": {"protocol": "anthropic", "url": "http://127.0.0.1:9/anthropic", "api_key": "key-three"},
    },
    "routes": {
        "gpt-4o": {
            "targets": ["local/gpt-4o", "shop/default", "claude/claude-sonnet-4-5"],
            "recover": "resume",
            "attempts": 2,
            "hedge_after": 1.5,
            "first_token_timeout": 5,
        },
        "spread": {
            "targets": ["local/gpt-4o", "claude/claude-sonnet-4-5"],
            "strategy": "weighted",
            "weights": [3, 1],
        },
    },
}
FILE = """
[gateway]
admin_key = "the-admin"
port = {port}

[providers.local]
protocol = "openai"
url = "{demo}/v1"
api_keys = ["one", "two"]

[providers.shop]
type = "ChatGptt"
url = "{demo}/ChatGptt"

[routes.gpt-4o]
targets = ["local/gpt-4o", "shop/default"]
"""


@pytest.fixture
def free_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
    return port


def live(model: str, health: Health, now: float = 100.0, **route: Any) -> Explained:
    routes = {**TABLES["routes"], model: {**TABLES["routes"].get(model, {}), **route}}
    targets = targets_of(Settings.of({**TABLES, "routes": routes}, environ={}))
    return with_health(explain(model, targets), targets.plan(model), health, now)


def outlook(explained: Explained) -> list[tuple[int | None, str]]:
    return [(key.place, key.now) for target in explained.targets for key in target.keys_now or ()]


# The plan


def test_a_plan_says_what_is_configured() -> None:
    explained = explain("gpt-4o", targets_of(Settings.of(TABLES, environ={})))
    assert (explained.route, explained.rules.strategy, explained.rules.attempts) == ("gpt-4o", "failover", 2)
    local, shop, claude = explained.targets
    assert (local.protocol, local.keys, local.prefill, local.emulate) == ("openai", 2, True, [])
    assert (shop.protocol, shop.keys, shop.prefill, shop.emulate) == ("ai-power", 1, False, ["tools"])
    assert [surface for surface, passes in claude.passes_through.items() if passes] == ["anthropic"]
    assert (local.timeouts.first_token, local.timeouts.total) == (5, 600)
    assert (explained.live, local.keys_now) == (False, None)


def test_a_name_that_no_route_names_has_one_target() -> None:
    explained = explain("claude/any", targets_of(Settings.of(TABLES, environ={})))
    assert (explained.route, explained.rules.attempts, len(explained.targets)) == ("", 1, 1)
    assert explained.targets[0].model == "any"


# How the targets are doing


def test_all_are_well() -> None:
    assert outlook(live("gpt-4o", Health(), attempts=3)) == [
        (1, "asked first"),
        (None, "takes turns with the other keys of the target"),
        (2, "asked when 1 before it failed"),
        (3, "asked when 2 before it failed"),
    ]


def test_more_targets_than_attempts() -> None:
    assert outlook(live("gpt-4o", Health()))[-1] == (None, "not asked: others use up the attempts")


def test_an_open_circuit_is_passed_over() -> None:
    health = Health()
    for _ in range(3):
        health.failed("local/gpt-4o#0", "transient", 99.0)
    explained = live("gpt-4o", health, attempts=4)
    assert outlook(explained)[:3] == [
        (None, "circuit open for 1.0 s more; not asked: others use up the attempts"),
        (None, "circuit open for 1.0 s more; not asked: others use up the attempts"),
        (1, "asked first"),
    ]
    first = (explained.targets[0].keys_now or [])[0]
    assert (first.circuit, first.opens_in, explained.targets[0].failures) == ("open", 1.0, 3)


def test_a_circuit_that_lets_a_probe_through() -> None:
    health = Health()
    for _ in range(3):
        health.failed("local/gpt-4o#0", "transient", 90.0)
    assert outlook(live("gpt-4o", health))[0] == (1, "asked first, as the one probe of its circuit")
    health.started("local/gpt-4o#0", 100.0, probe=True)
    assert outlook(live("gpt-4o", health))[0][1].startswith("a probe is under way; ")


def test_a_key_at_rest_gives_way_to_the_other() -> None:
    health = Health()
    health.failed("local/gpt-4o#0", "rate_limited", 99.0, 5.0)
    told = outlook(live("gpt-4o", health))
    assert told[0][1] == "rests for 4.0 s (Retry-After); takes turns with the other keys of the target"
    assert told[1] == (1, "asked first")


def test_nobody_may_be_asked_at_once() -> None:
    health = Health()
    for id in ("local/gpt-4o#0", "local/gpt-4o#1", "claude/claude-sonnet-4-5#0"):
        health.failed(id, "rate_limited", 99.0, 4.0)
    place, words = outlook(live("spread", health))[0]
    assert (place, words.startswith("rests for 3.0 s (Retry-After); asked first, after 3.")) == (1, True)


def test_weights_are_told_as_parts_of_those_that_are_well() -> None:
    health = Health()
    assert [words for _, words in outlook(live("spread", health))] == [
        "asked first in 75% of the questions",
        "asked first in 75% of the questions",
        "asked first in 25% of the questions",
    ]
    for _ in range(3):
        health.failed("local/gpt-4o#0", "transient", 99.0)
    assert outlook(live("spread", health))[2] == (1, "asked first")


def test_the_quickest_is_first() -> None:
    health = Health()
    for id, seconds in (("local/gpt-4o#0", 0.8), ("claude/claude-sonnet-4-5#0", 0.2)):
        health.started(id, 1.0)
        health.succeeded(id, 2.0, seconds)
    explained = live("spread", health, strategy="fastest", weights=None)
    assert [target.first_token for target in explained.targets] == [0.8, 0.2]
    assert outlook(explained)[2] == (1, "asked first")


# The gateway's route


async def told(gateway: Gateway, query: str, key: str = "") -> tuple[int, Any]:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    request = Request("GET", f"http://localhost/admin/explain{query}", headers)
    exchange = await MemoryTransport(AsgiApp(gateway)).send(request, Timeouts())
    try:
        return exchange.head.status, json.loads(await read(exchange, 1 << 20))
    finally:
        await exchange.aclose()


async def test_only_the_admin_is_told() -> None:
    gateway = made(Settings.of(TABLES, environ={}))
    assert [(await told(gateway, "?model=gpt-4o", key))[0] for key in ("", "guess", "the-admin")] == [401, 401, 200]
    status, body = await told(gateway, "?model=spread", "the-admin")
    assert (status, body["live"], body["route"]) == (200, True, "spread")
    assert not any(key in json.dumps(body) for key in ("key-one", "key-two", "key-three", "the-admin"))
    assert (await told(gateway, "", "the-admin"))[0] == 400
    assert (await told(gateway, "?model=nobody", "the-admin"))[1]["error"]["code"] == "model_not_found"
    assert (await told(gateway, "?model=local%2Fa%20b", "the-admin"))[1]["targets"][0]["model"] == "a b"


# The command


@asynccontextmanager
async def running(file: Path, port: int) -> AsyncGenerator[tuple[Demo, Gateway], None]:
    """A gateway as the file that is written here says, and the demo behind it."""
    async with Demo(delay=0) as demo:
        settings = written(file, port, demo.url)
        async with serving(gateway := made(settings), port=port):
            yield demo, gateway


def written(file: Path, port: int, demo: str) -> Settings:
    file.write_text(FILE.format(port=port, demo=demo))
    return Settings.load(file, environ={})


def made(settings: Settings) -> Gateway:
    gateway = Gateway(targets_of(settings))
    gateway.policy = policy(settings.gateway, loopback=True)
    return gateway


async def ask(gateway: Gateway, text: str) -> int:
    body = json.dumps({"model": "gpt-4o", "messages": [{"role": "user", "content": text}]}).encode()
    request = Request("POST", "http://localhost/v1/chat/completions", body=body)
    exchange = await MemoryTransport(AsgiApp(gateway)).send(request, Timeouts())
    try:
        await read(exchange, 1 << 20)
        return exchange.head.status
    finally:
        await exchange.aclose()


async def test_a_running_gateway_says_how_its_targets_are(run: Run, tmp_path: Path, free_port: int) -> None:
    file = tmp_path / "tolmach.toml"
    async with running(file, free_port) as (demo, gateway):
        demo.faults["/v1"] = "500"
        assert [await ask(gateway, "Hello") for _ in range(3)] == [200, 200, 200]
        result = await asyncio.to_thread(run, "explain", "gpt-4o", "--config", str(file))
        as_json = await asyncio.to_thread(run, "explain", "gpt-4o", "--config", str(file), "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    lines = [line.strip() for line in result.stdout.splitlines()]
    assert lines[:2] == ["gpt-4o: the route gpt-4o", "failover, 3 attempts at most, recover off"]
    assert "failures  3 in a row" in lines
    assert any(line.startswith("now       key 1: circuit open for ") for line in lines)
    assert "now       circuit closed; asked first" in lines
    answer = json.loads(as_json.stdout)
    assert (answer["live"], answer["targets"][1]["keys_now"][0]["place"]) == (True, 1)
    assert answer["targets"][1]["first_token"] > 0


def test_without_a_gateway_the_plan_is_told(run: Run, tmp_path: Path, free_port: int) -> None:
    file = tmp_path / "tolmach.toml"
    file.write_text(FILE.format(port=free_port, demo="http://127.0.0.1:9"))
    result = run("explain", "gpt-4o", "--config", str(file))
    assert result.exit_code == 0
    assert "1. local/gpt-4o" in result.stdout
    assert "bodies    openai, embeddings passed on; responses, anthropic translated" in result.stdout
    assert "bodies    openai, responses, anthropic translated" in result.stdout
    assert "keys      2" in result.stdout
    assert "now " not in result.stdout
    assert result.stderr == (
        f"How the targets are doing is not known: no gateway answers at http://127.0.0.1:{free_port} (ConnectFailed)\n"
    )
    assert json.loads(run("explain", "gpt-4o", "--config", str(file), "--json").stdout)["live"] is False


async def test_a_gateway_with_another_key_tells_nothing(run: Run, tmp_path: Path, free_port: int) -> None:
    file = tmp_path / "tolmach.toml"
    async with running(file, free_port):
        file.write_text(file.read_text().replace("the-admin", "another"))
        result = await asyncio.to_thread(run, "explain", "gpt-4o", "--config", str(file))
    assert result.exit_code == 0
    assert "1. local/gpt-4o" in result.stdout
    assert "wants another admin key than the configuration's" in result.stderr


async def test_a_gateway_that_does_not_know_the_model_yet(run: Run, tmp_path: Path, free_port: int) -> None:
    file = tmp_path / "tolmach.toml"
    async with running(file, free_port):
        file.write_text(file.read_text().replace("routes.gpt-4o", "routes.new"))
        result = await asyncio.to_thread(run, "explain", "new", "--config", str(file))
    assert "new: the route new" in result.stdout
    assert "does not know the model, or is no gateway (status 404)" in result.stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (FILE, "ModelNotFound: the model 'nobody' does not exist here"),
        ("", "names no provider"),
        ("[gateway]\nprot = 1\n", 'did you mean "port"'),
    ],
)
def test_what_cannot_be_explained(run: Run, tmp_path: Path, free_port: int, text: str, said: str) -> None:
    file = tmp_path / "tolmach.toml"
    file.write_text(text.format(port=free_port, demo="http://127.0.0.1:9"))
    result = run("explain", "nobody", "--config", str(file))
    assert result.exit_code == 2
    assert said in result.stderr
