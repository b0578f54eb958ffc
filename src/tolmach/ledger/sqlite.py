"""The ledger in a file of SQLite's, which several processes may write.

With a write-ahead log, readers never wait for writers. `synchronous = NORMAL` writes each transaction to the
operating system, and to the disk when the log is folded in. So a killed process loses nothing that it had
committed; a machine that loses its power may lose the last transactions, and is never left with a broken file
(sqlite.org/pragma.html#pragma_synchronous). That buys commits without waiting for a disk.
"""

import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import Any

from msgspec import Struct

from tolmach.errors import StorageError
from tolmach.ledger.rows import Table

__all__ = ["SqliteDatabase"]

_Fields = Callable[[Struct], tuple[Any, ...]]
_BUSY_SECONDS = 5.0
"""How long a statement waits for other writers."""
_LOG_BYTES = 16 << 20
"""What the write-ahead log is cut down to once it was folded in."""

_PAGE_BYTES = 16 << 10
"""Of a new file. A batch touches each page once; with SQLite's usual 4 kB it writes four times as many."""

_AT_ONCE = (64, 16, 4, 1)
"""How many rows a statement may have: few sizes, so that each is prepared once."""


class SqliteDatabase:
    """One connection to the file. Folder and file are made for their owner alone. Raises `StorageError`."""

    def __init__(self, file: Path) -> None:
        self.where = os.fspath(file)
        self.file: Path | None = file
        self._opened: dict[str, tuple[int, int]] = {}
        self._inserts: dict[str, tuple[_Fields, dict[int, str]]] = {}
        with self._translated():
            _make(file)
            self._connection = sqlite3.connect(
                file, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
        try:
            with self._translated():
                self._set_up()
                self._opened = {name: _identity(name) for name in _files(self.where) if os.path.exists(name)}
        except StorageError:
            self._connection.close()
            raise

    def _set_up(self) -> None:
        self._connection.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
        deadline = time.monotonic() + _BUSY_SECONDS
        while True:
            try:
                self._connection.execute("PRAGMA journal_mode = WAL").fetchall()
                break
            except sqlite3.OperationalError as error:
                # Switching to the log needs the file alone, and SQLite does not always wait for that.
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
        self._connection.execute("PRAGMA synchronous = NORMAL")
        self._connection.execute(f"PRAGMA journal_size_limit = {_LOG_BYTES}").fetchall()
        # The first look makes the log and its index.
        self._connection.execute("SELECT 1 FROM sqlite_master").fetchall()

    def verify(self) -> None:
        """The file, its log and the log's index are those that were opened, and the file was not emptied."""
        try:
            lost = any(_identity(name) != known for name, known in self._opened.items())
            lost = lost or os.path.getsize(self.where) == 0
        except FileNotFoundError:
            lost = True
        if lost:
            # SQLite itself would go on writing into what no name leads to any more.
            raise StorageError(f"ledger: {self.where}: the file was removed, emptied or replaced while it was open")

    def execute(self, sql: str, values: Sequence[Any] = ()) -> int:
        if not self._connection.in_transaction:
            self._verified()
        with self._translated():
            return self._connection.execute(sql, values).rowcount

    def query(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        if not self._connection.in_transaction:
            self._verified()
        with self._translated():
            return self._connection.execute(sql, values).fetchall()

    def insert(self, table: Table, rows: Sequence[Struct]) -> None:
        fields, statements = self._inserts.get(table.name) or self._prepare(table)
        place = 0
        with self._translated():
            while place < len(rows):
                size = next(size for size in _AT_ONCE if size <= len(rows) - place)
                values = list(chain.from_iterable(map(fields, rows[place : place + size])))
                try:
                    self._connection.execute(statements[size], values)
                except (sqlite3.InterfaceError, sqlite3.ProgrammingError, OverflowError) as error:
                    raise sqlite3.DataError(str(error)) from error  # a value of a kind or size that SQLite has not
                place += size

    def _prepare(self, table: Table) -> tuple[_Fields, dict[int, str]]:
        marks = ", ".join("CAST(round(? * 1000000) AS INTEGER)" if c.kind == "micros" else "?" for c in table.columns)
        start = f"INSERT INTO {table.name} ({table.names}) VALUES "
        statements = {size: f"{start}{', '.join([f'({marks})'] * size)} ON CONFLICT DO NOTHING" for size in _AT_ONCE}
        fields: _Fields = attrgetter(*(column.name for column in table.columns))
        self._inserts[table.name] = (fields, statements)
        return fields, statements

    @contextmanager
    def transaction(self, *, alone: bool = False) -> Iterator[None]:
        """Takes the file's write lock at once, so `alone` changes nothing."""
        self.execute("BEGIN IMMEDIATE")
        try:
            yield
            self.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):  # SQLite rolls back by itself after some errors
                self._connection.rollback()
            raise

        # What was committed into a file that was removed meanwhile is written again, into a new one.
        self._verified()

    def _verified(self) -> None:
        with self._translated():
            self.verify()

    def has_table(self, name: str) -> bool:
        return bool(self.query("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", (name,)))

    def close(self) -> None:
        with suppress(sqlite3.Error):  # the last one folds the log in, which a full disk prevents; it stays for later
            self._connection.close()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.IntegrityError, sqlite3.DataError) as error:
            raise StorageError(f"ledger: {self.where}: {error}", refused=True) from error
        except (sqlite3.Error, OSError) as error:
            said = error.strerror if isinstance(error, OSError) else str(error)
            raise StorageError(f"ledger: {self.where}: {said or error}") from error


def _files(name: str) -> tuple[str, str, str]:
    """The database, its write-ahead log, and the log's index."""
    return name, f"{name}-wal", f"{name}-shm"


def _identity(name: str) -> tuple[int, int]:
    status = os.stat(name)
    return status.st_dev, status.st_ino


def _make(file: Path) -> None:
    """Make the file, empty, where there is none. SQLite gives the log beside it the same mode."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with suppress(FileExistsError):
        os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
