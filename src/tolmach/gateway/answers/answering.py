"""How a question is answered: by the targets of a plan, one after the other, until one answers.

The head of a streamed answer waits for the first token, so that what fails before it has its
proper HTTP status, unless that takes long (`gateway.answers.early_head`); in any case it can be asked
elsewhere. What fails later goes on with another target where the route says so (`gateway.answers.recovery`),
else it ends in the surface's error event, and never in an end mark.
"""

import math
import re
from collections.abc import Callable
from contextlib import aclosing

from tolmach.access.limits import LimitReached
from tolmach.chat import ChatRequest
from tolmach.errors import ProviderError, TolmachError
from tolmach.gateway.answers.choices import answer_several
from tolmach.gateway.answers.conversations import Conversations, Responses
from tolmach.gateway.answers.early_head import EarlyHead
from tolmach.gateway.answers.outcomes import Outcomes
from tolmach.gateway.answers.question import Question
from tolmach.gateway.answers.recovery import Recovery
from tolmach.gateway.answers.streams import Stream
from tolmach.gateway.context import RequestContext
from tolmach.gateway.http import Headers, Writer
from tolmach.gateway.surfaces.base import Asked, Label, Surface
from tolmach.gateway.telemetry.metrics import Metrics
from tolmach.routing.journal import Attempt
from tolmach.routing.router import Router, first_token
from tolmach.routing.targets import Plan, Target
from tolmach.transport import Timeouts

__all__ = ["Answering"]

# A day at most: a service may say anything.
_MILLISECONDS = re.compile(r"[0-9]{1,8}(?:\.[0-9]{1,3})?")

_NOTHING_ASKED = ChatRequest(messages=())


class Answering:
    """Answers questions; what becomes of each attempt is settled by `Outcomes`."""

    def __init__(
        self,
        router: Router,
        metrics: Metrics,
        now: Callable[[], float],
        keep_alive: float,
        memory: tuple[Conversations, Responses] | None = None,
    ) -> None:
        self._router = router
        self._metrics = metrics
        self._outcomes = Outcomes(router, metrics, now, keep_alive, memory)
        self._early_head = EarlyHead(keep_alive)
        self._now = now

    async def answer(self, context: RequestContext, surface: Surface, plan: Plan, body: bytes, streamed: bool) -> None:
        """Answer by the plan's targets. Raises what fails before the head of the answer."""
        context.plan = plan
        question = Question(context, surface, plan, body, self._now(), self._outcomes.memory)
        if surface.name not in plan.first.forwards and (n := (await question.asked()).echo.get("n", 1)) > 1:
            await answer_several(self._outcomes, self._early_head, context, question, plan, n)
        elif streamed:
            await self._stream(context, question, plan)
        else:
            await self._whole(context, question, plan)

    async def pass_on(self, context: RequestContext, surface: Surface, plan: Plan, body: bytes, api: str) -> None:
        """Answer what is no chat, such as embeddings, by the targets that take the body as it is."""
        question = Question(context, surface, plan, body, self._now(), self._outcomes.memory, api)
        answer = await self._router.begin(plan, context.journal, question.passed_on)
        self._outcomes.ended(context, answer.attempt)
        context.answered_by(answer.attempt)
        await context.send(200, answer.body)

    # Whole answers

    async def _whole(self, context: RequestContext, question: Question, plan: Plan) -> None:
        answer = await self._router.begin(plan, context.journal, question.whole)
        attempt = answer.attempt
        asked = answer.asked
        await self._outcomes.complete(context, attempt, answer.seen, asked, answer.label)
        context.answered_by(attempt)
        if asked is not None:
            context.degraded(asked.echo.get("dropped", ()), answer.seen)
        await context.send(200, answer.body)

    # Streams

    async def _stream(self, context: RequestContext, question: Question, plan: Plan) -> None:
        if plan.rules.recover == "restart":
            await self._held_back(context, question, plan)
            return

        async def open(target: Target, attempt: Attempt, timeouts: Timeouts) -> Stream:
            return await first_token(question.stream(target, attempt, timeouts), target, timeouts.first_byte)

        stream = await self._early_head.during(context, self._router.begin(plan, context.journal, open))
        try:
            await self._write(context, question, plan, stream)
        except BaseException:
            self._outcomes.cancelled(context, stream.attempt)
            raise
        finally:
            await stream.aclose()

    async def _write(self, context: RequestContext, question: Question, plan: Plan, stream: Stream) -> None:
        attempt, asked = stream.attempt, stream.asked
        context.answered_by(attempt)
        if asked is not None:
            context.degraded(asked.echo.get("dropped", ()), stream.seen)
        writer = await context.stream()
        with self._outcomes.streaming(writer, stream):
            try:
                await self._write_pieces(context, question, stream, writer)
            except TolmachError as error:
                self._outcomes.broke(context, attempt, error)
                if not await Recovery(self._outcomes, context, question, plan, stream).run(writer):
                    self._outcomes.log_failure(context, error)
                    await writer.write(stream.encoder.fail(context.public_error(error, attempt.target)))

    async def _write_pieces(self, context: RequestContext, question: Question, stream: Stream, writer: Writer) -> None:
        """Write the answer as it comes, up to its end mark: nobody waits for what the service's body does then."""
        attempt = stream.attempt

        async def complete() -> None:
            label = None if stream.asked is None else question.label(attempt.target)
            await self._outcomes.complete(context, attempt, stream.seen, stream.asked, label)

        if stream.ended:
            await complete()
        if stream.opening:
            await writer.write(stream.opening)
        if context.complete:
            return
        tick = self._metrics.pacing(attempt.target.name).tick
        async with aclosing(stream.pieces()) as pieces:
            async for piece in pieces:
                tick()
                if stream.ended:
                    await complete()
                    await writer.write(piece)
                    return
                await writer.write(piece)
        await complete()

    async def _held_back(self, context: RequestContext, question: Question, plan: Plan) -> None:
        """A stream of which nothing is sent before all of it is there, so that it can be asked for again."""

        async def open(target: Target, attempt: Attempt, timeouts: Timeouts) -> tuple[Stream, bytes]:
            stream = await first_token(question.stream(target, attempt, timeouts), target, timeouts.first_byte)
            try:
                async with aclosing(stream.pieces()) as pieces:
                    return stream, b"".join([stream.opening, *[piece async for piece in pieces]])
            finally:
                await stream.aclose()

        stream, body = await self._early_head.during(context, self._router.begin(plan, context.journal, open))
        attempt, asked = stream.attempt, stream.asked
        context.answered_by(attempt)
        if asked is not None:
            context.degraded(asked.echo.get("dropped", ()), stream.seen)
        writer = await context.stream()
        label = None if asked is None else question.label(attempt.target)
        await self._outcomes.complete(context, attempt, stream.seen, asked, label)
        with self._outcomes.streaming(writer, stream):
            await writer.write(body)

    async def fail(self, context: RequestContext, surface: Surface, error: TolmachError) -> None:
        """Tell a failure before the first token, a target's own refusal with its status and hints to wait."""
        attempt = next((one for one in reversed(context.journal.attempts) if one.error is error), None)
        if attempt is not None:
            context.answered_by(attempt)
        self._outcomes.log_failure(context, error)
        said = context.public_error(error, None if attempt is None else attempt.target)
        if context.streamed:
            await self._fail_late(context, surface, said)
            return
        status, body = surface.error(said, context.id)
        head = None if attempt is None else attempt.head
        if head is not None and isinstance(error, ProviderError):
            if 400 <= head.status <= 599:
                status = head.status
            if _MILLISECONDS.fullmatch(told := head.header("retry-after-ms")):
                context.headers.append(("retry-after-ms", told))
        wait = getattr(error, "retry_after", None)
        more: Headers = []
        if isinstance(error, LimitReached):
            self._metrics.refused(error.code or "")
            more += error.headers
        if wait is not None:
            more.append(("retry-after", str(max(1, math.ceil(wait)))))
        await context.send(status, body, more)

    async def _fail_late(self, context: RequestContext, surface: Surface, said: TolmachError) -> None:
        """Tell a failure to a caller who was sent the head while it waited; one whose answer is whole has all."""
        if context.writer is not None and not any(one.outcome == "answered" for one in context.journal.attempts):
            label = Label(id=context.id, created=int(self._now()), model=context.model)
            await context.writer.write(surface.stream(Asked(turn=_NOTHING_ASKED), label).fail(said))
