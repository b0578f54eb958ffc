"""That there was ever a key in a ledger: remembered in it, and beside its file, which is easily lost.

Keys that vanish (the file was deleted or cut off, or is another one) must not open a gateway to everybody.
"""

import os
from contextlib import suppress
from pathlib import Path

from tolmach.errors import StorageError
from tolmach.ledger.database import Database

__all__ = ["had_keys", "is_recorded", "note_elsewhere", "note_of", "remember_keys"]

_NOTE = """\
There were keys for callers in {name}, so a gateway with this ledger goes on asking for one, whatever becomes of it.
To let everyone on this machine ask without a key again: keys = "optional" in [gateway] of tolmach.toml.
"""


def note_of(file: Path) -> Path:
    """The file beside a ledger's that says so. Its name begins otherwise, so that `rm ledger.sqlite*` leaves it."""
    return file.with_name(f"had-keys.{file.name}")


def remember_keys(database: Database) -> None:
    """Remember that there was a key. Raises `StorageError`."""
    if not is_recorded(database):
        database.execute("INSERT INTO tolmach_facts (name) VALUES ('had keys') ON CONFLICT (name) DO NOTHING")
    if database.file is None:
        return
    note = note_of(database.file)
    try:
        with suppress(FileExistsError), note.open("x", encoding="utf-8") as text:
            text.write(_NOTE.format(name=database.file.name))
    except OSError as error:
        raise StorageError(f"ledger: {note} cannot be written: {error.strerror or error}") from error


def is_recorded(database: Database) -> bool:
    """Whether the database itself knows of a key that there was; one made anew does not. Raises `StorageError`."""
    return bool(database.query("SELECT 1 FROM tolmach_facts WHERE name = 'had keys'"))


def had_keys(database: Database) -> bool:
    """Whether there was ever a key, as far as is known in the database or beside it. Raises `StorageError`."""
    return is_recorded(database) or (database.file is not None and os.path.exists(note_of(database.file)))


def note_elsewhere(config: Path, ledger: Path) -> Path | None:
    """The note beside the default ledger of the user whose configuration this is, where another one runs (`sudo`).

    `ledger` is the default ledger of the one who runs. None when there is no such note, or it cannot be seen.
    """
    with suppress(OSError, KeyError, NotImplementedError):  # no such file, no such user, no users at all (Windows)
        if config.stat().st_uid == os.geteuid():
            return None
        note = note_of(Path(os.path.expanduser(f"~{config.owner()}"), ".local/share/tolmach", ledger.name))
        return note if os.path.exists(note) else None
    return None
