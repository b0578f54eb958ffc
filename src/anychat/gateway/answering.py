"""How a question is answered: by the events of a target's session, or by passing its body on.

The head of a streamed answer waits for the first event, so that what fails before it has its
proper HTTP status. What fails later ends in the surface's error event, and never in an end mark.
"""

import asyncio
import logging
import secrets
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Sequence
from contextlib import aclosing, contextmanager
from typing import Any, TypeVar

import msgspec

from anychat.chat import ChatRequest, Event, Notice, Usage
from anychat.errors import AnychatError, ProviderError, RemoteProtocolError, UnsupportedFeature
from anychat.gateway.asking import ask
from anychat.gateway.conversations import Conversations, MemoryStore, Responses
from anychat.gateway.http import Writer
from anychat.gateway.keep_alive import KeepAlive
from anychat.gateway.metrics import Metrics
from anychat.gateway.relay import read_events, relay_stream, relay_whole
from anychat.gateway.surfaces.anthropic_request import thinking_as_effort
from anychat.gateway.surfaces.base import Asked, Label, StreamEncoder, Surface
from anychat.gateway.surfaces.openai import OpenAISurface
from anychat.gateway.surfaces.responses_request import continued, remembered
from anychat.gateway.targets import Target
from anychat.gateway.visit import Visit
from anychat.transport.base import Exchange
from anychat.wire import Call, Head, Request

__all__ = ["Answering"]

T = TypeVar("T")

_log = logging.getLogger("anychat.gateway")

# Headers of a target that callers are shown with its refusal.
_SHOWN = ("retry-after", "retry-after-ms")

_SINGLE = frozenset({"logprobs", "n"})
"""What the events of an answer do not carry."""

_NO_TURN = ChatRequest(messages=())


class Answering:
    """Answers questions and remembers what later ones may go on from."""

    def __init__(self, metrics: Metrics, now: Callable[[], float], keep_alive: float) -> None:
        self._metrics = metrics
        self._now = now
        self._keep_alive = keep_alive
        self._conversations = Conversations(MemoryStore(now=now))
        self._responses = Responses.in_memory(now=now)

    # By events

    async def answer(self, visit: Visit, surface: Surface, target: Target, asked: Asked) -> None:
        """Answer by the target's session. Raises what fails before the head of the answer."""
        if earlier := asked.echo.get("previous_response_id"):
            asked = continued(asked, await self._responses.history(visit.user, earlier))
        turn = msgspec.structs.replace(asked.turn, model=target.model)
        if surface.name == "anthropic":
            turn = thinking_as_effort(turn, target.provider.site.protocol.features)
        n = asked.echo.get("n", 1)
        if n > 1:
            turn = msgspec.structs.replace(turn, options={k: v for k, v in turn.options.items() if k != "n"})
            await self._several(visit, surface, target, msgspec.structs.replace(asked, turn=turn), n)
            return
        if "conversation" in target.provider.site.protocol.traits:
            known = await self._conversations.find(target.name, visit.user, turn)
            turn = msgspec.structs.replace(turn, conversation=known)
        asked = msgspec.structs.replace(asked, turn=turn)
        label = self._label(target)
        events = ask(target, turn)
        async with aclosing(events):
            write = self._stream if asked.stream else self._whole
            seen = await write(visit, surface, target, asked, events, label)
        if seen is not None:
            await self._remember(visit, target, asked, seen, label)

    def _label(self, target: Target) -> Label:
        return Label(
            id=secrets.token_hex(12), created=int(self._now()), model=target.name, provider=target.provider.name
        )

    async def _remember(self, visit: Visit, target: Target, asked: Asked, seen: Sequence[Event], label: Label) -> None:
        await self._conversations.keep(target.name, visit.user, asked.turn, seen)
        if visit.surface == "responses" and asked.echo.get("store") is not False:
            *messages, answer = remembered(asked, seen, label)
            await self._responses.put(visit.user, f"resp_{label.id}", messages, answer)

    async def _whole(
        self,
        visit: Visit,
        surface: Surface,
        target: Target,
        asked: Asked,
        events: AsyncGenerator[Event, None],
        label: Label,
    ) -> Sequence[Event] | None:
        seen: list[Event] = []
        async for event in events:
            if type(event) is not Notice:
                visit.timed()
            seen.append(event)
        visit.degraded(asked.echo.get("dropped", ()), seen)
        self._count(visit, target, seen)
        await visit.send(200, surface.whole(asked, seen, label))
        return seen

    async def _stream(
        self,
        visit: Visit,
        surface: Surface,
        target: Target,
        asked: Asked,
        events: AsyncGenerator[Event, None],
        label: Label,
    ) -> Sequence[Event] | None:
        """What was seen, all of it; None when the answer broke off."""
        encoder = surface.stream(asked, label)
        seen: list[Event] = []
        async for event in events:
            seen.append(event)
            if type(event) is not Notice:
                break
        visit.timed()
        visit.degraded(asked.echo.get("dropped", ()), seen)
        opening = encoder.open() + b"".join(map(encoder.feed, seen))
        writer = await visit.stream()
        with self._streaming(visit, target, writer, encoder.keep_alive, seen):
            try:
                if opening:
                    await writer.write(opening)
                async for event in events:
                    seen.append(event)
                    if data := encoder.feed(event):
                        await writer.write(data)
            except AnychatError as error:
                self.log_failure(visit, error)
                await writer.write(encoder.fail(visit.shown(error)))
                return None
        return seen

    @contextmanager
    def _streaming(
        self, visit: Visit, target: Target, writer: Writer, ping: Callable[[], bytes], seen: Sequence[Event]
    ) -> Iterator[None]:
        """What goes along with a streamed answer: it is counted, and says that it lives while nothing comes."""
        self._metrics.open_streams.inc()
        alive = KeepAlive(writer, ping, seen, self._keep_alive)
        try:
            yield
        finally:
            alive.stop()
            self._metrics.open_streams.dec()
            self._count(visit, target, seen)

    # Several answers to one question, from a target that gives one at a time

    async def _several(self, visit: Visit, surface: Surface, target: Target, asked: Asked, n: int) -> None:
        if not isinstance(surface, OpenAISurface):
            raise UnsupportedFeature("n: this API gives one answer", feature="n")
        label = self._label(target)
        asking = [ask(target, asked.turn) for _ in range(n)]
        if asked.stream:
            await self._several_streams(visit, surface, target, asked, asking, label)
            return

        async def collect(events: AsyncGenerator[Event, None]) -> list[Event]:
            async with aclosing(events):
                return [event async for event in events]

        answers = await _all([collect(events) for events in asking])
        visit.timed()
        visit.degraded(asked.echo.get("dropped", ()), answers[0])
        for seen in answers:
            self._count(visit, target, seen)
        await visit.send(200, surface.whole_of_several(asked, answers, label))

    async def _several_streams(
        self,
        visit: Visit,
        surface: OpenAISurface,
        target: Target,
        asked: Asked,
        asking: list[AsyncGenerator[Event, None]],
        label: Label,
    ) -> None:
        encoder = surface.streams(asked, label, len(asking))
        arrived: asyncio.Queue[tuple[int, Event] | None] = asyncio.Queue(maxsize=64)

        async def pump(index: int, events: AsyncGenerator[Event, None]) -> None:
            async with aclosing(events):
                async for event in events:
                    await arrived.put((index, event))

        async def pump_all() -> None:
            try:
                await _all([pump(index, events) for index, events in enumerate(asking)])
            except Exception:  # whatever failed, the reader is to be woken; it raises it again
                await arrived.put(None)
                raise
            await arrived.put(None)

        pumping = asyncio.ensure_future(pump_all())
        try:
            before, item = [], await arrived.get()
            while item is not None and type(item[1]) is Notice:
                before.append(item)
                item = await arrived.get()
            if item is None:
                await pumping  # raises what failed before anything came
            visit.timed()
            visit.degraded(asked.echo.get("dropped", ()), {notice: None for _, notice in before})
            writer = await visit.stream()
            seen = [event for _, event in before]
            with self._streaming(visit, target, writer, encoder.keep_alive, seen):
                try:
                    if opening := b"".join([encoder.feed(*notice) for notice in before]):
                        await writer.write(opening)
                    while item is not None:
                        seen.append(item[1])
                        if data := encoder.feed(*item):
                            await writer.write(data)
                        item = await arrived.get()
                    await pumping
                except AnychatError as error:
                    self.log_failure(visit, error)
                    await writer.write(encoder.fail(visit.shown(error)))
        finally:
            pumping.cancel()
            await asyncio.gather(pumping, return_exceptions=True)

    # By passing the body on

    async def relay(self, visit: Visit, surface: Surface, target: Target, call: Call, streamed: bool) -> None:
        exchange = await target.session.exchange(call.request, target.timeouts)
        seen: list[Event] = []
        limits = target.session.limits
        try:
            if exchange.head.status < 400 and (exchange.head.content_type == "text/event-stream") != streamed:
                await self._read_again(visit, surface, target, call.request, exchange, streamed)
                return
            decoder = call.decoder(exchange.head)
            if not streamed or exchange.head.status >= 400:
                try:
                    body = await relay_whole(exchange, decoder, seen, limits.response_bytes)
                except ProviderError as error:
                    await self._relay_failure(visit, surface, exchange.head, error)
                    return
                self._count(visit, target, seen)
                visit.timed()
                await visit.send(200, body)
                return
            chunks = relay_stream(exchange, decoder, seen, limits.event_bytes)
            async with aclosing(chunks):
                await self._relay_stream(visit, surface, target, chunks, seen)
        finally:
            await exchange.aclose()

    async def _relay_stream(
        self, visit: Visit, surface: Surface, target: Target, chunks: AsyncGenerator[bytes, None], seen: list[Event]
    ) -> None:
        opening = await anext(chunks, b"")
        visit.timed()
        writer = await visit.stream()

        def encoder() -> StreamEncoder:
            return surface.stream(Asked(turn=_NO_TURN), self._label(target))

        with self._streaming(visit, target, writer, lambda: encoder().keep_alive(), seen):
            try:
                await writer.write(opening)
                async for chunk in chunks:
                    await writer.write(chunk)
            except AnychatError as error:
                self.log_failure(visit, error)
                await writer.write(encoder().fail(visit.shown(error)))

    async def _read_again(
        self, visit: Visit, surface: Surface, target: Target, request: Request, exchange: Exchange, streamed: bool
    ) -> None:
        """Answer by a stream where the target gave no stream, or the other way round: not as it came, but by events."""
        reader = target.session.site.protocol.reader(request)
        asked = surface.parse(request.body)
        if reader is None or not _SINGLE.isdisjoint(asked.turn.options):
            raise RemoteProtocolError("the service did not answer in the form that it was asked for")
        events = read_events(exchange, reader(exchange.head))
        async with aclosing(events):
            write = self._stream if streamed else self._whole
            await write(visit, surface, target, asked, events, self._label(target))

    async def _relay_failure(self, visit: Visit, surface: Surface, head: Head, error: ProviderError) -> None:
        """A target's own refusal, in the words of the API that both speak."""
        self.log_failure(visit, error)
        shown = [(name, head.header(name)) for name in _SHOWN if head.header(name)]
        status, body = surface.error(visit.shown(error), visit.id)
        await visit.send(head.status if head.status >= 400 else status, body, shown)

    # What is counted

    def log_failure(self, visit: Visit, error: AnychatError) -> None:
        visit.error = type(error).__name__
        self._metrics.failed(visit.surface, visit.target, visit.error)
        _log.info("request %s: %s: %s", visit.id, type(error).__name__, error)

    def _count(self, visit: Visit, target: Target, events: Sequence[Event]) -> None:
        if visit.first is not None:
            self._metrics.first_token(target.name, visit.first)
        for event in events:
            if type(event) is Usage:
                visit.usage = (event.prompt_tokens, event.completion_tokens)
                self._metrics.tokens(target.name, event.prompt_tokens, event.completion_tokens)


async def _all(waiting: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """The results of all; the first to fail cancels the others and is raised."""
    tasks = [asyncio.ensure_future(one) for one in waiting]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
