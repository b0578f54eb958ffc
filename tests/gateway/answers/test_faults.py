"""The gateway's process after faults: nothing is left open, no task goes on, and it is idle."""

import asyncio
import os
from pathlib import Path

from tests.gateway.keyed import ask, config, make_key, opened
from tests.gateway.program import program
from tests.gateway.upstream import Upstream
from tolmach.configuration import Settings
from tolmach.gateway.assembly import build
from tolmach.gateway.core import Gateway
from tolmach.gateway.serving.server import serving

ROUTES = """
[routes.over]
targets = ["up/bad", "up/good"]
[routes.resumed]
targets = ["up/cut", "up/good"]
recover = "resume"
[routes.restarted]
targets = ["up/cut", "up/good"]
recover = "restart"
[routes.hedged]
targets = ["up/silent", "up/good"]
hedge_after = 0.02
[routes.slow]
targets = ["up/silent"]
first_token_timeout = 0.05
"""
ENDING = ("up/good", "up/bad", "up/cut", "over", "resumed", "restarted", "hedged", "slow")
"""Those that end by themselves."""
EACH = 8
KEPT = EACH * len(ENDING)
"""The most connections at once whose answers end: they may be kept for later. In six rounds many more are cancelled."""
FEW = 8
"""Files and tasks that may be there for a moment longer, or anew."""


async def faults(url: str, key: str, upstream: Upstream) -> None:
    """Every kind of fault at once, then callers who go away before and in mid-answer."""
    asking = [ask(url, key, model, stream=streamed) for model in ENDING for streamed in (False, True) * (EACH // 2)]
    replies = await asyncio.gather(*asking, ask(url, "ak-nobody"))
    assert {status for status, _, _ in replies} >= {200, 401, 500}
    early = [asyncio.ensure_future(ask(url, key, "early")) for _ in range(20)]
    streams = [await opened(url, key) for _ in range(20)]
    await upstream.until_active(40)
    for one in early:
        one.cancel()
    for stream in streams:
        stream.close()
    await asyncio.gather(*early, return_exceptions=True)
    await upstream.until_active(0)


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


async def idle(gateway: Gateway) -> None:
    """Wait until no question is being answered."""
    async with asyncio.timeout(20):
        while gateway.under_way:  # noqa: ASYNC110 - what ends has no event
            await asyncio.sleep(0.01)


def tasks(upstream: Upstream) -> int:
    """The tasks of this process, without those of the upstream: one for each connection."""
    return len(asyncio.all_tasks()) - upstream.connections


async def test_nothing_is_left_open_and_the_process_is_idle(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.sqlite"
    key, _ = make_key(ledger, requests_per_minute=100_000, streams=1000)
    async with Upstream() as upstream, program(tmp_path, config(ledger, upstream.url, more=ROUTES)) as served:
        pid = served.process.pid
        before = files(pid)
        for _ in range(6):
            await faults(served.url, key, upstream)
        assert upstream.connections <= KEPT
        async with asyncio.timeout(20):
            while files(pid) > before + KEPT + FEW:  # noqa: ASYNC110 - another program's files
                await asyncio.sleep(0.02)
        used = cpu_seconds(pid)
        await asyncio.sleep(1)  # what is measured, not waited for
        assert cpu_seconds(pid) - used < 0.3
        assert (await ask(served.url, key))[0] == 200
        assert "Traceback" not in served.output
        assert "never retrieved" not in served.output


async def test_no_task_goes_on_and_no_stream_is_held(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.sqlite"
    key, stored = make_key(ledger, streams=1000)
    async with Upstream() as upstream:
        file = tmp_path / "tolmach.toml"
        file.write_text(config(ledger, upstream.url, more=ROUTES), "utf-8")
        gateway = build(Settings.load(file))
        await gateway.start()
        async with serving(gateway) as url:
            await faults(url, key, upstream)
            await idle(gateway)
            before = tasks(upstream)
            for _ in range(3):
                await faults(url, key, upstream)
            await idle(gateway)
            assert tasks(upstream) <= before + FEW
            assert gateway.metrics.open_streams.value == 0
            # Nobody holds one of the key's streams any more.
            assert await gateway.callers.limiter.state.lease(f"limit:{stored.id}:streams", "test", 1, 1.0)
        await gateway.aclose()
