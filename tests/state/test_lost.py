"""A state server that is missing, killed, started anew or slow: no call fails, and what was counted is not lost."""

import asyncio
import logging
import signal
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

import pytest

from tests.state.server import Server, eventually, running_server
from tolmach.access.keys import Key
from tolmach.access.limits import Limiter, LimitReached
from tolmach.state import Want
from tolmach.state.redis import RedisState

HOUR = Want("day", 10, 1000, 3600.0, fixed=True)
MINUTE = Want("r", 1, 5, 60.0)


@pytest.fixture
def server() -> Iterator[Server]:
    with running_server() as running:
        yield running


def opened(url: str, *, timeout: float = 5.0) -> RedisState:
    return RedisState(url, timeout=timeout, connect_timeout=5.0, first_delay=0.01, longest_delay=0.05)


@pytest.fixture
async def state(server: Server) -> AsyncGenerator[RedisState, None]:
    state = opened(server.url)
    await state.start()
    await eventually(lambda: state.healthy, "the server is reached")
    yield state
    await state.aclose()


async def used(state: RedisState, want: Want) -> int:
    looking = Want(want.key, 0, 1 << 40, want.seconds, want.fixed)
    return (await state.take_if_below([looking])).used[0]


async def test_without_a_server_everything_works_here(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    state = opened(f"unix://user:hush@{tmp_path}/none")
    with caplog.at_level(logging.INFO, logger="tolmach.state"):
        await state.start()
        assert not state.healthy
        assert state.problem
        await state.put("a", b"1", 60)
        assert await state.get("a") == b"1"
        assert await state.take("a") == b"1"
        assert await state.take("a") is None
        assert await state.add("n", 2, 60) == 2
        assert await state.at_least("n", 5, 60) == 5
        assert [(await state.take_if_below([MINUTE])).refused for _ in range(6)] == [-1] * 5 + [0]
        assert await state.lease("s", "a", 1, 60)
        assert not await state.lease("s", "b", 1, 60)
        state.release("s", "a")
        assert await state.lease("s", "b", 1, 60)
        heard: list[bytes] = []
        await state.subscribe("c", heard.append)
        state.publish("c", b"x")
        assert heard == [b"x"]
        for _ in range(20):  # attempts to reach it, of which none is told again
            await asyncio.sleep(0.01)
    await state.aclose()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "hush" not in caplog.text + state.problem


async def test_a_server_that_comes_later_is_told_what_was_counted(tmp_path: Path) -> None:
    with running_server() as server:
        server.kill()
        states = [opened(server.url) for _ in range(2)]
        for state in states:
            await state.start()
            assert not state.healthy
            assert (await state.take_if_below([HOUR, MINUTE])).refused < 0
            await state.put(f"of {id(state)}", b"1", 60)
        server.start()
        for state in states:
            await eventually(lambda state=state: state.healthy, "the server is reached")  # type: ignore[misc]
        for state in states:
            assert await used(state, HOUR) == 20
            assert await used(state, MINUTE) == 2
            assert await state.get(f"of {id(state)}") == b"1", "what was stored here meanwhile is still here"
            await state.aclose()


async def test_a_server_killed_in_mid_use(server: Server, state: RedisState, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="tolmach.state")
    outcomes = [await state.take_if_below([MINUTE]) for _ in range(3)]
    first = await state.take_if_below([HOUR])
    server.kill()
    outcomes += [await state.take_if_below([MINUTE]) for _ in range(3)]
    assert [outcome.refused for outcome in outcomes] == [-1] * 5 + [0], "what the server had counted counts here"
    assert not state.healthy
    assert state.problem
    state.settle([HOUR], [25], first.at)
    assert (await state.take_if_below([HOUR])).used == (35,)
    server.start()  # it has forgotten everything
    await eventually(lambda: state.healthy, "the server is reached again")
    assert state.problem == ""
    assert await used(state, HOUR) == 35
    assert await used(state, MINUTE) == 5
    assert (await state.take_if_below([MINUTE])).refused == 0
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    other = opened(server.url)
    assert await used(other, HOUR) == 35, "and the others see it"
    await other.aclose()


async def test_no_call_fails_while_a_server_dies_and_comes_back(server: Server, state: RedisState) -> None:
    limit = Want("r", 1, 1 << 30, 60.0)
    done = 0
    stop = asyncio.Event()

    async def ask() -> None:
        nonlocal done
        while not stop.is_set():
            outcome = await state.take_if_below([limit])
            assert outcome.refused < 0
            assert await state.lease("s", str(done), 1 << 30, 60)
            await state.put("a", b"1", 60)
            await state.get("a")
            state.settle([limit], [1], outcome.at)
            done += 1
            await asyncio.sleep(0)

    callers = [asyncio.ensure_future(ask()) for _ in range(20)]
    for _ in range(5):
        before = done
        await eventually(lambda before=before: done > before + 100, "calls go on")  # type: ignore[misc]
        server.kill()
        await eventually(lambda: not state.healthy, "the loss is seen")
        before = done
        await eventually(lambda before=before: done > before + 100, "calls go on")  # type: ignore[misc]
        server.start()
        await eventually(lambda: state.healthy, "the server is reached again")
    stop.set()
    await asyncio.gather(*callers)
    assert await used(state, limit) >= done, "in doubt too much is counted, not too little"


async def test_a_server_that_does_not_answer(server: Server) -> None:
    state = opened(server.url, timeout=0.05)
    await eventually_started(state)
    await state.take_if_below([MINUTE])
    server.tell(signal.SIGSTOP)
    outcomes = await asyncio.gather(*(state.take_if_below([MINUTE]) for _ in range(10)))
    assert sum(outcome.refused < 0 for outcome in outcomes) == 4
    assert not state.healthy
    assert "50 ms" in state.problem
    server.tell(signal.SIGCONT)
    await eventually(lambda: state.healthy, "the server is reached again")
    assert (await state.take_if_below([MINUTE])).refused == 0
    await state.aclose()


async def eventually_started(state: RedisState) -> None:
    await state.start()
    await eventually(lambda: state.healthy, "the server is reached")


@pytest.mark.parametrize("busy", [True, False])
async def test_a_busy_process_does_not_take_the_server_for_lost(busy: bool, tmp_path: Path) -> None:
    state = opened(f"unix://{tmp_path}/none", timeout=0.02)
    loop = asyncio.get_running_loop()
    answer = asyncio.Event()
    waiting = asyncio.ensure_future(answer.wait())

    def work() -> None:
        until = loop.time() + 0.1
        while loop.time() < until:
            pass

    if busy:
        loop.call_soon(work)
        # It is there before this process has time for it, and after the time-out.
        loop.call_later(0.05, answer.set)
    assert await state._link._in_time(waiting) is busy
    answer.set()
    await waiting
    await state.aclose()


async def test_what_is_settled_meanwhile_is_added_to_what_others_used(server: Server, state: RedisState) -> None:
    first = opened(server.url, timeout=0.05)
    await eventually_started(first)
    outcome = await first.take_if_below([HOUR])
    for _ in range(2):
        assert (await state.take_if_below([HOUR])).refused < 0  # of which the first one hears nothing
    server.tell(signal.SIGSTOP)
    await first.get("anything")
    assert not first.healthy
    first.settle([HOUR], [25], outcome.at)
    server.tell(signal.SIGCONT)
    await eventually(lambda: first.healthy, "the server is reached again")
    assert await used(state, HOUR) == 45
    await first.aclose()


@pytest.mark.parametrize("limits", [("--maxmemory", "1"), ("--requirepass", "hush")])
async def test_a_server_that_takes_nothing(limits: tuple[str, str], server: Server) -> None:
    server.kill()
    server.start(*limits)
    state = opened(server.url)
    await state.start()
    assert (await state.take_if_below([MINUTE])).refused < 0
    assert not state.healthy
    assert "hush" not in state.problem
    await state.aclose()


async def test_a_password_in_the_address(server: Server) -> None:
    server.kill()
    server.start("--requirepass", "hush")
    state = opened(f"{server.url}?password=hush")
    await eventually_started(state)
    assert await used(state, MINUTE) == 0
    await state.aclose()


async def test_what_is_published_is_heard_again_after_a_loss(server: Server, state: RedisState) -> None:
    heard: list[bytes] = []
    other = opened(server.url)
    await other.subscribe("c", heard.append)
    server.kill()
    server.start()
    await eventually(lambda: state.healthy, "the server is reached again")

    def told() -> bool:
        state.publish("c", b"x")
        return bool(heard)

    await eventually(told, "the listener is back")
    assert set(heard) == {b"x"}
    await other.aclose()


async def test_limits_of_a_key_hold_over_a_loss(server: Server, state: RedisState) -> None:
    limiter = Limiter(state)
    key = Key(id="id", name="app", hash="0" * 64, requests_per_minute=100, tokens_per_minute=1000, streams=50)
    admitted = 0

    async def ask(at: int) -> None:
        nonlocal admitted
        if at == 40:
            server.kill()
        if at == 80:
            server.start()
            await eventually(lambda: state.healthy, "the server is reached again")
        try:
            admission = await limiter.admit(key, "m", 5)
        except LimitReached:
            return
        admitted += 1
        admission.settle(5, None)

    for at in range(200):
        await ask(at)
    assert 95 <= admitted <= 100


async def test_a_closed_state_answers_from_here(state: RedisState) -> None:
    await state.aclose()
    assert not state.healthy
    assert (await state.take_if_below([MINUTE])).used == (1,)
