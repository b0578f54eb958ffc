"""Files of recipes."""

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

from tolmach.errors import ConfigError

__all__ = ["RecipeFile", "read_recipe", "with_file"]

_REFERENCE = re.compile(r"\$(?:(?P<dollar>\$)|\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^{}]*))?\})")


class RecipeFile(Struct, frozen=True):
    """What a file says: the site's address, and the recipe's tables with the variables put in."""

    url: str
    options: dict[str, Any]

    def __repr__(self) -> str:
        return f"RecipeFile(url={self.url!r})"


def read_recipe(file: str | Path, environ: Mapping[str, str] | None = None) -> RecipeFile:
    """The recipe in a file. Raises `ConfigError` that names the file, for what is no TOML or an unset variable."""
    try:
        tree = tomllib.loads(Path(file).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"recipe: {file}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:  # that of a number with thousands of digits is a plain ValueError
        raise ConfigError(f"recipe: {file}: no TOML: {error}") from error
    tree = _expanded(tree, os.environ if environ is None else environ, str(file))
    url = tree.pop("url", "")
    if not isinstance(url, str):
        raise ConfigError(f"recipe: {file}: url: a text")
    if "request" not in tree:
        raise ConfigError(f"recipe: {file}: [request] is missing")
    return RecipeFile(url, tree)


def with_file(options: Mapping[str, Any], environ: Mapping[str, str] | None = None) -> dict[str, Any]:
    """A recipe's options with what its file says; what is given beside the file wins. Raises `ConfigError`."""
    given = dict(options)
    file = given.pop("recipe", "")
    if not file:
        return given
    return read_recipe(str(file), environ).options | given


def _expanded(value: Any, environ: Mapping[str, str], file: str) -> Any:
    if isinstance(value, dict):
        return {key: _expanded(part, environ, file) for key, part in value.items()}
    if isinstance(value, list):
        return [_expanded(part, environ, file) for part in value]
    if not isinstance(value, str) or "$" not in value:
        return value

    def put(match: re.Match[str]) -> str:
        if match["dollar"]:
            return "$"
        found = environ.get(match["name"]) or match["default"]
        if found is None:
            raise ConfigError(f"recipe: {file}: the environment variable {match['name']} is not set; set it")
        return found

    return _REFERENCE.sub(put, value)
