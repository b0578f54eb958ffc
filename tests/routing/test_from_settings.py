"""What the keys of a route become."""

import pytest

from tolmach.configuration import Settings
from tolmach.errors import ConfigError
from tolmach.routing.from_settings import targets_of
from tolmach.routing.health import Circuit
from tolmach.routing.targets import Plan


def plan(**route: object) -> Plan:
    rows = {"a": {"protocol": "openai", "url": "http://127.0.0.1:9/v1"}}
    settings = Settings.of({"providers": rows, "routes": {"r": {"targets": ["a/one", "a/two"], **route}}})
    return targets_of(settings).plan("r")


def test_a_route_that_says_nothing_has_the_defaults() -> None:
    found = plan()
    assert (found.rules.attempts, found.rules.retries, found.rules.retry_after_wait) == (3, None, 5.0)
    assert found.first.circuit == Circuit()


def test_retries_come_on_top_of_the_attempts() -> None:
    rules = plan(retries=2, attempts=4, retry_after_wait=1.5).rules
    assert (rules.attempts, rules.retries, rules.retry_after_wait) == (6, 2, 1.5)
    assert plan(retries=0).rules.attempts == 3


def test_the_circuit_of_a_route_is_that_of_its_targets() -> None:
    found = plan(circuit_failures=5, circuit_first_open=1, circuit_longest_open=20)
    wanted = Circuit(failures=5, first_open=1.0, longest_open=20.0, credentials_open=20.0)
    assert {target.circuit for target in found.targets.values()} == {wanted}


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("retries", -1, "a whole number from 0 to 100, not -1"),
        ("retry_after_wait", "soon", "a number of seconds, 0 or more"),
        ("circuit_failures", 0, "a whole number from 1 on, not 0"),
        ("circuit_longest_open", 0, "a number of seconds above 0, not 0"),
    ],
)
def test_what_is_wrong_with_a_key(key: str, value: object, says: str) -> None:
    with pytest.raises(ConfigError, match=f"routes.r.{key}: {says}"):
        plan(**{key: value})
