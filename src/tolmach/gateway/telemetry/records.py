"""What a collector of telemetry is told of a question, and what tells it."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from tolmach.routing.journal import Attempt

__all__ = ["Exporter", "QuestionRecord"]


class QuestionRecord(Struct, frozen=True, kw_only=True):
    """What is told of one question. Times are nanoseconds since 1970; those of attempts seconds from `started`."""

    request: str
    method: str
    path: str
    surface: str
    model: str
    """The name that was asked for."""
    target: str
    """The one that answered or was asked last."""
    status: int
    error: str
    gone: bool
    streamed: bool
    key: str
    """The id of the caller's key; empty for none."""
    trace: Mapping[str, str]
    """The headers that say which trace the question is a part of."""
    attempts: Sequence[Attempt]
    started: int
    ended: int


class Exporter(Protocol):
    """Makes spans and measurements of questions, and sends them. Used by one thread."""

    def tell(self, told: QuestionRecord) -> None: ...

    def close(self, seconds: float) -> None:
        """Send what is left; it should take no longer than so many seconds."""
