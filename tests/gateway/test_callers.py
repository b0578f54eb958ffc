"""Callers by their keys: who is let in, by which header, and held to what."""

import secrets

import pytest
from msgspec import structs

from tolmach.access.keys import Key, KeyRing, new_key
from tolmach.access.limits import Limiter, LimitReached
from tolmach.access.rules import KeyRule
from tolmach.errors import AuthError
from tolmach.gateway.callers import Callers, Peek
from tolmach.protocols import create
from tolmach.protocols.base import Site
from tolmach.providers.base import Access
from tolmach.routing.targets import Plan, Provider, Targets
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


async def test_an_answer_of_unlimited_length_does_not_use_up_a_low_limit(plan: Plan) -> None:
    _, key = made(tokens_per_minute=800)
    callers = Callers(KeyRing([key]), Limiter(MemoryState()))
    admission = await callers.admit(key, Peek("local/model"), plan, b"a" * 300)
    assert ("x-ratelimit-remaining-tokens", str(800 - 101 - 100)) in admission.headers()
    with pytest.raises(LimitReached):
        await callers.admit(key, Peek("local/model", max_tokens=700), plan, b"a" * 300)


@pytest.mark.parametrize(
    ("peek", "body", "answered", "reserved"),
    [
        (Peek("m", max_tokens=50), b"a " * 150, True, 101 + 50),
        (Peek("m", max_tokens=50, n=3), b"a " * 150, True, 101 + 150),
        (Peek("m", max_tokens=50, n=0), b"a " * 150, True, 101 + 50),
        (Peek("m", max_tokens=50, n="3"), b"a " * 150, True, 101 + 50),
        (Peek("m", max_output_tokens=7), b"", True, 1 + 7),
        (Peek("m", max_tokens="many"), b"", True, 1 + 1024),
        (Peek("m", max_tokens=50), b"a " * 150, False, 101),
        # A picture of a megabyte is no text of a megabyte.
        (Peek("m", max_tokens=50), b"a " * 150 + b"A" * 1_000_000, True, 101 + 11_000 + 50),
    ],
)
async def test_what_is_reserved(peek: Peek, body: bytes, answered: bool, reserved: int, plan: Plan) -> None:
    _, key = made(tokens_per_minute=100_000)
    callers = Callers(KeyRing([key]), Limiter(MemoryState()))
    admission = await callers.admit(key, peek, plan, body, answered=answered)
    assert ("x-ratelimit-remaining-tokens", str(100_000 - reserved)) in admission.headers()
