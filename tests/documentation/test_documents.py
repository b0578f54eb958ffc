"""The documents say what the code does: tables, examples, links, options, exit codes, faults."""

import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

import tolmach
from tests.documentation.documents import DEMO, DOCS, GATEWAY, READMES, ROOT, blocks, name_of, names_in, rows
from tolmach.cli import cli
from tolmach.cli.chat import COMMANDS as LINES
from tolmach.demo import MOUNTS, ThreadedDemo, serve_in_thread
from tolmach.errors import ConfigError
from tolmach.protocols import PROTOCOLS
from tolmach.providers.registry import providers
from tolmach.providers.sites.apis import apis
from tolmach.testing import tables


def numbered(paths: list[Path]) -> Iterator[Any]:
    for path in paths:
        for i, block in enumerate(blocks(path, "python")):
            if GATEWAY in block:
                continue  # asks a gateway: see test_docs_gateway
            yield pytest.param(block, id=f"{name_of(path)}:{i}")


# Tables


@pytest.mark.parametrize("file", tables.FILES)
def test_tables_are_those_of_the_code(file: str) -> None:
    text = (ROOT / file).read_text()
    assert tables.with_tables(text) == text, "run `make docs`"
    wanted = ("protocols", "sites") if ROOT / file in READMES else ("services",)
    assert [table for table in wanted if f"<!-- table: {table} " not in text] == []


def test_every_table_stands_somewhere() -> None:
    written = [path for path in DOCS if "<!-- table: " in path.read_text()]
    assert {name_of(path) for path in written} == set(tables.FILES)
    text = "".join(path.read_text() for path in written)
    assert set(re.findall(r"<!-- table: (\w+) ", text)) == set(tables.TABLES)


EMPTY = """<!-- table: protocols en -->
<!-- end of table -->
Between
<!-- table: sites ru -->
<!-- end of table -->
"""


def test_check_tells_a_wrong_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "README.md"
    file.write_text("<!-- table: protocols en -->\n| old |\n<!-- end of table -->\n")
    assert tables.main(["--check", str(file)]) == 1
    assert "| old |" in file.read_text()
    assert tables.main([str(file)]) == 0
    assert "`ai-engine`" in file.read_text()
    assert tables.main(["--check", str(file)]) == 0
    file.write_text(EMPTY)
    assert tables.main([str(file)]) == 0
    assert re.search(r"\n\|.*\n<!-- end of table -->\nBetween\n<!-- table: sites ru -->\n\|", file.read_text())
    assert "make docs" in capsys.readouterr().out


def test_a_table_that_does_not_exist_is_named() -> None:
    with pytest.raises(ConfigError, match="'weather'"):
        tables.with_tables("<!-- table: weather en -->\n<!-- end of table -->")
    with pytest.raises(ConfigError, match="'de'"):
        tables.protocols_table("de")


@pytest.mark.parametrize("language", tables.LANGUAGES)
def test_tables_have_a_row_for_everything(language: str) -> None:
    assert len(tables.protocols_table(language).splitlines()) == 2 + len(PROTOCOLS)
    assert len(tables.sites_table(language).splitlines()) == 2 + len(providers())
    assert len(tables.services_table(language).splitlines()) == 2 + len(apis())


# Examples


@pytest.fixture(scope="module")
def demo() -> Iterator[ThreadedDemo]:
    with serve_in_thread(delay=0) as running:
        yield running


@pytest.fixture
def urls_kept() -> Iterator[None]:
    """Gives the classes their addresses back, and forgets what an example registered."""
    from tolmach.providers import registry

    known = providers()
    urls = {provider: provider.url for provider in known.values()}
    registered = dict(registry._registered)
    yield
    for provider, url in urls.items():
        provider.url = url
    registry._registered.clear()
    registry._registered.update(registered)


@pytest.mark.parametrize("block", list(numbered(READMES)))
def test_examples_of_the_readme_run(
    block: str, demo: ThreadedDemo, urls_kept: None, capsys: pytest.CaptureFixture[str]
) -> None:
    exec(compile(block.replace(DEMO, demo.url), "README", "exec"), {"__name__": "__main__"})
    assert len(capsys.readouterr().out.strip()) > 20


def test_both_readmes_have_the_same_examples() -> None:
    # Texts and comments are in each one's language.
    english, russian = ([re.sub(r'"[^"]*"|#[^\n]*', '""', b) for b in blocks(path, "python")] for path in READMES)
    assert english == russian
    assert len(english) == 4


_ELSEWHERE = ("architecture.md", "gateway.md", "testing.md")
_LIBRARY = [path for path in DOCS if path not in READMES and path.name not in _ELSEWHERE]


@pytest.mark.parametrize("block", list(numbered(_LIBRARY)))
def test_examples_elsewhere_run_up_to_their_calls(block: str, demo: ThreadedDemo, urls_kept: None) -> None:
    tolmach.get_provider("Chatgpt4o").url = f"{demo.url}/Chatgpt4o"
    exec(compile(block.replace(DEMO, demo.url), "docs", "exec"), {"__name__": "__main__"})
    assert "tolmach" in block


async def test_the_functions_of_the_library_page_work(demo: ThreadedDemo, urls_kept: None) -> None:
    names: dict[str, Any] = {}
    for block in blocks(ROOT / "docs/library.md", "python"):
        if "def " in block:
            exec(compile(block, "library.md", "exec"), names)
    tolmach.get_provider("Chatgpt4Online").url = f"{demo.url}/Chatgpt4Online"
    tolmach.get_provider("Chatgpt4o").url = f"{demo.url}/Chatgpt4o"
    async with tolmach.AsyncClient() as client:
        assert len(await names["talk"](client)) > 5
        await names["show"](client)
    assert len(names["ask"](tolmach.Client(), "Hello")) > 5
    assert names["whole"](tolmach.Client()).endswith("Готово ✅")
    assert "wait 7" in names["ask"](tolmach.Client(), "[[fault:429-retry-after=7]]")
    with pytest.raises(tolmach.ProviderError):
        await names["fetch"](f"{demo.url}/nowhere")


def test_the_example_of_the_testing_page_runs() -> None:
    block = next(b for b in blocks(ROOT / "docs/testing.md", "python") if "serve_in_thread" in b)
    names: dict[str, Any] = {}
    exec(compile(block, "testing.md", "exec"), names)
    assert names["answer"].choices[0].message.content


async def test_the_gateway_of_the_testing_page_answers() -> None:
    block = next(b for b in blocks(ROOT / "docs/testing.md", "python") if "serving" in b)
    names: dict[str, Any] = {}
    exec(compile(block, "testing.md", "exec"), names)
    assert "Готово ✅" in await names["ask_through_a_gateway"]()


def command_lines() -> Iterator[Any]:
    for path in DOCS:
        for block in blocks(path, "sh"):
            for line in block.splitlines():
                command = line.rpartition(" | ")[2]
                if re.match(r"(\.venv/bin/)?tolmach ", command):
                    yield pytest.param(command, id=f"{name_of(path)}: {command[:50]}")


@pytest.mark.parametrize("line", list(command_lines()))
def test_command_lines_parse(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    arguments = shlex.split(line)[1:]
    group: click.Command = cli
    context = click.Context(cli)
    while isinstance(group, click.Group) and arguments and not arguments[0].startswith("-"):
        found = group.get_command(context, arguments.pop(0))
        assert found is not None
        group = found
    group.make_context("tolmach", arguments)
    assert group is not cli


def make_lines() -> set[str]:
    return {verb for path in DOCS for block in blocks(path, "sh") for verb in re.findall(r"^make (\w+)", block, re.M)}


def test_every_make_verb_in_the_documents_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert make_lines() >= {"run", "test"}
    assert {verb for verb in make_lines() if not re.search(rf"^{verb}:", makefile, re.M)} == set()


# Links


def anchors(path: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", path.read_text(), re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", DOCS, ids=name_of)
def test_links_lead_somewhere(path: Path) -> None:
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.S)
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?://", target):
            continue
        file, _, anchor = target.partition("#")
        there = (path.parent / file).resolve() if file else path
        if not there.exists() or (anchor and anchor not in anchors(there)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("path", DOCS, ids=name_of)
def test_nothing_of_a_machine_stands_in_the_documents(path: Path) -> None:
    assert re.findall(r"(?:/work|/tmp|/root|/home|/opt)/\S*", path.read_text()) == []


@pytest.mark.parametrize("path", DOCS, ids=name_of)
def test_files_named_in_the_text_exist(path: Path) -> None:
    named = re.findall(r"`((?:src/tolmach|tests|docs|requirements)/[\w./-]+)`", path.read_text())
    placeholders = re.compile(r"[A-Z]{3,}")
    assert [file for file in named if not placeholders.search(file) and not (ROOT / file).exists()] == []


# The command


def test_the_lines_of_chat_are_those_of_the_code() -> None:
    text = (ROOT / "docs/command.md").read_text()
    assert set(re.findall(r"^\| `(/\w+)", text, re.M)) == set(LINES)


def test_the_configuration_of_the_readmes_is_the_same() -> None:
    english, russian = (re.sub(r" *#.*", "", "".join(blocks(path, "toml"))) for path in READMES)
    assert english == russian
    assert "[providers." in english


# The demo


def test_services_of_the_demo_are_told() -> None:
    text = (ROOT / "docs/testing.md").read_text()
    assert {mount for mount in MOUNTS if f"`{mount}`" not in text} == set()


def test_kinds_of_notices_are_told() -> None:
    source = "".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    told = {kind for row in rows(ROOT / "docs/library.md", "kind") for kind in names_in(row[0])}
    assert told == set(re.findall(r'Notice\(\s*"(\w+)"', source))


# Parts and packages


def test_every_part_of_the_gateway_is_told() -> None:
    text = (ROOT / "docs/architecture.md").read_text().partition("## The gateway")[2].partition("\n## ")[0]
    folder = ROOT / "src/tolmach/gateway"
    parts = {path.relative_to(folder).as_posix() for path in folder.rglob("*.py") if path.name != "__init__.py"}
    told = {name for name in names_in(text) if name.endswith(".py")}
    assert {part for part in parts if part not in told and part.partition("/")[2] not in told} == set()
    assert {name for name in told if name not in parts and f"surfaces/{name}" not in parts} == set()


def test_dependencies_are_those_of_the_project() -> None:
    page = ROOT / "docs/dependencies.md"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {re.split(r"[^\w-]", line)[0] for line in project["dependencies"]}
    assert {names_in(row[0])[0] for row in rows(page, "package")} == wanted
    assert {names_in(row[0])[0] for row in rows(page, "extra")} == project["optional-dependencies"].keys()
    numbers = ("Seven", "Eight", "Nine", "Ten")
    assert f"{numbers[len(wanted) - 7]} at run time" in page.read_text()


# Protocols, errors, names


def test_every_public_name_of_the_library_page_exists() -> None:
    text = (ROOT / "docs/library.md").read_text()
    imported = {n.strip() for names in re.findall(r"from tolmach import (.+)", text) for n in names.split(",")}
    assert imported <= set(tolmach.__all__)
