"""Sweeps go over what there is much of: every cut of every recording, whole matrices, any number of made-up examples.

A run takes a part of each, by a seed that changes with the commit, so that all is gone through in time; with `--all`
it takes the whole. `tests/conftest.py` has the options.
"""

import random
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

from hypothesis import settings

__all__ = ["begin", "commits_seed", "examples", "part", "seed", "whole"]

T = TypeVar("T")

ROOT = Path(__file__).parents[1]

_FEWER = 5
"""By so much fewer examples are made up for a property, unless all are asked for."""
_FEWEST = 25

_whole = False
_seed = 0


def begin(*, whole: bool, seed: int) -> None:
    """Say what is taken, before the tests are collected."""
    global _whole, _seed
    _whole, _seed = whole, seed


def commits_seed() -> int:
    """The seed of the commit that is checked out; 0 where there is none (an unpacked sdist)."""
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return int(done.stdout[:8], 16) if done.returncode == 0 else 0


def whole() -> bool:
    """Whether the whole of each sweep is taken."""
    return _whole


def seed() -> int:
    """The seed of this run: the same in all of its processes."""
    return _seed


def part(cases: Iterable[T], most: int, name: str) -> list[T]:
    """At most so many of the cases, in their order: other ones by each seed. `name` tells one sweep from another."""
    found = list(cases)
    if _whole or len(found) <= most:
        return found
    chosen = random.Random(f"{_seed}/{name}").sample(range(len(found)), most)
    return [found[place] for place in sorted(chosen)]


def examples(number: int) -> settings:
    """How many examples hypothesis makes up for a property: other ones in each run, and each takes its time."""
    return settings(max_examples=number if _whole else max(_FEWEST, number // _FEWER), deadline=None)
