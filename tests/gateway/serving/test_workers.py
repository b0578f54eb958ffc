"""Several processes on one port, under a real `tolmach serve`."""

import asyncio
import os
import re
import signal
import time
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from tests.gateway.program import Program, Stream, ask, demo_config, program, raw
from tolmach.demo import Demo
from tolmach.gateway.telemetry.metrics import SHARED_COUNTS


@pytest.fixture
async def demo() -> AsyncGenerator[Demo, None]:
    async with Demo(delay=0.002) as here:
        yield here


def alive(pid: int) -> bool:
    """Whether the process runs; one that is dead and not yet waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def all_gone(pids: list[int], within: float) -> float:
    """The seconds until all have ended."""
    began = time.perf_counter()
    while any(alive(pid) for pid in pids):
        assert time.perf_counter() - began < within, "processes are left"
        await asyncio.sleep(0.01)
    return time.perf_counter() - began


async def counted(served: Program) -> int:
    """The answered questions by `/metrics`."""
    _, _, text = await raw(served.url, "GET", "/metrics")
    found = re.findall(rb'tolmach_requests_total\{.*surface="openai".*\} ([\d.]+)', text)
    return int(sum(map(float, found)))


async def counts_come_to(served: Program, expected: int) -> None:
    """Wait until `/metrics` tells so many: a worker writes down what it counted twice a second."""
    async with asyncio.timeout(10):
        while await counted(served) != expected:  # noqa: ASYNC110 - another program's counters
            await asyncio.sleep(0.02)


async def test_they_share_a_port_and_count_together(demo: Demo, tmp_path: Path):
    async with program(tmp_path, demo_config(demo.url), "--workers", "2") as served:
        workers = served.workers
        assert len(workers) == 2
        assert {(await ask(served.url, "gpt-4o-mini"))[0] for _ in range(40)} == {200}
        await counts_come_to(served, 40)
        shared = _variable(workers[0], SHARED_COUNTS)
        assert {f"counter_{pid}.db" for pid in workers} <= set(os.listdir(shared))
        # Whichever is asked tells the same.
        assert {await counted(served) for _ in range(10)} == {40}
        served.send(signal.SIGTERM)
        assert await served.ended() == 0
        await all_gone(workers, 1)
        with pytest.raises(FileNotFoundError):
            os.listdir(shared)


def _variable(pid: int, name: str) -> str:
    entries = Path(f"/proc/{pid}/environ").read_text().split("\0")
    return next(entry.partition("=")[2] for entry in entries if entry.startswith(f"{name}="))


async def test_one_that_dies_is_started_again(demo: Demo, tmp_path: Path):
    async with program(tmp_path, demo_config(demo.url), "--workers", "2") as served:
        first, second = served.workers
        assert {(await ask(served.url, "gpt-4o-mini"))[0] for _ in range(10)} == {200}
        await counts_come_to(served, 10)
        os.kill(first, signal.SIGKILL)
        await served.wait_for(f"worker {first} ended with signal SIGKILL")
        async with asyncio.timeout(10):
            while len(served.workers) < 2:  # noqa: ASYNC110 - another program's processes
                await asyncio.sleep(0.01)
        assert second in served.workers
        assert {(await ask(served.url, "gpt-4o-mini"))[0] for _ in range(20)} == {200}
        # What the dead one had counted is not lost.
        await counts_come_to(served, 30)


async def test_those_that_die_again_and_again_are_started_ever_more_rarely(demo: Demo, tmp_path: Path):
    async with program(tmp_path, demo_config(demo.url), "--workers", "2") as served:
        other = served.workers[0]
        # From now on nothing can be started from this file.
        served.config.write_text("[gateway", "utf-8")
        os.kill(served.workers[1], signal.SIGKILL)
        await served.wait_for("another starts in 0.4 s")
        assert served.output.count("another starts in") == 3
        assert other in served.workers
        assert (await ask(served.url, "gpt-4o-mini"))[0] == 200
        served.config.write_text(demo_config(demo.url), "utf-8")
        async with asyncio.timeout(10):
            while len(served.workers) < 2:  # noqa: ASYNC110 - another program's processes
                await asyncio.sleep(0.01)


async def test_none_is_left_when_their_parent_is_killed(demo: Demo, tmp_path: Path):
    async with program(tmp_path, demo_config(demo.url), "--workers", "2") as served:
        workers = served.workers
        stream = await Stream.asked(served.url, "gpt-4o-mini", "[[fault:stall=3]] go on")
        served.process.kill()
        await served.ended()
        taken = await all_gone(workers, 3)
        print(f"workers ended {taken * 1000:.0f} ms after their parent")
        assert b"[DONE]" not in await stream.rest()


async def test_an_interrupt_ends_all_with_one_line(demo: Demo, tmp_path: Path):
    async with program(tmp_path, demo_config(demo.url), "--workers", "2") as served:
        workers, before = served.workers, served.output
        served.send(signal.SIGINT)
        assert await served.ended() == 0
        assert not any(map(alive, workers))
        assert served.output[len(before) :] == "tolmach stopped.\n"
