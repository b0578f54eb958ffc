"""What of another target's answer is new to the caller of a broken stream."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tolmach.chat import Conversation, Delta, Done, Event, Notice, Reasoning, ToolCallDelta, Usage
from tolmach.routing.resume import Resumption

LONG = "One, two, three, four, five, six, seven, eight, nine, ten."


@pytest.mark.parametrize(
    ("told_before", "events", "new"),
    [
        ([Delta(LONG)], [Delta(LONG), Delta(" Eleven."), Done()], [Delta(" Eleven."), Done()]),
        ([], [Reasoning("Hm."), Delta("One"), Done()], [Reasoning("Hm."), Delta("One"), Done()]),
        ([Reasoning("Hm.")], [Reasoning("Well."), Delta("A")], [Reasoning("Well."), Delta("A")]),
        ([Delta(LONG)], [Reasoning("Hm."), Delta(LONG), Delta("!")], [Delta("!")]),
        ([Delta(LONG)], [Notice("dropped", "x"), Conversation({"id": "1"})], []),
        ([Delta(LONG)], [Delta(LONG), Usage(1, 2, 3), Done()], [Usage(1, 2, 3), Done()]),
        ([Delta("x"), Notice("rewritten", LONG)], [Delta(LONG + "!"), Done()], [Delta("!"), Done()]),
    ],
)
def test_what_of_a_rescue_is_new(told_before: list[Event], events: list[Event], new: list[Event]) -> None:
    answer = Resumption(told_before)
    answer.go_on(prefilled=False)
    assert [out for event in events for out in answer.feed(event)] == new


def test_what_was_new_has_been_told_when_a_third_goes_on() -> None:
    answer = Resumption([Delta(LONG)])
    answer.go_on(prefilled=False)
    answer.feed(Delta(LONG))
    answer.feed(Delta(" And more of it."))
    assert answer.text == LONG + " And more of it."
    assert answer.possible
    answer.feed(ToolCallDelta(0, "a", "f"))
    assert not answer.possible


@given(st.lists(st.text("abc \n", min_size=1, max_size=5), min_size=10, max_size=40), st.data())
def test_however_often_it_breaks_the_caller_reads_the_answer_once(pieces: list[str], data: st.DataObject) -> None:
    whole = "".join(pieces)
    read = ""
    answer = Resumption()
    for _ in range(data.draw(st.integers(1, 4))):
        broken = data.draw(st.integers(0, len(pieces)))
        for piece in pieces[:broken]:
            read += "".join(event.text for event in answer.feed(Delta(piece)) if isinstance(event, Delta))
        assert whole.startswith(read)
        assert answer.text == read
        answer.go_on(prefilled=False)
    last: list[Event] = [*map(Delta, pieces), Done()]
    for event in last:
        read += "".join(new.text for new in answer.feed(event) if isinstance(new, Delta))
    assert read == whole
