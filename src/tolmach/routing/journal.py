"""What was tried for one question: the attempts with their times and outcomes, and who was passed over and why."""

import time
from collections.abc import Awaitable, Callable
from typing import Literal

from msgspec import Struct

from tolmach.chat import Event, Usage
from tolmach.errors import TolmachError
from tolmach.routing.policy import Choice, Failed, Skipped
from tolmach.routing.targets import Target
from tolmach.wire import Head

__all__ = ["Attempt", "Journal", "Outcome", "Sent"]

Outcome = Literal["", "answered", "failed", "cancelled"]


class Sent(Struct, kw_only=True):
    """A question as it was put to a service, and what came of the answer."""

    prompt: Callable[[], int]
    """Its tokens, by estimate."""
    seen: list[Event]
    begun: bool = False
    """Whether the service had begun to answer before its first event: its head was no refusal's."""
    error: TolmachError | None = None
    """What it failed of, where the attempt has others beside it."""


class Attempt:
    """One asking of one target. Times are seconds from the question's arrival.

    `why` tells why this target was asked, `first` when its first token came, `ended` when it was over, `prefilled`
    whether it was given the beginning of the answer to go on from.
    """

    __slots__ = (
        "ended",
        "error",
        "first",
        "head",
        "number",
        "outcome",
        "prefilled",
        "probe",
        "sent",
        "started",
        "target",
        "usage",
        "why",
    )

    def __init__(self, number: int, target: Target, why: str, started: float, probe: bool) -> None:
        self.number = number
        self.target = target
        self.why = why
        self.started = started
        self.probe = probe
        self.prefilled = False
        self.first: float | None = None
        self.ended: float | None = None
        self.outcome: Outcome = ""
        self.error: TolmachError | None = None
        self.sent: list[Sent] = []
        """What was sent in it: more than once where several answers are asked for, or one is asked for again."""
        self.usage: Usage | None = None
        """What it took, once that is settled."""
        self.head: Head | None = None
        """The head of a refusal that came from the target itself, where the body was passed on."""

    def send(self, prompt: Callable[[], int], seen: list[Event]) -> Sent:
        """Note that a question goes out now, with the list that gets the events of its answer."""
        sent = Sent(prompt=prompt, seen=seen)
        self.sent.append(sent)
        return sent

    def __str__(self) -> str:
        """For people: `local/gpt-4o failed (TimedOut) after 0.512 s`."""
        told = f"{self.target.name}"
        if self.target.choice.key:
            told += f" (key {self.target.choice.key + 1})"
        told += f" {self.outcome or 'asked'}"
        if self.error is not None:
            told += f" ({type(self.error).__name__})"
        if self.ended is not None:
            told += f" after {self.ended - self.started:.3f} s"
        elif self.first is not None:
            told += f", first token after {self.first - self.started:.3f} s"
        return told


class Journal:
    """The attempts of one question, in order, and what the policy has to know of them.

    `total` is how many seconds all of them together may take; None for no limit.
    """

    __slots__ = ("attempts", "failed", "permit", "skipped", "started", "total")

    def __init__(self, started: float | None = None) -> None:
        self.started = time.monotonic() if started is None else started
        self.total: float | None = None
        self.permit: Callable[[Target], Awaitable[None]] | None = None
        """Asked before each attempt, where somebody pays for them. Raises what the question ends in without it."""
        self.attempts: list[Attempt] = []
        self.failed: list[Failed] = []
        self.skipped: list[tuple[float, Skipped]] = []

    def now(self) -> float:
        """Seconds since the question came."""
        return time.monotonic() - self.started

    def begin(self, target: Target, why: str, probe: bool) -> Attempt:
        attempt = Attempt(len(self.attempts) + 1, target, why, self.now(), probe)
        self.attempts.append(attempt)
        return attempt

    @property
    def deadline(self) -> float | None:
        """When all has to be over, by `time.monotonic`."""
        return None if self.total is None else self.started + self.total

    def passed_over(self, skipped: tuple[Skipped, ...]) -> None:
        if skipped:
            now = self.now()
            self.skipped += [(now, one) for one in skipped]

    def lines(self) -> list[str]:
        """What happened, a line for each step, in the order of time; for people."""
        steps = [(attempt.started, attempt.number, f"{attempt}: {attempt.why}") for attempt in self.attempts]
        steps += [(at, 0, f"{_named(one.choice)} passed over: {one.why}") for at, one in self.skipped]
        return [f"{at:.3f} s {line}" for at, _, line in sorted(steps)]


def _named(choice: Choice) -> str:
    """The target, and which of its keys when it is not the first."""
    return f"{choice.target} (key {choice.key + 1})" if choice.key else choice.target
