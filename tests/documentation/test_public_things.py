"""Whatever is public is documented, and whatever is documented is there: each sort of thing compared both ways.

`in_code` finds what there is, `in_documents` what is said; `SORTS` has them side by side. The two tests behind the
first one make a thing up, once in the code and once in the documents, and see that the comparison names it.
"""

import re
from collections.abc import Callable
from copy import copy
from functools import cache
from typing import Any, NamedTuple

import click
import pytest
from msgspec import defstruct
from prometheus_client import CollectorRegistry, Gauge

from tests.documentation import in_code, in_documents
from tests.documentation.documents import ROOT, names_in, rows
from tolmach import errors
from tolmach.cli import cli
from tolmach.cli.failures import EXIT_CODES, exit_code
from tolmach.configuration import GatewayTable, Settings
from tolmach.configuration.settings import ENVIRONMENT_PREFIX, environment_names
from tolmach.demo import FAULTS, help_text
from tolmach.demo.faults import HEADER, Fault
from tolmach.gateway.cors import EXPOSED
from tolmach.gateway.telemetry.metrics import Metrics
from tolmach.pages.site import PAGE, PageAssistant
from tolmach.protocols import PROTOCOLS, load
from tolmach.protocols.recipe.tables import AnswerTable
from tolmach.providers.sites.apis import apis

sources = cache(in_code.sources)
pages = cache(in_documents.pages)


class Sort(NamedTuple):
    """One sort of public things. `code` finds their names in `there`, or in `there` with one that is made up."""

    name: str
    code: Callable[[Any], set[str]]
    there: Callable[[], Any]
    with_another: Callable[[], Any]
    another: str
    """The name of that one."""
    said: Callable[[in_documents.Pages], set[str]]
    page: str
    below: str
    """The beginning of a line of the page, behind which the documents could tell of it."""
    line: str
    """What they would say."""


def _tables() -> dict[str, Any]:
    """The tables of `tolmach.toml`; a provider that is a page has three keys of its own."""
    tables = in_code.tables_of(Settings, "file", "origins")
    of_page = [PAGE, *(name for name in PageAssistant.__struct_fields__ if name != "allow")]
    return tables | {f"providers.{key}": str for key in of_page}


def _recipe() -> dict[str, Any]:
    return in_code.tables_of(load("recipe"), "recipe")  # type: ignore[arg-type]  # a struct, as all protocols are


def _protocols() -> list[str]:
    structs: dict[str, Any] = {name: load(name) for name in PROTOCOLS}
    return [*structs, *(f"{name} {field}" for name, kind in structs.items() for field in kind.__struct_fields__)]


def _with_command(word: str, command: click.Command) -> click.Group:
    """The command with another below it, or with one in the place of its own."""
    context = click.Context(cli)
    own = {known: each for known in cli.list_commands(context) if (each := cli.get_command(context, known))}
    return click.Group(
        "tolmach", commands={**own, word: command}, params=cli.params, context_settings=dict(cli.context_settings)
    )


def _with_option() -> click.Group:
    command = cli.get_command(click.Context(cli), "decode")
    assert command is not None
    changed = copy(command)
    changed.params = [*command.params, click.Option(["--weather"])]
    return _with_command("decode", changed)


def _registry() -> CollectorRegistry:
    registry = Metrics().registry
    Gauge("tolmach_weather", "Rain.", ["place"], registry=registry)
    return registry


def _module(name: str, text: str) -> in_code.Sources:
    return {**sources(), name: in_code.Module(text)}


SORTS = [
    Sort(
        "keys of the configuration",
        in_code.keys,
        _tables,
        lambda: _tables() | {"gateway": defstruct("Table", [("weather", str, "")], bases=(GatewayTable,), frozen=True)},
        "gateway.weather",
        in_documents.keys("docs/configuration.md"),
        "docs/configuration.md",
        "| `workers` |",
        "| `weather` | none | |",
    ),
    Sort(
        "keys of a recipe",
        in_code.keys,
        _recipe,
        lambda: _recipe() | {"answer": defstruct("Table", [("weather", str, "")], bases=(AnswerTable,), frozen=True)},
        "answer.weather",
        in_documents.keys("docs/recipes.md"),
        "docs/recipes.md",
        "| `snapshots` |",
        "| `weather` | | |",
    ),
    Sort(
        "protocols and their options",
        set,
        _protocols,
        lambda: [*_protocols(), "ollama weather"],
        "ollama weather",
        in_documents.protocols,
        "docs/protocols/ollama.md",
        "| `num_ctx` |",
        "| `weather` | | |",
    ),
    Sort(
        "commands",
        lambda root: set(in_code.commands(root)),
        lambda: cli,
        lambda: _with_command("weather", click.Command("weather")),
        "tolmach weather",
        in_documents.commands,
        "docs/command.md",
        "| `tolmach ask` |",
        "| `tolmach weather` | tells the weather |",
    ),
    Sort(
        "options",
        in_code.options,
        lambda: cli,
        _with_option,
        "tolmach decode --weather",
        in_documents.options,
        "docs/command.md",
        "| `--chunks HOW` |",
        "| `--weather RAIN` | rain |",
    ),
    Sort(
        "exit codes",
        lambda modules: in_code.exit_codes(modules, EXIT_CODES),
        sources,
        lambda: _module("tolmach.cli.weather", "RAIN = 99\nctx.exit(RAIN if raining else 0)"),
        "99",
        in_documents.exit_codes,
        "docs/command.md",
        "| 130 |",
        "| 99 | rain | |",
    ),
    Sort(
        "errors",
        in_code.errors,
        sources,
        lambda: _module("tolmach.weather", "class Rain(errors.TruncatedAnswer): ..."),
        "Rain",
        in_documents.errors,
        "docs/architecture.md",
        "   ├─ RateLimited ",
        "   │  └─ Rain              it rains",
    ),
    Sort(
        "headers",
        lambda modules: in_code.headers(modules, EXPOSED, HEADER),
        sources,
        lambda: _module("tolmach.gateway.weather", 'headers.append(("x-tolmach-weather", "rain"))'),
        "x-tolmach-weather",
        in_documents.headers,
        "docs/gateway.md",
        "| `server-timing` |",
        "| `x-tolmach-weather` | rain |",
    ),
    Sort(
        "metrics",
        in_code.metrics,
        lambda: Metrics().registry,
        _registry,
        "tolmach_weather (place)",
        in_documents.metrics,
        "docs/observability.md",
        "| `tolmach_open_streams` |",
        "| `tolmach_weather` | `place` | rain |",
    ),
    Sort(
        "variables",
        in_code.variables,
        sources,
        lambda: _module("tolmach.weather", 'os.environ.get("TOLMACH_WEATHER")'),
        "TOLMACH_WEATHER",
        in_documents.variables,
        "docs/configuration.md",
        "| `TOLMACH_CONFIG` |",
        "| `TOLMACH_WEATHER` | rain |",
    ),
    Sort(
        "faults of the demo",
        set,
        lambda: FAULTS,
        lambda: {**FAULTS, "weather": Fault("weather", "rain")},
        "weather",
        in_documents.faults,
        "docs/testing.md",
        "cut=K ",
        "weather=RAIN              it rains",
    ),
]
EVERY_SORT = pytest.mark.parametrize("sort", SORTS, ids=lambda sort: sort.name.replace(" ", "_"))


def differences(there: set[str], said: set[str]) -> list[str]:
    undocumented = [f"{name}: not documented" for name in sorted(there - said)]
    return undocumented + [f"{name}: documented, and not there" for name in sorted(said - there)]


@EVERY_SORT
def test_what_is_there_is_documented_and_the_other_way_round(sort: Sort) -> None:
    assert differences(sort.code(sort.there()), sort.said(pages())) == []


@EVERY_SORT
def test_one_that_is_not_documented_is_found(sort: Sort) -> None:
    found = differences(sort.code(sort.with_another()), sort.said(pages()))
    assert found == [f"{sort.another}: not documented"]


@EVERY_SORT
def test_one_that_is_documented_and_not_there_is_found(sort: Sort) -> None:
    text = pages()[sort.page]
    above, begin, rest = text.partition(f"\n{sort.below}")
    assert begin
    line, _, rest = rest.partition("\n")
    told = {**pages(), sort.page: f"{above}{begin}{line}\n{sort.line}\n{rest}"}
    assert differences(sort.code(sort.there()), sort.said(told)) == [f"{sort.another}: documented, and not there"]


# More that holds of some of them


def test_exit_codes_and_their_errors_are_those_of_the_help_page() -> None:
    told = {row[0]: set(re.findall(r"`(\w+?)`", row[2])) for row in rows(ROOT / "docs/command.md", "code")}
    help_page = cli.get_help(click.Context(cli, info_name="tolmach")).partition("Exit codes:")[2]
    assert told.keys() == set(re.findall(r"^  (\d+) ", help_page, re.M))
    for kind, code in EXIT_CODES.items():
        assert kind.__name__ in told[str(code)]
    for told_code, names in told.items():
        assert {str(exit_code(getattr(errors, name)())) for name in names} <= {told_code}


def test_options_that_the_text_names_exist() -> None:
    known = {name.rpartition(" ")[2] for name in in_code.options(cli)}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", pages()["docs/command.md"])) <= known


def test_errors_that_the_documents_name_exist() -> None:
    text = "".join(pages().values())
    named = set(re.findall(r"`([A-Z]\w+(?:Error|Required|Limited|Gone|Drift|Answer|Unavailable|Cookies))`", text))
    assert named - in_code.errors(sources()) <= {"RuntimeError", "ValueError", "TimeoutError", "Answer"}


def test_keys_of_the_gateway_that_the_documents_set_by_variables_exist() -> None:
    named = set(re.findall(rf"\b{ENVIRONMENT_PREFIX}[A-Z_]+", "".join(pages().values())))
    assert named
    assert named <= environment_names().keys()


def test_variables_of_opentelemetry_are_its_own_or_ours() -> None:
    from opentelemetry.sdk import environment_variables

    named = set(re.findall(r"`(OTEL_[A-Z_]+)(?:=\w+)?`", pages()["docs/observability.md"]))
    assert named - in_code.variables(sources()) - set(vars(environment_variables)) == set()


def test_variables_of_services_are_told() -> None:
    told = {name for row in rows(ROOT / "docs/services.md", "Name") for name in names_in(row[2])}
    assert told == {row.key for row in apis().values() if row.key}


def test_faults_are_told_in_the_words_of_the_command() -> None:
    assert help_text() in pages()["docs/testing.md"], "copy the list of faults from `tolmach demo --help`"
