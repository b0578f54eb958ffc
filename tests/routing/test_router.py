"""The loop: what it says of its attempts."""

import pytest

from tolmach.errors import ProviderUnavailable, RateLimited, TolmachError, TruncatedAnswer
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


TWO = Site(name="p", url="http://127.0.0.1:9/v1", protocol=create("openai"))


async def _asked(rules: Rules, errors: list[TolmachError], *, goes_on: bool = False) -> list[str]:
    """Who was asked, with why, until one answered; each error is that of one attempt."""
    providers = [Provider(name=name, site=TWO, access=Access()) for name in ("a", "b")]
    plan = Targets(providers, {"r": Route(targets=("a/m", "b/m"), rules=rules)}).plan("r")
    journal, left = Journal(), list(errors)

    async def open(target: Target, attempt: Attempt, timeouts: Timeouts) -> str:
        if left:
            raise left.pop(0)
        return target.name

    await Router(chance=lambda: 0.0).begin(plan, journal, open, goes_on=goes_on)
    return [f"{attempt.target.name}: {attempt.why}" for attempt in journal.attempts]


async def test_a_fault_that_passes_is_asked_again_and_the_journal_says_so() -> None:
    asked = await _asked(Rules(), [ProviderUnavailable("busy", status=503)])
    assert asked == ["a/m: first in order", "a/m: again, after transient"]
    for error in (
        RateLimited("wait", status=429, retry_after=2.0),
        RateLimited("wait", status=429),
        ProviderUnavailable("nothing", status=200, code="empty"),
        TruncatedAnswer(status=502),
    ):
        assert (await _asked(Rules(), [error]))[1].startswith("b/m: after a/m failed"), error


async def test_who_has_a_part_of_the_answer_does_not_wait_for_the_same_target() -> None:
    assert await _asked(Rules(), [ProviderUnavailable("busy", status=503)], goes_on=True) == [
        "a/m: goes on with a broken stream",
        "b/m: after a/m failed: transient",
    ]
