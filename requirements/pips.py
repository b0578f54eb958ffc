"""Try the installation with the oldest pip that is supported and with the newest that PyPI has.

    python3 requirements/pips.py

Each installs the pins of run.txt and tolmach, as `make run` does, into an environment of its own in a
temporary folder, and starts what it has installed.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import install

# Python 3.11.0 brings pip 22.3. Later Pythons bring a later one, and do not run that.
OLDEST = ["pip==22.3"] if sys.version_info < (3, 12) else []


def attempt(*pip: str) -> None:
    """Install with this pip, or with the one that Python brings. Raises `CalledProcessError`."""
    with tempfile.TemporaryDirectory() as folder, install.one_at_a_time() as lock:
        install.VENV = Path(folder, ".venv")
        install.make_venv(lock)
        if pip:
            install.pip_install(*pip, lock=lock)
        programs = install.VENV / "bin"
        told = subprocess.run([programs / "pip", "--version"], check=True, stdout=subprocess.PIPE, text=True).stdout
        install.fill("run", lock)
        subprocess.run([programs / "tolmach", "--version"], check=True, stdout=subprocess.DEVNULL)
        install.say(f"Installed with {' '.join(told.split()[:2])}")


def main() -> int:
    for pip in (OLDEST, ["--upgrade", "pip"]):
        try:
            attempt(*pip)
        except subprocess.CalledProcessError as error:
            install.say(f"{error.stdout or ''}\nThe installation failed: {' '.join(map(str, error.cmd))}")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
