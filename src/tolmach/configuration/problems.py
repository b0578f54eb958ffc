"""What is wrong with a configuration: all of it, by file, line and key."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

from msgspec import Struct

from tolmach.errors import ConfigError

__all__ = ["InvalidSettings", "KeyPath", "Problem", "dotted", "shortened", "unknown"]

KeyPath = tuple[str | int, ...]
"""The keys that lead to a value; numbers count in arrays."""

_MOST_NAMED = 12
_MOST_TOLD = 100
"""So many mistakes are told of one configuration."""
_LONGEST = 48


class Problem(Struct, frozen=True):
    """One mistake. `file` may be the name of an environment variable or argument; then `line` is None."""

    file: str
    line: int | None
    key: str
    """Dotted, as it would be written in TOML; empty where none can be named."""
    text: str
    """What is wrong and what would be right. No secret is in it."""

    def __str__(self) -> str:
        where = self.file if self.line is None else f"{self.file}:{self.line}"
        return ": ".join(part for part in (where, self.key, self.text) if part)


class InvalidSettings(ConfigError):
    """The settings cannot be used. The message has a line for each of `problems`, for the first hundred of them."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        lines = [str(problem) for problem in self.problems[:_MOST_TOLD]]
        if (further := len(self.problems) - _MOST_TOLD) > 0:
            lines.append(f"... and {further} more")
        super().__init__("\n".join(lines))


def shortened(text: str) -> str:
    """A value or a name in a message: the beginning of a long one."""
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def dotted(path: KeyPath, *, whole: bool = False) -> str:
    """A path as TOML writes a key: `providers."my shop".models[0]`. For messages long names are shortened."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + _quoted(part if whole else shortened(part))
    return text


def _quoted(part: str) -> str:
    bare = part.isascii() and part.replace("-", "_").replace("_", "a").isalnum()
    if bare:
        return part
    return '"' + "".join(_escaped(char) for char in part) + '"'


def _escaped(char: str) -> str:
    if char in '"\\':
        return f"\\{char}"
    return char if char.isprintable() else f"\\u{ord(char):04x}" if ord(char) < 0x10000 else f"\\U{ord(char):08x}"


def unknown(what: str, name: str, known: Sequence[str]) -> str:
    """The words for a name that is none: the nearest that there is, else all, when they are few."""
    near = get_close_matches(name, known, 1, 0.6) if len(name) <= _LONGEST else []
    if near:
        return f'{what}; did you mean "{near[0]}"?'
    named = ", ".join(sorted(known)[:_MOST_NAMED]) + (", ..." if len(known) > _MOST_NAMED else "")
    return f"{what}; there are: {named}" if known else f"{what}; there is none"
