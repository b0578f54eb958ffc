"""What a key may spend, through `tolmach serve`: one target under any name, what is reserved, what is paid for."""

import re
import sqlite3
from pathlib import Path
from typing import Any

from tests.gateway.keyed import METRICS_KEY, ask, config, make_key
from tests.gateway.program import program, raw
from tests.gateway.upstream import COMPLETION, PROMPT, Upstream

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
