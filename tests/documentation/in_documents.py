"""What the documents say that there is: the other half of `in_code`. Each reads pages given by name."""

import re
from collections.abc import Callable, Iterator, Mapping

from tests.documentation.documents import DOCS, name_of, names_in, rows_of
from tests.documentation.in_code import EVERY

Pages = Mapping[str, str]
"""The documents' texts by name."""


def pages() -> Pages:
    return {name_of(path): path.read_text(encoding="utf-8") for path in DOCS}


def keys(page: str) -> Callable[[Pages], set[str]]:
    """The keys in the tables of a page about a file, as `in_code.keys` names them.

    Which table of the file they stand in says the heading above, or a line `Only in [...]`, or the table itself.
    """

    def found(texts: Pages) -> set[str]:
        named = set(_keys(texts[page]))
        tables = {name.rpartition(".")[0] for name in named}
        return named - tables

    return found


def _keys(text: str) -> Iterator[str]:
    scope: list[str] = []
    told = False
    for line in text.splitlines():
        first = names_in(line.split("|")[1]) if line.startswith("|") else []
        if line.startswith(("#", "Only in ")):
            scope = _tables(line)
        elif re.match(r"\| (?:key|Key) \|", line) or (not told and first and _tables(line)):
            told = True
            scope = _tables(line.split("|")[1]) or scope
        elif line.startswith("|") and told:
            yield from (f"{table}.{key}" for table in scope for key in first)
        told = told and line.startswith("|")


def _tables(text: str) -> list[str]:
    """`[routes.NAME]` and `[[stale]]` as they are called here: without brackets, and without a name that is free."""
    names = re.findall(r"`\[+([a-z][^\]]*)\]+`", text)
    return [re.sub(r'\."?[A-Z]+"?$', "", name) for name in names]


def protocols(texts: Pages) -> set[str]:
    """Those that have a page, and the options in its table: `openai path`."""
    found = set()
    for page, text in texts.items():
        name = re.search(r"^# .*\(`([a-z-]+)`\)$", text, re.M)
        if page.startswith("docs/protocols/") and name:
            found.add(name[1])
            found |= {f"{name[1]} {option}" for row in rows_of(text, "option") for option in names_in(row[0])}
    return found


def commands(texts: Pages) -> set[str]:
    """Those of the table, and what stands there of their own commands: `keys add`."""
    found = {"tolmach"}
    for row in rows_of(texts["docs/command.md"], "command"):
        [name] = names_in(row[0])
        word = name.removeprefix("tolmach ")
        found |= {name, *(f"tolmach {inner}" for inner in names_in(row[1]) if inner.startswith(f"{word} "))}
    return found


def options(texts: Pages) -> set[str]:
    """Of each table `option of ...`."""
    found = set()
    text = texts["docs/command.md"]
    for heading in re.findall(r"^\| (option of [^|]+) \|", text, re.M):
        owners = names_in(heading) or [EVERY]
        flags = [flag for row in rows_of(text, heading) for name in names_in(row[0]) for flag in [name.split()[0]]]
        for owner in owners:
            name = owner if owner in (EVERY, "tolmach") else f"tolmach {owner}"
            found |= {f"{name} {flag}" for flag in flags}
    return found


def exit_codes(texts: Pages) -> set[str]:
    return {row[0] for row in rows_of(texts["docs/command.md"], "code")}


def errors(texts: Pages) -> set[str]:
    """Those of the tree, and of the table below it."""
    text = texts["docs/architecture.md"]
    tree = text.partition("\n## Errors\n")[2].partition("```\n")[2].partition("```")[0]
    names = re.findall(r"(?:^|[├└]─ )([A-Z]\w+(?:, [A-Z]\w+)*)", tree, re.M)
    found = {name for several in names for name in several.split(", ")}
    return found | {name for row in rows_of(text, "error of a part") for name in names_in(row[0])}


def headers(texts: Pages) -> set[str]:
    """Of the gateway's tables, of that about limits, and ours wherever they are named."""
    gateway, limits = texts["docs/gateway.md"], texts["docs/keys.md"]
    tables = (rows_of(gateway, "header of the question"), rows_of(gateway, "header of the answer"))
    found = {name for table in (*tables, rows_of(limits, "header")) for row in table for name in names_in(row[0])}
    return found.union(*(re.findall(r"`(x-tolmach-[a-z-]*[a-z])`", text) for text in texts.values()))


def metrics(texts: Pages) -> set[str]:
    table = rows_of(texts["docs/observability.md"], "metric")
    return {f"{names_in(name)[0]} ({', '.join(sorted(names_in(labels)))})" for name, labels, _ in table}


def variables(texts: Pages) -> set[str]:
    """Of the table, and ours wherever they are named."""
    found = {name for row in rows_of(texts["docs/configuration.md"], "variable") for name in names_in(row[0])}
    named = {name for text in texts.values() for name in re.findall(r"\b(TOLMACH_(?!GATEWAY_)[A-Z_]*[A-Z])\b", text)}
    return found | named


def faults(texts: Pages) -> set[str]:
    """The first words of the lines of the list."""
    listed = texts["docs/testing.md"].partition("\n## Faults\n")[2].partition("```text\n")[2].partition("```")[0]
    return {line.split()[0].partition("=")[0] for line in listed.splitlines()}
