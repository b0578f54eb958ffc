"""A session: where a protocol meets a transport.

It drives the steps of handshakes, keeps cookies and (in `SessionState`) nonces, and shakes hands
again when a nonce is refused. Nothing else in tolmach does any of that. A session belongs to one
user of one site; it may be used from several tasks, event loops and threads.

Refusals. A call notes which *generation* of the tokens it used. When they are refused before any
event went out, the first to come back drops that generation, one of the waiting callers shakes
hands for all, and each asks again. A fresh generation that is refused although nobody was ever
answered with it is an error; one that had worked has simply expired again. After a refusal the
caller that shook hands asks first, and the others wait until its question is let in: so a crowd
does not use up a fresh nonce, or knock two hundred times with a dead one. In a crowd a fresh
generation may still lose a race with questions under way; it is tried a few times then.
"""

import asyncio
import copy
import inspect
import secrets
import threading
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator, Set
from concurrent.futures import Future
from contextlib import aclosing
from typing import Any, NamedTuple, Protocol, TypeVar

from tolmach.chat import ChatRequest, Done, Event, admit
from tolmach.cookies import CookieJar
from tolmach.errors import ChallengeRequired, RemoteProtocolError, StaleSession, TimedOut, TolmachError
from tolmach.protocols.base import SessionState, Site
from tolmach.protocols.lenient import forgiving
from tolmach.transport.base import Exchange, Timeouts, Transport, read
from tolmach.transport.drain import drain
from tolmach.transport.exchange import open_exchange
from tolmach.wire import Challenge, Decoder, Limits, Request, Response, Work

__all__ = ["ChallengeHandler", "Session", "Sharing", "new_state"]

T = TypeVar("T")

ChallengeHandler = Callable[[Challenge], str | Awaitable[str]]
"""Asks a person. Gives the person's answer; it may raise `ChallengeRequired` to decline."""

_MAX_REFUSALS = 100
_MAX_DEAD_GENERATIONS = 5


def new_state(limits: Limits = Limits()) -> SessionState:
    """An empty state with the real clock and the system's randomness."""
    return SessionState(now=time.time, random_hex=lambda n: secrets.token_hex((n + 1) // 2)[:n], limits=limits)


class Sharing(Protocol):
    """Where sessions of several processes with one site share what their handshakes gave."""

    async def make_ready(self, shake: Callable[[], Awaitable[object]]) -> None:
        """See that the session has tokens, by `shake` where nobody else has any. Raises what it raises."""


class Session:
    """One user's session with one site."""

    def __init__(
        self,
        site: Site,
        transport: Transport,
        *,
        state: SessionState | None = None,
        cookies: CookieJar | None = None,
        timeouts: Timeouts = Timeouts(),
        limits: Limits = Limits(),
        on_challenge: ChallengeHandler | None = None,
    ) -> None:
        self.site = site
        self.state = state if state is not None else new_state(limits)
        self.cookies = cookies if cookies is not None else CookieJar()
        self.timeouts = timeouts
        self.limits = limits
        self.sharing: Sharing | None = None
        self._transport = transport
        self._on_challenge = on_challenge
        self._lock = threading.Lock()
        self._flight: Future[bool] | None = None
        self._generation = 0
        self._proven = -1
        self._callers = 0
        self._refused = False

    async def ask(
        self,
        turn: ChatRequest,
        *,
        strict: bool | Set[str] = True,
        timeouts: Timeouts | None = None,
        on_challenge: ChallengeHandler | None = None,
        forgive: bool = False,
    ) -> AsyncGenerator[Event, None]:
        """The events of the answer, as they arrive. Closing the generator closes the connection at once.

        Options that the protocol cannot honour raise `UnsupportedFeature`, or with `strict=False`
        are dropped with a `Notice`; as a set, `strict` names those that must not be dropped. Errors
        carry the text that had arrived in `partial`.
        `timeouts.total` covers the handshake and the answer together. With `forgive` one malformed
        event of a stream is left out with a `Notice` (`skipped`).
        """
        asking = _Asking(timeouts or self.timeouts, on_challenge or self._on_challenge, forgive)
        self._callers += 1
        try:
            turn, notices = admit(turn, self.site.protocol.features, who=self.site.name, strict=strict)
            for notice in notices:
                yield notice
            async with aclosing(self._answer(turn, asking)) as events:
                async for event in events:
                    yield event
        except TolmachError as error:
            error.provider = error.provider or self.site.name
            raise
        finally:
            self._callers -= 1

    async def make_ready(self) -> None:
        """Shake hands if the tokens are not there or have ended."""
        lease = await self._make_ready(_Asking(self.timeouts, self._on_challenge))
        self._land(lease.trial)

    async def carry_out(self, steps: Generator[Any, Any, T], timeouts: Timeouts | None = None) -> T:
        """What steps that are no question return, such as the list of models of a service."""
        try:
            found: T = await self._drive(steps, _Asking(timeouts or self.timeouts, self._on_challenge))
        except TolmachError as error:
            error.provider = error.provider or self.site.name
            raise
        return found

    def exchange(self, request: Request, timeouts: Timeouts | None = None) -> Coroutine[Any, Any, Exchange]:
        """One request with the session's cookies and headers, no handshake around it; to be closed by the caller."""
        return open_exchange(
            self._transport, self._with_headers(request), self.cookies, timeouts or self.timeouts, self.limits
        )

    async def _answer(self, turn: ChatRequest, asking: "_Asking") -> AsyncGenerator[Event, None]:
        refusals = dead = 0
        lease = await self._make_ready(asking)
        try:
            while True:
                started = False
                try:
                    async with aclosing(self._attempt(turn, lease, asking)) as events:
                        async for event in events:
                            started = True
                            yield event
                    return
                except StaleSession as error:
                    dead = dead + 1 if refusals and lease.generation > self._proven else 0
                    allowed = _MAX_DEAD_GENERATIONS if self._callers > 1 else 0
                    if started or dead > allowed or refusals >= _MAX_REFUSALS:
                        self._land(lease.trial, error)
                        raise
                    refusals += 1
                    lease = await self._renew(lease, asking)
        finally:
            self._land(lease.trial)

    async def _attempt(self, turn: ChatRequest, lease: "_Lease", asking: "_Asking") -> AsyncGenerator[Event, None]:
        call = await self._drive(self.site.protocol.open(self.site, turn, self.state), asking)
        exchange = await self._send(call.request, asking)
        decoder: Decoder | None = None
        try:
            decoder = call.decoder(exchange.head)
            if asking.forgive:
                decoder = forgiving(decoder, exchange.head, self.limits.event_bytes)
            self._land(lease.trial)
            pieces = aiter(exchange)
            async for data in pieces:
                for event in decoder.feed(data):
                    self._prove(lease.generation)
                    yield event
                    if type(event) is Done:
                        await drain(pieces)
                        return
            for event in decoder.close():
                self._prove(lease.generation)
                yield event
        except TolmachError as error:
            if decoder is not None:
                error.partial = error.partial or decoder.partial
            raise
        finally:
            await exchange.aclose()

    # Tokens

    async def _make_ready(self, asking: "_Asking") -> "_Lease":
        """The tokens to use, after a handshake if there are none."""
        while True:
            with self._lock:
                flight = self._flight
                if flight is None:
                    if self.site.protocol.ready(self.site, self.state):
                        return _Lease(self._generation)
                    leading = self._flight = Future()
            if flight is None:
                return await self._lead(leading, asking)
            await self._follow(flight, asking)

    async def _lead(self, flight: "Future[bool]", asking: "_Asking") -> "_Lease":
        try:
            await self._shake_hands(asking)
            if not self.site.protocol.ready(self.site, self.state):
                raise RemoteProtocolError("the handshake ended without the tokens it is for")
        except TolmachError as error:
            self._land(flight, error)
            raise
        except BaseException:
            # Cancelled, or a bug of ours: the next of the waiting callers tries for itself.
            self._land(flight)
            raise
        self._generation += 1
        if self._refused:
            return _Lease(self._generation, flight)
        self._land(flight)
        return _Lease(self._generation)

    async def _shake_hands(self, asking: "_Asking") -> None:
        def shake() -> Awaitable[None]:
            return self._drive(self.site.protocol.prepare(self.site, self.state), asking)

        await (shake() if self.sharing is None else self.sharing.make_ready(shake))

    def _land(self, flight: "Future[bool] | None", error: TolmachError | None = None) -> None:
        """Let those who wait for the flight go on, or fail with it; landed once is landed."""
        with self._lock:
            if flight is None or self._flight is not flight:
                return
            self._flight = None
        if error is None:
            flight.set_result(True)
        else:
            # A copy, since each caller's raise adds its own traceback.
            flight.set_exception(copy.copy(error))

    async def _follow(self, flight: "Future[bool]", asking: "_Asking") -> None:
        try:
            async with asyncio.timeout(asking.remaining()):
                await asyncio.shield(asyncio.wrap_future(flight))
        except TolmachError as error:
            raise copy.copy(error) from error
        except TimeoutError as error:
            raise TimedOut("timed out while another caller shook hands", phase="total") from error

    async def _renew(self, lease: "_Lease", asking: "_Asking") -> "_Lease":
        """The tokens to use after these were refused."""
        with self._lock:
            trying = lease.trial is not None and self._flight is lease.trial
            if self._generation == lease.generation and (trying or self._flight is None):
                self.state.tokens.clear()
                self._refused = True
        if trying and lease.trial is not None:
            # Whoever tries a fresh generation for all goes on until one is let in.
            return await self._lead(lease.trial, asking)
        return await self._make_ready(asking)

    def _prove(self, generation: int) -> None:
        if generation > self._proven:
            self._proven = generation
            self._refused = False

    # Steps

    async def _drive(self, steps: Generator[Any, Any, Any], asking: "_Asking") -> Any:
        """Run a handshake's steps; what it returns, a `Call` or nothing."""
        answer: Any = None
        try:
            for _ in range(self.limits.handshake_steps + 1):
                try:
                    step = steps.send(answer)
                except StopIteration as stop:
                    return stop.value
                if isinstance(step, Request):
                    answer = await self._fetch(step, asking)
                elif isinstance(step, Work):
                    answer = await self._work(step, asking)
                else:
                    answer = await self._ask_person(step, asking)
        finally:
            steps.close()
        raise RemoteProtocolError(f"the handshake took more than {self.limits.handshake_steps} steps")

    async def _fetch(self, request: Request, asking: "_Asking") -> Response:
        exchange = await self._send(request, asking)
        return Response(exchange.head, await read(exchange, self.limits.response_bytes))

    async def _send(self, request: Request, asking: "_Asking") -> Exchange:
        timeouts = asking.timeouts.within(asking.remaining())
        return await open_exchange(self._transport, self._with_headers(request), self.cookies, timeouts, self.limits)

    def _with_headers(self, request: Request) -> Request:
        if not self.site.headers:
            return request
        return Request(request.method, request.url, {**self.site.headers, **request.headers}, request.body)

    async def _work(self, work: Work, asking: "_Asking") -> Any:
        """Run a CPU job in a thread; it is told to stop when the caller goes away."""
        stop = threading.Event()
        try:
            async with asyncio.timeout(asking.remaining()):
                return await asyncio.to_thread(work.run, stop.is_set)
        except TimeoutError as error:
            raise TimedOut("timed out during the proof of work", phase="total") from error
        finally:
            stop.set()

    async def _ask_person(self, challenge: Challenge, asking: "_Asking") -> str:
        if asking.on_challenge is None:
            raise ChallengeRequired(
                f"the service asks for {challenge.kind}: a person has to answer",
                kind=challenge.kind,
                url=challenge.url or self.site.url,
            )
        answer = asking.on_challenge(challenge)
        if inspect.isawaitable(answer):
            answer = await answer
        return answer


class _Lease(NamedTuple):
    """Which generation a call uses, and the flight that it holds while it tries a fresh one for all."""

    generation: int
    trial: "Future[bool] | None" = None


class _Asking:
    """What one call brings along: its time limits, its deadline, and whom to ask."""

    def __init__(self, timeouts: Timeouts, on_challenge: ChallengeHandler | None, forgive: bool = False) -> None:
        self.forgive = forgive
        self.timeouts = timeouts
        self.on_challenge = on_challenge
        self._deadline = None if timeouts.total is None else time.monotonic() + timeouts.total

    def remaining(self) -> float | None:
        """Seconds left of the total; None when it has no limit."""
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())
