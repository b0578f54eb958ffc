"""`anychat providers` and `anychat models`."""

import click
import msgspec

from anychat.registry import providers

__all__ = ["list_models", "list_providers"]


@click.command("providers")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_providers(as_json: bool) -> None:
    """List the providers and what each supports."""
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
        click.echo(msgspec.json.format(msgspec.json.encode(rows), indent=2))
        return
    marks = ("stream", "system", "history", "needs_cookies")
    _table(
        ["Provider", "Address", "Protocol", "Stream", "System", "History", "Cookies", "Checked live"],
        [
            [str(r["name"]), str(r["url"]), str(r["protocol"])]
            + ["yes" if r[mark] else "–" for mark in marks]
            + ["yes" if r["working"] else "–"]
            for r in rows
        ],
    )


@click.command("models")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_models(as_json: bool) -> None:
    """List the models and which providers have them."""
    having: dict[str, list[str]] = {}
    for name, provider in providers().items():
        for model in dict.fromkeys([*provider.models, *provider.model_aliases]):
            having.setdefault(model, []).append(name)
    if as_json:
        rows = [{"model": model, "providers": names} for model, names in sorted(having.items())]
        click.echo(msgspec.json.format(msgspec.json.encode(rows), indent=2))
        return
    _table(["Model", "Providers"], [[model, ", ".join(names)] for model, names in sorted(having.items())])


def _table(columns: list[str], rows: list[list[str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    console = Console()
    if not console.is_terminal:
        # In a pipe a row stays a line, however long.
        console.width = 1000
    console.print(table)
