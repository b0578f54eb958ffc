"""What the end of an attempt to answer means: what is counted for it, remembered of it, and told to the router."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from tolmach.chat import Event
from tolmach.errors import TolmachError
from tolmach.gateway.answers.conversations import Conversations, MemoryStore, Responses
from tolmach.gateway.answers.keep_alive import KeepAlive
from tolmach.gateway.answers.spent import settle
from tolmach.gateway.context import RequestContext
from tolmach.gateway.http import Writer
from tolmach.gateway.surfaces.base import Asked, Label
from tolmach.gateway.surfaces.responses_request import remembered
from tolmach.gateway.telemetry.metrics import Metrics
from tolmach.routing.journal import Attempt
from tolmach.routing.router import Router
from tolmach.routing.targets import Target

__all__ = ["Outcomes"]

_log = logging.getLogger("tolmach.gateway")


class _Pinging(Protocol):
    def keep_alive(self) -> bytes: ...


class _Living(Protocol):
    """A stream that says that it lives while nothing comes."""

    @property
    def encoder(self) -> _Pinging: ...

    @property
    def seen(self) -> Sequence[Event]: ...


class Outcomes:
    """Settles attempts: whole, broken off or cancelled. What later questions may go on from is kept here."""

    def __init__(
        self,
        router: Router,
        metrics: Metrics,
        now: Callable[[], float],
        keep_alive: float,
        memory: tuple[Conversations, Responses] | None = None,
    ) -> None:
        self.router = router
        self.metrics = metrics
        self.memory = memory or (Conversations(MemoryStore(now=now)), Responses.in_memory(now=now))
        self._keep_alive = keep_alive

    @contextmanager
    def streaming(self, writer: Writer, stream: _Living) -> Iterator[None]:
        """What goes along with a streamed answer: it is counted, and says that it lives while nothing comes."""
        self.metrics.open_streams.inc()
        alive = KeepAlive(writer, stream.encoder.keep_alive, stream.seen, self._keep_alive)
        try:
            yield
        finally:
            alive.stop()
            self.metrics.open_streams.dec()

    # A whole answer

    async def complete(
        self,
        context: RequestContext,
        attempt: Attempt,
        seen: Sequence[Event] = (),
        asked: Asked | None = None,
        label: Label | None = None,
    ) -> None:
        """All of the answer is there: count it, and remember it where it was written here (`asked`, `label`).

        Called before the end mark is written. A caller may close the connection as soon as it has read that, which
        cancels whoever answers it; and one that goes on at once finds what it goes on from.
        """
        if context.complete:
            return
        if asked is not None and label is not None:
            await self.remember(context, attempt.target, asked, seen, label)
        self.ended(context, attempt)
        context.complete = True

    # What is remembered

    async def remember(
        self, context: RequestContext, target: Target, asked: Asked, seen: Sequence[Event], label: Label
    ) -> None:
        """Keep what later questions may go on from."""
        conversations, responses = self.memory
        await conversations.keep(target.name, context.user, asked.turn, seen)
        if context.surface == "responses" and asked.echo.get("store") is not False:
            *messages, answer = remembered(asked, seen, label)
            await responses.put(context.user, f"resp_{label.id}", messages, answer)

    # What is counted

    def ended(self, context: RequestContext, attempt: Attempt) -> None:
        """The attempt gave the whole answer."""
        self.router.answered(context.journal, attempt)
        context.usage = settle(attempt)

    def broke(self, context: RequestContext, attempt: Attempt, error: TolmachError) -> None:
        """The attempt broke off after its first token; what it had used is kept."""
        self.router.failed(context.journal, attempt, error)
        context.usage = settle(attempt)

    def cancelled(self, context: RequestContext, attempt: Attempt) -> None:
        """The caller went away in mid-answer."""
        if not attempt.outcome:
            self.router.cancelled(context.journal, attempt)
            context.usage = settle(attempt)

    def log_failure(self, context: RequestContext, error: TolmachError) -> None:
        """A question that ends in an error."""
        context.error = type(error).__name__
        self.metrics.failed(context.surface, context.target, context.error)
        _log.info("request %s: %s: %s", context.id, type(error).__name__, error)
