"""The next step: each rule a row, and what holds for every course of events."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tolmach.routing.health import Circuit, Health
from tolmach.routing.policy import Ask, Choice, Failed, GiveUp, Rules, next_step

A, B, C = Choice("a"), Choice("b"), Choice("c")
A1, B1 = Choice("a", 1), Choice("b", 1)


def fixed(number):
    return lambda: number


def step(choices, failed=(), rules=None, health=None, now=0.0, draw=0.5, deadline=None):
    failures = [one if isinstance(one, Failed) else Failed(*one) for one in failed]
    return next_step(rules or Rules(), choices, failures, health or Health(), now, fixed(draw), deadline)


ROWS = {
    # what: (choices, what failed, who is asked next after which wait; None: nobody)
    "the first target first": ((A, B), [], (A, 0.0)),
    "a fault: another target, at once": ((A, B), [(A, "transient", 0.0)], (B, 0.0)),
    "faults of both: the first again, after a backoff": (
        (A, B),
        [(A, "transient", 0.0), (B, "transient", 0.0)],
        (A, 0.1),
    ),
    "no other target: the same again, after a backoff": ((A,), [(A, "transient", 0.0)], (A, 0.1)),
    "each backoff is longer": ((A,), [(A, "transient", 0.0)] * 2, (A, 0.2)),
    "attempts are used up": ((A, B), [(A, "transient", 0.0)] * 3, None),
    "silent: another target": ((A, B), [(A, "silent", 0.0)], (B, 0.0)),
    "silent, and the other at fault: the other again": ((A, B), [(A, "silent", 0.0), (B, "transient", 0.0)], (B, 0.1)),
    "silent, and the other too: nobody": ((A, B), [(A, "silent", 0.0), (B, "silent", 0.0)], None),
    "silent, the only one: once more": ((A, A1), [(A, "silent", 0.0)], (A, 0.1)),
    "too long: another target": ((A, A1, B), [(A, "too_long", 0.0)], (B, 0.0)),
    "too long, no other target: nobody": ((A, A1), [(A, "too_long", 0.0)], None),
    "a bad request: nobody": ((A, B), [(A, "final", 0.0)], None),
    "a refused key: the next key of the same target": ((A, A1, B), [(A, "credentials", 0.0)], (A1, 0.0)),
    "all keys refused: another target": ((A, A1, B), [(A, "credentials", 0.0), (A1, "credentials", 0.0)], (B, 0.0)),
    "the only key refused: nobody": ((A,), [(A, "credentials", 0.0)], None),
    "a limit: the next key of the same target": ((A, A1, B), [(A, "rate_limited", 0.0, 9.0)], (A1, 0.0)),
    "a limit of the only key: another target": ((A, B), [(A, "rate_limited", 0.0, 9.0)], (B, 0.0)),
    "a limit of the only one: its Retry-After, and some": ((A,), [(A, "rate_limited", 0.0, 9.0)], (A, 9.1)),
    "a limit for longer than is waited for": ((A,), [(A, "rate_limited", 0.0, 31.0)], None),
    "a limit for longer: the other once more": (
        (A, B),
        [(A, "rate_limited", 0.0, 31.0), (B, "transient", 0.0)],
        (B, 0.1),
    ),
    "a fault with Retry-After: not before it, by any key": ((A, A1), [(A, "transient", 0.0, 2.0)], (A, 2.1)),
    "the key of a second target refused: its next key": (
        (A, B, B1, C),
        [(A, "transient", 0.0), (B, "credentials", 0.0)],
        (B1, 0.0),
    ),
    "unsupported: another target": ((A, B), [(A, "unsupported", 0.0)], (B, 0.0)),
    "unsupported is no attempt": (
        (A, B, C),
        [(A, "unsupported", 0.0), (B, "transient", 0.0), (B, "transient", 0.0)],
        (C, 0.0),
    ),
    "what was not asked is no attempt, and is not tried again": (
        (A, B),
        [Failed(A, "transient", 0.0, None, False), (B, "transient", 0.0), (B, "transient", 0.0)],
        (B, 0.2),
    ),
    "gone: another target": ((A, B), [(A, "gone", 0.0)], (B, 0.0)),
    "gone, no other target: nobody": ((A, A1), [(A, "gone", 0.0)], None),
    "no target": ((), [], None),
}


@pytest.mark.parametrize("row", ROWS)
def test_the_next_step(row):
    choices, failed, expected = ROWS[row]
    found = step(choices, failed)
    if expected is None:
        assert isinstance(found, GiveUp)
        assert found.why
    else:
        assert isinstance(found, Ask)
        assert found.choice == expected[0]
        assert found.wait == pytest.approx(expected[1])


def passed(choice, kind="transient", at=0.0, retry_after=None):
    """A failure that passes: a 5xx, or a refusal that says when to come back."""
    return Failed(choice, kind, at, retry_after, True, True)


LIMIT_1, LIMIT_HALF, LIMIT_4 = (passed(A, "rate_limited", 0.0, wait) for wait in (1.0, 0.5, 4.0))
SEVERAL, SHORT = Rules(retries=2, attempts=5), Rules(retries=1, retry_after_wait=3.0)
AGAIN = {
    # what: (rules, choices, what failed, begun, who is asked next after which wait; None: nobody)
    "a 5xx: the same once more, at once": (Rules(), (A, B), [passed(A)], False, (A, 0.1)),
    "and then the next": (Rules(), (A, B), [passed(A)] * 2, False, (B, 0.0)),
    "not when the caller has a part of the answer": (Rules(), (A, B), [passed(A)], True, (B, 0.0)),
    "not what does not pass": (Rules(), (A, B), [Failed(A, "transient", 0.0)], False, (B, 0.0)),
    "a wait of a second is no short one": (Rules(), (A, B), [LIMIT_1], False, (B, 0.0)),
    "one of half a second is": (Rules(), (A, B), [LIMIT_HALF], False, (A, 0.6)),
    "the next key needs no wait": (Rules(), (A, A1, B), [LIMIT_HALF], False, (A1, 0.0)),
    "never with retries = 0": (Rules(retries=0), (A, B), [passed(A)], False, (B, 0.0)),
    "as often as the route says": (SEVERAL, (A, B), [passed(A)] * 2, False, (A, 0.2)),
    "and no more often": (SEVERAL, (A, B), [passed(A)] * 3, False, (B, 0.0)),
    "each target as often": (SEVERAL, (A, B, C), [passed(A)] * 2 + [passed(B)], False, (B, 0.1)),
    "also when the caller has a part of the answer, where the route says so": (
        SEVERAL,
        (A, B),
        [passed(A)],
        True,
        (A, 0.1),
    ),
    "a short Retry-After is waited for": (SEVERAL, (A, B), [LIMIT_4], False, (A, 4.1)),
    "one that is longer than the route allows is not": (SHORT, (A, B), [LIMIT_4], False, (B, 0.0)),
    "a retry takes no attempt that another target needs": (Rules(), (A, B, C), [passed(A)], False, (B, 0.0)),
    "nor the last one": (Rules(attempts=2, retries=5), (A, B), [passed(A)], False, (B, 0.0)),
    "where there is nobody else, all that follows is a retry": (Rules(), (A,), [passed(A)], False, (A, 0.1)),
}


@pytest.mark.parametrize("row", AGAIN)
def test_the_same_target_once_more(row):
    rules, choices, failed, begun, (choice, wait) = AGAIN[row]
    found = next_step(rules, choices, failed, Health(), 0.0, fixed(0.5), begun=begun)
    assert isinstance(found, Ask)
    assert (found.choice, found.probe) == (choice, False)
    assert found.wait == pytest.approx(wait)


def test_a_target_whose_circuit_is_open_is_not_asked_again_before_the_next():
    assert step((A, B), [passed(A)], health=ill(Health()), now=0.1).choice == B
    health = ill(Health())
    health.started("a#0", 2.0, True)
    health.failed("a#0", "transient", 2.0)
    assert step((A, B), [passed(A, at=2.0)], health=health, now=2.0).choice == B


def test_a_retry_beyond_the_deadline_is_not_begun():
    assert step((A, B), [LIMIT_HALF], deadline=0.7).choice == A
    assert step((A, B), [LIMIT_HALF], deadline=0.6).choice == B


def test_a_target_that_is_out_needs_no_attempt():
    assert step((A, B, C), [passed(A)], health=ill(Health(), "c")).choice == A


def ill(health, target="a", now=0.0):
    for _ in range(health.circuit.failures):
        health.failed(f"{target}#0", "transient", now)
    return health


def whys(found):
    return {one.choice.id: one.why for one in found.skipped}


def test_a_target_whose_circuit_is_open_is_passed_over():
    found = step((A, B), health=ill(Health()), now=0.5)
    assert (found.choice, found.wait, found.probe) == (B, 0.0, False)
    assert whys(found) == {"a#0": "circuit open for 1.5 s more"}


def test_after_its_time_it_is_probed_and_others_pass_it_over_meanwhile():
    health = ill(Health())
    found = step((A, B), health=health, now=2.0)
    assert (found.choice, found.probe) == (A, True)
    health.started("a#0", 2.0, True)
    found = step((A, B), health=health, now=2.0)
    assert found.choice == B
    assert whys(found) == {"a#0": "a probe is under way"}
    health.succeeded("a#0", 2.1)
    assert step((A, B), health=health, now=2.1) == Ask(A)


def test_a_route_with_one_target_never_fails_by_its_circuit():
    found = step((A,), health=ill(Health()), now=0.5)
    assert (found.choice, found.wait, found.probe) == (A, 0.0, False)
    assert found.skipped == ()


def test_of_open_circuits_the_earliest_to_recover_is_asked_and_then_the_other():
    health = ill(ill(Health(), "a", 1.0), "b", 0.0)
    assert step((A, B), health=health, now=1.5).choice == B
    found = step((A, B), [(B, "transient", 1.6)], health=health, now=1.6)
    assert (found.choice, found.wait) == (A, 0.0)


def test_a_short_wait_comes_before_an_open_circuit_and_a_long_one_after():
    health = ill(Health(), "b")
    assert step((A, B), [(A, "transient", 0.0, 3.0)], health=health).choice == A
    assert step((A, B), [(A, "transient", 0.0, 9.0)], health=health).choice == B


def test_a_key_at_rest_is_passed_over_and_where_all_rest_the_shortest_is_waited_for():
    health = Health()
    health.failed("a#0", "rate_limited", 0.0, 4.0)
    found = step((A, B), health=health)
    assert found.choice == B
    assert whys(found) == {"a#0": "rests for 4.0 s (Retry-After)"}
    health.failed("b#0", "rate_limited", 0.0, 3.0)
    found = step((A, B), health=health)
    assert found.choice == B
    assert found.wait == pytest.approx(3.1)
    assert whys(found) == {"a#0": "rests for 4.0 s (Retry-After)"}


def test_giving_up_says_when_it_may_be_worth_it():
    found = step((A, B), [(A, "rate_limited", 0.0, 40.0), (B, "too_long", 0.0)], now=5.0)
    assert isinstance(found, GiveUp)
    assert found.retry_after == 35.0
    assert whys(found) == {"a#0": "already failed: rate_limited", "b#0": "already failed: too_long"}


@pytest.mark.parametrize(("deadline", "asked"), [(2.2, True), (2.1, False), (2.0, False)])
def test_a_wait_beyond_the_deadline_is_not_begun(deadline, asked):
    found = step((A,), [(A, "transient", 0.0, 2.0)], deadline=deadline)
    assert isinstance(found, Ask) == asked


def test_nobody_is_asked_after_the_deadline():
    assert isinstance(step((A,), now=5.0, deadline=5.0), GiveUp)


def test_an_open_circuit_is_better_than_a_wait_beyond_the_deadline():
    found = step((A, B), [(A, "transient", 0.0, 3.0)], health=ill(Health(), "b"), deadline=2.0)
    assert (found.choice, found.wait) == (B, 0.0)


def test_keys_take_turns():
    health, asked = Health(), []
    for _ in range(4):
        found = step((A, A1, B), health=health)
        asked.append(found.choice)
        health.started(found.choice.id, 0.0)
    assert asked == [A, A1, A, A1]


def test_a_refused_key_stays_out_for_other_questions_too():
    health = Health()
    health.failed("a#0", "credentials", 0.0)
    assert [step((A, A1, B), health=health).choice for _ in range(2)] == [A1, A1]


@pytest.mark.parametrize(("draw", "choice"), [(0.0, A), (0.24, A), (0.25, B), (0.99, B)])
def test_weighted_draws_by_weight(draw, choice):
    choices = (Choice("a", 0, 1.0), Choice("b", 0, 3.0), Choice("c", 0, 0.0))
    assert step(choices, rules=Rules(strategy="weighted"), draw=draw).choice.target == choice.target


def test_weighted_draws_again_among_the_others():
    choices = (Choice("a", 0, 9.0), Choice("b", 0, 1.0), Choice("c", 0, 1.0))
    found = step(choices, [(choices[0], "transient", 0.0)], Rules(strategy="weighted"), draw=0.6)
    assert found.choice == choices[2]


def test_weighted_without_weight_takes_the_first():
    choices = (Choice("a", 0, 0.0), Choice("b", 0, 0.0))
    assert step(choices, rules=Rules(strategy="weighted"), draw=0.9).choice == choices[0]


def measured(**seconds):
    health = Health()
    for target, time in seconds.items():
        health.succeeded(f"{target}#0", 0.0, time)
    return health


@pytest.mark.parametrize(
    ("draw", "choice"), [(0.5, B), (0.02, B), (0.015, C), (0.005, A)], ids=["usual", "edge", "again c", "again a"]
)
def test_fastest_takes_the_quickest_and_now_and_then_measures_another(draw, choice):
    health = measured(a=0.5, b=0.1, c=0.3)
    assert step((A, B, C), rules=Rules(strategy="fastest"), health=health, draw=draw).choice == choice


def test_fastest_tries_an_unmeasured_one_first_but_not_for_ever():
    health, asked = measured(a=0.5), []
    for _ in range(5):
        found = step((A, B), rules=Rules(strategy="fastest"), health=health)
        asked.append(found.choice)
        health.started(found.choice.id, 0.0)
    assert asked == [B, B, B, A, A]


@pytest.mark.parametrize("strategy", ["weighted", "fastest"])
def test_the_next_key_of_a_target_comes_first_in_every_strategy(strategy):
    found = step((A, B, B1), [(B, "credentials", 0.0)], Rules(strategy=strategy), draw=0.01)
    assert found.choice == B1


def test_the_usual_step_is_made_once():
    choices, health = (A, B), Health()
    assert step(choices, health=health) is step((A, B), health=health)
    assert step([A, B], health=health) is step(choices, health=health)


@pytest.mark.parametrize("draw", [0.0, 0.5, 0.999])
def test_a_backoff_has_a_cap_and_full_jitter(draw):
    rules = Rules(attempts=2000, backoff=0.2, backoff_cap=5.0)
    assert step((A,), [(A, "transient", 0.0)] * 1500, rules, draw=draw).wait == pytest.approx(5.0 * draw)


def test_the_skipped_of_failover_are_those_before_the_chosen():
    health = ill(Health(), "c")
    assert step((A, B, C), [(A, "transient", 0.0)], health=health).skipped[0].choice == A
    assert len(step((A, B, C), [(A, "transient", 0.0)], health=health).skipped) == 1


KINDS = ["transient", "rate_limited", "silent", "credentials", "too_long", "unsupported", "gone", "final"]
COURSE = st.tuples(
    st.sampled_from(KINDS), st.sampled_from([None, 0.0, 1.0, 20.0, 100.0]), st.floats(0.0, 5.0), st.booleans()
)
CHOICES = st.lists(st.builds(Choice, st.sampled_from("abc"), st.integers(0, 2)), max_size=6, unique=True)
RULES = st.builds(
    Rules,
    strategy=st.sampled_from(["failover", "weighted", "fastest"]),
    attempts=st.integers(1, 6),
    backoff=st.just(1.0),
    retries=st.sampled_from([None, 0, 1, 3]),
)
BEFORE = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(KINDS)), max_size=12)


def course(rules, choices, events, before, deadline, draws):
    """A whole question: every step is carried out and fails as the events say. Gives the failures and the end."""
    health, now = Health(Circuit(failures=2)), 0.0
    failed: list[Failed] = []
    for target, kind in before:
        health.failed(f"{target}#0", kind, now)
    for kind, retry_after, seconds, passing in events:
        found = next_step(rules, choices, failed, health, now, lambda: draws.draw(st.floats(0.0, 0.99)), deadline)
        if isinstance(found, GiveUp):
            return failed, found
        assert found.choice in choices
        assert deadline is None or now + found.wait < deadline
        for one in failed:
            if one.choice == found.choice and one.retry_after and one.kind in ("transient", "rate_limited"):
                assert now + found.wait >= one.at + one.retry_after - 1e-6
        assert found.wait <= rules.retry_after_cap + rules.backoff_cap
        assert not (found.probe and health.probing(found.choice.id))
        now += found.wait
        health.started(found.choice.id, now, found.probe)
        now += seconds
        health.failed(found.choice.id, kind, now, retry_after)
        failed.append(Failed(found.choice, kind, now, retry_after, True, passing))
    return failed, None


@given(
    RULES, CHOICES, st.lists(COURSE, min_size=12, max_size=12), BEFORE, st.sampled_from([None, 3.0, 30.0]), st.data()
)
def test_what_holds_for_every_course(rules, choices, events, before, deadline, draws):
    failed, end = course(rules, choices, events, before, deadline, draws)
    assert isinstance(end, GiveUp), "it ends: at most one step an attempt and one a target that is not able to"
    assert sum(one.kind != "unsupported" for one in failed) <= rules.attempts
    several = len({choice.target for choice in choices}) > 1
    for place, one in enumerate(failed):
        later = failed[place + 1 :]
        targets = [other.choice.target for other in later]
        assert one.kind != "final" or not later
        if one.kind in ("too_long", "unsupported", "gone") or (one.kind == "silent" and several):
            assert one.choice.target not in targets
        if one.kind == "credentials":
            assert one.choice not in [other.choice for other in later]


@given(CHOICES.filter(bool), RULES, BEFORE, st.floats(0.0, 100.0), st.floats(0.0, 0.99))
def test_circuits_and_limits_of_others_never_leave_a_fresh_question_without_a_target(choices, rules, before, now, draw):
    health = Health(Circuit(failures=2))
    for target, kind in before:
        health.failed(f"{target}#0", kind, 0.0)
    found = next_step(rules, choices, [], health, now, fixed(draw))
    assert isinstance(found, Ask)
    assert found.choice in choices
    if found.wait == 0.0 and not health.usable(found.choice.id, now):
        assert not any(health.usable(choice.id, now) for choice in choices)
