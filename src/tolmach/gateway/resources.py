"""What a gateway keeps beside its targets: callers' keys, limits and budgets, the ledger, the shared state."""

import asyncio
import json
import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress

from msgspec import structs

from tolmach.access.keys import Key, KeyRing
from tolmach.access.limits import Limiter
from tolmach.chat import Conversation
from tolmach.configuration import Settings
from tolmach.errors import TolmachError
from tolmach.gateway.addresses import is_loopback
from tolmach.gateway.answers.conversations import Conversations, Responses, StoredResponse
from tolmach.gateway.callers import Callers
from tolmach.gateway.telemetry.collector import open_telemetry
from tolmach.gateway.telemetry.metrics import SHARED_COUNTS
from tolmach.gateway.telemetry.recording import Recording
from tolmach.ledger.database import Database
from tolmach.ledger.keys import load_keys
from tolmach.ledger.opening import open_database
from tolmach.ledger.prices import Prices, Rate
from tolmach.ledger.queries import usage
from tolmach.ledger.writer import Ledger
from tolmach.routing.health import Health
from tolmach.routing.targets import Targets
from tolmach.state import State, is_shared
from tolmach.state.stores import StateStore

__all__ = ["Resources", "known_keys", "prices_of"]

_log = logging.getLogger("tolmach.gateway")

_LOOK_SECONDS = 1.0
"""After so long a key that was made, changed or taken away counts in a gateway that runs."""

_CIRCUITS = "circuits"


def prices_of(settings: Settings, targets: Targets) -> Prices:
    """What tokens of the targets cost, as the settings say."""
    rates = {name: Rate(row.input, row.output, row.cached) for name, row in settings.prices.items()}
    services = {name: row.service for name, row in settings.providers.items() if row.service}
    return Prices(rates, services, _own_names(targets))


def _own_names(targets: Targets) -> dict[str, str]:
    """Targets whose model the service has another name for -> PROVIDER/MODEL by that name."""
    own = {}
    for provider in targets.providers():
        default = provider.site.default_model
        names = {**provider.site.aliases, **provider.models}
        for public, model in names.items():
            own[f"{provider.name}/{public}"] = f"{provider.name}/{default if model in ('', 'default') else model}"
        own.setdefault(f"{provider.name}/default", f"{provider.name}/{default}")
        own[provider.name] = f"{provider.name}/{default}"
    return own


def known_keys(settings: Settings) -> list[Key]:
    """The callers' keys in the ledger's database; none where the ledger is switched off. Raises `StorageError`."""
    if settings.ledger.url == "off":
        return []
    database = open_database(settings.ledger.url)
    try:
        return load_keys(database)
    finally:
        database.close()


class Resources:
    """Opened for one gateway, closed with it. Raises what reading the keys raises."""

    def __init__(self, settings: Settings, targets: Targets, state: State) -> None:
        self.state = state
        self.shared = is_shared(settings.gateway.state)
        self.prices = prices_of(settings, targets)
        self.callers = Callers(
            KeyRing(known_keys(settings)),
            Limiter(self.state),
            self.prices,
            required=not is_loopback(settings.gateway.host),
        )
        self.ledger: Ledger | None = None
        self.recording: Recording | None = None
        self.telemetry = open_telemetry(settings.gateway.otel.endpoint)
        self._url = settings.ledger.url
        self._tasks: list[asyncio.Task[None]] = []
        if self._url != "off":
            days = settings.ledger.retention_days or None
            self.ledger = Ledger(self._url, prices=self.prices, retention_days=days)
            self.recording = Recording(self.ledger)

    def memory(self, now: Callable[[], float]) -> tuple[Conversations, Responses] | None:
        """Where conversations and answers are remembered that all replicas know; None without a shared state."""
        if not self.shared:
            return None
        conversations = StateStore(self.state, "conversation", Conversation)
        return Conversations(conversations), Responses(StateStore(self.state, "response", StoredResponse))

    async def start(self, health: Health) -> None:
        """Reach the shared state, begin the budgets with what was spent, and follow the keys."""
        await self.state.start()
        if self.shared:
            await self.state.subscribe(_CIRCUITS, lambda told: _take_over(health, told))
        if self.ledger is not None:
            await self._seed(list(self.callers.keys))
            self._tasks.append(asyncio.ensure_future(self._follow()))
        self._tasks.append(asyncio.ensure_future(self.callers.limiter.keep()))

    def opened(self, health: Health, id: str, *, key_only: bool) -> None:
        """Tell the other replicas that a circuit has opened here."""
        if self.shared:
            seconds = max(0.0, health.opens_until(id) - time.monotonic())
            told = {"id": id, "until": time.time() + seconds, "key_only": key_only}
            self.state.publish(_CIRCUITS, json.dumps(told).encode())

    def change(self, settings: Settings, targets: Targets) -> None:
        """Take over prices; where the ledger and the state are is read at the start only."""
        self.prices = self.callers.prices = prices_of(settings, targets)
        if self.ledger is not None:
            self.ledger.prices = self.prices

    async def aclose(self) -> None:
        """Write down what is not written yet, in at most five seconds."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self.ledger is not None and (lost := await asyncio.to_thread(self.ledger.close, 5.0)):
            _log.error("%d rows of the ledger could not be written: %s", lost, self.ledger.problem)
        if self.telemetry is not None:
            await asyncio.to_thread(self.telemetry.close)
        await self.state.aclose()

    async def _seed(self, keys: list[Key]) -> None:
        budgets = [key for key in keys if key.budget_day is not None or key.budget_month is not None]
        if not budgets:
            return
        database = await asyncio.to_thread(open_database, self._url)
        try:

            async def spent(key: str, since: float) -> int:
                rows = await asyncio.to_thread(usage, database, "key", since)
                return next((row.cost for row in rows if row.name == key), 0)

            await self.callers.limiter.seed(budgets, spent)
        finally:
            await asyncio.to_thread(database.close)

    async def _follow(self) -> None:
        """Read the keys again and again; those known stay in force while the database cannot be reached."""
        database: Database | None = None
        failed = False
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
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

    def _replace(self, keys: list[Key]) -> None:
        before = {key.id: key for key in self.callers.keys}
        if {key.id: key for key in keys} == before:
            return
        # A key that has not changed stays the object that it was, for what is counted for it.
        self.callers.keys.replace(before[key.id] if before.get(key.id) == key else structs.replace(key) for key in keys)
        _log.info("the keys of callers were read again: %d", len(keys))
        if any(key.limited for key in keys) and not self.shared and os.environ.get(SHARED_COUNTS):
            _log.error("there are keys with limits now, and each worker counts for itself: set gateway.state")


def _take_over(health: Health, told: bytes) -> None:
    """A circuit that another replica opened."""
    try:
        said = json.loads(told)
        seconds = float(said["until"]) - time.time()
        id, key_only = str(said["id"]), bool(said["key_only"])
    except (ValueError, KeyError, TypeError) as error:
        _log.warning("a replica told of a circuit in words that are not understood: %s", error)
        return
    if seconds > 0:
        health.merge(id, time.monotonic() + seconds, key_only=key_only)
