"""Lines, server-sent events, JSON and text: the same outcome for any cut of the bytes."""

import json
import re
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from tests.sweeps import examples
from tolmach.decoding import (
    LineDecoder,
    ServerSentEvent,
    ServerSentEvents,
    SurrogateJoiner,
    convert,
    find_json,
    parse_json,
    plain_text,
    without_lead,
)
from tolmach.errors import RemoteProtocolError

# Bodies made of what matters: line ends of all kinds, field names, half characters, and anything.
_LINE_ENDS = [b"\n", b"\r", b"\r\n", b"\n\n"]
_FIELDS = [b"data:", b"data: ", b"data", b"event: ", b"id: ", b"retry: 5", b":", b" ", b"x", b'{"a":1}']
_ODD = ["й".encode(), "🚀".encode()[:2], "🚀".encode()[2:], b"\xef\xbb\xbf", b"\x00", b"<br>"]
_TOKENS = st.sampled_from([*_LINE_ENDS, *_FIELDS, *_ODD])
_BODIES = st.lists(_TOKENS | st.binary(max_size=3), max_size=40).map(b"".join)
_CUTS = st.lists(st.integers(0, 200), max_size=30)


def _pieces(body: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({min(cut, len(body)) for cut in cuts} | {0, len(body)})
    return [body[a:b] for a, b in pairwise(edges)]


def _lines(pieces: list[bytes], limit: int = 1 << 20) -> tuple[list[bytes], bytes | None]:
    """The lines, and what is left; None in place of it when a limit was passed."""
    decoder = LineDecoder(limit)
    lines: list[bytes] = []
    try:
        for piece in pieces:
            lines.extend(decoder.feed(piece))
    except RemoteProtocolError:
        return lines, None
    return lines, decoder.rest()


def _events(pieces: list[bytes], limit: int = 1 << 20) -> tuple[list[ServerSentEvent], tuple[bool, bytes] | None]:
    """The events, and how the body ended; None in place of it when a limit was passed."""
    decoder = ServerSentEvents(limit)
    events: list[ServerSentEvent] = []
    try:
        for piece in pieces:
            events.extend(decoder.feed(piece))
    except RemoteProtocolError:
        return events, None
    return events, (decoder.unfinished, decoder.body())


def _reference_events(body: bytes) -> list[tuple[str, bytes, str]]:
    """The events by the letter of WHATWG HTML 9.2.6, with the whole body at hand."""
    lines = re.split(rb"\r\n|\n|\r", body.removeprefix(b"\xef\xbb\xbf"))
    events = []
    kind = last_id = b""
    data: list[bytes] = []
    for line in lines[:-1]:
        field, _, value = line.partition(b":")
        value = value[1:] if value.startswith(b" ") else value
        if not line:
            if data:
                events.append((kind.decode("utf-8", "replace"), b"\n".join(data), last_id.decode("utf-8", "replace")))
            kind, data = b"", []
        elif field == b"event":
            kind = value
        elif field == b"data":
            data.append(value)
        elif field == b"id":
            last_id = value
    return events


# Lines


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_lines_end_with_lf_crlf_or_cr(end):
    assert _lines([b"one" + end + end + b"two" + end + b"rest"]) == ([b"one", b"", b"two"], b"rest")


@given(body=_BODIES, cuts=_CUTS)
def test_lines_do_not_depend_on_the_cuts(body, cuts):
    *expected, rest = re.split(rb"\r\n|\n|\r", body)
    assert _lines([body]) == (expected, rest)
    assert _lines(_pieces(body, cuts)) == (expected, rest)
    assert _lines([body[i : i + 1] for i in range(len(body))]) == (expected, rest)


def test_a_crlf_cut_in_two_is_one_line_end():
    assert _lines([b"a\r", b"\nb\n"]) == ([b"a", b"b"], b"")
    assert _lines([b"a\r", b"", b"\n", b"\nb\n"]) == ([b"a", b"", b"b"], b"")
    assert _lines([b"a\r", b"\rb\n"]) == ([b"a", b"", b"b"], b"")


@given(body=_BODIES, cuts=_CUTS, limit=st.integers(1, 12))
def test_a_line_over_the_limit_raises_after_the_same_lines_for_any_cut(body, cuts, limit):
    expected = _lines([body[i : i + 1] for i in range(len(body))], limit)
    assert _lines([body], limit) == expected
    assert _lines(_pieces(body, cuts), limit) == expected


def test_a_line_of_exactly_the_limit_is_allowed():
    assert _lines([b"12345\n"], limit=5) == ([b"12345"], b"")
    assert _lines([b"123456\n"], limit=5)[1] is None
    assert _lines([b"123456"], limit=5)[1] is None


# Server-sent events


@given(body=_BODIES, cuts=_CUTS)
@examples(300)
def test_events_are_those_of_the_standard_for_any_cut(body, cuts):
    whole, end = _events([body])
    assert [(e.event, e.data, e.id) for e in whole] == _reference_events(body)
    assert _events(_pieces(body, cuts)) == (whole, end)
    assert _events([body[i : i + 1] for i in range(len(body))]) == (whole, end)


@given(body=_BODIES, cuts=_CUTS, limit=st.integers(1, 12))
def test_an_event_over_the_limit_raises_after_the_same_events_for_any_cut(body, cuts, limit):
    assert _events(_pieces(body, cuts), limit) == _events([body], limit)


def test_an_event_that_no_blank_line_ended_is_not_an_event():
    assert _events([b"data: 1\n\ndata: 2\n"]) == ([ServerSentEvent("", b"1")], (True, b""))
    assert _events([b"data: 1\n\ndata: 2"])[0] == [ServerSentEvent("", b"1")]


def test_many_short_data_lines_count_towards_the_limit():
    assert _events([b"data: 1\n" * 20], limit=15)[1] is None
    assert _events([b"data\n" * 100_000], limit=1000)[1] is None


def test_the_lines_before_the_first_event_are_kept_as_the_body():
    body = b'\xef\xbb\xbf<br />\n<b>Warning</b>: x\n{"success":false,\n"message":"no"}'
    events, end = _events([body])
    assert events == []
    assert end == (True, body.removeprefix(b"\xef\xbb\xbf"))
    assert find_json(end[1]) == {"success": False, "message": "no"}


def test_a_flood_that_is_no_event_is_stopped():
    with pytest.raises(RemoteProtocolError, match="no event"):
        list(ServerSentEvents(1000).feed(b"junk\n" * 1000))


# Surrogates


@given(
    pieces=st.lists(
        st.text(st.sampled_from("a\ud83d\ude80\udfff\ud800й🚀") | st.characters(codec=None), max_size=5), max_size=12
    )
)
def test_joined_pieces_are_the_whole_with_lone_halves_replaced(pieces):
    joiner = SurrogateJoiner()
    out = [joiner.feed(piece) for piece in pieces]
    out.append(joiner.close())
    whole = "".join(pieces).encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    assert "".join(out) == whole
    for piece in out:
        piece.encode()


def test_a_rocket_cut_into_two_escapes_arrives_whole():
    joiner = SurrogateJoiner()
    assert joiner.feed("a\ud83d") == "a"
    assert joiner.feed("") == ""
    assert joiner.feed("\ude80b") == "🚀b"
    assert joiner.feed("\ud83d") == ""
    assert joiner.close() == "\ufffd"
    assert joiner.close() == ""


# JSON

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(value=_JSON)
def test_parse_json_gives_the_value(value):
    assert parse_json(json.dumps(value)) == value
    assert parse_json(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")) is not NotImplemented


@given(data=st.binary(max_size=30) | _BODIES)
def test_parse_json_raises_nothing_else_than_a_protocol_error(data):
    error = None
    try:
        parse_json(data)
    except RemoteProtocolError as caught:
        error = caught
    assert error is None or "not JSON" in str(error)


@pytest.mark.parametrize("data", ["[" * 100_000, '{"a":' * 100_000, "9" * 10_000, b"\xff", b"", "", "\ud800"])
def test_parse_json_of_hostile_texts_is_a_protocol_error(data):
    with pytest.raises(RemoteProtocolError):
        parse_json(data)


def test_parse_json_keeps_halves_of_surrogate_pairs_and_replaces_what_is_no_utf8():
    assert parse_json(rb'"\ud83d"') == "\ud83d"
    assert parse_json(b'"a\xffb"') == "a\ufffdb"
    assert parse_json(b"\xef\xbb\xbf[1]") == [1]


class _Shape(Struct):
    count: int


def test_convert_names_the_field_that_is_wrong():
    assert convert({"count": 1}, _Shape) == _Shape(1)
    with pytest.raises(RemoteProtocolError, match=r"\$\.count"):
        convert({"count": "x"}, _Shape)
    with pytest.raises(RemoteProtocolError, match="a name that is no text"):
        convert({"\ude80": 1, "count": 1}, _Shape)


_JUNK = [
    "",
    "\ufeff",
    "\n\n ",
    "<br />\n<b>Warning</b>:  foo() in <b>/x/y.php</b> on line <b>3</b><br />\n",
    "\ufeff <p>",
]


@given(value=st.dictionaries(st.text(max_size=5), _JSON, min_size=1, max_size=3), junk=st.sampled_from(_JUNK))
@examples(150)
def test_find_json_finds_the_object_behind_junk_and_never_a_part_of_a_cut_one(value: dict[str, Any], junk: str):
    body = (junk + json.dumps(value)).encode()
    assert find_json(body) == value
    assert find_json(body + b"\r\n") == value
    for end in range(len(body)):
        # "{}" inside a text of a body with junk before it is the most that a cut can bring to light.
        assert find_json(body[:end]) in ((None,) if not junk.strip("\ufeff\n ") else (None, {}))
    assert find_json(without_lead(body)) == value
    assert without_lead(body)[:1] == b"{"


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"{", b"}{", b"[{}]", b'"{}"', b'{"a":1} trailing', b"{" * 9999])
def test_find_json_gives_none_where_no_object_reaches_to_the_end(body):
    assert find_json(body) is None


# Text


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"<html><script>var x = '<p>no</p>';</script><p>Not&nbsp;here &amp; there</p>", "Not here & there"),
        (b"<style>p{}</style>\n\n  A <b>critical</b>\terror", "A critical error"),
        (b"\xef\xbb\xbfplain \xff", "plain \ufffd"),
        ("<script>never ended", ""),
        ("", ""),
    ],
)
def test_plain_text_is_the_words_in_one_line(body, text):
    assert plain_text(body) == text


@given(body=st.text(max_size=80) | st.binary(max_size=80), limit=st.integers(1, 40))
def test_plain_text_is_short_one_line_and_encodes(body, limit):
    text = plain_text(body, limit)
    assert len(text) <= limit
    assert text == " ".join(text.split())
    text.encode()
