"""Pin the requirements again: `make requirements`.

Reads pyproject.toml and writes run.txt (to run tolmach) and dev.txt (to test it: the same and the
group `dev`), with the digests of every file that PyPI has of a version, for all platforms. The
settings that pip has on this machine are left aside: no address and no path gets into the files.

Run it by the oldest Python that tolmach takes (3.11; best one before 3.11.3): some packages need a
backport there alone, and pins that another Python made would lack it.
"""

import os
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# Of pip's settings only those that say how to reach PyPI.
_KEPT = {"PIP_CERT", "PIP_PROXY", "PIP_DEFAULT_TIMEOUT", "PIP_RETRIES"}


def compile_pins(output: str, sources: list[str], arguments: list[str]) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PIP_") or k in _KEPT}
    environment |= {"PIP_CONFIG_FILE": os.devnull, "CUSTOM_COMPILE_COMMAND": "make requirements"}
    command = [
        *(sys.executable, "-m", "piptools", "compile", "--quiet", "--no-config"),
        *("--generate-hashes", "--allow-unsafe", "--strip-extras", "--annotation-style=line"),
        *("--no-emit-index-url", "--no-emit-find-links", "--no-emit-trusted-host", "--no-emit-options"),
        *("--output-file", output, *arguments, *sources),
    ]
    subprocess.run(command, check=True, env=environment, cwd=ROOT)


def main() -> None:
    os.chdir(ROOT)
    upgrade = sys.argv[1:]
    compile_pins("requirements/run.txt", ["pyproject.toml"], ["--build-deps-for", "editable", *upgrade])
    group = tomllib.loads(Path("pyproject.toml").read_text())["dependency-groups"]["dev"]
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "dev.in")
        # With the pins of run.txt, so that dev contains run.
        source.write_text("\n".join([f"-r {ROOT / 'requirements/run.txt'}", *group, ""]))
        compile_pins("requirements/dev.txt", [str(source)], ["--no-annotate", *upgrade])


if __name__ == "__main__":
    main()
