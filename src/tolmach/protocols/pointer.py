"""JSON pointers (RFC 6901): where a value stands in a JSON document."""

import re
from typing import Any, Final

__all__ = ["ABSENT", "array_index", "find", "parse_pointer"]

ABSENT: Final = object()
"""What `find` gives where nothing stands; a null that stands there is None."""

_ESCAPE = re.compile(r"~(?![01])")
_INDEX = re.compile(r"0|[1-9][0-9]{0,8}")


def parse_pointer(text: str) -> tuple[str, ...]:
    """The reference tokens of a pointer; none for the whole document. Raises ValueError for what is no pointer."""
    if text == "":
        return ()
    if not text.startswith("/") or _ESCAPE.search(text):
        raise ValueError(f"{text!r} is no JSON pointer (RFC 6901): '' or such as '/data/0/text'")
    return tuple(token.replace("~1", "/").replace("~0", "~") for token in text[1:].split("/"))


def array_index(token: str) -> int | None:
    """The array index that a token is; None when it is none."""
    return int(token) if _INDEX.fullmatch(token) else None


def find(value: Any, tokens: tuple[str, ...]) -> Any:
    """The value that the tokens lead to, or `ABSENT`."""
    for token in tokens:
        if isinstance(value, dict):
            value = value.get(token, ABSENT)
        elif isinstance(value, list):
            index = array_index(token)
            value = value[index] if index is not None and index < len(value) else ABSENT
        else:
            return ABSENT
    return value
