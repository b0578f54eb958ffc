"""State at a server that speaks Redis' protocol (Redis 6.2 or later, Valkey), shared by processes and machines.

What the server says is also kept here, as far as it passes by. When it is lost, that counts; when it is
back it is told what was counted meanwhile, also one that was started anew and knows nothing.
"""

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from tolmach.state.base import Outcome, Subscriber, Want
from tolmach.state.link import Command, Link, Lost
from tolmach.state.memory import MemoryState
from tolmach.state.scripts import LEASE, RESTORE, SETTLE, TAKE

__all__ = ["RedisState"]

_LOCAL_BYTES = 64 << 20
"""Values that are kept here too, for the case that the server is lost."""
_MOST_ORPHANS = 10_000
_NO_LIMIT = 1 << 62
_ID_BYTES = 16


class RedisState:
    """State at the server of `url`: `redis://`, `rediss://` or `unix://`. Times are seconds.

    A server that does not answer within `timeout` counts as lost. Between two attempts to reach it again
    `first_delay` passes, then twice as long each time, up to `longest_delay`. All its keys begin with `prefix`.
    Raises `ConfigError` for an address that is none.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout: float = 0.5,
        connect_timeout: float = 1.0,
        first_delay: float = 0.1,
        longest_delay: float = 5.0,
        prefix: str = "tolmach:",
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._now = now
        self._prefix = prefix
        self._local = MemoryState(now=now, weight=_LOCAL_BYTES)
        self._ahead = 0.0
        """How far the server's clock is ahead of `now`."""
        self._owed: dict[str, int] = {}
        """Counter -> what was counted here and not at the server."""
        self._orphans: dict[str, None] = {}
        """Values that the server was not given."""
        self._id = os.urandom(_ID_BYTES)
        self._link = Link(
            url,
            timeout=timeout,
            connect_timeout=connect_timeout,
            first_delay=first_delay,
            longest_delay=longest_delay,
            probe=f"{prefix}probe",
            restore=self._restore,
            receive=self._receive,
        )

    @property
    def healthy(self) -> bool:
        return self._link.healthy

    @property
    def problem(self) -> str:
        return self._link.problem

    async def start(self) -> None:
        await self._link.start()

    async def aclose(self) -> None:
        await self._link.aclose()

    # Values

    async def get(self, key: str) -> bytes | None:
        try:
            value = await self._ask("GET", self._prefix + key)
        except Lost:
            return self._local.get_now(key)
        return _bytes(value) if value is not None or key not in self._orphans else self._local.get_now(key)

    async def put(self, key: str, value: bytes, seconds: float) -> None:
        self._local.put_now(key, value, seconds)
        try:
            await self._ask("SET", self._prefix + key, value, "PX", max(1, int(seconds * 1000)))
        except Lost:
            if len(self._orphans) >= _MOST_ORPHANS:
                del self._orphans[next(iter(self._orphans))]
            self._orphans[key] = None
        else:
            self._orphans.pop(key, None)

    async def take(self, key: str) -> bytes | None:
        local = self._local.take_now(key)
        orphan = key in self._orphans
        self._orphans.pop(key, None)
        try:
            value = await self._ask("GETDEL", self._prefix + key)
        except Lost:
            return local
        return _bytes(value) if value is not None or not orphan else local

    # Counters

    async def add(self, key: str, amount: int, seconds: float) -> int:
        try:
            return await self._sum(key, 0, amount, seconds)
        except Lost:
            self._owe(key, amount)
            return self._local.add_now(key, amount, seconds)

    async def at_least(self, key: str, amount: int, seconds: float) -> int:
        try:
            return await self._sum(key, amount, 0, seconds)
        except Lost:
            # No debt: what is counted here is what the server will be told that it was at least.
            return self._local.at_least_now(key, amount, seconds)

    async def _sum(self, key: str, least: int, more: int, seconds: float) -> int:
        held = int(await self._ask("EVAL", RESTORE, 1, self._prefix + key, least, more, repr(seconds), 1))
        self._local.set_now(Want(key, 0, 0, seconds, fixed=True), held)
        return held

    async def take_if_below(self, wants: Sequence[Want]) -> Outcome:
        words: list[Any] = ["EVAL", TAKE, len(wants), *(self._prefix + want.key for want in wants)]
        for want in wants:
            words += [want.amount, want.limit, repr(want.seconds), int(want.fixed)]

        def undo(reply: Any) -> None:
            if int(reply[0]) < 0:
                self.settle(wants, [0] * len(wants), float(reply[2]))

        try:
            reply = await self._ask_surely(undo, *words)
        except Lost:
            return self._take_here(wants)
        used = tuple(map(int, reply[3:]))
        at = float(reply[2])
        self._ahead = at - self._now()
        for want, held in zip(wants, used, strict=True):
            self._local.set_now(want, held)
        return Outcome(used, at, int(reply[0]), float(reply[1]))

    def _take_here(self, wants: Sequence[Want]) -> Outcome:
        outcome = self._local.take_if_below_now(wants)
        if outcome.refused < 0:
            for want in wants:
                self._owe(want.key, want.amount)
        return Outcome(outcome.used, outcome.at + self._ahead, outcome.refused, outcome.retry_after)

    def settle(self, wants: Sequence[Want], amounts: Sequence[int], at: float) -> None:
        self._local.settle(wants, amounts, at - self._ahead)
        changed = [(want, amount - want.amount) for want, amount in zip(wants, amounts, strict=True)]
        changed = [(want, more) for want, more in changed if more]
        if not changed:
            return
        words: list[Any] = ["EVAL", SETTLE, len(changed), *(self._prefix + want.key for want, _ in changed), repr(at)]
        for want, more in changed:
            words += [more, repr(want.seconds), int(want.fixed)]

        def lost() -> None:
            for want, more in changed:
                self._owe(want.key, more)

        self._link.send(Command(tuple(words), lost))

    def _owe(self, key: str, amount: int) -> None:
        self._owed[key] = self._owed.get(key, 0) + amount

    def _restore(self, whole: bool) -> Sequence[Command]:
        """What brings the server up to date: of all counters here, or of those that it has missed something of."""
        commands = []
        for key, total, seconds, fixed in self._local.counters():
            owed = self._owed.pop(key, 0)
            if whole or owed:
                # In a window what was given back meanwhile cannot be told from what has left it since.
                more = owed if fixed else max(0, min(owed, total))
                words = ("EVAL", RESTORE, 1, self._prefix + key, total - more, more, repr(seconds), int(fixed))
                commands.append(Command(words, partial(self._owe, key, owed)))
        self._owed.clear()
        return commands

    # Leases

    async def lease(self, key: str, holder: str, limit: int, seconds: float) -> bool:
        def undo(reply: Any) -> None:
            if reply:
                self.release(key, holder)

        try:
            got = await self._ask_surely(undo, "EVAL", LEASE, 1, self._prefix + key, holder, limit, repr(seconds))
        except Lost:
            return self._local.lease_now(key, holder, limit, seconds)
        if got:
            self._local.lease_now(key, holder, _NO_LIMIT, seconds)
        return bool(got)

    def release(self, key: str, holder: str) -> None:
        self._local.release(key, holder)
        # A lease that the server was not told of ends by itself.
        self._link.send(Command(("ZREM", self._prefix + key, holder), _nothing))

    # What one tells the others

    def publish(self, channel: str, value: bytes) -> None:
        self._local.publish(channel, value)
        self._link.send(Command(("PUBLISH", self._prefix + channel, self._id + value), _nothing))

    async def subscribe(self, channel: str, subscriber: Subscriber) -> None:
        self._local.subscribe_now(channel, subscriber)
        await self._link.start()
        await self._link.subscribe(self._prefix + channel)

    def _receive(self, channel: str, data: bytes) -> None:
        if not data.startswith(self._id):  # else it is our own, which was told here at once
            self._local.publish(channel.removeprefix(self._prefix), data[_ID_BYTES:])

    # The way to the server

    async def _ask(self, *words: Any) -> Any:
        await self._link.start()
        return await self._link.call(*words)

    async def _ask_surely(self, undo: Callable[[Any], None], *words: Any) -> Any:
        """As `_ask`; when the caller goes away meanwhile, `undo` gets the answer."""
        await self._link.start()
        future = self._link.call(*words)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            future.add_done_callback(lambda done: None if done.exception() else undo(done.result()))
            raise


def _nothing() -> None:
    """What is done about a loss that mends itself."""


def _bytes(value: Any) -> bytes | None:
    return None if value is None else bytes(value)
