"""The proof of work of chatgpt.com: a config of 18 values whose hash has to be small.

For i = 0, 1, 2, ... the numbers i and i >> 1 stand at two places of the list; its compact JSON is
base64-encoded, and the SHA3-512 of the seed and that text has to begin with bytes that are not
greater than the difficulty's.

Strategy: base64 works on groups of three bytes, so what lies between the two numbers and around
them encodes to the same text as long as the numbers keep their count of digits. It is encoded once
for each count, only the few bytes around the numbers in each attempt; and the hash of the seed and
the constant beginning is copied instead of made again. The bytes that are hashed stay the same.
"""

import hashlib
import json
import re
from binascii import b2a_base64
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from msgspec import Struct

from tolmach.errors import ConfigError, ProofOfWorkError, RemoteProtocolError

__all__ = [
    "ATTEMPTS",
    "Profile",
    "check_puzzle",
    "get_answer_token",
    "get_config",
    "get_requirements_token",
    "solve",
]

ATTEMPTS = 500_000
"""How many are made before `ProofOfWorkError`."""

_REQUIREMENTS_DIFFICULTY = "0fffff"
_ANSWER, _REQUIREMENTS = "gAAAAAB", "gAAAAAC"
_ASK_EVERY = 1024

_HEX = re.compile(r"(?:[0-9a-fA-F]{2}){1,64}")
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class Profile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a config says about the client. It is fixed; nothing in it is drawn at random."""

    screen: int = 3000
    """Width and height of the screen in pixels, added."""
    heap_limit: int | None = 4294705152
    script: str | None = None
    """The address of a script of the page."""
    build: str = ""
    """The page's build id."""
    language: str = "en-US"
    languages: str = "en-US,en"
    probes: tuple[str, str, str] = ("language−en-US", "location", "window")
    cores: int = 8


def get_config(
    user_agent: str, *, now: float, started: float | None = None, uuid: str = "", profile: Profile | None = None
) -> list[Any]:
    """The 18 values that describe the client.

    `now` and `started` (when the page was opened) are seconds since 1970, `uuid` the session's.
    """
    started = now if started is None else started
    profile = profile or Profile()
    return [
        profile.screen,
        _browser_date(now),
        profile.heap_limit,
        0,
        user_agent,
        profile.script,
        profile.build,
        profile.language,
        profile.languages,
        0,
        *profile.probes,
        round((now - started) * 1000, 1),
        uuid,
        "",
        profile.cores,
        round(started, 3),
    ]


def _browser_date(now: float) -> str:
    """The time as JavaScript's `Date` prints it (ECMA-262, 21.4.4.41)."""
    at = datetime.fromtimestamp(now, UTC)
    date = f"{_DAYS[at.weekday()]} {_MONTHS[at.month - 1]} {at.day:02} {at.year:04}"
    return f"{date} {at:%H:%M:%S} GMT+0000 (Coordinated Universal Time)"


def check_puzzle(seed: str, difficulty: str) -> bytes:
    """The difficulty's bytes. Raises `RemoteProtocolError` for a seed or difficulty that is none."""
    if not _HEX.fullmatch(difficulty):
        raise RemoteProtocolError("the proof of work has a difficulty that is no hexadecimal text of even length")
    try:
        seed.encode()
    except UnicodeEncodeError as error:
        raise RemoteProtocolError("the proof of work has a seed that is no text") from error
    return bytes.fromhex(difficulty)


def get_answer_token(
    seed: str, difficulty: str, config: Sequence[Any], stopped: Callable[[], bool] = lambda: False
) -> str:
    """The proof that the service asked for. Raises `ProofOfWorkError` and `RemoteProtocolError`."""
    return _ANSWER + solve(seed, difficulty, config, stopped)


def get_requirements_token(config: Sequence[Any], seed: str) -> str:
    """The proof that goes with the question for requirements; `seed` is a decimal number such as `0.42`."""
    return _REQUIREMENTS + solve(seed, _REQUIREMENTS_DIFFICULTY, config)


def solve(
    seed: str,
    difficulty: str,
    config: Sequence[Any],
    stopped: Callable[[], bool] = lambda: False,
    attempts: int = ATTEMPTS,
) -> str:
    """The winning list in base64.

    `stopped` is asked now and then whether to give up. Raises `ProofOfWorkError` when none of the
    attempts wins, and `RemoteProtocolError` for a seed or difficulty that is none.
    """
    target = check_puzzle(seed, difficulty)
    parts = _split(config)
    start = 0
    while start < attempts:
        # The next of these has another count of digits in i or in i >> 1, and so other groups of three.
        end = min(attempts, _next_change(start))
        found = _search(seed.encode(), target, _Layout(parts, start), range(start, end), stopped)
        if found is not None:
            return found
        start = end
    raise ProofOfWorkError(f"no proof of work within {attempts} attempts (difficulty {difficulty})")


def _next_change(i: int) -> int:
    return min(int("1" + "0" * len(str(i))), 2 * int("1" + "0" * len(str(i >> 1))))


def _split(config: Sequence[Any]) -> tuple[bytes, bytes, bytes]:
    """The JSON of the list before, between and behind its two counters."""
    if len(config) != 18:
        raise ConfigError(f"a config has 18 values, not {len(config)}")
    try:
        values = [json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode() for value in config]
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"the config cannot be written as JSON: {error}") from error
    between = b"," + b",".join(values[4:9]) + b","
    return b"[" + b",".join(values[:3]) + b",", between, b"," + b",".join(values[10:]) + b"]"


class _Layout:
    """Where the groups of three lie for counters of a certain length: what is constant, already encoded.

    The text of an attempt is `head`, the group(s) of `first % i`, `middle`, those of `second % (i >> 1)`, `tail`.
    """

    def __init__(self, parts: tuple[bytes, bytes, bytes], i: int) -> None:
        before, between, behind = parts
        cut = len(before) // 3 * 3
        self.head = _base64(before[:cut])
        left = before[cut:]
        # As many bytes of what follows as fill the last group of the counter.
        fill = -(len(left) + len(str(i))) % 3
        self.first = (left, between[:fill])
        rest = between[fill:]
        cut = len(rest) // 3 * 3
        self.middle = _base64(rest[:cut])
        left = rest[cut:]
        fill = -(len(left) + len(str(i >> 1))) % 3
        self.second = (left, behind[:fill])
        self.tail = _base64(behind[fill:])


def _base64(data: bytes) -> bytes:
    return b2a_base64(data, newline=False)


def _search(seed: bytes, target: bytes, layout: _Layout, numbers: range, stopped: Callable[[], bool]) -> str | None:
    """The text of the first number that wins; None when none does."""
    begun = hashlib.sha3_512(seed + layout.head)
    size = len(target)
    middle, tail = layout.middle, layout.tail
    (left, right), (second_left, second_right) = layout.first, layout.second
    last, behind = -1, b""
    for i in numbers:
        if i % _ASK_EVERY == 0 and stopped():
            raise ProofOfWorkError("the proof of work was given up, since its caller went away")
        half = i >> 1
        if half != last:
            last = half
            behind = middle + b2a_base64(b"%b%d%b" % (second_left, half, second_right), newline=False) + tail
        varying = b2a_base64(b"%b%d%b" % (left, i, right), newline=False) + behind
        attempt = begun.copy()
        attempt.update(varying)
        if attempt.digest()[:size] <= target:
            return (layout.head + varying).decode("ascii")
    return None
