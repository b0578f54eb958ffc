"""The proof of work of chatgpt.com beside a bare loop of base64 and SHA3-512 over the same bytes.

    python benchmarks/proof_of_work.py

The loop is given the finished JSON of each attempt, encodes it and hashes it with the seed; it
compares nothing and builds nothing. Goal: at least 0.7 of its attempts a second. Both run by turns.
"""

import base64
import hashlib
import json
import statistics
import time

from report import heading, table

from tolmach.errors import ProofOfWorkError
from tolmach.protocols.chatgpt.proof import get_config, solve

ATTEMPTS = 60_000
ROUNDS = 7
SEED = "0.8254273328610418"
HARD = "00" * 8
"""A difficulty that no attempt meets."""


def _solve(config: list[object]) -> float:
    start = time.perf_counter()
    try:
        solve(SEED, HARD, config, attempts=ATTEMPTS)
    except ProofOfWorkError:
        return time.perf_counter() - start
    raise AssertionError("an attempt met the difficulty that none can meet")


def _bare(texts: list[bytes]) -> float:
    seed = SEED.encode()
    start = time.perf_counter()
    for text in texts:
        hashlib.sha3_512(seed + base64.b64encode(text)).digest()
    return time.perf_counter() - start


def main() -> None:
    heading()
    agent = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36"
    config = get_config(agent, now=1_800_000_000.0, uuid="0b0e7e5a-5c3b-4d3e-8f5a-2f0f6f2f9f10")
    texts = []
    for i in range(ATTEMPTS):
        config[3], config[9] = i, i >> 1
        texts.append(json.dumps(config, separators=(",", ":"), ensure_ascii=False).encode())
    ours, bare = [], []
    for _ in range(ROUNDS):
        ours.append(_solve(config))
        bare.append(_bare(texts))
    rates = [ATTEMPTS / statistics.median(some) for some in (ours, bare)]
    table(
        ("what", "attempts/s", "best", "microseconds each"),
        [
            (name, f"{rate:,.0f}", f"{ATTEMPTS / min(some):,.0f}", f"{1e6 / rate:.2f}")
            for name, rate, some in zip(("tolmach", "bare loop"), rates, (ours, bare), strict=True)
        ],
    )
    ratio = rates[0] / rates[1]
    print(f"\nratio {ratio:.2f} (goal 0.70 {'met' if ratio >= 0.7 else 'MISSED'}); {len(texts[0])} bytes an attempt")


if __name__ == "__main__":
    main()
