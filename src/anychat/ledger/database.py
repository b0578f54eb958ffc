"""The database behind the ledger: what it must be able to do, and the one that a URL names."""

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from msgspec import Struct

from anychat.errors import ConfigError
from anychat.ledger.migrations import migrate
from anychat.ledger.rows import Table

__all__ = ["Database", "default_file", "open_database", "without_password"]


class Database(Protocol):
    """One connection, for one thread at a time. SQL has `?` for values.

    Its methods raise `StorageError` when the database is lost, full or locked for too long.
    """

    where: str
    """What people may see of its address: no password."""

    def execute(self, sql: str, values: Sequence[Any] = ()) -> int:
        """Run a statement; gives how many rows it touched."""
        ...

    def query(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]: ...

    def insert(self, table: Table, rows: Sequence[Struct]) -> None:
        """Put rows into a table in few statements. Those that are there already stay as they are.

        A driver lets go of Python's lock in each statement, and where the process is busy it takes
        milliseconds to have it back: so no statement for each row. Raises `UnicodeError` for halves of
        surrogate pairs.
        """
        ...

    def transaction(self, *, alone: bool = False) -> AbstractContextManager[None]:
        """All that is done inside, or nothing of it. `alone`: no other process is in such a one meanwhile."""
        ...

    def has_table(self, name: str) -> bool: ...

    def close(self) -> None: ...


def open_database(url: str | os.PathLike[str] = "") -> Database:
    """The database of `sqlite:///PATH`, a path, or `postgresql://...`; of the default file when it is empty.

    It is made where there is none, and brought up to the newest version. Raises `ConfigError` for an
    address that is none, or a database of a newer anychat, `StorageError` when it cannot be opened, and
    `MissingDependency` when PostgreSQL's driver is not installed.
    """
    text = os.fspath(url)
    scheme, there, rest = text.partition("://")
    database: Database
    if there and scheme in ("postgres", "postgresql"):
        from anychat.ledger.postgres import PostgresDatabase

        database = PostgresDatabase(text)
    elif there and scheme != "sqlite":
        raise ConfigError(f"ledger: no database at {scheme}://; write a file, sqlite:///FILE or postgresql://...")
    else:
        from anychat.ledger.sqlite import SqliteDatabase

        database = SqliteDatabase(_file(rest.removeprefix("/") if there else text))
    try:
        migrate(database)
    except BaseException:
        database.close()
        raise
    return database


def _file(name: str) -> Path:
    return Path(name).expanduser() if name else default_file()


def default_file() -> Path:
    """The ledger where none is named: `anychat/ledger.sqlite` in `$XDG_DATA_HOME`, or in `~/.local/share`."""
    base = os.environ.get("XDG_DATA_HOME")
    try:
        return (Path(base) if base else Path.home() / ".local" / "share") / "anychat" / "ledger.sqlite"
    except RuntimeError as error:
        raise ConfigError("ledger: this user has no home folder; name a file or a database by [ledger] url") from error


def without_password(url: str) -> str:
    """The address as it may be shown: without password, and without a query, which can hold one."""
    scheme, there, rest = url.partition("://")
    if not there or scheme == "sqlite":
        return url
    user, at, place = rest.partition("?")[0].rpartition("@")
    name = user.partition(":")[0]
    return f"{scheme}://{name}{at}{place}"
