"""What the documents say of the gateway is what it does: examples, routes, headers, errors, names, figures."""

import asyncio
import inspect
import json
import logging
import shlex
import shutil
import subprocess
import sys
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from tests.documentation.documents import (
    DEMO,
    GATEWAY,
    READMES,
    ROOT,
    blocks,
    documented_gateway,
    name_of,
    names_in,
    rows,
)
from tests.gateway.served import served
from tolmach import AsyncClient, errors
from tolmach.cli import cli
from tolmach.cli.demo import demo_targets
from tolmach.configuration import GatewayTable, Settings
from tolmach.demo import ThreadedDemo, serve_in_thread
from tolmach.gateway import http
from tolmach.gateway.answers.conversations import MemoryStore
from tolmach.gateway.answers.degradation import NEVER_DROPPED
from tolmach.gateway.assembly import build
from tolmach.gateway.core import Gateway
from tolmach.gateway.serving.asgi import AsgiApp
from tolmach.gateway.serving.server import serving
from tolmach.gateway.surfaces.anthropic import AnthropicSurface
from tolmach.gateway.surfaces.openai import OpenAISurface
from tolmach.gateway.surfaces.responses import ResponsesSurface
from tolmach.gateway.telemetry import logs
from tolmach.gateway.telemetry.transcript import LONGEST_TEXT
from tolmach.protocols import PROTOCOLS, load
from tolmach.transport import Timeouts, read
from tolmach.transport.memory import MemoryTransport
from tolmach.wire import Head, Request

PAGE = ROOT / "docs/gateway.md"
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.fixture(scope="module")
def demo() -> Iterator[ThreadedDemo]:
    with serve_in_thread(delay=0) as running:
        yield running


@pytest.fixture
async def everything() -> AsyncGenerator[MemoryTransport, None]:
    """A gateway before every service of the demo, asked in this process."""
    async with served("asgi", delay=0) as (_, _, gateway):
        yield MemoryTransport(AsgiApp(gateway))


async def ask(
    transport: MemoryTransport, path: str, body: Any = None, headers: dict[str, str] | None = None
) -> tuple[Head, bytes]:
    data = b"" if body is None else json.dumps(body).encode()
    request = Request("GET" if body is None else "POST", f"http://localhost{path}", headers or {}, data)
    exchange = await transport.send(request, Timeouts())
    try:
        return exchange.head, await read(exchange, 1 << 24)
    finally:
        await exchange.aclose()


# Examples


@pytest.mark.parametrize("path", [*READMES, PAGE], ids=name_of)
async def test_the_examples_run_against_the_configuration_beside_them(
    path: Path, demo: ThreadedDemo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    examples = [block for block in blocks(path, "python") if GATEWAY in block]
    assert examples
    async with serving(documented_gateway(path, tmp_path, demo.url)) as url:
        for block in examples:
            code = compile(block.replace(GATEWAY, url), name_of(path), "exec")
            await asyncio.to_thread(exec, code, {"__name__": "__main__"})
            assert "Готово ✅" in capsys.readouterr().out


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
async def test_the_line_with_curl_runs(demo: ThreadedDemo, tmp_path: Path) -> None:
    lines = [line for block in blocks(PAGE, "sh") for line in block.splitlines() if line.startswith("curl ")]
    assert lines
    async with serving(documented_gateway(PAGE, tmp_path, demo.url)) as url:
        for line in lines:
            command = shlex.split(line.replace(GATEWAY, url))
            done = await asyncio.to_thread(subprocess.run, command, capture_output=True, timeout=20, check=True)
            assert done.stdout.rstrip().endswith(b"data: [DONE]")


async def test_the_example_of_an_application_around_it_runs(
    demo: ThreadedDemo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [block] = [block for block in blocks(PAGE, "python") if "AsgiApp" in block]
    documented_gateway(PAGE, tmp_path, demo.url)  # writes the file that the example reads
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(block, "gateway.md", "exec"), names)
    transport = MemoryTransport(names["app"])
    async with AsyncClient(base_url="http://localhost/ai/v1", protocol="openai", transport=transport) as client:
        answer = await client.chat.completions.create(model="assistant", messages=[{"role": "user", "content": "Hi"}])
    assert "Готово ✅" in (answer.choices[0].message.content or "")
    assert (await ask(transport, "/elsewhere"))[1] == b"the application's own page"


@pytest.mark.parametrize("path", EXAMPLES, ids=name_of)
async def test_the_programs_run(path: Path, demo: ThreadedDemo) -> None:
    assert f"`{path.name}`" in (ROOT / "examples/README.md").read_text()
    async with serving(Gateway(demo_targets(demo.url))) as url:
        address = url if path.name.startswith("gateway") else demo.url
        command = [sys.executable, "-X", "utf8", "-W", "error", str(path), address]
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.count("Готово ✅".encode()) >= 2
    assert b"Error" not in done.stdout


# Routes and headers


def test_routes_are_those_of_the_code() -> None:
    told = {tuple(names_in(row[0])[0].split()) for row in rows(PAGE, "route")}
    routes = Gateway(demo_targets(DEMO))._routes
    assert told == {*routes, ("GET", "/v1/models/{id}")}


async def test_every_route_that_is_told_answers(everything: MemoryTransport) -> None:
    model = "ChatGptt%2Fgpt-4o"
    for row in rows(PAGE, "route"):
        method, path = names_in(row[0])[0].split()
        query = f"?model={model}" * (path == "/admin/explain")
        head, _ = await ask(everything, path.replace("{id}", model) + query, None if method == "GET" else {})
        assert head.status == (200 if method == "GET" else 400), path


async def test_headers_are_those_of_the_code(everything: MemoryTransport) -> None:
    told = {names_in(row[0])[0] for row in rows(PAGE, "header of the answer")}
    body = {"model": "ChatGptt/gpt-4o", "messages": [{"role": "user", "content": "Hello"}], "seed": 7}
    head, _ = await ask(everything, "/v1/chat/completions", body)
    assert {name for name in head.headers if name not in ("content-type", "content-length")} <= told
    limited = {**body, "model": "openai/fault:429-retry-after=9"}
    head, _ = await ask(everything, "/v1/chat/completions", limited, {"x-tolmach-debug": "1"})
    seen = {*head.headers, "x-tolmach-degraded", "server-timing"}
    assert told <= seen, "a header is told that does not come"
    assert head.headers["retry-after"] == "9"


def test_refusals_before_the_body_are_told() -> None:
    told = {(int(status), names_in(code)[0]) for status, code, _ in rows(PAGE, "status")}
    assert told == {(kind.status, kind.code) for kind in http.BodyRefused.__subclasses__()}


def test_headers_that_are_passed_on_are_told() -> None:
    text = PAGE.read_text().partition("A caller's headers are not passed on")[2].partition("Keys, cookies")[0]
    assert set(names_in(text)) == {header for name in PROTOCOLS for header in getattr(load(name), "listed_headers", ())}


@pytest.mark.parametrize(
    ("name", "target", "own"),
    [
        ("assistant", "shop/gpt-4", "gpt-4"),  # a route
        ("shop/gpt-4", "shop/gpt-4", "gpt-4"),
        ("shop/unlisted", "shop/unlisted", "unlisted"),
        ("shop/default", "shop/gpt-4", "gpt-4"),
        ("shop", "shop/gpt-4", "gpt-4"),
        ("gpt-4o", "local/gpt-4o-mini", "gpt-4o-mini"),  # listed by a provider, under another name
        ("local/gpt-4o", "local/gpt-4o-mini", "gpt-4o-mini"),
    ],
)
def test_names_of_models_find_their_targets(tmp_path: Path, name: str, target: str, own: str) -> None:
    found = documented_gateway(PAGE, tmp_path, DEMO).targets.find(name)
    assert (found.name, found.model) == (target, own)


async def test_other_names_go_where_the_last_route_says(tmp_path: Path, demo: ThreadedDemo) -> None:
    gateway = documented_gateway(PAGE, tmp_path, demo.url)
    body = {"model": "anything", "messages": [{"role": "user", "content": "Hello"}]}
    head, answer = await ask(MemoryTransport(AsgiApp(gateway)), "/v1/chat/completions", body)
    assert (head.status, json.loads(answer)["error"]["code"]) == (404, "model_not_found")
    file = tmp_path / "tolmach.toml"
    file.write_text(file.read_text() + '\n[routes."*"]\ntargets = ["shop/*"]\n')
    gateway = build(Settings.load(file, environ={}))
    assert gateway.targets.find("anything").model == "anything"
    head, answer = await ask(MemoryTransport(AsgiApp(gateway)), "/v1/chat/completions", body)
    assert (head.status, json.loads(answer)["model"]) == (200, "shop/anything")
    assert head.headers["x-tolmach-target"] == "shop/anything"


# Passing on and translating


_PLACES = {"openai": "/v1/chat/completions", "responses": "/v1/responses", "anthropic": "/v1/messages"}
_PLACES |= {"embeddings": "/v1/embeddings", "anthropic/count_tokens": "/v1/messages/count_tokens"}


def test_what_is_passed_on_is_told() -> None:
    told = {(route, names_in(row[1])[0]) for row in rows(PAGE, "caller asks") for route in names_in(row[0])}
    real = {(_PLACES[api], name) for name in PROTOCOLS for api in getattr(load(name), "forwards", ())}
    assert told == real


def test_what_is_never_left_out_is_told() -> None:
    text = PAGE.read_text().partition("(400, `unsupported_parameter`):")[2].partition("\n- ")[0]
    assert set(names_in(text)) == NEVER_DROPPED


@pytest.mark.parametrize("name", ["temperature", "seed", "max_tokens"])
async def test_what_only_shades_the_answer_is_reported(everything: MemoryTransport, name: str) -> None:
    assert f"`{name}`" in PAGE.read_text()
    body = {"model": "ChatGptt/gpt-4o", "messages": [{"role": "user", "content": "Hello"}], name: 1}
    head, answer = await ask(everything, "/v1/chat/completions", body)
    assert name in head.headers["x-tolmach-degraded"]
    assert any(name in notice["text"] for notice in json.loads(answer)["notices"])


def test_services_that_keep_conversations_are_told() -> None:
    section = PAGE.read_text().partition("**Conversations.**")[2].partition("**`previous_response_id`**")[0]
    keeping = {name for name in PROTOCOLS if "conversation" in _traits(name)}
    assert set(names_in(section)) & set(PROTOCOLS) == keeping


def _traits(name: str) -> frozenset[str]:
    traits = load(name).traits
    return traits if isinstance(traits, frozenset) else frozenset()


def test_figures_of_what_is_remembered() -> None:
    parameters = inspect.signature(MemoryStore).parameters
    assert parameters["seconds"].default == 3600
    assert parameters["size"].default == 10_000
    assert parameters["weight"].default == 256 << 20
    text = " ".join(PAGE.read_text().split())
    assert "for an hour after its last use, 10,000 of them" in text
    assert "256 Mi characters" in text


# Errors


def test_the_table_of_errors_is_that_of_the_surfaces() -> None:
    told: dict[str, tuple[str, str]] = {}
    for names, openai, anthropic in rows(PAGE, "error"):
        told |= dict.fromkeys(names_in(names), (openai, anthropic))
    classes = {name: kind for name in errors.__all__ if isinstance(kind := getattr(errors, name), type)}
    bases = {base.__name__ for kind in classes.values() for base in kind.__mro__[1:]}
    assert {name for name in classes if name not in told and name not in bases} == set()
    for name in told:
        error = classes[name]("text")
        assert told[name] == (_openai(error), _anthropic(error)), name


def _openai(error: errors.TolmachError) -> str:
    status, body = OpenAISurface().error(error, "id")
    assert (status, body) == ResponsesSurface().error(error, "id")
    value = json.loads(body)
    assert value.keys() == {"error", "request_id"}
    fields = value["error"]
    assert fields.keys() == {"message", "type", "param", "code"}
    code = f"`{fields['code']}`" if fields["code"] else "–"
    return f"{status} `{fields['type']}`, {code}"


def _anthropic(error: errors.TolmachError) -> str:
    status, body = AnthropicSurface().error(error, "id")
    value = json.loads(body)
    assert value.keys() == {"type", "error", "request_id"}
    assert value["error"].keys() == {"type", "message"}
    return f"{status} `{value['error']['type']}`"


async def test_broken_streams_end_as_is_told(everything: MemoryTransport) -> None:
    question = "[[fault:cut=5]] go on"
    bodies: dict[str, tuple[str, dict[str, Any]]] = {
        "chat completions": ("/v1/chat/completions", {"messages": [{"role": "user", "content": question}]}),
        "responses": ("/v1/responses", {"input": question}),
        "messages": ("/v1/messages", {"messages": [{"role": "user", "content": question}], "max_tokens": 99}),
    }
    told = rows(PAGE, "API")
    assert {row[0] for row in told} == set(bodies)
    for api, ends, never in told:
        path, body = bodies[api]
        head, answer = await ask(everything, path, {**body, "model": "Chatgpt4Online/gpt-4", "stream": True})
        assert head.status == 200
        text = answer.decode()
        last = text.strip().split("\n\n")[-1]
        assert last.startswith(names_in(ends)[-1].removesuffix(" ...}"))
        for mark in names_in(never):
            assert not [form for form in (f'"{mark}":"', f"data: {mark}", f"event: {mark}") if form in text]


# Metrics, log, service


def test_fields_of_the_log_are_told() -> None:
    try:
        raise ValueError("here")
    except ValueError:
        record = logging.getLogger("tolmach").makeRecord("tolmach", 20, "f", 1, "m", (), sys.exc_info())
    text = PAGE.read_text().partition("The log is one JSON object")[2].partition("\n\n")[0]
    fields = {*json.loads(logs.JsonLines().format(record)), *logs.AccessLine.__struct_fields__}
    assert {name for name in names_in(text) if "." not in name} == fields
    assert f"the first {LONGEST_TEXT >> 10} KiB" in " ".join(text.split())


def test_signs_of_life_come_as_often_as_is_told() -> None:
    seconds = inspect.signature(Gateway).parameters["keep_alive"].default
    assert f"every {seconds:g} to {2 * seconds:g} seconds" in " ".join(PAGE.read_text().split())


def test_the_unit_starts_the_command_and_waits_for_its_answers() -> None:
    [unit] = blocks(PAGE, "ini")
    keys = dict(line.split("=", 1) for line in unit.splitlines() if "=" in line)
    program, name, *arguments = shlex.split(keys["ExecStart"])
    assert program.endswith("/tolmach")
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    command.make_context(name, arguments)
    assert float(keys["TimeoutStopSec"]) > GatewayTable().timeouts.shutdown
