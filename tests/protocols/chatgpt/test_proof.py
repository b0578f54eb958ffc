"""The proof of work, against a second, naive implementation."""

import base64
import hashlib
import json
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tolmach.errors import ConfigError, ProofOfWorkError, RemoteProtocolError
from tolmach.protocols.chatgpt import proof
from tolmach.protocols.chatgpt.proof import (
    ATTEMPTS,
    Profile,
    check_puzzle,
    get_answer_token,
    get_config,
    get_requirements_token,
    solve,
)

AGENT = "Mozilla/5.0 (X11; Linux x86_64) Chrome/127.0.0.0"
CONFIG = get_config(AGENT, now=1_795_000_000.25, started=1_794_999_990.0, uuid="0f6f2a10-0000-4000-8000-000000000001")


def attempt(config: list[Any], i: int) -> bytes:
    """The base64 text of one attempt, written down as the description has it."""
    values = list(config)
    values[3], values[9] = i, i >> 1
    return base64.b64encode(json.dumps(values, separators=(",", ":"), ensure_ascii=False).encode())


def naive(seed: str, difficulty: str, config: list[Any], attempts: int) -> tuple[int, str] | None:
    target = bytes.fromhex(difficulty)
    for i in range(attempts):
        text = attempt(config, i)
        if hashlib.sha3_512(seed.encode() + text).digest()[: len(target)] <= target:
            return i, text.decode()
    return None


def test_config():
    assert CONFIG == [
        3000,
        "Wed Nov 18 2026 11:06:40 GMT+0000 (Coordinated Universal Time)",
        4294705152,
        0,
        AGENT,
        None,
        "",
        "en-US",
        "en-US,en",
        0,
        "language−en-US",
        "location",
        "window",
        10250.0,
        "0f6f2a10-0000-4000-8000-000000000001",
        "",
        8,
        1794999990.0,
    ]
    assert get_config(AGENT, now=0.0, profile=Profile(screen=1, cores=2))[::16] == [1, 2]


# (seed, difficulty, the first i that wins, the beginning of the token's SHA-256): made once by `naive`.
VECTORS = [
    ("0.42", "0fffff", 4, "9a636af230562ec4"),
    ("0.8317294", "00ffff", 623, "2c86ec092acf7e2a"),
    ("семя", "003fff", 1024, "d7722c6e64912c0e"),
    ("", "01", 128, "d5fd788440a2ab21"),
    ("0.1", "0007ff", 96, "7f58ed77b5af60eb"),
]


@pytest.mark.parametrize(("seed", "difficulty", "i", "digest"), VECTORS)
def test_vectors(seed, difficulty, i, digest):
    token = get_answer_token(seed, difficulty, CONFIG)
    assert token == "gAAAAAB" + attempt(CONFIG, i).decode()
    assert hashlib.sha256(token.encode()).hexdigest()[:16] == digest
    assert naive(seed, difficulty, CONFIG, i + 1) == (i, token[7:])


def test_requirements_token():
    found = naive("0.42", "0fffff", CONFIG, 1000)
    assert found is not None
    assert get_requirements_token(CONFIG, "0.42") == "gAAAAAC" + found[1]


json_values = (
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(st.characters(codec="utf-8"), max_size=20)
)


@given(
    st.lists(json_values, min_size=18, max_size=18),
    st.text(st.characters(codec="utf-8"), max_size=12),
    st.sampled_from(["00", "01", "003f", "0fff", "7f", "FF", "000000", "02ffffff"]),
)
def test_fast_is_naive(config, seed, difficulty):
    expected = naive(seed, difficulty, config, 300)
    if expected is None:
        with pytest.raises(ProofOfWorkError):
            solve(seed, difficulty, config, attempts=300)
    else:
        assert solve(seed, difficulty, config, attempts=300) == expected[1]


@pytest.mark.parametrize("screen", [1, 10, 100])  # the groups of three begin at other bytes
def test_each_attempt_hashes_the_same_bytes_where_the_counters_grow(screen):
    config = [screen, *CONFIG[1:]]
    parts = proof._split(config)
    start, tried = 0, 0
    while start < ATTEMPTS:
        layout, end = proof._Layout(parts, start), proof._next_change(start)
        for i in {start, min(start + 1, end - 1), end - 1}:
            text = attempt(config, i)
            digest = hashlib.sha3_512(b"0.5" + text).digest()
            less = (int.from_bytes(digest) - 1).to_bytes(64)
            search = partial(proof._search, b"0.5", layout=layout, numbers=range(i, i + 1), stopped=lambda: False)
            assert search(target=digest) == text.decode()
            assert search(target=less) is None
            tried += 1
        start = end
    assert tried > 30


@pytest.mark.parametrize("difficulty", ["", "f", "0ff", "xx", "0f ff", " 0f", "0f\n", "é0", "00" * 65, "０f"])
def test_a_difficulty_that_is_none(difficulty):
    with pytest.raises(RemoteProtocolError):
        solve("0.5", difficulty, CONFIG)


def test_a_seed_or_config_that_is_none():
    with pytest.raises(RemoteProtocolError):
        check_puzzle("\ud83d", "0f")
    with pytest.raises(ConfigError):
        solve("0.5", "ff", CONFIG[:17])
    with pytest.raises(ConfigError):
        solve("0.5", "ff", [object(), *CONFIG[1:]])


def test_attempts_are_bounded_and_the_caller_can_stop():
    with pytest.raises(ProofOfWorkError, match="within 2500 attempts"):
        solve("0.5", "00" * 16, CONFIG, attempts=2500)
    asked: list[int] = []

    def stopped() -> bool:
        asked.append(len(asked))
        return len(asked) > 3

    with pytest.raises(ProofOfWorkError, match="went away"):
        solve("0.5", "00" * 16, CONFIG, stopped)
    assert len(asked) == 4
