"""The one loop that carries out what the routing policy says: asks, waits, asks another, gives up."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import TypeVar

from tolmach.errors import BadRequest, ContextTooLong, ProviderUnavailable, RateLimited, TimedOut, TolmachError
from tolmach.routing.failures import passes
from tolmach.routing.health import Health
from tolmach.routing.journal import Attempt, Journal
from tolmach.routing.policy import Ask, Choice, Failed, GiveUp, Strategy, classify, next_step
from tolmach.routing.targets import Plan, Target
from tolmach.transport import Timeouts

__all__ = ["Open", "Router", "first_token", "go_on_from"]

T = TypeVar("T")

Open = Callable[[Target, Attempt, Timeouts], Awaitable[T]]
"""Asks a target; gives what it opened once the first token is there. Closes what it opened when it raises."""

_CHOSEN: dict[Strategy, str] = {
    "failover": "first in order",
    "weighted": "drawn by weight",
    "fastest": "the quickest to a first token, or not measured yet",
}
"""Why a target is the first to be asked."""

_BESIDES = frozenset({"unsupported"})
"""Kinds of failure in which the target was not asked at all."""


class Router:
    """Asks targets in turn. One for a process: what it learns of their health serves all questions.

    `on_opened` is told of each circuit that opens: the id of the choice, and whether it is that of its key only.
    """

    def __init__(
        self,
        health: Health | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
        on_opened: Callable[[str, bool], None] | None = None,
    ) -> None:
        self.health = health or Health()
        self._clock = clock
        self._chance = chance
        self._on_opened = on_opened

    async def begin(self, plan: Plan, journal: Journal, open: Open[T], *, goes_on: bool = False) -> T:
        """What the first target to give a token opened; with `goes_on` where the caller has a part of an answer.

        Raises the last failure when the policy gives up, and what `journal.permit` raises; each attempt stands in
        the journal.
        """
        if journal.total is None:
            journal.total = plan.first.timeouts.total
        while True:
            step = next_step(
                plan.rules,
                plan.choices,
                journal.failed,
                self.health,
                self._clock(),
                self._chance,
                journal.deadline,
                begun=goes_on,
            )
            if type(step) is GiveUp:
                journal.passed_over(step.skipped)
                raise self._last(journal, step)
            assert type(step) is Ask
            if step.skipped:
                journal.passed_over(step.skipped)
            if step.wait:
                await asyncio.sleep(step.wait)
            if journal.permit is not None:
                await journal.permit(plan.targets[step.choice.id])
            if plan.rules.hedge_after is not None and not journal.failed and len(plan.choices) > 1:
                opened = await self._hedged(plan, journal, open, step, plan.rules.hedge_after)
                if opened is not None:
                    return opened[0]
                continue
            try:
                return await self._ask(plan, journal, open, step, self._reason(plan, journal, step, goes_on))
            except TolmachError:
                continue  # it stands in the journal, and the policy says what follows

    async def _ask(self, plan: Plan, journal: Journal, open: Open[T], step: Ask, why: str) -> T:
        """One attempt. Raises its failure, noted."""
        choice = step.choice
        target = plan.targets[choice.id]
        attempt = journal.begin(target, why, step.probe)
        self.health.started(choice.id, self._clock(), step.probe)
        try:
            opened = await open(target, attempt, self._timeouts(target, journal))
        except TolmachError as error:
            self.failed(journal, attempt, error)
            raise
        except BaseException:
            self.cancelled(journal, attempt)
            raise
        if step.probe:
            # A probe that gave a token has shown what it had to: the others need not wait for its end.
            self.health.succeeded(choice.id, self._clock(), None)
        return opened

    def _timeouts(self, target: Target, journal: Journal) -> Timeouts:
        if len(journal.attempts) == 1:
            return target.timeouts
        deadline = journal.deadline
        return target.timeouts if deadline is None else target.timeouts.within(deadline - time.monotonic())

    def _reason(self, plan: Plan, journal: Journal, step: Ask, goes_on: bool) -> str:
        if not journal.failed:
            return "goes on with a broken stream" if goes_on else _CHOSEN[plan.rules.strategy]
        last = journal.failed[-1]
        if last.choice == step.choice:
            return f"again, after {last.kind}"
        return f"after {last.choice.target} failed: {last.kind}"

    def _last(self, journal: Journal, step: GiveUp) -> TolmachError:
        """What the caller is told: the last failure of a target that was asked, else the last of all."""
        errors = [attempt.error for attempt in journal.attempts if attempt.error is not None]
        asked = [
            attempt.error
            for attempt in journal.attempts
            if attempt.error is not None and classify(attempt.error) not in _BESIDES
        ]
        if asked or errors:
            return (asked or errors)[-1]
        if step.retry_after is not None:
            return RateLimited(f"no target may be asked now: {step.why}", status=429, retry_after=step.retry_after)
        return ProviderUnavailable(f"no target could be asked: {step.why}", status=503)

    # What became of an attempt

    def answered(self, journal: Journal, attempt: Attempt) -> None:
        """The attempt's answer is whole."""
        attempt.ended = journal.now()
        attempt.outcome = "answered"
        first = None if attempt.first is None else attempt.first - attempt.started
        self.health.succeeded(attempt.target.choice.id, self._clock(), first)

    def failed(self, journal: Journal, attempt: Attempt, error: TolmachError) -> None:
        """The attempt failed, before its first token or after."""
        kind = classify(error)
        attempt.ended = journal.now()
        attempt.outcome = "failed"
        attempt.error = error
        now = self._clock()
        wait: float | None = getattr(error, "retry_after", None)
        choice = attempt.target.choice
        journal.failed.append(Failed(choice, kind, now, wait, kind not in _BESIDES, passes(error)))
        opened = self.health.failed(choice.id, kind, now, wait, attempt.target.circuit)
        if opened and self._on_opened is not None:
            self._on_opened(choice.id, kind == "credentials")

    def cancelled(self, journal: Journal, attempt: Attempt) -> None:
        """The caller went away, or another attempt was quicker."""
        if attempt.outcome:
            return
        attempt.ended = journal.now()
        attempt.outcome = "cancelled"
        self.health.released(attempt.target.choice.id)

    # Two at once

    async def _hedged(self, plan: Plan, journal: Journal, open: Open[T], step: Ask, after: float) -> tuple[T] | None:
        """Ask, and after so many seconds without a token a second target too; what the quicker one opened.

        None when both failed, or the first did before its time. The slower one is cancelled.
        """
        racing = [asyncio.ensure_future(self._ask(plan, journal, open, step, _CHOSEN[plan.rules.strategy]))]
        won: asyncio.Future[T] | None = None
        try:
            done, _ = await asyncio.wait(racing, timeout=after)
            if not done and (second := await self._beside(plan, journal, step.choice)) is not None:
                racing.append(
                    asyncio.ensure_future(
                        self._ask(plan, journal, open, second, f"{step.choice.target} gave no token for {after:g} s")
                    )
                )
            pending = set(racing)
            while pending and won is None:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                won = next((one for one in racing if one in done and not one.exception()), None)
                for one in done:
                    failure = one.exception()
                    if failure is not None and not isinstance(failure, TolmachError):
                        raise failure
            return None if won is None else (won.result(),)
        finally:
            await self._end([one for one in racing if one is not won])

    async def _end(self, losers: "Sequence[asyncio.Future[T]]") -> None:
        for one in losers:
            one.cancel()
        for ended in await asyncio.gather(*losers, return_exceptions=True):
            # One that was through at the same moment has something open.
            if (close := getattr(ended, "aclose", None)) is not None:
                with suppress(TolmachError):  # it was not wanted any more
                    await close()

    async def _beside(self, plan: Plan, journal: Journal, running: Choice) -> Ask | None:
        """The next target that is no key of the one that runs, if it may be asked at once."""
        others = tuple(choice for choice in plan.choices if choice.target != running.target)
        if not others or plan.rules.attempts < 2:
            return None
        step = next_step(plan.rules, others, (), self.health, self._clock(), self._chance, None)
        if type(step) is not Ask or step.wait or not self.health.usable(step.choice.id, self._clock()):
            return None
        if journal.permit is not None:
            try:
                await journal.permit(plan.targets[step.choice.id])
            except TolmachError:
                return None  # what runs is paid for, and nothing beside it
        return step


async def first_token(opening: Awaitable[T], target: Target, seconds: float | None) -> T:
    """What is opened, if its first token comes within so many seconds. Raises `TimedOut`."""
    try:
        async with asyncio.timeout(seconds) as limit:
            return await opening
    except TimeoutError as error:
        if not limit.expired() or isinstance(error, TimedOut):
            raise
        raise TimedOut(
            f"{target.name}: no token within {seconds or 0:g} s", phase="first_byte", seconds=seconds
        ) from error


async def go_on_from(so_far: str, attempt: Attempt, begin: Callable[[str], Awaitable[T]]) -> T:
    """What `begin` opens of an answer that goes on from `so_far`.

    It is given that as a prefill where the provider takes one, and nothing else where the target refuses it
    after all: not every model of a service does.
    """
    attempt.prefilled = bool(so_far) and attempt.target.provider.prefill
    try:
        return await begin(so_far if attempt.prefilled else "")
    except BadRequest as error:
        if not attempt.prefilled or isinstance(error, ContextTooLong):
            raise
    attempt.prefilled = False
    return await begin("")
