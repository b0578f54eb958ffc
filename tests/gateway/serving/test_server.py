"""`tolmach serve`: its settings, its start and its end, its log."""

import asyncio
import json
import resource
import secrets
import signal
import socket
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from tests.gateway.keyed import make_key
from tests.gateway.program import Stream, ask, demo_config, program, question_body, raw, start
from tests.transport.server import listening
from tolmach.access.keys import new_key
from tolmach.demo import Demo
from tolmach.ledger.keys import save_key
from tolmach.ledger.opening import open_database

TEXT = "a text that is nobody's business"


@pytest.fixture
async def demo() -> AsyncGenerator[Demo, None]:
    async with Demo(delay=0.005) as here:
        yield here


# The start and the end


async def test_it_answers_within_a_second_of_its_start(demo: Demo, tmp_path: Path):
    taken = []
    for _ in range(3):
        began = time.perf_counter()
        async with program(tmp_path, demo_config(demo.url)) as served:
            status, _, _ = await raw(served.url, "GET", "/health/ready")
            taken.append(time.perf_counter() - began)
            assert status == 200
        if min(taken) < 1:
            break
    print(f"start to the first 200: {min(taken) * 1000:.0f} ms")
    assert min(taken) < 1


async def test_an_interrupt_ends_it_with_one_line(demo: Demo, tmp_path: Path):
    async with program(tmp_path, demo_config(demo.url)) as served:
        before = served.output
        served.send(signal.SIGINT)
        assert await served.ended() == 0
        assert served.output[len(before) :] == "tolmach stopped.\n"


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_answers_under_way_end_whole_when_it_is_told_to_stop(demo: Demo, tmp_path: Path, workers: str):
    async with program(tmp_path, demo_config(demo.url), "--workers", workers) as served:
        stream = await Stream.asked(served.url, "gpt-4o-mini", "[[fault:delay=0.02]] go on")
        shop = await Stream.asked(served.url, "shop-model", "[[fault:delay=0.02]] go on")
        served.send(signal.SIGTERM)
        if workers == "1":
            async with asyncio.timeout(5):
                while (await raw(served.url, "GET", "/health/ready"))[0] != 503:
                    pass
            status, headers, body = await ask(served.url, "gpt-4o-mini")
            assert (status, headers["retry-after"]) == (503, "1")
            assert "stopped" in json.loads(body)["error"]["message"]
        for answer in (stream, shop):
            said = await answer.rest()
            assert b'"finish_reason":"stop"' in said
            assert said.endswith(b"data: [DONE]\n\n")
        assert await served.ended() == 0


async def test_answers_that_do_not_end_in_time_are_broken_off(demo: Demo, tmp_path: Path):
    config = demo_config(demo.url, gateway="[gateway.timeouts]\nshutdown = 0.3")
    async with program(tmp_path, config) as served:
        stream = await Stream.asked(served.url, "gpt-4o-mini", "[[fault:stall=3]] go on")
        served.send(signal.SIGTERM)
        began = time.perf_counter()
        assert await served.ended() == 0
        assert 0.3 <= time.perf_counter() - began < 3
        said = await stream.rest()
        assert b"the gateway was stopped before the answer's end" in said.splitlines()[-2]
        assert b"[DONE]" not in said
        assert b'"finish_reason":"stop"' not in said
        await demo.log.wait_hangups(1)


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_second_interrupt_ends_it_at_once(demo: Demo, tmp_path: Path, workers: str):
    async with program(tmp_path, demo_config(demo.url), "--workers", workers) as served:
        stream = await Stream.asked(served.url, "gpt-4o-mini", "[[fault:stall=3]] go on")
        served.send(signal.SIGINT)
        if workers == "1":
            await served.wait_for("1 requests under way have 30 s to end")
        began = time.perf_counter()
        while served.process.returncode is None and time.perf_counter() - began < 5:
            await asyncio.sleep(0.2)
            if served.process.returncode is None:
                served.send(signal.SIGINT)
        assert await served.ended() == 0
        assert time.perf_counter() - began < 3
        assert b"[DONE]" not in await stream.rest()


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_port_in_use_is_one_error_before_anything_starts(tmp_path: Path, workers: str):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        served = await start(tmp_path, demo_config("http://127.0.0.1:9"), "--port", str(port), "--workers", workers)
        assert await served.ended() == 2
    [line] = served.output.splitlines()
    assert f"cannot listen on 127.0.0.1:{port}" in line
    assert "another port" in line


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ("[gateway]\nport = 0\n", "names no provider"),
        ("[gateway]\nport = 'x'\n", "tolmach.toml:2: gateway.port"),
        (demo_config("http://127.0.0.1:9", gateway="host = 'no.such.host.invalid'"), "cannot listen on"),
    ],
)
@pytest.mark.parametrize("workers", ["1", "2"])
async def test_what_cannot_be_served_is_said_once(tmp_path: Path, config: str, says: str, workers: str):
    served = await start(tmp_path, config, "--workers", workers)
    assert await served.ended() == 2
    assert served.output.count(says) == 1
    assert "Traceback" not in served.output


async def test_others_are_let_in_by_keys_only(demo: Demo, tmp_path: Path):
    ledger = '[ledger]\nurl = "ledger.sqlite"\n'
    refused = await start(tmp_path, demo_config(demo.url, ledger), "--host", "0.0.0.0")
    assert await refused.ended() == 2
    assert "tolmach keys add" in refused.output
    async with program(tmp_path, demo_config(demo.url, ledger), "--host", "localhost") as served:
        await served.wait_for("no keys: everyone on this machine may ask.")
        status, _, _ = await raw(served.url.replace("localhost", "127.0.0.1"), "GET", "/metrics")
        assert status == 200
    database = open_database(tmp_path / "ledger.sqlite")
    plain, key = new_key(secrets.token_bytes, "web")
    save_key(database, structs.replace(key, models=("gpt-*",)))
    database.close()
    async with program(tmp_path, demo_config(demo.url, ledger), "--host", "0.0.0.0") as served:
        url = served.url.replace("0.0.0.0", "127.0.0.1")
        assert (await ask(url, "gpt-4o-mini"))[0] == 401
        assert (await ask(url, "gpt-4o-mini", headers=f"Authorization: Bearer {plain}\r\n"))[0] == 200
        assert (await ask(url, "gpt-4o-mini", headers=f"x-api-key: {plain}\r\n"))[0] == 200
        assert (await ask(url, "shop-model", headers=f"x-api-key: {plain}\r\n"))[0] == 404
        assert (await raw(url, "GET", "/metrics"))[0] == 401
        assert plain not in served.output


# Limits


async def test_thousands_of_connections_keep_nobody_waiting(demo: Demo, tmp_path: Path):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2500
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 2 * wanted)), hard))
    async with program(tmp_path, demo_config(demo.url)) as served:
        host, port = served.url.removeprefix("http://").split(":")
        opened = []
        try:
            for _ in range(wanted):
                _, writer = await asyncio.open_connection(host, int(port))
                writer.write(b"GET /health/live HTTP/1.1\r\n")
                opened.append(writer)
            # Less than the time after which the server closes connections that send no head.
            async with asyncio.timeout(10):
                status, _, _ = await raw(served.url, "GET", "/health/live")
            assert status == 200
        finally:
            for writer in opened:
                writer.close()


async def test_limits_hold(demo: Demo, tmp_path: Path):
    limits = (
        "[gateway.limits]\nbody_bytes = 2000\nbody_seconds = 0.3\ndepth = 6\nheader_bytes = 8192\n"
        "headers = 10\nheader_seconds = 0.3\nstreams = 2\n"
    )
    async with program(tmp_path, demo_config(demo.url, gateway=limits)) as served:
        url = served.url
        assert (await ask(url, "gpt-4o-mini", "x" * 3000))[0] == 413
        assert (await ask(url, "gpt-4o-mini", headers="A: b\r\n" * 9))[0] == 431
        assert (await ask(url, "gpt-4o-mini", headers=f"A: {'b' * 9000}\r\n"))[0] == 431
        assert (await ask(url, "gpt-4o-mini"))[0] == 200
        for model in ("gpt-4o-mini", "shop-model"):
            deep: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": "x"}]}
            deep["metadata"] = {"a": [[[[[]]]]]}
            status, _, body = await raw(url, "POST", "/v1/chat/completions", json.dumps(deep).encode())
            assert status == 400
            assert "more than 6 deep" in json.loads(body)["error"]["message"]
        before = demo.log.chats("/v1")
        for sent in (b"", b"GET / HT", b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n"):
            reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
            writer.write(sent)
            assert await asyncio.wait_for(reader.read(), 3) == b""
            writer.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
        assert (await asyncio.wait_for(reader.read(), 3)).startswith(b"HTTP/1.1 408 ")
        writer.close()
        assert demo.log.chats("/v1") == before


async def test_no_more_answers_are_under_way_than_allowed(demo: Demo, tmp_path: Path):
    async with program(tmp_path, demo_config(demo.url, gateway="[gateway.limits]\nstreams = 2")) as served:
        question = "[[fault:stall=3]] go on"
        streams = [await Stream.asked(served.url, "gpt-4o-mini", question) for _ in range(2)]
        status, headers, body = await ask(served.url, "gpt-4o-mini")
        assert (status, headers["retry-after"]) == (503, "1")
        assert json.loads(body)["error"]["type"] == "server_error"
        status, headers, body = await raw(served.url, "POST", "/v1/messages", question_body("shop-model"))
        assert (status, headers["retry-after"]) == (503, "1")
        assert json.loads(body)["type"] == "error"
        assert (await raw(served.url, "GET", "/health/ready"))[0] == 200
        streams[0]._writer.close()
        await demo.log.wait_hangups(1)
        assert (await ask(served.url, "gpt-4o-mini"))[0] == 200
        streams[1]._writer.close()


async def test_a_route_has_its_own_times(demo: Demo, tmp_path: Path):
    routes = (
        '[routes.quick]\ntargets = ["openai/gpt-4o-mini"]\nfirst_token_timeout = 0.2\n'
        '[routes.short]\ntargets = ["shop/shop-model"]\ntotal_timeout = 0.3\n'
        '[routes."*"]\ntargets = ["openai/*"]\nidle_timeout = 0.2\n'
    )
    async with program(tmp_path, demo_config(demo.url, routes)) as served:
        demo.faults["/v1"] = "slow-first-token=1"
        status, _, body = await ask(served.url, "quick")
        assert status == 504, body
        assert "0.2" in json.loads(body)["error"]["message"]
        del demo.faults["/v1"]
        status, _, body = await ask(served.url, "short", "[[fault:stall=3]] go on")
        assert status == 504, body
        assert "0.3" in json.loads(body)["error"]["message"]
        status, _, body = await ask(served.url, "fault:stall=3", stream=True)
        assert status == 200
        assert b"0.2 s" in body
        assert b"[DONE]" not in body
        assert (await ask(served.url, "quick"))[0] == 200


async def test_metrics_ask_for_the_admins_key(demo: Demo, tmp_path: Path):
    async with program(tmp_path, demo_config(demo.url, gateway='admin_key = "the admins own"')) as served:
        for headers in ("", "Authorization: Bearer other\r\n", "Authorization: Basic the admins own\r\n"):
            status, answered, _ = await raw(served.url, "GET", "/metrics", headers=headers)
            assert (status, answered["www-authenticate"]) == (401, "Bearer")
        status, _, body = await raw(served.url, "GET", "/metrics", headers="Authorization: Bearer the admins own\r\n")
        assert status == 200
        assert b"tolmach_requests_total" in body
        assert (await raw(served.url, "GET", "/health/ready"))[0] == 200


async def test_with_keys_for_callers_metrics_and_admin_ask_for_theirs_on_this_machine_too(demo: Demo, tmp_path: Path):
    more = '[ledger]\nurl = "ledger.sqlite"\n'
    plain, _ = make_key(tmp_path / "ledger.sqlite")
    paths = ("/metrics", "/admin/explain?model=gpt-4o-mini")

    async def statuses(url: str, key: str) -> list[int]:
        return [(await raw(url, "GET", path, headers=f"Authorization: Bearer {key}\r\n"))[0] for path in paths]

    async with program(tmp_path, demo_config(demo.url, more)) as served:
        for key in ("", plain):
            assert await statuses(served.url, key) == [401, 401]
        assert b"gateway.metrics_key" in (await raw(served.url, "GET", "/metrics"))[2]
    keys = 'admin_key = "the admins own"\nmetrics_key = "the watchers own"'
    async with program(tmp_path, demo_config(demo.url, more, keys)) as served:
        assert "/v1. Ctrl-C stops it.\n1 key.\n" in await served.wait_for("1 key.")
        for key, expected in ((plain, [401, 401]), ("the admins own", [200, 200]), ("the watchers own", [200, 401])):
            assert await statuses(served.url, key) == expected
        assert (await ask(served.url, "gpt-4o-mini", headers="Authorization: Bearer the watchers own\r\n"))[0] == 401


# The log


async def test_each_request_is_a_line_without_texts(demo: Demo, tmp_path: Path):
    async with program(tmp_path, demo_config(demo.url)) as served:
        id, auth = "X-Request-Id: mine-1\r\n", "Authorization: Bearer of-the-caller\r\n"
        await ask(served.url, "shop-model", TEXT, stream=True, headers=id + auth)
        await ask(served.url, "gpt-4o-mini", TEXT)
        await ask(served.url, "nothing", TEXT)
        await raw(served.url, "GET", "/health/live?of-the-caller")
        await served.wait_for("/health/live")
        shop, openai, unknown, live = [line for line in served.lines if line["logger"] == "tolmach.access"]
        assert TEXT not in served.output
        assert "of-the-caller" not in served.output
    assert shop.pop("time").endswith("Z")
    times = (shop.pop("first_ms"), shop.pop("total_ms"))
    assert 0 < times[0] <= times[1]
    told = {"request": "mine-1", "surface": "openai", "target": "shop/shop-model", "status": 200}
    where = {"logger": "tolmach.access", "level": "info", "method": "POST", "path": "/v1/chat/completions"}
    assert {name: value for name, value in shop.items() if not name.endswith("_tokens")} == told | where
    assert openai["prompt_tokens"] > 0
    assert openai["completion_tokens"] > 0
    assert (unknown["status"], unknown["error"]) == (404, "ModelNotFound")
    assert (live["method"], live["status"], live["surface"]) == ("GET", 200, "none")


async def test_texts_are_logged_when_asked_for(demo: Demo, tmp_path: Path):
    async with program(tmp_path, demo_config(demo.url, gateway="[gateway.log]\ntexts = true")) as served:
        _, _, body = await ask(served.url, "shop-model", TEXT, stream=True)
        await served.wait_for("tolmach.access")
        [line] = [line for line in served.lines if line["logger"] == "tolmach.access"]
    assert TEXT in line["question"]
    assert line["answer"] == body.decode()


async def test_a_higher_level_logs_no_requests(demo: Demo, tmp_path: Path):
    async with program(tmp_path, demo_config(demo.url, gateway='[gateway.log]\nlevel = "warning"')) as served:
        await ask(served.url, "shop-model")
        await ask(served.url, "nothing")
        assert served.lines == []


async def test_a_caller_who_goes_away_is_logged(demo: Demo, tmp_path: Path):
    async with program(tmp_path, demo_config(demo.url)) as served:
        stream = await Stream.asked(served.url, "gpt-4o-mini", "[[fault:stall=3]] go on")
        stream._writer.close()
        await served.wait_for('"gone":true')
        assert [line["path"] for line in served.lines if line.get("gone")] == ["/v1/chat/completions"]


SECRETS = {
    "SHOP_COOKIE": "cookie-0f3a9c77",
    "OPENAI_SECRET_KEY": "sk-key-77aa00ff",
    "PROXY_PASSWORD": "proxy-pass-5c5c",
    "HEADER_TOKEN": "header-token-1b1b",
    "ADMIN_SECRET": "admin-key-9e9e",
    "QUERY_TOKEN": "query-token-4d4d",
}


async def test_secrets_stand_in_no_output(demo: Demo, tmp_path: Path):
    config = demo_config(
        demo.url,
        f"""
[providers.keyed]
protocol = "openai"
url = "{demo.url}/v1"
api_key = "${{OPENAI_SECRET_KEY}}"
headers = {{ x-token = "${{HEADER_TOKEN}}" }}
[providers.visited]
protocol = "ai-power"
url = "{demo.url}/ChatGptt"
cookies = {{ session = "${{SHOP_COOKIE}}" }}
[providers.dead]
protocol = "openai"
url = "http://127.0.0.1:1/v1"
api_key = "${{OPENAI_SECRET_KEY}}"
[providers.proxied]
protocol = "openai"
url = "http://service.invalid/v1"
proxy = "http://me:${{PROXY_PASSWORD}}@127.0.0.1:1"
[providers.query]
protocol = "ai-engine"
url = "{demo.url}/nothing?token=${{QUERY_TOKEN}}"
""",
        'admin_key = "${ADMIN_SECRET}"\n[gateway.log]\nlevel = "debug"\n',
    )
    shown = []
    async with program(tmp_path, config, environ=SECRETS) as served:
        for model in ("keyed/m", "visited/m", "dead/m", "proxied/m", "query/m"):
            for fault in ("", "401", "429", "500", "502-html", "reset", "html", "cut=3", "malformed=3", "banned"):
                for stream in (False, True):
                    question = f"[[fault:{fault}]] x" if fault else "x"
                    shown.append(await ask(served.url, model, question, stream=stream))
        shown.append(await ask(served.url, "dead/m", headers="Authorization: Bearer callers-own-key\r\n"))
        shown.append(await raw(served.url, "GET", "/metrics", headers=f"Authorization: {SECRETS['ADMIN_SECRET']}\r\n"))
        served.config.write_text(config + "\n[gateway.limits]\ndepth = '${OPENAI_SECRET_KEY}'\n", "utf-8")
        served.send(signal.SIGHUP)
        await served.wait_for("what held before holds on")
        shown.append(await raw(served.url, "GET", "/health/ready"))
        served.send(signal.SIGTERM)
        await served.ended()
        text = served.output + repr(shown)
    assert sum(status >= 400 for status, _, _ in shown) > 50
    assert [name for name, secret in SECRETS.items() if secret in text] == []
    assert "callers-own-key" not in text
    assert "Traceback" not in text


async def test_a_secret_that_a_service_repeats_is_hidden_in_the_log(demo: Demo, tmp_path: Path):
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = json.dumps({"error": {"message": f"wrong key {SECRETS['OPENAI_SECRET_KEY']}", "code": None}}).encode()
        writer.write(b"HTTP/1.1 401 No\r\nContent-Type: application/json\r\nConnection: close\r\n")
        writer.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()
        writer.close()

    async with listening(echo) as port:
        more = f"""
[providers.telling]
protocol = "openai"
url = "http://127.0.0.1:{port}/v1"
api_key = "${{OPENAI_SECRET_KEY}}"
"""
        async with program(tmp_path, demo_config(demo.url, more), environ=SECRETS) as served:
            status, _, body = await ask(served.url, "telling/m")
            assert status == 401
            await served.wait_for("wrong key")
            assert SECRETS["OPENAI_SECRET_KEY"] not in served.output
            assert SECRETS["OPENAI_SECRET_KEY"] not in body.decode()
