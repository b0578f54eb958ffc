"""A stream that broke off, gone on with by another target: `recover = "resume"`.

The caller has a part of the answer already. Another target gives the rest: it goes on from that part
where it accepts one as a prefill, else it is asked again, and what it repeats is removed (`routing.resume`).
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial

from tolmach.chat import Done, Event
from tolmach.errors import TolmachError
from tolmach.gateway.answers.outcomes import Outcomes
from tolmach.gateway.answers.question import Question
from tolmach.gateway.answers.streams import EventStream, RelayedStream, Stream
from tolmach.gateway.context import RequestContext
from tolmach.gateway.http import Writer
from tolmach.gateway.surfaces.base import StreamEncoder
from tolmach.gateway.surfaces.responses import ResponseStream
from tolmach.routing.journal import Attempt
from tolmach.routing.resume import Resumption
from tolmach.routing.router import first_token, go_on_from
from tolmach.routing.targets import Plan, Target
from tolmach.transport import Timeouts

__all__ = ["Recovery"]


class Recovery:
    """Goes on with one broken stream."""

    def __init__(
        self,
        outcomes: Outcomes,
        context: RequestContext,
        question: Question,
        plan: Plan,
        stream: Stream,
    ) -> None:
        self._outcomes = outcomes
        self._context = context
        self._question = question
        self._plan = plan
        self._answer = Resumption(stream.told() if question.resumes else ())
        self._by_first = len(self._answer.told)
        """So many of the events that were told came from the stream that broke."""
        self._seen = stream.seen
        self._broken = stream

    async def run(self, writer: Writer) -> bool:
        """Write the rest of the answer; whether it is whole now. Nothing is written when no target goes on."""
        if not self._question.resumes or not self._answer.possible:
            return False
        await self._broken.aclose()
        router = self._outcomes.router
        while True:
            try:
                rest = await router.begin(self._plan, self._context.journal, self._open, goes_on=True)
            except TolmachError:
                return False  # the caller is told the first failure; this one stands in the journal
            try:
                await self._write(writer, rest)
            except TolmachError as error:
                self._outcomes.broke(self._context, rest.attempt, error)
                if not self._answer.possible:
                    return False
            except BaseException:
                self._outcomes.cancelled(self._context, rest.attempt)
                raise
            else:
                return True
            finally:
                await rest.aclose()

    async def _open(self, target: Target, attempt: Attempt, timeouts: Timeouts) -> EventStream:
        begin = partial(self._question.going_on, target, attempt, timeouts)
        return await first_token(go_on_from(self._answer.text, attempt, begin), target, timeouts.first_byte)

    async def _write(self, writer: Writer, rest: EventStream) -> None:
        encoder = self._primed(rest)
        self._answer.go_on(rest.attempt.prefilled)
        async with aclosing(self._events(rest)) as events:
            async for event in events:
                # So that the signs of life see that something comes.
                self._seen.append(event)
                news = self._answer.feed(event)
                if type(event) is Done:
                    await self._complete(rest)
                for new in news:
                    if data := encoder.feed(new):
                        await writer.write(data)
                if type(event) is Done:
                    return

    async def _complete(self, rest: EventStream) -> None:
        """All of the answer is there. It is remembered as the caller has it, unless the first service does that."""
        context, target = self._context, rest.attempt.target
        context.target = target.name
        if rest.asked is not None and isinstance(self._broken, EventStream):
            label = self._question.label(target)
            await self._outcomes.remember(context, target, rest.asked, self._answer.told, label)
        await self._outcomes.complete(context, rest.attempt, rest.seen, rest.asked)

    async def _events(self, rest: EventStream) -> AsyncGenerator[Event, None]:
        for event in list(rest.seen):
            yield event
        tick = self._outcomes.metrics.pacing(rest.attempt.target.name).tick
        async for event in rest.events:
            tick()
            rest.seen.append(event)
            yield event

    def _primed(self, rest: EventStream) -> StreamEncoder:
        """An encoder that has told what the caller knows already, and names the target that goes on."""
        assert rest.asked is not None
        encoder = self._question.surface.stream(rest.asked, self._question.label(rest.attempt.target))
        encoder.open()
        for event in self._answer.told[: self._by_first]:
            encoder.feed(event)
        if isinstance(encoder, ResponseStream) and isinstance(self._broken, RelayedStream):
            encoder.go_on_from(self._broken.sent)
        for event in self._answer.told[self._by_first :]:
            encoder.feed(event)
        return encoder
