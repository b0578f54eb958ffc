"""Opens the database that a URL names, or the default file, brought to the newest version."""

import os
from pathlib import Path

from tolmach.errors import ConfigError
from tolmach.ledger.database import Database
from tolmach.ledger.migrations import migrate

__all__ = ["default_file", "open_database"]


def open_database(url: str | os.PathLike[str] = "") -> Database:
    """The database of `sqlite:///PATH`, a path, or `postgresql://...`; of the default file when it is empty.

    It is made where there is none, and brought up to the newest version. Raises `ConfigError` for an
    address that is none, or a database of a newer tolmach, `StorageError` when it cannot be opened, and
    `MissingDependency` when PostgreSQL's driver is not installed.
    """
    text = os.fspath(url)
    scheme, there, rest = text.partition("://")
    database: Database
    if there and scheme in ("postgres", "postgresql"):
        from tolmach.ledger.postgres import PostgresDatabase

        database = PostgresDatabase(text)
    elif there and scheme != "sqlite":
        raise ConfigError(f"ledger: no database at {scheme}://; write a file, sqlite:///FILE or postgresql://...")
    else:
        from tolmach.ledger.sqlite import SqliteDatabase

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
    """The ledger where none is named: `tolmach/ledger.sqlite` in `$XDG_DATA_HOME`, or in `~/.local/share`."""
    base = os.environ.get("XDG_DATA_HOME")
    try:
        return (Path(base) if base else Path.home() / ".local" / "share") / "tolmach" / "ledger.sqlite"
    except RuntimeError as error:
        raise ConfigError("ledger: this user has no home folder; name a file or a database by [ledger] url") from error
