"""What a service counted beside what the gateway wrote down, and what sixty-four callers at once spend of a budget.

The service is scripted (`tests/gateway/metered.py`): it keeps an account of all that it is asked and gives. The gateway
is `tolmach serve` with four workers on one state (redis-server) and one ledger. The last line is what the goals are
held to: no question of which the two say something else, no more spent than the budget.

LiteLLM's proxy is asked the same, as far as it can be, when it is installed (`pip install 'litellm[proxy]'` in an
environment of its own; LITELLM=/path/to/litellm says where). It keeps its accounts in PostgreSQL by a client that
fetches programs when it is set up; here a callback of its own writes down what it would: usage and `response_cost`.
"""

import argparse
import asyncio
import json
import os
import shutil
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from gateway_processes import NotStarted, free_port, served
from report import heading, table

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.gateway.keyed import make_key
from tests.gateway.metered import (
    KINDS,
    LIMIT,
    RATE,
    Bill,
    Kind,
    Metered,
    ask_all,
    booked,
    differing,
    metered_config,
    spend,
    summed,
)
from tests.gateway.program import program
from tests.state.server import PROGRAM, running_server

from tolmach.ledger import open_database

_BUDGET = 0.5
_CALLERS = 64
_MOST_ASKED = 1024
_KEY = "sk-benchmark"
_Bills = Mapping[str, list[Bill]]

_CALLBACK = """
import json
from litellm.integrations.custom_logger import CustomLogger

class Log(CustomLogger):
    async def _write(self, kwargs, response, kind):
        asked = kwargs.get("messages") or kwargs.get("input") or ""
        text = asked if isinstance(asked, str) else json.dumps(asked)
        usage = getattr(response, "usage", None)
        usage = usage.model_dump() if hasattr(usage, "model_dump") else usage
        with open({file!r}, "a") as out:
            print(json.dumps([text, kind, usage, kwargs.get("response_cost")], default=str), file=out, flush=True)

    async def async_log_success_event(self, kwargs, response_obj, start_time, end_time):
        await self._write(kwargs, response_obj, "success")

    async def async_log_failure_event(self, kwargs, response_obj, start_time, end_time):
        await self._write(kwargs, response_obj, "failure")

log = Log()
"""


def _group(kind: Kind) -> str:
    """The rows of the table: the ways of asking without API and form."""
    return kind.name.partition(", ")[0]


def _show(kinds: Mapping[str, Kind], billed: _Bills, found: Mapping[str, int], wrong: Iterable[str]) -> None:
    """One row a group; `found` has what each question cost by the accounts of the gateway."""
    groups: dict[str, list[str]] = defaultdict(list)
    for id, kind in kinds.items():
        groups[_group(kind)].append(id)
    differ = set(wrong)
    rows: list[tuple[object, ...]] = []
    for name, ids in sorted(groups.items()):
        service, own = sum(bill.cost for id in ids for bill in billed.get(id, ())), sum(found.get(id, 0) for id in ids)
        nothing = sum(1 for id in ids if billed.get(id) and not found.get(id))
        rows.append((name, len(ids), service, _short(own), len(differ.intersection(ids)), nothing))
    sums = [sum(bill.cost for bills in billed.values() for bill in bills), _short(sum(found.values()))]
    nothing = sum(1 for id in kinds if billed.get(id) and not found.get(id))
    rows.append(("all", len(kinds), *sums, len(differ), nothing))
    table(("asked", "questions", "service, millionths of $", "gateway", "tokens differ", "booked nothing"), rows)


def _short(number: int) -> str:
    return str(number) if abs(number) < 10**12 else f"{number:.1e}"


async def _tolmach(folder: Path, state: str, rounds: int) -> tuple[int, int]:
    """How many questions differ, and what was spent over the budget."""
    ledger = folder / "ledger.sqlite"
    plain, key = make_key(ledger, budget_month=1_000_000.0)
    few, spender = make_key(ledger, budget_month=_BUDGET)
    gateway = f'workers = 4\nstate = "{state}"'
    async with Metered() as upstream:
        config = metered_config(str(ledger), upstream.url, gateway)
        async with program(folder, config) as running:
            kinds = await ask_all([running.url], plain, upstream, rounds)
            await upstream.until_active(0)
            statuses: list[int] = []
            while statuses[-_CALLERS:].count(429) < _CALLERS:
                statuses += await _crowd(running.url, few, len(statuses))
            running.process.terminate()
            await running.ended()
        database = open_database(ledger)
        asked, spent = booked(database, key.id), booked(database, spender.id)
        workers = database.query("SELECT count(DISTINCT worker) FROM tolmach_requests")[0][0]
        database.close()
        billed = {id: bills for id, bills in upstream.bills.items() if id in kinds}
    wrong = differing(billed, asked)
    print(f"tolmach, {workers} workers")
    _show(kinds, billed, {id: summed({id: bills}) for id, bills in asked.items()}, wrong)
    return len(wrong), _budget("tolmach", upstream.bills, spent, statuses)


async def _crowd(url: str, key: str, first: int, *, chat_only: bool = False) -> list[int]:
    asking = [spend(url, key, f"s{first + number}", number, chat_only=chat_only) for number in range(_CALLERS)]
    return await asyncio.gather(*asking)


def _budget(name: str, billed: _Bills, spent: _Bills, statuses: Sequence[int]) -> int:
    """Tell what was spent; millionths of a dollar over the budget."""
    own, service = summed(dict(spent)), sum(summed({id: list(bills)}) for id, bills in billed.items() if id[0] == "s")
    over = max(0, service - round(_BUDGET * 1_000_000))
    print(
        f"\n{name}: {_CALLERS} callers at once, a budget of ${_BUDGET:g}, answers of {LIMIT} tokens and more: "
        f"{statuses.count(200)} answered, {len(statuses) - statuses.count(200)} refused, "
        f"${service / 1e6:.4f} by the service, ${own / 1e6:.4f} by the gateway, ${over / 1e6:.4f} over the budget\n"
    )
    return over


# LiteLLM


_CAN = ("plain", "cached", "quiet", "wrong", "cut", "given up before the answer", "given up in mid-answer", "n = 3")


def _litellm_config(url: str, budget: float | None) -> str:
    models = [
        f"""- model_name: up/{name}
  litellm_params:
    model: openai/{name}
    api_base: {url}/v1
    api_key: none
    input_cost_per_token: {(RATE.input or 0) / 1e6}
    output_cost_per_token: {(RATE.output or 0) / 1e6}
    cache_read_input_token_cost: {(RATE.cached or 0) / 1e6}
"""
        for name in ("plain", "cached", "quiet", "wrong", "cut", "held", "silent", "long")
    ]
    router = "router_settings:\n  num_retries: 0\n"
    if budget is not None:
        router += f"  provider_budget_config:\n    openai:\n      budget_limit: {budget}\n      time_period: 1d\n"
    return (
        f"model_list:\n{''.join(models)}{router}litellm_settings:\n  callbacks: money_log.log\n  num_retries: 0\n"
        f"general_settings:\n  master_key: {_KEY}\n"
    )


def _litellm_told(file: Path) -> dict[str, tuple[int, int, int, int]]:
    """By questions: prompt, completion and cached tokens, and millionths of a dollar, as its callback was told."""
    found: dict[str, tuple[int, int, int, int]] = {}
    for line in file.read_text().splitlines() if file.exists() else ():
        text, _, usage, cost = json.loads(line)
        id = next((word for word in text.replace('"', " ").split() if word[0] in "qs" and word[1:].isdigit()), "")
        before = found.get(id, (0, 0, 0, 0))
        usage = usage if isinstance(usage, dict) else {}
        details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details") or {}
        counts = (
            usage.get("prompt_tokens") or usage.get("input_tokens") or 0,
            usage.get("completion_tokens") or usage.get("output_tokens") or 0,
            details.get("cached_tokens") or 0,
            round(float(cost or 0) * 1_000_000),
        )
        found[id] = tuple(a + b for a, b in zip(before, counts, strict=True))  # type: ignore[assignment]
    return found


@contextmanager
def _litellm_served(folder: Path, command: str, upstream: str, budget: float | None) -> Iterator[tuple[str, Path]]:
    """The address of the proxy, and the file that its callback writes."""
    folder.mkdir()
    port, file, config = free_port(), folder / "told", folder / "litellm.yaml"
    (folder / "money_log.py").write_text(_CALLBACK.replace("{file!r}", repr(str(file))), encoding="utf-8")
    config.write_text(_litellm_config(upstream, budget), encoding="utf-8")
    # It has its prices with it, and need not fetch them.
    start = ["env", "LITELLM_LOCAL_MODEL_COST_MAP=True", command, "--config", str(config), "--num_workers", "1"]
    with served([*start, "--host", "127.0.0.1", "--port", str(port)], port, "/health/liveliness"):
        yield f"http://127.0.0.1:{port}", file


async def _litellm(folder: Path, command: str, rounds: int) -> None:
    # Its other APIs ask services by other ways than this one has.
    asked = [kind for kind in KINDS if kind.name.startswith(_CAN) and kind.api == "openai"]
    asked = [kind for kind in asked if "asked three times" not in kind.name]
    async with Metered() as upstream:
        with _litellm_served(folder / "accounts", command, upstream.url, None) as (url, file):
            kinds = await ask_all([url], _KEY, upstream, rounds, at_once=8, kinds=asked, strict=False)
            told = await _settled(file)
        await upstream.until_active(0)  # it goes on asking for callers who have gone; now it has ended
        billed = {id: bills for id, bills in upstream.bills.items() if id in kinds}
    found = {id: [Bill("up/" + _model(kinds, id), *counts[:3])] for id, counts in told.items() if id in kinds}
    print("LiteLLM proxy, by its callback")
    _show(kinds, billed, {id: told[id][3] for id in found}, differing(billed, found))
    async with Metered() as upstream:
        with _litellm_served(folder / "budget", command, upstream.url, _BUDGET) as (url, file):
            statuses: list[int] = []
            while len(statuses) < _MOST_ASKED and (not statuses or 200 in statuses[-_CALLERS:]):
                statuses += await _crowd(url, _KEY, len(statuses), chat_only=True)
            told = await _settled(file)
        await upstream.until_active(0)
    spent = {id: [Bill("up/long", *counts[:3])] for id, counts in told.items()}
    _budget("LiteLLM proxy (provider_budget_config)", upstream.bills, spent, statuses)


def _model(kinds: Mapping[str, Kind], id: str) -> str:
    return kinds[id].models[0].partition("/")[2]


async def _settled(file: Path) -> dict[str, tuple[int, int, int, int]]:
    """What it has written down once nothing more comes: its callbacks come later than its answers."""
    told, before = _litellm_told(file), -1
    while len(told) != before:
        before = len(told)
        await asyncio.sleep(5)
        told = _litellm_told(file)
    return told


async def _measure(folder: Path, rounds: int, litellm: str | None) -> int:
    assert PROGRAM is not None
    own = folder / "tolmach"
    own.mkdir()
    with running_server() as state:
        differ, over = await _tolmach(own, state.url, rounds)
    if litellm is None:
        print("LiteLLM's proxy is not installed here (LITELLM says where it is; the script's head says how)\n")
    else:
        try:
            await _litellm(folder, litellm, min(rounds, 5))
        except NotStarted as error:
            print(f"LiteLLM's proxy is left out, it did not start: {error}\n")
    print(f"tolmach: {differ} questions of which the service says something else; ${over / 1e6:.6f} over the budget")
    return 1 if differ or over else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40, help=f"how often each of {len(KINDS)} ways is asked")
    rounds = parser.parse_args().rounds
    heading("granian", "redis", "litellm")
    if PROGRAM is None:
        print("redis-server is not installed: four workers need a state")
        return 1
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(_measure(Path(folder), rounds, os.environ.get("LITELLM") or shutil.which("litellm")))


if __name__ == "__main__":
    sys.exit(main())
