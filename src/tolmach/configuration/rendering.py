"""The settings in force as TOML: each value with where it came from, and no secret."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from msgspec import Meta, Struct, structs

from tolmach.configuration.checking import fields_of
from tolmach.configuration.problems import KeyPath, dotted
from tolmach.configuration.reading import Origin
from tolmach.configuration.settings import Settings
from tolmach.configuration.tables import ProviderTable
from tolmach.pages.site import PAGE, is_page_address
from tolmach.safe_text import json_text
from tolmach.transport.addresses import without_credentials

__all__ = ["HIDDEN", "Shown", "show", "show_toml", "toml_value"]

HIDDEN = "…"
"""Stands for a secret."""
_SECRET_NAME = re.compile(r"(?:^|[_-])(?:key|token|secret|password|nonce|credentials?)$", re.IGNORECASE)
_NEVER = ("options", "hidden")


class Shown(Struct, frozen=True):
    """One setting: its key, its value as it may be seen, and where it came from."""

    key: str
    value: Any
    source: str
    path: KeyPath


def show(settings: Settings) -> list[Shown]:
    """All settings in force, defaults too."""
    return list(_Showing(settings).all())


def show_toml(settings: Settings) -> str:
    """All settings in force as TOML with a comment at each."""
    lines: list[str] = []
    header = ""
    rows = [(shown, f"{dotted(shown.path[-1:], whole=True)} = {toml_value(shown.value)}") for shown in show(settings)]
    width = min(56, max((len(text) for _, text in rows), default=0))
    for shown, text in rows:
        if (table := dotted(shown.path[:-1], whole=True)) != header:
            header = table
            lines += ["", f"[{table}]"]
        lines.append(f"{text:<{width}}  # {shown.source}")
    return "\n".join(lines[1:]) + "\n"


class _Showing:
    """Walks through the settings."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._file = settings.file.name if settings.file else ""

    def all(self) -> Iterator[Shown]:
        yield from self._table(("gateway",), self._settings.gateway)
        yield from self._table(("ledger",), self._settings.ledger)
        for pattern, price in self._settings.prices.items():
            yield from self._table(("prices", pattern), price)
        for name, provider in self._settings.providers.items():
            if provider.protocol == PAGE:
                # What stands in the file says both.
                yield self._one(("providers", name, PAGE), provider.url)
                provider = structs.replace(provider, protocol="", url="")
            yield from self._table(("providers", name), provider)
            for key in provider.options:
                yield self._one(("providers", name, key), provider.options[key])
        for name, route in self._settings.routes.items():
            yield from self._table(("routes", name), route)

    def _table(self, path: KeyPath, table: Struct) -> Iterator[Shown]:
        """The plain keys first: in TOML they cannot stand below a table of the same header."""
        nested = []
        for name, kind in fields_of(type(table)).items():
            value = getattr(table, name)
            if isinstance(value, Struct):
                nested.append((name, value))
            elif name not in _NEVER and not (value is None or (value in ("", (), {}) and not self._set((*path, name)))):
                yield self._one((*path, name), value, kind)
        for name, value in nested:
            yield from self._table((*path, name), value)

    def _set(self, path: KeyPath) -> bool:
        return path in self._settings.origins

    def _one(self, path: KeyPath, value: Any, kind: Any = None) -> Shown:
        metas = [note for note in getattr(kind, "__metadata__", ()) if isinstance(note, Meta)]
        marked = any((meta.extra or {}).get("secret") for meta in metas)
        return Shown(dotted(path, whole=True), self._visible(path, value, marked), self._source(path, value), path)

    def _visible(self, path: KeyPath, value: Any, secret: bool) -> Any:
        """The value without what is secret in it, by its mark or by the variables that it came from."""
        origin = self._settings.origins.get(path, Origin())
        if len(path) == 3 and path[0] == "providers" and path[2] in _ADDRESSES and value and not origin.secret:
            return _ADDRESSES[str(path[2])](value)
        if path in (("ledger", "url"), ("gateway", "state")) and not origin.secret:
            return _without_password(_without_query(value)) if "://" in value else value
        # Headers are how credentials are sent; their names say enough.
        is_headers = len(path) == 3 and path[0] == "providers" and path[2] == "headers"
        secret = secret or origin.secret or is_headers or _is_named_secret(path)
        if isinstance(value, dict):
            return {key: self._visible((*path, key), below, secret) for key, below in value.items()}
        if isinstance(value, tuple | list):
            return [self._visible((*path, at), below, secret) for at, below in enumerate(value)]
        return HIDDEN if secret and value not in ("", None) else msgspec.to_builtins(value)

    def _source(self, path: KeyPath, value: Any) -> str:
        origin = self._settings.origins.get(path)
        if origin is None:
            return self._implied(path, value)
        below = [found for at, found in self._settings.origins.items() if at[: len(path)] == path]
        variables = dict.fromkeys(f"${name}" for found in below for name in found.variables)
        place = origin.above or (f"{self._file}:{origin.line}" if origin.line else "")
        return ", ".join(filter(None, (place, *variables)))

    def _implied(self, path: KeyPath, value: Any) -> str:
        """Where a value came from that nobody wrote: a default, or what the provider's name or service stands for."""
        table = self._settings.providers.get(str(path[1])) if path[0] == "providers" else None
        if table is None or value == _DEFAULTS.get(str(path[2])):
            return "default"
        return f"service {table.service}" if table.service else f"type {table.type}"


_DEFAULTS = {name: getattr(ProviderTable(), name) for name in ProviderTable.__struct_fields__}


def _is_named_secret(path: KeyPath) -> bool:
    """Whether a provider's key, or one in its options, is called like a secret."""
    return path[0] == "providers" and _SECRET_NAME.search(str(path[-1])) is not None


def _without_password(address: str) -> str:
    scheme, there, _ = address.rpartition("@")[0].partition("://")
    bare = without_credentials(address)
    if "@" not in address:
        return bare
    return f"{scheme}://{HIDDEN}@{bare.removeprefix(f'{scheme}://')}" if there else f"{HIDDEN}@{bare}"


def _without_query(address: str) -> str:
    return f"{address.partition('?')[0]}?{HIDDEN}" if "?" in address else address


def _page_without_query(page: str) -> str:
    """The query of an address may have a key in it; that of a path below the site says which page it is."""
    return _without_query(page) if is_page_address(page) else page


_ADDRESSES: dict[str, Callable[[str], str]] = {
    "proxy": _without_password,
    "url": _without_query,
    "page": _page_without_query,
}
"""Key of a provider -> how its address may be seen."""


def toml_value(value: Any) -> str:
    """A value on one line, as TOML writes it."""
    match value:
        case bool():
            return str(value).lower()
        case str():
            return _quoted(value)
        case dict():
            return (
                "{ "
                + ", ".join(f"{dotted((key,), whole=True)} = {toml_value(below)}" for key, below in value.items())
                + " }"
            )
        case list() | tuple():
            return "[" + ", ".join(map(toml_value, value)) + "]"
    return str(value)


def _quoted(text: str) -> str:
    # JSON's escapes are TOML's.
    return json_text(msgspec.json.encode(text).decode())
