"""`${NAME}` in texts, as values and what they came from."""

import re
from collections.abc import Mapping

from msgspec import Struct

__all__ = ["Expanded", "UnsetVariable", "expand", "is_secret"]

_REFERENCE = re.compile(r"\$(?:(?P<dollar>\$)|\{(?P<inside>[^{}]*)\})|(?P<open>\$\{)")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSW|CREDENTIAL", re.IGNORECASE)


class UnsetVariable(ValueError):
    """A text asks for a variable that has no value, or is not written as it must be; the message says it."""


class Expanded(Struct, frozen=True):
    """A text with its variables put in, and their names."""

    text: str
    variables: tuple[str, ...] = ()


def is_secret(variable: str) -> bool:
    """Whether a variable's name says that its value is for nobody's eyes."""
    return _SECRET.search(variable) is not None


def expand(text: str, environ: Mapping[str, str]) -> Expanded:
    """The text with `${NAME}` and `${NAME:-default}` put in, and `$$` as `$`. A `$` before anything else stays.

    The default counts, as in shells, for an unset variable and an empty one. What is put in is not
    looked at again. Raises `UnsetVariable`.
    """
    names: list[str] = []

    def value(match: re.Match[str]) -> str:
        if match["dollar"]:
            return "$"
        if match["open"]:
            raise UnsetVariable("a ${ without its }; write ${NAME}, or $${ for the two characters")
        name, colon, default = match["inside"].partition(":-")
        if not _NAME.fullmatch(name):
            raise UnsetVariable("between ${ and } stands the name of an environment variable; write $${ for a plain ${")
        names.append(name)
        found = environ.get(name)
        if colon:
            return found or default
        if found is None:
            raise UnsetVariable(f"the environment variable {name} is not set; set it, or write ${{{name}:-default}}")
        return found

    return Expanded(_REFERENCE.sub(value, text), tuple(names)) if "$" in text else Expanded(text)
