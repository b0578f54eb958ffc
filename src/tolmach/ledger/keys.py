"""Callers' keys in the ledger's database: their hashes and what they allow."""

import msgspec

from tolmach.access.keys import Key
from tolmach.errors import StorageError
from tolmach.ledger.database import Database
from tolmach.ledger.had_keys import remember_keys

__all__ = ["load_keys", "remove_key", "save_key"]


def load_keys(database: Database) -> list[Key]:
    """All keys, the oldest first. Raises `StorageError`, also for a key that cannot be read."""
    rows = database.query("SELECT id, data FROM tolmach_keys")
    return sorted((_read(database, name, data) for name, data in rows), key=lambda key: (key.created, key.id))


def save_key(database: Database, key: Key) -> None:
    """Put a key in, in the place of the one with the same id. Raises `StorageError`."""
    remember_keys(database)
    database.execute(
        "INSERT INTO tolmach_keys (id, data) VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET data = excluded.data",
        (key.id, msgspec.json.encode(key).decode()),
    )


def remove_key(database: Database, id: str) -> bool:
    """Take a key out; False when there is none of this id. Raises `StorageError`."""
    return database.execute("DELETE FROM tolmach_keys WHERE id = ?", (id,)) > 0


def _read(database: Database, name: str, data: str) -> Key:
    try:
        return msgspec.json.decode(data, type=Key)
    except msgspec.DecodeError as error:
        # Left out, a key that has limits or is switched off would turn into one that is unknown: better to say so.
        raise StorageError(f"ledger: {database.where}: the key {name} cannot be read: {error}") from error
