"""The database behind the ledger: what it must be able to do, and how its address is shown."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from msgspec import Struct

from tolmach.ledger.rows import Table

__all__ = ["Database", "without_password"]


class Database(Protocol):
    """One connection, for one thread at a time. SQL has `?` for values.

    Its methods raise `StorageError` when the database is lost, full or locked for too long.
    """

    where: str
    """What people may see of its address: no password."""
    file: Path | None
    """Where it is a file."""

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

    def verify(self) -> None:
        """Raises `StorageError` when what is written would be lost: the file was removed, or is another one now."""
        ...

    def close(self) -> None: ...


def without_password(url: str) -> str:
    """The address as it may be shown: without password, and without a query, which can hold one."""
    scheme, there, rest = url.partition("://")
    if not there or scheme == "sqlite":
        return url
    user, at, place = rest.partition("?")[0].rpartition("@")
    name = user.partition(":")[0]
    return f"{scheme}://{name}{at}{place}"
