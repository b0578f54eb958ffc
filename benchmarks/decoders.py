"""How fast the decoders read: MB and events a second, beside `json.loads` of the same payloads.

    python benchmarks/decoders.py [FOLDER]

For each protocol its longest recorded answers, in the pieces in which they arrived. The yardstick
parses the JSON that the answers are made of, found beforehand, and does nothing else: no lines, no
events, no checks. FOLDER is by default tests/captures.
"""

import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

from report import heading, table

from tolmach.testing import recordings
from tolmach.testing.conformance import Answer, answers, run

SECONDS = 1.0
LONGEST = 5

_DATA = re.compile(rb"^data: ?(\{.*)$", re.M)


def _payloads(body: bytes) -> list[str]:
    """The JSON texts of a body: its events' data, its lines, or itself."""
    lines = [line for line in body.splitlines() if line.strip()]
    objects = all(line.startswith(b"{") and line.endswith(b"}") for line in lines)
    found = _DATA.findall(body) or (lines if objects else [body])
    texts = [data.strip().removeprefix(b"\xef\xbb\xbf").decode() for data in found]
    return [text for text in texts if text.startswith("{")]


def _rate(work: Callable[[], int]) -> tuple[float, float]:
    """(rounds a second, what `work` counts a second), measured for about `SECONDS`."""
    work()
    rounds = counted = 0
    start = time.perf_counter()
    while (took := time.perf_counter() - start) < SECONDS:
        counted += work()
        rounds += 1
    return rounds / took, counted / took


def _decode(chosen: list[Answer]) -> int:
    events = 0
    for answer in chosen:
        decoder = answer.reader(answer.head)
        for piece in answer.pieces:
            for _ in decoder.feed(piece):
                events += 1
        for _ in decoder.close():
            events += 1
    return events


def _parse(texts: list[str]) -> int:
    for text in texts:
        json.loads(text)
    return len(texts)


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "tests/captures")
    found: dict[str, list[Answer]] = {}
    for path in recordings.find(folder):
        for answer in answers(recordings.load(path)):
            if run(answer, answer.pieces).failure is None:
                found.setdefault(answer.protocol, []).append(answer)
    heading("msgspec")
    rows = []
    for protocol, some in found.items():
        chosen = sorted(some, key=lambda answer: -len(answer.body))[:LONGEST]
        size = sum(len(answer.body) for answer in chosen)
        pieces = sum(len(answer.pieces) for answer in chosen)
        texts = [text for answer in chosen for text in _payloads(answer.body)]
        rounds, events = _rate(lambda chosen=chosen: _decode(chosen))  # type: ignore[misc]
        bare, _ = _rate(lambda texts=texts: _parse(texts))  # type: ignore[misc]
        parsed = sum(len(text.encode()) for text in texts)
        speed, yardstick = rounds * size / 1e6, bare * parsed / 1e6
        rows.append(
            (
                protocol,
                len(chosen),
                size,
                pieces,
                f"{speed:.1f}",
                f"{events:,.0f}",
                f"{yardstick:.1f}",
                f"{speed / yardstick:.2f}",
            )
        )
    table(("protocol", "answers", "bytes", "pieces", "MB/s", "events/s", "json.loads MB/s", "ratio"), rows)


if __name__ == "__main__":
    main()
