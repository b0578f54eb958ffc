"""Make `.venv` and put the pinned requirements and tolmach itself into it.

    python3 requirements/install.py run|dev

Uses the standard library only, and any Python that can say that it is too old. `.venv` counts as
made when a stamp in it carries the digest of all that went in; the stamp is written last, so an
installation that was interrupted is begun anew. A second call that finds its stamp ends at once.
pip is called as the user has set it up (`PIP_*`, pip.conf: index, proxy, certificates).
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - this file is what tells the user so
    sys.exit("tolmach needs Python 3.11 or later; %s is %s" % (sys.executable, sys.version.split()[0]))  # noqa: UP031

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import venv
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
KINDS = ("run", "dev")
"""Each has its requirements file here; `dev` contains `run`."""


def digest(kind: str) -> str:
    """Of all that decides what the environment holds: pins, metadata, interpreter, place, this file."""
    seen = hashlib.sha256(f"{kind}\0{sys.version}\0{sys.base_prefix}\0{ROOT}\0".encode())
    for file in (f"requirements/{kind}.txt", "pyproject.toml", "src/tolmach/version.py", "requirements/install.py"):
        seen.update((ROOT / file).read_bytes())
    return seen.hexdigest()


def stamp(kind: str) -> Path:
    return VENV / f"tolmach-{kind}.stamp"


def installed(kind: str) -> bool:
    """Whether `.venv` holds what `kind` needs, whole and up to date."""
    try:
        return stamp(kind).read_text() == digest(kind)
    except OSError:
        return False


@contextlib.contextmanager
def one_at_a_time() -> Iterator[int]:
    """Hold the project's folder, so that `make run` and `make test` at once make one `.venv`.

    Gives the descriptor that holds it. Programs started here inherit it: one that outlives a
    killed installation is waited for.
    """
    folder = os.open(ROOT, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks: go on without one
            fcntl.flock(folder, fcntl.LOCK_EX)
        yield folder
    finally:
        os.close(folder)


def python(*arguments: str, lock: int) -> None:
    """Run the interpreter of `.venv`. Raises `CalledProcessError`, with what was said on stdout, when it fails."""
    # Settings that would put packages elsewhere than into .venv are left aside.
    strays = {"PYTHONHOME", "PYTHONPATH", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT"}
    environment = {k: v for k, v in os.environ.items() if k not in strays}
    environment |= {"PIP_REQUIRE_VIRTUALENV": "1", "PIP_USER": "0"}
    command = [str(VENV / "bin" / "python"), *arguments]
    null, kept = subprocess.DEVNULL, subprocess.PIPE
    # Not shown unless it fails: ensurepip tells of its success, and `pip check` of its complaints, on stdout.
    subprocess.run(
        command, check=True, env=environment, stdin=null, stdout=kept, errors="replace", cwd=ROOT, pass_fds=(lock,)
    )


def pip_install(*arguments: str, lock: int) -> None:
    python("-m", "pip", "install", "-qq", "--disable-pip-version-check", *arguments, lock=lock)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def make_venv(lock: int) -> None:
    """A new environment, in place of whatever stood there."""
    if VENV.is_symlink():
        VENV.unlink()
    elif VENV.exists():
        shutil.rmtree(VENV)
    say(f"Making .venv with Python {sys.version.split()[0]}")
    venv.EnvBuilder(symlinks=True).create(VENV)
    # With the bundled pip only: what the user's settings say about indexes does not concern it.
    python("-Im", "ensurepip", "--default-pip", lock=lock)


def fill(kind: str, lock: int) -> None:
    """Put the pins of `kind`, and tolmach itself, into the environment. Raises `CalledProcessError`."""
    # The pins are complete. Old pips (to 23.2) do not find `name[extra]` among them, so none resolves here.
    pip_install("--no-deps", "--require-hashes", "--requirement", f"requirements/{kind}.txt", lock=lock)
    pip_install("--no-deps", "--no-index", "--no-build-isolation", "--editable", ".", lock=lock)
    python("-m", "pip", "--disable-pip-version-check", "check", lock=lock)


def install(kind: str, lock: int) -> None:
    others = [other for other in KINDS if other != kind and installed(other)]
    if stamp(kind).exists():
        others = []  # made with older pins, it may hold packages that no pin names any more
    for each in KINDS:
        stamp(each).unlink(missing_ok=True)
    if not others:
        make_venv(lock)
    say(f"Installing requirements/{kind}.txt (once; this takes a minute)")
    fill(kind, lock)
    for each in {kind, "run", *others}:  # dev contains run, with the same pins
        stamp(each).write_text(digest(each))


def main(arguments: list[str]) -> int:
    if len(arguments) != 1 or arguments[0] not in KINDS:
        sys.exit(f"usage: {Path(sys.argv[0]).name} {'|'.join(KINDS)}")
    kind = arguments[0]
    if installed(kind):
        return 0
    try:
        import ensurepip  # noqa: F401
    except ImportError:
        sys.exit(f"{sys.executable} has no venv; on Debian and Ubuntu: apt-get install python3-venv")
    with one_at_a_time() as lock:
        if installed(kind):
            return 0
        try:
            install(kind, lock)
        except subprocess.CalledProcessError as error:
            if error.stdout:
                say(error.stdout.rstrip())
            say(f"The installation failed: {' '.join(map(str, error.cmd[1:]))}")
            return 1
        except KeyboardInterrupt:
            say("Interrupted; the next call begins anew.")
            return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
