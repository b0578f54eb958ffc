"""What discovery found, for people: a table an assistant."""

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tolmach.cli.output import new_console, say
from tolmach.discovery import Findings, Found
from tolmach.safe_text import one_line

if TYPE_CHECKING:
    from tolmach.pages.session import Assistant

__all__ = ["introduction", "others", "print_findings", "print_row"]

_KINDS = {"inline": "in the page", "popup": "in a popup", "api": "an API"}


def print_findings(findings: Findings, unknown: int = 0) -> None:
    """Print the assistants, then what is wrong with the page. `unknown` counts exchanges with an unknown chat."""
    for number, found in enumerate(findings.found, 1):
        title = _title(found)
        head = f"{number}. {' '.join(filter(None, (found.protocol, found.version)))}{f': {title}' if title else ''}"
        lines = [(name, one_line(" ".join(value.split()))) for name, value in _lines(found)]
        if sys.stdout.isatty():
            _print_table(head, lines)
        else:
            # In a pipe a line stays a line, however long.
            say("\n".join((head, *(f"   {name:<9} {value}" for name, value in lines))))
    if not findings.found:
        say("no assistant was found")
    for named in findings.named:
        say(f"there is {named.line}")
    for missing in findings.missing:
        say(f"{missing.kind}: {missing.text}")
    for hint in () if findings.found else findings.hints:
        say(f"hint: {hint}")
    if unknown:
        say(f"hint: {unknown} exchanges may be with a chat that is not known")


def introduction(assistant: "Assistant") -> Iterator[str]:
    """Who is asked on a page, in lines: the greeting, the bot, what the site takes."""
    found = assistant.found
    if found.greeting:
        yield " ".join(found.greeting.split())
    said = [_title(found), " ".join(filter(None, (found.protocol, found.version)))]
    if found.limit is not None:
        said.append(f"{found.limit.most} {found.limit.unit} a message")
    yield ", ".join(filter(None, said))


def others(assistant: "Assistant") -> str:
    """A line that names the other assistants of the page; empty where there is none."""
    if not assistant.others:
        return ""
    named = ", ".join(_title(one) or one.protocol for one in assistant.others)
    asked = _title(assistant.found) or assistant.found.protocol
    return f"this asks {asked}; also on the page: {named} (--bot ID chooses)"


def _title(found: Found) -> str:
    return f"{found.name} ({found.bot})" if found.name and found.bot else found.name or found.bot


def _print_table(head: str, lines: list[tuple[str, str]]) -> None:
    from rich.table import Table

    console = new_console()
    console.print(head, style="bold")
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    for name, value in lines:
        table.add_row(f"   {name}", value)
    console.print(table)


def print_row(line: str) -> None:
    """A line about what was written, beside the findings."""
    say(line, err=True)


def _lines(found: Found) -> Iterator[tuple[str, str]]:
    yield "where", f"{_KINDS[found.kind]}{f', {found.page}' if found.page else ''}"
    if found.bot:
        yield "bot", found.bot
    if found.greeting:
        yield "greeting", found.greeting
    if found.models:
        yield "models", ", ".join(found.models[:8]) + (", …" if len(found.models) > 8 else "")
    yield "streams", _yes(found.stream)
    yield "guests", _yes(found.guests)
    yield "uploads", ", ".join(found.uploads) or "none seen"
    if found.limit is not None:
        yield "limit", f"{found.limit.most} {found.limit.unit} a message"
    if found.consent:
        yield "consent", found.consent
    for missing in found.missing:
        yield "missing", f"{missing.kind}: {missing.text}"
    for evidence in found.evidence:
        yield "seen", f"{evidence.where}: {evidence.says}"
    if found.protocol == "recipe":
        yield from _inferred_lines(found)
    # A recipe's tables are no line to read: they are in the JSON, and in the file that --save writes.
    row = {"protocol": "recipe", "url": found.row["url"]} if found.protocol == "recipe" else found.row
    yield "row", ", ".join(f"{key} = {value!r}" for key, value in row.items())


def _inferred_lines(found: Found) -> Iterator[tuple[str, str]]:
    """How sure a recipe is that was made of traffic. Its module is loaded for such alone."""
    from tolmach.cli.inferred import FoundRecipe

    if isinstance(found, FoundRecipe):
        yield "sure", f"{found.sure:.0%}, as the least sure part"
        for part in found.parts:
            yield "part", f"{part.sure:.0%} {part.name}{f', {part.where}' if part.where else ''}: {part.reason}"
        for ignored in found.ignored:
            yield "ignored", f"{ignored.what}: {ignored.reason}"


def _yes(value: bool | None) -> str:
    return "not visible" if value is None else "yes" if value else "no"
