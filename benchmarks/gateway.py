"""Requests through the gateway, beside nginx as a plain proxy and other gateways: one machine, one run.

    python benchmarks/gateway.py [--rounds 5] [--seconds 4]

wrk asks for a chat completion, not streamed, over 32 connections, one server after the other and all of
them once a round; each passes it on to the same fixed nginx. CPU is that of all processes of the
server under test. Each has one worker. Goal: at most 6 times the CPU of nginx.

LiteLLM proxy is measured when its command is found (`pip install 'litellm[proxy]'`, best in a place of
its own; LITELLM=/path/to/litellm says where), Portkey when its program is (`npm install
@portkey-ai/gateway`; PORTKEY=/path/to/build/start-server.js).
"""

import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from gateway_processes import (
    QUESTION,
    NotStarted,
    Server,
    free_port,
    gateway_command,
    gateway_key,
    missing_tools,
    nginx_command,
    served,
)
from report import heading, table

GOAL = 6.0
OURS = "tolmach: keys, route, ledger"
WORKERS = "tolmach, no keys, two workers"
CONNECTIONS = 32
NEEDED = ("nginx", OURS)
"""Without these there is nothing to say."""


class Round(NamedTuple):
    """One run of wrk: CPU microseconds a request, requests a second, milliseconds, answers that were no 200."""

    cpu: float
    rate: float
    p50: float
    p99: float
    bad: int


class Contender(NamedTuple):
    """A server under test: how it is started, where it is asked, which headers it needs."""

    name: str
    port: int
    command: list[str]
    headers: tuple[tuple[str, str], ...] = ()


def ours(folder: Path, upstream: int) -> Iterator[Contender]:
    """The gateway with all that it does, and without one thing after the other."""
    for name, limits in ((OURS, False), ("the same, the key with three limits", True)):
        port = free_port()
        command = gateway_command(folder, port, upstream)
        key = gateway_key(folder, port, limits=limits)
        yield Contender(name, port, command, (("Authorization", f"Bearer {key}"),))
    variants: tuple[tuple[str, dict[str, Any]], ...] = (
        ("tolmach, no keys", {}),
        ("tolmach, no keys, no ledger", {"ledger": False}),
        ("tolmach, no keys, no ledger, no route", {"ledger": False, "route": False}),
        ("tolmach, no keys, asyncio's loop", {"loop": "asyncio"}),
        (WORKERS, {"workers": 2}),
    )
    for name, options in variants:
        port = free_port()
        yield Contender(name, port, gateway_command(folder, port, upstream, **options))


def contenders(folder: Path, upstream: int) -> Iterator[Contender]:
    port = free_port()
    yield Contender("nginx", port, nginx_command(folder, port, upstream))
    yield from ours(folder, upstream)
    if litellm := os.environ.get("LITELLM") or shutil.which("litellm"):
        port = free_port()
        config = folder / "litellm.yaml"
        config.write_text(
            "model_list:\n- model_name: gpt-4o\n  litellm_params:\n    model: openai/gpt-4o\n"
            f"    api_base: http://127.0.0.1:{upstream}/v1\n    api_key: none\n"
            "general_settings:\n  master_key: sk-benchmark\n",  # it does not start without one
            encoding="utf-8",
        )
        # It has its prices with it, and need not fetch them.
        start = ["env", "LITELLM_LOCAL_MODEL_COST_MAP=True", litellm, "--config", str(config), "--num_workers", "1"]
        key = (("Authorization", "Bearer sk-benchmark"),)
        yield Contender("LiteLLM proxy", port, [*start, "--host", "127.0.0.1", "--port", str(port)], key)
    if (portkey := os.environ.get("PORTKEY")) and (node := shutil.which("node")):
        port = free_port()
        headers = {"x-portkey-provider": "openai", "x-portkey-custom-host": f"http://127.0.0.1:{upstream}/v1"}
        yield Contender(
            "Portkey",
            port,
            [node, portkey, f"--port={port}", "--headless"],
            (*headers.items(), ("Authorization", "Bearer none")),
        )


def script(folder: Path, contender: Contender) -> Path:
    """What wrk sends, in Lua."""
    headers = (("Content-Type", "application/json"), *contender.headers)
    lines = [f"wrk.headers[{name!r}]={value!r}" for name, value in headers]
    file = folder / f"{contender.port}.lua"
    file.write_text("\n".join(['wrk.method="POST"', *lines, f"wrk.body=[[{QUESTION.decode()}]]"]), encoding="utf-8")
    return file


_UNITS = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0}


def _milliseconds(text: str, percent: int) -> float:
    found = re.search(rf"{percent}%\s+([\d.]+)(us|ms|s|m)", text)
    return float(found[1]) * _UNITS[found[2]] if found else float("nan")


def ask(server: Server, file: Path, seconds: int) -> Round:
    before = server.cpu()
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--latency", "-s", str(file)]
    address = f"http://127.0.0.1:{server.port}/v1/chat/completions"
    text = subprocess.run([*command, address], capture_output=True, text=True, check=True).stdout
    used = server.cpu() - before
    total = re.search(r"(\d+) requests in", text)
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    failed = re.search(r"connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", text)
    requests = int(total[1]) if total else 0
    return Round(
        used / max(requests, 1) * 1e6,
        float(rate[1]) if rate else 0.0,
        _milliseconds(text, 50),
        _milliseconds(text, 99),
        (int(bad[1]) if bad else 0) + (sum(map(int, failed.groups())) if failed else 0),
    )


def _spread(values: list[float], digits: int = 0) -> str:
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def main() -> None:
    parser = argparse.ArgumentParser(description="Requests through the gateway, beside nginx and others.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4, help="of each run")
    options = parser.parse_args()
    heading("granian", "wreq", "uvloop")
    if missing := missing_tools("wrk", "nginx"):
        sys.exit(missing)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tolmach-bench-")))
        folder.chmod(0o755)
        upstream = free_port()
        stack.enter_context(served(nginx_command(folder, upstream), upstream))
        running = []
        left_out: dict[str, str] = {}
        for contender in contenders(folder, upstream):
            try:
                server = stack.enter_context(served(contender.command, contender.port))
            except NotStarted as error:
                if contender.name in NEEDED:
                    raise
                left_out[contender.name] = str(error)
            else:
                running.append((contender, server, script(folder, contender)))
        idle = {contender.name: server.memory() for contender, server, _ in running}
        for _, server, file in running:
            ask(server, file, 1)
        rounds: dict[str, list[Round]] = {contender.name: [] for contender, _, _ in running}
        for _ in range(options.rounds):
            for contender, server, file in running:
                rounds[contender.name].append(ask(server, file, options.seconds))
        show(rounds, idle, {c.name: s.memory() for c, s, _ in running}, {c.name: s.cold for c, s, _ in running})
    for name, known in (("LiteLLM proxy", "LITELLM"), ("Portkey", "PORTKEY")):
        if name in left_out:
            print(f"\n{name} is left out, it did not start: {left_out[name]}")
        elif name not in rounds:
            print(f"\n{name} is not installed here ({known} says where it is; the script's head says how)")


def show(rounds: dict[str, list[Round]], idle: dict[str, int], after: dict[str, int], cold: dict[str, float]) -> None:
    """One row a server: medians of the rounds, with the least and the greatest."""
    base = statistics.median(one.cpu for one in rounds["nginx"])
    rows = []
    for name, some in rounds.items():
        times = statistics.median(one.cpu for one in some) / base
        rows.append(
            (
                name,
                _spread([one.cpu for one in some], 1),
                f"{times:.1f}",
                _spread([one.rate for one in some]),
                _spread([one.p50 for one in some], 2),
                _spread([one.p99 for one in some], 2),
                f"{idle[name] / 1e6:.0f}",
                f"{after[name] / 1e6:.0f}",
                f"{cold[name]:.2f}",
                sum(one.bad for one in some),
            )
        )
    head = ("server", "CPU us/request", "x nginx", "requests/s", "p50 ms", "p99 ms", "idle MB", "MB", "cold s", "bad")
    table(head, rows)
    ratio = statistics.median(one.cpu for one in rounds[OURS]) / base
    print(
        f"\ngoal: at most {GOAL:g} times nginx's CPU, all of it on: {ratio:.1f}, {'met' if ratio <= GOAL else 'MISSED'}"
    )
    one, two = (statistics.median(run.cpu for run in rounds[name]) for name in ("tolmach, no keys", WORKERS))
    print(f"two workers do {2 * one / two:.2f} times the work of one with a CPU for each, by CPU time; goal: 1.7")


if __name__ == "__main__":
    main()
