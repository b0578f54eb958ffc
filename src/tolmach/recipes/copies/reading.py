"""Which form of copied request a text has."""

import re

from tolmach.errors import ConfigError
from tolmach.recipes.copies.curl import is_curl, read_curl
from tolmach.recipes.copies.fetch import is_fetch, read_fetch
from tolmach.recipes.copies.powershell import is_powershell, read_powershell
from tolmach.wire import Request

__all__ = ["is_copy", "read_copies"]

_FORMS = ((is_curl, read_curl), (is_fetch, read_fetch), (is_powershell, read_powershell))
_FENCE = re.compile(r"\s*(`{3,}|~{3,})[^\n]*\n(.*?)\n?\s*\1\s*", re.S)


def is_copy(text: str) -> bool:
    """Whether a text is a copied request: a command of curl or PowerShell, a call of fetch; also in a fence."""
    return any(known(_bare(text)) for known, _ in _FORMS)


def read_copies(text: str) -> list[Request]:
    """The requests of a text, in their order. Raises `ConfigError` for what is none, or cannot be read."""
    bare = _bare(text)
    for known, read in _FORMS:
        if known(bare):
            return read(bare)
    raise ConfigError("not a copied request: it is a command of curl or PowerShell, or a call of fetch")


def _bare(text: str) -> str:
    """The text without the fence of markdown around it."""
    text = text.removeprefix("\ufeff")
    fenced = _FENCE.fullmatch(text)
    return fenced[2] if fenced else text
