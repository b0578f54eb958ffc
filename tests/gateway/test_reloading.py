"""The watch over the configuration's file: it goes on whatever stands there, and keeps nobody waiting."""

import asyncio
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tolmach.configuration import LiveSettings, Settings
from tolmach.gateway import reloading
from tolmach.gateway.assembly import build
from tolmach.gateway.core import Gateway
from tolmach.gateway.reloading import follow

CONFIG = 'ledger.url = "off"\n[providers.o]\nprotocol = "openai"\nurl = "http://127.0.0.1:1/v1"\nmodels = ["m"]\n'
LATER = CONFIG + '[routes.later]\ntargets = ["o/m"]\n'


@asynccontextmanager
async def followed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[tuple[Gateway, LiveSettings], None]:
    """A gateway that follows `tolmach.toml` in the folder."""
    monkeypatch.setattr(reloading, "_LOOK_SECONDS", 0.01)
    (folder / "tolmach.toml").write_text(CONFIG)
    live = LiveSettings(folder / "tolmach.toml", {})
    gateway = build(live.settings)
    following = asyncio.ensure_future(follow(gateway, live))
    try:
        async with asyncio.timeout(20):
            yield gateway, live
            assert not following.done()
    finally:
        following.cancel()
        with suppress(asyncio.CancelledError):
            await following


async def until(gateway: Gateway, problem: str) -> None:
    """Wait until the gateway has this to say about its configuration; the empty text for nothing."""
    while (problem not in gateway.problem) if problem else gateway.problem:  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(0.01)


async def test_a_number_that_python_does_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    async with followed(tmp_path, monkeypatch) as (gateway, live):
        (tmp_path / "tolmach.toml").write_text(f"x = {'9' * 5000}\n")
        await until(gateway, "tolmach.toml:1: a number has more digits")
        assert gateway.targets.routes() == []
        (tmp_path / "tolmach.toml").write_text(LATER)
        await until(gateway, "")
        assert gateway.targets.routes() == ["later"]
        assert live.last_error is None


async def test_what_nobody_has_thought_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def fail(*_: Any, **__: Any) -> Settings:
        raise RuntimeError("nobody has thought of it")

    async with followed(tmp_path, monkeypatch) as (gateway, _):
        with monkeypatch.context() as broken:
            broken.setattr(Settings, "load", fail)
            (tmp_path / "tolmach.toml").write_text(LATER)
            await until(gateway, "the log has more")
        assert "nobody has thought of it" in capsys.readouterr().err
        (tmp_path / "tolmach.toml").write_text(LATER + "\n")
        await until(gateway, "")
        assert gateway.targets.routes() == ["later"]


@pytest.mark.parametrize("step", ["changed", "reload"])
async def test_a_disk_that_does_not_answer_keeps_nobody_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
):
    asked, answered = threading.Event(), threading.Event()
    in_time = []

    def slow(live: LiveSettings) -> Any:
        asked.set()
        in_time.append(answered.wait(5))
        return real(live)

    real = getattr(LiveSettings, step)
    async with followed(tmp_path, monkeypatch) as (gateway, _):
        monkeypatch.setattr(LiveSettings, step, slow)
        (tmp_path / "tolmach.toml").write_text(LATER)
        assert await asyncio.to_thread(asked.wait, 10)
        # This runs although the disk has not answered.
        answered.set()
        while not gateway.targets.routes():  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.01)
    assert set(in_time) == {True}
