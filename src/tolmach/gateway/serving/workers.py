"""Several processes that serve one port: started, watched, stopped together.

Each is a program of its own, with a channel to this one. A worker says on it that it serves; and
when its other end closes, because this process is gone, it ends at once, however this one died.
"""

import asyncio
import logging
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tolmach.errors import LocalError
from tolmach.gateway.telemetry.metrics import SHARED_COUNTS

__all__ = ["CHANNEL", "READY", "WorkerFailed", "Workers"]

CHANNEL = "TOLMACH_WORKER"
"""The environment variable that tells a worker the number of its end of the channel."""
READY = b"1"

_log = logging.getLogger("tolmach.gateway")

_SETTLED_SECONDS = 10.0
"""A worker that lived so long did not fail because of how it was started."""
_FIRST_DELAY = 0.1
_LONGEST_DELAY = 30.0
_KILL_AFTER = 5.0
"""Seconds beyond their own limit after which workers that do not stop are killed."""


_Started = tuple["subprocess.Popen[bytes]", asyncio.StreamReader, asyncio.StreamWriter]


class WorkerFailed(LocalError):
    """A worker ended before it served for the first time; it has said why on standard error."""


class Workers:
    """The processes. `shutdown` is how many seconds each may take to end what is under way."""

    def __init__(self, command: Sequence[str], count: int, *, shutdown: float) -> None:
        self._command = command
        self._count = count
        self._shutdown = shutdown
        self._stopping = asyncio.Event()
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._ready = 0

    async def run(self, announce: Callable[[], None]) -> None:
        """Until they are stopped; `announce` is called when all serve. Raises `WorkerFailed`."""
        with tempfile.TemporaryDirectory(prefix="tolmach-") as folder:
            keeping = [asyncio.ensure_future(self._keep(Path(folder), announce)) for _ in range(self._count)]
            try:
                await asyncio.gather(*keeping)
            finally:
                await self._end(keeping)

    def stop(self) -> None:
        """Tell them to stop; a second time: to stop at once."""
        self._stopping.set()
        self.tell(signal.SIGTERM)

    def tell(self, number: signal.Signals) -> None:
        """Send all of them a signal."""
        for process in self._processes.values():
            process.send_signal(number)

    async def _end(self, keeping: "Sequence[asyncio.Future[None]]") -> None:
        if any(not task.done() for task in keeping):
            self.stop()
            await asyncio.wait(keeping, timeout=self._shutdown + _KILL_AFTER)
        self.tell(signal.SIGKILL)
        await asyncio.gather(*keeping, return_exceptions=True)

    async def _keep(self, folder: Path, announce: Callable[[], None]) -> None:
        """One worker, and another when it dies: at once, or with growing delays when it does not last."""
        delay = 0.0
        served = False
        while not self._stopping.is_set():
            began = time.monotonic()
            process, channel, held = await self._start(folder)
            ready = await channel.read(1) == READY
            if ready and not served:
                served = True
                self._ready += 1
                if self._ready == self._count:
                    announce()
            await channel.read()  # until it is gone
            held.close()
            code = await asyncio.to_thread(process.wait)
            del self._processes[process.pid]
            _forget(folder, process.pid)
            if self._stopping.is_set():
                return
            if not served:
                raise WorkerFailed(f"a worker ended with {_in_words(code)} before it served")
            lasted = ready and time.monotonic() - began > _SETTLED_SECONDS
            delay = 0.0 if lasted else min(delay * 2 or _FIRST_DELAY, _LONGEST_DELAY)
            _log.error("worker %d ended with %s; another starts in %g s", process.pid, _in_words(code), delay)
            try:
                await asyncio.wait_for(self._stopping.wait(), delay)
            except TimeoutError:
                continue

    async def _start(self, folder: Path) -> _Started:
        ours, theirs = socket.socketpair()
        with theirs:
            environment: Mapping[str, str] = {
                **os.environ,
                CHANNEL: str(theirs.fileno()),
                SHARED_COUNTS: os.fspath(folder),
            }
            # A session of its own: Ctrl-C in the terminal is for this process, which tells the workers.
            # Not by asyncio: its processes are polled by a thread each, and starting one takes a millisecond.
            process = subprocess.Popen(  # noqa: ASYNC220
                self._command, env=environment, pass_fds=[theirs.fileno()], start_new_session=True
            )
        self._processes[process.pid] = process
        reader, writer = await asyncio.open_connection(sock=ours)
        return process, reader, writer


def _forget(folder: Path, process: int) -> None:
    """A dead worker's gauges count no more; its counters go on being part of the sum."""
    for file in folder.glob(f"gauge_live*_{process}.db"):
        file.unlink(missing_ok=True)


def _in_words(code: int) -> str:
    return f"code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"
