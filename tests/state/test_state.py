"""What every state does, in this process and at a real server."""

import asyncio
from collections.abc import AsyncGenerator, Iterator

import pytest
import redis.asyncio

from tests.state.server import Server, eventually, running_server
from tolmach.chat import Conversation, Image, Message, Text, ToolCall
from tolmach.errors import ConfigError
from tolmach.gateway.answers.conversations import Conversations, Responses, StoredResponse
from tolmach.state import MemoryState, State, Want, is_shared, open_state
from tolmach.state.redis import RedisState
from tolmach.state.stores import StateStore

PATIENT = 10.0
"""Seconds: a machine that is busy with other tests is no lost server."""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running_server() as running:
        yield running


@pytest.fixture(params=["memory", "redis"])
async def state(request: pytest.FixtureRequest) -> AsyncGenerator[State, None]:
    if request.param == "memory":
        yield MemoryState()
        return
    server: Server = request.getfixturevalue("server")
    opened = await reached(server, prefix=request.node.name)
    yield opened
    assert opened.healthy, opened.problem
    await opened.aclose()


async def reached(server: Server, *, prefix: str = "tolmach:", timeout: float = PATIENT) -> RedisState:
    state = RedisState(server.url, timeout=timeout, connect_timeout=PATIENT, first_delay=0.01, prefix=prefix)
    await state.start()
    await eventually(lambda: state.healthy, "the server is reached")
    return state


async def test_values(state: State) -> None:
    assert await state.get("a") is None
    await state.put("a", b"\x00\xff", 60)
    assert await state.get("a") == b"\x00\xff"
    assert await state.take("a") == b"\x00\xff"
    assert await state.take("a") is None
    await state.put("gone", b"1", 0.001)
    await asyncio.sleep(0.01)
    assert await state.get("gone") is None


async def test_one_of_many_that_take_gets_it(state: State) -> None:
    await state.put("a", b"1", 60)
    taken = await asyncio.gather(*(state.take("a") for _ in range(50)))
    assert [value for value in taken if value is not None] == [b"1"]


async def test_counters(state: State) -> None:
    assert await state.add("n", 5, 60) == 5
    assert await state.add("n", 2, 60) == 7
    assert await state.at_least("n", 3, 60) == 7
    assert await state.at_least("n", 10, 60) == 10


async def test_two_hundred_callers_take_the_limit_and_no_more(state: State) -> None:
    limit = 150
    wants = [Want("r", 1, limit, 60.0), Want("t", 10, 10_000, 60.0)]
    outcomes = await asyncio.gather(*(state.take_if_below(wants) for _ in range(200)))
    taken = [outcome for outcome in outcomes if outcome.refused < 0]
    assert len(taken) == limit
    assert sorted(outcome.used[0] for outcome in taken) == list(range(1, limit + 1))
    refused = [outcome for outcome in outcomes if outcome.refused >= 0]
    assert {outcome.refused for outcome in refused} == {0}
    assert all(50 < outcome.retry_after <= 61 for outcome in refused)
    [used] = {outcome.used for outcome in refused}
    assert used == (limit, 10 * limit)


async def test_what_is_given_back_can_be_taken_again(state: State) -> None:
    want = Want("t", 100, 100, 60.0)
    first = await state.take_if_below([want])
    assert (await state.take_if_below([want])).refused == 0
    state.settle([want], [30], first.at)
    assert (await state.take_if_below([Want("t", 71, 100, 60.0)])).refused == 0
    assert (await state.take_if_below([Want("t", 70, 100, 60.0)])).used == (100,)
    state.settle([want], [130], first.at)
    assert (await state.take_if_below([Want("t", 0, 100, 60.0)])).used == (130,)


async def test_a_budget_is_settled_and_ends(state: State) -> None:
    want = Want("day", 1, 100, 60.0, fixed=True)
    outcome = await state.take_if_below([want])
    state.settle([want], [100], outcome.at)
    refused = await state.take_if_below([want])
    assert (refused.refused, refused.used) == (0, (100,))
    assert 0 < refused.retry_after <= 60
    state.settle([Want("day", 500, 100, 60.0, fixed=True)], [0], outcome.at)
    assert (await state.take_if_below([want])).used == (1,), "it never falls below nothing"
    short = Want("short", 1, 1, 0.02, fixed=True)
    assert (await state.take_if_below([short])).refused < 0
    await asyncio.sleep(0.05)
    assert (await state.take_if_below([short])).refused < 0


async def test_leases(state: State) -> None:
    assert await state.lease("s", "a", 2, 60)
    assert await state.lease("s", "b", 2, 60)
    assert not await state.lease("s", "c", 2, 60)
    assert await state.lease("s", "a", 2, 60), "a holder stays"
    state.release("s", "b")
    state.release("s", "b")
    assert await state.lease("s", "c", 2, 60)
    assert not await state.lease("s", "d", 2, 60)
    assert await state.lease("other", "x", 1, 0.02)
    assert not await state.lease("other", "y", 1, 60)
    await asyncio.sleep(0.05)
    assert await state.lease("other", "y", 1, 60), "an expired one frees itself"


async def test_two_hundred_callers_lease_as_many_as_there_are(state: State) -> None:
    got = await asyncio.gather(*(state.lease("s", str(number), 20, 60) for number in range(200)))
    assert sum(got) == 20


async def test_whoever_publishes_hears_it_too(state: State) -> None:
    heard: list[bytes] = []

    def fail(value: bytes) -> None:
        raise RuntimeError("a bug of a subscriber")

    await state.subscribe("circuits", fail)
    await state.subscribe("circuits", heard.append)
    state.publish("circuits", b"open")
    state.publish("elsewhere", b"no")
    assert heard == [b"open"]


async def test_a_caller_that_goes_away_keeps_nothing(state: State) -> None:
    wants = [Want("r", 1, 5, 60.0)]
    callers = [asyncio.ensure_future(state.take_if_below(wants)) for _ in range(5)]
    leases = [asyncio.ensure_future(state.lease("s", str(number), 5, 60)) for number in range(5)]
    await asyncio.sleep(0)  # they have asked, if they ask anybody
    for task in (*callers, *leases):
        task.cancel()
    done = await asyncio.gather(*callers, *leases, return_exceptions=True)
    kept = sum(not isinstance(outcome, BaseException) for outcome in done[:5])
    held = sum(outcome is True for outcome in done[5:])
    await state.get("a look, which comes after what is given back")
    await state.get("and another")
    assert (await state.take_if_below([Want("r", 0, 5, 60.0)])).used == (kept,)
    assert sum([await state.lease("s", f"new {number}", 5, 60) for number in range(5)]) == 5 - held


async def test_the_server_counts_a_window_as_it_is_counted_here(server: Server) -> None:
    state = await reached(server, prefix="window:")
    async with redis.asyncio.Redis.from_url(server.url) as client:
        now = int((await client.time())[0])
        # A window of 60 seconds has buckets of one: the first two have left it, the third is its oldest.
        counts = {now - 1000: 7, now - 61: 5, now - 59: 3, now - 10: 2}
        await client.hset("window:r", mapping={str(bucket): count for bucket, count in counts.items()})
    full = await state.take_if_below([Want("r", 3, 5, 60.0)])
    assert (full.refused, full.used) == (0, (5,))
    assert 0 < full.retry_after <= 2
    later = await state.take_if_below([Want("r", 4, 5, 60.0)])
    assert 48 < later.retry_after <= 51
    assert (await state.take_if_below([Want("r", 6, 5, 60.0)])).retry_after == 60
    await state.aclose()


# Stores


async def test_conversations_stand_on_a_state(state: State) -> None:
    store: StateStore[Conversation] = StateStore(state, "conversations", Conversation, seconds=60)
    conversations = Conversations(store)
    assert await store.take("key") is None
    await store.put("key", Conversation({"id": "ж"}))
    assert await store.get("key") == Conversation({"id": "ж"})
    assert await store.take("key") == Conversation({"id": "ж"})
    assert await store.take("key") is None
    assert conversations is not None


async def test_responses_stand_on_a_state(state: State) -> None:
    store: StateStore[StoredResponse] = StateStore(state, "responses", StoredResponse, seconds=60)
    responses = Responses(store)
    question = (
        Message("system", "Ж"),
        Message("user", (Text("look"), Image("data:image/png;base64,AA==", "low"))),
        Message("assistant", "", tool_calls=(ToolCall("1", "f", "{}"),)),
        Message("tool", "4", tool_call_id="1"),
    )
    answer = Message("assistant", "✅")
    await responses.put("user", "resp_1", question, answer)
    assert await responses.history("user", "resp_1") == (*question, answer)
    assert await responses.history("user", "resp_1") == (*question, answer)
    other: StateStore[Conversation] = StateStore(state, "responses", Conversation)
    assert await other.get('["user","resp_1"]') is None, "of another kind: as if it were not there"
    await store.put("half", StoredResponse((), Message("user", "\ud800")))
    assert await store.get("half") is None


# Two processes


async def test_two_processes_hold_one_limit_and_hear_each_other(server: Server) -> None:
    first, second = [await reached(server, prefix="two:") for _ in range(2)]
    heard: list[bytes] = []
    await second.subscribe("circuits", heard.append)
    await second.subscribe("others", heard.append)
    first.publish("circuits", b"open")
    first.publish("others", b"closed")
    await eventually(lambda: len(heard) == 2, "both channels are heard")
    assert sorted(heard) == [b"closed", b"open"]
    wants = [Want("r", 1, 50, 60.0)]
    outcomes = await asyncio.gather(*((first, second)[n % 2].take_if_below(wants) for n in range(200)))
    assert sum(outcome.refused < 0 for outcome in outcomes) == 50
    await first.put("a", b"1", 60)
    assert await second.take("a") == b"1"
    assert await first.take("a") is None
    assert await first.lease("s", "a", 1, 60)
    assert not await second.lease("s", "b", 1, 60)
    for state in (first, second):
        assert state.healthy
        await state.aclose()


# Addresses


@pytest.mark.parametrize(("url", "shared"), [("", False), ("memory", False), ("redis://h", True), ("unix:///s", True)])
def test_addresses(url: str, shared: bool) -> None:
    assert is_shared(url) is shared


@pytest.mark.parametrize(
    "url", ["redis", "http://h", "localhost:6379", "redis:/h", "redis://:secret@h:port/0", "redis://:sec/ret@h"]
)
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(ConfigError, match=r"gateway\.state") as caught:
        open_state(url)
    assert "sec" not in str(caught.value)


def test_the_state_of_an_address() -> None:
    assert isinstance(open_state(""), MemoryState)
