"""The line of every key: documents written in all of TOML's ways, with the lines noted as they are written."""

import json
import tomllib
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.sweeps import examples
from tolmach.configuration.places import find_lines
from tolmach.configuration.problems import KeyPath, dotted

_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=6) | st.sampled_from(
    ['"', "'", '"""', "'''", "# no", "a = 1", "]", "}", "\\", "\n[x]\ny = 1\n", '\n"""\n', "''", '""', "a\nb", "${A}"]
)
_KEY = st.sampled_from(["a", "b", "c-1", "1", "true"]) | _TEXT
_PLAIN = st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False) | _TEXT
_VALUE: st.SearchStrategy[Any] = st.recursive(
    _PLAIN, lambda below: st.lists(below, max_size=3) | st.dictionaries(_KEY, below, max_size=3), max_leaves=12
)
_TREE = st.dictionaries(_KEY, _VALUE, max_size=4)
_BLANK = ("", " ", "\t ")
_GAP = ("", "\n", "\n\n", " # ]} \"''' \n", "  ")


class _Writer:
    """Writes a tree as TOML, in ways that `draw` chooses, and notes the line of every path."""

    def __init__(self, draw: Any) -> None:
        self._draw = draw
        self.text = ""
        self.lines: dict[KeyPath, int] = {}

    def _choice(self, choices: Any) -> Any:
        return self._draw(st.sampled_from(list(choices)))

    def _note(self, path: KeyPath, parents: int = 0) -> None:
        """Note the present line for a path, and for `parents` of its parents where they have none."""
        line = self.text.count("\n") + 1
        for up in range(1, parents + 1):
            self.lines.setdefault(path[:-up], line)
        self.lines[path] = line

    def table(self, path: KeyPath, table: dict[str, Any]) -> None:
        below = []
        for key, value in table.items():
            if self._is_tables(value) and self._choice((True, False)):
                below.append((key, value))
            else:
                self._entry(path, (key,), value)
        for key, value in below:
            if isinstance(value, dict):
                self._header((*path, key), "[", "]")
                self.table((*path, key), value)
            else:
                self.lines[*path, key] = self.text.count("\n") + 1 + self._before_header()
                for at, item in enumerate(value):
                    if at:
                        self._before_header()
                    self._note((*path, key, at))
                    self._write_header((*path, key), "[[", "]]")
                    self.table((*path, key, at), item)

    @staticmethod
    def _is_tables(value: Any) -> bool:
        return isinstance(value, dict) or bool(
            isinstance(value, list) and value and all(isinstance(item, dict) for item in value)
        )

    def _before_header(self) -> int:
        gap: str = self._choice(("", "\n", "# [x]\n"))
        self.text += gap
        return gap.count("\n")

    def _header(self, path: KeyPath, opening: str, closing: str) -> None:
        self._before_header()
        self._note(path)
        self._write_header(path, opening, closing)

    def _write_header(self, path: KeyPath, opening: str, closing: str) -> None:
        names = self._dotted([part for part in path if isinstance(part, str)])
        self.text += f"{self._choice(_BLANK)}{opening}{names}{closing}{self._choice(('', ' # x'))}\n"

    def _entry(self, table: KeyPath, keys: tuple[str, ...], value: Any) -> None:
        """`a = ...`, or `a.b = ...` for each entry of a table."""
        if isinstance(value, dict) and value and len(keys) < 4 and self._choice((True, False)):
            for key, below in value.items():
                self._entry(table, (*keys, key), below)
            return
        self.text += self._choice(("", " ", "# c\n", "\n"))
        self._pair(table, keys, value)
        self.text += self._choice(("", " # x")) + "\n"

    def _pair(self, table: KeyPath, keys: tuple[str, ...], value: Any) -> None:
        path = (*table, *keys)
        self._note(path, len(keys) - 1)
        self.text += f"{self._dotted(list(keys))}={self._choice(_BLANK)}"
        self._value(path, value)

    def _dotted(self, keys: list[str]) -> str:
        return ".".join(f"{self._choice(_BLANK)}{self._key(key)}{self._choice(_BLANK)}" for key in keys)

    def _key(self, key: str) -> str:
        ways = [_basic(key)]
        if key and key.isascii() and key.replace("-", "").isalnum():
            ways.append(key)
        if "'" not in key and key.isprintable():
            ways.append(f"'{key}'")
        return str(self._choice(ways))

    def _value(self, path: KeyPath, value: Any) -> None:
        if isinstance(value, dict):
            self.text += "{"
            for at, (key, below) in enumerate(value.items()):
                self.text += ", " if at else self._choice(_BLANK)
                self._pair(path, (key,), below)
            self.text += self._choice(_BLANK) + "}"
        elif isinstance(value, list):
            self.text += "["
            for at, item in enumerate(value):
                self.text += ("," if at else "") + self._choice(_GAP)
                self._note((*path, at))
                self._value((*path, at), item)
                self.text += self._choice(_GAP)
            self.text += self._choice(("", ",\n") if value else ("", "\n")) + "]"
        elif isinstance(value, str):
            self.text += self._choice(_texts(value))
        else:
            self.text += str(value).lower()


def _basic(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _texts(text: str) -> list[str]:
    """The ways to write a text."""
    ways = [_basic(text)]
    inner = ways[0][1:-1]
    ways += [f'"""\n{inner}"""', '"""' + inner.replace("\\n", "\n") + '"""' if not text.startswith("\n") else ways[0]]
    ways.append(f'"""\\\n   {inner}"""' if not text[:1].isspace() else ways[0])
    lines = text.replace("\n", "")
    if "'" not in text and (lines.isprintable() or not lines):
        ways.append(f"'''\n{text}'''")
        if "\n" not in text:
            ways.append(f"'{text}'")
    if text.endswith('"') and "\\" not in text and lines.isprintable() and '"""' not in text[:-1]:
        ways.append(f'"""\n{text[:-1]}""""' if not text[:-1].endswith('"') else ways[0])
    return ways


@given(st.data())
@examples(300)
def test_every_key_is_found_on_its_line(data):
    tree = data.draw(_TREE)
    writer = _Writer(data.draw)
    writer.table((), tree)
    assert tomllib.loads(writer.text) == tree, "the writer of this test is wrong"
    assert find_lines(writer.text) == writer.lines
    assert find_lines(writer.text.replace("\n", "\r\n")) == writer.lines


def _paths(value: Any, path: KeyPath = ()) -> set[KeyPath]:
    below: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return {path, *(found for key, item in below for found in _paths(item, (*path, key)))}


_PIECES = st.sampled_from(
    [*'ab.=[]{},\n 1#"\\', '"a"', "'b'", "[[", "]]", "'x'", '"""', "'''"]
    + [f"{line}\n" for line in ("a = 1979-05-27 07:32:00", "a = 1", "[a]", "[[b]]", "[b.a]")]
)


@given(st.lists(_PIECES, max_size=24).map("".join))
@example("[[b]]\n[b.a]\nb = 1\n[[b]]\n[b.a]\na = 1\n")
@examples(500)
def test_whatever_toml_accepts_is_told_apart_alike(text):
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    found = find_lines(text)
    assert found.keys() == _paths(tree) - {()}
    assert all(1 <= line <= text.count("\n") + 1 for line in found.values())


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("[a.b]\nc = 1\n\n[a]\nd = 2", {"a": 4, "a.b": 1, "a.b.c": 2, "a.d": 5}),
        ("a.b.c = 1\na.d = 2", {"a": 1, "a.b": 1, "a.b.c": 1, "a.d": 2}),
        ("[[a]]\nb = 1\n[[a]]\nb = 2\n[a.c]\nd = 3", {
            "a": 1, "a[0]": 1, "a[0].b": 2, "a[1]": 3, "a[1].b": 4, "a[1].c": 5, "a[1].c.d": 6,
        }),
        ("[[a]]\n[[a.b]]\n[[a.b]]\n[[a]]\n[[a.b]]", {
            "a": 1, "a[0]": 1, "a[0].b": 2, "a[0].b[0]": 2, "a[0].b[1]": 3, "a[1]": 4, "a[1].b": 5, "a[1].b[0]": 5,
        }),
        ('a = """\nb = 1\n[c]\n\\""" # " """\nd = 1979-05-27 07:32:00 # x\n', {"a": 1, "d": 5}),
        ("a = [ # [\n  { b = 1 },\n  [\n2]\n,]\nc = 1", {
            "a": 1, "a[0]": 2, "a[0].b": 2, "a[1]": 3, "a[1][0]": 4, "c": 6,
        }),
        ('a = """x""""\nb = """y"""""\nc = \'\'\'z\'\'\'\'\nd = 1', {"a": 1, "b": 2, "c": 3, "d": 4}),
        ('"a.b" . \'c d\' = 1\n"\\u0061" = 2', {'"a.b"': 1, '"a.b"."c d"': 1, "a": 2}),
    ],
)  # fmt: skip
def test_lines(text, lines):
    tomllib.loads(text)
    assert {dotted(path): line for path, line in find_lines(text).items()} == lines


@given(st.lists(_KEY, min_size=1, max_size=4))
def test_a_dotted_key_is_written_as_toml_reads_it(keys):
    tree: Any = tomllib.loads(f"{dotted(tuple(keys))} = 1")
    for key in keys:
        tree = tree[key]
    assert tree == 1
