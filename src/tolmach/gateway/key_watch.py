"""The callers' keys in the ledger's database: read at the start, and followed while a gateway runs."""

import asyncio
import logging
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from msgspec import Struct, structs

from tolmach.access.keys import Key
from tolmach.errors import TolmachError
from tolmach.gateway.callers import Callers
from tolmach.gateway.parts import Background
from tolmach.gateway.telemetry.metrics import SHARED_COUNTS
from tolmach.ledger.database import Database
from tolmach.ledger.had_keys import had_keys, is_recorded, note_elsewhere, remember_keys
from tolmach.ledger.keys import load_keys
from tolmach.ledger.opening import default_file, open_database
from tolmach.ledger.queries import usage

__all__ = ["LOOK_SECONDS", "KeyWatch", "KnownKeys", "known_keys", "read_keys"]

_log = logging.getLogger("tolmach.gateway")

LOOK_SECONDS = 0.5
"""After so long a key that was made, changed or taken away counts in a gateway that runs."""


class KnownKeys(Struct, frozen=True):
    """What a ledger says of the callers' keys."""

    keys: list[Key]
    recorded: bool
    """Whether the database itself knows that there was a key."""
    ever: bool
    """Whether there was one, as far as anybody knows."""
    where: str = ""
    """The ledger, for people."""


def known_keys(url: str, config: Path | None = None) -> KnownKeys:
    """The callers' keys in the database of `url`, which `config` names. Raises `StorageError`."""
    database = open_database(url)
    try:
        known = read_keys(database)
        if known.keys:
            remember_keys(database)
        elif not known.ever and config is not None and not url and note_elsewhere(config, default_file()):
            known = structs.replace(known, ever=True)
    finally:
        database.close()
    return known


def read_keys(database: Database) -> KnownKeys:
    """Raises `StorageError`."""
    keys, recorded = load_keys(database), is_recorded(database)
    return KnownKeys(keys, recorded, bool(keys) or recorded or had_keys(database), database.where)


class KeyWatch:
    """Begins the budgets with what was spent, and keeps the keys in force as the database has them.

    `cut_revoked` ends what is under way for keys that are not good any more. `shared` says whether what the limits
    count is counted for all workers.
    """

    def __init__(self, url: str, callers: Callers, cut_revoked: Callable[[], None], *, shared: bool) -> None:
        self._url = url
        self._callers = callers
        self._cut_revoked = cut_revoked
        self._shared = shared
        self._following = Background(self._follow)

    async def start(self) -> None:
        if self._callers.problem:
            _log.warning("%s", self._callers.problem)
        await self._seed(list(self._callers.keys))
        await self._following.start()

    async def aclose(self) -> None:
        await self._following.aclose()

    async def _seed(self, keys: list[Key]) -> None:
        budgets = [key for key in keys if key.budget_day is not None or key.budget_month is not None]
        if not budgets:
            return
        database = await asyncio.to_thread(open_database, self._url)
        try:

            async def spent(key: str, since: float) -> int:
                rows = await asyncio.to_thread(usage, database, "key", since)
                return next((row.cost for row in rows if row.name == key), 0)

            await self._callers.limiter.seed(budgets, spent)
        finally:
            await asyncio.to_thread(database.close)

    async def _follow(self) -> None:
        """Read the keys again and again; those known stay in force while the database cannot be reached."""
        database: Database | None = None
        failed = False
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self._cut_revoked()  # those that have expired, whether or not the database can be reached
            try:
                if database is None:
                    database = await asyncio.to_thread(open_database, self._url)
                known = await asyncio.to_thread(read_keys, database)
            except TolmachError as error:
                if not failed:
                    _log.error("the keys cannot be read, those known hold on: %s", error)
                failed = True
                if database is not None:
                    with suppress(TolmachError):  # it is lost already
                        database.close()
                    database = None
                continue
            failed = False
            self._take_over(known)
            self._cut_revoked()

    def _take_over(self, known: KnownKeys) -> None:
        callers, before = self._callers, self._callers.problem
        callers.ever = callers.ever or known.ever
        # A ledger that was made anew knows of no key, nor that there was one; where they were removed it does.
        callers.lost = callers.ever and not known.keys and not known.recorded and len(callers.keys) > 0
        if not callers.lost:
            self._replace(known.keys)
        if callers.problem and callers.problem != before:
            _log.warning("%s", callers.problem)

    def _replace(self, keys: list[Key]) -> None:
        before = {key.id: key for key in self._callers.keys}
        if {key.id: key for key in keys} == before:
            return
        # A key that has not changed stays the object that it was, for what is counted for it.
        self._callers.keys.replace(
            before[key.id] if before.get(key.id) == key else structs.replace(key) for key in keys
        )
        _log.info("the keys of callers were read again: %d", len(keys))
        if any(key.limited for key in keys) and not self._shared and os.environ.get(SHARED_COUNTS):
            _log.error("there are keys with limits now, and each worker counts for itself: set gateway.state")
