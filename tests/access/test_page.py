"""What docs/keys.md says is what the code does."""

import inspect

from tests.documentation.documents import ROOT, names_in, rows
from tolmach.access import keys, limits
from tolmach.access.keys import Key
from tolmach.access.limits import Limiter
from tolmach.gateway import callers
from tolmach.gateway.surfaces import openai_errors
from tolmach.state import MemoryState
from tolmach.state.base import BUCKETS
from tolmach.state.redis import RedisState

PAGE = ROOT / "docs/keys.md"


def test_headers_are_those_of_the_code() -> None:
    told = {name for row in rows(PAGE, "header") for name in names_in(row[0])}
    key = Key(id="id", name="app", hash="", requests_per_minute=1, tokens_per_minute=1, streams=1, budget_day=1.0)
    admission = Limiter(MemoryState()).admit_now(key, "m", 0)
    assert told == {name for name, _ in admission.headers()}


def test_refusals_are_those_of_the_code() -> None:
    told = {code for row in rows(PAGE, "refused because") for code in names_in(row[1])}
    source = "".join(map(inspect.getsource, (keys, limits, callers, openai_errors)))
    assert told == {
        "missing_api_key",
        "invalid_api_key",
        "model_not_found",
        "rate_limit_exceeded",
        "insufficient_quota",
        "unpriced_model",
    }
    assert {code for code in told if f'"{code}"' not in source} == set()


def test_figures_are_those_of_the_code() -> None:
    text = " ".join(PAGE.read_text(encoding="utf-8").split())
    defaults = {name: each.default for name, each in inspect.signature(RedisState).parameters.items()}
    assert f"within {defaults['timeout'] * 1000:g} ms" in text
    assert f"at first after {defaults['first_delay']:g} s, then at least every {defaults['longest_delay']:g} s" in text
    assert f"begin with `{defaults['prefix']}`" in text
    assert f"in {BUCKETS} steps of a second" in text
    assert f"{BUCKETS}/{BUCKETS + 1} of the limit" in text
    assert f"holds its streams for {limits._LEASE_SECONDS:g} seconds" in text
    assert f"{keys._RANDOM_BYTES} random bytes" in text
