"""The gateway: a caller's request in, an answer out. No server and no socket: see `gateway.rsgi`, `gateway.asgi`.

The way of a question: its surface reads the body, the model's name finds a target. Where the target
speaks the surface's own API the body goes through (`gateway.relay`); else the events of the target's
session are written in the surface's shape. The head of a streamed answer waits for the first event,
so that what fails before it has its proper HTTP status. What fails later ends in the surface's
error event, and never in an end mark.
"""

import asyncio
import logging
import re
import secrets
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from urllib.parse import unquote

import msgspec
from msgspec import Struct

from anychat.chat import ChatRequest, Delta, Event, Notice, Usage
from anychat.errors import AnychatError, BadRequest, ModelNotFound, ProviderError
from anychat.gateway.http import BodyTooLarge, Headers, Incoming, Reply, ServerLimits, Writer
from anychat.gateway.metrics import Metrics
from anychat.gateway.relay import relay_stream, relay_whole
from anychat.gateway.surfaces.base import Asked, Label, Surface
from anychat.gateway.targets import Target, Targets
from anychat.wire import Call, Head

__all__ = ["Gateway", "Visit"]

_log = logging.getLogger("anychat.gateway")

_JSON = ("content-type", "application/json")
_EVENT_STREAM = [("content-type", "text/event-stream; charset=utf-8"), ("cache-control", "no-cache")]
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")

# Headers of a target that callers are shown when its answer is passed on.
_SHOWN = ("retry-after", "retry-after-ms")


class _Peek(Struct):
    """As much of a body as decides where it goes."""

    model: str
    stream: bool | None = None


_PEEK = msgspec.json.Decoder(_Peek)
_NO_TURN = ChatRequest(messages=())


class Visit:
    """One request under way: the caller's side of it, and what is told and counted at its end."""

    __slots__ = ("first", "headers", "id", "incoming", "reply", "started", "status", "surface", "target")

    def __init__(self, incoming: Incoming, reply: Reply) -> None:
        self.incoming = incoming
        self.reply = reply
        given = incoming.headers.get("x-request-id", "")
        self.id = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(16)
        self.started = time.perf_counter()
        self.headers: Headers = [("x-request-id", self.id)]
        self.surface = "none"
        self.target = ""
        self.status = 0
        self.first: float | None = None

    def began(self, target: Target) -> None:
        self.target = target.name
        self.headers.append(("x-anychat-target", _header_value(target.name)))

    def timed(self) -> None:
        """The first event of the answer is there."""
        self.first = time.perf_counter() - self.started
        self.headers.append(("server-timing", f"target;dur={self.first * 1000:.1f}"))

    async def send(self, status: int, body: bytes, headers: Headers | None = None) -> None:
        self.status = status
        await self.reply.whole(status, [_JSON, *self.headers, *(headers or ())], body)

    async def stream(self) -> Writer:
        self.status = 200
        return await self.reply.stream(200, [*_EVENT_STREAM, *self.headers])


Handler = Callable[[Visit], Awaitable[None]]


class Gateway:
    """Answers requests. `targets` may be replaced at any time; requests under way keep theirs."""

    def __init__(
        self,
        targets: Targets,
        surfaces: dict[str, Surface],
        *,
        limits: ServerLimits = ServerLimits(),
        now: Callable[[], float] = time.time,
    ) -> None:
        self.targets = targets
        self.metrics = Metrics()
        self.limits = limits
        self._surfaces = surfaces
        self._now = now
        self._routes: dict[tuple[str, str], Handler] = {
            ("POST", "/v1/chat/completions"): self._asked("openai"),
            ("POST", "/v1/responses"): self._asked("responses"),
            ("POST", "/v1/messages"): self._asked("anthropic"),
            ("GET", "/v1/models"): self._models,
            ("GET", "/health/live"): self._live,
            ("GET", "/health/ready"): self._ready,
            ("GET", "/metrics"): self._metrics,
        }
        self._paths = {path for _, path in self._routes}

    async def handle(self, incoming: Incoming, reply: Reply) -> None:
        """Answer one request, whatever it is."""
        visit = Visit(incoming, reply)
        handler = self._routes.get((incoming.method, incoming.path)) or self._other(incoming)
        try:
            await handler(visit)
        except asyncio.CancelledError:
            self.metrics.cancelled(visit.surface)
            raise
        except ConnectionError:
            # The caller went away while something was being written.
            self.metrics.cancelled(visit.surface)
        except Exception:  # a bug of ours: the caller gets a plain 500, the log gets all of it
            _log.exception("request %s failed", visit.id)
            if visit.status == 0:
                await visit.send(500, _plain_error("internal error; the log has more under this request's id"))
        self.metrics.answered(visit.surface, visit.target, visit.status, time.perf_counter() - visit.started)

    def _other(self, incoming: Incoming) -> Handler:
        if incoming.path.startswith("/v1/models/") and incoming.method == "GET":
            return self._model
        status = 405 if incoming.path in self._paths else 404

        async def refuse(visit: Visit) -> None:
            await visit.send(status, _plain_error(f"{incoming.method} {incoming.path} is not served here"))

        return refuse

    # Questions

    def _asked(self, name: str) -> Handler:
        surface = self._surfaces.get(name)
        if surface is None:

            async def missing(visit: Visit) -> None:
                await visit.send(404, _plain_error("this API is not served here"))

            return missing

        async def handler(visit: Visit) -> None:
            visit.surface = name
            try:
                body = await visit.incoming.body(self.limits.body_bytes)
                await self._question(visit, surface, body)
            except BodyTooLarge as error:
                refusal = BadRequest(str(error), status=413, code="request_too_large")
                await visit.send(413, surface.error(refusal, visit.id)[1], [("connection", "close")])
            except AnychatError as error:
                await self._fail(visit, surface, error)

        return handler

    async def _question(self, visit: Visit, surface: Surface, body: bytes) -> None:
        try:
            peek = _PEEK.decode(body)
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            # The surface knows what to say about it.
            peek = _Peek(surface.parse(body).model)
        target = self.targets.find(peek.model)
        visit.began(target)
        if surface.name in target.forwards:
            call = target.forward(surface.name, body)
            await self._relay(visit, surface, target, call, bool(peek.stream))
            return
        asked = surface.parse(body)
        asked = msgspec.structs.replace(asked, turn=msgspec.structs.replace(asked.turn, model=target.model))
        events = target.session.ask(asked.turn, strict=target.provider.strict)
        async with aclosing(events):
            if asked.stream:
                await self._stream(visit, surface, target, asked, events)
            else:
                await self._whole(visit, surface, target, asked, events)

    def _label(self, visit: Visit, target: Target) -> Label:
        return Label(
            id=secrets.token_hex(12), created=int(self._now()), model=target.name, provider=target.provider.name
        )

    async def _whole(
        self, visit: Visit, surface: Surface, target: Target, asked: Asked, events: AsyncGenerator[Event, None]
    ) -> None:
        seen: list[Event] = []
        async for event in events:
            if visit.first is None and type(event) is Delta:
                visit.timed()
            seen.append(event)
        self._note(visit, seen)
        self._count(visit, target, seen)
        await visit.send(200, surface.whole(asked, seen, self._label(visit, target)))

    async def _stream(
        self, visit: Visit, surface: Surface, target: Target, asked: Asked, events: AsyncGenerator[Event, None]
    ) -> None:
        before = [event async for event in _until_text(events)]
        visit.timed()
        self._note(visit, before)
        encoder = surface.stream(asked, self._label(visit, target))
        writer = await visit.stream()
        self.metrics.open_streams.inc()
        usage: list[Event] = []
        try:
            opening = encoder.open() + b"".join(map(encoder.feed, before))
            usage += [event for event in before if type(event) is Usage]
            if opening:
                await writer.write(opening)
            async for event in events:
                if type(event) is Usage:
                    usage.append(event)
                if data := encoder.feed(event):
                    await writer.write(data)
        except AnychatError as error:
            self._log_failure(visit, error)
            await writer.write(encoder.fail(error))
        finally:
            self.metrics.open_streams.dec()
            self._count(visit, target, usage)

    async def _relay(self, visit: Visit, surface: Surface, target: Target, call: Call, streamed: bool) -> None:
        exchange = await target.session.exchange(call.request)
        seen: list[Event] = []
        limits = target.session.limits
        try:
            decoder = call.decoder(exchange.head)
            if not streamed or exchange.head.status >= 400:
                try:
                    body = await relay_whole(exchange, decoder, seen, limits.response_bytes)
                except ProviderError as error:
                    await self._relay_failure(visit, surface, exchange.head, error)
                    return
                visit.timed()
                self._count(visit, target, seen)
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
        self.metrics.open_streams.inc()
        try:
            await writer.write(opening)
            async for chunk in chunks:
                await writer.write(chunk)
        except AnychatError as error:
            self._log_failure(visit, error)
            asked = Asked(turn=_NO_TURN)
            await writer.write(surface.stream(asked, self._label(visit, target)).fail(error))
        finally:
            self.metrics.open_streams.dec()
            self._count(visit, target, seen)

    async def _relay_failure(self, visit: Visit, surface: Surface, head: Head, error: ProviderError) -> None:
        """A target's own refusal, in the words of the API that both speak."""
        self._log_failure(visit, error)
        shown = [(name, head.header(name)) for name in _SHOWN if head.header(name)]
        status, body = surface.error(error, visit.id)
        await visit.send(head.status if head.status >= 400 else status, body, shown)

    # Ends

    async def _fail(self, visit: Visit, surface: Surface, error: AnychatError) -> None:
        self._log_failure(visit, error)
        status, body = surface.error(error, visit.id)
        wait = getattr(error, "retry_after", None)
        await visit.send(status, body, [("retry-after", str(max(1, round(wait))))] if wait is not None else None)

    def _log_failure(self, visit: Visit, error: AnychatError) -> None:
        self.metrics.failed(visit.surface, visit.target, type(error).__name__)
        _log.info("request %s: %s: %s", visit.id, type(error).__name__, error)

    def _note(self, visit: Visit, events: list[Event]) -> None:
        """Tell in a header what was left out of the question."""
        dropped = [event.text for event in events if type(event) is Notice and event.kind == "dropped"]
        if dropped:
            visit.headers.append(("x-anychat-degraded", _header_value("; ".join(dropped))))

    def _count(self, visit: Visit, target: Target, events: list[Event]) -> None:
        if visit.first is not None:
            self.metrics.first_token(target.name, visit.first)
        for event in events:
            if type(event) is Usage:
                self.metrics.tokens(target.name, event.prompt_tokens, event.completion_tokens)

    # The rest

    async def _models(self, visit: Visit) -> None:
        await visit.send(200, self._listing())

    async def _model(self, visit: Visit) -> None:
        wanted = unquote(visit.incoming.path.removeprefix("/v1/models/"))
        row = next((row for row in self._rows() if row["id"] == wanted), None)
        if row is None:
            surface = self._surfaces["openai"]
            status, body = surface.error(ModelNotFound(f"the model {wanted!r} does not exist here"), visit.id)
            await visit.send(status, body)
            return
        await visit.send(200, msgspec.json.encode(row))

    def _rows(self) -> list[dict[str, object]]:
        return [
            {"id": name, "object": "model", "created": 0, "owned_by": owner} for name, owner in self.targets.models()
        ]

    def _listing(self) -> bytes:
        return msgspec.json.encode({"object": "list", "data": self._rows()})

    async def _live(self, visit: Visit) -> None:
        await visit.send(200, b'{"status":"live"}')

    async def _ready(self, visit: Visit) -> None:
        await visit.send(200, b'{"status":"ready"}')

    async def _metrics(self, visit: Visit) -> None:
        visit.status = 200
        await visit.reply.whole(200, [("content-type", Metrics.content_type), *visit.headers], self.metrics.text())


async def _until_text(events: AsyncGenerator[Event, None]) -> AsyncGenerator[Event, None]:
    """The events up to and with the first that is part of the answer."""
    async for event in events:
        yield event
        if type(event) not in (Notice,):
            return


def _plain_error(text: str) -> bytes:
    return msgspec.json.encode(
        {"error": {"message": text, "type": "invalid_request_error", "param": None, "code": None}}
    )


def _header_value(text: str) -> str:
    """The text as a header's value: visible ASCII, of moderate length."""
    return re.sub(r"[^\x20-\x7e]", "?", text)[:512]
