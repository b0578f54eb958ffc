"""The values of a configuration before they are checked, each with where it came from."""

import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

from tolmach.configuration.files import NoFile, read_text
from tolmach.configuration.places import find_lines
from tolmach.configuration.problems import InvalidSettings, KeyPath, Problem, dotted
from tolmach.configuration.variables import UnsetVariable, expand, is_secret

__all__ = ["Document", "Origin", "read_document"]

_LONGEST = 600
"""Characters of what is told of one mistake."""
_MOST_PARTS = 32
"""Of a dotted key. None that is known here has more than six."""
_KEY_TOKEN = re.compile(
    r"""(?P<part>[A-Za-z0-9_-]++|"(?:\\.|[^"\\])*+"?|'[^']*+'?)"""
    r"""|(?P<join>[ \t]*+\.[ \t]*+)|(?P<other>[^A-Za-z0-9_"'.-])"""
)
_LONG_NUMBER = re.compile(r"[0-9][0-9_]{639,}")
"""One that Python may not read: the least limit that can be set is 640 digits."""
_LINE = re.compile(r" \(at line (\d+), column (\d+)\)$")


class Origin(Struct, frozen=True):
    """Where a value came from: a line of the file, and the variables in it; or what stands above the file."""

    line: int | None = None
    variables: tuple[str, ...] = ()
    above: str = ""
    """An environment variable or argument that set the value, in words."""

    @property
    def secret(self) -> bool:
        return any(map(is_secret, self.variables))

    @property
    def textual(self) -> bool:
        """Whether a text may stand for a number or a boolean: those of variables are always texts."""
        return bool(self.variables or self.above)


class Document:
    """The tree of values, and the mistakes found so far."""

    def __init__(self, file: str, tree: dict[str, Any], lines: Mapping[KeyPath, int]) -> None:
        self.file = file
        self.tree = tree
        self.lines = lines
        self.origins: dict[KeyPath, Origin] = {}
        self.broken: set[KeyPath] = set()
        """Values about which the mistake is told already."""
        self.problems: list[Problem] = []
        self.secrets: set[str] = set()

    def origin(self, path: KeyPath) -> Origin:
        return self.origins.get(path) or Origin(self.lines.get(path))

    def keep_secret(self, value: Any) -> None:
        """No text in this value is told in a problem."""
        if isinstance(value, str) and len(value) > 2:
            self.secrets.add(value)
        elif isinstance(value, dict):
            self._keep_all(value.values())
        elif isinstance(value, list | tuple):
            self._keep_all(value)

    def _keep_all(self, values: Iterable[Any]) -> None:
        for value in values:
            self.keep_secret(value)

    def problem(self, path: KeyPath, text: str) -> None:
        """Note a mistake at the line of the key, or of the table that it stands in or is missing from."""
        for secret in sorted(self.secrets, key=len, reverse=True):
            text = text.replace(secret, "…")
        if len(text) > _LONGEST:
            text = f"{text[:_LONGEST]}…"
        origin = next((o for end in range(len(path), 0, -1) if (o := self.origins.get(path[:end])) and o.above), None)
        if origin is not None:
            self.problems.append(Problem(origin.above, None, dotted(path), text))
            return
        line = next((found for end in range(len(path), 0, -1) if (found := self.lines.get(path[:end]))), None)
        if line is None and self.lines:
            line = 1
        self.problems.append(Problem(self.file, line, dotted(path), text))

    def lay_above(self, path: KeyPath, value: Any, above: str) -> None:
        """Set a value over that of the file. `above` says, in words, what sets it."""
        table: Any = self.tree
        for part in path[:-1]:
            below = table.setdefault(part, {})
            if not isinstance(below, dict):
                below = table[part] = {}
            table = below
        table[path[-1]] = value
        self.broken.discard(path)
        self.problems = [problem for problem in self.problems if problem.key != dotted(path)]
        self.origins[path] = Origin(above=above)

    def hidden(self, table: KeyPath) -> frozenset[str]:
        """The keys of a table with a value, or one in it, that came from a secret variable."""
        depth = len(table)
        return frozenset(
            str(path[depth])
            for path, origin in self.origins.items()
            if path[:depth] == table and len(path) > depth and origin.secret
        )

    def expand_all(self, environ: Mapping[str, str]) -> None:
        """Put the variables into all texts."""
        self.tree = self._expanded((), self.tree, environ)

    def _expanded(self, path: KeyPath, value: Any, environ: Mapping[str, str]) -> Any:
        if isinstance(value, dict):
            return {key: self._expanded((*path, key), below, environ) for key, below in value.items()}
        if isinstance(value, list):
            return [self._expanded((*path, at), below, environ) for at, below in enumerate(value)]
        if not isinstance(value, str):
            return value
        try:
            expanded = expand(value, environ)
        except UnsetVariable as error:
            self.broken.add(path)
            self.problem(path, str(error))
            return value
        if expanded.variables:
            origin = self.origins[path] = Origin(self.lines.get(path), expanded.variables)
            if origin.secret:
                for name in filter(is_secret, expanded.variables):
                    self.keep_secret(environ.get(name, ""))
        return expanded.text


def read_document(file: Path) -> Document:
    """What a file holds. Raises `InvalidSettings` for one that cannot be read or is no TOML."""
    name = os.fspath(file)
    text = _text(file, name)
    if (line := _deep_key(text)) is not None:
        raise InvalidSettings([Problem(name, line, "", f"a key has more than {_MOST_PARTS} parts")])
    try:
        return Document(name, tomllib.loads(text), find_lines(text))
    except tomllib.TOMLDecodeError as error:
        raise InvalidSettings([_syntax(name, text, str(error))]) from None  # the cause says the same
    except RecursionError as error:
        raise InvalidSettings([Problem(name, None, "", "arrays or tables are nested too deep")]) from error
    except ValueError as error:  # Python reads no whole number of more digits than `sys.get_int_max_str_digits`
        raise InvalidSettings([_long_number(name, text)]) from error


def _text(file: Path, name: str) -> str:
    try:
        return read_text(file)
    except NoFile as error:
        raise InvalidSettings([Problem(name, error.line, "", str(error))]) from error


def _deep_key(text: str) -> int | None:
    """The line with a dotted key of too many parts, for which `tomllib` would need minutes."""
    for number, line in enumerate(text.split("\n"), 1):
        parts = 0
        for token in _KEY_TOKEN.finditer(line) if line.count(".") > _MOST_PARTS else ():
            if token["part"]:
                parts += 1
            elif token["other"]:
                parts = 0
            if parts > _MOST_PARTS:
                return number
    return None


def _long_number(name: str, text: str) -> Problem:
    found = _LONG_NUMBER.search(text)
    line = None if found is None else text.count("\n", 0, found.start()) + 1
    return Problem(name, line, "", "a number has more digits than any that is needed here")


def _syntax(name: str, text: str, said: str) -> Problem:
    place = _LINE.search(said)
    if place is None:
        end = text.rstrip().count("\n") + 1
        return Problem(name, end, "", f"no TOML: {said.removesuffix(' (at end of document)')}, at the end of the file")
    return Problem(name, int(place[1]), "", f"no TOML: {said[: place.start()]}, at column {place[2]}")
