"""The ledger in PostgreSQL, by psycopg 3, for several machines (extra `postgres`)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from tolmach.errors import ConfigError, StorageError
from tolmach.extras import missing
from tolmach.ledger.database import without_password
from tolmach.ledger.rows import Table

if TYPE_CHECKING:
    from psycopg import Connection

__all__ = ["PostgresDatabase"]

_CONNECTING = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 2,
    "tcp_user_timeout": 10_000,
    "application_name": "tolmach",
}
"""Seconds, but for the milliseconds of tcp_user_timeout: a server that vanished is noticed, not waited for."""

_LOCK = 0x746F6C6D616368
"""The advisory lock of those who migrate: "tolmach" in ASCII."""

_KINDS = {
    "text": "text",
    "integer": "bigint",
    "real": "double precision",
    "yes": "boolean",
    "micros": "double precision",
}
_VALUES = {"yes": "{0}::int::smallint", "micros": "round({0} * 1000000)::bigint"}


class PostgresDatabase:
    """One connection. Raises `ConfigError` for a URL that is none, `MissingDependency`, and `StorageError`."""

    def __init__(self, url: str) -> None:
        try:
            import psycopg
        except ImportError as error:
            raise missing("the ledger in PostgreSQL needs psycopg", "postgres") from error
        self.file: Path | None = None
        self.where = without_password(url)
        self._psycopg = psycopg
        self._inserts: dict[str, str] = {}
        try:
            # What the URL says beats what is set here.
            settings: dict[str, Any] = {**_CONNECTING, **psycopg.conninfo.conninfo_to_dict(url)}
            address = psycopg.conninfo.make_conninfo("", **settings)
        except psycopg.ProgrammingError:
            # The cause would show the URL, password and all.
            raise ConfigError(f"ledger: {self.where} is no address of PostgreSQL's") from None
        with self._translated():
            # Prepared statements do not outlive a transaction behind a pooler, and gain nothing for a few large ones.
            self._connection: Connection[tuple[Any, ...]] = psycopg.connect(
                address, autocommit=True, prepare_threshold=None
            )

    def execute(self, sql: str, values: Sequence[Any] = ()) -> int:
        with self._translated():
            return self._connection.execute(_percents(sql), values).rowcount

    def query(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self._translated():
            return self._connection.execute(_percents(sql), values).fetchall()

    def insert(self, table: Table, rows: Sequence[Struct]) -> None:
        sql = self._inserts.get(table.name)
        if sql is None:
            given = ", ".join(f"{column.name} {_KINDS[column.kind]}" for column in table.columns)
            values = ", ".join(_VALUES.get(column.kind, "{0}").format(column.name) for column in table.columns)
            sql = self._inserts[table.name] = (
                f"INSERT INTO {table.name} ({table.names}) SELECT {values} "
                f"FROM json_to_recordset(?::text::json) AS given({given}) ON CONFLICT DO NOTHING"
            )
        # PostgreSQL has no character 0, and neither has anything that these texts mean.
        data = msgspec.json.encode(rows).replace(b"\\u0000", b"\\ufffd")
        self.execute(sql, (data.decode(),))

    @contextmanager
    def transaction(self, *, alone: bool = False) -> Iterator[None]:
        with self._translated(), self._connection.transaction():
            if alone:
                self.execute("SELECT pg_advisory_xact_lock(?)", (_LOCK,))
            yield

    def has_table(self, name: str) -> bool:
        return bool(self.query("SELECT to_regclass(?) IS NOT NULL", (name,))[0][0])

    def verify(self) -> None:
        """The server says by itself when it is lost."""

    def close(self) -> None:
        with suppress(self._psycopg.Error):  # the server may be gone already
            self._connection.close()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (self._psycopg.DataError, self._psycopg.IntegrityError) as error:
            raise StorageError(f"ledger: {self.where}: {_said(error)}", refused=True) from error
        except self._psycopg.Error as error:
            raise StorageError(f"ledger: {self.where}: {_said(error)}") from error


def _percents(sql: str) -> str:
    return sql.replace("?", "%s")


def _said(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
