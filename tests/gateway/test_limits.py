"""Limits of keys through `tolmach serve`: two hundred callers at once, one worker or two, a state server that dies."""

import asyncio
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gateway.keyed import CALLERS, Load, Reply, ask, config, crowd, make_key, opened, until_metric
from tests.gateway.program import Program, program, raw, start
from tests.gateway.upstream import Upstream
from tests.state.server import Server, running_server

LEDGER = "ledger.sqlite"


@pytest.fixture
def redis() -> Iterator[Server]:
    with running_server() as server:
        yield server


async def until_used_up(served: Program, key: str) -> list[Reply]:
    """Crowds of callers until none of two crowds is let in; the replies of the last."""
    empty = 0
    while empty < 2:
        replies = await crowd(lambda: ask(served, key))
        assert {status for status, _, _ in replies} <= {200, 429}
        empty = empty + 1 if all(status == 429 for status, _, _ in replies) else 0
    return replies


def assert_refused(reply: Reply, code: str, seconds: int) -> None:
    """It is a refusal by the key's limit, with hints of when to ask again."""
    status, headers, body = reply
    assert status == 429
    assert json.loads(body)["error"]["code"] == code
    assert 1 <= int(headers["retry-after"]) <= seconds


async def test_requests_a_minute(tmp_path: Path) -> None:
    key, _ = make_key(tmp_path / LEDGER, requests_per_minute=100)
    async with Upstream(0.02) as upstream, program(tmp_path, config(tmp_path / LEDGER, upstream.url)) as served:
        replies = await crowd(lambda: ask(served, key))
        answered = [reply for reply in replies if reply[0] == 200]
        refused = [reply for reply in replies if reply[0] != 200]
        assert 95 <= upstream.asked["good"] == len(answered) <= 100
        for _, headers, _ in answered:
            assert headers["x-ratelimit-limit-requests"] == "100"
            assert headers["x-ratelimit-reset-requests"] == "60s"
        left = sorted(int(headers["x-ratelimit-remaining-requests"]) for _, headers, _ in answered)
        assert left == list(range(100 - len(answered), 100))
        for reply in refused:
            assert_refused(reply, "rate_limit_exceeded", 61)
            assert reply[1]["x-ratelimit-remaining-requests"] == "0"
        assert all(status == 429 for status, _, _ in await crowd(lambda: ask(served, key)))
        assert upstream.asked["good"] <= 100


async def test_tokens_a_minute_are_reserved_before_and_settled_after(tmp_path: Path) -> None:
    key, _ = make_key(tmp_path / LEDGER, tokens_per_minute=20_000)
    async with Upstream(0.01) as upstream, program(tmp_path, config(tmp_path / LEDGER, upstream.url)) as served:
        # Those that fail have used nothing, those whose caller goes away their question: the rest is given back.
        failed = await crowd(lambda: ask(served, key, "up/bad"))
        assert {status for status, _, _ in failed} == {500}
        waiting = [asyncio.ensure_future(ask(served, key, "up/silent")) for _ in range(50)]
        await upstream.until_active(50)
        for one in waiting:
            one.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        await upstream.until_active(0)
        upstream.asked.clear()
        replies = await until_used_up(served, key)
        assert 0.95 * 20_000 <= upstream.tokens <= 20_000
        for reply in replies:
            assert_refused(reply, "rate_limit_exceeded", 61)
            assert reply[1]["x-ratelimit-limit-tokens"] == "20000"
            assert int(reply[1]["x-ratelimit-remaining-tokens"]) < 100


async def test_an_answer_that_would_not_fit_is_not_begun(tmp_path: Path) -> None:
    key, _ = make_key(tmp_path / LEDGER, tokens_per_minute=20_000)
    async with Upstream() as upstream, program(tmp_path, config(tmp_path / LEDGER, upstream.url)) as served:
        # Each may take 6,000 tokens, as its caller says, and takes 50.
        waiting = [asyncio.ensure_future(ask(served, key, "up/held", max_tokens=6000)) for _ in range(CALLERS)]
        await upstream.until_active(3)
        held = set(waiting)
        while len(held) > 3:
            _, held = await asyncio.wait(held, return_when=asyncio.FIRST_COMPLETED)
        assert upstream.asked["held"] == 3
        upstream.gate.set()
        replies = await asyncio.gather(*waiting)
        assert sorted(status for status, _, _ in replies) == [200] * 3 + [429] * (CALLERS - 3)
        # What they did not take is there again.
        await until_used_up(served, key)
        assert 0.95 * 20_000 <= upstream.tokens <= 20_000


async def test_answers_at_once(tmp_path: Path) -> None:
    key, _ = make_key(tmp_path / LEDGER, streams=20)
    async with Upstream() as upstream, program(tmp_path, config(tmp_path / LEDGER, upstream.url)) as served:
        for _ in range(2):
            waiting = [asyncio.ensure_future(ask(served, key, "up/held", stream=True)) for _ in range(CALLERS)]
            held = set(waiting)
            while len(held) > 20:
                _, held = await asyncio.wait(held, return_when=asyncio.FIRST_COMPLETED)
            await upstream.until_active(20)
            assert upstream.most == 20
            upstream.gate.set()
            replies = await asyncio.gather(*waiting)
            refused = [reply for reply in replies if reply[0] != 200]
            assert len(refused) == CALLERS - 20
            for reply in refused:
                assert_refused(reply, "rate_limit_exceeded", 1)
            upstream.gate.clear()
            await until_let_in(served, key)
        # Callers who go away leave their places to others.
        streams = [await opened(served, key) for _ in range(20)]
        assert (await ask(served, key))[0] == 429
        for stream in streams:
            stream.close()
        await until_let_in(served, key)


async def test_a_key_sees_the_models_that_it_may_ask_for(tmp_path: Path) -> None:
    every, _ = make_key(tmp_path / LEDGER)
    some, _ = make_key(tmp_path / LEDGER, models=("up/g*",))
    async with Upstream(0) as upstream, program(tmp_path, config(tmp_path / LEDGER, upstream.url)) as served:

        async def looked_at(path: str, key: str) -> tuple[int, set[str]]:
            status, _, body = await raw(served.url, "GET", path, headers=f"authorization: Bearer {key}\r\n")
            answer = json.loads(body)
            return status, {row["id"] for row in answer.get("data", ())} or {answer.get("id", "")}

        status, all_of_them = await looked_at("/v1/models", every)
        assert status == 200
        assert {"up/good", "up/held", "good"} <= all_of_them
        allowed = {name for name in all_of_them if name.startswith("up/g")}
        assert await looked_at("/v1/models", some) == (200, allowed)
        assert await looked_at("/v1/models/up%2Fgood", some) == (200, {"up/good"})
        for path, key in (("/v1/models/up%2Fheld", some), ("/v1/models", ""), ("/v1/models/up%2Fgood", "ak-no")):
            assert await looked_at(path, key) == (404 if key == some else 401, {""})


async def until_let_in(served: Program, key: str) -> None:
    """What callers have heard the end of ends in the gateway a moment later."""
    async with asyncio.timeout(30):
        while (await ask(served, key))[0] != 200:  # noqa: ASYNC110 - another program's state
            await asyncio.sleep(0.01)


async def test_a_budget(tmp_path: Path) -> None:
    # The month's is for the case that a day begins while the test runs.
    key, _ = make_key(tmp_path / LEDGER, budget_day=10.0, budget_month=10.0)
    prices = '[prices."up/*"]\ninput = 1000\noutput = 1000'
    async with Upstream(0.01) as upstream:
        async with program(tmp_path, config(tmp_path / LEDGER, upstream.url, more=prices)) as served:
            replies = await until_used_up(served, key)
            assert 9.5 <= upstream.tokens * 0.001 <= 10
            for reply in replies:
                assert_refused(reply, "insufficient_quota", 31 * 86_400)
        # Started again, it knows from the ledger what was spent.
        async with program(tmp_path, config(tmp_path / LEDGER, upstream.url, more=prices)) as served:
            await until_used_up(served, key)
            assert 9.5 <= upstream.tokens * 0.001 <= 10


async def test_two_workers_hold_one_limit(tmp_path: Path, redis: Server) -> None:
    key, _ = make_key(tmp_path / LEDGER, requests_per_minute=100)
    table = f'workers = 2\nstate = "{redis.url}"'
    async with Upstream(0.02) as upstream, program(tmp_path, config(tmp_path / LEDGER, upstream.url, table)) as served:
        replies = await crowd(lambda: ask(served, key))
        assert {status for status, _, _ in replies} == {200, 429}
        assert 95 <= upstream.asked["good"] <= 100
        assert all(status == 429 for status, _, _ in await crowd(lambda: ask(served, key)))
        assert upstream.asked["good"] <= 100
    with sqlite3.connect(tmp_path / LEDGER) as rows:
        workers = rows.execute("SELECT worker, count(*) FROM tolmach_requests GROUP BY worker").fetchall()
    assert len(workers) == 2
    assert sum(number for _, number in workers) == 2 * CALLERS


async def test_two_workers_hold_one_limit_of_tokens_and_streams(tmp_path: Path, redis: Server) -> None:
    key, _ = make_key(tmp_path / LEDGER, tokens_per_minute=10_000, streams=20)
    table = f'workers = 2\nstate = "{redis.url}"'
    async with Upstream(0.01) as upstream, program(tmp_path, config(tmp_path / LEDGER, upstream.url, table)) as served:
        await until_used_up(served, key)
        assert 0.95 * 10_000 <= upstream.tokens <= 10_000
        assert upstream.most <= 20


async def test_two_workers_with_limits_and_nothing_shared_do_not_start(tmp_path: Path) -> None:
    make_key(tmp_path / LEDGER, requests_per_minute=100)
    served = await start(tmp_path, config(tmp_path / LEDGER, "http://127.0.0.1:9", "workers = 2"))
    assert await served.ended() != 0
    assert "each worker would count for itself" in served.output
    assert 'gateway.state = "redis://..."' in served.output


async def test_two_workers_and_keys_without_limits_start(tmp_path: Path) -> None:
    key, _ = make_key(tmp_path / LEDGER)
    async with Upstream() as upstream:
        async with program(tmp_path, config(tmp_path / LEDGER, upstream.url, "workers = 2")) as served:
            assert (await ask(served, key))[0] == 200
            assert (await ask(served, "ak-another"))[0] == 401
            # A limit that comes while they run cannot be refused any more, but it is said.
            make_key(tmp_path / LEDGER, requests_per_minute=5)
            await served.wait_for("each worker counts for itself", 2)


async def test_a_state_server_killed_in_mid_load(tmp_path: Path, redis: Server) -> None:
    key, _ = make_key(tmp_path / LEDGER, requests_per_minute=100_000, tokens_per_minute=100_000_000, streams=1000)
    async with Upstream(0.001) as upstream:
        async with program(tmp_path, config(tmp_path / LEDGER, upstream.url, f'state = "{redis.url}"')) as served:
            async with Load(served, 10, key) as load:
                await until_metric(served, "tolmach_state_healthy", lambda value: value == 1)
                await load.more()
                for _ in range(2):
                    redis.kill()
                    await until_metric(served, "tolmach_state_healthy", lambda value: value == 0)
                    await load.more()
                    redis.start()
                    await until_metric(served, "tolmach_state_healthy", lambda value: value == 1)
                    await load.more()
            assert load.statuses == {200}
            assert len(load.answered) == upstream.answered["good"]
            assert "is lost" in served.output
            assert "is back" in served.output
