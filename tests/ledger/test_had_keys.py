"""That there was ever a key is remembered in the ledger, and beside its file."""

import os
import secrets
from collections.abc import Callable
from pathlib import Path

import pytest

from tolmach.access.keys import new_key
from tolmach.errors import StorageError
from tolmach.ledger import had_keys as module
from tolmach.ledger.database import Database
from tolmach.ledger.had_keys import had_keys, is_recorded, note_elsewhere, note_of
from tolmach.ledger.keys import remove_key, save_key
from tolmach.ledger.migrations import MIGRATIONS
from tolmach.ledger.opening import open_database

Open = Callable[[str], Database]


def test_a_key_is_remembered_when_it_is_gone(url: str, opened: Open) -> None:
    database = opened(url)
    assert not had_keys(database)
    _, key = new_key(secrets.token_bytes, "app")
    save_key(database, key)
    assert remove_key(database, key.id)
    assert is_recorded(database)
    assert had_keys(opened(url))


def test_keys_of_an_older_ledger_are_remembered(url: str, opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("tolmach.ledger.migrations.MIGRATIONS", MIGRATIONS[:2])
        opened(url).execute("INSERT INTO tolmach_keys (id, data) VALUES ('a', '{}')")
    assert is_recorded(opened(url))


def test_the_note_outlives_the_file(tmp_path: Path) -> None:
    file = tmp_path / "ledger.sqlite"
    database = open_database(file)
    save_key(database, new_key(secrets.token_bytes, "app")[1])
    database.close()
    for one in tmp_path.glob("ledger.sqlite*"):
        one.unlink()
    assert 'keys = "optional"' in note_of(file).read_text()
    database = open_database(file)
    assert had_keys(database)
    assert not is_recorded(database)
    database.close()


def test_a_key_that_cannot_be_remembered_is_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "note_of", lambda file: tmp_path / "no such folder" / file.name)
    database = open_database(tmp_path / "ledger.sqlite")
    with pytest.raises(StorageError, match="cannot be written"):
        save_key(database, new_key(secrets.token_bytes, "app")[1])
    assert database.query("SELECT id FROM tolmach_keys") == []
    database.close()


def test_the_note_of_the_user_whose_configuration_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, ledger = tmp_path / "tolmach.toml", tmp_path / "ledger.sqlite"
    config.write_text("")
    folder = tmp_path / ".local/share/tolmach"
    folder.mkdir(parents=True)
    monkeypatch.setattr(os.path, "expanduser", lambda name: str(tmp_path))
    assert note_elsewhere(config, ledger) is None
    (folder / "had-keys.ledger.sqlite").write_text("")
    assert note_elsewhere(config, ledger) is None  # one's own is looked for beside one's own ledger
    monkeypatch.setattr(os, "geteuid", lambda: config.stat().st_uid + 1)
    assert note_elsewhere(config, ledger) == folder / "had-keys.ledger.sqlite"
    assert note_elsewhere(tmp_path / "nothing", ledger) is None
