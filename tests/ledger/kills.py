"""Killing processes that write to the ledger, and counting what is lost. For tests and the benchmark."""

import subprocess
import sys
import time
from pathlib import Path

from msgspec import Struct

from anychat.ledger import open_database

__all__ = ["KillReport", "kill_writers"]

ROOT = Path(__file__).parent.parent.parent


class KillReport(Struct, kw_only=True):
    """What became of the requests of one killed process."""

    added: int
    """Requests that the process had added."""
    lost: int
    """Those of them that are not in the database."""
    oldest_lost: float
    """Seconds before the kill at which the oldest lost one was added; 0 when none was lost."""
    stall: float
    """The longest time, in seconds, for which the machine did not let the process run."""
    gaps: int
    """Requests that are lost although a later one is there, or that lack an attempt, or are there twice."""
    claimed: int
    """Rows that the process had counted as written, and that are not there."""


def kill_writers(url: str, numbers: range, seconds: float) -> list[KillReport]:
    """Start writers of one database, let each add for some seconds, and kill them with SIGKILL."""
    writers = []
    for number in numbers:
        command = [sys.executable, "-m", "tests.ledger.killed", url, str(number)]
        writers.append(subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT))
    for writer in writers:
        assert writer.stdout is not None
        writer.stdout.readline()  # it has begun
    time.sleep(seconds)
    reports = []
    for writer in writers:
        writer.kill()
        killed = time.monotonic_ns()
        output, _ = writer.communicate()
        # The first line was read above; the last may be half a line.
        lines = [line.split() for line in output.decode().split("\n")[:-1]]
        reports.append(
            _report(url, killed, [(uid, int(added), int(rows), int(stall)) for uid, added, rows, stall in lines])
        )
    return reports


def _report(url: str, killed: int, lines: list[tuple[str, int, int, int]]) -> KillReport:
    database = open_database(url)
    prefix = lines[0][0][:8]
    requests = database.query("SELECT uid FROM anychat_requests WHERE substr(uid, 1, 8) = ? ORDER BY uid", (prefix,))
    attempts = database.query("SELECT uid FROM anychat_attempts WHERE substr(uid, 1, 8) = ? ORDER BY uid", (prefix,))
    database.close()
    there = [uid for (uid,) in requests]
    # The process numbers from 1, and what it wrote is a beginning of what it added.
    whole = [f"{prefix}{count:024x}" for count in range(1, len(there) + 1)]
    gaps = sum(a != b for a, b in zip(there, whole, strict=True))
    gaps += [uid for (uid,) in attempts] != [uid for uid in there for _ in range(2)]
    known = set(there)
    lost = [added for uid, added, _, _ in lines if uid not in known]
    return KillReport(
        added=len(lines) + 1,
        lost=len(lost),
        oldest_lost=(killed - lost[0]) / 1e9 if lost else 0.0,
        stall=lines[-1][3] / 1000,
        gaps=gaps,
        claimed=max(0, lines[-1][2] - 3 * len(there)),
    )
