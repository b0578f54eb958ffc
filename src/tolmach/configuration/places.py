"""Where each key of a TOML text stands. `tomllib`, which reads the values, does not say.

The scanner follows TOML 1.0. It is given what `tomllib` has accepted, so it tells the parts of the
text apart and checks nothing.
"""

import re
import tomllib

from tolmach.configuration.problems import KeyPath

__all__ = ["find_lines"]

_SPACE = re.compile(r"(?:[ \t\n]|#[^\n]*)*")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_STRING = re.compile(
    r'"""(?:\\.|[^\\])*?"""(?:"{0,2})'
    r"|'''.*?'''(?:'{0,2})"
    r'|"(?:\\.|[^"\\\n])*"'
    r"|'[^'\n]*'",
    re.DOTALL,
)
_PLAIN = re.compile(r"[^,\]}#\n]*")
"""A number, a boolean or a time, to the end of what may belong to it."""


def find_lines(text: str) -> dict[KeyPath, int]:
    """KeyPath -> line, from 1, of every table, key and array item of a valid TOML text.

    A table that has a header stands there, else where its first key does.
    """
    scanner = _Scanner(text.replace("\r\n", "\n"))
    scanner.document()
    return scanner.lines


class _Scanner:
    """One pass over a text."""

    def __init__(self, text: str) -> None:
        self.lines: dict[KeyPath, int] = {}
        self._text = text
        self._at = 0
        self._line = 1
        self._counted = 0
        """How far lines are counted."""
        self._items: dict[KeyPath, int] = {}
        """Array of tables -> how many it has so far."""

    def document(self) -> None:
        table: KeyPath = ()
        self._skip_space()
        while self._at < len(self._text):
            if self._text.startswith("[[", self._at):
                table = self._array_header()
            elif self._text[self._at] == "[":
                table = self._header()
            else:
                self._pair(table)
            self._skip_space()

    def _skip_space(self) -> None:
        match = _SPACE.match(self._text, self._at)
        assert match is not None  # the expression fits nothing at all, too
        self._at = match.end()

    def _here(self) -> int:
        self._line += self._text.count("\n", self._counted, self._at)
        self._counted = self._at
        return self._line

    def _header(self) -> KeyPath:
        line = self._here()
        self._at += 1
        path = self._within((), self._keys())
        self._at += 1
        self._place(path, line)
        return path

    def _array_header(self) -> KeyPath:
        line = self._here()
        self._at += 2
        keys = self._keys()
        self._at += 2
        array = (*self._within((), keys[:-1]), keys[-1])
        number = self._items.get(array, 0)
        self._items[array] = number + 1
        self.lines.setdefault(array, line)
        path = (*array, number)
        self._place(path, line)
        return path

    def _within(self, table: KeyPath, keys: list[str]) -> KeyPath:
        """The path of keys; one of an array of tables goes on in its last."""
        path = table
        for key in keys:
            path = (*path, key)
            if path in self._items:
                path = (*path, self._items[path] - 1)
        return path

    def _place(self, path: KeyPath, line: int) -> None:
        for length in range(1, len(path)):
            self.lines.setdefault(path[:length], line)
        self.lines[path] = line

    def _keys(self) -> list[str]:
        """A dotted key, with the space around it."""
        keys = []
        while True:
            self._skip_space()
            if match := _BARE_KEY.match(self._text, self._at):
                keys.append(match[0])
            else:
                match = _STRING.match(self._text, self._at)
                assert match is not None  # tomllib has read a key here
                keys.append(_unquoted(match[0]))
            self._at = match.end()
            self._skip_space()
            if self._text[self._at] != ".":
                return keys
            self._at += 1

    def _pair(self, table: KeyPath) -> None:
        line = self._here()
        path = self._within(table, self._keys())
        self._at += 1
        self._place(path, line)
        self._value(path)

    def _value(self, path: KeyPath) -> None:
        self._skip_space()
        first = self._text[self._at]
        if first == "[":
            self._array(path)
        elif first == "{":
            self._inline_table(path)
        else:
            match = (_STRING if first in "\"'" else _PLAIN).match(self._text, self._at)
            assert match is not None  # tomllib has read a value here
            self._at = match.end()

    def _array(self, path: KeyPath) -> None:
        self._at += 1
        number = 0
        while self._more("]"):
            item = (*path, number)
            self.lines[item] = self._here()
            self._value(item)
            number += 1

    def _inline_table(self, path: KeyPath) -> None:
        self._at += 1
        while self._more("}"):
            self._pair(path)

    def _more(self, end: str) -> bool:
        """Whether another item comes; goes to it, or behind the end."""
        self._skip_space()
        if self._text[self._at] == ",":
            self._at += 1
            self._skip_space()
        if self._text[self._at] != end:
            return True
        self._at += 1
        return False


def _unquoted(key: str) -> str:
    text: str = tomllib.loads(f"key = {key}")["key"]
    return text
