"""What the ledger is told of each question at its end."""

import os
import time

from tolmach.chat import Usage
from tolmach.gateway.context import RequestContext
from tolmach.ledger.rows import AttemptRow, RequestRow, new_uid
from tolmach.ledger.writer import Ledger
from tolmach.routing.journal import Attempt

__all__ = ["Recording"]

_NONE = Usage(0, 0, 0)


class Recording:
    """Writes questions, with each attempt to answer them, into a ledger. Costs a few microseconds."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self._worker = os.getpid()

    def __call__(self, context: RequestContext) -> None:
        """A question has ended."""
        uid = new_uid()
        total = time.monotonic() - context.started
        at = time.time() - total
        usage = context.usage or _NONE
        first = context.first
        request = RequestRow(
            uid=uid,
            request=context.id,
            at=at,
            surface=context.surface,
            model=context.model,
            target=context.target,
            key=context.key.id if context.key is not None else "",
            status=context.status,
            error=context.error,
            gone=context.gone,
            streamed=context.streamed,
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            cached_tokens=usage.cached_tokens,
            estimated=usage.estimated,
            first_ms=None if first is None else first * 1000,
            total_ms=total * 1000,
            worker=self._worker,
        )
        self.ledger.add(request, [_row(uid, at, attempt, total) for attempt in context.journal.attempts])


def _row(uid: str, at: float, attempt: Attempt, total: float) -> AttemptRow:
    usage = attempt.usage or _NONE
    ended = total if attempt.ended is None else attempt.ended
    error = attempt.error
    return AttemptRow(
        uid=uid,
        number=attempt.number,
        at=at + attempt.started,
        target=attempt.target.name,
        credential=attempt.target.choice.key,
        status=(getattr(error, "status", None) or 0) if error is not None else 200 if attempt.first is not None else 0,
        outcome=attempt.outcome or "cancelled",
        error="" if error is None else type(error).__name__,
        reason=attempt.why,
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        cached_tokens=usage.cached_tokens,
        estimated=usage.estimated,
        first_ms=None if attempt.first is None else (attempt.first - attempt.started) * 1000,
        total_ms=(ended - attempt.started) * 1000,
    )
