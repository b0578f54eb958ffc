"""What a gateway keeps beside its targets: parts that are started with it and closed with it."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from tolmach.ledger.prices import Prices
from tolmach.ledger.writer import Ledger

__all__ = ["Background", "Closing", "Part", "close_ledger", "open_ledger"]

_log = logging.getLogger("tolmach.gateway")

_LEDGER_SECONDS = 5.0


class Part(Protocol):
    """Started once, and closed once whatever became of it."""

    async def start(self) -> None: ...

    async def aclose(self) -> None: ...


class Background:
    """Work that goes on until the gateway is closed."""

    def __init__(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._work = work
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.ensure_future(self._work())

    async def aclose(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)


class Closing:
    """What runs from the moment that it is made, in a thread of its own, and is only to be closed."""

    def __init__(self, close: Callable[[], object]) -> None:
        self._close = close

    async def start(self) -> None:
        """It runs already."""

    async def aclose(self) -> None:
        await asyncio.to_thread(self._close)


def open_ledger(url: str | None, retention_days: float | None, prices: Prices) -> Ledger | None:
    """A ledger that runs at once; None where it is switched off."""
    return None if url is None else Ledger(url, prices=prices, retention_days=retention_days)


def close_ledger(ledger: Ledger) -> None:
    """Write down what is not written yet, in at most five seconds."""
    if lost := ledger.close(_LEDGER_SECONDS):
        _log.error("%d rows of the ledger could not be written: %s", lost, ledger.problem)
