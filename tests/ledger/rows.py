"""Rows for tests, and waiting for the ledger's thread."""

import time
from collections.abc import Callable
from typing import Any

from tolmach.ledger import AttemptRow, RequestRow

PATIENCE = 60.0
"""Seconds after which something that must come is taken not to come."""


def request(number: int, **fields: Any) -> RequestRow:
    """A request with a uid made of its number."""
    given: dict[str, Any] = {"at": 1_700_000_000.0 + number, "model": "m", "target": "a/m", "status": 200}
    return RequestRow(uid=f"{number:032x}", request=f"req_{number}", **(given | fields))


def attempt(number: int, which: int = 1, **fields: Any) -> AttemptRow:
    given: dict[str, Any] = {"at": 1_700_000_000.0 + number, "target": "a/m", "status": 200}
    return AttemptRow(uid=f"{number:032x}", number=which, **(given | fields))


def wait_until(true: Callable[[], bool]) -> None:
    """Until the ledger's thread has come so far; it tells nobody."""
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.005)
