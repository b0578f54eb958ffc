"""The joint of an answer that broke off and the rescue's text."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tolmach.routing.seam import Seam

ANSWER = "Paris is the capital of France.\nIt lies on the Seine, and about two million people live there.\n"
BROKEN = ANSWER[:70]


def joined(so_far, pieces, prefilled, **settings):
    seam = Seam(so_far, prefilled, **settings)
    new = "".join(seam.feed(piece) for piece in pieces) + seam.close()
    return so_far + new, seam.notice


CASES = {
    "prefilled, goes on": (BROKEN, True, ANSWER[70:], ANSWER, "continued"),
    "prefilled, gives the prefill back": (BROKEN, True, ANSWER, ANSWER, "repeated"),
    "prefilled, repeats its end": (BROKEN, True, ANSWER[45:], ANSWER, "overlap"),
    "prefilled, ends with a piece of the answer's end": (BROKEN, True, BROKEN[45:], BROKEN, "overlap"),
    "prefilled, a short likeness is no repetition": ("Yes, yes", True, "yes indeed", "Yes, yesyes indeed", "continued"),
    "prefilled, begins like the answer and ends": (BROKEN, True, "Paris", BROKEN + "Paris", "continued"),
    "prefilled with a word, which comes again": ("No", True, "No", "NoNo", "continued"),
    "asked again, the same": (BROKEN, False, ANSWER, ANSWER, "repeated"),
    "asked again, the same and shorter": (BROKEN, False, ANSWER[:40], BROKEN, "repeated"),
    "asked again, goes on after all": (BROKEN, False, ANSWER[45:], ANSWER, "overlap"),
    "asked again, other words, then the same": (BROKEN, False, "Well! " + ANSWER[9:], ANSWER, "overlap"),
    "asked again, differs late, then the same": (
        BROKEN,
        False,
        ANSWER.replace("capital", "chief town"),
        ANSWER,
        "overlap",
    ),
    "asked again, other words": (BROKEN, False, "The Seine.", BROKEN + "\n\nThe Seine.", "rewritten"),
    "asked again, differs in the second line": (
        BROKEN,
        False,
        "Paris is the capital of France.\nIt has a river.",
        BROKEN + "\n\nIt has a river.",
        "rewritten",
    ),
    "asked again, other words after an empty line": ("One.\n\n", False, "1.", "One.\n\n1.", "rewritten"),
    "asked again, other words after a line": ("One.\n", False, "1.", "One.\n\n1.", "rewritten"),
    "nothing so far": ("", False, ANSWER, ANSWER, "continued"),
    "the rescue says nothing": (BROKEN, False, "", BROKEN, "repeated"),
    "a prefilled rescue says nothing": (BROKEN, True, "", BROKEN, "continued"),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_what_is_joined(case, size):
    so_far, prefilled, rescue, whole, notice = CASES[case]
    pieces = [rescue[at : at + size] for at in range(0, len(rescue), size)]
    assert joined(so_far, pieces, prefilled) == (whole, notice)


def test_what_is_new_comes_as_it_arrives():
    seam = Seam(BROKEN, False)
    assert seam.feed(ANSWER[:60]) == ""
    assert seam.notice is None
    assert seam.feed(ANSWER[60:75]) == ANSWER[70:75]
    assert seam.feed(ANSWER[75:]) == ANSWER[75:]
    assert seam.close() == ""


def test_a_prefilled_text_is_not_held_back_longer_than_it_is_alike():
    seam = Seam(BROKEN, True)
    assert seam.feed("and a") + seam.feed("bout") + seam.feed(" 2") == "and about 2"
    assert seam.notice == "continued"


def test_the_longest_overlap_counts():
    so_far = "x. " + "one two three four five. " * 3
    assert joined(so_far, ["one two three four five. " * 3, "End."], True) == (so_far + "End.", "overlap")


def test_white_space_alone_is_no_repetition():
    so_far = "def f():" + "\n" * 20
    assert joined(so_far, ["\n" * 20 + "pass"], True) == (so_far + "\n" * 20 + "pass", "continued")


def test_held_back_is_no_more_than_the_length_and_the_window():
    seam = Seam(BROKEN, False, window=30)
    assert seam.feed("?" * (len(BROKEN) + 29)) == ""
    assert seam.feed("?") == "\n\n" + "?" * (len(BROKEN) + 30)
    assert seam.notice == "rewritten"


ALPHABETS = st.sampled_from(["ab", "ab \n", "abcdefgh é\n"])
TEXTS = ALPHABETS.flatmap(lambda letters: st.text(letters, max_size=60))
SETTINGS = {"least": 4, "window": 20}


def cut(text, places):
    edges = [0, *sorted(place % (len(text) + 1) for place in places), len(text)]
    return [text[one:other] for one, other in pairwise(edges)]


PLACES = st.lists(st.integers(0, 1000), max_size=8)


@given(TEXTS, TEXTS, st.booleans(), st.integers(0, 60), st.integers(0, 60), PLACES)
def test_any_cutting_gives_the_same(so_far, other, prefilled, start, stop, places):
    rescue = so_far[start:stop] + other
    whole = joined(so_far, [rescue], prefilled, **SETTINGS)
    assert joined(so_far, cut(rescue, places), prefilled, **SETTINGS) == whole
    assert joined(so_far, list(rescue), prefilled, **SETTINGS) == whole


@given(TEXTS, st.integers(0, 60), PLACES)
def test_the_same_text_again_gives_exactly_the_text(text, at, places):
    assert joined(text[:at], cut(text, places), False)[0] == text


@given(st.integers(1, 300), st.integers(16, 400), st.integers(0, 600), st.booleans(), PLACES)
def test_an_overlap_at_the_seam_gives_exactly_the_text(words, overlap, at, prefilled, places):
    text = "".join(f"{number}, " for number in range(1000, 1000 + words))
    at = min(at, len(text))
    begin = max(0, at - overlap)
    if begin and sum(not letter.isspace() for letter in text[begin:at]) < 16:
        begin = max(0, at - 40)
    if prefilled and not begin:
        begin = at  # the whole answer as a repetition is another case, and too short a one is none
    assert joined(text[:at], cut(text[begin:], places), prefilled)[0] == text


@given(st.text("abcd \n", max_size=60), st.text("efgh \n", min_size=1, max_size=60), st.booleans(), PLACES)
def test_nothing_is_lost_where_nothing_overlaps(so_far, rescue, prefilled, places):
    whole, _ = joined(so_far, cut(rescue, places), prefilled)
    added = whole.removeprefix(so_far)
    assert "".join(added.split()) == "".join(rescue.split())
