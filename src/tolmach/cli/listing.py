"""`tolmach providers` and `tolmach models`."""

from collections.abc import Sequence
from urllib.parse import urlsplit

import click

from tolmach.cli.failures import debug_option
from tolmach.cli.output import new_console, say_json
from tolmach.providers.registry import providers
from tolmach.safe_text import one_line

__all__ = ["list_models", "list_providers"]


@click.command("providers")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@debug_option
def list_providers(as_json: bool) -> None:
    """List the providers and what each supports.

    Checked says whether the public site was seen to answer.
    """
    rows = [
        {
            "name": name,
            "url": provider.url,
            "protocol": provider.protocol.name,
            "working": provider.working,
            "default_model": provider.default_model,
            "models": list(provider.models),
            "stream": provider.supports_stream,
            "system": provider.supports_system_message,
            "history": provider.supports_message_history,
            "needs_cookies": bool(provider.cookie_domain),
        }
        for name, provider in providers().items()
    ]
    if as_json:
        say_json(rows, indent=2)
        return
    marks = ("stream", "system", "history", "needs_cookies", "working")
    _table(
        ("Provider", "Site", "Protocol", "Stream", "System", "History", "Cookies", "Checked"),
        [
            [str(row["name"]), _site(str(row["url"])), str(row["protocol"])]
            + ["yes" if row[mark] else "–" for mark in marks]
            for row in rows
        ],
    )


@click.command("models")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@debug_option
def list_models(as_json: bool) -> None:
    """List the models and which providers have them."""
    having: dict[str, list[str]] = {}
    for name, provider in providers().items():
        for model in dict.fromkeys([*provider.models, *provider.model_aliases]):
            having.setdefault(model, []).append(name)
    if as_json:
        say_json([{"model": model, "providers": names} for model, names in sorted(having.items())], indent=2)
        return
    _table(("Model", "Providers"), [(model, ", ".join(names)) for model, names in sorted(having.items())])


def _site(url: str) -> str:
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
