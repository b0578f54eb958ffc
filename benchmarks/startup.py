"""How long it takes to start: `import tolmach` and `tolmach --help`, beside other packages.

    python benchmarks/startup.py

The median of 15 fresh processes each, in turn, after one that fills the disk's cache. "alone" is
without the time that the interpreter itself takes. Goals: import 0.15 s, --help 0.25 s.
"""

import statistics
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

from report import heading, table

ROUNDS = 15
GOALS = {"import tolmach": 0.15, "tolmach --help": 0.25}
OTHERS = ("openai", "litellm", "g4f")


def _seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=True)
    return time.perf_counter() - start


def main() -> None:
    heading(*OTHERS)
    script = Path(sys.executable).with_name("tolmach")
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "import tolmach": [sys.executable, "-c", "import tolmach"],
        "from tolmach import Client": [sys.executable, "-c", "from tolmach import Client"],
        "tolmach --help": [str(script), "--help"],
    }
    for other in OTHERS:
        if find_spec(other) is not None:
            commands[f"import {other}"] = [sys.executable, "-c", f"import {other}"]
    for command in commands.values():
        _seconds(command)
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(ROUNDS):
        for name, command in commands.items():
            times[name].append(_seconds(command))
    bare = statistics.median(times["python -c pass"])
    rows = []
    for name, some in times.items():
        middle = statistics.median(some)
        goal = GOALS.get(name)
        verdict = "" if goal is None else f"{goal:.2f} {'met' if middle <= goal else 'MISSED'}"
        rows.append((name, f"{middle:.3f}", f"{min(some):.3f}", f"{max(some):.3f}", f"{middle - bare:.3f}", verdict))
    table(("command", "median s", "min", "max", "alone", "goal"), rows)
    missing = [other for other in OTHERS if find_spec(other) is None]
    if missing:
        print(f"\nnot installed: {', '.join(missing)} (the extra `bench` brings them)")


if __name__ == "__main__":
    main()
