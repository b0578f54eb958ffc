"""The session: one handshake for all, refusals, cookies, time limits, challenges. A protocol of the test's own."""

import asyncio
import random
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import ClassVar

import pytest
from msgspec import Struct

from tolmach.chat import ChatRequest, Delta, Done, Event, Message, Notice
from tolmach.errors import (
    ChallengeRequired,
    ConnectFailed,
    ConnectionLost,
    RateLimited,
    RemoteProtocolError,
    StaleSession,
    TimedOut,
    TruncatedAnswer,
    UnsupportedFeature,
)
from tolmach.protocols.base import Answer, SessionState, Site
from tolmach.session import Session
from tolmach.transport.base import Timeouts
from tolmach.wire import Call, Challenge, Handshake, Head, Limits, Request, Steps, Work

URL = "http://site.test"
QUESTION = ChatRequest(messages=(Message("user", "hi"),))


class FakeExchange:
    def __init__(self, head: Head, body: bytes) -> None:
        self.head = head
        self._body = body
        self.closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for i in range(0, len(self._body), 4):
            yield self._body[i : i + 4]

    async def aclose(self) -> None:
        self.closed = True


Respond = Callable[[Request], Awaitable[tuple[Head, bytes]]]


class FakeTransport:
    """Answers with a function of the request, and remembers what it was asked."""

    def __init__(self, respond: Respond) -> None:
        self.respond = respond
        self.requests: list[Request] = []
        self.exchanges: list[FakeExchange] = []
        self.asked = asyncio.Event()

    async def send(self, request: Request, timeouts: Timeouts) -> FakeExchange:
        self.requests.append(request)
        self.asked.set()
        exchange = FakeExchange(*await self.respond(request))
        self.exchanges.append(exchange)
        return exchange

    async def aclose(self) -> None: ...

    def count(self, path: str) -> int:
        return sum(r.url == URL + path for r in self.requests)


class Words(Answer):
    """`text|` is an answer; without the bar it broke off. `stale` refuses the nonce."""

    def feed(self, data: bytes):
        text, bar, _ = data.decode().partition("|")
        yield from self.delta(text)
        if bar:
            yield from self.finish()

    def close(self):
        self.check_ended()
        yield from ()


def read_answer(head: Head) -> Words:
    if head.status == 403:
        raise StaleSession("nonce refused", status=403)
    return Words(head)


class NonceProtocol(Struct, frozen=True):
    """A nonce from `/nonce`, then `/ask` with it."""

    name: ClassVar[str] = "nonce"
    title: ClassVar[str] = "of the test"
    features: ClassVar[frozenset[str]] = frozenset({"temperature"})
    traits: ClassVar[frozenset[str]] = frozenset()
    before: tuple[Work | Challenge, ...] = ()

    def ready(self, site: Site, state: SessionState) -> bool:
        return state.token("nonce") is not None

    def prepare(self, site: Site, state: SessionState) -> Steps:
        response = yield Request("GET", site.url + "/nonce")
        if response.head.status != 200:
            raise RateLimited("too many visitors", status=response.head.status)
        state.keep("nonce", response.body.decode())

    def open(self, site: Site, turn: ChatRequest, state: SessionState) -> Handshake:
        headers = {"x-nonce": state.tokens["nonce"].value}
        for step in self.before:
            headers["x-step"] = yield step
        return Call(Request("POST", site.url + "/ask", headers), read_answer)

    def reader(self, request: Request) -> None:
        return None


def session_on(respond: Respond, protocol: NonceProtocol | None = None, **settings) -> tuple[Session, FakeTransport]:
    transport = FakeTransport(respond)
    site = Site(name="Nonce", url=URL, protocol=protocol or NonceProtocol())
    return Session(site, transport, **settings), transport


class NonceSite:
    """Gives nonces n1, n2, ... and accepts the newest only."""

    def __init__(self) -> None:
        self.given = 0
        self.valid = True
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, request: Request) -> tuple[Head, bytes]:
        await asyncio.sleep(0)  # as a network does, lets the other callers run
        if request.url.endswith("/nonce"):
            await self.gate.wait()
            self.given += 1
            return Head(200, cookies=(f"visit={self.given}; Path=/",)), f"n{self.given}".encode()
        if not self.valid or request.headers["x-nonce"] != f"n{self.given}":
            return Head(403), b"no"
        return Head(200), b"hello|"


async def text_of(session: Session, turn: ChatRequest = QUESTION) -> str:
    return "".join([event.text async for event in session.ask(turn) if isinstance(event, Delta)])


async def test_the_nonce_is_fetched_once_and_cookies_are_kept():
    site = NonceSite()
    session, transport = session_on(site)
    assert [await text_of(session) for _ in range(3)] == ["hello"] * 3
    assert transport.count("/nonce") == 1
    assert transport.requests[-1].headers["cookie"] == "visit=1"
    assert all(exchange.closed for exchange in transport.exchanges)


async def test_two_sessions_share_nothing():
    site = NonceSite()
    first, _ = session_on(site)
    second, transport = session_on(site)
    await text_of(first)
    await text_of(second)
    assert transport.count("/nonce") == 1
    assert first.cookies.header(URL) != second.cookies.header(URL)
    assert first.state.tokens["nonce"] != second.state.tokens["nonce"]


async def test_a_refused_nonce_is_fetched_again_once():
    site = NonceSite()
    session, transport = session_on(site)
    await text_of(session)
    site.given = 7  # another visitor moved the site on
    assert await text_of(session) == "hello"
    assert transport.count("/nonce") == 2
    assert transport.count("/ask") == 3


async def test_a_site_that_refuses_every_nonce_is_asked_twice():
    site = NonceSite()
    site.valid = False
    session, transport = session_on(site)
    with pytest.raises(StaleSession) as caught:
        await text_of(session)
    assert caught.value.provider == "Nonce"
    assert (transport.count("/nonce"), transport.count("/ask")) == (2, 2)
    assert all(exchange.closed for exchange in transport.exchanges)


async def test_many_callers_of_a_site_that_refuses_every_nonce_do_not_hammer_it():
    site = NonceSite()
    site.valid = False
    session, transport = session_on(site)
    errors = await asyncio.gather(*[text_of(session) for _ in range(40)], return_exceptions=True)
    assert {type(error) for error in errors} == {StaleSession}
    assert transport.count("/nonce") <= 10


async def test_a_nonce_is_refreshed_before_it_ends():
    now = 1000.0
    state = SessionState(now=lambda: now, random_hex=lambda n: "0" * n)
    session, transport = session_on(NonceSite(), state=state)
    await text_of(session)
    state.keep("nonce", "n1", expires=2000.0)
    now = 1900.0
    await text_of(session)
    assert transport.count("/nonce") == 1
    now = 1999.0
    await text_of(session)
    assert transport.count("/nonce") == 2


async def test_many_callers_wait_for_one_handshake():
    site = NonceSite()
    site.gate.clear()
    session, transport = session_on(site)
    asking = [asyncio.create_task(text_of(session)) for _ in range(50)]
    await transport.asked.wait()
    site.gate.set()
    assert await asyncio.gather(*asking) == ["hello"] * 50
    assert transport.count("/nonce") == 1


async def test_a_failed_handshake_fails_all_who_wait():
    gate = asyncio.Event()

    async def respond(request: Request) -> tuple[Head, bytes]:
        await gate.wait()
        return Head(429), b""

    session, transport = session_on(respond)
    asking = [asyncio.create_task(text_of(session)) for _ in range(20)]
    await transport.asked.wait()
    gate.set()
    errors = await asyncio.gather(*asking, return_exceptions=True)
    assert [type(error) for error in errors] == [RateLimited] * 20
    assert len({id(error) for error in errors}) == 20
    assert {error.status for error in errors if isinstance(error, RateLimited)} == {429}
    assert len(transport.requests) == 1


async def test_when_the_leader_goes_away_the_next_shakes_hands():
    site = NonceSite()
    site.gate.clear()
    session, transport = session_on(site)
    leader = asyncio.create_task(text_of(session))
    await transport.asked.wait()
    others = [asyncio.create_task(text_of(session)) for _ in range(5)]
    await asyncio.sleep(0)
    leader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leader
    site.gate.set()
    assert await asyncio.gather(*others) == ["hello"] * 5
    assert transport.count("/nonce") == 2


async def test_a_burst_of_refusals_makes_one_handshake():
    site = NonceSite()
    session, transport = session_on(site)
    await text_of(session)
    site.given += 1
    assert await asyncio.gather(*[text_of(session) for _ in range(30)]) == ["hello"] * 30
    assert transport.count("/nonce") == 2


def test_one_session_serves_two_event_loops():
    site_gate = threading.Event()
    given = 0

    async def respond(request: Request) -> tuple[Head, bytes]:
        nonlocal given
        if request.url.endswith("/nonce"):
            await asyncio.to_thread(site_gate.wait, 5)
            given += 1
            return Head(200), b"n"
        return Head(200), b"hello|"

    session, _ = session_on(respond)
    answers: list[str] = []
    threads = [threading.Thread(target=lambda: answers.append(asyncio.run(text_of(session)))) for _ in range(4)]
    for thread in threads:
        thread.start()
    site_gate.set()
    for thread in threads:
        thread.join(10)
    assert answers == ["hello"] * 4
    assert given == 1


async def test_a_broken_answer_carries_what_had_come():
    async def respond(request: Request) -> tuple[Head, bytes]:
        return Head(200), b"n" if request.url.endswith("/nonce") else b"half an ans"

    session, transport = session_on(respond)
    with pytest.raises(TruncatedAnswer) as caught:
        await text_of(session)
    assert caught.value.partial == "half an ans"
    assert transport.exchanges[-1].closed


@pytest.mark.parametrize("after", ["nothing", "reset"])
async def test_what_comes_after_the_end_of_an_answer_does_not_matter(after: str):
    class Lingering(FakeExchange):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield b"hello|"
            if after == "reset":
                raise ConnectionLost("reset")
            await asyncio.get_running_loop().create_future()

    class Keeping(FakeTransport):
        async def send(self, request: Request, timeouts: Timeouts) -> FakeExchange:
            if request.url.endswith("/nonce"):
                return await super().send(request, timeouts)
            self.exchanges.append(Lingering(Head(200), b""))
            return self.exchanges[-1]

    transport = Keeping(NonceSite())
    session = Session(Site(name="Nonce", url=URL, protocol=NonceProtocol()), transport)
    assert await text_of(session) == "hello"
    assert transport.exchanges[-1].closed


async def test_closing_the_answer_closes_the_exchange():
    session, transport = session_on(NonceSite())
    events = session.ask(QUESTION)
    assert await anext(events) == Delta("hell")
    assert not transport.exchanges[-1].closed
    await events.aclose()
    assert transport.exchanges[-1].closed


async def test_transport_errors_pass_through_and_the_next_call_works():
    site = NonceSite()
    broken = True

    async def respond(request: Request) -> tuple[Head, bytes]:
        if broken:
            raise ConnectFailed("refused")
        return await site(request)

    session, _ = session_on(respond)
    with pytest.raises(ConnectFailed):
        await text_of(session)
    broken = False
    assert await text_of(session) == "hello"


async def test_unsupported_options_are_refused_or_dropped_with_a_notice():
    session, transport = session_on(NonceSite())
    turn = ChatRequest(messages=QUESTION.messages, options={"tools": [{}], "temperature": 0.5})
    with pytest.raises(UnsupportedFeature) as caught:
        await text_of(session, turn)
    assert caught.value.feature == "tools"
    assert not transport.requests
    events: list[Event] = [event async for event in session.ask(turn, strict=False)]
    assert isinstance(events[0], Notice)
    assert "tools" in events[0].text
    assert events[-1] == Done("stop")


async def test_the_total_limit_covers_the_handshake():
    async def respond(request: Request) -> tuple[Head, bytes]:
        raise AssertionError("the transport is given no time")

    seen: list[float | None] = []

    class Watching(FakeTransport):
        async def send(self, request: Request, timeouts: Timeouts) -> FakeExchange:
            seen.append(timeouts.total)
            raise TimedOut("total", phase="total")

    session = Session(
        Site(name="Nonce", url=URL, protocol=NonceProtocol()), Watching(respond), timeouts=Timeouts(total=7.0)
    )
    with pytest.raises(TimedOut):
        await text_of(session)
    assert seen[0] is not None
    assert 6.0 < seen[0] <= 7.0


async def test_work_runs_off_the_loop_and_is_told_to_stop():
    stopped = threading.Event()
    started = threading.Event()

    def job(is_stopped: Callable[[], bool]) -> str:
        started.set()
        while not is_stopped():
            time.sleep(0.001)
        stopped.set()
        return "late"

    session, _ = session_on(NonceSite(), NonceProtocol((Work(job),)))
    asking = asyncio.create_task(text_of(session))
    await asyncio.to_thread(started.wait, 5)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert await asyncio.to_thread(stopped.wait, 5)


async def test_work_ends_at_the_deadline():
    def job(is_stopped: Callable[[], bool]) -> str:
        while not is_stopped():
            time.sleep(0.001)
        return "late"

    session, _ = session_on(NonceSite(), NonceProtocol((Work(job),)), timeouts=Timeouts(total=0.05))
    with pytest.raises(TimedOut) as caught:
        await text_of(session)
    assert caught.value.phase == "total"


async def test_a_challenge_without_a_handler_is_an_error():
    session, transport = session_on(NonceSite(), NonceProtocol((Challenge("turnstile", "dx"),)))
    with pytest.raises(ChallengeRequired) as caught:
        await text_of(session)
    assert (caught.value.kind, caught.value.url) == ("turnstile", URL)
    assert transport.count("/ask") == 0


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_person_is_asked_and_the_answer_is_passed_on(asynchronous: bool):
    async def later(challenge: Challenge) -> str:
        return f"{challenge.data}!"

    handler = later if asynchronous else lambda challenge: f"{challenge.data}!"
    session, transport = session_on(NonceSite(), NonceProtocol((Challenge("turnstile", "dx"),)), on_challenge=handler)
    assert await text_of(session) == "hello"
    assert transport.requests[-1].headers["x-step"] == "dx!"


async def test_a_handshake_has_a_limited_number_of_steps():
    endless = tuple(Work(lambda _: "x") for _ in range(50))
    session, _ = session_on(NonceSite(), NonceProtocol(endless), limits=Limits(handshake_steps=10))
    with pytest.raises(RemoteProtocolError, match="more than 10 steps"):
        await text_of(session)


async def test_200_askers_while_every_nonce_is_refused_at_its_50th_use():
    used = refused = 0
    site = NonceSite()
    network = random.Random(50)

    async def respond(request: Request) -> tuple[Head, bytes]:
        nonlocal used, refused
        for _ in range(network.randrange(9)):
            await asyncio.sleep(0)
        if request.headers.get("x-nonce") == f"n{site.given}":
            used += 1
            if used % 50 == 0:
                site.given += 1
        head, body = await site(request)
        refused += head.status == 403
        return head, body

    session, transport = session_on(respond)

    async def asker() -> int:
        return sum([await text_of(session) == "hello" for _ in range(5)])

    assert sum(await asyncio.gather(*[asker() for _ in range(200)])) == 1000
    assert 20 <= transport.count("/nonce") <= refused + 1
