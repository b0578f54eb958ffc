"""What the ledger of `tolmach serve` lacks after the gateway was killed in mid-load, and after outages in mid-load.

The last line is what the goals are held to: nothing but the last 200 ms before a kill may be lost, and nothing
by an outage; no request may fail by either.
"""

import asyncio
import resource
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

from report import heading, table

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.gateway.keyed import Load, config, metric, until_metric
from tests.gateway.kills import KillReport, kill_in_mid_load
from tests.gateway.program import Program, program
from tests.gateway.upstream import Upstream
from tests.postgres import PostgresServer, find_programs

from tolmach.ledger import open_database

_KILLS = 20
_ANSWERS = 300
_CALLERS = 8
_OUTAGE = 2.0
_FAILING = "tolmach_ledger_failing"
_FULL = 16_384
"""Bytes: with no file larger than this the disk is as good as full."""


async def _kills(folder: Path, new_ledger: Callable[[], str]) -> list[KillReport]:
    ledger = new_ledger()
    reports = []
    for number in range(_KILLS):
        place = folder / f"kill{number}"
        place.mkdir(exist_ok=True)
        # Another number each time, so that the kills fall on different moments between two writes.
        reports.append(await kill_in_mid_load(place, ledger, _ANSWERS + 7 * number, f"k{number}-"))
    return reports


async def _outage(
    folder: Path,
    ledger: str,
    lose: Callable[[Program], Awaitable[None]],
    find: Callable[[Program], Awaitable[None]],
) -> tuple[str, ...]:
    async with Upstream(0.002) as upstream, program(folder, config(ledger, upstream.url)) as served:
        async with Load(served, _CALLERS) as load:
            await load.more(_ANSWERS)
            before, load.slowest = load.slowest, 0.0
            await lose(served)
            await until_metric(served, _FAILING, lambda value: value == 1)
            await asyncio.sleep(_OUTAGE)
            waited, lag = [await metric(served, f"tolmach_ledger_{name}") for name in ("queued_rows", "lag_seconds")]
            await find(served)
            await until_metric(served, _FAILING, lambda value: value == 0)
            during = load.slowest
            await load.more(_ANSWERS)
        served.process.terminate()
        await served.ended()
    database = open_database(ledger)
    there = [request for (request,) in database.query("SELECT request FROM tolmach_requests")]
    database.close()
    failed = sum(status != 200 for status in load.statuses)
    lost = len(set(load.answered) - set(there))
    doubled = len(there) - len(set(there))
    figures = (len(load.answered), failed, f"{waited:.0f}", f"{lag:.1f}", lost, doubled)
    return (*map(str, figures), f"{before * 1000:.0f}", f"{during * 1000:.0f}")


async def _outages(folder: Path, server: PostgresServer | None) -> dict[str, tuple[str, ...]]:
    async def limit(served: Program, size: int) -> None:
        most = resource.prlimit(served.process.pid, resource.RLIMIT_FSIZE)[1]
        resource.prlimit(served.process.pid, resource.RLIMIT_FSIZE, (size if size >= 0 else most, most))

    place = folder / "disk"
    place.mkdir()
    ledger = str(place / "ledger.sqlite")
    found = {"full disk": await _outage(place, ledger, lambda one: limit(one, _FULL), lambda one: limit(one, -1))}
    if server is not None:
        place = folder / "postgres"
        place.mkdir()

        async def stop(_: Program) -> None:
            await asyncio.to_thread(server.stop)

        async def start(_: Program) -> None:
            await asyncio.to_thread(server.start)

        found["PostgreSQL stopped"] = await _outage(place, server.new_database(), stop, start)
    return found


async def _measure(folder: Path, server: PostgresServer | None) -> int:
    killed = {"SQLite": await _kills(folder, lambda: str(folder / "ledger.sqlite"))}
    if server is not None:
        killed["PostgreSQL"] = await _kills(folder, server.new_database)
    print(f"{_KILLS} gateways killed (SIGKILL) while {_CALLERS} callers ask, one ledger for all")
    table(
        ("database", "answered", "lost", "oldest lost ms", "longest stall ms", "doubled"),
        [
            (
                name,
                sum(report.answered for report in reports),
                sum(report.lost for report in reports),
                f"{max(report.oldest_lost for report in reports) * 1000:.0f}",
                f"{max(report.stall for report in reports) * 1000:.0f}",
                max(report.doubled for report in reports),
            )
            for name, reports in killed.items()
        ],
    )
    print(f"\n{_CALLERS} callers through {_OUTAGE:g} seconds without a ledger")
    outages = await _outages(folder, server)
    head = ("what", "answered", "failed", "waited rows", "lag s", "lost", "doubled", "slowest before ms", "during ms")
    table(head, [(name, *row) for name, row in outages.items()])
    late = [one for reports in killed.values() for one in reports if one.oldest_lost > 0.2 + one.stall]
    broken = [one for reports in killed.values() for one in reports if one.doubled]
    bad = [name for name, row in outages.items() if (row[1], row[4], row[5]) != ("0", "0", "0")]
    print(f"\nlost from before the last 200 ms: {len(late)} kills; doubled: {len(broken)}; outages that lost: {bad}")
    return 1 if late or broken or bad else 0


def main() -> int:
    heading("granian", "uvloop", "psycopg")
    programs = find_programs()
    server = PostgresServer(programs) if programs else None
    if server is None:
        print("PostgreSQL is not installed: SQLite alone\n")
    else:
        server.start()
    try:
        with tempfile.TemporaryDirectory() as folder:
            return asyncio.run(_measure(Path(folder), server))
    finally:
        if server is not None:
            server.close()


if __name__ == "__main__":
    sys.exit(main())
