"""The callers' keys in the ledger's database: read at the start, and followed while a gateway runs."""

import asyncio
import logging
import os
from collections.abc import Callable
from contextlib import suppress

from msgspec import structs

from tolmach.access.keys import Key
from tolmach.errors import TolmachError
from tolmach.gateway.callers import Callers
from tolmach.gateway.parts import Background
from tolmach.gateway.telemetry.metrics import SHARED_COUNTS
from tolmach.ledger.database import Database
from tolmach.ledger.keys import load_keys
from tolmach.ledger.opening import open_database
from tolmach.ledger.queries import usage

__all__ = ["LOOK_SECONDS", "KeyWatch", "known_keys"]

_log = logging.getLogger("tolmach.gateway")

LOOK_SECONDS = 0.5
"""After so long a key that was made, changed or taken away counts in a gateway that runs."""


def known_keys(url: str) -> list[Key]:
    """The callers' keys in the database of `url`. Raises `StorageError`."""
    database = open_database(url)
    try:
        return load_keys(database)
    finally:
        database.close()


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
                keys = await asyncio.to_thread(load_keys, database)
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
            self._replace(keys)
            self._cut_revoked()

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
