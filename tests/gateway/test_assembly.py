"""Reading `tolmach.toml` again while answers are under way, in a real `tolmach serve`."""

import json
import os
import signal
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from tests.gateway.program import Program, Stream, ask, demo_config, program, raw
from tolmach.demo import Demo

LATER = '[routes.later]\ntargets = ["openai/gpt-4o-mini"]\n'


@pytest.fixture
async def demo() -> AsyncGenerator[Demo, None]:
    async with Demo(delay=0.005) as here:
        yield here


async def reloaded(served: Program, config: str, *, by: str, says: str) -> None:
    """Write the file and wait until the program says that it has read it."""
    before = served.output.count(says)
    # Put there in one go, as editors and Kubernetes do.
    (served.folder / "new").write_text(config, "utf-8")
    os.replace(served.folder / "new", served.config)
    if by == "SIGHUP":
        served.send(signal.SIGHUP)
    await served.wait_for(says, before + 1)


@pytest.mark.parametrize("by", ["change", "SIGHUP"])
async def test_a_reload_drops_no_stream_and_keeps_what_has_not_changed(demo: Demo, tmp_path: Path, by: str):
    async with Demo(delay=0.005) as other, program(tmp_path, demo_config(demo.url)) as served:
        assert (await ask(served.url, "shop-model"))[0] == 200
        streams = [
            await Stream.asked(served.url, model, "[[fault:delay=0.03]] go on")
            for model in ("gpt-4o-mini", "shop-model")
        ]
        assert (await ask(served.url, "later"))[0] == 404
        changed = demo_config(demo.url, LATER).replace(f"{demo.url}/v1", f"{other.url}/v1")
        await reloaded(served, changed, by=by, says="was read again")
        if by == "SIGHUP":
            assert demo.log.answers["/v1"] == 0, "the stream must be under way while the file is read"
        assert (await ask(served.url, "later"))[0] == 200
        assert other.log.chats("/v1") == 1
        assert (await ask(served.url, "shop-model"))[0] == 200
        for stream in streams:
            answer = await stream.rest()
            assert b'"finish_reason":"stop"' in answer
            assert answer.endswith(b"data: [DONE]\n\n")
        # The shop's session went on: its nonce was fetched once for all questions, before and after.
        assert demo.log.handshakes["/Chatgpt4Online"] == 1
        assert demo.log.answers["/Chatgpt4Online"] == 3


async def test_a_provider_that_has_changed_gets_another_session(demo: Demo, tmp_path: Path):
    async with program(tmp_path, demo_config(demo.url)) as served:
        assert (await ask(served.url, "shop-model"))[0] == 200
        config = demo_config(demo.url).replace(
            'models = ["shop-model"]', 'models = ["shop-model"]\nheaders = {a = "b"}'
        )
        await reloaded(served, config, by="SIGHUP", says="was read again")
        assert (await ask(served.url, "shop-model"))[0] == 200
        assert demo.log.handshakes["/Chatgpt4Online"] == 2


async def test_other_times_do_not_end_a_session(demo: Demo, tmp_path: Path):
    async with program(tmp_path, demo_config(demo.url)) as served:
        assert (await ask(served.url, "shop-model"))[0] == 200
        config = demo_config(demo.url, gateway="[gateway.timeouts]\ntotal = 0.2")
        await reloaded(served, config, by="SIGHUP", says="was read again")
        status, _, body = await ask(served.url, "shop-model", "[[fault:stall=3]] go on")
        assert (status, demo.log.handshakes["/Chatgpt4Online"]) == (504, 1), body


@pytest.mark.parametrize(
    ("broken", "where"),
    [
        ("[gateway.limits]\ndepth = 'x'\n", "tolmach.toml:5: gateway.limits.depth: "),
        ("[gateway.limits\n", "tolmach.toml:4: no TOML"),
        ("nothing = 1\n", "tolmach.toml:4: gateway.nothing: unknown key"),
    ],
)
async def test_a_broken_file_changes_nothing_and_is_told(demo: Demo, tmp_path: Path, broken: str, where: str):
    async with program(tmp_path, demo_config(demo.url)) as served:
        assert json.loads((await raw(served.url, "GET", "/health/ready"))[2]) == {"status": "ready"}
        stream = await Stream.asked(served.url, "gpt-4o-mini", "[[fault:delay=0.03]] go on")
        await reloaded(served, demo_config(demo.url, LATER, broken), by="SIGHUP", says="what held before holds on")
        [line] = [line for line in served.lines if "what held before" in line.get("message", "")]
        assert line["level"] == "error"
        assert where in line["message"]
        assert (await ask(served.url, "later"))[0] == 404
        assert (await ask(served.url, "gpt-4o-mini"))[0] == 200
        status, _, body = await raw(served.url, "GET", "/health/ready")
        assert (status, json.loads(body)["status"]) == (200, "ready")
        assert where in json.loads(body)["configuration"]
        _, _, metrics = await raw(served.url, "GET", "/metrics")
        assert b"tolmach_config_reload_failed 1.0" in metrics
        assert b'tolmach_config_reloads_total{outcome="failed"} 1.0' in metrics
        assert (await stream.rest()).endswith(b"data: [DONE]\n\n")
        # Mended, all of it is gone again.
        await reloaded(served, demo_config(demo.url, LATER), by="change", says="was read again")
        assert (await ask(served.url, "later"))[0] == 200
        assert json.loads((await raw(served.url, "GET", "/health/ready"))[2]) == {"status": "ready"}
        assert b"tolmach_config_reload_failed 0.0" in (await raw(served.url, "GET", "/metrics"))[2]


async def test_no_provider_or_no_file_at_all_changes_nothing(demo: Demo, tmp_path: Path):
    async with program(tmp_path, demo_config(demo.url)) as served:
        await reloaded(served, "[gateway]\n", by="SIGHUP", says="names no provider any more")
        served.config.unlink()
        served.send(signal.SIGHUP)
        await served.wait_for("no such file")
        assert (await ask(served.url, "gpt-4o-mini"))[0] == 200


async def test_settings_of_the_gateway_itself_are_taken_over(demo: Demo, tmp_path: Path):
    async with program(tmp_path, demo_config(demo.url)) as served:
        assert (await raw(served.url, "GET", "/metrics"))[0] == 200
        page = "Origin: https://app.example\r\n"
        assert (await ask(served.url, "gpt-4o-mini", headers=page))[0] == 403
        gateway = (
            'admin_key = "the admins own"\nworkers = 3\n[gateway.limits]\nbody_bytes = 1024\nheader_seconds = 3\n'
            '[gateway.cors]\norigins = ["https://app.example"]\n[gateway.log]\ntexts = true\n'
        )
        await reloaded(served, demo_config(demo.url, "", gateway), by="SIGHUP", says="was read again")
        assert (await raw(served.url, "GET", "/metrics"))[0] == 401
        assert (await ask(served.url, "gpt-4o-mini", "x" * 2000))[0] == 413
        status, headers, _ = await ask(served.url, "gpt-4o-mini", "a text to be logged", headers=page)
        assert (status, headers["access-control-allow-origin"]) == (200, "https://app.example")
        await served.wait_for("a text to be logged")
        for key in ("workers", "limits.header_seconds"):
            assert f"gateway.{key} takes effect at the next start" in served.output
        assert "gateway.port takes effect" not in served.output


async def test_all_workers_read_it_again(demo: Demo, tmp_path: Path):
    async with program(tmp_path, demo_config(demo.url), "--workers", "2") as served:
        await reloaded(served, demo_config(demo.url, LATER), by="SIGHUP", says="was read again")
        await served.wait_for("was read again", 2)
        assert {(await ask(served.url, "later"))[0] for _ in range(20)} == {200}


async def test_a_pipe_in_the_place_of_the_file_stops_nobody(demo: Demo, tmp_path: Path):
    async with program(tmp_path, demo_config(demo.url)) as served:
        served.config.unlink()
        os.mkfifo(served.config)
        await served.wait_for("it is a pipe or a device")
        assert (await ask(served.url, "gpt-4o-mini"))[0] == 200
        await reloaded(served, demo_config(demo.url, LATER), by="change", says="was read again")
        assert (await ask(served.url, "later"))[0] == 200
