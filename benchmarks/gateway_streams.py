"""Streams through the gateway, beside nginx as a plain proxy and the upstream asked directly.

    python benchmarks/gateway_streams.py [--streams 320] [--rounds 3]
    python benchmarks/gateway_streams.py --open 8000 [--seconds 60]

The first: streams of 100 events, 5 ms apart, 16 at a time. CPU is that of all processes of the server
under test, by event. Goals: 3.5 times nginx's CPU when the body passes through, 4.5 when chat completions
are translated to the Messages API; the first token at most 3 ms later at the median and 10 ms at p99 than
from the upstream directly.

The second: so many streams open at once through one process, one event a second each. Goals: no error,
every event within 200 ms, at most 75 kB of memory a stream.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from gateway_processes import Server, free_port, gateway_command, missing_tools, nginx_command, served
from report import heading, table

AT_ONCE = 16
EVENTS = 100
GAP = 0.005

CHAT, MESSAGES = "/v1/chat/completions", "/v1/messages"


def upstream(stack: ExitStack, events: int, seconds: float) -> Server:
    port = free_port()
    script = str(Path(__file__).with_name("gateway_upstream.py"))
    return stack.enter_context(served([sys.executable, script, str(port), str(events), str(seconds)], port))


def load(port: int, path: str, at_once: int, total: int, ramp: int = 0) -> "subprocess.Popen[bytes]":
    script = str(Path(__file__).with_name("gateway_load.py"))
    command = [sys.executable, script, str(port), path, str(at_once), str(total), str(ramp)]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


def finished(process: "subprocess.Popen[bytes]") -> dict[str, Any]:
    output, _ = process.communicate()
    if process.returncode:
        raise SystemExit("the client failed")
    figures: dict[str, Any] = json.loads(output)
    return figures


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(int(len(values) * share), len(values) - 1)] if values else float("nan")


def short(streams: int, rounds: int) -> None:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tolmach-bench-")))
        folder.chmod(0o755)
        up = upstream(stack, EVENTS, GAP)
        port = free_port()
        nginx = stack.enter_context(served(nginx_command(folder, port, up.port, streams=True), port))
        port = free_port()
        gateway = stack.enter_context(served(gateway_command(folder, port, up.port), port))
        asked = (
            ("directly", up, CHAT),
            ("nginx", nginx, CHAT),
            ("tolmach, passed through", gateway, CHAT),
            ("tolmach, translated", gateway, MESSAGES),
        )
        cpu: dict[str, list[float]] = {name: [] for name, _, _ in asked}
        found: dict[str, dict[str, Any]] = {name: {"first": [], "late": [], "joined": 0, "bad": 0} for name in cpu}
        for number in range(rounds + 1):
            for name, server, path in asked:
                before = server.cpu()
                figures = finished(load(server.port, path, AT_ONCE, streams if number else AT_ONCE))
                if number:  # the first round is for warming up
                    cpu[name].append((server.cpu() - before) / (streams * EVENTS) * 1e6)
                    found[name]["first"] += figures["first"]
                    found[name]["late"] += figures["late"]
                    found[name]["joined"] += figures["joined"]
                    found[name]["bad"] += streams - figures["whole"]
    base = statistics.median(cpu["nginx"])
    direct = found["directly"]["first"]
    rows = []
    for name, values in cpu.items():
        some = found[name]
        first = [percentile(some["first"], share) for share in (0.5, 0.99)]
        added = [one - percentile(direct, share) for one, share in zip(first, (0.5, 0.99), strict=True)]
        rows.append(
            (
                name,
                f"{statistics.median(values):.1f} ({min(values):.1f}-{max(values):.1f})" if name != "directly" else "",
                f"{statistics.median(values) / base:.1f}" if name != "directly" else "",
                f"{first[0]:.2f} / {first[1]:.2f}",
                f"{added[0]:+.2f} / {added[1]:+.2f}",
                f"{percentile(some['late'], 0.5):.2f} / {percentile(some['late'], 0.99):.2f}",
                some["joined"],
                some["bad"],
            )
        )
    print(f"{rounds} rounds of {streams} streams, {AT_ONCE} at a time, {EVENTS} events each, {GAP * 1000:g} ms apart")
    table(
        ("asked", "CPU us/event", "x nginx", "first ms p50/p99", "added", "event ms p50/p99", "joined", "broken"), rows
    )


def many(streams: int, seconds: int) -> None:
    ramp = max(5, streams // 400)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tolmach-bench-")))
        folder.chmod(0o755)
        up = upstream(stack, seconds + ramp, 1.0)
        rows = []
        for name in ("nginx", "tolmach"):
            port = free_port()
            command = (
                nginx_command(folder, port, up.port, streams=True)
                if name == "nginx"
                else gateway_command(folder, port, up.port)
            )
            with served(command, port) as server:
                idle, before = server.memory(), server.cpu()
                asking = load(port, CHAT, streams, streams, ramp)
                most = idle
                while asking.poll() is None:
                    most = max(most, server.memory())
                    try:
                        output, _ = asking.communicate(timeout=2)
                        break
                    except subprocess.TimeoutExpired:
                        continue
                figures = json.loads(output)
                used = server.cpu() - before
            late = figures["late"]
            rows.append(
                (
                    name,
                    figures["whole"],
                    figures["failed"],
                    len(late),
                    f"{percentile(late, 0.5):.1f}",
                    f"{percentile(late, 0.99):.1f}",
                    f"{max(late, default=float('nan')):.1f}",
                    f"{(most - idle) / streams / 1000:.1f}",
                    f"{used / max(len(late), 1) * 1e6:.1f}",
                )
            )
            for why in figures["why"]:
                print(f"{name}: {why}", file=sys.stderr)
    print(f"{streams} streams opened within {ramp} s, all open for {seconds} s, one event a second each")
    table(("server", "whole", "failed", "events", "p50 ms", "p99 ms", "max ms", "kB/stream", "CPU us/event"), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description="Streams through the gateway, beside nginx.")
    parser.add_argument("--streams", type=int, default=320)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--open", type=int, default=0, help="hold so many open at once instead")
    parser.add_argument("--seconds", type=int, default=60)
    options = parser.parse_args()
    heading("granian", "wreq", "uvloop")
    if missing := missing_tools("nginx"):
        sys.exit(missing)
    if options.open:
        many(options.open, options.seconds)
    else:
        short(options.streams, options.rounds)


if __name__ == "__main__":
    main()
