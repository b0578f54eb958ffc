"""The gateway: a caller's request in, an answer out. No server and no socket: see `gateway.serving`.

The way of a question: its surface reads the body, the model's name finds a target. Where the target
speaks the surface's own API the body goes through; else the events of the target's session are
written in the surface's shape (`gateway.answers.answering`).
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager, suppress
from functools import partial

import msgspec

from tolmach.access.keys import Key, check_model, model_not_found
from tolmach.chat import ChatRequest
from tolmach.errors import AuthError, BadRequest, ModelNotFound, ProviderUnavailable, TolmachError
from tolmach.gateway.answers.answering import Answering
from tolmach.gateway.answers.conversations import Conversations, Responses
from tolmach.gateway.answers.spent import settle_all
from tolmach.gateway.callers import Callers
from tolmach.gateway.context import JSON, RequestContext
from tolmach.gateway.cors import is_foreign
from tolmach.gateway.explain import explained_body
from tolmach.gateway.http import (
    MOST_HEADERS,
    BodyRefused,
    EncodedBody,
    ForeignPage,
    Incoming,
    Overloaded,
    Reply,
    ServerLimits,
    TooManyHeaders,
)
from tolmach.gateway.openapi import document_body
from tolmach.gateway.parts import Part
from tolmach.gateway.policy import Policy
from tolmach.gateway.request_target import check_host, is_canonical
from tolmach.gateway.reservations import Peek, Wanted, wanted
from tolmach.gateway.surfaces.anthropic import AnthropicSurface
from tolmach.gateway.surfaces.base import Asked, Label, Surface
from tolmach.gateway.surfaces.bodies import LONGEST_MODEL, check_depth, check_shape, read_object, wrong
from tolmach.gateway.surfaces.embeddings import parse_embeddings
from tolmach.gateway.surfaces.openai import OpenAISurface
from tolmach.gateway.surfaces.responses import ResponsesSurface
from tolmach.gateway.telemetry.logs import access, write_access
from tolmach.gateway.telemetry.metrics import Metrics
from tolmach.gateway.telemetry.transcript import Transcript
from tolmach.ledger.writer import Ledger
from tolmach.routing.router import Router
from tolmach.routing.targets import Plan, Targets
from tolmach.state import State

__all__ = ["Gateway"]

_log = logging.getLogger("tolmach.gateway")


_CUT_SECONDS = 1.0
"""How long answers may take to end once they are told to."""

_MOST_HELD = 512 << 20
"""Bytes of the bodies of all questions under way."""

_NOTHING_ASKED = Asked(turn=ChatRequest(messages=()))

_PEEK = msgspec.json.Decoder(Peek)
_COUNT = "anthropic/count_tokens"

Handler = Callable[[RequestContext], Awaitable[None]]


class Gateway:
    """Answers requests. `targets` may be replaced at any time; requests under way keep theirs.

    `keep_alive` is the seconds of a target's silence in mid-stream after which the caller gets a sign of life.
    """

    def __init__(
        self,
        targets: Targets,
        *,
        limits: ServerLimits = ServerLimits(),
        keep_alive: float = 15.0,
        now: Callable[[], float] = time.time,
        router: Router | None = None,
        callers: Callers | None = None,
        memory: tuple[Conversations, Responses] | None = None,
        state: State | None = None,
        ledger: Ledger | None = None,
    ) -> None:
        self.targets = targets
        self.metrics = Metrics(lambda target: target in self.targets.configured)
        self.limits = limits
        self.policy = Policy()
        self.problem = ""
        """Why the configuration as it stands now is not in force; empty when it is."""
        self._under_way: set[RequestContext] = set()
        self._idle = asyncio.Event()
        self._draining = False
        self._read = 0
        """Bytes of the bodies of the questions under way."""
        self._coming = 0
        """Bytes of the bodies that are being read, as their senders say."""
        self._cut = False
        # Asked for once: each asking costs a system call before Python 3.12.
        self._loop: asyncio.AbstractEventLoop | None = None
        self.router = router or Router()
        self.metrics.health = self.router.health
        self.callers = self.metrics.callers = callers or Callers()
        self.ledger = self.metrics.ledger = ledger
        self.metrics.state = state
        self.parts: list[Part] = []
        """What is kept beside the targets, in the order in which it is started."""
        self.observers: list[Callable[[RequestContext], None]] = []
        """QuestionRecord of each question at its end."""
        self._answering = Answering(self.router, self.metrics, now, keep_alive, memory)
        self._openai = OpenAISurface()
        self._anthropic = AnthropicSurface()
        self._routes: dict[tuple[str, str], Handler] = {
            ("POST", "/v1/chat/completions"): self._asked(self._openai),
            ("POST", "/v1/responses"): self._asked(ResponsesSurface()),
            ("POST", "/v1/messages"): self._asked(self._anthropic),
            ("POST", "/v1/messages/count_tokens"): self._told(self._anthropic, "anthropic", self._count_tokens),
            ("POST", "/v1/embeddings"): self._told(self._openai, "embeddings", self._embeddings),
            ("GET", "/v1/models"): self._models,
            ("GET", "/health/live"): self._live,
            ("GET", "/health/ready"): self._ready,
            ("GET", "/metrics"): self._metrics,
            ("GET", "/admin/explain"): self._explain,
            ("GET", "/openapi.json"): self._openapi,
        }

    async def start(self) -> None:
        """Start what is kept beside the targets, on the loop that serves."""
        for part in self.parts:
            await part.start()

    async def aclose(self) -> None:
        """Close it, the last first, each of it whatever became of the others."""
        async with AsyncExitStack() as closing:
            for part in self.parts:
                closing.push_async_callback(part.aclose)

    async def handle(self, incoming: Incoming, reply: Reply) -> None:
        """Answer one request, whatever it is."""
        policy = self.policy
        if policy.texts:
            incoming = reply = Transcript(incoming, reply)
        context = RequestContext(incoming, reply)
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        context.task = asyncio.current_task(self._loop)
        origin = incoming.headers.get("origin")
        if origin is not None:
            context.headers += policy.cors.headers(origin)
        self._under_way.add(context)
        try:
            await self._handle(context)
        finally:
            self._under_way.discard(context)
            self._read -= context.size
            if context.surface != "none":
                self._finished(context)
            if self._draining and not self._under_way:
                self._idle.set()
            if access.isEnabledFor(logging.INFO):
                write_access(context.line())

    def _finished(self, context: RequestContext) -> None:
        """A question has ended, in whatever way: what it took is settled, and written down."""
        settle_all(context.journal)
        if context.gone and context.usage is None and context.journal.attempts:
            context.usage = context.journal.attempts[-1].usage
        if context.reservation is not None:
            context.reservation.settle(context.journal)
        self.metrics.tried(context.journal)
        for observer in self.observers:
            observer(context)

    @property
    def under_way(self) -> int:
        """Requests being answered."""
        return len(self._under_way)

    async def drain(self, seconds: float) -> None:
        """Say that this gateway is not ready, and give what is under way so long to end."""
        self._draining = True
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._under_way:
                    self._idle.clear()
                    await self._idle.wait()

    async def cut_off(self) -> None:
        """End what is under way: streams with an error event, other questions with a 503."""
        self._cut = True
        tasks = [context.task for context in self._under_way if context.task is not None and context.surface != "none"]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_CUT_SECONDS)

    def cut_revoked(self) -> None:
        """End what is under way for keys that are not good any more: streams with an error event, others with 401."""
        for context in self._under_way:
            if context.key is None or context.revoked is not None or context.complete or context.task is None:
                continue
            context.revoked = self.callers.revoked(context.key)
            if context.revoked is not None:
                context.task.cancel()

    async def _handle(self, context: RequestContext) -> None:
        incoming = context.incoming
        # The server leaves out the body of an answer to HEAD.
        method = "GET" if incoming.method == "HEAD" else incoming.method
        handler = self._routes.get((method, incoming.path))
        if handler is None or incoming.authority or incoming.raw_path not in (None, incoming.path):
            handler = self._other(incoming, method)
        try:
            check_host(incoming.hosts, self.policy.hosts)
            await handler(context)
        except BodyRefused as error:
            said = _plain_error(str(error), error.code)
            await context.send(error.status, said, [("connection", "close")])
        except asyncio.CancelledError:
            # One who has read the end mark closes the connection: that is no leaving, and the answer is there.
            if not context.complete or context.status == 0:
                context.gone = True
                self.metrics.cancelled(context.surface)
                raise
        except ConnectionError:
            # The caller went away while something was being read or written.
            context.gone = True
            self.metrics.cancelled(context.surface)
            if context.status == 0:
                # Or it is there still, and the body was broken: ASGI does not tell the one from the other.
                with suppress(ConnectionError):
                    await context.reply.whole(400, [JSON, ("connection", "close")], _plain_error("the body broke off"))
        except Exception:  # a bug of ours: the caller gets a plain 500, the log gets all of it
            _log.exception("request %s failed", context.id)
            if context.status == 0:
                await context.send(500, _plain_error("internal error; the log has more under this request's id"))
        self.metrics.answered(context.surface, context.target, context.status, time.monotonic() - context.started)

    def _other(self, incoming: Incoming, method: str) -> Handler:
        """The handler of what is not a route as it stands: another spelling of one, one of a family, or nothing."""
        elsewhere = incoming.authority and [incoming.authority.lower()] != [host.lower() for host in incoming.hosts]
        if elsewhere or not is_canonical(incoming.path, incoming.raw_path):
            return _refusal(404, incoming)
        if (handler := self._routes.get((method, incoming.path))) is not None:
            return handler
        if incoming.path.startswith("/v1/models/") and method == "GET":
            return self._model
        if method == "OPTIONS" and "access-control-request-method" in incoming.headers:
            return self._preflight
        methods = [method for method, path in self._routes if path == incoming.path]
        if incoming.path.startswith("/v1/models/"):
            methods.append("GET")
        if "GET" in methods:
            methods.append("HEAD")
        return _refusal(405 if methods else 404, incoming, methods)

    # Questions

    def _asked(self, surface: Surface) -> Handler:
        """The handler of a surface's questions."""

        return self._told(surface, surface.name, lambda context, body: self._question(context, surface, body))

    def _told(self, surface: Surface, name: str, work: Callable[[RequestContext, bytes], Awaitable[None]]) -> Handler:
        """A handler that reads the body; what fails before an answer is told in the surface's shape."""

        async def handler(context: RequestContext) -> None:
            context.surface = name
            limits = self.limits
            try:
                self._admit(context.incoming)
                key = context.key = self.callers.who(context.incoming.headers)
                if key is not None:
                    context.user = key.id
                with self._held(_declared(context.incoming.headers)):
                    body = await context.incoming.body(limits.body_bytes, limits.body_seconds)
                context.size = len(body)
                self._read += context.size
                self._check_held(0)
                check_depth(body, limits.depth)
                await work(context, body)
            except BodyRefused as error:
                context.error = type(error).__name__
                kind = BadRequest if error.status < 500 else ProviderUnavailable
                refusal = kind(str(error), status=error.status, code=error.code)
                wait = [("retry-after", str(error.retry_after))] if error.retry_after is not None else []
                await context.send(
                    error.status, surface.error(refusal, context.id)[1], [("connection", "close"), *wait]
                )
            except TolmachError as error:
                await self._answering.fail(context, surface, error)
            except asyncio.CancelledError:
                told = context.revoked or (_stopped() if self._cut else None)
                if told is None or context.complete or (context.status and context.writer is None):
                    raise
                await _break_off(context, surface, told)

        return handler

    @contextmanager
    def _held(self, size: int) -> Iterator[None]:
        """Room for a body while it comes. Raises `Overloaded` when all bodies together would take too much."""
        self._check_held(size)
        self._coming += size
        try:
            yield
        finally:
            self._coming -= size

    def _check_held(self, size: int) -> None:
        most = max(_MOST_HELD, self.limits.body_bytes)
        if size > self.limits.body_bytes:
            return  # refused for its own length
        if self._coming + self._read + size > most:
            raise Overloaded(f"the questions under way have {most >> 20} MiB, as much as is allowed; ask again")

    def _admit(self, incoming: Incoming) -> None:
        """Raises `BodyRefused` for a question that is not taken, whatever is in it."""
        limits = self.limits
        if self._draining:
            raise Overloaded("the gateway is being stopped; ask again")
        if len(self._under_way) > limits.streams:
            raise Overloaded(f"{limits.streams} questions are under way, as many as are allowed; ask again")
        if is_foreign(incoming.headers, self.policy.cors):
            raise ForeignPage("pages of this origin may not ask here; gateway.cors.origins names those that may")
        if limits.headers < MOST_HEADERS and len(incoming.headers) > limits.headers:
            raise TooManyHeaders(f"the request has more than {limits.headers} headers")
        encoding = incoming.headers.get("content-encoding")
        if encoding is not None and encoding.lower() not in ("", "identity"):
            raise EncodedBody(encoding)

    async def _question(self, context: RequestContext, surface: Surface, body: bytes) -> None:
        try:
            peek = _PEEK.decode(body)
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            surface.parse(body)  # the surface knows what to say about it
            peek = check_shape(read_object(body), Peek)
        plan = await self._let_in(context, peek, body, wanted(peek))
        await self._answering.answer(context, surface, plan, body, bool(peek.stream))

    async def _let_in(self, context: RequestContext, peek: Peek, body: bytes, asked: Wanted | None = None) -> Plan:
        """The plan for what is asked, if the caller's key allows it. Raises `ModelNotFound` and what `admit` does."""
        if len(peek.model) > LONGEST_MODEL:
            raise wrong("model", f"it has more than {LONGEST_MODEL} characters")
        context.model = peek.model
        key = context.key
        plan = self._plan(key, peek.model)
        if key is not None and key.limited:
            reservation = context.reservation = await self.callers.admit(key, peek, plan, body, asked)
            context.headers += reservation.headers()
            context.journal.permit = partial(reservation.permit, context.journal)
        return plan

    def _plan(self, key: Key | None, model: str) -> Plan:
        if key is None or not key.models:
            return self.targets.plan(model)
        check_model(key, model)
        try:
            return self.targets.plan(model)
        except ModelNotFound:
            raise model_not_found(key, model) from None

    async def _count_tokens(self, context: RequestContext, body: bytes) -> None:
        try:
            peek = _PEEK.decode(body)
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            # The surface knows what to say about it.
            await context.send(200, self._anthropic.count(body))
            return
        plan = await self._let_in(context, peek, body)
        if _COUNT in plan.first.forwards:
            await self._answering.pass_on(context, self._anthropic, plan, body, _COUNT)
        else:
            await context.send(200, self._anthropic.count(body))

    async def _embeddings(self, context: RequestContext, body: bytes) -> None:
        plan = await self._let_in(context, Peek(parse_embeddings(body).model), body)
        await self._answering.pass_on(context, self._openai, plan, body, "embeddings")

    # The rest

    async def _models(self, context: RequestContext) -> None:
        try:
            rows = self._rows(context)
        except TolmachError as error:
            await self._answering.fail(context, self._openai, error)
        else:
            await context.send(200, msgspec.json.encode({"object": "list", "data": rows}))

    async def _model(self, context: RequestContext) -> None:
        wanted = context.incoming.path.removeprefix("/v1/models/")
        try:
            row = next((row for row in self._rows(context) if row["id"] == wanted), None)
            if row is None:
                raise model_not_found(self.callers.who(context.incoming.headers), wanted[:LONGEST_MODEL])
        except TolmachError as error:
            await self._answering.fail(context, self._openai, error)
        else:
            await context.send(200, msgspec.json.encode(row))

    def _rows(self, context: RequestContext) -> list[dict[str, object]]:
        """The models that the caller may ask for. Raises `AuthError` for one who needs a key and has none."""
        key = self.callers.who(context.incoming.headers)
        return [
            {"id": name, "object": "model", "created": 0, "owned_by": owner}
            for name, owner in self.targets.models()
            if key is None or key.allows(name)
        ]

    async def _live(self, context: RequestContext) -> None:
        await context.send(200, b'{"status":"live"}')

    async def _ready(self, context: RequestContext) -> None:
        said = {"status": "stopping" if self._draining else "ready"}
        if self.problem:
            said["configuration"] = self.problem
        if self.callers.problem:
            said["keys"] = self.callers.problem
        await context.send(503 if self._draining else 200, msgspec.json.encode(said))

    async def _openapi(self, context: RequestContext) -> None:
        await context.send(200, document_body())

    async def _preflight(self, context: RequestContext) -> None:
        """A browser asks whether a page may ask."""
        headers = context.incoming.headers
        allowed = self.policy.cors.allows(headers.get("origin", ""))
        wanted = headers.get("access-control-request-headers", "")
        context.status = 204 if allowed else 403
        more = self.policy.cors.preflight(wanted) if allowed else []
        await context.reply.whole(context.status, [*context.headers, *more], b"")

    async def _is_admin(self, context: RequestContext, *, metrics: bool = False) -> bool:
        """Whether the caller may see what is the admin's, or `/metrics`; one who may not is told so."""
        policy, sent = self.policy, context.incoming.headers.get("authorization", "")
        if policy.admits(sent, callers_need_keys=self.callers.need_keys, metrics=metrics):
            return True
        needed = "the admin's key is needed"
        if not (policy.admin_key or (metrics and policy.metrics_key)):
            needed += ", and there is none: set gateway.admin_key" + (" or gateway.metrics_key" if metrics else "")
        await context.send(401, _plain_error(needed), [("www-authenticate", "Bearer")])
        return False

    async def _explain(self, context: RequestContext) -> None:
        if await self._is_admin(context):
            await context.send(*explained_body(context.incoming.query, self.targets, self.router.health))

    async def _metrics(self, context: RequestContext) -> None:
        if not await self._is_admin(context, metrics=True):
            return
        context.status = 200
        await context.reply.whole(200, [("content-type", Metrics.content_type), *context.headers], self.metrics.text())


def _stopped() -> ProviderUnavailable:
    """The gateway ends before the answer does."""
    return ProviderUnavailable(
        "the gateway was stopped before the answer's end", status=503, code="stopped", retry_after=1
    )


async def _break_off(context: RequestContext, surface: Surface, error: AuthError | ProviderUnavailable) -> None:
    """Tell a caller that the answer ends here, and why."""
    context.error = "Stopped" if context.revoked is None else type(error).__name__
    if context.writer is not None:
        await context.writer.write(
            surface.stream(_NOTHING_ASKED, Label(id=context.id, created=0, model="")).fail(error)
        )
        return
    wait = [("retry-after", "1")] if error.status == 503 else []
    await context.send(error.status or 500, surface.error(error, context.id)[1], [("connection", "close"), *wait])


def _declared(headers: Mapping[str, str]) -> int:
    """How long a body is, as its sender says; 0 where that is not told or no number."""
    length = headers.get("content-length", "")
    return int(length) if length.isascii() and length.isdigit() and len(length) < 16 else 0


def _refusal(status: int, incoming: Incoming, methods: Sequence[str] = ()) -> Handler:
    """Says that the path, or with `methods` the method, is not served."""

    async def refuse(context: RequestContext) -> None:
        said = _plain_error(f"{incoming.method} {incoming.path} is not served here")
        await context.send(status, said, [("allow", ", ".join(methods))] if methods else None)

    return refuse


def _plain_error(text: str, code: str | None = None) -> bytes:
    return msgspec.json.encode(
        {"error": {"message": text, "type": "invalid_request_error", "param": None, "code": code}}
    )
