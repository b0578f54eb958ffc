"""Sessions with sites that replicas share: by two states at one real server, and by two workers of `tolmach serve`."""

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, Callable, Iterator
from pathlib import Path

import pytest

from tests.gateway.program import ask as served_ask
from tests.gateway.program import demo_config, program
from tests.state.server import Server, running_server
from tolmach.chat import ChatRequest, Delta, Message
from tolmach.demo import Demo
from tolmach.errors import TolmachError
from tolmach.gateway.shared_sessions import open_shared
from tolmach.providers.base import Access
from tolmach.providers.registry import get_provider
from tolmach.session import Session
from tolmach.state.redis import RedisState

MOUNT = "/Chatgpt4Online"
SITE = "Chatgpt4Online"
Open = Callable[[], Session]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running_server() as server:
        yield server


@pytest.fixture
async def demo() -> AsyncGenerator[Demo, None]:
    async with Demo(delay=0) as here:
        yield here


@pytest.fixture
async def replica(server: Server, demo: Demo) -> AsyncGenerator[Open, None]:
    """Opens a session as another process would, with a state of its own."""
    states: list[RedisState] = []

    def open() -> Session:
        states.append(RedisState(server.url))
        # An access of the test's own: its sessions are those of no other test.
        access = Access(cookies={"visit": "1"}, headers={"x-test": demo.url})
        return open_shared(states[-1])(get_provider(SITE).site_at(demo.url + MOUNT), access)

    yield open
    for state in states:
        await state.aclose()


async def ask(session: Session) -> str:
    events = session.ask(ChatRequest(messages=(Message("user", "Hello"),)), strict=False)
    return "".join([event.text async for event in events if isinstance(event, Delta)])


async def test_replicas_shake_hands_once_and_are_one_visitor(replica: Open, demo: Demo) -> None:
    first, *others = [replica() for _ in range(4)]
    assert await ask(first)
    assert all(await asyncio.gather(*map(ask, others)))
    assert demo.log.handshakes[MOUNT] == 1
    for other in others:
        assert {name: token.value for name, token in other.state.tokens.items()} == {
            name: token.value for name, token in first.state.tokens.items()
        }
        assert other.state.visitor == first.state.visitor
        assert other.cookies.header(demo.url + MOUNT) == first.cookies.header(demo.url + MOUNT)


async def test_replicas_that_begin_at_once_shake_hands_once(replica: Open, demo: Demo) -> None:
    assert all(await asyncio.gather(*[ask(replica()) for _ in range(6)]))
    assert demo.log.handshakes[MOUNT] == 1


async def test_after_a_refusal_one_shakes_hands_for_all(replica: Open, demo: Demo) -> None:
    first, second = replica(), replica()
    assert await ask(first)
    demo.faults[MOUNT] = "nonce-expires*1"
    assert await ask(first)
    assert await ask(first)
    assert demo.log.handshakes[MOUNT] == 2
    # The second knows nothing yet of the old one, and takes the new one over.
    assert await ask(second)
    assert demo.log.handshakes[MOUNT] == 2
    assert demo.log.refusals[MOUNT] == 1


async def test_tokens_that_are_refused_to_this_replica_alone_are_not_taken_over_again(
    replica: Open, demo: Demo
) -> None:
    first, second = replica(), replica()
    assert await ask(first)
    demo.faults[MOUNT] = "stale-nonce*1"
    assert await ask(second)
    assert demo.log.handshakes[MOUNT] == 2
    assert await ask(first)
    assert demo.log.handshakes[MOUNT] == 2


async def test_a_handshake_that_fails_holds_up_nobody(replica: Open, demo: Demo) -> None:
    first, second = replica(), replica()
    demo.faults[MOUNT] = "plugin-off"
    failures = await asyncio.gather(ask(first), ask(second), return_exceptions=True)
    assert all(isinstance(failure, TolmachError) for failure in failures)
    del demo.faults[MOUNT]
    assert await ask(second)
    assert await ask(first)
    assert demo.log.handshakes[MOUNT] == 1


async def test_without_the_server_each_shakes_hands(demo: Demo) -> None:
    states = [RedisState("unix:///nowhere/s") for _ in range(2)]
    site = get_provider(SITE).site_at(demo.url + MOUNT)
    for state in states:
        assert await ask(open_shared(state)(site, Access(cookies={"visit": "1"})))
    assert demo.log.handshakes[MOUNT] == 2
    for state in states:
        await state.aclose()


async def test_another_access_is_another_visitor(server: Server, demo: Demo) -> None:
    state = RedisState(server.url)
    site = get_provider(SITE).site_at(demo.url + MOUNT)
    for visit in ("1", "2"):
        assert await ask(open_shared(state)(site, Access(cookies={"visit": visit, "test": demo.url})))
    assert demo.log.handshakes[MOUNT] == 2
    await state.aclose()


async def test_two_workers_shake_hands_once(server: Server, demo: Demo, tmp_path: Path) -> None:
    table = f'workers = 2\nstate = "{server.url}"'
    config = demo_config(demo.url, gateway=table) + f'[ledger]\nurl = "{tmp_path / "ledger.sqlite"}"\n'
    async with program(tmp_path, config) as served:
        replies = await asyncio.gather(*[served_ask(served.url, "shop-model") for _ in range(40)])
        assert {status for status, _, _ in replies} == {200}
        served.process.terminate()
        assert await served.ended() == 0
    with sqlite3.connect(tmp_path / "ledger.sqlite") as rows:
        assert rows.execute("SELECT count(DISTINCT worker) FROM tolmach_requests").fetchone() == (2,)
    assert demo.log.handshakes[MOUNT] == 1
