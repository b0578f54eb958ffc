"""Adds a provider to a configuration file: at its end, with the rest of the file as it is."""

import os
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tolmach.configuration.problems import dotted
from tolmach.configuration.reading import read_document
from tolmach.configuration.rendering import toml_value
from tolmach.configuration.settings import Settings
from tolmach.errors import ConfigError

__all__ = ["add_provider", "provider_toml"]


def add_provider(file: Path, name: str, row: Mapping[str, Any], environ: Mapping[str, str] | None = None) -> None:
    """Write `[providers.NAME]` at the end of the file, which is made (mode 0600) when it is not there.

    `environ` has the variables that the row is checked with, by default those of the process.
    Raises `ConfigError` when a provider of this name stands there already, when the row would not be read
    again, or when the file cannot be written; the file is then as it was.
    """
    before = b""
    mode = 0o600
    if file.exists():
        document = read_document(file)
        providers = document.tree.get("providers", {})
        if isinstance(providers, dict) and name in providers:
            raise ConfigError(f"{file}: has a provider {name!r} already; choose another name")
        before = file.read_bytes()
        mode = stat.S_IMODE(file.stat().st_mode)
    gap = b"" if not before else b"\n" if before.endswith(b"\n") else b"\n\n"
    made = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    try:
        with open(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as opened:
            opened.write(before + gap + provider_toml(name, row).encode())
        _check(made, name, environ)
        os.replace(made, file)
    except OSError as error:
        raise ConfigError(f"{file}: cannot be written: {error.strerror or error}") from error
    finally:
        made.unlink(missing_ok=True)


def provider_toml(name: str, row: Mapping[str, Any]) -> str:
    """The table as TOML. A `$` is doubled: what a page said is no variable of the environment."""
    lines = [f"{dotted((key,), whole=True)} = {toml_value(_plain(value))}" for key, value in row.items()]
    return "\n".join((f"[{dotted(('providers', name), whole=True)}]", *lines)) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("$", "$$")
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value


def _check(file: Path, name: str, environ: Mapping[str, str] | None) -> None:
    """Raises `ConfigError` for the first mistake that the new table has; other tables are not its business."""
    from tolmach.configuration.problems import InvalidSettings

    try:
        Settings.load(file, environ)
    except InvalidSettings as error:
        table = dotted(("providers", name), whole=True)
        for problem in error.problems:
            if not problem.key or problem.key == table or problem.key.startswith(f"{table}."):
                raise ConfigError(f"[{table}]: {problem.text}") from error
