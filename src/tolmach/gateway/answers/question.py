"""One question, in the forms in which targets take it, and what each gives back."""

import secrets
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from msgspec import Struct, structs

from tolmach.chat import ChatRequest, Event, Message, Notice
from tolmach.errors import ProviderError, RemoteProtocolError, TolmachError, UnsupportedFeature
from tolmach.gateway.answers.conversations import Conversations, Responses
from tolmach.gateway.answers.degradation import ask
from tolmach.gateway.answers.estimate import estimate_body, estimate_prompt
from tolmach.gateway.answers.relay import read_events, relay_whole
from tolmach.gateway.answers.streams import EventStream, RelayedStream
from tolmach.gateway.context import RequestContext
from tolmach.gateway.surfaces.anthropic_request import thinking_as_effort
from tolmach.gateway.surfaces.base import Asked, Label, Surface
from tolmach.gateway.surfaces.responses_request import continued
from tolmach.protocols.lenient import forgiving
from tolmach.routing.journal import Attempt
from tolmach.routing.targets import Plan, Target
from tolmach.transport import Exchange, Timeouts
from tolmach.wire import Request

__all__ = ["Question", "Whole"]

_SINGLE = frozenset({"logprobs", "n"})
"""What the events of an answer do not carry."""


_FREE = frozenset({"anthropic/count_tokens"})
"""What services ask nothing for."""

_LONGEST_READ = 1 << 20
"""Bytes of a body that is read for an estimate alone: what is longer would hold up all others."""


class Whole(Struct, frozen=True):
    """A whole answer: its body in the surface's shape, and the events that it was made from or that say what it cost.

    `asked` and `label` are those of an answer that was put together from events.
    """

    attempt: Attempt
    body: bytes
    seen: Sequence[Event]
    asked: Asked | None = None
    label: Label | None = None


class Question:
    """A caller's question. Its body is read as a question only for a target that does not take it as it is."""

    def __init__(
        self,
        context: RequestContext,
        surface: Surface,
        plan: Plan,
        body: bytes,
        now: float,
        memory: tuple[Conversations, Responses],
        api: str = "",
    ) -> None:
        self.context = context
        self.surface = surface
        self.plan = plan
        self.body = body
        self.api = api or surface.name
        """What a target has to speak for the body to go through."""
        self._created = int(now)
        self._conversations, self._responses = memory
        self._asked: Asked | None = None
        self._prompt: int | None = None
        self._id = ""
        self.resumes = plan.rules.recover == "resume" and plan.rules.attempts > 1

    def label(self, target: Target) -> Label:
        """What an answer of the target says about itself; the id is the same for every target."""
        self._id = self._id or secrets.token_hex(12)
        return Label(id=self._id, created=self._created, model=target.name, provider=target.provider.name)

    async def asked(self) -> Asked:
        """The body as a question. Raises what is wrong with it."""
        if self._asked is None:
            asked = self.surface.parse(self.body)
            if earlier := asked.echo.get("previous_response_id"):
                asked = continued(asked, await self._responses.history(self.context.user, earlier))
                if self.context.reservation is not None:
                    self.context.reservation.grow(estimate_prompt(asked.turn))
            self._asked = asked
        return self._asked

    async def put_to(self, target: Target) -> Asked:
        """The question as this target is asked it."""
        asked = await self.asked()
        turn = self.limited(structs.replace(asked.turn, model=target.model), target)
        if self.surface.name == "anthropic":
            turn = thinking_as_effort(turn, target.provider.site.protocol.features)
        if "conversation" in target.provider.site.protocol.traits:
            turn = structs.replace(
                turn, conversation=await self._conversations.find(target.name, self.context.user, turn)
            )
        return structs.replace(asked, turn=turn)

    def limited(self, turn: ChatRequest, target: Target) -> ChatRequest:
        """The turn with the limit of an answer that its caller's budget asks for, where the target takes one."""
        limit, features = self.context.limit_for(target), target.provider.site.protocol.features
        if limit is None or features.isdisjoint(("*", "max_tokens")):
            return turn
        options = {name: value for name, value in turn.options.items() if name != "max_completion_tokens"}
        return structs.replace(turn, options={**options, "max_tokens": limit})

    def prompt_tokens(self) -> int:
        """The tokens of the question, by estimate; of a body that is no question here, by its size."""
        if self._prompt is None:
            self._prompt = self._estimated()
        return self._prompt

    def _estimated(self) -> int:
        if self.api in _FREE:
            return 0
        if self._asked is None and self.api == self.surface.name and len(self.body) <= _LONGEST_READ:
            try:
                return estimate_prompt(self.surface.parse(self.body).turn)
            except TolmachError:
                return estimate_body(self.body)  # the target takes what is not known here
        return estimate_body(self.body) if self._asked is None else estimate_prompt(self._asked.turn)

    # Whole answers

    async def whole(self, target: Target, attempt: Attempt, timeouts: Timeouts) -> Whole:
        """The target's answer, all of it."""
        if self.api in target.forwards:
            answer = await self._passed_on(target, attempt, timeouts)
        else:
            asked, seen = await self.put_to(target), list[Event]()
            answer = await self._written(target, attempt, asked, ask(target, asked.turn, timeouts, attempt, seen), seen)
        return answer

    async def passed_on(self, target: Target, attempt: Attempt, timeouts: Timeouts) -> Whole:
        """The target's answer to a body that is only passed on. Raises `UnsupportedFeature` when it takes none."""
        if self.api not in target.forwards:
            raise UnsupportedFeature(f"{target.name} gives no {self.api}", feature="model")
        return await self._passed_on(target, attempt, timeouts)

    async def _passed_on(self, target: Target, attempt: Attempt, timeouts: Timeouts) -> Whole:
        call = target.forward(self.api, self.body, self.context.incoming.headers, self.context.limit_for(target))
        session, seen = target.session, list[Event]()
        sent = attempt.send(self.prompt_tokens, seen)
        exchange = await session.exchange(call.request, timeouts)
        try:
            head = exchange.head
            sent.begun = head.status < 400
            if sent.begun and head.content_type == "text/event-stream":
                asked, events = await self._events(target, call.request, exchange)
                return await self._written(target, attempt, asked, events, seen)
            try:
                body = await relay_whole(exchange, call.decoder(head), seen, session.limits.response_bytes)
            except ProviderError:
                attempt.head = head
                raise
        finally:
            await exchange.aclose()
        attempt.first = self.context.journal.now()
        return Whole(attempt, body, seen)

    async def _written(
        self,
        target: Target,
        attempt: Attempt,
        asked: Asked,
        events: AsyncGenerator[Event, None],
        seen: list[Event],
    ) -> Whole:
        """The answer put together from events, which go into `seen`."""
        async with aclosing(events):
            async for event in events:
                if attempt.first is None and type(event) is not Notice:
                    attempt.first = self.context.journal.now()
                seen.append(event)
        label = self.label(target)
        return Whole(attempt, self.surface.whole(asked, seen, label), seen, asked, label)

    async def _events(
        self, target: Target, request: Request, exchange: Exchange
    ) -> tuple[Asked, AsyncGenerator[Event, None]]:
        """The events of an answer that came in another form than it was asked for."""
        reader = target.session.site.protocol.reader(request)
        # The caller's own body: what is asked for beside it is not the caller's to see.
        asked = self.surface.parse(self.body)
        if reader is None or not _SINGLE.isdisjoint(asked.turn.options):
            raise RemoteProtocolError("the service did not answer in the form that it was asked for")
        return asked, read_events(exchange, reader(exchange.head))

    # Streams

    async def stream(self, target: Target, attempt: Attempt, timeouts: Timeouts) -> "RelayedStream | EventStream":
        """The target's answer from its first token on."""
        if self.api in target.forwards:
            return await self._stream_passed_on(target, attempt, timeouts)
        asked, seen = await self.put_to(target), list[Event]()
        events = ask(target, asked.turn, timeouts, attempt, seen, forgive=self.resumes)
        return await self._stream_written(target, attempt, asked, events, seen)

    async def _stream_passed_on(
        self, target: Target, attempt: Attempt, timeouts: Timeouts
    ) -> "RelayedStream | EventStream":
        call = target.forward(self.api, self.body, self.context.incoming.headers, self.context.limit_for(target))
        seen: list[Event] = []
        sent = attempt.send(self.prompt_tokens, seen)
        exchange = await target.session.exchange(call.request, timeouts)
        try:
            head = exchange.head
            sent.begun = head.status < 400
            decoder = call.decoder(head)
            if head.status >= 400:
                try:
                    await relay_whole(exchange, decoder, [], target.session.limits.response_bytes)
                except ProviderError:
                    attempt.head = head
                    raise
                raise RemoteProtocolError(f"a refusal ({head.status}) that reads like an answer", status=head.status)
            if head.content_type != "text/event-stream":
                asked, events = await self._events(target, call.request, exchange)
                return await self._stream_written(target, attempt, asked, events, seen, exchange)
            stream = RelayedStream(
                attempt,
                exchange,
                forgiving(decoder, head, target.session.limits.event_bytes) if self.resumes else decoder,
                self.surface.stream(Asked(turn=_NO_TURN), self.label(target)),
                seen,
                target.session.limits.event_bytes,
                target.session.site.protocol.reader(call.request) if self.resumes else None,
            )
            await stream.begin(to_token=self.plan.rules.attempts > 1)
        except BaseException:
            await exchange.aclose()
            raise
        attempt.first = self.context.journal.now()
        return stream

    async def _stream_written(
        self,
        target: Target,
        attempt: Attempt,
        asked: Asked,
        events: AsyncGenerator[Event, None],
        seen: list[Event],
        exchange: Exchange | None = None,
    ) -> EventStream:
        stream = EventStream(attempt, asked, self.surface.stream(asked, self.label(target)), events, seen, exchange)
        try:
            await stream.begin()
        except BaseException:
            await stream.aclose()
            raise
        attempt.first = self.context.journal.now()
        return stream

    # Going on

    async def going_on(self, target: Target, attempt: Attempt, timeouts: Timeouts, prefill: str) -> EventStream:
        """The answer of a target that goes on where another broke off, by events; with the answer so far, or none."""
        asked = await self.put_to(target)
        turn = asked.turn
        if prefill:
            turn = structs.replace(turn, messages=(*turn.messages, Message("assistant", prefill)))
        seen: list[Event] = []
        return await self._stream_written(target, attempt, asked, ask(target, turn, timeouts, attempt, seen), seen)


_NO_TURN: Any = ChatRequest(messages=())
