"""Sliding windows: never more than the limit in any of them, and nearly all of it can be used."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tolmach.state import MemoryState, Want

SECONDS = 60.0


class Clock:
    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def want(amount: int, limit: int, key: str = "k", seconds: float = SECONDS) -> Want:
    return Want(key, amount, limit, seconds)


def take(state: MemoryState, amount: int, limit: int) -> bool:
    return state.take_if_below_now([want(amount, limit)]).refused < 0


def most_in_any_window(taken: list[tuple[float, int]], seconds: float = SECONDS) -> int:
    """Of what was taken at times, the most in any window that holds its beginning and not its end."""
    return max((sum(n for at, n in taken if begin <= at < begin + seconds) for begin, _ in taken), default=0)


# Sixteenths of a second are exact in binary, so that the test's own arithmetic is.
_GAPS = st.lists(st.tuples(st.integers(0, 500), st.integers(0, 8)), min_size=1, max_size=80)


@settings(deadline=None)
@given(gaps=_GAPS, limit=st.integers(1, 20), start=st.integers(0, 10_000))
def test_no_window_holds_more_than_the_limit(gaps: list[tuple[int, int]], limit: int, start: int) -> None:
    clock = Clock(start / 16)
    state = MemoryState(now=clock)
    taken = []
    for gap, amount in gaps:
        clock.now += gap / 16
        if take(state, amount, limit):
            taken.append((clock.now, amount))
    assert most_in_any_window(taken) <= limit


@settings(deadline=None, max_examples=40)
@given(limit=st.integers(100, 600), step=st.integers(1, 7), start=st.integers(0, 10_000))
def test_nearly_all_of_a_limit_can_be_used_for_good(limit: int, step: int, start: int) -> None:
    clock = Clock(start / 16)
    state = MemoryState(now=clock)
    windows = 4
    served = 0
    end = clock.now + windows * SECONDS
    while clock.now < end:
        while take(state, 1, limit):
            served += 1
        clock.now += step / 16
    assert 0.95 * windows * limit <= served <= (windows + 1) * limit


@settings(deadline=None)
@given(
    taken=st.lists(st.tuples(st.integers(0, 200), st.integers(1, 9)), min_size=1, max_size=20),
    amount=st.integers(1, 10),
    later=st.integers(0, 900),
)
def test_a_refusal_tells_when_it_would_fit(taken: list[tuple[int, int]], amount: int, later: int) -> None:
    clock = Clock()
    state = MemoryState(now=clock)
    limit = 10
    for gap, each in taken:
        clock.now += gap / 16
        take(state, each, limit)
    clock.now += later / 16
    refused = state.take_if_below_now([want(amount, limit)])
    if refused.refused < 0:
        return
    assert 0 < refused.retry_after <= SECONDS * 61 / 60
    clock.now += refused.retry_after - 0.002
    assert not take(state, amount, limit)
    clock.now += 0.004
    assert take(state, amount, limit)


@settings(deadline=None)
@given(
    taken=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=40),
)
def test_what_is_settled_counts_as_it_was(taken: list[tuple[int, int, int]]) -> None:
    clock = Clock()
    state = MemoryState(now=clock)
    real = 0
    for gap, reserved, used in taken:
        clock.now += gap / 64  # all within one window
        outcome = state.take_if_below_now([want(reserved, 1 << 40)])
        clock.now += 1 / 64
        state.settle([want(reserved, 1 << 40)], [used], outcome.at)
        real += used
    assert state.take_if_below_now([want(0, 1 << 40)]).used == (real,)
    clock.now += SECONDS * 61 / 60
    assert state.take_if_below_now([want(0, 1 << 40)]).used == (0,)


def test_what_is_given_back_late_takes_nothing_from_others() -> None:
    clock = Clock()
    state = MemoryState(now=clock)
    first = state.take_if_below_now([want(5, 10)])
    clock.now += 62
    assert take(state, 10, 10)
    state.settle([want(5, 10)], [0], first.at)
    assert not take(state, 1, 10)


def test_wants_are_taken_all_or_none() -> None:
    state = MemoryState(now=Clock())
    two = [want(1, 5, "a"), want(1, 1, "b")]
    assert state.take_if_below_now(two).used == (1, 1)
    refused = state.take_if_below_now(two)
    assert (refused.refused, refused.used) == (1, (1, 1))
    assert state.take_if_below_now([want(4, 5, "a")]).used == (5,)


@pytest.mark.parametrize("amount", [6, 100])
def test_more_than_the_limit_never_fits(amount: int) -> None:
    state = MemoryState(now=Clock())
    assert state.take_if_below_now([want(amount, 5)]).retry_after == SECONDS


def test_a_counter_that_begins_anew() -> None:
    clock = Clock()
    state = MemoryState(now=clock)
    day = Want("day", 3, 5, 100.0, fixed=True)
    assert state.take_if_below_now([day]).used == (3,)
    clock.now += 40
    refused = state.take_if_below_now([day])
    assert (refused.refused, refused.retry_after) == (0, 60.0)
    assert state.at_least_now("day", 4, 60.0) == 4
    assert state.at_least_now("day", 1, 60.0) == 4
    state.settle([day], [1], refused.at)
    assert state.add_now("day", 0, 60.0) == 2
    clock.now += 60
    assert state.take_if_below_now([day]).used == (3,)


def test_counters_are_bounded() -> None:
    clock = Clock()
    state = MemoryState(now=clock, size=10)
    for number in range(100):
        state.take_if_below_now([want(1, 5, str(number))])
    assert len(list(state.counters())) <= 10
    clock.now += 100
    state.take_if_below_now([want(1, 5, "last")])
    assert [key for key, *_ in state.counters()] == ["last"]
