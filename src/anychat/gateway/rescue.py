"""A stream that broke off, gone on with by another target: `recover = "resume"`.

The caller has a part of the answer already. Another target gives the rest: it goes on from that part
where it accepts one as a prefill, else it is asked again, and what it repeats is removed (`routing.resume`).
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING

from anychat.chat import Event
from anychat.errors import AnychatError
from anychat.gateway.http import Writer
from anychat.gateway.question import Question
from anychat.gateway.streams import EventStream, RelayedStream, Stream
from anychat.gateway.surfaces.base import StreamEncoder
from anychat.gateway.surfaces.responses import ResponseStream
from anychat.gateway.visit import Visit
from anychat.routing.journal import Attempt
from anychat.routing.loop import first_token
from anychat.routing.resume import Resumption
from anychat.routing.targets import Plan, Target
from anychat.transport import Timeouts

if TYPE_CHECKING:
    from anychat.gateway.answering import Answering

__all__ = ["Rescue"]


class Rescue:
    """Goes on with one broken stream."""

    def __init__(
        self,
        answering: "Answering",
        visit: Visit,
        question: Question,
        plan: Plan,
        stream: Stream,
    ) -> None:
        self._answering = answering
        self._visit = visit
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
        router = self._answering.router
        while True:
            try:
                rest = await router.begin(
                    self._plan, self._visit.journal, self._open, why="goes on with a broken stream"
                )
            except AnychatError:
                return False  # the caller is told the first failure; this one stands in the journal
            try:
                await self._write(writer, rest)
            except AnychatError as error:
                self._answering.broke(self._visit, rest.attempt, error, rest.seen, rest.asked)
                if not self._answer.possible:
                    return False
            except BaseException:
                self._answering.cancelled(self._visit, rest.attempt, rest.seen, rest.asked)
                raise
            else:
                self._answering.ended(self._visit, rest.attempt, rest.seen, rest.asked)
                self._visit.target = rest.attempt.target.name
                return True
            finally:
                await rest.aclose()

    async def _open(self, target: Target, attempt: Attempt, timeouts: Timeouts) -> EventStream:
        going_on = self._question.going_on(target, attempt, timeouts, self._answer.text)
        return await first_token(going_on, target, timeouts.first_byte)

    async def _write(self, writer: Writer, rest: EventStream) -> None:
        encoder = self._primed(rest)
        self._answer.go_on(rest.attempt.target.provider.prefill)
        async with aclosing(self._events(rest)) as events:
            async for event in events:
                # So that the signs of life see that something comes.
                self._seen.append(event)
                for new in self._answer.feed(event):
                    if data := encoder.feed(new):
                        await writer.write(data)

    async def _events(self, rest: EventStream) -> AsyncGenerator[Event, None]:
        for event in list(rest.seen):
            yield event
        tick = self._answering.metrics.pacing(rest.attempt.target.name).tick
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
