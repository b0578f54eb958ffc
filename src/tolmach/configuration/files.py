"""Files that a configuration is in or names: where they are, and what is read of them."""

import os
import stat
from pathlib import Path

__all__ = ["NoFile", "is_file", "place", "read_text"]

_LONGEST = 4 << 20
"""Bytes of a configuration; a log named by mistake is not read to its end."""


class NoFile(Exception):
    """What cannot be read as text. `line` is where it stops being text, where that is known."""

    def __init__(self, text: str, line: int | None = None) -> None:
        super().__init__(text)
        self.line = line


def place(folder: str | os.PathLike[str], name: str) -> Path:
    """A file by the name that a configuration in this folder has for it: `~` is the home of a user who is known."""
    return Path(folder, os.path.expanduser(name))  # that of pathlib raises for a user who is not


def is_file(file: Path) -> bool:
    """Whether there is a regular file of that name; false for a name that no file can have."""
    return os.path.isfile(file)  # that of pathlib raises for some such names


def read_text(file: Path) -> str:
    """The text of a file. Raises `NoFile`; never waits for somebody to write."""
    try:
        data = _read(file)
    except OSError as error:
        raise NoFile(error.strerror or str(error)) from error
    except ValueError as error:  # a null character in the name
        raise NoFile("there is no such file") from error
    if len(data) > _LONGEST:
        raise NoFile(f"no configuration: it is longer than {_LONGEST >> 20} MiB")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise NoFile("not UTF-8; save the file in that encoding", line) from error


def _read(file: Path) -> bytes:
    # A pipe is opened at once this way, though nobody writes into it, and told apart below.
    with open(os.open(file, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb") as opened:
        if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
            raise NoFile("no configuration: it is a pipe or a device, and no file")
        return opened.read(_LONGEST + 1)
