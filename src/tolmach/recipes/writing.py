"""Recipes as TOML, with what was found out in comments."""

import os
import re
from pathlib import Path
from typing import Any

import msgspec

from tolmach.errors import ConfigError
from tolmach.recipes.draft import Draft
from tolmach.safe_text import json_text, one_line

__all__ = ["to_toml", "write_recipe"]

_BARE = re.compile(r"[A-Za-z0-9_-]+")


def to_toml(draft: Draft) -> str:
    """The file of a recipe. Secrets are not in it: it names the variables that hold them."""
    lines = [f"# How {draft.url} is asked. Each part with how sure it is, from 0 to 1:"]
    lines += [f"#   {_line(f'{part.name}: {part.sure:.2f}, {part.reason}')}" for part in draft.parts]
    for name, meaning in draft.variables.items():
        lines.append(f"# Needs the environment variable {name}: {_line(meaning)}.")
    lines += ["", f"url = {_text(draft.url, draft)}", ""]
    for name in ("bootstrap", "request", "answer", "errors", "stale", "conversation"):
        if table := draft.options.get(name):
            lines += _tables(name, table, draft)
    return "\n".join(lines).rstrip() + "\n"


def write_recipe(file: Path, text: str, *, replace: bool) -> None:
    """Write the file; only its owner may read it, since recipes may hold what their owner wrote into them.

    Raises `ConfigError` when it cannot be written, or is there already and is not to be replaced.
    """
    flags = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if replace else os.O_EXCL)
    try:
        with open(os.open(file, flags, 0o600), "w", encoding="utf-8") as opened:
            opened.write(text)
    except FileExistsError as error:
        raise ConfigError(f"{file}: is there already; choose another name, or move it away") from error
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror or error}") from error


def _line(text: str) -> str:
    return one_line(" ".join(text.split()))


def _tables(name: str, table: Any, draft: Draft) -> list[str]:
    if isinstance(table, list):
        return [line for item in table for line in _table(f"[[{name}]]", name, item, draft)]
    return _table(f"[{name}]", name, table, draft)


def _table(heading: str, name: str, table: dict[str, Any], draft: Draft) -> list[str]:
    plain = {key: value for key, value in table.items() if not (isinstance(value, dict) and value)}
    lines = [heading, *(f"{_key(key)} = {_value(value, draft)}" for key, value in plain.items()), ""]
    for key, value in table.items():
        if key not in plain:
            lines += [f"[{name}.{_key(key)}]"]
            lines += [f"{_key(inner)} = {_value(part, draft)}" for inner, part in value.items()] + [""]
    return lines


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else _quoted(key)


def _quoted(text: str) -> str:
    return json_text(msgspec.json.encode(text.encode("utf-8", "replace").decode()).decode())


def _text(text: str, draft: Draft) -> str:
    """A text in which a plain dollar is doubled, since files of recipes know variables."""
    doubled = text.replace("$", "$$")
    for name in draft.variables:
        doubled = doubled.replace(f"$${{{name}}}", f"${{{name}}}")
    return _quoted(doubled)


def _value(value: Any, draft: Draft) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _text(value, draft)
    if value is None:
        return '"{{null}}"'
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, dict):
        inner = ", ".join(f"{_key(str(key))} = {_value(part, draft)}" for key, part in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    return f"[{', '.join(_value(part, draft) for part in value)}]"
