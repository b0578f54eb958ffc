"""What the ledger keeps of a request and of each attempt to answer it.

The rows are made on the hot path: plain structs, which the garbage collector does not look at. What costs
time (prices, JSON, SQL) is the writer's work.
"""

import os
import time
from itertools import count
from typing import Literal

from msgspec import Struct

__all__ = ["ATTEMPTS", "REQUESTS", "AttemptRow", "Column", "Outcome", "RequestRow", "Table", "new_uid"]

Outcome = Literal["answered", "failed", "cancelled", "skipped"]


class RequestRow(Struct, gc=False, kw_only=True):
    """A request of a caller and what became of it. Times are milliseconds, but for `at`."""

    uid: str
    """The ledger's own id; see `new_uid`."""
    request: str = ""
    """The x-request-id. Callers may choose it, so it is not unique."""
    at: float
    """When it came: unix time, in seconds."""
    surface: str = ""
    model: str = ""
    """The model as it was asked for."""
    target: str = ""
    """The target that answered, PROVIDER/MODEL; empty when none did."""
    key: str = ""
    """The id of the caller's key; empty when there was none."""
    status: int = 0
    """The HTTP status that the caller saw."""
    error: str = ""
    """The kind of the error that the caller saw, such as `RateLimited`; empty for an answer."""
    gone: bool = False
    """Whether the caller went away before the end."""
    streamed: bool = False
    prompt_tokens: int = 0
    """Of the answer; those in `cached_tokens` are among them."""
    completion_tokens: int = 0
    cached_tokens: int = 0
    estimated: bool = False
    """Whether the tokens are counted by estimate, not by the service."""
    cost: int | None = None
    """Millionths of a US dollar; None for unknown. The writer fills it in: the sum of the attempts'."""
    first_ms: float | None = None
    """Until the first token; None when there was none."""
    total_ms: float = 0.0
    worker: int = 0
    """The id of the process."""


class AttemptRow(Struct, gc=False, kw_only=True):
    """One target that was asked, or passed over, for a request."""

    uid: str
    """The request's."""
    number: int
    """Counts from 1 within the request."""
    at: float
    target: str = ""
    credential: int = 0
    """Which of the target's API keys was used, from 0; never the key."""
    status: int = 0
    """The HTTP status of the service; 0 when there was none."""
    outcome: Outcome = "answered"
    error: str = ""
    reason: str = ""
    """Why this target."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    estimated: bool = False
    cost: int | None = None
    """Millionths of a US dollar; None for unknown. The writer fills it in."""
    first_ms: float | None = None
    total_ms: float = 0.0


class Column(Struct, frozen=True):
    """A column: its name, the field of the row it is made of, and the kind of its value."""

    name: str
    kind: Literal["text", "integer", "real", "yes", "micros"]
    """`yes`: 0 or 1. `micros`: seconds in the row, whole microseconds in the database."""


class Table(Struct, frozen=True):
    """A table that rows are put into."""

    name: str
    columns: tuple[Column, ...]

    @property
    def names(self) -> str:
        return ", ".join(column.name for column in self.columns)


_COUNTED = (
    Column("prompt_tokens", "integer"),
    Column("completion_tokens", "integer"),
    Column("cached_tokens", "integer"),
    Column("estimated", "yes"),
    Column("cost", "integer"),
    Column("first_ms", "real"),
    Column("total_ms", "real"),
)

REQUESTS = Table(
    "tolmach_requests",
    (
        Column("uid", "text"),
        Column("request", "text"),
        Column("at", "micros"),
        *(Column(name, "text") for name in ("surface", "model", "target", "key")),
        Column("status", "integer"),
        Column("error", "text"),
        Column("gone", "yes"),
        Column("streamed", "yes"),
        *_COUNTED,
        Column("worker", "integer"),
    ),
)

ATTEMPTS = Table(
    "tolmach_attempts",
    (
        Column("uid", "text"),
        Column("number", "integer"),
        Column("at", "micros"),
        Column("target", "text"),
        Column("credential", "integer"),
        Column("status", "integer"),
        *(Column(name, "text") for name in ("outcome", "error", "reason")),
        *_COUNTED,
    ),
)


def new_uid() -> str:
    """An id for a request: 16 bytes in hexadecimal digits, the milliseconds of the time first.

    So ids of one time stand together in the database's index, as those of RFC 9562, version 7. Behind the
    time stand a random part of this process and a running number: randomness for each would cost a system call.
    """
    return f"{time.time_ns() // 1_000_000:012x}{_process}{next(_numbers) & 0xFFFFFFFF:08x}"


def _begin() -> None:
    """A forked child is another process."""
    global _process
    _process = os.urandom(6).hex()


_process = ""
_numbers = count()
_begin()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin)
