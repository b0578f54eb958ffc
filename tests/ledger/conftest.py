"""Databases for the tests of the ledger: a file of SQLite's, and a PostgreSQL server of the tests' own."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.postgres import PostgresServer, find_programs
from tolmach.ledger import Database, open_database


@pytest.fixture(scope="package")
def server() -> Iterator[PostgresServer]:
    """A running PostgreSQL."""
    programs = find_programs()
    if programs is None:
        assert not os.environ.get("CI"), "PostgreSQL is missing, and here it must not be"
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    server = PostgresServer(programs)
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of a database that is empty."""
    if request.param == "sqlite":
        return str(tmp_path / "ledger.sqlite")
    server: PostgresServer = request.getfixturevalue("server")
    return server.new_database()


@pytest.fixture
def opened() -> Iterator[Callable[[str], Database]]:
    """Opens databases, and closes them in the end."""
    databases: list[Database] = []

    def open(url: str) -> Database:
        databases.append(open_database(url))
        return databases[-1]

    yield open
    for database in databases:
        database.close()
