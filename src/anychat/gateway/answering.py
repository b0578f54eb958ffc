"""How a question is answered: by the targets of a plan, one after the other, until one answers.

The head of a streamed answer waits for the first token, so that what fails before it has its
proper HTTP status, unless that takes long (`gateway.patience`); in any case it can be asked
elsewhere. What fails later goes on with another target where the route says so (`gateway.rescue`),
else it ends in the surface's error event, and never in an end mark.
"""

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from typing import Protocol

from anychat.access.limits import LimitReached
from anychat.chat import ChatRequest, Delta, Event, Usage
from anychat.errors import AnychatError, ProviderError
from anychat.gateway.conversations import Conversations, MemoryStore, Responses
from anychat.gateway.estimate import answer_texts, estimate_usage
from anychat.gateway.http import Headers, Writer
from anychat.gateway.keep_alive import KeepAlive
from anychat.gateway.metrics import Metrics
from anychat.gateway.patience import Patience
from anychat.gateway.question import Question
from anychat.gateway.rescue import Rescue
from anychat.gateway.several import answer_several
from anychat.gateway.streams import Stream
from anychat.gateway.surfaces.base import Asked, Label, Surface
from anychat.gateway.surfaces.responses_request import remembered
from anychat.gateway.visit import Visit
from anychat.routing.journal import Attempt
from anychat.routing.loop import Router, first_token
from anychat.routing.targets import Plan, Target
from anychat.transport import Timeouts

__all__ = ["Answering"]

_log = logging.getLogger("anychat.gateway")

# Headers of a target that callers are shown with its refusal.
_SHOWN = ("retry-after", "retry-after-ms")

_NOTHING_ASKED = ChatRequest(messages=())

_BYTES_PER_TOKEN = 4
"""Of the body of a question, roughly."""


class _Pinging(Protocol):
    def keep_alive(self) -> bytes: ...


class _Living(Protocol):
    """A stream that says that it lives while nothing comes."""

    @property
    def encoder(self) -> _Pinging: ...

    @property
    def seen(self) -> Sequence[Event]: ...


class Answering:
    """Answers questions and remembers what later ones may go on from."""

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
        self._now = now
        self._keep_alive = keep_alive
        self.patience = Patience(keep_alive)

    async def answer(self, visit: Visit, surface: Surface, plan: Plan, body: bytes, streamed: bool) -> None:
        """Answer by the plan's targets. Raises what fails before the head of the answer."""
        visit.plan = plan
        question = Question(visit, surface, plan, body, self._now(), self.memory)
        if surface.name not in plan.first.forwards and (n := (await question.asked()).echo.get("n", 1)) > 1:
            await answer_several(self, visit, question, plan, n)
        elif streamed:
            await self._stream(visit, question, plan)
        else:
            await self._whole(visit, question, plan)

    async def pass_on(self, visit: Visit, surface: Surface, plan: Plan, body: bytes, api: str) -> None:
        """Answer what is no chat, such as embeddings, by the targets that take the body as it is."""
        question = Question(visit, surface, plan, body, self._now(), self.memory, api)
        answer = await self.router.begin(plan, visit.journal, question.passed_on)
        self.ended(visit, answer.attempt, answer.seen)
        visit.answered_by(answer.attempt)
        await visit.send(200, answer.body)

    # Whole answers

    async def _whole(self, visit: Visit, question: Question, plan: Plan) -> None:
        answer = await self.router.begin(plan, visit.journal, question.whole)
        attempt = answer.attempt
        asked = answer.asked
        self.ended(visit, attempt, answer.seen, asked)
        visit.answered_by(attempt)
        if asked is not None:
            visit.degraded(asked.echo.get("dropped", ()), answer.seen)
        await visit.send(200, answer.body)
        if asked is not None and answer.label is not None:
            await self.remember(visit, attempt.target, asked, answer.seen, answer.label)

    # Streams

    async def _stream(self, visit: Visit, question: Question, plan: Plan) -> None:
        if plan.rules.recover == "restart":
            await self._held_back(visit, question, plan)
            return

        async def open(target: Target, attempt: Attempt, timeouts: Timeouts) -> Stream:
            return await first_token(question.stream(target, attempt, timeouts), target, timeouts.first_byte)

        stream = await self.patience.during(visit, self.router.begin(plan, visit.journal, open))
        try:
            await self._write(visit, question, plan, stream)
        except BaseException:
            self.cancelled(visit, stream.attempt, stream.seen, stream.asked)
            raise
        finally:
            await stream.aclose()

    async def _write(self, visit: Visit, question: Question, plan: Plan, stream: Stream) -> None:
        attempt, asked = stream.attempt, stream.asked
        visit.answered_by(attempt)
        if asked is not None:
            visit.degraded(asked.echo.get("dropped", ()), stream.seen)
        writer = await visit.stream()
        rescued = False
        with self.streaming(writer, stream):
            try:
                if stream.opening:
                    await writer.write(stream.opening)
                tick = self.metrics.pacing(attempt.target.name).tick
                async with aclosing(stream.pieces()) as pieces:
                    async for piece in pieces:
                        tick()
                        await writer.write(piece)
                self.ended(visit, attempt, stream.seen, asked)
            except AnychatError as error:
                self.broke(visit, attempt, error, stream.seen, asked)
                rescued = await Rescue(self, visit, question, plan, stream).run(writer)
                if not rescued:
                    self.log_failure(visit, error)
                    await writer.write(stream.encoder.fail(visit.shown(error, attempt.target)))
                    return
        if asked is not None and not rescued:
            await self.remember(visit, attempt.target, asked, stream.seen, question.label(attempt.target))

    async def _held_back(self, visit: Visit, question: Question, plan: Plan) -> None:
        """A stream of which nothing is sent before all of it is there, so that it can be asked for again."""

        async def open(target: Target, attempt: Attempt, timeouts: Timeouts) -> tuple[Stream, bytes]:
            stream = await first_token(question.stream(target, attempt, timeouts), target, timeouts.first_byte)
            try:
                async with aclosing(stream.pieces()) as pieces:
                    return stream, b"".join([stream.opening, *[piece async for piece in pieces]])
            except AnychatError:
                attempt.usage = _usage_of(stream.seen) or _estimated(visit, stream.seen, stream.asked)
                raise
            finally:
                await stream.aclose()

        stream, body = await self.patience.during(visit, self.router.begin(plan, visit.journal, open))
        attempt, asked = stream.attempt, stream.asked
        self.ended(visit, attempt, stream.seen, asked)
        visit.answered_by(attempt)
        if asked is not None:
            visit.degraded(asked.echo.get("dropped", ()), stream.seen)
        writer = await visit.stream()
        with self.streaming(writer, stream):
            await writer.write(body)
        if asked is not None:
            await self.remember(visit, attempt.target, asked, stream.seen, question.label(attempt.target))

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

    # What is remembered

    async def remember(self, visit: Visit, target: Target, asked: Asked, seen: Sequence[Event], label: Label) -> None:
        """Keep what later questions may go on from."""
        conversations, responses = self.memory
        await conversations.keep(target.name, visit.user, asked.turn, seen)
        if visit.surface == "responses" and asked.echo.get("store") is not False:
            *messages, answer = remembered(asked, seen, label)
            await responses.put(visit.user, f"resp_{label.id}", messages, answer)

    # What is counted

    def ended(self, visit: Visit, attempt: Attempt, seen: Sequence[Event], asked: Asked | None = None) -> None:
        """The attempt gave the whole answer."""
        self._used(visit, attempt, seen, asked)
        self.router.answered(visit.journal, attempt)

    def broke(
        self, visit: Visit, attempt: Attempt, error: AnychatError, seen: Sequence[Event], asked: Asked | None = None
    ) -> None:
        """The attempt broke off after its first token; what it had used is kept."""
        self._used(visit, attempt, seen, asked)
        self.router.failed(visit.journal, attempt, error)

    def cancelled(self, visit: Visit, attempt: Attempt, seen: Sequence[Event] = (), asked: Asked | None = None) -> None:
        """The caller went away in mid-answer."""
        if not attempt.outcome:
            self._used(visit, attempt, seen, asked)
            self.router.cancelled(visit.journal, attempt)

    def _used(self, visit: Visit, attempt: Attempt, seen: Sequence[Event], asked: Asked | None) -> None:
        visit.usage = attempt.usage = _usage_of(seen) or _estimated(visit, seen, asked)

    def log_failure(self, visit: Visit, error: AnychatError) -> None:
        """A question that ends in an error."""
        visit.error = type(error).__name__
        self.metrics.failed(visit.surface, visit.target, visit.error)
        _log.info("request %s: %s: %s", visit.id, type(error).__name__, error)

    async def fail(self, visit: Visit, surface: Surface, error: AnychatError) -> None:
        """Tell a failure before the first token, a target's own refusal with its status and hints to wait."""
        attempt = next((one for one in reversed(visit.journal.attempts) if one.error is error), None)
        if attempt is not None:
            visit.answered_by(attempt)
        self.log_failure(visit, error)
        said = visit.shown(error, None if attempt is None else attempt.target)
        if visit.streamed:
            await self._fail_late(visit, surface, said)
            return
        status, body = surface.error(said, visit.id)
        head = None if attempt is None else attempt.head
        if head is not None and isinstance(error, ProviderError):
            headers = [(name, head.header(name)) for name in _SHOWN if head.header(name)]
            await visit.send(head.status if head.status >= 400 else status, body, headers)
            return
        wait = getattr(error, "retry_after", None)
        more: Headers = []
        if isinstance(error, LimitReached):
            self.metrics.refused(error.code or "")
            more += error.headers
        if wait is not None:
            more.append(("retry-after", str(max(1, math.ceil(wait)))))
        await visit.send(status, body, more)

    async def _fail_late(self, visit: Visit, surface: Surface, said: AnychatError) -> None:
        """Tell a failure to a caller who was sent the head while it waited; one whose answer is whole has all."""
        if visit.writer is not None and not any(one.outcome == "answered" for one in visit.journal.attempts):
            label = Label(id=visit.id, created=int(self._now()), model=visit.model)
            await visit.writer.write(surface.stream(Asked(turn=_NOTHING_ASKED), label).fail(said))


def _usage_of(seen: Sequence[Event]) -> Usage | None:
    """The last count of tokens among the events; it stands near their end."""
    for event in reversed(seen):
        if type(event) is Usage:
            return event
    return None


def _estimated(visit: Visit, seen: Sequence[Event], asked: Asked | None) -> Usage:
    """What an answer took whose tokens nobody has counted; of one that was passed on, by its size."""
    if asked is not None:
        return estimate_usage(asked.turn, answer_texts(seen))
    prompt, completion = visit.size // _BYTES_PER_TOKEN, sum(type(event) is Delta for event in seen)
    return Usage(prompt, completion, prompt + completion, estimated=True)
