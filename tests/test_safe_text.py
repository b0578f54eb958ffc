"""Foreign text: what is escaped for a terminal, a line, a cell and JSON, and that nothing else changes."""

import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tolmach.safe_text import csv_cell, json_text, one_line, printable, without_controls

CONTROLS = [*range(0x09), *range(0x0B, 0x20), *range(0x7F, 0xA0)]
BIDI = [*range(0x202A, 0x202F), *range(0x2066, 0x206A)]
HARMFUL = {chr(code) for code in (*CONTROLS, *BIDI, 0x2028, 0x2029)}

ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]))
HOSTILE_TEXT = st.text(st.sampled_from([*sorted(HARMFUL), "\n", "\t", "=", "a", " ", '"', ",", ";", "é", "\u200d"]))


@pytest.mark.parametrize("char", sorted(HARMFUL), ids=lambda char: f"U+{ord(char):04X}")
def test_each_harmful_character_becomes_its_escape(char):
    escaped = "" if char == "\r" else f"\\x{ord(char):02x}" if ord(char) < 256 else f"\\u{ord(char):04x}"
    assert printable(f"a{char}b") == f"a{escaped}b"
    assert without_controls(f"a{char}b") == "ab"


@pytest.mark.parametrize(
    ("attack", "shown"),
    [
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("\x1b]52;c;cHdu\x07\x1b[2J", "\\x1b]52;c;cHdu\\x07\\x1b[2J"),
        ("\x9b2J", "\\x9b2J"),
        ("back\x08\x08", "back\\x08\\x08"),
        ("over\rwrite", "overwrite"),
        ("of\r\nWindows", "of\nWindows"),
        ("abc\u202egpj.exe", "abc\\u202egpj.exe"),
    ],
)
def test_attacks_on_a_terminal_can_be_read_and_do_nothing(attack, shown):
    assert printable(attack) == shown


@given(st.one_of(ANY_TEXT, HOSTILE_TEXT))
def test_a_text_loses_nothing_else(text):
    safe = printable(text)
    assert not HARMFUL & set(safe)
    assert "".join(char for char in text if char not in HARMFUL) == without_controls(text)
    if not HARMFUL & set(text):
        assert safe == text


@pytest.mark.parametrize(
    "text", ["👨‍👩‍👧", "می‌خواهم", "שלום\u200f!", "Привет,\tмир\n", "🏴\U000e0067\U000e0062\U000e007f"]
)
def test_what_scripts_and_emoji_need_stays_in_texts(text):
    assert printable(text) == text


@given(st.one_of(ANY_TEXT, HOSTILE_TEXT))
def test_a_name_is_one_line_and_all_of_it_can_be_seen(text):
    name = one_line(text)
    assert name.isprintable()
    assert len(name.splitlines()) <= 1
    if text.isprintable():
        assert name == text


def test_names_that_look_the_same_are_told_apart():
    alike = ["gpt-4o", "gpt-4o\u200b", "gpt-4o\u2060", "gpt-4o\ufeff", "gpt\u00ad-4o", "gpt-4o\U000e0041", "gpt-4o\n"]
    assert len({one_line(name) for name in alike}) == len(alike)
    assert one_line("a\nb\tc\r\u200b\U000e0041") == "a\\nb\\tc\\r\\u200b\\U000e0041"


@pytest.mark.parametrize(
    "formula",
    [
        '=HYPERLINK("http://evil","x")',
        "+1+cmd|' /C calc'!A0",
        "-2+3",
        "@SUM(1+1)",
        " =1+1",
        "＝1+1",
        "＋1",
        "－1",
        "＠SUM(1)",
    ],
)
def test_a_formula_is_a_text_in_a_cell(formula):
    assert csv_cell(formula) == f"'{formula}"


@pytest.mark.parametrize(
    ("value", "cell"), [("\t=1", "\\t=1"), ("\r=1", "\\r=1"), ("\n=1", "\\n=1"), ("\x1b]", "\\x1b]")]
)
def test_what_a_cell_may_begin_with_is_visible(value, cell):
    assert csv_cell(value) == cell


@pytest.mark.parametrize("value", ["gpt-4o", "a=b", "модель", "", 3, -2.5, None, True])
def test_other_cells_stay_as_they_are(value):
    assert csv_cell(value) is value


@given(st.lists(HOSTILE_TEXT, min_size=1, max_size=4))
def test_cells_come_back_from_a_table_as_they_went_in(texts):
    out = io.StringIO()
    csv.writer(out).writerow([csv_cell(text) for text in texts])
    [row] = csv.reader(io.StringIO(out.getvalue()))
    assert row == [csv_cell(text) for text in texts]
    assert not any(str(cell).lstrip(" ")[:1] in tuple("=+-@\t\r\n") for cell in row if cell)


@given(st.one_of(ANY_TEXT, HOSTILE_TEXT))
def test_json_means_the_same_and_has_nothing_harmful_in_it(text):
    for indent in (None, 2):
        safe = json_text(json.dumps({"name": text, text: [text]}, ensure_ascii=False, indent=indent))
        assert json.loads(safe) == {"name": text, text: [text]}
        assert not (HARMFUL - {"\r"}) & set(safe)
