"""The settings in force: `tolmach.toml`, with the environment and the arguments of the command on top."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from msgspec import Struct, field, structs

from tolmach.configuration.checking import Checker, fields_of
from tolmach.configuration.files import is_file, place
from tolmach.configuration.problems import InvalidSettings, KeyPath, Problem, dotted, unknown
from tolmach.configuration.providers import check_provider, check_route
from tolmach.configuration.reading import Document, Origin, read_document
from tolmach.configuration.tables import GatewayTable, LedgerTable, PriceTable, ProviderTable, Route
from tolmach.egress.allowed import Allowed
from tolmach.errors import ConfigError

__all__ = ["ENVIRONMENT_PREFIX", "Settings", "environment_names", "find_config"]

ENVIRONMENT_PREFIX = "TOLMACH_GATEWAY__"
"""Two underscores part the keys: `TOLMACH_GATEWAY__LIMITS__DEPTH`. Kubernetes makes up names with single ones."""
_NAME = "tolmach.toml"
_TABLES = ("gateway", "ledger", "prices", "providers", "routes")


class Settings(Struct, frozen=True, kw_only=True):
    """What a configuration says, checked. Nothing of it changes; a reload makes another one."""

    gateway: GatewayTable = GatewayTable()
    ledger: LedgerTable = LedgerTable()
    prices: dict[str, PriceTable] = field(default_factory=dict)
    """Pattern of a target or model -> its price."""
    providers: dict[str, ProviderTable] = field(default_factory=dict)
    routes: dict[str, Route] = field(default_factory=dict)
    file: Path | None = None
    """None when there is no file and the defaults hold."""
    origins: dict[KeyPath, Origin] = field(default_factory=dict)
    """Key -> where its value came from; a default's is not here."""

    def __repr__(self) -> str:
        """Without origins and targets; the tables hide their secrets."""
        return (
            f"Settings(file={self.file!r}, gateway={self.gateway!r}, "
            f"providers={list(self.providers.values())!r}, routes={list(self.routes)!r})"
        )

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str] | None = None,
        environ: Mapping[str, str] | None = None,
        overrides: Mapping[str, Any] | None = None,
    ) -> Self:
        """The settings of a file, by default the one that `find_config` finds; without one the defaults.

        Over the file stand `TOLMACH_GATEWAY__...` of the environment, over those `overrides` (dotted
        key -> value; None is left out). Raises `InvalidSettings` with all mistakes.
        """
        environ = os.environ if environ is None else environ
        file = find_config(path, environ)
        document = Document("", {}, {}) if file is None else read_document(file)
        document.expand_all(environ)
        _lay_environment(document, environ)
        for key, value in (overrides or {}).items():
            if value is not None:
                document.lay_above(tuple(key.split(".")), value, "argument")
        return cls(**_checked(document, environ), file=file, origins=_origins(document))

    @classmethod
    def of(cls, tables: Mapping[str, Any], environ: Mapping[str, str] | None = None) -> Self:
        """The settings of tables as they stand in a file, without one: `{"providers": {...}, "routes": {...}}`.

        An entry that is None is left out. Raises `InvalidSettings` with all mistakes.
        """
        environ = os.environ if environ is None else environ
        document = Document("", _as_toml(tables), {})
        document.expand_all(environ)
        return cls(**_checked(document, environ), origins=_origins(document))


def _as_toml(value: Any) -> Any:
    """The values as TOML would have them: dictionaries, lists, and no None."""
    if isinstance(value, Mapping):
        return {key: _as_toml(below) for key, below in value.items() if below is not None}
    return [_as_toml(item) for item in value] if isinstance(value, list | tuple) else value


def find_config(path: str | os.PathLike[str] | None = None, environ: Mapping[str, str] | None = None) -> Path | None:
    """The configuration to use: `path`, `TOLMACH_CONFIG`, `./tolmach.toml`, that of the user's config folder.

    None when there is none. Raises `InvalidSettings` when one is named that does not exist.
    """
    environ = os.environ if environ is None else environ
    named = os.fspath(path) if path else environ.get("TOLMACH_CONFIG")
    if named:
        file = place("", named)
        if not os.path.exists(file):
            why = "there is no such file" + ("" if path else " (named by TOLMACH_CONFIG)")
            raise InvalidSettings([Problem(named, None, "", f"{why}; `tolmach init` writes one")])
        return file
    base = environ.get("XDG_CONFIG_HOME")
    home = environ.get("HOME")
    folders = [Path()]
    if base or home:
        folders.append((Path(base) if base else Path(home or "") / ".config") / "tolmach")
    return next((folder / _NAME for folder in folders if is_file(folder / _NAME)), None)


def environment_names() -> dict[str, KeyPath]:
    """Environment variable -> the key of `[gateway]` that it sets."""
    return {ENVIRONMENT_PREFIX + "__".join(path).upper(): ("gateway", *path) for path in _keys(GatewayTable)}


def _keys(kind: type[Struct]) -> list[tuple[str, ...]]:
    keys: list[tuple[str, ...]] = []
    for name, below in fields_of(kind).items():
        if isinstance(below, type) and issubclass(below, Struct):
            keys += [(name, *rest) for rest in _keys(below)]
        else:
            keys.append((name,))
    return keys


def _lay_environment(document: Document, environ: Mapping[str, str]) -> None:
    names = environment_names()
    for name in sorted(environ):
        if name in names:
            document.lay_above(names[name], environ[name], name)
        elif name.startswith(ENVIRONMENT_PREFIX):
            document.problems.append(Problem(name, None, "", unknown("no such setting", name, list(names))))


def _checked(document: Document, environ: Mapping[str, str]) -> dict[str, Any]:
    """The tables. Raises `InvalidSettings`."""
    checker = Checker(document)
    tree = document.tree
    for key in tree:
        if key not in _TABLES:
            document.problem((key,), unknown("unknown table", key, _TABLES))
    defaults = GatewayTable(hidden=document.hidden(("gateway",)))
    gateway = checker.table(("gateway",), tree.get("gateway", {}), GatewayTable, defaults)
    _check_egress(document, gateway)
    if gateway is not None:
        _check_server(document, ("gateway", "state"), gateway.state)
    named = {key: _named_tables(document, key) for key in ("providers", "routes")}
    providers = {name: check_provider(checker, name, row, environ) for name, row in named["providers"].items()}
    routes = {name: check_route(checker, name, row, providers) for name, row in named["routes"].items()}
    ledger = _placed(checker.table(("ledger",), tree.get("ledger", {}), LedgerTable), document.file)
    if ledger is not None:
        _check_server(document, ("ledger", "url"), ledger.url)
    rows = _named_tables(document, "prices")
    prices = {name: checker.table(("prices", name), row, PriceTable) for name, row in rows.items()}
    if document.problems:
        raise InvalidSettings(sorted(document.problems, key=_place))
    return {"gateway": gateway, "ledger": ledger, "prices": prices, "providers": providers, "routes": routes}


def _check_egress(document: Document, gateway: GatewayTable | None) -> None:
    for at, entry in enumerate(gateway.egress.allow if gateway else ()):
        try:
            Allowed((entry,))
        except ConfigError as error:
            document.problem(("gateway", "egress", "allow", at), str(error))


def _check_server(document: Document, path: KeyPath, url: str) -> None:
    """Note an address of which no part can be told. What is wrong with it is not: a password may stand there."""
    try:
        _ = urlsplit(url).port
    except ValueError:
        document.problem(path, "no address: only an IPv6 address has brackets, and a port is a number up to 65535")


def _placed(ledger: LedgerTable | None, file: str) -> LedgerTable | None:
    """With a file's name in full: it counts from the folder of the configuration."""
    if ledger is None or ledger.url in ("", "off") or "://" in ledger.url:
        return ledger
    return structs.replace(ledger, url=os.fspath(place(Path(file).parent, ledger.url).absolute()))


def _place(problem: Problem) -> tuple[bool, int]:
    return (problem.line is None, problem.line or 0)


def _named_tables(document: Document, key: str) -> dict[str, dict[str, Any]]:
    tables = document.tree.get(key, {})
    if not isinstance(tables, dict):
        document.problem((key,), f"a table of tables: write [{key}.NAME]")
        return {}
    for name, row in tables.items():
        if not isinstance(row, dict):
            document.problem((key, name), f"a table: write [{dotted((key, name))}]")
    return {name: row for name, row in tables.items() if isinstance(row, dict)}


def _origins(document: Document) -> dict[KeyPath, Origin]:
    lines = {path: Origin(line) for path, line in document.lines.items()}
    return lines | document.origins
