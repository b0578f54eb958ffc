"""The ledger in a file of SQLite's, which several processes may write.

With a write-ahead log, readers never wait for writers. `synchronous = NORMAL` writes each transaction to the
operating system, and to the disk when the log is folded in. So a killed process loses nothing that it had
committed; a machine that loses its power may lose the last transactions, and is never left with a broken file
(sqlite.org/pragma.html#pragma_synchronous). That buys commits without waiting for a disk.
"""

import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from anychat.errors import StorageError
from anychat.ledger.rows import Table

__all__ = ["SqliteDatabase"]

_BUSY_SECONDS = 5.0
"""How long a statement waits for other writers."""
_LOG_BYTES = 16 << 20
"""What the write-ahead log is cut down to once it was folded in."""

_VALUES = {
    "text": "json_extract(value, '$.{0}')",
    "integer": "json_extract(value, '$.{0}')",
    "real": "json_extract(value, '$.{0}')",
    "yes": "json_extract(value, '$.{0}')",
    "micros": "CAST(round(json_extract(value, '$.{0}') * 1000000) AS INTEGER)",
}


class SqliteDatabase:
    """One connection to the file. Folder and file are made for their owner alone. Raises `StorageError`."""

    def __init__(self, file: Path) -> None:
        self.where = os.fspath(file)
        self._inserts: dict[str, str] = {}
        with self._translated():
            _make(file)
            self._connection = sqlite3.connect(
                file, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
        try:
            with self._translated():
                self._set_up()
        except StorageError:
            self._connection.close()
            raise

    def _set_up(self) -> None:
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

    def execute(self, sql: str, values: Sequence[Any] = ()) -> int:
        with self._translated():
            return self._connection.execute(sql, values).rowcount

    def query(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self._translated():
            return self._connection.execute(sql, values).fetchall()

    def insert(self, table: Table, rows: bytes) -> None:
        """One statement for all rows: it runs without Python's lock, which a loop over them would fight for."""
        sql = self._inserts.get(table.name)
        if sql is None:
            values = ", ".join(_VALUES[column.kind].format(column.name) for column in table.columns)
            # `WHERE true` parts ON CONFLICT from a join's ON (sqlite.org/lang_upsert.html#parsing_ambiguity).
            sql = self._inserts[table.name] = (
                f"INSERT INTO {table.name} ({table.names}) SELECT {values} FROM json_each(?) "
                "WHERE true ON CONFLICT DO NOTHING"
            )
        self.execute(sql, (rows.decode(),))

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


def _make(file: Path) -> None:
    """Make the file, empty, where there is none. SQLite gives the log beside it the same mode."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with suppress(FileExistsError):
        os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
