"""Killing `tolmach serve` in mid-load, and counting what its ledger lacks. For tests and the benchmark."""

import asyncio
import signal
from pathlib import Path

from msgspec import Struct

from tests.gateway.keyed import Load, config
from tests.gateway.program import program
from tests.gateway.upstream import Upstream
from tolmach.ledger import open_database

__all__ = ["KillReport", "kill_in_mid_load"]

_CALLERS = 8


class KillReport(Struct, kw_only=True):
    """What became of the requests of one killed gateway."""

    answered: int
    """Requests whose callers had the whole answer."""
    lost: int
    """Those of them that are not in the ledger."""
    oldest_lost: float
    """Seconds before the kill at which the oldest lost one was answered; 0 when none was lost."""
    stall: float
    """The longest time, in seconds, for which the machine did not let the callers run."""
    doubled: int
    """Requests that are there twice, or without exactly one attempt."""


async def kill_in_mid_load(folder: Path, ledger: str, answers: int, prefix: str = "") -> KillReport:
    """Serve with this ledger, kill the process with SIGKILL after so many answers, and look.

    `prefix` begins the ids of the requests, where a ledger has those of several kills.
    """
    async with Upstream(0.002) as upstream, program(folder, config(ledger, upstream.url)) as served:
        async with Load(served, _CALLERS, prefix=prefix) as load:
            await load.more(answers)
            served.send(signal.SIGKILL)
            killed = asyncio.get_running_loop().time()
            await served.process.wait()
    assert load.statuses == {200}
    return _report(ledger, load, killed, prefix)


def _report(ledger: str, load: Load, killed: float, prefix: str) -> KillReport:
    database = open_database(ledger)
    rows = database.query(
        "SELECT r.request, count(*) FROM tolmach_requests r LEFT JOIN tolmach_attempts a ON a.uid = r.uid "
        "WHERE r.request LIKE ? GROUP BY r.uid, r.request",
        (f"{prefix}%",),
    )
    database.close()
    there = {request for request, _ in rows}
    lost = [when for request, when in load.answered.items() if request not in there]
    return KillReport(
        answered=len(load.answered),
        lost=len(lost),
        oldest_lost=max(0.0, killed - min(lost)) if lost else 0.0,
        stall=load.stall,
        doubled=len(rows) - len(there) + sum(attempts != 1 for _, attempts in rows),
    )
