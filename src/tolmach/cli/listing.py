"""`tolmach providers` and `tolmach models`."""

import asyncio
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import click
from msgspec import Struct

from tolmach.cli.config import config_option, load_settings
from tolmach.cli.failures import debug_option
from tolmach.cli.output import new_console, say_json
from tolmach.cli.whom import by_name
from tolmach.client.clients import AsyncClient
from tolmach.client.models import Model
from tolmach.configuration import Settings
from tolmach.protocols.base import ChatProtocol
from tolmach.providers.base import AbstractProvider
from tolmach.providers.names import named
from tolmach.providers.registry import providers
from tolmach.providers.sites.apis import Api, api_site, apis
from tolmach.routing.from_settings import targets_of
from tolmach.routing.targets import Provider, Targets
from tolmach.safe_text import one_line

__all__ = ["list_models", "list_providers"]


class _Row(Struct, kw_only=True):
    """Whom one may ask. `working` says of a site whether it was seen to answer; None for all else."""

    name: str
    kind: Literal["configured", "service", "site"]
    url: str
    protocol: str
    working: bool | None = None
    default_model: str
    models: list[str]
    stream: bool
    system: bool
    history: bool
    needs_cookies: bool = False


@click.command("providers")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@config_option
@debug_option
def list_providers(as_json: bool, file: Path | None) -> None:
    """List the providers and what each supports.

    First those of the configuration, then the services whose key is in its variable, then the public sites, which are
    asked only by their names. Checked says whether a site was seen to answer.
    """
    rows = list(_rows(load_settings(file)))
    if as_json:
        say_json(rows, indent=2)
        return
    marks = ("stream", "system", "history", "needs_cookies", "working")
    _table(
        ("Provider", "Kind", "Address", "Protocol", "Stream", "System", "History", "Cookies", "Checked"),
        [
            [row.name, row.kind, _address(row.url), row.protocol]
            + ["yes" if getattr(row, mark) else "–" for mark in marks]
            for row in rows
        ],
    )


def _rows(settings: Settings) -> Iterator[_Row]:
    for provider in targets_of(settings).providers():
        yield _configured(provider)
    for name, api in apis().items():
        if name not in settings.providers and api.key and os.environ.get(api.key, "").strip():
            yield _service(name, api)
    for name, site in providers().items():
        if name not in settings.providers:
            yield _site(name, site)


def _configured(provider: Provider) -> _Row:
    site = provider.site
    return _Row(
        name=provider.name,
        kind="configured",
        url=site.url,
        protocol=site.protocol.name,
        default_model=site.default_model,
        models=list(provider.models),
        needs_cookies=bool(site.cookie_domain),
        **_traits(site.protocol),
    )


def _service(name: str, api: Api) -> _Row:
    site = api_site(name, os.environ)
    return _Row(
        name=name,
        kind="service",
        url=api.url,
        protocol=api.protocol,
        default_model="",
        models=[],
        **_traits(site.protocol),
    )


def _site(name: str, provider: type[AbstractProvider]) -> _Row:
    return _Row(
        name=name,
        kind="site",
        url=provider.url,
        protocol=provider.protocol.name,
        working=provider.working,
        default_model=provider.default_model,
        models=list(provider.models),
        stream=provider.supports_stream,
        system=provider.supports_system_message,
        history=provider.supports_message_history,
        needs_cookies=bool(provider.cookie_domain),
    )


def _traits(protocol: ChatProtocol) -> dict[str, bool]:
    return {name: name in protocol.traits for name in ("stream", "system", "history")}


@click.command("models")
@click.option("-p", "--provider", default=None, metavar="NAME", help="Only those of this one, as it says itself.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@config_option
@debug_option
def list_models(provider: str | None, as_json: bool, file: Path | None) -> None:
    """List the models and which providers have them.

    Those with a provider can be asked by -m alone; a public site is asked only when it is named with -p.
    """
    settings = load_settings(file)
    if provider is not None:
        _list_of(provider, settings, as_json)
        return
    rows = _having(settings)
    if as_json:
        say_json([{"model": model, **having} for model, having in rows.items()], indent=2)
        return
    _table(
        ("Model", "Providers", "Public sites"),
        [(model, ", ".join(having["providers"]) or "–", ", ".join(having["sites"])) for model, having in rows.items()],
    )


def _having(settings: Settings) -> dict[str, dict[str, list[str]]]:
    """Model -> the providers of the configuration and the public sites that have it; those of the former first."""
    found: dict[str, dict[str, list[str]]] = {}

    def add(model: str, kind: str, name: str) -> None:
        names = found.setdefault(model, {"providers": [], "sites": []})[kind]
        if name not in names:
            names.append(name)

    targets = targets_of(settings)
    for model, name in _configured_models(targets):
        add(model, "providers", name)
    for name, site in providers().items():
        for model in (*site.models, *site.model_aliases) if name not in settings.providers else ():
            add(model, "sites", name)
    return dict(sorted(found.items(), key=lambda item: (not item[1]["providers"], item[0])))


def _configured_models(targets: Targets) -> Iterator[tuple[str, str]]:
    routes = targets.routes()
    for route in routes:
        if route != "*":
            yield from ((route, target.provider.name) for target in targets.plan(route).targets.values())
    for provider in targets.providers():
        yield from ((model, provider.name) for model in provider.models if model not in routes)


def _list_of(provider: str, settings: Settings, as_json: bool) -> None:
    found = asyncio.run(_asked(by_name(named(provider, settings.providers), "", settings).arguments))
    if as_json:
        say_json(found, indent=2)
    else:
        _table(("Model", "Owner"), [(model.id, model.owned_by) for model in found])


async def _asked(arguments: dict[str, Any]) -> list[Model]:
    async with AsyncClient(**arguments) as client:
        return (await client.models.list()).data


def _address(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.netloc.rpartition('@')[2]}{parts.path}".rstrip("/")


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*map(one_line, row))
    new_console(rows=True).print(table)
