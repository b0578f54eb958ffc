"""Several answers to one question, from a target that gives one at a time: it is asked as many times at once."""

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Sequence
from contextlib import aclosing
from typing import Any, TypeVar

from msgspec import Struct, structs

from tolmach.chat import Event, Notice
from tolmach.errors import TolmachError, UnsupportedFeature
from tolmach.gateway.answers.degradation import ask
from tolmach.gateway.answers.early_head import EarlyHead
from tolmach.gateway.answers.outcomes import Outcomes
from tolmach.gateway.answers.question import Question
from tolmach.gateway.context import RequestContext
from tolmach.gateway.surfaces.base import Asked
from tolmach.gateway.surfaces.openai import OpenAISurface, SeveralStreams
from tolmach.routing.journal import Attempt
from tolmach.routing.targets import Plan, Target
from tolmach.transport import Timeouts
from tolmach.transport.drain import let_end

__all__ = ["answer_several"]

T = TypeVar("T")


class _Answers(Struct, frozen=True):
    attempt: Attempt
    asked: Asked
    answers: list[list[Event]]


async def answer_several(
    outcomes: Outcomes, early_head: EarlyHead, context: RequestContext, question: Question, plan: Plan, n: int
) -> None:
    """Answer a question for `n` answers by chat completions. Raises what fails before the head of the answer."""
    if not isinstance(question.surface, OpenAISurface):
        raise UnsupportedFeature("n: this API gives one answer", feature="n")
    asked = await question.asked()
    if asked.stream:
        opening = outcomes.router.begin(plan, context.journal, _Opening(question, n).streams)
        streams = await early_head.during(context, opening)
        try:
            await streams.write(outcomes, context)
        finally:
            await streams.aclose()
            outcomes.cancelled(context, streams.attempt)
        return
    found = await outcomes.router.begin(plan, context.journal, _Opening(question, n).whole)
    await outcomes.complete(context, found.attempt)
    context.answered_by(found.attempt)
    context.degraded(found.asked.echo.get("dropped", ()), found.answers[0])
    label = question.label(found.attempt.target)
    await context.send(200, question.surface.whole_of_several(found.asked, found.answers, label))


class _Opening:
    """How `n` answers of a target begin."""

    def __init__(self, question: Question, n: int) -> None:
        self._question = question
        self._n = n

    async def _asking(
        self, target: Target, attempt: Attempt, timeouts: Timeouts
    ) -> tuple[Asked, list[list[Event]], list[AsyncGenerator[Event, None]]]:
        """The question, and for each answer the list that is to get its events, and the events."""
        asked = await self._question.asked()
        options = {name: value for name, value in asked.turn.options.items() if name != "n"}
        turn = structs.replace(asked.turn, model=target.model, options=options)
        asked = structs.replace(asked, turn=self._question.limited(turn, target))
        answers: list[list[Event]] = [[] for _ in range(self._n)]
        return asked, answers, [ask(target, asked.turn, timeouts, attempt, seen) for seen in answers]

    async def whole(self, target: Target, attempt: Attempt, timeouts: Timeouts) -> _Answers:
        asked, answers, asking = await self._asking(target, attempt, timeouts)

        async def collect(seen: list[Event], events: AsyncGenerator[Event, None]) -> None:
            async with aclosing(_noted(attempt, seen, events)) as noted:
                async for _ in noted:
                    pass

        await _all([collect(*each) for each in zip(answers, asking, strict=True)])
        attempt.first = self._question.context.journal.now()
        return _Answers(attempt, asked, answers)

    async def streams(self, target: Target, attempt: Attempt, timeouts: Timeouts) -> "_Streams":
        asked, answers, asking = await self._asking(target, attempt, timeouts)
        surface = self._question.surface
        assert isinstance(surface, OpenAISurface)
        encoder = surface.streams(asked, self._question.label(target), self._n)
        streams = _Streams(attempt, asked, encoder, answers, asking)
        try:
            await streams.begin()
        except BaseException:
            await streams.aclose()
            raise
        attempt.first = self._question.context.journal.now()
        return streams


class _Streams:
    """Answers that arrive side by side, in one stream."""

    def __init__(
        self,
        attempt: Attempt,
        asked: Asked,
        encoder: SeveralStreams,
        answers: list[list[Event]],
        asking: list[AsyncGenerator[Event, None]],
    ) -> None:
        self.attempt = attempt
        self.asked = asked
        self.encoder = encoder
        self.seen: list[Event] = []
        self._arrived: asyncio.Queue[tuple[int, Event] | None] = asyncio.Queue(maxsize=64)
        self._before: list[tuple[int, Event]] = []
        self._answers = answers
        self._pumping = asyncio.ensure_future(self._pump_all(asking))

    async def _pump(self, index: int, events: AsyncGenerator[Event, None]) -> None:
        async with aclosing(_noted(self.attempt, self._answers[index], events)) as noted:
            async for event in noted:
                await self._arrived.put((index, event))

    async def _pump_all(self, asking: list[AsyncGenerator[Event, None]]) -> None:
        try:
            await _all([self._pump(index, events) for index, events in enumerate(asking)])
        except Exception:  # whatever failed, the reader is to be woken; it raises it again
            await self._arrived.put(None)
            raise
        await self._arrived.put(None)

    async def begin(self) -> None:
        """Wait for the first token of any."""
        item = await self._arrived.get()
        while item is not None and type(item[1]) is Notice:
            self._before.append(item)
            item = await self._arrived.get()
        if item is None:
            await self._pumping  # raises what failed before anything came
        else:
            self._before.append(item)
        self.seen += [event for _, event in self._before]

    async def write(self, outcomes: Outcomes, context: RequestContext) -> None:
        context.answered_by(self.attempt)
        notices = {event.text: event for event in self.seen if type(event) is Notice}
        context.degraded(self.asked.echo.get("dropped", ()), notices.values())
        writer = await context.stream()
        with outcomes.streaming(writer, self):
            try:
                if opening := b"".join([self.encoder.feed(*item) for item in self._before]):
                    await writer.write(opening)
                while not self.encoder.ended and (item := await self._arrived.get()) is not None:
                    self.seen.append(item[1])
                    data = self.encoder.feed(*item)
                    if self.encoder.ended:
                        await outcomes.complete(context, self.attempt)
                    if data:
                        await writer.write(data)
                if not self.encoder.ended:
                    await self._pumping  # raises what failed
            except TolmachError as error:
                outcomes.broke(context, self.attempt, error)
                outcomes.log_failure(context, error)
                await writer.write(self.encoder.fail(context.public_error(error, self.attempt.target)))

    async def aclose(self) -> None:
        if self.encoder.ended:
            let_end(self._pumping)
            return
        self._pumping.cancel()
        await asyncio.gather(self._pumping, return_exceptions=True)


async def _noted(
    attempt: Attempt, seen: list[Event], events: AsyncGenerator[Event, None]
) -> AsyncGenerator[Event, None]:
    """The events of one answer, put into `seen`; what it failed of is its own."""
    try:
        async with aclosing(events):
            async for event in events:
                seen.append(event)
                yield event
    except TolmachError as error:
        for sent in attempt.sent:
            if sent.seen is seen:
                sent.error = error
        raise


async def _all(waiting: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """The results of all; the first to fail cancels the others and is raised."""
    tasks = [asyncio.ensure_future(one) for one in waiting]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
