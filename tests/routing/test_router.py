"""The loop: what it says of its attempts."""

import pytest

from tolmach.protocols import create
from tolmach.protocols.base import Site
from tolmach.providers.base import Access
from tolmach.routing.journal import Attempt, Journal
from tolmach.routing.policy import Rules, Strategy
from tolmach.routing.router import Router
from tolmach.routing.targets import Provider, Route, Target, Targets
from tolmach.transport import Timeouts


@pytest.mark.parametrize(
    ("strategy", "why"),
    [
        ("failover", "first in order"),
        ("weighted", "drawn by weight"),
        ("fastest", "the quickest to a first token, or not measured yet"),
    ],
)
async def test_the_first_attempt_says_by_which_strategy_it_was_chosen(strategy: Strategy, why: str) -> None:
    site = Site(name="p", url="http://127.0.0.1:9/v1", protocol=create("openai"))
    route = Route(targets=("p/one", "p/two"), rules=Rules(strategy=strategy))
    plan = Targets([Provider(name="p", site=site, access=Access())], {"r": route}).plan("r")
    journal = Journal()

    async def open(target: Target, attempt: Attempt, timeouts: Timeouts) -> str:
        return target.name

    assert await Router().begin(plan, journal, open) in ("p/one", "p/two")
    assert [attempt.why for attempt in journal.attempts] == [why]
