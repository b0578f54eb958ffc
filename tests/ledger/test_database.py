"""The two databases behind one interface: opening, migrations, keys, what goes wrong."""

import multiprocessing
import os
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.ledger.rows import attempt, request
from tolmach.access.keys import Key
from tolmach.errors import ConfigError, MissingDependency, StorageError
from tolmach.ledger import Database, default_file, open_database, without_password
from tolmach.ledger.keys import load_keys, remove_key, save_key
from tolmach.ledger.migrations import MIGRATIONS, migrate
from tolmach.ledger.queries import requests_named
from tolmach.ledger.rows import ATTEMPTS, REQUESTS

Open = Callable[[str], Database]


# Opening


def test_a_new_database_has_the_newest_version(url: str, opened: Open) -> None:
    database = opened(url)
    assert database.query("SELECT version FROM tolmach_schema") == [(len(MIGRATIONS),)]
    assert len(MIGRATIONS) >= 2
    assert opened(url).query("SELECT count(*) FROM tolmach_requests") == [(0,)]


@pytest.mark.parametrize("version", range(1, len(MIGRATIONS)))
def test_an_old_database_is_migrated_and_keeps_its_rows(
    url: str, opened: Open, monkeypatch: pytest.MonkeyPatch, version: int
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("tolmach.ledger.migrations.MIGRATIONS", MIGRATIONS[:version])
        old = opened(url)
        assert old.query("SELECT version FROM tolmach_schema") == [(version,)]
        old.insert(REQUESTS, [request(1)])
    new = opened(url)
    assert new.query("SELECT version FROM tolmach_schema") == [(len(MIGRATIONS),)]
    assert [row.request for row in requests_named(new, "req_1")] == ["req_1"]
    save_key(new, Key(id="k", name="n", hash="h"))
    assert [key.id for key in load_keys(new)] == ["k"]


def test_a_database_of_a_newer_tolmach_is_refused(url: str, opened: Open) -> None:
    opened(url).execute("UPDATE tolmach_schema SET version = 99")
    with pytest.raises(ConfigError, match=r"newer tolmach \(version 99, this one knows \d\); update tolmach"):
        open_database(url)


def _migrate(url: str) -> None:
    open_database(url).close()


def test_many_processes_may_make_it_at_once(url: str, opened: Open) -> None:
    processes = [multiprocessing.get_context("spawn").Process(target=_migrate, args=(url,)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 4
    assert opened(url).query("SELECT version FROM tolmach_schema") == [(len(MIGRATIONS),)]


def test_a_migration_that_fails_leaves_nothing_behind(url: str, opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    database = opened(url)
    monkeypatch.setattr("tolmach.ledger.migrations.MIGRATIONS", (*MIGRATIONS, ("CREATE TABLE half (x TEXT)", "NO SQL")))
    with pytest.raises(StorageError):
        migrate(database)
    assert not database.has_table("half")
    assert database.query("SELECT version FROM tolmach_schema") == [(len(MIGRATIONS),)]


def test_a_file_and_its_folder_are_for_their_owner_alone(tmp_path: Path, opened: Open) -> None:
    file = tmp_path / "data" / "l.sqlite"
    umask = os.umask(0)
    try:
        opened(f"sqlite:///{file}")
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
        assert {stat.S_IMODE(each.stat().st_mode) for each in file.parent.iterdir()} == {0o600}
    finally:
        os.umask(umask)


def test_a_file_of_sqlite_is_written_ahead(tmp_path: Path, opened: Open) -> None:
    database = opened(str(tmp_path / "l.sqlite"))
    assert database.query("PRAGMA journal_mode") == [("wal",)]
    assert database.query("PRAGMA synchronous") == [(1,)]


def test_the_default_file_is_in_the_data_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert default_file() == tmp_path / "tolmach/ledger.sqlite"
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_file() == tmp_path / ".local/share/tolmach/ledger.sqlite"


def test_an_empty_address_is_the_default_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, opened: Open) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert opened("").where == str(tmp_path / "tolmach/ledger.sqlite")


# What goes wrong


@pytest.mark.parametrize("address", ["mysql://me:s3cret@host/x", "postgresql://me:s3cret@host/x?nonsense=1"])
def test_an_address_that_is_none_is_refused_without_its_password(address: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_database(address)
    assert "s3cret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_server_that_is_not_there_is_told_without_the_password(tmp_path: Path) -> None:
    with pytest.raises(StorageError) as caught:
        open_database(f"postgresql://me:s3cret@/x?host={tmp_path}")
    assert "s3cret" not in str(caught.value)
    assert "postgresql://me@/x" in str(caught.value)


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"file/l\.sqlite: (Not a directory|File exists)"):
        open_database(str(tmp_path / "file" / "l.sqlite"))


def test_a_file_that_is_no_database_is_told(tmp_path: Path) -> None:
    (tmp_path / "l.sqlite").write_text("something else, and enough of it " * 10)
    with pytest.raises(StorageError, match="not a database"):
        open_database(str(tmp_path / "l.sqlite"))


def test_without_psycopg_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "psycopg", None)
    with pytest.raises(MissingDependency, match=r"pip install .*\[postgres\]"):
        open_database("postgresql://host/x")


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("postgresql://me:pw@host:5432/x", "postgresql://me@host:5432/x"),
        ("postgresql://host/x?user=me&password=pw", "postgresql://host/x"),
        ("postgres://me:p@w@host/x", "postgres://me@host/x"),
        ("/some/file?.db", "/some/file?.db"),
        ("sqlite:///file", "sqlite:///file"),
    ],
)
def test_what_is_shown_of_an_address(address: str, shown: str) -> None:
    assert without_password(address) == shown


# Rows


def test_a_row_that_is_there_stays_as_it_is(url: str, opened: Open) -> None:
    database = opened(url)
    for model in ("first", "second"):
        database.insert(REQUESTS, [request(1, model=model), request(2)])
        database.insert(ATTEMPTS, [attempt(1), attempt(1, 2)])
    assert database.query("SELECT model FROM tolmach_requests ORDER BY uid") == [("first",), ("m",)]
    assert database.query("SELECT count(*) FROM tolmach_attempts") == [(2,)]


def test_a_transaction_that_fails_leaves_nothing(url: str, opened: Open) -> None:
    database = opened(url)

    def fail() -> None:
        with database.transaction():
            database.insert(REQUESTS, [request(1)])
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert database.query("SELECT count(*) FROM tolmach_requests") == [(0,)]
    with database.transaction():
        database.insert(REQUESTS, [request(1)])
    assert database.query("SELECT count(*) FROM tolmach_requests") == [(1,)]


@pytest.mark.parametrize("wrong", [{"model": None}, {"prompt_tokens": 1 << 70}, {"status": ["a list"]}])
def test_a_row_that_will_never_do_is_told_apart_from_a_lost_database(
    url: str, opened: Open, wrong: dict[str, Any]
) -> None:
    database = opened(url)
    with pytest.raises(StorageError) as caught:
        database.insert(REQUESTS, [request(1, **wrong)])
    assert caught.value.refused
    with pytest.raises(StorageError) as caught:
        database.execute("SELECT * FROM nowhere")
    assert not caught.value.refused


# Keys


def test_keys_come_back_as_they_were_saved(url: str, opened: Open) -> None:
    database = opened(url)
    plain = Key(id="b", name="Ann's, 'quoted' ключ", hash="0" * 64, created=2)
    limited = Key(
        id="a",
        name="x",
        hash="1" * 64,
        models=("gpt-*",),
        budget_day=1.5,
        streams=3,
        expires=9,
        disabled=True,
        created=5,
    )
    for key in (limited, plain):
        save_key(database, key)
    assert load_keys(opened(url)) == [plain, limited]
    save_key(database, msgspec.structs.replace(plain, disabled=True))
    assert [(key.id, key.disabled) for key in load_keys(database)] == [("b", True), ("a", True)]
    assert remove_key(database, "b") is True
    assert remove_key(database, "b") is False
    assert load_keys(database) == [limited]


def test_a_key_that_cannot_be_read_is_no_key_that_is_missing(url: str, opened: Open) -> None:
    database = opened(url)
    database.execute("INSERT INTO tolmach_keys (id, data) VALUES ('k', '{}')")
    with pytest.raises(StorageError, match="the key k cannot be read"):
        load_keys(database)


def test_two_connections_write_one_file(tmp_path: Path, opened: Open) -> None:
    one, other = opened(str(tmp_path / "l.sqlite")), opened(str(tmp_path / "l.sqlite"))
    save_key(one, Key(id="a", name="", hash=""))
    save_key(other, Key(id="b", name="", hash=""))
    assert [key.id for key in load_keys(one)] == ["a", "b"]
    with sqlite3.connect(tmp_path / "l.sqlite") as plain:
        assert plain.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    plain.close()
