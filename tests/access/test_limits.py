"""Limits of keys: what is admitted, what is refused and with which words, and what is given back."""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.state.server import Server, eventually, running_server
from tests.state.test_windows import Clock
from tolmach.access.keys import Key
from tolmach.access.limits import Admission, Limiter, LimitReached
from tolmach.errors import AuthError, ModelNotFound, RateLimited
from tolmach.state import MemoryState, State
from tolmach.state.redis import RedisState

NOON = datetime(2024, 2, 28, 12, tzinfo=UTC).timestamp()


def key_with(**limits: Any) -> Key:
    return Key(id="id", name="app", hash="0" * 64, **limits)


def limiter_at(clock: Clock) -> Limiter:
    return Limiter(MemoryState(now=clock), now=clock)


@pytest.fixture
def clock() -> Clock:
    return Clock(NOON)


@pytest.fixture
def limiter(clock: Clock) -> Limiter:
    return limiter_at(clock)


def refused(limiter: Limiter, key: Key, tokens: int = 0, cost: int = 0) -> LimitReached:
    with pytest.raises(LimitReached) as caught:
        limiter.admit_now(key, "m", tokens, cost)
    assert isinstance(caught.value, RateLimited)
    assert caught.value.status == 429
    return caught.value


def test_a_key_without_limits(limiter: Limiter) -> None:
    admission = limiter.admit_now(key_with(), "m", 1000)
    assert admission.headers() == []
    admission.settle(10, 10)
    admission.release()
    assert admission.key.name == "app"


def test_requests_a_minute(limiter: Limiter, clock: Clock) -> None:
    key = key_with(requests_per_minute=2)
    limiter.admit_now(key, "m", 0).release()
    admission = limiter.admit_now(key, "m", 0)
    assert admission.headers() == [
        ("x-ratelimit-limit-requests", "2"),
        ("x-ratelimit-remaining-requests", "0"),
        ("x-ratelimit-reset-requests", "60s"),
    ]
    error = refused(limiter, key)
    assert error.code == "rate_limit_exceeded"
    assert error.retry_after is not None
    assert 59 <= error.retry_after <= 61
    assert dict(error.headers)["x-ratelimit-remaining-requests"] == "0"
    clock.now += error.retry_after + 0.001
    assert limiter.admit_now(key, "m", 0).headers()


def test_tokens_are_reserved_and_settled(limiter: Limiter) -> None:
    key = key_with(tokens_per_minute=100)
    first = limiter.admit_now(key, "m", 80)
    assert ("x-ratelimit-remaining-tokens", "20") in first.headers()
    assert "80 are counted, and this question may take 21" in str(refused(limiter, key, 21))
    first.settle(30, None)
    first.settle(99, None)
    second = limiter.admit_now(key, "m", 70)
    second.release()
    third = limiter.admit_now(key, "m", 70)
    third.settle(75, None)
    assert "105 are counted" in str(refused(limiter, key, 0))


def test_a_question_larger_than_the_limit(limiter: Limiter) -> None:
    error = refused(limiter, key_with(tokens_per_minute=100), 101)
    assert "more than the limit" in str(error)


def test_streams(limiter: Limiter, clock: Clock) -> None:
    key = key_with(streams=1, requests_per_minute=3)
    first = limiter.admit_now(key, "m", 0)
    error = refused(limiter, key)
    assert (error.code, error.retry_after) == ("rate_limit_exceeded", 1.0)
    first.settle(5, 5)
    second = limiter.admit_now(key, "m", 0)
    first.release()
    assert refused(limiter, key), "what has ended ends no other stream"
    second.release()
    limiter.admit_now(key, "m", 0).release()
    assert "3 requests a minute" in str(refused(limiter, key)), "and a refused one holds no stream"
    clock.now += 62
    assert limiter.admit_now(key, "m", 0)


async def test_leases_of_streams_under_way_are_renewed(limiter: Limiter, clock: Clock) -> None:
    key = key_with(streams=1)
    admission = limiter.admit_now(key, "m", 0)
    for _ in range(5):
        clock.now += 50
        await limiter.renew()
    assert refused(limiter, key)
    admission.release()
    await limiter.renew()
    assert limiter.admit_now(key, "m", 0)
    clock.now += 61  # and one that nobody renews is over
    assert limiter.admit_now(key, "m", 0)


@pytest.mark.parametrize(
    ("limits", "which", "wait"),
    [({"budget_day": 0.5}, "$0.5 a day", 12 * 3600), ({"budget_month": 0.5}, "$0.5 a month", 36 * 3600)],
)
def test_budgets(limiter: Limiter, clock: Clock, limits: dict[str, float], which: str, wait: int) -> None:
    key = key_with(**limits)
    limiter.admit_now(key, "m", 0, 400_000).settle(10, 500_000)
    error = refused(limiter, key)
    assert error.code == "insufficient_quota"
    assert which in str(error)
    assert error.retry_after == wait, "the day ends at midnight, and this February has 29 days"
    clock.now += wait
    admission = limiter.admit_now(key, "m", 0, 500_000)
    assert refused(limiter, key, 0, 1)
    admission.settle(10, None)
    assert limiter.admit_now(key, "m", 0, 500_000)


async def test_budgets_begin_with_what_the_ledger_knows(limiter: Limiter) -> None:
    key = key_with(budget_day=1.0, budget_month=3.0)
    asked: list[tuple[str, str]] = []

    async def spent(id: str, since: float) -> int:
        asked.append((id, f"{datetime.fromtimestamp(since, UTC):%m-%d %H:%M}"))
        return 900_000 if len(asked) % 2 else 2_000_000

    await limiter.seed([key, key_with(requests_per_minute=1)], spent)
    await limiter.seed([key], spent)
    assert asked == [("id", "02-28 00:00"), ("id", "02-01 00:00")] * 2
    assert "a day" in str(refused(limiter, key, 0, 100_001))
    assert limiter.admit_now(key, "m", 0, 100_000)


def test_keys_that_may_not_ask(limiter: Limiter) -> None:
    with pytest.raises(AuthError, match="switched off"):
        limiter.admit_now(key_with(disabled=True), "m", 0)
    with pytest.raises(AuthError, match="expired"):
        limiter.admit_now(key_with(expires=int(NOON)), "m", 0)
    with pytest.raises(ModelNotFound, match="may not ask"):
        limiter.admit_now(key_with(models=("gpt-*",)), "m", 0)


def test_a_changed_key_has_its_new_limits(limiter: Limiter) -> None:
    limiter.admit_now(key_with(requests_per_minute=1), "m", 0)
    assert limiter.admit_now(key_with(requests_per_minute=2), "m", 0)
    assert refused(limiter, key_with(requests_per_minute=2))


@settings(deadline=None)
@given(
    steps=st.lists(st.tuples(st.integers(0, 9), st.integers(1, 60), st.integers(0, 60), st.booleans()), max_size=40),
)
def test_estimates_that_are_high_enough_are_never_overshot(steps: list[tuple[int, int, int, bool]]) -> None:
    clock = Clock(NOON)
    limiter = limiter_at(clock)
    key = key_with(tokens_per_minute=100, streams=3)
    used: list[tuple[float, int]] = []
    under_way: list[tuple[float, Admission, int]] = []
    for gap, estimate, real, ends in steps:
        clock.now += gap
        with suppress(StopIteration):  # in this process nothing is waited for
            limiter.renew().send(None)
        if ends and under_way:
            at, admission, tokens = under_way.pop(0)
            admission.settle(tokens, None)
            used.append((at, tokens))
        try:
            under_way.append((clock.now, limiter.admit_now(key, "m", estimate), min(real, estimate)))
        except LimitReached as error:
            clock.now += min(error.retry_after or 0.0, 1.0)
        assert len(under_way) <= 3
    used += [(at, tokens) for at, _, tokens in under_way]
    assert max((sum(n for at, n in used if begin <= at < begin + 60) for begin, _ in used), default=0) <= 100


# Two hundred callers at once, here and at a server


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running_server() as running:
        yield running


async def reached(server: Server, *, prefix: str) -> RedisState:
    state = RedisState(server.url, timeout=10, connect_timeout=10, first_delay=0.01, prefix=prefix)
    await state.start()
    await eventually(lambda: state.healthy, "the server is reached")
    return state


@pytest.fixture(params=["memory", "redis"])
async def state(request: pytest.FixtureRequest) -> AsyncGenerator[State, None]:
    if request.param == "memory":
        yield MemoryState()
        return
    server: Server = request.getfixturevalue("server")
    opened = await reached(server, prefix=f"{request.node.name}:")
    yield opened
    assert opened.healthy, opened.problem
    await opened.aclose()


async def test_two_hundred_callers_use_a_limit_and_no_more(state: State) -> None:
    limiter = Limiter(state)
    key = key_with(requests_per_minute=180, tokens_per_minute=1500, streams=100, budget_day=1.0)
    held: list[Admission] = []

    async def ask() -> LimitReached | None:
        try:
            held.append(await limiter.admit(key, "m", 10, 10_000))
        except LimitReached as error:
            return error
        return None

    errors = [error for error in await asyncio.gather(*(ask() for _ in range(200))) if error]
    assert (len(held), len(errors)) == (100, 100)
    assert all(error.retry_after and error.retry_after > 0 for error in errors)
    for admission in held:
        admission.settle(9, 0)
    held.clear()
    errors = [error for error in await asyncio.gather(*(ask() for _ in range(200))) if error]
    assert len(held) == 60, "900 tokens were used of 1500: there is room for 60 of 10"
    assert {error.code for error in errors} == {"rate_limit_exceeded"}
    for admission in held:
        admission.release()
    held.clear()
    await asyncio.gather(*(ask() for _ in range(200)))
    assert len(held) == 20, "180 requests, and 160 of them were made"


async def test_callers_that_go_away_while_they_wait_keep_no_stream(state: State) -> None:
    limiter = Limiter(state)
    key = key_with(requests_per_minute=1000, streams=5)
    callers = [asyncio.ensure_future(limiter.admit(key, "m", 10)) for _ in range(5)]
    for turns in range(len(callers)):
        await asyncio.sleep(0)
        callers[turns].cancel()
    done = await asyncio.gather(*callers, return_exceptions=True)
    for admission in done:
        if isinstance(admission, Admission):
            admission.release()
    await state.get("a look, which comes after what is given back")
    await state.get("and another")
    assert len(await asyncio.gather(*(limiter.admit(key, "m", 10) for _ in range(5)))) == 5


async def test_a_caller_that_goes_away_between_stream_and_tokens_keeps_no_stream(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = await reached(server, prefix="between:")
    limiter = Limiter(state)
    key = key_with(requests_per_minute=10, streams=1)
    waiting = asyncio.Event()

    async def never(wants: object) -> None:
        waiting.set()
        await asyncio.Event().wait()

    with monkeypatch.context() as patched:
        patched.setattr(state, "take_if_below", never)
        caller = asyncio.ensure_future(limiter.admit(key, "m", 0))
        await waiting.wait()
        caller.cancel()
        assert isinstance((await asyncio.gather(caller, return_exceptions=True))[0], asyncio.CancelledError)
    assert await limiter.admit(key, "m", 0)
    await state.aclose()


async def test_a_stream_that_ends_while_it_is_renewed_is_over(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    state = await reached(server, prefix="renewed:")
    limiter = Limiter(state)
    key = key_with(streams=1)
    admission = await limiter.admit(key, "m", 0)
    lease = state.lease

    async def end_meanwhile(*args: Any) -> bool:
        admission.release()
        return await lease(*args)

    with monkeypatch.context() as patched:
        patched.setattr(state, "lease", end_meanwhile)
        await limiter.renew()
    assert await limiter.admit(key, "m", 0)
    await state.aclose()
