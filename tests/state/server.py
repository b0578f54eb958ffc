"""A `redis-server` of the test's own, on a socket in its folder."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

__all__ = ["PROGRAM", "Server", "eventually", "running_server"]

PROGRAM = shutil.which("redis-server") or shutil.which("valkey-server")


class Server:
    """The server as a process that can be stopped, killed and started again; it keeps nothing on disk."""

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "s"
        self.url = f"unix://{self.socket}"
        self._log = folder / "log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> None:
        assert PROGRAM is not None
        self.socket.unlink(missing_ok=True)
        settings = ["--port", "0", "--unixsocket", str(self.socket), "--save", "", "--appendonly", "no", *options]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen([PROGRAM, *settings], stdout=log, stderr=subprocess.STDOUT)
        self._listening()

    def _listening(self) -> None:
        """Wait until it takes connections; it tells nobody."""
        ends = time.monotonic() + 20
        while time.monotonic() < ends:
            with socket.socket(socket.AF_UNIX) as probe:
                if probe.connect_ex(str(self.socket)) == 0:
                    return
            assert self._process is not None
            assert self._process.poll() is None, self._log.read_text("utf-8")
            time.sleep(0.01)
        raise AssertionError("the server does not listen")

    def kill(self) -> None:
        self.tell(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()

    def tell(self, number: signal.Signals) -> None:
        """Send it a signal: SIGSTOP makes it a server that answers nothing."""
        assert self._process is not None
        self._process.send_signal(number)


@contextmanager
def running_server() -> Iterator[Server]:
    if PROGRAM is None:
        assert not os.environ.get("CI"), "redis-server is missing, and here it must not be"
        pytest.skip("neither redis-server nor valkey-server is installed (Debian: apt-get install redis-server)")
    # A path of its own: that of a test is often longer than a socket's may be.
    with tempfile.TemporaryDirectory(prefix="tolmach-") as folder:
        server = Server(Path(folder))
        server.start()
        try:
            yield server
        finally:
            server.kill()


async def eventually(holds: Callable[[], bool], what: str) -> None:
    """Wait until something holds that happens in the background."""
    async with asyncio.timeout(30):
        while not holds():  # noqa: ASYNC110 - what happens has no event to wait for
            await asyncio.sleep(0.01)
    assert holds(), what
