"""Rows into the database, by a thread of their own.

What holds, and how:

- A request never waits: `add` puts its rows into a queue in memory, and all else is the thread's work.
- A killed process loses at most what came in the last 200 ms: the thread writes 30 ms after a row came, and
  what is committed is the operating system's or the server's.
- A database that is lost, full or locked keeps the rows waiting. They are tried again, with growing pauses, until
  it is back; beyond `capacity` new rows are counted and dropped.
- Exactly once: a batch is one transaction, and rows have keys of their own. Where the answer to a commit was lost,
  writing the batch again adds nothing.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeVar

import msgspec

from tolmach.errors import StorageError, TolmachError
from tolmach.ledger.database import Database
from tolmach.ledger.opening import open_database
from tolmach.ledger.prices import Prices
from tolmach.ledger.queries import forget
from tolmach.ledger.rows import ATTEMPTS, REQUESTS, AttemptRow, RequestRow

__all__ = ["Ledger"]

_PAUSE = 0.04
"""Seconds for which rows gather."""
_BATCH = 1000
"""Requests in one transaction."""
_SHORTEST_WAIT, _LONGEST_WAIT = 0.1, 2.0
"""Seconds between attempts to reach a lost database."""
_LOOK_SECONDS = 1.0
"""How often it is looked whether the database is still there while there is nothing to write."""
_FORGET_EVERY = 600.0
_FORGET_AT_ONCE = 500
_DAY = 86_400
_LONGEST_TEXT = 300
"""Characters of a text that callers or services choose."""

Row = TypeVar("Row", RequestRow, AttemptRow)
_Entry = tuple[float, RequestRow, Sequence[AttemptRow]]
"""When the rows came, by the monotonic clock, and the rows."""


class Ledger:
    """Takes rows and has them written; one for each process.

    `url` as for `open_database`, `capacity` in rows, `retention_days` None for ever. It starts at once,
    whether or not the database is there; `problem` says what is wrong with it.
    """

    def __init__(
        self,
        url: str = "",
        *,
        capacity: int = 100_000,
        prices: Prices | None = None,
        retention_days: float | None = None,
        open: Callable[[str], Database] = open_database,
    ) -> None:
        self.dropped = 0
        """Rows that were lost: there was no room, or the database refuses them for ever."""
        self.written = 0
        """Rows that are in the database."""
        self.problem = ""
        """Why rows wait; empty while all is well."""
        self._url = url
        self._open = open
        self._capacity = capacity
        self.prices = prices or Prices()
        """May be replaced at any time."""
        self._retention = retention_days
        self._queue: deque[_Entry] = deque()
        self._batch: list[_Entry] = []
        self._added = 0
        self._taken = 0
        self._database: Database | None = None
        self._forget_at = 0.0
        self._asleep = False
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._deadline = 0.0
        self._thread = threading.Thread(target=self._run, name="tolmach-ledger", daemon=True)
        self._thread.start()

    # The hot path

    def add(self, request: RequestRow, attempts: Sequence[AttemptRow]) -> None:
        """Have a request and its attempts written. Never waits, never fails; from one thread only.

        The rows are the ledger's from now on: the writer fills in their costs.
        """
        rows = 1 + len(attempts)
        if self._added - self._taken + rows > self._capacity:
            self.dropped += rows
            return
        self._added += rows
        self._queue.append((time.monotonic(), request, attempts))
        if self._asleep:
            self._asleep = False
            self._wake.set()

    # What may be seen of it

    @property
    def queued(self) -> int:
        """Rows that wait to be written."""
        return self._added - self._taken

    @property
    def lag(self) -> float:
        """Seconds since the oldest of the rows that wait came; 0 when none waits."""
        for entries in (self._batch, self._queue):
            with suppress(IndexError):  # the thread may have just taken it
                return max(0.0, time.monotonic() - entries[0][0])
        return 0.0

    def close(self, seconds: float = 5.0) -> int:
        """Write what is left and stop. Gives the rows that could not be written in that time; they are lost."""
        self._deadline = time.monotonic() + seconds
        self._closing.set()
        self._wake.set()
        self._thread.join(seconds)
        left = self.queued
        self.dropped += left
        self._taken = self._added
        return left

    # The thread

    def _run(self) -> None:
        wait = _SHORTEST_WAIT
        while not self._finished():
            self._sleep()
            try:
                self._work()
                self.problem = ""
                wait = _SHORTEST_WAIT
            except Exception as error:
                # Whatever it is, rows wait and it is tried again: this thread must not end while the process lives.
                self.problem = str(error) if isinstance(error, TolmachError) else f"{type(error).__name__}: {error}"
                self._disconnect()
                self._closing.wait(wait)
                if self._closing.is_set():
                    time.sleep(min(wait, max(0.0, self._deadline - time.monotonic())))
                wait = min(wait * 2, _LONGEST_WAIT)
        self._disconnect()

    def _finished(self) -> bool:
        if not self._closing.is_set():
            return False
        return not (self._batch or self._queue) or time.monotonic() > self._deadline

    def _sleep(self) -> None:
        """Until rows are there, then while they gather."""
        if not self._batch:
            self._wake.clear()
            self._asleep = True
            if not self._queue and not self._closing.is_set():
                self._wake.wait(_LOOK_SECONDS)
            self._asleep = False
        self._closing.wait(_PAUSE)

    def _work(self) -> None:
        if self._database is None:
            self._database = self._open(self._url)
        self._database.verify()
        while self._take():
            self._write(self._database)
        if self._retention is not None and time.monotonic() >= self._forget_at:
            self._forget(self._database, self._retention)

    def _take(self) -> bool:
        """Fill the batch; one that could not be written stays as it is. False when there is nothing to write."""
        if not self._batch:
            with suppress(IndexError):
                for _ in range(_BATCH):
                    self._batch.append(self._queue.popleft())
            for _, request, attempts in self._batch:
                self._put_in_order(request, attempts)
        return bool(self._batch)

    def _write(self, database: Database) -> None:
        try:
            self._put(database, self._batch)
        except StorageError as error:
            if not error.refused:
                raise
            self._write_singly(database)
            return
        rows = sum(1 + len(attempts) for _, _, attempts in self._batch)
        self._batch = []
        self.written += rows
        self._taken += rows

    def _write_singly(self, database: Database) -> None:
        """A batch with rows that the database refuses: all the others, one after the other."""
        while self._batch:
            entry = self._batch[0]
            rows = 1 + len(entry[2])
            try:
                self._put(database, [entry])
                self.written += rows
            except StorageError as error:
                if not error.refused:
                    raise
                self.dropped += rows
            self._taken += rows
            del self._batch[0]

    def _put(self, database: Database, entries: Sequence[_Entry]) -> None:
        requests: Sequence[RequestRow] = [request for _, request, _ in entries]
        attempts: Sequence[AttemptRow] = [attempt for _, _, tried in entries for attempt in tried]
        try:
            _insert(database, requests, attempts)
        except UnicodeError:
            _insert(database, [_well_formed(row) for row in requests], [_well_formed(row) for row in attempts])

    def _put_in_order(self, request: RequestRow, attempts: Sequence[AttemptRow]) -> None:
        """Work out the costs, and cut texts of any length: a caller may name any model."""
        for attempt in attempts:
            _cut(attempt)
            if attempt.cost is None:
                attempt.cost = self._cost(attempt)
        _cut(request)
        request.model = request.model[:_LONGEST_TEXT]
        request.request = request.request[:_LONGEST_TEXT]
        if request.cost is None:
            costs = [attempt.cost for attempt in attempts] if attempts else [self._cost(request)]
            request.cost = None if None in costs else sum(cost or 0 for cost in costs)

    def _cost(self, row: RequestRow | AttemptRow) -> int | None:
        """What is not known to have used a token cost nothing."""
        if not row.prompt_tokens and not row.completion_tokens:
            return 0
        return self.prices.cost(row.target, row.prompt_tokens, row.completion_tokens, row.cached_tokens, row.at)

    def _forget(self, database: Database, days: float) -> None:
        """Delete what is too old, a little at a time: rows that came meanwhile are written in between."""
        while forget(database, time.time() - days * _DAY, _FORGET_AT_ONCE) and not self._closing.is_set():
            if self._take():
                self._write(database)
        self._forget_at = time.monotonic() + _FORGET_EVERY

    def _disconnect(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None


def _cut(row: RequestRow | AttemptRow) -> None:
    row.target = row.target[:_LONGEST_TEXT]
    row.error = row.error[:_LONGEST_TEXT]


def _insert(database: Database, requests: Sequence[RequestRow], attempts: Sequence[AttemptRow]) -> None:
    with database.transaction():
        database.insert(REQUESTS, requests)
        database.insert(ATTEMPTS, attempts)


def _well_formed(row: Row) -> Row:
    """Without halves of surrogate pairs, which the JSON of callers can hold."""
    texts = {name: value for name in row.__struct_fields__ if isinstance(value := getattr(row, name), str)}
    return msgspec.structs.replace(
        row, **{name: text.encode("utf-8", "replace").decode() for name, text in texts.items()}
    )
