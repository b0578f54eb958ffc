"""Go on with the conformance suite, with damage that never ends.

    python -m tolmach.testing.fuzz --seconds 60 [--seed S] [--cases N] [--recipe FILE ...] [FOLDER ...]

Takes recorded answers from the folders (by default `tests/captures` of the current one), damages
their bytes, their JSON, their events and their heads, and looks at what comes out as
`tolmach.testing.conformance` does. With `--recipe` the answers are those to the recipe's questions,
and are read by it. Case number n of a run with seed S is the first case of a run with seed S + n, so
one number brings a failure back. Exit code 0 when nothing was found, 1 with the seed of the first
failure, 2 for wrong arguments.
"""

import argparse
import random
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from msgspec import Struct, structs

from tolmach.errors import ConfigError
from tolmach.providers.registry import configured
from tolmach.testing import recordings
from tolmach.testing.conformance import Answer, Violation, answers, check_same, mutate, run
from tolmach.testing.damage import damage_head, damage_structure
from tolmach.testing.decode import cut_at_random

__all__ = ["Tally", "collect", "fuzz", "main", "one_case"]

DEFAULT_FOLDER = Path("tests/captures")

SLOW_SECONDS = 5.0
"""No case may take longer: a decoder that does hangs on some input."""

Damage = Callable[[bytes, random.Random], bytes]


def _both(body: bytes, rng: random.Random) -> bytes:
    return mutate(damage_structure(body, rng), rng)


_DAMAGES: tuple[Damage, ...] = (mutate, damage_structure, damage_structure, _both)


class Tally(Struct):
    """What was done for one protocol: cases, the bytes read in them, and the seconds they took."""

    answers: int
    cases: int = 0
    size: int = 0
    seconds: float = 0.0


def collect(folders: Sequence[Path], recipes: Sequence[Path] = ()) -> dict[str, list[Answer]]:
    """The recorded answers by protocol; with `recipes`, files, those to the recipes' questions alone.

    Raises `ConfigError` when a folder has no recordings, or they no answers, and for a file that is no recipe.
    """
    found: dict[str, list[Answer]] = {}
    known = [configured("recipe", {"recipe": str(file)}) for file in recipes] or None
    for folder in folders:
        for path in recordings.find(folder):
            for answer in answers(recordings.load(path), known):
                found.setdefault(answer.protocol, []).append(answer)
    if not found:
        raise ConfigError(f"no chat answers in the recordings of {', '.join(map(str, folders))}")
    return found


def one_case(recorded: dict[str, list[Answer]], seed: int) -> tuple[str, int]:
    """One case: gives the protocol and the bytes read. Raises `Violation`."""
    rng = random.Random(seed)
    protocol = rng.choice(sorted(recorded))
    answer = rng.choice(recorded[protocol])
    if rng.random() < 0.1:
        return protocol, _cut_off(answer, rng)
    if rng.random() < 0.25:
        answer = structs.replace(answer, head=damage_head(answer.head, rng))
    body = rng.choice(_DAMAGES)(answer.body, rng)
    expected = run(answer, [body], "whole")
    cuts = [cut_at_random(body, rng) for _ in range(2)]
    if len(body) <= 4096:
        cuts.append([body[i : i + 1] for i in range(len(body))])
    for pieces in cuts:
        check_same(answer, run(answer, pieces, "cut"), expected, f"cut into {len(pieces)} pieces")
    return protocol, len(body) * (1 + len(cuts))


def _cut_off(answer: Answer, rng: random.Random) -> int:
    """A recorded answer cut off at a random place must fail, or be as the whole."""
    body = answer.body
    end = rng.randrange(len(body) + 1)
    outcome = run(answer, cut_at_random(body[:end], rng), f"cut off after {end} of {len(body)} bytes")
    if outcome.failure is None:
        check_same(answer, outcome, run(answer, [body], "whole"), f"cut off after {end} of {len(body)} bytes")
    return end


def fuzz(
    recorded: dict[str, list[Answer]], *, seed: int, seconds: float, cases: int | None = None
) -> tuple[dict[str, Tally], tuple[int, Violation] | None]:
    """Cases until the time or their number is up, or one fails: the tally, and the failure with its seed."""
    tallies = {name: Tally(len(some)) for name, some in sorted(recorded.items())}
    end = time.monotonic() + seconds
    number = 0
    while time.monotonic() < end and (cases is None or number < cases):
        start = time.perf_counter()
        try:
            protocol, size = one_case(recorded, seed + number)
            took = time.perf_counter() - start
            if took > SLOW_SECONDS:
                raise Violation(f"{protocol}: the case took {took:.1f} seconds")
        except Violation as violation:
            return tallies, (seed + number, violation)
        tally = tallies[protocol]
        tally.cases += 1
        tally.size += size
        tally.seconds += took
        number += 1
    return tallies, None


def _table(tallies: dict[str, Tally]) -> str:
    total = Tally(0)
    for tally in tallies.values():
        total.answers += tally.answers
        total.cases += tally.cases
        total.size += tally.size
        total.seconds += tally.seconds
    lines = [f"{'protocol':<14}{'answers':>9}{'cases':>10}{'cases/s':>10}{'MB/s':>8}"]
    for name, tally in [*tallies.items(), ("all", total)]:
        seconds = tally.seconds or 1.0
        rate, speed = tally.cases / seconds, tally.size / seconds / 1e6
        lines.append(f"{name:<14}{tally.answers:>9}{tally.cases:>10}{rate:>10.0f}{speed:>8.2f}")
    return "\n".join(lines)


def _arguments(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER", help="folders of recordings")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long to go on (default: 10)")
    parser.add_argument("--seed", type=int, default=None, help="the first case's seed (default: from the clock)")
    parser.add_argument("--cases", type=int, default=None, help="how many cases at most")
    parser.add_argument(
        "--recipe", action="append", default=[], type=Path, metavar="FILE", help="read by this recipe; may be repeated"
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; gives its exit code."""
    parser = argparse.ArgumentParser(prog="python -m tolmach.testing.fuzz", description="Fuzz the decoders.")
    options = _arguments(parser, arguments)
    if not options.folders and not DEFAULT_FOLDER.is_dir():
        parser.error(f"no {DEFAULT_FOLDER} here: name a folder of recordings, <family>/<case>.json")
    seed = options.seed if options.seed is not None else time.time_ns() % 10**9
    folders = options.folders or [DEFAULT_FOLDER]
    try:
        recorded = collect(folders, options.recipe)
    except ConfigError as error:
        parser.error(str(error))
    print(f"seed {seed}, {options.seconds:g} seconds", flush=True)
    tallies, failure = fuzz(recorded, seed=seed, seconds=options.seconds, cases=options.cases)
    print(_table(tallies))
    if failure is None:
        return 0
    at, violation = failure
    print(f"\nFAILED: {violation}", file=sys.stderr)
    recipes = [f"--recipe {file}" for file in options.recipe]
    again = " ".join(["python -m tolmach.testing.fuzz", f"--seed {at} --cases 1", *recipes, *map(str, options.folders)])
    print(f"again: {again}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
