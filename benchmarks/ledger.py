"""What the ledger loses when processes are killed, disks fill up and PostgreSQL goes away, and what it costs.

The last lines are what the goals are held to: nothing but the last 200 ms of a killed process may be lost.
"""

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from report import heading, table

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.ledger.kills import KillReport, kill_writers
from tests.postgres import PostgresServer, find_programs

from tolmach.ledger import AttemptRow, Database, Ledger, Prices, Rate, RequestRow, new_uid, open_database

_ADDED = 50_000
_KILLS = 20
_AT_ONCE = 4
_PATIENCE = 120.0


def _request(number: int) -> tuple[RequestRow, list[AttemptRow]]:
    uid = new_uid()
    now = time.time()
    request = RequestRow(
        uid=uid,
        request=f"req_{uid}",
        at=now,
        surface="openai",
        model="gpt-4o",
        target="local/gpt-4o",
        status=200,
        prompt_tokens=number,
        completion_tokens=7,
        first_ms=100.0,
        total_ms=500.0,
        worker=os.getpid(),
    )
    attempt = AttemptRow(
        uid=uid, number=1, at=now, target="local/gpt-4o", status=200, prompt_tokens=number, completion_tokens=7
    )
    return request, [attempt]


def _ledger(url: str, opening: Callable[[str], Database] = open_database) -> Ledger:
    return Ledger(url, prices=Prices({"local/*": Rate(1, 2)}), open=opening)


def _cost(url: str) -> tuple[str, str, str]:
    """Microseconds to make the rows, to add them, and of CPU time for all of it, the writer's thread too."""
    ledger = _ledger(url)
    process = time.process_time()
    begun = time.thread_time()
    rows = [_request(number) for number in range(_ADDED)]
    made = time.thread_time()
    for request, attempts in rows:
        ledger.add(request, attempts)
    added = time.thread_time()
    ledger.close(_PATIENCE)
    whole = time.process_time() - process
    return tuple(f"{seconds / _ADDED * 1e6:.2f}" for seconds in (made - begun, added - made, whole))  # type: ignore[return-value]


def _kills(url: str) -> list[KillReport]:
    reports: list[KillReport] = []
    for first in range(0, _KILLS, _AT_ONCE):
        reports += kill_writers(url, range(first, first + _AT_ONCE), 1.0)
    return reports


class _Load:
    """Adds a request every half millisecond, and notes the longest that one of them took."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.added = 0
        self.slowest = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stop.wait(0.0005):
            rows = _request(self.added)
            begun = time.thread_time()
            self.ledger.add(*rows)
            self.slowest = max(self.slowest, time.thread_time() - begun)
            self.added += 1

    def __enter__(self) -> "_Load":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def _until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + _PATIENCE
    while not true():
        if time.monotonic() > end:
            raise SystemExit("it did not come to that")
        time.sleep(0.01)


def _outage(
    url: str, opening: Callable[[str], Database], lose: Callable[[], None], find: Callable[[], None]
) -> list[str]:
    """A load through two seconds without a database: what was added, waited, was dropped and is lost."""
    ledger = _ledger(url, opening)
    with _Load(ledger) as load:
        _until(lambda: ledger.written > 0)
        lose()
        _until(lambda: ledger.problem != "")
        time.sleep(2)
        waited, lag = ledger.queued, ledger.lag
        find()
        back = time.monotonic()
        _until(lambda: ledger.problem == "" and ledger.lag < 0.5)
        back = time.monotonic() - back
    ledger.close(_PATIENCE)
    database = open_database(url)
    there = database.query("SELECT count(*), count(DISTINCT uid) FROM tolmach_requests")[0]
    attempts = database.query("SELECT count(*) FROM tolmach_attempts")[0][0]
    database.close()
    lost = load.added - there[1]
    doubled = there[0] - there[1] + max(0, attempts - load.added)
    figures: list[object] = [load.added, waited, f"{lag:.1f}", f"{back:.1f}", ledger.dropped, lost, doubled]
    return [*map(str, figures), f"{load.slowest * 1e6:.0f}"]


@contextmanager
def _small_disk() -> Iterator[Path | None]:
    """A disk of 4 MB; None where none may be mounted."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder]
        try:
            mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
        except OSError:
            mounted = False
        if not mounted:
            yield None
            return
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", "-l", folder], check=True)


def _full_disk(folder: Path) -> list[str]:
    ballast = folder / "ballast"

    def fill() -> None:
        with ballast.open("wb", buffering=0) as file:
            try:
                while file.write(b"x" * 4096):
                    pass
            except OSError:
                pass  # it is full, as it should be

    return _outage(str(folder / "ledger.sqlite"), open_database, fill, ballast.unlink)


def _full_file(folder: Path) -> list[str]:
    """Where no disk can be mounted: SQLite's own limit, which gives the same error."""
    most = [1_000_000]
    database: list[Database] = []

    def opening(url: str) -> Database:
        database[:] = [open_database(url)]
        database[0].query(f"PRAGMA max_page_count = {most[0]}")
        return database[0]

    def fill() -> None:
        most[0] = 1
        database[0].query("PRAGMA max_page_count = 1")

    def find() -> None:
        most[0] = 1_000_000

    return _outage(str(folder / "ledger.sqlite"), opening, fill, find)


def main() -> int:
    heading("psycopg", "genai-prices")
    programs = find_programs()
    server = PostgresServer(programs) if programs else None
    if server is None:
        print("PostgreSQL is not installed: SQLite alone\n")
    else:
        server.start()
    try:
        with tempfile.TemporaryDirectory() as folder, _small_disk() as disk:
            return _measure(Path(folder), disk, server)
    finally:
        if server is not None:
            server.close()


def _measure(folder: Path, disk: Path | None, server: PostgresServer | None) -> int:
    def urls(name: str) -> dict[str, str]:
        found = {"SQLite": str(folder / f"{name}.sqlite")}
        return found if server is None else found | {"PostgreSQL": server.new_database()}

    costs = [(name, *_cost(url)) for name, url in urls("cost").items()]
    print(f"{_ADDED} requests of one attempt, microseconds for each")
    table(("database", "make rows", "add", "CPU in all"), costs)
    print(f"\n{_KILLS} processes killed (SIGKILL) while {_AT_ONCE} at a time add some 1,500 requests a second each")
    killed = {name: _kills(url) for name, url in urls("kill").items()}
    table(
        ("database", "added", "lost", "oldest lost ms", "longest stall ms", "gaps", "written, not there"),
        [
            (
                name,
                sum(report.added for report in reports),
                sum(report.lost for report in reports),
                f"{max(report.oldest_lost for report in reports) * 1000:.0f}",
                f"{max(report.stall for report in reports) * 1000:.0f}",
                sum(report.gaps for report in reports),
                sum(report.claimed for report in reports),
            )
            for name, reports in killed.items()
        ],
    )
    print("\nA load through two seconds without a database")
    outages = {"full disk" if disk else "full file": _full_disk(disk) if disk else _full_file(folder)}
    if server is not None:
        outages["PostgreSQL stopped"] = _outage(server.new_database(), open_database, server.stop, server.start)
    head = ("what", "added", "waited rows", "lag s", "caught up s", "dropped", "lost", "doubled", "slowest add us")
    table(head, [(name, *row) for name, row in outages.items()])
    return _verdict(killed, outages)


def _verdict(killed: dict[str, list[KillReport]], outages: dict[str, list[str]]) -> int:
    # What the machine did not let a process do is not the ledger's.
    late = [one for reports in killed.values() for one in reports if one.oldest_lost > 0.2 + one.stall]
    broken = [one for reports in killed.values() for one in reports if one.gaps or one.claimed]
    lost = [name for name, row in outages.items() if row[4:7] != ["0", "0", "0"]]
    print(f"\nlost from before the last 200 ms: {len(late)} processes; gaps: {len(broken)}; outages that lost: {lost}")
    return 1 if late or broken or lost else 0


if __name__ == "__main__":
    sys.exit(main())
