"""The command as a program: in a pipe, and on a terminal of its own."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from rich.cells import cell_len

_MAIN = "import sys; from tolmach.cli import main; sys.exit(main())"
_ON_TERMINAL = f"import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); {_MAIN}"

PATIENCE = 20.0
"""Seconds after which something that must come is taken not to come."""


def program(*args: str) -> list[str]:
    """The command line that runs the command with these arguments."""
    return [sys.executable, "-c", _MAIN, *args]


@contextmanager
def started(command: list[str]) -> Iterator["subprocess.Popen[bytes]"]:
    """The command line, running in pipes. It is killed at the end, if it has not ended."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with process:
        try:
            yield process
        finally:
            process.kill()


PROMPT = "\x1b[?2004h"
"""What prompt_toolkit writes when it begins to read: from now on a paste is to be marked as one."""


class Terminal:
    """The command on a terminal. What it writes is gathered in `output`."""

    def __init__(self, *args: str, columns: int = 80, lines: int = 24, kind: str = "xterm-256color") -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        environment = {**os.environ, "TERM": kind, "LANG": "C.UTF-8", "PROMPT_TOOLKIT_NO_CPR": "1"}
        for name in ("COLUMNS", "LINES", "NO_COLOR"):
            environment.pop(name, None)
        self._process = subprocess.Popen(
            [sys.executable, "-c", _ON_TERMINAL, *args],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment,
            start_new_session=True,
        )
        self._slave = slave
        self.output = ""
        self._data = b""
        self._seen = 0

    def write(self, text: str) -> None:
        os.write(self._master, text.encode())

    def wait_for(self, text: str) -> str:
        """What was written up to and with this text, since the last time."""
        deadline = time.monotonic() + PATIENCE
        while (at := self.output.find(text, self._seen)) < 0:
            assert self._read(deadline), f"{text!r} did not come; the end of what came: {self.output[-2000:]!r}"
        came = self.output[self._seen : at + len(text)]
        self._seen = at + len(text)
        return came

    def end(self) -> int:
        """Wait for the program's end; gives its exit code."""
        deadline = time.monotonic() + PATIENCE
        while self._process.poll() is None:
            assert time.monotonic() < deadline, f"it does not end: {self.output[-2000:]!r}"
            self._read(time.monotonic() + 0.02)
        while self._read(time.monotonic()):
            pass
        return self._process.returncode

    def echoes(self) -> bool:
        """Whether the terminal shows what is typed."""
        return bool(termios.tcgetattr(self._slave)[3] & termios.ECHO)

    def _read(self, deadline: float) -> bool:
        ready, _, _ = select.select([self._master], [], [], max(0.0, deadline - time.monotonic()))
        if ready:
            self._data += os.read(self._master, 65536)
            self.output = self._data.decode(errors="replace")
        return bool(ready)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._slave)
        os.close(self._master)


_SEQUENCE = re.compile(r"\x1b\[(\??[\d;]*)([A-Za-z])|(\r)|(\n)|([^\x00-\x1f\x7f-\x9f]+)")


class Screen:
    """A terminal as far as rich uses one. `lines` are those scrolled away and those on the screen.

    Anything else than text, line ends, colours and the moves known here is an `AssertionError`.
    """

    def __init__(self, columns: int, lines: int) -> None:
        self._columns = columns
        self._lines = lines
        self._rows: list[str] = [""]
        self._row = 0
        self._column = 0

    @property
    def lines(self) -> list[str]:
        rows = [row.rstrip() for row in self._rows]
        while rows and not rows[-1]:
            rows.pop()
        return rows

    def feed(self, text: str) -> None:
        position = 0
        while position < len(text):
            part = _SEQUENCE.match(text, position)
            assert part is not None, f"what is {text[position : position + 20]!r}?"
            position = part.end()
            if part[2]:
                self._control(part[1], part[2])
            elif part[3]:
                self._column = 0
            elif part[4]:
                self._line_feed()
            else:
                self._text(part[5])

    def _control(self, values: str, kind: str) -> None:
        if kind == "m" or values in ("?25", "?1049"):
            return
        if kind == "K" and values == "2":
            self._rows[self._row] = ""
        elif kind == "A":
            # The cursor stops at the top of the screen: what has scrolled away is out of its reach.
            self._row = max(self._row - int(values), len(self._rows) - self._lines, 0)
        else:
            raise AssertionError(f"what is CSI {values}{kind}?")

    def _line_feed(self) -> None:
        self._row += 1
        self._column = 0
        if self._row == len(self._rows):
            self._rows.append("")

    def _text(self, text: str) -> None:
        for character in text:
            if self._column + cell_len(character) > self._columns:
                self._line_feed()
            row = self._rows[self._row]
            # Positions count characters; what is written over is always erased first.
            self._rows[self._row] = row + character
            self._column += cell_len(character)
