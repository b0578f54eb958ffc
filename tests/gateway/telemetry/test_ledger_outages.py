"""The ledger of `tolmach serve` when the process is killed, the disk is full or PostgreSQL goes away, in mid-load."""

import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gateway.keyed import Load, config, make_key, metric, until_metric
from tests.gateway.kills import kill_in_mid_load
from tests.gateway.program import Program, program
from tests.gateway.upstream import Upstream
from tests.postgres import PostgresServer, find_programs
from tolmach.ledger import open_database

LAG = "tolmach_ledger_lag_seconds"
QUEUED = "tolmach_ledger_queued_rows"
FAILING = "tolmach_ledger_failing"
DELAYED = 5.0
"""Seconds that no answer takes on a busy machine; a database that is waited for is away for longer."""


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    """A running PostgreSQL."""
    programs = find_programs()
    if programs is None:
        assert not os.environ.get("CI"), "PostgreSQL is missing, and here it must not be"
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    server = PostgresServer(programs)
    try:
        server.start()
        yield server
    finally:
        server.close()


def there(ledger: str) -> list[str]:
    """The ids of all requests in the ledger, each as often as it is there."""
    database = open_database(ledger)
    rows = database.query(
        "SELECT r.request FROM tolmach_requests r JOIN tolmach_attempts a ON a.uid = r.uid ORDER BY r.request"
    )
    database.close()
    return [request for (request,) in rows]


async def fails(served: Program, load: Load) -> None:
    """The ledger cannot be written, it shows, and answers go on."""
    await until_metric(served, FAILING, lambda value: value == 1)
    await load.more()
    await until_metric(served, LAG, lambda value: value > 0.2)
    assert await metric(served, QUEUED) >= 40


async def is_well(served: Program, load: Load) -> None:
    await until_metric(served, FAILING, lambda value: value == 0)
    await load.more()
    await until_metric(served, LAG, lambda value: value < 0.2)


@pytest.mark.parametrize("round", range(3))
async def test_a_killed_gateway_loses_nothing_older_than_200_ms(round: int, tmp_path: Path) -> None:
    report = await kill_in_mid_load(tmp_path, str(tmp_path / "ledger.sqlite"), 100 + 50 * round)
    assert report.answered >= 100
    assert report.doubled == 0
    # What the machine did not let the processes do is not the ledger's.
    assert report.oldest_lost <= 0.2 + report.stall


async def test_a_killed_gateway_with_postgresql(tmp_path: Path, postgres: PostgresServer) -> None:
    report = await kill_in_mid_load(tmp_path, postgres.new_database(), 100)
    assert report.doubled == 0
    assert report.oldest_lost <= 0.2 + report.stall


async def test_postgresql_stopped_and_started_in_mid_load(tmp_path: Path, postgres: PostgresServer) -> None:
    ledger = postgres.new_database()
    key, _ = make_key(ledger, requests_per_minute=1_000_000, budget_day=1000.0)
    async with Upstream(0.002) as upstream, program(tmp_path, config(ledger, upstream.url)) as served:
        async with Load(served, 5, key) as load:
            await load.more()
            for _ in range(2):
                postgres.stop()
                await fails(served, load)
                postgres.start()
                await is_well(served, load)
        served.process.terminate()
        assert await served.ended() == 0
    assert load.statuses == {200}
    assert load.slowest < DELAYED
    assert there(ledger) == sorted(load.answered)


async def test_a_full_disk_in_mid_load(tmp_path: Path) -> None:
    ledger = str(tmp_path / "ledger.sqlite")
    async with Upstream(0.002) as upstream, program(tmp_path, config(ledger, upstream.url)) as served:
        pid = served.process.pid
        async with Load(served, 5) as load:
            await load.more()
            _, most = resource.prlimit(pid, resource.RLIMIT_FSIZE)
            # No file of the process may grow beyond this: so it is where a disk is full, too.
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (16_384, most))
            await fails(served, load)
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (most, most))
            await is_well(served, load)
        served.process.terminate()
        assert await served.ended() == 0
    assert load.statuses == {200}
    assert load.slowest < DELAYED
    assert there(ledger) == sorted(load.answered)
