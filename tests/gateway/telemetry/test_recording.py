"""The ledger through `tolmach serve`: each request and each attempt once, with what callers were told."""

import asyncio
import json
import random
import sqlite3
from pathlib import Path
from typing import Any

from msgspec import Struct

from tests.gateway.keyed import Reply, ask, config, make_key, opened
from tests.gateway.program import Program, demo_config, program, question_body, raw
from tests.gateway.upstream import COMPLETION, PIECES, PROMPT, Upstream
from tolmach.demo import Demo

ROUTES = """
[prices.good]
input = 10
output = 20
[prices."*/cut"]
input = 1000
output = 2000
[prices."*/silent"]
input = 1000
output = 2000
[routes.over]
targets = ["up/bad", "up/good"]
[routes.resumed]
targets = ["up/cut", "up/good"]
recover = "resume"
[routes.restarted]
targets = ["up/cut", "up/good"]
recover = "restart"
[routes.hedged]
targets = ["up/silent", "up/good"]
hedge_after = 0.05
"""
COST = 10 * PROMPT + 20 * COMPLETION
COUNTED = {"stream_options": {"include_usage": True}}
TEXT = "".join(PIECES)


class Row(Struct, frozen=True):
    """A request in the ledger, with its attempts as (target, outcome, status)."""

    status: int
    error: str
    gone: int
    key: str
    target: str
    tokens: tuple[int, int]
    estimated: int
    cost: int | None
    attempts: tuple[tuple[str, str, int], ...]


def rows_of(ledger: Path) -> dict[str, Row]:
    """All requests by their ids, each of which is there once."""
    with sqlite3.connect(ledger) as database:
        requests = database.execute(
            "SELECT uid, request, status, error, gone, key, target, prompt_tokens, completion_tokens, estimated, cost"
            " FROM tolmach_requests"
        ).fetchall()
        attempts = database.execute(
            "SELECT uid, target, outcome, status FROM tolmach_attempts ORDER BY uid, number"
        ).fetchall()
    rows = {}
    for uid, request, status, error, gone, key, target, prompt, completion, estimated, cost in requests:
        tried = tuple((target, outcome, status) for of, target, outcome, status in attempts if of == uid)
        rows[request] = Row(status, error, gone, key, target, (prompt, completion), estimated, cost, tried)
    assert len(rows) == len(requests)
    assert sum(len(row.attempts) for row in rows.values()) == len(attempts)
    return rows


def usage_of(reply: Reply) -> tuple[int, int]:
    """What the caller is told: tokens of the question and of the answer."""
    _, headers, body = reply
    found: Any = None
    if headers["content-type"].startswith("application/json"):
        found = json.loads(body).get("usage")
    else:
        for line in body.decode().splitlines():
            if line.startswith("data: {"):
                found = json.loads(line[6:]).get("usage") or found
    return (found["prompt_tokens"], found["completion_tokens"]) if found else (0, 0)


def text_of(reply: Reply) -> str:
    """The text of a streamed answer."""
    events = [json.loads(line[6:]) for line in reply[2].decode().splitlines() if line.startswith("data: {")]
    return "".join(choice["delta"].get("content") or "" for event in events for choice in event.get("choices", ()))


async def test_what_is_answered_and_by_whom(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.sqlite"
    plain, key = make_key(ledger)
    async with Upstream() as upstream, program(tmp_path, config(ledger, upstream.url, more=ROUTES)) as served:
        replies = {
            "whole": await ask(served, plain, "up/smart", "whole"),
            "stream": await ask(served, plain, "smart", "stream", stream=True, **COUNTED),
            "over": await ask(served, plain, "over", "over"),
            "resumed": await ask(served, plain, "resumed", "resumed", stream=True, **COUNTED),
            "restarted": await ask(served, plain, "restarted", "restarted", stream=True, **COUNTED),
            "hedged": await ask(served, plain, "hedged", "hedged"),
        }
        await upstream.until_active(0)
        served.process.terminate()
        assert await served.ended() == 0
    assert {status for status, _, _ in replies.values()} == {200}
    assert {usage_of(reply) for reply in replies.values()} == {(PROMPT, COMPLETION)}
    assert text_of(replies["resumed"]) == text_of(replies["restarted"]) == TEXT
    rows = rows_of(ledger)
    assert set(rows) == set(replies)
    for row in rows.values():
        assert (row.status, row.error, row.gone, row.key) == (200, "", 0, key.id)
        assert (row.tokens, row.estimated) == ((PROMPT, COMPLETION), 0)
    answered = ("up/good", "answered", 200)
    assert {name: row.attempts for name, row in rows.items()} == {
        "whole": (answered,),
        "stream": (answered,),
        "over": (("up/bad", "failed", 500), ("up/bad", "failed", 500), answered),
        "resumed": (("up/cut", "failed", 0), answered),
        "restarted": (("up/cut", "failed", 0), answered),
        "hedged": (("up/silent", "cancelled", 0), answered),
    }
    costs = {name: row.cost for name, row in rows.items()}
    # What broke off had given two pieces, and was a question too; what lost the race was a question.
    for name, pieces in (("resumed", 2), ("restarted", 2), ("hedged", 0)):
        more = costs.pop(name)
        assert more is not None
        assert COST + pieces * 2000 < more < COST + 2 * PROMPT * 1000 + 3 * 2000
    assert set(costs.values()) == {COST}
    assert sum(len(row.attempts) for row in rows.values()) == upstream.asked.total()


async def test_what_is_not_answered_to_its_end(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.sqlite"
    plain, key = make_key(ledger)
    limited, few = make_key(ledger, requests_per_minute=1)
    models, chosen = make_key(ledger, models=("smart",))
    async with Upstream() as upstream, program(tmp_path, config(ledger, upstream.url, more=ROUTES)) as served:
        stream = await opened(served, plain, id="gone")
        stream.close()
        await upstream.until_active(0)
        waiting = asyncio.ensure_future(ask(served, plain, "up/silent", "early"))
        await upstream.until_active(1)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await upstream.until_active(0)
        broken = await ask(served, plain, "up/cut", "broken", stream=True)
        assert "error" in broken[2].decode()
        assert (await ask(served, plain, "up/bad", "failed"))[0] == 500
        assert (await ask(served, "ak-nobody", id="unknown"))[0] == 401
        assert (await ask(served, limited, id="first"))[0] == 200
        assert (await ask(served, limited, id="second"))[0] == 429
        assert (await ask(served, models, id="forbidden"))[0] == 404
        assert (await ask(served, plain, "nothing", "nowhere"))[0] == 404
        served.process.terminate()
        assert await served.ended() == 0
    rows = rows_of(ledger)
    assert rows.pop("first").tokens == (PROMPT, COMPLETION)
    assert {name: (row.status, row.gone, row.key, row.attempts) for name, row in rows.items()} == {
        "gone": (200, 1, key.id, (("up/held", "cancelled", 200),)),
        "early": (0, 1, key.id, (("up/silent", "cancelled", 0),)),
        "broken": (200, 0, key.id, (("up/cut", "failed", 0),)),
        "failed": (500, 0, key.id, (("up/bad", "failed", 500),)),
        "unknown": (401, 0, "", ()),
        "second": (429, 0, few.id, ()),
        "forbidden": (404, 0, chosen.id, ()),
        "nowhere": (404, 0, key.id, ()),
    }
    assert {name for name, row in rows.items() if row.error} == set(rows) - {"gone", "early"}
    # What had been used is kept, by estimate; nothing else has any.
    assert {name for name, row in rows.items() if row.estimated} == {"gone", "early", "broken"}
    assert {name: rows[name].tokens[1] for name in ("gone", "early", "broken")} == {"gone": 1, "early": 0, "broken": 2}
    assert rows["early"].tokens[0] == rows["gone"].tokens[0] > 0
    assert rows["early"].cost == rows["early"].tokens[0] * 1000
    assert all(row.tokens == (0, 0) for row in rows.values() if not row.estimated)
    assert rows["broken"].cost == rows["broken"].tokens[0] * 1000 + 2 * 2000
    assert {name for name, row in rows.items() if row.cost is None} == {"gone"}  # it has no price


async def _mixed(served: Program, key: str, number: int, kind: str) -> Reply:
    streamed = {"stream": True, **COUNTED} if kind in ("stream", "resumed") else {}
    model = {"whole": "up/good", "stream": "smart", "refused": "up/good"}.get(kind, kind)
    return await ask(served, "ak-nobody" if kind == "refused" else key, model, f"r{number}", **streamed)


async def test_its_sums_are_those_that_callers_were_told(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.sqlite"
    plain, _ = make_key(ledger)
    chance = random.Random(4)
    kinds = [chance.choice(("whole", "stream", "over", "resumed", "hedged", "refused")) for _ in range(150)]
    async with Upstream(0.005) as upstream, program(tmp_path, config(ledger, upstream.url, more=ROUTES)) as served:
        replies = await asyncio.gather(*[_mixed(served, plain, *each) for each in enumerate(kinds)])
        await upstream.until_active(0)
        served.process.terminate()
        assert await served.ended() == 0
    assert [reply[0] for reply in replies] == [401 if kind == "refused" else 200 for kind in kinds]
    rows = rows_of(ledger)
    assert sorted(rows) == sorted(f"r{number}" for number in range(150))
    assert {name: row.tokens for name, row in rows.items()} == {
        f"r{number}": usage_of(reply) for number, reply in enumerate(replies)
    }
    assert not any(row.estimated for row in rows.values())
    assert sum(len(row.attempts) for row in rows.values()) == upstream.asked.total()
    # What a caller is told when the head is sent: a rescue comes after it.
    for number, (_, headers, _) in enumerate(replies):
        assert len(rows[f"r{number}"].attempts) >= int(headers.get("x-tolmach-attempts", 0))


async def test_what_nobody_saw_of_a_broken_answer_was_used_all_the_same(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.sqlite"
    async with Demo(delay=0) as demo:
        more = f'''
[ledger]
url = "{ledger}"
[prices."web/*"]
input = 1000
output = 2000
[providers.web]
protocol = "chatgpt-web"
url = "{demo.url}/ChatGpt"
models = ["gpt-4o"]
'''
        async with program(tmp_path, demo_config(demo.url, more)) as served:
            demo.faults["/ChatGpt"] = "cut=5"
            # Asked for all of it at once; this service streams all the same.
            head = "x-request-id: unseen\r\n"
            assert (await raw(served.url, "POST", "/v1/chat/completions", question_body("web/gpt-4o"), head))[0] == 502
            served.process.terminate()
            assert await served.ended() == 0
    row = rows_of(ledger)["unseen"]
    assert row.attempts == (("web/gpt-4o", "failed", 0),)
    # The caller was told of no tokens.
    assert row.tokens == (0, 0)
    assert row.cost is not None
    assert row.cost > 2 * 2000
