"""A million requests through one gateway: its memory must stay flat.

    python benchmarks/soak.py [--requests 1000000] [--seconds 300]

wrk asks for chat completions over 32 connections, with routing, metrics and the ledger on, until there were so
many or the time is over. Memory is looked at while it runs. The first tenth is for warming up; goal: from
there to the end it grows by less than 5 MB and 10 %. Exit code 1 when it does not hold.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from gateway_processes import Server, free_port, gateway_command, missing_tools, nginx_command, served
from report import heading, table

from gateway import Contender, ask, script

MOST_BYTES = 5_000_000
MOST_SHARE = 0.1
_RUN_SECONDS = 3


def run(server: Server, file: Path, requests: int, seconds: float) -> list[tuple[int, int, int]]:
    """Requests so far, resident bytes, answers that were no 200; once every few seconds."""
    samples = []
    done = bad = 0
    ends = time.monotonic() + seconds
    while done < requests and time.monotonic() < ends:
        part = ask(server, file, _RUN_SECONDS)
        done += round(part.rate * _RUN_SECONDS)
        bad += part.bad
        samples.append((done, server.memory(), bad))
    return samples


def main() -> None:
    parser = argparse.ArgumentParser(description="A million requests through one gateway: its memory must stay flat.")
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=300.0, help="no longer than this")
    options = parser.parse_args()
    heading("granian", "wreq", "uvloop")
    if missing := missing_tools("wrk", "nginx"):
        sys.exit(missing)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tolmach-soak-")))
        folder.chmod(0o755)
        os.environ["XDG_DATA_HOME"] = str(folder)
        upstream, port = free_port(), free_port()
        stack.enter_context(served(nginx_command(folder, upstream), upstream))
        command = gateway_command(folder, port, upstream)
        server = stack.enter_context(served(command, port))
        samples = run(server, script(folder, Contender("tolmach", port, command)), options.requests, options.seconds)
    sys.exit(show(samples))


def show(samples: list[tuple[int, int, int]]) -> int:
    done, _, bad = samples[-1]
    warm = [memory for count, memory, _ in samples if count >= done / 10]
    part = max(len(warm) // 5, 1)
    first, last = statistics.median(warm[:part]), statistics.median(warm[-part:])
    step = max(len(samples) // 10, 1)
    table(("requests", "MB"), [(f"{count:,}", f"{memory / 1e6:.1f}") for count, memory, _ in samples[step - 1 :: step]])
    flat = last - first < MOST_BYTES and last < first * (1 + MOST_SHARE)
    grown = (last - first) / max(done, 1) * 1000
    print(f"\n{done:,} requests, {bad} without an answer; from the first tenth on {(last - first) / 1e6:+.1f} MB")
    print(f"({grown:+.1f} bytes for 1,000 requests): {'flat' if flat else 'NOT flat'}")
    return 0 if flat and not bad else 1


if __name__ == "__main__":
    main()
