"""Callers by their keys: who is let in, by which header, and held to what."""

import secrets
from typing import Any, Literal

import pytest
from msgspec import structs

from tolmach.access.keys import Key, KeyRing, new_key
from tolmach.access.limits import Limiter, LimitReached
from tolmach.access.rules import KeyRule
from tolmach.chat import Usage
from tolmach.errors import AuthError, BadRequest, Refused
from tolmach.gateway.callers import Callers
from tolmach.gateway.reservations import Budgets, Peek, Reservation, Wanted, question_tokens, wanted
from tolmach.ledger.prices import Prices, Rate
from tolmach.protocols import create
from tolmach.protocols.base import Site
from tolmach.providers.base import Access
from tolmach.routing.journal import Journal, Outcome
from tolmach.routing.policy import Rules
from tolmach.routing.targets import Plan, Provider, Route, Target, Targets
from tolmach.state import MemoryState


@pytest.fixture
def plan() -> Plan:
    site = Site(name="local", url="http://127.0.0.1:9/v1", protocol=create("openai"))
    return Targets([Provider(name="local", site=site, access=Access())]).plan("local/model")


def made(**limits: object) -> tuple[str, Key]:
    plain, key = new_key(secrets.token_bytes, "test")
    return plain, structs.replace(key, **limits)


def test_without_any_key_everyone_may_ask() -> None:
    assert Callers().who({}) is None
    assert Callers().who({"authorization": "Bearer whatever"}) is None


@pytest.mark.parametrize(
    ("rule", "ever", "open_to_all"),
    [
        (KeyRule(), False, True),
        (KeyRule(), True, False),
        (KeyRule(setting="optional"), True, True),
        (KeyRule(setting="required"), False, False),
        (KeyRule(loopback=False), False, False),
        (KeyRule(loopback=False, setting="optional"), False, False),
    ],
)
def test_who_may_ask_while_there_is_no_key(rule: KeyRule, ever: bool, open_to_all: bool) -> None:
    callers = Callers(rule=rule, ever=ever)
    assert bool(callers.problem) is not open_to_all
    for headers in ({}, {"authorization": "Bearer ak-1"}):
        if open_to_all:
            assert callers.who(headers) is None
        else:
            with pytest.raises(AuthError):
                callers.who(headers)


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Bearer {}"},
        {"authorization": "bearer  {} "},
        {"x-api-key": "{}"},
        {"authorization": "Basic abc", "x-api-key": "{}"},
    ],
)
def test_a_key_may_stand_in_either_header(headers: dict[str, str]) -> None:
    plain, key = made()
    callers = Callers(KeyRing([key]))
    assert callers.who({name: value.format(plain) for name, value in headers.items()}) is key


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer "}, {"x-api-key": "ak-unknown"}])
def test_no_key_and_a_wrong_one_are_refused(headers: dict[str, str]) -> None:
    callers = Callers(KeyRing([made()[1]]))
    with pytest.raises(AuthError) as refused:
        callers.who(headers)
    assert refused.value.status == 401


async def reserve(key: Key, plan: Plan, body: bytes, *, answered: bool = True, **said: Any) -> dict[str, str]:
    """The headers of a question that was let in."""
    callers = Callers(KeyRing([key]), Limiter(MemoryState()), Prices({"*": Rate(1.0, 1.0)}))
    peek = Peek("local/model", **said)
    return dict((await callers.admit(key, peek, plan, body, wanted(peek) if answered else None)).headers())


async def test_an_answer_of_unlimited_length_does_not_use_up_a_low_limit(plan: Plan) -> None:
    _, key = made(tokens_per_minute=800)
    left = (await reserve(key, plan, b"a" * 300))["x-ratelimit-remaining-tokens"]
    assert left == str(800 - 101 - 100)
    with pytest.raises(LimitReached):
        await reserve(key, plan, b"a" * 300, max_tokens=700)


@pytest.mark.parametrize(
    ("said", "answers"),
    [
        ({}, 1024),
        ({"max_tokens": 50}, 50),
        ({"max_output_tokens": 7}, 7),
        ({"max_tokens": 50, "n": 3}, 150),
        ({"max_tokens": 50, "n": 129}, 6450),
        ({"max_tokens": 50, "n": "3"}, 150),
        ({"max_tokens": 50, "n": 0}, 50),
        ({"max_tokens": 1e3}, 1000),
        ({"max_tokens": 99.5}, 100),
        ({"max_tokens": "1000"}, 1000),
        ({"max_tokens": " 1e3 "}, 1000),
        ({"max_completion_tokens": 1, "max_tokens": 9000}, 9000),
        ({"max_completion_tokens": 9000, "max_tokens": 1}, 9000),
        ({"max_tokens": 1, "n_predict": 700}, 700),
        ({"max_tokens": 0}, 0),
        ({"max_tokens": -1}, 1024),
        ({"max_tokens": None, "n": None}, 1024),
    ],
)
async def test_the_largest_limit_is_reserved_for_each_answer(said: dict[str, Any], answers: int, plan: Plan) -> None:
    _, key = made(tokens_per_minute=100_000)
    left = (await reserve(key, plan, b"a " * 150, **said))["x-ratelimit-remaining-tokens"]
    assert left == str(100_000 - 101 - answers)
    without = await reserve(key, plan, b"a " * 150, answered=False, **said)
    assert without["x-ratelimit-remaining-tokens"] == str(100_000 - 101)


@pytest.mark.parametrize("wrong", ["many", "", "1,000", "-5", True, [5], {"a": 1}, "9" * 30])
@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens", "max_output_tokens", "n_predict", "n"])
def test_what_is_no_number_is_refused(name: str, wrong: Any) -> None:
    with pytest.raises(BadRequest) as refused:
        wanted(Peek("m", **{"max_tokens": 5, name: wrong}))
    assert (refused.value.status, refused.value.param) == (400, name)


@pytest.mark.parametrize(
    ("body", "tokens"),
    [
        (b"", 1),
        (b"a " * 150, 101),
        # A picture of a megabyte is no text of a megabyte, and one that is only named is no text of its address.
        (b"a " * 150 + b"A" * 1_000_000, 101 + 11_000),
        (b'{"type":"image_url","image_url":{"url":"https://x.test/a.png"}}', 22 + 1000),
        (b'{"type":"image","source":{"type":"url","url":"https://x.test/a.png"}}', 24 + 1000),
    ],
)
def test_what_a_question_may_take(body: bytes, tokens: int) -> None:
    assert question_tokens(body) == tokens


@pytest.mark.parametrize("said", [2**63, 10**400, 1e308])
async def test_a_number_that_no_answer_has_is_more_than_any_limit(said: Any, plan: Plan) -> None:
    for limits in ({"tokens_per_minute": 1 << 40}, {"budget_day": 1e6}):
        _, key = made(**limits)
        with pytest.raises(LimitReached):
            await reserve(key, plan, b"", max_tokens=said, n=said)


# Keys with a budget


def routed(strategy: Literal["failover", "weighted"] = "failover") -> Plan:
    """A plan of a cheap target and one that costs ten times as much."""
    found = [
        Provider(
            name=name,
            site=Site(name=name, url="http://127.0.0.1:9/v1", protocol=create("openai")),
            access=Access(),
            answer_tokens=limit,
        )
        for name, limit in (("cheap", None), ("dear", 100))
    ]
    route = Route(targets=("cheap/m", "dear/m"), rules=Rules(strategy=strategy))
    return Targets(found, {"r": route}).plan("r")


PRICES = Prices({"cheap/*": Rate(10.0, 10.0), "dear/*": Rate(100.0, 100.0)})


async def held(key: Key, plan: Plan, **said: Any) -> tuple[Reservation, Callers]:
    callers = Callers(KeyRing([key]), Limiter(MemoryState()), PRICES)
    peek = Peek("r", **said)
    return await callers.admit(key, peek, plan, b"a" * 299, wanted(peek)), callers


async def test_an_answer_to_a_key_with_a_budget_has_a_limit_and_all_of_it_is_reserved() -> None:
    plan = routed()
    cheap, dear = (plan.targets[choice.id] for choice in plan.choices)
    _, key = made(budget_day=1.0)
    reservation, _ = await held(key, plan)
    assert (reservation.limit_for(cheap), reservation.limit_for(dear)) == (4096, 100)
    assert reservation.cost == 10 * (100 + 4096)
    # Where any of them may be the first that is asked, it is the dearest.
    assert (await held(key, routed("weighted")))[0].cost == max(10 * (100 + 4096), 100 * (100 + 100))
    reservation, _ = await held(key, plan, max_tokens=50, n=2)
    assert reservation.limit_for(cheap) is None
    assert reservation.cost == 10 * (100 + 100)
    # A key without a budget has what its caller says, and nothing is put into its questions.
    _, free = made(tokens_per_minute=100_000)
    assert (await held(free, plan))[0].limit_for(cheap) is None


def asked_again(journal: Journal, target: Target, usage: Usage | None, outcome: Outcome = "failed") -> None:
    attempt = journal.begin(target, "", False)
    attempt.outcome, attempt.usage = outcome, usage


async def test_one_more_attempt_is_reserved_beside_what_the_others_took() -> None:
    plan = routed()
    cheap, dear = (plan.targets[choice.id] for choice in plan.choices)
    _, key = made(budget_day=0.05)
    reservation, callers = await held(key, plan, max_tokens=100)
    first = 10 * 200
    assert reservation.cost == first
    journal = Journal()
    await reservation.permit(journal, cheap)
    assert reservation.cost == first
    asked_again(journal, cheap, None)  # it was refused, and cost nothing
    await reservation.permit(journal, cheap)
    assert reservation.cost == first
    asked_again(journal, cheap, Usage(100, 50, 150))
    await reservation.permit(journal, dear)
    assert reservation.cost == 10 * 150 + 100 * 200
    asked_again(journal, dear, None, "")  # it runs
    await reservation.permit(journal, dear)
    assert reservation.cost == 10 * 150 + 2 * 100 * 200
    asked_again(journal, dear, None, "")
    with pytest.raises(LimitReached, match="budget"):
        await reservation.permit(journal, dear)
    assert reservation.cost == 10 * 150 + 2 * 100 * 200
    # All of it is settled as one: what was taken counts, and nothing else.
    for attempt in journal.attempts[-2:]:
        attempt.usage = Usage(100, 10, 110)
    reservation.settle(journal)
    left = 50_000 - (10 * 150 + 2 * 100 * 110)
    admitted = Peek("r", max_tokens=(left // 10) - 100)
    await callers.admit(key, admitted, plan, b"a" * 299, wanted(admitted))
    with pytest.raises(LimitReached):
        await callers.admit(key, Peek("r"), plan, b"", Wanted(1, 0))


async def test_a_question_that_goes_on_from_kept_answers_is_reserved_with_them() -> None:
    plan = routed()
    _, key = made(budget_day=0.05)
    reservation, _ = await held(key, plan, max_tokens=100)
    reservation.grow(50)  # less than was thought
    reservation.grow(1100)
    await reservation.permit(Journal(), plan.first)
    assert reservation.cost == 10 * 1200
    reservation.grow(1_000_000)
    with pytest.raises(LimitReached):
        await reservation.permit(Journal(), plan.first)


async def test_models_without_a_price_may_be_refused_to_keys_with_a_budget() -> None:
    plan = routed()
    for prices, priced in ((PRICES, True), (Prices({"cheap/*": Rate(1.0, 1.0)}), False), (Prices(), False)):
        for limits, limited in (({"budget_month": 1.0}, True), ({"tokens_per_minute": 100_000}, False)):
            _, key = made(**limits)
            callers = Callers(KeyRing([key]), Limiter(MemoryState()), prices)
            await callers.admit(key, Peek("r"), plan, b"", Wanted())
            callers.budgets = Budgets(priced_only=True)
            if priced or not limited:
                await callers.admit(key, Peek("r"), plan, b"", Wanted())
                continue
            with pytest.raises(Refused) as refused:
                await callers.admit(key, Peek("r"), plan, b"", Wanted())
            assert (refused.value.status, refused.value.code) == (403, "unpriced_model")
