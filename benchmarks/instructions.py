"""How many instructions a request takes on its way through the gateway, beside the figures that are kept.

    python benchmarks/instructions.py [--keep] [--once]

Instructions are counted by valgrind's callgrind, which runs the program itself: on a machine that is busy with other
things the same ones are counted. The gateway is asked in one process, in memory (`gateway_in_memory`). For each way
it is asked N times and then, anew, 2 N times; the difference by N is a request's. All of that is done twice, at the
same time, which shows how steady the figures are.

They are compared with those in `instructions.json` of the same Python, built in the same way. Exit code 1 when a way
takes more than 3 % more. `--keep` writes them there. `--once` asks each way once, without counting: does it go at all?
"""

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

from gateway_in_memory import WAYS, ask
from report import heading, table

MOST = 3.0
"""Per cent by which a way may take more than what is kept."""
PACKAGES = ("granian", "httptools", "msgspec", "prometheus-client")
"""Those that take part in a request."""
_FLAGS = ("--enable-optimizations", "--with-lto", "--with-pydebug")
KEPT = Path(__file__).with_name("instructions.json")


def _mark() -> None:
    """callgrind writes down what it has counted, and begins anew, before this call of libc, which nothing else uses."""
    os.getpgid(0)


def run_counted() -> None:
    """What callgrind runs: between two marks N requests of a way, between the next two 2 N of them."""
    for way in WAYS:
        for times in (1, 2):
            ask(way, times * way.requests, _mark)


def count() -> dict[str, int]:
    """Instructions of a request, for each way."""
    with tempfile.TemporaryDirectory(prefix="tolmach-instructions-") as folder:
        command = [
            "valgrind",
            "--tool=callgrind",
            "--dump-before=getpgid",
            f"--callgrind-out-file={folder}/out",
            *(sys.executable, __file__, "--counted"),
        ]
        # Where a set's items stand, and so the way through it, must not change from run to run.
        environment = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{' '.join(command)}: exit code {done.returncode}\n{done.stderr[-3000:]}")
        # The parts before the odd marks are what lies between two counts.
        counted = [_total(Path(folder, f"out.{4 * i + part}")) for i in range(len(WAYS)) for part in (2, 4)]
    pairs = zip(WAYS, counted[::2], counted[1::2], strict=True)
    return {way.name: round((more - less) / way.requests) for way, less, more in pairs}


def _total(part: Path) -> int:
    found = re.search(r"^totals: (\d+)$", part.read_text(encoding="utf-8", errors="replace"), re.M)
    if found is None:
        sys.exit(f"callgrind wrote no totals into {part.name}")
    return int(found[1])


def interpreter() -> str:
    """Whose figures can be compared: another Python takes other instructions, and so does one built otherwise."""
    python = f"{platform.python_implementation()} {platform.python_version()}"
    levels = re.findall(r"-O\w\b", sysconfig.get_config_var("PY_CFLAGS") or "")  # the last one counts
    given = [flag for flag in _FLAGS if flag in (sysconfig.get_config_var("CONFIG_ARGS") or "")]
    return f"{python}, {' '.join([platform.python_compiler(), *levels[-1:], *given])}, {platform.machine()}"


def show(first: dict[str, int], second: dict[str, int], kept: dict[str, Any] | None) -> float:
    """One row a way. Gives by how many per cent the worst way takes more than what is kept."""
    rows, worst = [], 0.0
    for way in WAYS:
        now, again = first[way.name], second[way.name]
        before = None if kept is None else kept["instructions"].get(way.name)
        change = 0.0 if before is None else round((now / before - 1) * 100, 2)
        worst = max(worst, change)
        told = ("-", "-") if before is None else (f"{before:,}", f"{change:+.2f} %")
        rows.append((way.name, f"{now:,}", f"{abs(again / now - 1) * 100:.3f} %", *told))
    table(("way", "instructions a request", "spread", "kept", "change"), rows)
    return worst


def main() -> None:
    parser = argparse.ArgumentParser(description="Instructions of a request through the gateway.")
    parser.add_argument("--keep", action="store_true", help="write the figures into instructions.json")
    parser.add_argument("--once", action="store_true", help="ask each way once, without counting")
    parser.add_argument("--counted", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.counted:
        run_counted()
        return
    heading(*PACKAGES)
    if options.once:
        for way in WAYS:
            ask(way, 1)
            print(f"{way.name}: answered")
        return
    if shutil.which("valgrind") is None:
        sys.exit("not installed: valgrind (Debian: apt-get install -y valgrind)")
    figures = json.loads(KEPT.read_text(encoding="utf-8")) if KEPT.exists() else {}
    python = interpreter()
    kept = figures.get(python)
    versions = {package: version(package) for package in PACKAGES}
    with ThreadPoolExecutor(2) as both:
        first, second = both.map(lambda _: count(), range(2))
    worst = show(first, second, kept)
    print(f"\n{python}")
    if kept is None:
        print(f"nothing is kept for this Python; kept are: {'; '.join(figures) or 'none'}")
    elif kept["packages"] != versions:
        print(f"what is kept was counted with other packages: {kept['packages']}")
    if options.keep:
        figures[python] = {"instructions": second, "packages": versions}
        KEPT.write_text(json.dumps(figures, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        print(f"kept in {KEPT.name}")
    elif worst > MOST:
        sys.exit(
            f"a way takes {worst:.1f} % more than what is kept, over {MOST:g} %: find out why; if it has to be, say so "
            "in the commit, and keep the new figures with it: python benchmarks/instructions.py --keep"
        )


if __name__ == "__main__":
    main()
