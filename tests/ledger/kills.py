"""Killing processes that write to the ledger, and counting what is lost. For tests and the benchmark."""

import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import IO

from msgspec import Struct

from tolmach.ledger import open_database

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
    with ExitStack() as stack:
        # Files: a pipe that nobody empties would stop a writer.
        logs = [stack.enter_context(tempfile.TemporaryFile()) for _ in numbers]
        writers = [
            subprocess.Popen([sys.executable, "-m", "tests.ledger.killed", url, str(number)], stdout=log, cwd=ROOT)
            for number, log in zip(numbers, logs, strict=True)
        ]
        while not all(os.fstat(log.fileno()).st_size for log in logs):
            assert not any(writer.poll() for writer in writers), "a writer failed"
            time.sleep(0.01)
        time.sleep(seconds)
        killed = []
        for writer in writers:
            writer.kill()
            killed.append(time.monotonic_ns())
        for writer in writers:
            writer.wait()
        return [_report(url, moment, _lines(log)) for moment, log in zip(killed, logs, strict=True)]


def _lines(log: IO[bytes]) -> list[tuple[str, int, int, int]]:
    log.seek(0)
    # The last may be half a line.
    rows = [line.split() for line in log.read().decode().split("\n")[:-1]]
    return [(uid, int(added), int(written), int(stall)) for uid, added, written, stall in rows]


def _report(url: str, killed: int, lines: list[tuple[str, int, int, int]]) -> KillReport:
    database = open_database(url)
    prefix = lines[0][0][:8]
    requests = database.query("SELECT uid FROM tolmach_requests WHERE substr(uid, 1, 8) = ? ORDER BY uid", (prefix,))
    attempts = database.query("SELECT uid FROM tolmach_attempts WHERE substr(uid, 1, 8) = ? ORDER BY uid", (prefix,))
    database.close()
    there = [uid for (uid,) in requests]
    # The process numbers from 1, and what it wrote is a beginning of what it added.
    whole = [f"{prefix}{count:024x}" for count in range(1, len(there) + 1)]
    gaps = sum(a != b for a, b in zip(there, whole, strict=True))
    gaps += [uid for (uid,) in attempts] != [uid for uid in there for _ in range(2)]
    known = set(there)
    lost = [added for uid, added, _, _ in lines if uid not in known]
    return KillReport(
        added=len(lines),
        lost=len(lost),
        oldest_lost=(killed - lost[0]) / 1e9 if lost else 0.0,
        stall=lines[-1][3] / 1000,
        gaps=gaps,
        claimed=max(0, lines[-1][2] - 3 * len(there)),
    )
