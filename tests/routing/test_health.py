"""Circuits, rests and measurements of targets, by a clock of the test's own."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tolmach.errors import (
    AssistantGone,
    AuthError,
    BadRequest,
    ChallengeRequired,
    ConfigError,
    ConnectFailed,
    ConnectionLost,
    ContextTooLong,
    MissingCookies,
    MissingDependency,
    ModelNotFound,
    ProofOfWorkError,
    ProtocolDrift,
    ProviderError,
    ProviderUnavailable,
    RateLimited,
    Refused,
    RemoteProtocolError,
    StaleSession,
    TimedOut,
    TolmachError,
    TruncatedAnswer,
    UnsupportedFeature,
)
from tolmach.routing.failures import Kind, classify
from tolmach.routing.health import Circuit, Health

KINDS = {
    TimedOut: "silent",
    ConnectFailed: "transient",
    ConnectionLost: "transient",
    ProviderUnavailable: "transient",
    RemoteProtocolError: "transient",
    TruncatedAnswer: "transient",
    StaleSession: "transient",
    ProviderError: "transient",
    RateLimited: "rate_limited",
    AuthError: "credentials",
    MissingCookies: "credentials",
    ContextTooLong: "too_long",
    UnsupportedFeature: "unsupported",
    ModelNotFound: "gone",
    AssistantGone: "gone",
    ProtocolDrift: "gone",
    ChallengeRequired: "gone",
    ProofOfWorkError: "gone",
    BadRequest: "final",
    Refused: "final",
    ConfigError: "final",
    MissingDependency: "final",
    TolmachError: "final",
}


@pytest.mark.parametrize("error", KINDS, ids=lambda error: error.__name__)
def test_what_an_error_means(error):
    assert classify(error("x")) == KINDS[error]


def opened(kind="transient", now=0.0, health=None):
    """A health in which the circuit of target `a` has opened."""
    health = health or Health()
    for _ in range(health.circuit.failures):
        health.started("a#0", now)
        health.failed("a#0", kind, now)
    assert health.state("a#0", now) == "open"
    return health


def test_one_that_nothing_is_known_of_is_well():
    health = Health()
    assert health.well("a")
    assert health.usable("a#0", 0.0)
    assert health.state("a#0", 0.0) == "closed"
    assert (health.opens_until("a#0"), health.rest_until("a#0"), health.first_token("a")) == (0.0, 0.0, None)
    assert (health.starts("a"), health.last_start("a#0"), health.probing("a#0")) == (0, 0, False)
    assert health.snapshot(0.0) == []


@pytest.mark.parametrize("kind", ["transient", "silent"])
def test_failures_in_a_row_open_the_circuit(kind):
    health = Health(Circuit(failures=3))
    assert [health.failed("a#0", kind, 0.0) for _ in range(3)] == [False, False, True]
    assert not health.well("a")
    assert health.state("a#0", 1.9) == "open"
    assert health.opens_until("a#0") == 2.0
    assert health.state("a#0", 2.0) == "half-open"


@pytest.mark.parametrize("kind", ["too_long", "final", "rate_limited", "credentials"])
def test_an_answer_of_any_sort_ends_the_row(kind):
    health = Health()
    for what in ["transient", "transient", kind, "transient", "transient"]:
        health.failed("a#0", what, 0.0)
    assert health.state("a#1", 0.0) == "closed"


def test_what_was_not_asked_neither_counts_nor_ends_the_row():
    health = Health()
    kinds: list[Kind] = ["transient", "transient", "unsupported", "transient"]
    for what in kinds:
        health.failed("a#0", what, 0.0)
    assert health.state("a#0", 0.0) == "open"


@pytest.mark.parametrize("kind", ["too_long", "final", "unsupported"])
def test_a_fault_of_the_request_is_nobody_elses(kind):
    health = Health()
    assert [health.failed("a#0", kind, 0.0) for _ in range(5)] == [False] * 5
    assert health.well("a")


def test_a_target_that_is_gone_opens_at_once_for_all_keys():
    health = Health()
    assert health.failed("a#0", "gone", 0.0)
    assert health.state("a#1", 14.9) == "open"
    assert health.state("b#0", 0.0) == "closed"


def test_a_refused_key_opens_at_once_for_itself():
    health = Health()
    assert health.failed("a#0", "credentials", 0.0)
    assert health.state("a#0", 14.9) == "open"
    assert health.usable("a#1", 0.0)
    assert not health.well("a")


@pytest.mark.parametrize(("told", "rest"), [(7.0, 7.0), (None, 1.0), (86400.0, 600.0), (0.0, 0.0)])
def test_a_key_over_its_limit_rests_and_its_circuit_stays_closed(told, rest):
    health = Health()
    assert not health.failed("a#0", "rate_limited", 5.0, told)
    assert health.state("a#0", 5.0) == "closed"
    assert health.rest_until("a#0") == 5.0 + rest
    assert health.usable("a#0", 5.0 + rest)
    assert not health.usable("a#0", 4.9 + rest)
    assert health.usable("a#1", 5.0)


def test_a_fault_with_a_retry_after_lets_the_whole_target_rest():
    health = Health()
    health.failed("a#0", "transient", 0.0, 9.0)
    assert health.rest_until("a#1") == 9.0


def test_a_shorter_rest_does_not_end_a_longer_one():
    health = Health()
    health.failed("a#0", "rate_limited", 0.0, 9.0)
    health.failed("a#0", "rate_limited", 1.0, 2.0)
    assert health.rest_until("a#0") == 9.0


def test_one_probe_at_a_time():
    health = opened()
    health.started("a#0", 2.0, True)
    assert health.state("a#0", 2.0) == "half-open"
    assert not health.usable("a#0", 2.0)
    assert not health.usable("a#1", 2.0)
    assert health.probing("a#1")


def test_a_probe_that_succeeds_closes_the_circuit_at_once():
    health = opened()
    health.started("a#0", 2.0, True)
    health.succeeded("a#0", 2.1)
    assert health.well("a")
    assert health.state("a#0", 2.1) == "closed"
    assert [health.failed("a#0", "transient", 3.0) for _ in range(3)] == [False, False, True]
    assert health.opens_until("a#0") == 5.0


def test_each_probe_that_fails_opens_it_for_longer_up_to_a_limit():
    health = opened(health=Health(Circuit(first_open=2.0, growth=3.0, longest_open=10.0)))
    lengths = []
    for _ in range(4):
        now = health.opens_until("a#0")
        assert health.usable("a#0", now)
        health.started("a#0", now, True)
        assert health.failed("a#0", "silent", now)
        lengths.append(health.opens_until("a#0") - now)
    assert lengths == [6.0, 10.0, 10.0, 10.0]


def test_a_probe_that_was_cancelled_frees_its_slot():
    health = opened()
    health.started("a#0", 2.0, True)
    health.released("a#1")
    assert health.probing("a#0")
    health.released("a#0")
    assert health.usable("a#0", 2.0)


def test_a_probe_that_was_not_asked_after_all_frees_its_slot():
    health = opened()
    health.started("a#0", 2.0, True)
    health.failed("a#0", "unsupported", 2.0)
    assert health.usable("a#0", 2.0)
    assert health.state("a#0", 2.0) == "half-open"


def test_a_probe_that_is_told_to_wait_has_shown_that_the_target_is_there():
    health = opened()
    health.started("a#0", 2.0, True)
    health.failed("a#0", "rate_limited", 2.0, 5.0)
    assert health.state("a#0", 2.0) == "closed"
    assert health.usable("a#1", 2.0)


def test_late_failures_change_nothing_while_the_circuit_is_not_closed():
    health = opened()
    assert not health.failed("a#1", "transient", 1.0)
    assert health.opens_until("a#0") == 2.0
    health.started("a#0", 2.0, True)
    assert not health.failed("a#1", "transient", 2.5)
    assert health.probing("a#0")


def test_a_late_success_closes_it():
    health = opened()
    health.succeeded("a#1", 0.5)
    assert health.well("a")


def test_a_refused_key_is_probed_again():
    health = Health()
    health.failed("a#0", "credentials", 0.0)
    health.started("a#0", 15.0, True)
    assert not health.usable("a#0", 15.0)
    assert health.usable("a#1", 15.0)
    assert health.failed("a#0", "credentials", 15.0)
    assert health.opens_until("a#0") == 30.0


@pytest.mark.parametrize("kind", ["transient", "silent", "gone", "credentials"])
def test_what_is_well_again_is_asked_within_half_a_minute(kind):
    """However long it was down, and although every probe has failed."""
    health, now = Health(), 0.0
    for _ in range(1000):
        health.started("a#0", now, health.state("a#0", now) == "half-open")
        health.failed("a#0", kind, now)
        assert health.opens_until("a#0") <= now + 30.0
        now = max(now + 0.1, health.opens_until("a#0"))
    assert now > 1000 * 10
    assert health.usable("a#0", now)


def test_the_circuit_of_a_route_is_heeded():
    health = Health()
    short = Circuit(failures=1, first_open=9.0, longest_open=4.0, credentials_open=3.0)
    assert health.failed("a#0", "transient", 0.0, None, short)
    assert health.opens_until("a#0") == 4.0
    assert health.failed("b#0", "credentials", 0.0, None, short)
    assert health.opens_until("b#0") == 3.0
    assert not health.failed("c#0", "transient", 0.0)


def test_the_time_to_the_first_token_is_a_moving_average():
    health = Health()
    health.succeeded("a#0", 0.0, 1.0)
    assert health.first_token("a") == 1.0
    health.succeeded("a#1", 0.0, 2.0)
    assert health.first_token("a") == pytest.approx(1.3)
    health.succeeded("a#1", 0.0)
    assert health.first_token("a") == pytest.approx(1.3)


def test_a_circuit_of_another_process_is_taken_over():
    health = Health()
    health.merge("a#0", 5.0)
    assert not health.well("a")
    assert health.state("a#1", 4.0) == "open"
    health.merge("a#0", 3.0)
    assert health.opens_until("a#1") == 5.0
    health.started("a#1", 5.0, True)
    health.failed("a#1", "transient", 5.0)
    assert health.opens_until("a#0") == 9.0


def test_a_key_that_another_process_saw_refused_is_taken_over_alone():
    health = Health()
    health.merge("a#0", 5.0, key_only=True)
    assert health.state("a#0", 4.0) == "open"
    assert health.state("a#1", 4.0) == "closed"


def test_what_is_seen():
    health = opened()
    health.succeeded("b#0", 0.0, 0.5)
    health.failed("b#1", "rate_limited", 0.0, 4.0)
    a, b0, b1 = health.snapshot(0.5)
    assert (a.id, a.target, a.state, a.opens_in, a.failures, a.probing) == ("a#0", "a", "open", 1.5, 3, False)
    assert (b0.id, b0.state, b0.opens_in, b0.rests_for, b0.first_token) == ("b#0", "closed", 0.0, 0.0, 0.5)
    assert (b1.id, b1.rests_for) == ("b#1", 3.5)


def test_the_one_that_is_known_for_longest_is_forgotten_first():
    health = opened(health=Health(most_targets=2))
    health.started("a#1", 0.0)
    health.started("b#0", 0.0)
    health.started("c#0", 0.0)
    assert [seen.id for seen in health.snapshot(0.0)] == ["b#0", "c#0"]
    assert health.well("a")
    assert health.state("a#0", 0.0) == "closed"


EVENTS = st.tuples(
    st.sampled_from(
        ["transient", "silent", "credentials", "rate_limited", "gone", "too_long", "final", "ok", "cancel"]
    ),
    st.sampled_from(["a#0", "a#1", "b#0"]),
    st.floats(0.0, 90.0),
)


@given(st.lists(EVENTS, max_size=60))
def test_the_quick_question_agrees_with_the_exact_one(events):
    health, now = Health(), 0.0
    for what, id, seconds in events:
        now += seconds
        probe = health.usable(id, now) and health.state(id, now) == "half-open"
        health.started(id, now, probe)
        if probe:
            assert not health.usable(id, now)
        if what == "ok":
            health.succeeded(id, now)
        elif what == "cancel":
            health.released(id)
        else:
            health.failed(id, what, now)
        assert not any(seen.probing for seen in health.snapshot(now))
        for target, ids in {"a": ["a#0", "a#1"], "b": ["b#0"]}.items():
            if health.well(target):
                assert all(health.usable(one, now) for one in ids)
