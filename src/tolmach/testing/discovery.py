"""How well discovery tells pages with an assistant from others: `python -m tolmach.testing.discovery [CORPUS]...`.

A CORPUS is a folder: recordings (`page*.json`, of the family that their folder is named for), and pages
(`*.html`) with what stands on them in `expected.json` (file -> list of protocols, or of protocol and bot).
The pages of `tolmach.testing.pages` always belong to it. Printed are precision, recall, the processor
time a page, and each miss; the exit code is 1 when precision is below 1 or recall below 0.95.
"""

import argparse
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec
from msgspec import Struct

from tolmach.discovery import Page, recognise
from tolmach.testing.pages import Labelled, labelled_pages
from tolmach.testing.recordings import load

__all__ = ["Score", "corpus", "main", "score"]

FAMILIES = {"aiengine": "ai-engine", "aipower": "ai-power", "aipkit": "aipkit"}
"""How the folders of recordings begin -> the protocol of their pages."""


class Score(Struct):
    """Counts of assistants, and what was missed."""

    pages: int = 0
    with_assistant: int = 0
    right: int = 0
    wrong: int = 0
    missed: int = 0
    misses: list[str] = []
    milliseconds: list[float] = []

    @property
    def precision(self) -> float:
        return self.right / (self.right + self.wrong) if self.right + self.wrong else 1.0

    @property
    def recall(self) -> float:
        return self.right / (self.right + self.missed) if self.right + self.missed else 1.0

    def lines(self) -> Iterator[str]:
        """The score for people."""
        times = sorted(self.milliseconds) or [0.0]
        yield f"pages      {self.pages}, {self.with_assistant} with an assistant"
        yield f"precision  {self.precision:.4f}  ({self.wrong} that are none)"
        yield f"recall     {self.recall:.4f}  ({self.missed} not seen)"
        median, p95 = statistics.median(times), times[int(len(times) * 0.95)]
        yield f"CPU        {median:.2f} ms a page at the median, {p95:.2f} ms at p95"
        yield from self.misses


def score(pages: Iterable[Labelled]) -> Score:
    """What `recognise` finds on these pages, against what stands there. A bot of `*` stands for any."""
    total = Score()
    for labelled in pages:
        began = time.process_time()
        findings = recognise(labelled.page)
        total.milliseconds.append((time.process_time() - began) * 1000)
        named = {protocol for protocol, bot in labelled.expected if bot == "*"}
        found = Counter((one.protocol, "*" if one.protocol in named else one.bot) for one in findings.found)
        expected = Counter(labelled.expected)
        if named:
            # Their number is not known: one of each counts, and more are no mistake.
            found = Counter(dict.fromkeys(found, 1))
        total.pages += 1
        total.with_assistant += bool(expected)
        total.right += (found & expected).total()
        for what, excess in (("not one", found - expected), ("not seen", expected - found)):
            total.misses += [f"{labelled.name}: {what}: {' '.join(one)}" for one in excess.elements()]
        total.wrong += (found - expected).total()
        total.missed += (expected - found).total()
    return total


def corpus(folder: Path) -> Iterator[Labelled]:
    """The pages of a folder and of those below it."""
    for file in sorted(folder.rglob("page*.json")):
        family = next((name for start, name in FAMILIES.items() if file.parent.name.startswith(start)), None)
        if family is not None:
            yield from _recorded(file, family)
    for listing in sorted(folder.rglob("expected.json")):
        labels = msgspec.json.decode(listing.read_bytes(), type=dict[str, list[str | list[str]]])
        for name, told in labels.items():
            page = Page("", (listing.parent / name).read_bytes())
            expected = tuple((one, "*") if isinstance(one, str) else (one[0], one[1]) for one in told)
            yield Labelled(name, page, expected)


def _recorded(file: Path, family: str) -> Iterator[Labelled]:
    recording = load(file)
    expected = () if recording.case.startswith("page-plain") else ((family, "*"),)
    for exchange in recording.exchanges:
        if exchange.request.method == "GET" and exchange.head.content_type == "text/html":
            url, head = exchange.request.url, exchange.head
            page = Page(url, exchange.body(), head.status, head.headers)
            yield Labelled(recording.name, page, expected)


def main(arguments: list[str] | None = None) -> int:
    """Score the corpora named, with the written pages, and print it."""
    parser = argparse.ArgumentParser(prog="python -m tolmach.testing.discovery", description=__doc__)
    parser.add_argument("corpora", nargs="*", type=Path, metavar="CORPUS", help="folder of recordings or pages")
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="write the written pages there")
    given = parser.parse_args(arguments)
    written = list(labelled_pages())
    if given.write is not None:
        _write(given.write, written)
    total = score([*written, *(page for folder in given.corpora for page in corpus(folder))])
    print("\n".join(total.lines()))
    return 0 if total.precision == 1.0 and total.recall >= 0.95 else 1


def _write(folder: Path, pages: list[Labelled]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    listing: dict[str, list[list[str]]] = {}
    for labelled in pages:
        # A file has no address: pages that are known by theirs cannot be written.
        if labelled.page.headers.get("content-type", "").startswith("text/html"):
            listing[f"{labelled.name}.html"] = [list(one) for one in labelled.expected]
            (folder / f"{labelled.name}.html").write_bytes(labelled.page.body)
    (folder / "expected.json").write_bytes(msgspec.json.format(msgspec.json.encode(listing), indent=1))


if __name__ == "__main__":
    sys.exit(main())
