"""A question answered in events by the targets of a plan: routing without a server.

What the gateway does with bytes (`gateway.answers`) is done here with events, by the same loop.
"""

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial

from msgspec import Struct, structs

from tolmach.chat import ChatRequest, Conversation, Done, Event, Message, Notice, Usage
from tolmach.errors import ConfigError, TolmachError
from tolmach.routing.journal import Attempt, Journal
from tolmach.routing.resume import Resumption
from tolmach.routing.router import Router, first_token, go_on_from
from tolmach.routing.targets import Plan, Target
from tolmach.transport import Timeouts

__all__ = ["RoutedAnswer"]

_OF = "tolmach.target"
"""The key in a conversation that says whose it is: another target is not told of it."""


class _Opened(Struct):
    """A target's answer from its first token on. `seen` has the events that were read."""

    attempt: Attempt
    events: AsyncGenerator[Event, None]
    seen: list[Event]

    async def aclose(self) -> None:
        await self.events.aclose()


class RoutedAnswer:
    """One question and its answer. `target` is who answers, or the first choice until somebody does.

    `strict` is that of `Session.ask`; `total` is the seconds for all attempts together, None for those of the plan.
    Raises `ConfigError` for a conversation that no target of a route has begun.
    """

    def __init__(
        self, router: Router, plan: Plan, turn: ChatRequest, *, strict: bool = True, total: float | None = None
    ) -> None:
        if turn.conversation is not None and _OF not in turn.conversation.state:
            raise ConfigError("conversation: not one of a route's answers, so nobody can say which target it is for")
        self.target = plan.first
        self.journal = Journal()
        self.journal.total = total
        self._router = router
        self._plan = plan
        self._turn = turn
        self._strict = strict
        rules = plan.rules
        self._held = not turn.stream or rules.recover == "restart"
        self._resumes = not self._held and rules.recover == "resume" and rules.attempts > 1

    async def events(self) -> AsyncGenerator[Event, None]:
        """The answer. Raises the last failure where nobody answered, and the first one where an answer broke off."""
        opened = await self._router.begin(self._plan, self.journal, self._open)
        answer = Resumption()
        try:
            async with aclosing(self._given(opened)) as events:
                async for event in events:
                    answer.tell(event)
                    yield event
            return
        except TolmachError as error:
            failure = error
        async with aclosing(self._rescued(answer, failure)) as rest:
            async for event in rest:
                yield event

    async def _rescued(self, answer: Resumption, failure: TolmachError) -> AsyncGenerator[Event, None]:
        """The rest of an answer that broke off. Raises `failure` when nobody can give it."""

        async def going_on(target: Target, attempt: Attempt, timeouts: Timeouts) -> _Opened:
            return await go_on_from(answer.text, attempt, partial(self._begun, target, attempt, timeouts))

        another: TolmachError | None = None
        while self._resumes and answer.possible:
            try:
                rest = await self._router.begin(self._plan, self.journal, going_on, goes_on=True)
            except TolmachError as error:
                another = error
                break
            answer.go_on(rest.attempt.prefilled)
            try:
                async with aclosing(self._given(rest)) as events:
                    async for event in events:
                        for new in answer.feed(event):
                            yield new
                return
            except TolmachError:
                continue  # it stands in the journal, and the policy says what follows
        failure.partial = answer.text or failure.partial
        raise failure from another

    # One target

    async def _open(self, target: Target, attempt: Attempt, timeouts: Timeouts) -> _Opened:
        opened = await self._begun(target, attempt, timeouts)
        if not self._held:
            return opened
        try:
            opened.seen += [event async for event in opened.events]
        except TolmachError:
            attempt.usage = _usage(opened.seen)
            raise
        finally:
            await opened.aclose()
        return opened

    async def _begun(self, target: Target, attempt: Attempt, timeouts: Timeouts, prefill: str = "") -> _Opened:
        """The target's answer once its first token is there. A whole answer has no first token to wait for."""
        if self.journal.deadline is not None:
            timeouts = timeouts.within(self.journal.deadline - time.monotonic())
        opened = _Opened(attempt, self._ask(target, timeouts, prefill), [])
        try:
            await first_token(_read_first(opened), target, timeouts.first_byte if self._turn.stream else None)
        except BaseException:
            await opened.aclose()
            raise
        attempt.first = self.journal.now()
        return opened

    def _ask(self, target: Target, timeouts: Timeouts, prefill: str) -> AsyncGenerator[Event, None]:
        turn, own = self._turn, None
        if turn.conversation is not None and turn.conversation.state[_OF] == target.name:
            own = Conversation({key: value for key, value in turn.conversation.state.items() if key != _OF})
        messages = turn.messages
        if prefill:
            messages = (*messages, Message("assistant", prefill))
        turn = structs.replace(turn, model=target.model, messages=messages, conversation=own)
        strict = self._strict or target.provider.strict
        return target.session.ask(turn, strict=strict, timeouts=timeouts, forgive=self._resumes)

    async def _given(self, opened: _Opened) -> AsyncGenerator[Event, None]:
        """The events of an answer that was begun, and what became of the attempt noted."""
        attempt = opened.attempt
        self.target = attempt.target
        try:
            for event in list(opened.seen):
                yield self._noted(attempt, event, opened.seen)
            async for event in opened.events:
                opened.seen.append(event)
                yield self._noted(attempt, event, opened.seen)
        except TolmachError as error:
            attempt.usage = _usage(opened.seen)
            self._router.failed(self.journal, attempt, error)
            raise
        except BaseException:
            attempt.usage = _usage(opened.seen)
            self._router.cancelled(self.journal, attempt)
            raise
        finally:
            await opened.aclose()

    def _noted(self, attempt: Attempt, event: Event, seen: list[Event]) -> Event:
        """The event as the caller is told it. The last one says that the attempt has answered."""
        if type(event) is Done:
            attempt.usage = _usage(seen)
            self._router.answered(self.journal, attempt)
        elif type(event) is Conversation:
            return Conversation({**event.state, _OF: attempt.target.name})
        return event


async def _read_first(opened: _Opened) -> None:
    async for event in opened.events:
        opened.seen.append(event)
        if type(event) is not Notice:
            break


def _usage(seen: list[Event]) -> Usage | None:
    return next((event for event in reversed(seen) if type(event) is Usage), None)
