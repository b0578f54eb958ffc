"""Damaged traffic: a recipe or a `ConfigError`, never another exception."""

import json
from contextlib import suppress
from random import Random
from typing import Any

import pytest

from tests.recipes.apis import APIS
from tests.recipes.record import TRAFFIC
from tolmach.errors import ConfigError
from tolmach.protocols import create
from tolmach.recipes.har import read_har
from tolmach.recipes.infer import infer
from tolmach.recipes.writing import to_toml
from tolmach.testing.conformance import mutate


def _shuffled(har: Any, rng: Random) -> Any:
    """The HAR with some of its texts damaged, lost or exchanged."""
    entries = har["log"]["entries"]
    for entry in entries:
        content = entry["response"]["content"]
        if rng.random() < 0.5:
            content["text"] = mutate(content["text"].encode(), rng).decode("utf-8", "replace")
        if "postData" in entry["request"] and rng.random() < 0.3:
            post = entry["request"]["postData"]
            post["text"] = mutate(post["text"].encode(), rng).decode("utf-8", "replace")
    rng.shuffle(entries)
    return har


@pytest.mark.parametrize("name", APIS)
def test_damaged_recordings(name: str) -> None:
    whole = (TRAFFIC / f"{name}.har").read_text(encoding="utf-8")
    drafts = 0
    for seed in range(12):
        har = _shuffled(json.loads(whole), Random(seed))
        with suppress(ConfigError):
            draft = infer(read_har(json.dumps(har).encode()))
            drafts += 1
            assert to_toml(draft).startswith("# How ")
            create("recipe", draft.options)
    assert drafts > 3
