"""What becomes of a question when its first target has a fault: every fault, by every surface and every `recover`.

A cell says what the caller hears, and how many questions each target was sent:

- `ok 1` is the whole answer; the first target was asked once;
- `ok 1+1` is the whole answer; the first target was asked once, then the second;
- `502 3` is a refusal with this status; the first target was asked three times, as often as the route allows;
- `cut 1` is the beginning of the answer and an error event, without a mark of an end.

`3~` is three, or one more: when a kept connection is reset before the head, nobody knows whether the
service had seen the question, and it is sent once more on a fresh one (RFC 9112, 9.3.1).

The columns: an answer in one piece, of a route with this target `alone` and of one with `another`, a healthy one;
there `recover` changes nothing. Then streams, by `recover`. `passed` is a target that takes the caller's
body as it is, `read` one that is asked in its own protocol; `both` when that makes no difference. `*1` after a fault
has it happen once only. A question at which the fault strikes before it is sent is none: so `502 0`.

    python -m tests.gateway.answers.fault_matrix docs/routing.md

writes the table into the document.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from msgspec import Struct

__all__ = ["ROWS", "Cell", "Row", "markdown", "with_table"]

_TABLE = """
                                            in one piece      stream, alone              stream, another
fault               asked   surface             alone    another  off      restart  resume   off      restart  resume
stale-nonce         read    all                 ok 2     ok 2     ok 2     ok 2     ok 2     ok 2     ok 2     ok 2
stale-nonce-every=1 read    all                 ok 2     ok 2     ok 2     ok 2     ok 2     ok 2     ok 2     ok 2
nonce-expires       read    all                 ok 1     ok 1     ok 1     ok 1     ok 1     ok 1     ok 1     ok 1
nonce-refused       read    all                 502 1    ok 1+1   502 1    502 1    502 1    ok 1+1   ok 1+1   ok 1+1
cached-page         read    all                 ok 2     ok 2     ok 2     ok 2     ok 2     ok 2     ok 2     ok 2
401                 both    all                 401 1    ok 1+1   401 1    401 1    401 1    ok 1+1   ok 1+1   ok 1+1
403-challenge       passed  all                 403 1    ok 1+1   403 1    403 1    403 1    ok 1+1   ok 1+1   ok 1+1
403-challenge       read    all                 502 1    ok 1+1   502 1    502 1    502 1    ok 1+1   ok 1+1   ok 1+1
429                 both    all                 429 3    ok 1+1   429 3    429 3    429 3    ok 1+1   ok 1+1   ok 1+1
429-retry-after=60  both    all                 429 1    ok 1+1   429 1    429 1    429 1    ok 1+1   ok 1+1   ok 1+1
429-retry-after=1*1 both    all                 ok 2     ok 1+1   ok 2     ok 2     ok 2     ok 1+1   ok 1+1   ok 1+1
500                 passed  all                 500 3    ok 2+1   500 3    500 3    500 3    ok 2+1   ok 2+1   ok 2+1
500                 read    all                 502 3    ok 2+1   502 3    502 3    502 3    ok 2+1   ok 2+1   ok 2+1
500*1               both    all                 ok 2     ok 2     ok 2     ok 2     ok 2     ok 2     ok 2     ok 2
502-html            both    all                 502 3    ok 2+1   502 3    502 3    502 3    ok 2+1   ok 2+1   ok 2+1
html                both    all                 502 3    ok 1+1   502 3    502 3    502 3    ok 1+1   ok 1+1   ok 1+1
reset               both    all                 502 3~   ok 1~+1  502 3~   502 3~   502 3~   ok 1~+1  ok 1~+1  ok 1~+1
silence             both    all                 504 3    ok 1+1   504 3    504 3    504 3    ok 1+1   ok 1+1   ok 1+1
slow-first-token=3  both    all                 504 3    ok 1+1   504 3    504 3    504 3    ok 1+1   ok 1+1   ok 1+1
delay=0.01          both    all                 ok 1     ok 1     ok 1     ok 1     ok 1     ok 1     ok 1     ok 1
cut                 both    all                 502 3    ok 1+1   cut 1    502 3    cut 3    cut 1    ok 1+1   ok 1+1
cut=5*1             both    all                 ok 2     ok 1+1   cut 1    ok 2     ok 2     cut 1    ok 1+1   ok 1+1
stall               both    all                 504 3    ok 1+1   cut 1    504 3    cut 3    cut 1    ok 1+1   ok 1+1
stall=5*1           both    all                 ok 2     ok 1+1   cut 1    ok 2     ok 2     cut 1    ok 1+1   ok 1+1
malformed           both    all                 502 3    ok 1+1   cut 1    502 3    ok 1     cut 1    ok 1+1   ok 1
malformed=5*1       both    all                 ok 2     ok 1+1   cut 1    ok 2     ok 1     cut 1    ok 1+1   ok 1
missing-end         both    all                 502 3    ok 1+1   cut 1    502 3    cut 3    cut 1    ok 1+1   ok 1+1
missing-done        both    openai,anthropic    ok 1     ok 1     ok 1     ok 1     ok 1     ok 1     ok 1     ok 1
missing-done        both    responses           ok 1     ok 1     ok 1     ok 1     ok 1     ok 1     ok 1     ok 1
junk                passed  openai              502 3    ok 1+1   ok 1     ok 1     ok 1     ok 1     ok 1     ok 1
junk                passed  anthropic,responses ok 1     ok 1     ok 1     ok 1     ok 1     ok 1     ok 1     ok 1
junk                read    all                 ok 1     ok 1     ok 1     ok 1     ok 1     ok 1     ok 1     ok 1
split-utf8          both    all                 ok 1     ok 1     ok 1     ok 1     ok 1     ok 1     ok 1     ok 1
gzip                both    all                 ok 1     ok 1     ok 1     ok 1     ok 1     ok 1     ok 1     ok 1
lone-surrogate      both    all                 ok 1     ok 1     ok 1     ok 1     ok 1     ok 1     ok 1     ok 1
split-surrogate     both    all                 ok 1     ok 1     ok 1     ok 1     ok 1     ok 1     ok 1     ok 1
big-event=5         passed  all                 ok 1     ok 1     cut 1    502 3    cut 3    cut 1    ok 1+1   ok 1+1
big-event=5         read    all                 502 3    ok 1+1   cut 1    502 3    cut 3    cut 1    ok 1+1   ok 1+1
empty               passed  all                 ok 1     ok 1     ok 1     ok 1     ok 1     ok 1     ok 1     ok 1
empty               read    all                 502 3    ok 1+1   502 3    502 3    502 3    ok 1+1   ok 1+1   ok 1+1
guest-limit         both    all                 429 3    ok 1+1   429 3    429 3    429 3    ok 1+1   ok 1+1   ok 1+1
no-guests           read    all                 401 0    ok 0+1   401 0    401 0    401 0    ok 0+1   ok 0+1   ok 0+1
banned              passed  all                 400 1    400 1    400 1    400 1    400 1    400 1    400 1    400 1
banned              read    all                 403 1    403 1    403 1    403 1    403 1    403 1    403 1    403 1
no-prefill          passed  all                 ok 1     ok 1     ok 1     ok 1     ok 1     ok 1     ok 1     ok 1
upstream-error      passed  openai,responses    503 3    ok 2+1   503 3    503 3    503 3    ok 2+1   ok 2+1   ok 2+1
upstream-error      passed  anthropic           529 3    ok 2+1   529 3    529 3    529 3    ok 2+1   ok 2+1   ok 2+1
upstream-error      read    openai,responses    502 3    ok 1+1   502 3    502 3    502 3    ok 1+1   ok 1+1   ok 1+1
upstream-error      read    anthropic           529 3    ok 1+1   529 3    529 3    529 3    ok 1+1   ok 1+1   ok 1+1
upstream-cut        passed  openai,responses    502 3    ok 2+1   cut 1    502 3    cut 3    cut 1    ok 1+1   ok 1+1
upstream-cut        passed  anthropic           500 3    ok 2+1   cut 1    502 3    cut 3    cut 1    ok 1+1   ok 1+1
upstream-cut        read    all                 502 3    ok 1+1   cut 1    502 3    cut 3    cut 1    ok 1+1   ok 1+1
upstream-event      passed  openai,responses    502 3    ok 2+1   cut 1    502 3    cut 3    cut 1    ok 1+1   ok 1+1
upstream-event      passed  anthropic           500 3    ok 2+1   cut 1    529 3    cut 3    cut 1    ok 1+1   ok 1+1
upstream-event      read    all                 502 3    ok 1+1   cut 1    502 3    cut 3    cut 1    ok 1+1   ok 1+1
plugin-off          read    all                 502 0    ok 0+1   502 0    502 0    502 0    ok 0+1   ok 0+1   ok 0+1
turnstile           read    all                 502 0    ok 0+1   502 0    502 0    502 0    ok 0+1   ok 0+1   ok 0+1
arkose              read    all                 502 0    ok 0+1   502 0    502 0    502 0    ok 0+1   ok 0+1   ok 0+1
unusual-activity    read    all                 502 0    ok 0+1   502 0    502 0    502 0    ok 0+1   ok 0+1   ok 0+1
rewritten           read    all                 ok 1     ok 1     ok 1     ok 1     ok 1     ok 1     ok 1     ok 1
snapshots           read    all                 ok 1     ok 1     ok 1     ok 1     ok 1     ok 1     ok 1     ok 1
"""

_SURFACES = ("openai", "responses", "anthropic")
_RECOVER = ("off", "restart", "resume")


class Cell(Struct, frozen=True):
    """An expected outcome, and the questions sent to each target. `more` allows the first target one more."""

    outcome: str
    first: int
    second: int = 0
    more: bool = False

    def __str__(self) -> str:
        return f"{self.outcome} {self.first}{'~' if self.more else ''}" + (f"+{self.second}" if self.second else "")

    def allows(self, outcome: str, first: int, second: int) -> bool:
        return (outcome, second) == (self.outcome, self.second) and first in (self.first, self.first + self.more)


class Row(Struct, frozen=True):
    """The outcomes of one fault. `asked` is `passed`, `read` or `both`; `cells` are in the order of the table."""

    fault: str
    asked: str
    surfaces: tuple[str, ...]
    cells: tuple[Cell, ...]

    def __str__(self) -> str:
        return f"{self.fault}-{self.asked}-{self.surfaces[0]}"

    def cell(self, streamed: bool, recover: str, another: bool) -> Cell:
        return self.cells[2 + 3 * another + _RECOVER.index(recover)] if streamed else self.cells[another]

    @property
    def ways(self) -> tuple[Literal["passed", "read"], ...]:
        if self.asked == "both":
            return ("passed", "read")
        return ("passed",) if self.asked == "passed" else ("read",)


def _rows() -> Iterator[Row]:
    for line in _TABLE.strip().splitlines()[2:]:
        fault, asked, surfaces, *words = line.split()
        cells = tuple(_cell(*pair) for pair in zip(words[::2], words[1::2], strict=True))
        assert len(cells) == 8, line
        yield Row(fault, asked, _SURFACES if surfaces == "all" else tuple(surfaces.split(",")), cells)


def _cell(outcome: str, counts: str) -> Cell:
    first, _, second = counts.partition("+")
    return Cell(outcome, int(first.rstrip("~")), int(second or 0), first.endswith("~"))


ROWS = tuple(_rows())


def markdown() -> str:
    """The table for the documentation; faults with the same outcomes share a line."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for row in ROWS:
        surfaces = "all" if row.surfaces == _SURFACES else ", ".join(row.surfaces)
        alike.setdefault((row.asked, surfaces, *map(str, row.cells)), []).append(f"`{row.fault}`")
    head = ["fault", "body", "surface", "whole, alone", "whole, another", *(f"alone, {name}" for name in _RECOVER)]
    head += [f"another, {name}" for name in _RECOVER]
    lines = [head, ["---"] * len(head), *([", ".join(faults), *rest] for rest, faults in alike.items())]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


_PLACE = re.compile(r"(?<=<!-- the fault matrix -->\n).*?(?=<!-- end of the fault matrix -->)", re.DOTALL)


def with_table(text: str) -> str:
    """A document with the table as it is now."""
    return _PLACE.sub(lambda place: markdown(), text)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        path = Path(name)
        path.write_text(with_table(path.read_text(encoding="utf-8")), encoding="utf-8")
