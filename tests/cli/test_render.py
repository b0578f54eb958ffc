"""What reaches the terminal: no control sequences, and markdown that streams as it is drawn at once."""

import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from tests.cli.terminal import Screen
from tests.sweeps import examples
from tolmach.cli.console import SafeConsole
from tolmach.cli.render import MarkdownStream, markdown, split_blocks

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")

_PARTS = st.sampled_from(
    [
        "```",
        "```py",
        "~~~",
        "````",
        "\n",
        "\n\n",
        "- ",
        "1. ",
        "> ",
        "    ",
        "text",
        "**",
        "`",
        "# ",
        "|",
        "\t",
        " ",
        "é",
        "\u2028",
    ]
)
_MARKDOWN = st.lists(_PARTS, max_size=40).map("".join)


@pytest.mark.parametrize(
    "form",
    [
        "<http://x/%{0:02x}>",
        "http://x/%{0:02x}",
        "text &#{0}; text",
        "[words &#{0};](http://x/%{0:02x})",
        "![picture &#{0};](x%{0:02x})",
        "```&#{0};\ncode %{0:02x}\n```",
        '[t](http://x/ "title &#{0};")',
        "<p>&#{0};</p>",
    ],
)
def test_markdown_brings_no_control_characters_of_its_own(form):
    for code in (*range(33), *range(126, 161)):
        out = io.StringIO()
        SafeConsole(file=out, width=60).print(markdown(form.format(code)))
        assert not _CONTROL.search(out.getvalue()), form.format(code)


def test_an_address_that_decodes_to_an_escape_would_reach_the_terminal_without_the_filter():
    # So the test above can fail: this is what rich does by itself.
    from rich.markdown import Markdown

    out = io.StringIO()
    Console(file=out, width=60).print(Markdown("<http://x/%1b[2J>"))
    assert "\x1b" in out.getvalue()


def _drawn(text: str, width: int = 60) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width).print(markdown(text))
    return [line.rstrip() for line in out.getvalue().splitlines()]


def test_html_is_shown_and_links_show_where_they_lead():
    assert "Use <br> here." in _drawn("Use <br> here.")
    assert any("<div>inside</div>" in line for line in _drawn("<div>inside</div>"))
    assert _drawn("[bank](https://other.example/)") == ["bank (https://other.example/)"]


def test_large_texts_are_shown_as_they_stand():
    text = "**word** " * 8000
    assert "**word**" in _drawn(text)[0]


@given(_MARKDOWN)
def test_the_parts_are_the_text(text):
    whole, rest = split_blocks(text)
    assert whole + rest == text


def _fence_is_open(text: str) -> bool:
    """Whether a code fence stands open at the end, told by the parser that draws it."""
    from rich.markdown import Markdown

    marked = Markdown(f"{text}\x00end\x00\n") if text.endswith("\n") else Markdown(f"{text}\n\x00end\x00\n")
    # Markdown turns the NUL into U+FFFD.
    return any(token.type in ("fence", "code_block") and "\ufffdend\ufffd" in token.content for token in marked.parsed)


@given(_MARKDOWN)
@examples(300)
def test_whole_blocks_never_end_inside_a_fence(text):
    whole, _ = split_blocks(text)
    assert not _fence_is_open(whole)


@given(_MARKDOWN, _MARKDOWN)
def test_blocks_that_are_whole_stay_whole(text, more):
    assert split_blocks(text + more)[0].startswith(split_blocks(text)[0])


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("one\n\ntwo", ""),
        ("one\n\ntwo\n", "one\n\n"),
        ("```\na\n\nb\n", ""),
        ("```\na\n\nb\n```\n\nafter\n", "```\na\n\nb\n```\n\n"),
        ("- a\n\n- b\n", ""),
        ("- a\n\n  more\n\nafter\n", "- a\n\n  more\n\n"),
        ("1. a\n\n2. b\n\nafter\n", "1. a\n\n2. b\n\n"),
        ("```inline``` text\n\nafter\n", "```inline``` text\n\n"),
        ("- ```\n  a\n\n  b\n  ```\n\nafter\n", "- ```\n  a\n\n  b\n  ```\n\n"),
        ("````\n```\n\nx\n", ""),
        ("~~~\n```\n\nx\n~~~\n\ny\n", "~~~\n```\n\nx\n~~~\n\n"),
    ],
)
def test_blocks(text, whole):
    assert split_blocks(text)[0] == whole


_ANSWER = (
    "## A heading\n\nA paragraph with **bold** words, long enough to need more than one line.\n\n"
    "```python\n" + "".join(f"line_{n} = {n}\n" for n in range(30)) + "```\n\n"
    "- one\n- two\n\n  still two\n\n1. first\n\n2. second\n\n> a quote\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\nThe end."
)


def _streamed(text: str, *, columns: int, lines: int, piece: int) -> list[str]:
    out = io.StringIO()
    console = Console(file=out, width=columns, height=lines, force_terminal=True, legacy_windows=False)
    screen = Screen(columns, lines)
    with MarkdownStream(console) as stream:
        for at in range(0, len(text), piece):
            stream.feed(text[at : at + piece])
            assert stream._live is not None
            stream._live.refresh()
    screen.feed(out.getvalue())
    return screen.lines


@pytest.mark.parametrize(("columns", "lines"), [(20, 5), (40, 10), (80, 24), (200, 50)])
def test_a_streamed_answer_stands_there_once_whatever_the_screen(columns, lines):
    at_once = _streamed(_ANSWER, columns=columns, lines=1000, piece=len(_ANSWER))
    text = "\n".join(at_once)
    assert [text.count(f"line_{n} = {n}\n") for n in (0, 15)] == [1, 1]
    for piece in (5, 50):
        streamed = _streamed(_ANSWER, columns=columns, lines=lines, piece=piece)
        assert [line for line in streamed if line] == [line for line in at_once if line]


def test_while_it_streams_nothing_stands_there_twice_and_the_end_is_seen():
    out = io.StringIO()
    console = Console(file=out, width=80, height=10, force_terminal=True, legacy_windows=False)
    told = Screen(80, 10)
    position = 0
    with MarkdownStream(console) as stream:
        for at in range(0, len(_ANSWER), 9):
            stream.feed(_ANSWER[at : at + 9])
            for refreshed in (False, True):
                if refreshed:
                    assert stream._live is not None
                    stream._live.refresh()
                written = out.getvalue()
                told.feed(written[position:])
                position = len(written)
                seen = [line.strip() for line in told.lines if line.strip()]
                assert len(seen) == len(set(seen)), seen
            came = re.findall(r"line_\d+ = \d+\n", _ANSWER[: at + 9])
            if came and "```\n" not in _ANSWER[: at + 9]:
                assert came[-1].strip() in "\n".join(told.lines[-3:])


def test_blocks_have_one_empty_line_between_them_and_none_around():
    lines = _streamed("one\n\n\n\ntwo\n\n# three\n\nfour\n\n", columns=40, lines=10, piece=3)
    assert [line.strip() for line in lines] == ["one", "", "two", "", "three", "", "four"]


def test_lines_end_without_padding():
    out = io.StringIO()
    console = Console(file=out, width=40, height=10, force_terminal=True, color_system=None)
    with MarkdownStream(console) as stream:
        stream.feed("a short line\n\nanother")
    assert "a short line\n" in out.getvalue()
    assert not re.search(r"line +\n", out.getvalue())
