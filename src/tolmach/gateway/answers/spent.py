"""What an attempt to answer took, however it ended: as the service counted it, else by estimate.

Whoever asks a service notes it in the attempt (`Attempt.send`), with the list that gets the events of the answer; so
what had come is known when the attempt fails or is given up. Paid is what a service has worked for: a whole answer,
what came of one that broke off, the question that was sent and given up. A refusal costs nothing, nor does a question
that reached nobody.
"""

from collections.abc import Sequence

from tolmach.chat import Event, Usage
from tolmach.errors import ConnectionLost, ProviderUnavailable, RemoteProtocolError, TimedOut, TolmachError
from tolmach.gateway.answers.estimate import answer_texts, estimate_tokens
from tolmach.protocols.usage import believed
from tolmach.routing.journal import Attempt, Journal, Sent

__all__ = ["settle", "settle_all"]


def settle(attempt: Attempt) -> Usage | None:
    """What an attempt that has ended took, None for nothing: noted in it once, and its events are let go."""
    if attempt.sent:
        used = [usage for sent in attempt.sent if (usage := _used(sent, attempt)) is not None]
        attempt.usage = _sum(used) if len(used) > 1 else used[0] if used else None
        attempt.sent.clear()
    return attempt.usage


def settle_all(journal: Journal) -> None:
    """Settle all attempts of a question that is over."""
    for attempt in journal.attempts:
        settle(attempt)


def _sum(usages: Sequence[Usage]) -> Usage:
    """Several together: an estimate as soon as one of them is."""
    prompt, completion = sum(one.prompt_tokens for one in usages), sum(one.completion_tokens for one in usages)
    return Usage(
        prompt,
        completion,
        prompt + completion,
        any(one.estimated for one in usages),
        sum(one.cached_tokens for one in usages),
        sum(one.reasoning_tokens for one in usages),
    )


def _used(sent: Sent, attempt: Attempt) -> Usage | None:
    counted = _counted(sent.seen)
    if counted is not None:
        return counted
    completion = estimate_tokens("".join(answer_texts(sent.seen)))
    error = sent.error if len(attempt.sent) > 1 else attempt.error
    if not completion and error is not None and not _worked(error, sent):
        return None
    prompt = sent.prompt()
    # Some questions are free: that for the number of tokens.
    return Usage(prompt, completion, prompt + completion, estimated=True) if prompt or completion else None


def _counted(seen: Sequence[Event]) -> Usage | None:
    """The last count of tokens among the events that can be; it stands near their end."""
    for event in reversed(seen):
        if type(event) is Usage and (usage := believed(event)) is not None:
            return usage
    return None


def _worked(error: TolmachError, sent: Sent) -> bool:
    """Whether a service that failed before a word of its answer had read the question all the same."""
    if isinstance(error, TimedOut):
        return error.phase != "connect"
    if isinstance(error, ConnectionLost):
        return sent.begun
    if isinstance(error, RemoteProtocolError) or (isinstance(error, ProviderUnavailable) and error.code == "empty"):
        return (error.status or 200) < 400
    return False
