"""What happened at the demo, for tests and for people: counters, and a way to wait for them."""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

from msgspec import Struct

__all__ = ["Log", "Seen"]


class Seen(Struct):
    """A request that came in; `status` is 0 while it has no head, `time` is monotonic seconds.

    `ended` says how it went: `done`, `cut` (by a fault) or `hangup` (by the client); empty while it runs.
    """

    method: str
    path: str
    mount: str
    step: str
    time: float
    status: int = 0
    ended: str = ""


class Log:
    """Counters of one demo. Everything is counted at once, in constant time."""

    def __init__(self, keep: int = 100_000) -> None:
        self.requests: deque[Seen] = deque(maxlen=keep)
        """The last `keep` requests."""
        self.steps: Counter[tuple[str, str]] = Counter()
        """Requests by mount and step."""
        self.handshakes: Counter[str] = Counter()
        """Nonces and tokens handed out, by mount."""
        self.refusals: Counter[str] = Counter()
        """Nonces and tokens refused, by mount."""
        self.answers: Counter[str] = Counter()
        """Answers that were sent to their end, by mount."""
        self.connections = 0
        """Connections accepted so far."""
        self.open_connections = 0
        self.hangups = 0
        """Clients that went away in the middle of an answer."""
        self._waiting: set[asyncio.Event] = set()

    def seen(self, method: str, path: str, mount: str, step: str) -> Seen:
        entry = Seen(method, path, mount, step, time.monotonic())
        self.requests.append(entry)
        self.steps[mount, step] += 1
        self.changed()
        return entry

    def chats(self, mount: str) -> int:
        """Requests for an answer at this mount."""
        return self.steps[mount, "chat"]

    def changed(self) -> None:
        """Wake those who wait for a counter."""
        for event in self._waiting:
            event.set()

    async def wait_until(self, true: Callable[["Log"], Any], timeout: float = 5.0) -> None:
        """Return once `true(log)` is true. Raises `TimeoutError` after `timeout` seconds."""
        event = asyncio.Event()
        self._waiting.add(event)
        try:
            async with asyncio.timeout(timeout):
                while not true(self):
                    event.clear()
                    await event.wait()
        finally:
            self._waiting.discard(event)

    async def wait_hangups(self, count: int = 1, timeout: float = 5.0) -> None:
        """Return once `count` clients have hung up in the middle of an answer."""
        await self.wait_until(lambda log: log.hangups >= count, timeout)

    async def wait_open_connections(self, count: int = 0, timeout: float = 5.0) -> None:
        """Return once no more than `count` connections are open."""
        await self.wait_until(lambda log: log.open_connections <= count, timeout)
