"""The documents as tests read them: which there are, their code blocks and tables, and what their examples ask."""

import re
from collections.abc import Iterator
from pathlib import Path

from tolmach.configuration import Settings
from tolmach.gateway.assembly import build
from tolmach.gateway.core import Gateway

ROOT = Path(__file__).resolve().parents[2]
READMES = [ROOT / "README.md", ROOT / "README.ru.md"]
DOCS = [*READMES, *(ROOT / name for name in ("CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "examples/README.md"))]
DOCS += sorted((ROOT / "docs").rglob("*.md"))
DEMO = "http://127.0.0.1:8190"
"""Where the documents say that the demo is."""
GATEWAY = "http://127.0.0.1:8080"
"""Where they say that the gateway is."""


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks(path: Path, language: str) -> list[str]:
    """The fenced code blocks of a language, without the indentation of the list that they may stand in."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^\1```", path.read_text(), re.M | re.S)
    return [re.sub(rf"^{indent}", "", text, flags=re.M) for indent, text in found]


def rows(path: Path, heading: str) -> list[list[str]]:
    """The cells of the table of a document whose first heading is this, row by row."""
    found = rows_of(path.read_text(), heading)
    assert found, f"{name_of(path)} has no table with the heading {heading!r}"
    return found


def rows_of(text: str, heading: str) -> list[list[str]]:
    """The same of a text, and of all of its tables with this heading."""
    lines = iter(text.splitlines())
    return [row for line in lines if line.startswith(f"| {heading} |") for row in _rows(lines)]


def _rows(lines: Iterator[str]) -> Iterator[list[str]]:
    next(lines)  # the rule below the headings
    for line in lines:
        if not line.startswith("|"):
            return
        yield [cell.strip() for cell in line.strip().strip("|").split("|")]


def names_in(text: str) -> list[str]:
    """What stands in backquotes."""
    return re.findall(r"`([^`]+)`", text)


def documented_gateway(path: Path, folder: Path, demo_url: str) -> Gateway:
    """The gateway of a document's `tolmach.toml`, before this demo."""
    [text] = [block for block in blocks(path, "toml") if DEMO in block]
    file = folder / "tolmach.toml"
    file.write_text(text.replace(DEMO, demo_url))
    return build(Settings.load(file, environ={}))
