"""The script that makes `.venv` and installs the pins into it."""

import importlib.util
import os
import subprocess
import sys
import venv
import zipfile
from hashlib import sha256
from pathlib import Path
from types import ModuleType

import pytest

from tests.scripts import ROOT, script

DECIDING = ("pyproject.toml", "src/tolmach/version.py", "requirements/install.py")
"""The files besides the pins that decide what is installed."""


@pytest.fixture
def install(tmp_path: Path) -> ModuleType:
    """The installer, for a project in a folder with a space in its name."""
    module = script("requirements/install.py")
    root = tmp_path / "my project"
    for file in ("requirements/run.txt", "requirements/dev.txt", *DECIDING):
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes((ROOT / file).read_bytes())
    module.__dict__.update(ROOT=root, VENV=root / ".venv")
    return module


def mark(install: ModuleType, kind: str) -> None:
    install.VENV.mkdir(exist_ok=True)
    install.stamp(kind).write_text(install.digest(kind))


def test_an_environment_without_a_stamp_is_not_believed(install: ModuleType) -> None:
    assert not install.installed("run")
    (install.VENV / "bin").mkdir(parents=True)
    assert not install.installed("run")
    mark(install, "run")
    assert install.installed("run")
    assert not install.installed("dev")


@pytest.mark.parametrize("file", ["requirements/run.txt", *DECIDING])
def test_a_change_ends_the_stamp(install: ModuleType, file: str) -> None:
    mark(install, "run")
    with (install.ROOT / file).open("a") as out:
        out.write("# changed\n")
    assert not install.installed("run")


def test_a_moved_project_is_installed_again(install: ModuleType, tmp_path: Path) -> None:
    mark(install, "run")
    moved = install.ROOT.rename(tmp_path / "moved")
    install.__dict__.update(ROOT=moved, VENV=moved / ".venv")
    assert not install.installed("run")


def test_a_failed_installation_leaves_no_stamp(install: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    mark(install, "run")
    calls = []

    def fail(*arguments: str, lock: int) -> None:
        calls.append(arguments)
        raise subprocess.CalledProcessError(1, ["python", *arguments])

    monkeypatch.setattr(install, "python", fail)
    assert install.main(["dev"]) == 1
    assert calls
    assert not install.installed("run")
    assert not install.installed("dev")


def test_dev_is_added_to_a_whole_run(install: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    mark(install, "run")
    calls: list[tuple[str, ...]] = []
    monkeypatch.setattr(install, "python", lambda *arguments, lock: calls.append(arguments))
    assert install.main(["dev"]) == 0
    assert not any("ensurepip" in call for call in calls), "the environment was made anew"
    assert any("requirements/dev.txt" in call and "--require-hashes" in call for call in calls)
    assert install.installed("dev")
    assert install.installed("run")


def test_the_installer_is_silent_when_all_is_there(install: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    mark(install, "run")
    assert install.main(["run"]) == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("arguments", [[], ["test"], ["run", "dev"]])
def test_the_installer_says_how_it_is_used(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "requirements/install.py"), *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith("usage: install.py run|dev")


def test_nothing_is_resolved(install: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    # pip 23.0 to 23.2 finds `google-auth[requests]` not to be pinned, though it is, when it resolves.
    calls: list[tuple[str, ...]] = []
    monkeypatch.setattr(install, "python", lambda *arguments, lock: calls.append(arguments))
    assert install.main(["dev"]) == 0
    installations = [call for call in calls if "install" in call]
    assert len(installations) == 2
    assert all("--no-deps" in call for call in installations)
    assert calls[-1][-1] == "check"


def test_what_older_pins_left_is_not_kept(install: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    mark(install, "run")
    mark(install, "dev")
    (install.VENV / "left").touch()
    with (install.ROOT / "requirements/dev.txt").open("a") as out:
        out.write("# newer pins\n")
    calls: list[tuple[str, ...]] = []
    monkeypatch.setattr(install, "python", lambda *arguments, lock: calls.append(arguments))
    assert install.main(["dev"]) == 0
    assert any("ensurepip" in call for call in calls)
    assert not (install.VENV / "left").exists()
    assert install.installed("run")
    assert install.installed("dev")


# An installation for real, of small packages from files


def wheel(folder: Path, name: str, *metadata: str) -> str:
    """Make a wheel of one module. Gives its pin, as it stands in a requirements file."""
    info = f"{name}-1.dist-info"
    files = {
        f"{name}.py": "",
        f"{info}/METADATA": "\n".join(["Metadata-Version: 2.1", f"Name: {name}", "Version: 1", *metadata, ""]),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{file},,\n" for file in files)
    path = folder / f"{name}-1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as out:
        for file, text in files.items():
            out.writestr(file, text)
    return f"{name}==1 --hash=sha256:{sha256(path.read_bytes()).hexdigest()}\n"


_BACKEND = """
import shutil

def build_editable(folder, config_settings=None, metadata_directory=None):
    return shutil.copy("project-1-py3-none-any.whl", folder).rpartition("/")[2]
"""

_PYPROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
"""


@pytest.fixture
def pins(install: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The installer's project needs `app`, that `parts[fast]`, and that `speed`. Gives their pins."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    settings = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels)}
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    (install.ROOT / "pyproject.toml").write_text(_PYPROJECT)
    (install.ROOT / "backend.py").write_text(_BACKEND)
    wheel(install.ROOT, "project", "Requires-Dist: app")
    return {
        "app": wheel(wheels, "app", "Requires-Dist: parts[fast]"),
        "parts": wheel(wheels, "parts", "Provides-Extra: fast", "Requires-Dist: speed ; extra == 'fast'"),
        "speed": wheel(wheels, "speed"),
    }


def make_venv(install: ModuleType) -> None:
    """As the installer does, but with the pip that is here, which spares the seconds of ensurepip."""
    venv.EnvBuilder(symlinks=True).create(install.VENV)
    spec = importlib.util.find_spec("pip")
    assert spec is not None
    assert spec.origin is not None
    (packages,) = install.VENV.glob("lib/python*/site-packages")
    (packages / "pip").symlink_to(Path(spec.origin).parent)


def test_a_pin_that_lacks_is_named(
    install: ModuleType, pins: dict[str, str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(install, "make_venv", lambda lock: make_venv(install))
    file = install.ROOT / "requirements/run.txt"
    file.write_text(pins["parts"] + pins["speed"])
    assert install.main(["run"]) == 1
    assert not install.installed("run")
    assert "project 1 requires app, which is not installed" in capfd.readouterr().err

    monkeypatch.setattr(install, "make_venv", lambda lock: None)  # the same once more
    file.write_text("".join(pins.values()))
    assert install.main(["run"]) == 0
    assert install.installed("run")
    assert "not installed" not in capfd.readouterr().err
    subprocess.run([install.VENV / "bin/python", "-c", "import app, parts, speed"], check=True)
