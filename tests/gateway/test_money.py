"""What a key may spend, through `tolmach serve`: one target under any name, what is reserved, what is paid for."""

import asyncio
import json
import re
import sqlite3
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from tests.gateway.keyed import METRICS_KEY, ask, config, make_key
from tests.gateway.metered import LIMIT, Metered, ask_all, booked, differing, metered_config, spend, summed
from tests.gateway.program import program, raw
from tests.gateway.upstream import COMPLETION, PROMPT, Upstream
from tolmach.access.keys import Key, KeyRing
from tolmach.access.limits import Limiter
from tolmach.configuration import Settings
from tolmach.gateway.callers import Callers
from tolmach.gateway.core import Gateway
from tolmach.gateway.from_settings import InForce
from tolmach.gateway.reloading import take_over
from tolmach.gateway.serving.server import serving
from tolmach.gateway.telemetry.recording import Recording
from tolmach.ledger import Ledger, open_database
from tolmach.state import MemoryState

LEDGER = "ledger.sqlite"
SPELLINGS = ("up", "up/default", "up/good", "up/smart", "good", "smart", "route")


def rows(ledger: Path, sql: str) -> list[tuple[Any, ...]]:
    with sqlite3.connect(ledger) as database:
        return database.execute(sql).fetchall()


# One target, however it is spelled

ONE = """
default_model = "good"
[routes.route]
targets = ["up/smart", "up/good"]
[prices.smart]
input = 1000
output = 1000
[prices."up/good"]
input = 1
output = 1
"""


async def test_one_model_has_one_price_one_budget_and_one_name(tmp_path: Path) -> None:
    ledger, each = tmp_path / LEDGER, PROMPT + COMPLETION
    # Enough for as many answers as there are spellings but one; each reserves a little more than it takes.
    budget = (len(SPELLINGS) - 1) * each / 1000 + 0.02
    key, _ = make_key(ledger, budget_day=budget, budget_month=budget)
    async with Upstream() as upstream, program(tmp_path, config(ledger, upstream.url, more=ONE)) as served:
        statuses = [(await ask(served, key, model, model))[0] for model in SPELLINGS]
        again = [(await ask(served, key, model))[0] for model in SPELLINGS]
        opened = f"authorization: Bearer {METRICS_KEY}\r\n"
        _, _, metrics = await raw(served.url, "GET", "/metrics", headers=opened)
        served.process.terminate()
        await served.ended()
    assert statuses == [200] * (len(SPELLINGS) - 1) + [429]
    assert set(again) == {429}
    assert upstream.asked.total() == len(SPELLINGS) - 1
    of_answers = "SELECT DISTINCT target, cost FROM tolmach_requests WHERE status = 200"
    assert rows(ledger, of_answers) == [("up/good", each * 1000)]
    assert rows(ledger, "SELECT DISTINCT target, cost FROM tolmach_attempts") == [("up/good", each * 1000)]
    assert set(re.findall(r'_tokens_total\{[^}]*target="([^"]*)"', metrics.decode())) == {"up/good"}
    assert set(re.findall(r'_circuit_state\{[^}]*target="([^"]*)"', metrics.decode())) == {"up/good"}


# The account of the service and that of the ledger


@asynccontextmanager
async def workers(folder: Path, upstream: Metered, key: Key, state: MemoryState) -> AsyncGenerator[list[str], None]:
    """The addresses of four gateways that hold one state, as the workers of one do, and write one ledger."""
    (folder / "tolmach.toml").write_text(metered_config(str(folder / LEDGER), upstream.url))
    settings = Settings.load(folder / "tolmach.toml", environ={})
    async with AsyncExitStack() as stack:
        urls = []
        for _ in range(4):
            now = InForce.of(settings, loopback=True)
            ledger = Ledger(str(folder / LEDGER), prices=now.prices)
            stack.callback(ledger.close)
            gateway = Gateway(now.targets, callers=Callers(KeyRing([key]), Limiter(state), now.prices), ledger=ledger)
            gateway.observers.append(Recording(ledger))
            take_over(gateway, now)
            urls.append(await stack.enter_async_context(serving(gateway, interface="rsgi")))
        yield urls


def counted(state: MemoryState, key: Key) -> int:
    """What the state has counted of the key's budget of the month."""
    return sum(total for name, total, *_ in state.counters() if name.startswith(f"budget:{key.id}:month:"))


async def test_the_ledger_is_what_the_service_counted(tmp_path: Path) -> None:
    plain, key = make_key(tmp_path / LEDGER, budget_month=1000.0)
    state = MemoryState()
    async with Metered() as upstream:
        async with workers(tmp_path, upstream, key, state) as urls:
            kinds = await ask_all(urls, plain, upstream, 2)
            await upstream.until_active(0)
        database = open_database(tmp_path / LEDGER)
        found = booked(database, key.id)
        database.close()
    wrong = differing(upstream.bills, found)
    assert {kinds[id].name: both for id, both in wrong.items()} == {}
    assert set(upstream.bills) == set(kinds)
    assert rows(tmp_path / LEDGER, "SELECT count(*) FROM tolmach_requests") == [(len(kinds),)]
    assert counted(state, key) == summed(found) > 0


async def test_sixty_four_callers_at_once_spend_no_more_than_their_budget(tmp_path: Path) -> None:
    # Each answer takes all that it may: the limit that the gateway put into its question.
    plain, key = make_key(tmp_path / LEDGER, budget_month=0.5)
    state = MemoryState()
    async with Metered() as upstream:
        async with workers(tmp_path, upstream, key, state) as urls:
            statuses: list[int] = []
            while statuses[-64:].count(429) < 64:
                asking = [spend(urls[number % 4], plain, f"s{len(statuses) + number}", number) for number in range(64)]
                statuses += await asyncio.gather(*asking)
        database = open_database(tmp_path / LEDGER)
        found = booked(database, key.id)
        database.close()
    assert set(statuses) == {200, 429}
    assert differing(upstream.bills, found) == {}
    spent = summed(found)
    assert counted(state, key) == spent
    assert 500_000 - _MOST < spent <= 500_000
    assert {bill.completion for each in found.values() for bill in each} == {LIMIT, 2 * LIMIT}


_MOST = (2 * LIMIT + 100) * 15
"""What one question may take, in millionths of a US dollar: two answers."""


async def test_who_goes_before_the_answer_has_paid_for_the_question(tmp_path: Path) -> None:
    ledger = tmp_path / LEDGER
    key, _ = make_key(ledger, tokens_per_minute=100_000)
    async with Upstream() as upstream, program(tmp_path, config(ledger, upstream.url)) as served:
        before = int((await ask(served, key))[1]["x-ratelimit-remaining-tokens"])
        for number in range(20):
            text = [{"role": "user", "content": "word " * 600}]
            waiting = asyncio.ensure_future(
                ask(served, key, "up/silent", f"gone{number}", messages=text, max_tokens=500)
            )
            await upstream.until_active(1)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            await upstream.until_active(0)
        async with asyncio.timeout(30):
            left = before
            while left > before - 20 * 600 or left < before - 20 * 900:
                left = int((await ask(served, key))[1]["x-ratelimit-remaining-tokens"])
        served.process.terminate()
        await served.ended()
    found = rows(ledger, "SELECT prompt_tokens, completion_tokens, estimated FROM tolmach_requests WHERE gone = 1")
    assert len(found) == 20
    assert all(600 <= prompt <= 800 and (completion, estimated) == (0, 1) for prompt, completion, estimated in found)


DODGES: list[dict[str, Any]] = [
    {"max_tokens": 1e9},
    {"max_tokens": "1000000"},
    {"max_completion_tokens": 1, "max_tokens": 1_000_000},
    {"n": 129, "max_tokens": 100},
    {"max_tokens": 1_000_000_000},
]


async def test_no_field_dodges_a_limit(tmp_path: Path) -> None:
    limited, _ = make_key(tmp_path / LEDGER, tokens_per_minute=5000)
    paid, _ = make_key(tmp_path / LEDGER, budget_day=0.005, budget_month=0.005)
    prices = '[prices."*"]\ninput = 1\noutput = 1'
    async with (
        Upstream() as upstream,
        program(tmp_path, config(tmp_path / LEDGER, upstream.url, more=prices)) as served,
    ):
        for key in (limited, paid):
            for said in DODGES:
                assert (await ask(served, key, **said))[0] == 429, said
            for name in ("max_tokens", "max_completion_tokens", "n"):
                for wrong in ("many", [1], True):
                    said = {name: wrong}
                    status, _, body = await ask(served, key, **said)
                    assert (status, json.loads(body)["error"]["param"]) == (400, name)
        # Halves of characters, which only the slower parser reads, hide no limit either.
        text = b'{"model":"up/good","max_tokens":1000000,"messages":[{"role":"user","content":"\\ud83d"}]}'
        for key in (limited, paid):
            status, _, _ = await raw(
                served.url, "POST", "/v1/chat/completions", text, f"authorization: Bearer {key}\r\n"
            )
            assert status == 429
        assert not upstream.asked
        assert (await ask(served, limited))[0] == (await ask(served, paid))[0] == 200
