"""What `make` relies on: the pins, the metadata, and the script that installs them."""

import ast
import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
FILES = ["run", "dev"]

# A package that is not for every platform says for which, behind a semicolon.
_PIN = re.compile(
    r"^([A-Za-z0-9._-]+)==(\S+)(?: ; [a-z_]+ [!=]= \"\w+\")? \\\n((?: {4}--hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)",
    re.M,
)


def text(kind: str) -> str:
    return (ROOT / "requirements" / f"{kind}.txt").read_text()


def pins(kind: str) -> dict[str, tuple[str, frozenset[str]]]:
    """Package -> version and digests."""
    return {
        canonicalize_name(name): (version, frozenset(re.findall(r"sha256:(\w+)", hashes)))
        for name, version, hashes in _PIN.findall(text(kind))
    }


def declared(kind: str) -> list[Requirement]:
    wanted = [*PROJECT["project"]["dependencies"], *PROJECT["build-system"]["requires"]]
    if kind == "dev":
        wanted += PROJECT["dependency-groups"]["dev"]
    return [Requirement(line) for line in wanted]


@pytest.mark.parametrize("kind", FILES)
def test_every_line_is_a_pin_with_hashes_or_a_comment(kind: str) -> None:
    rest = _PIN.sub("", text(kind))
    assert [line for line in rest.splitlines() if line.strip() and not line.lstrip().startswith("#")] == []
    assert len(pins(kind)) > 10


@pytest.mark.parametrize("kind", FILES)
def test_no_address_and_no_path_in_the_pins(kind: str) -> None:
    assert re.findall(r"://|file:/|--(?!hash=)|\.whl|/(?:tmp|home|root|opt|work|Users)/", text(kind), re.M) == []


@pytest.mark.parametrize("kind", FILES)
def test_pins_satisfy_the_metadata(kind: str) -> None:
    pinned = pins(kind)
    for requirement in declared(kind):
        version, _ = pinned[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{requirement} is pinned at {version}"


def test_dev_contains_run() -> None:
    run, dev = pins("run"), pins("dev")
    assert {name: dev.get(name) for name in run} == run


def test_run_installs_no_tools() -> None:
    assert not {"pytest", "mypy", "ruff", "coverage", "hypothesis", "openai"} & pins("run").keys()


def test_pins_cover_other_platforms() -> None:
    # A compiled package has one file for each interpreter and platform; a pin made from one machine's has one or two.
    for name in ("msgspec", "selectolax", "wreq"):
        assert len(pins("run")[name][1]) > 10, f"{name}: pinned for one platform only"


def test_at_most_ten_runtime_dependencies() -> None:
    assert 0 < len(PROJECT["project"]["dependencies"]) <= 10


def test_every_import_is_a_declared_dependency() -> None:
    project = PROJECT["project"]
    lines = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    names = {Requirement(line).name.replace("-", "_") for line in lines}
    imported = set()
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add((node.module or "").partition(".")[0])
    # yarl comes with aiohttp, whose addresses are made of it; opentelemetry is the space of names of all its packages.
    assert imported - names - set(sys.stdlib_module_names) - {"tolmach", "yarl", "opentelemetry"} == set()
    assert {Requirement(line).name.replace("-", "_") for line in project["dependencies"]} <= imported


def test_metadata_names_the_version_and_the_command() -> None:
    import tolmach

    assert PROJECT["project"]["version"] == tolmach.__version__
    assert PROJECT["project"]["scripts"] == {"tolmach": "tolmach.cli:main"}
    assert (ROOT / PROJECT["project"]["readme"]).is_file()


def installer() -> ModuleType:
    spec = importlib.util.spec_from_file_location("install", ROOT / "requirements/install.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def install(tmp_path: Path) -> ModuleType:
    """The installer, for a project in a folder with a space in its name."""
    module = installer()
    root = tmp_path / "my project"
    (root / "requirements").mkdir(parents=True)
    for file in ("requirements/run.txt", "requirements/dev.txt", "requirements/install.py", "pyproject.toml"):
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


@pytest.mark.parametrize("file", ["requirements/run.txt", "pyproject.toml", "requirements/install.py"])
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


def test_every_verb_of_the_makefile_is_told() -> None:
    makefile = (ROOT / "Makefile").read_text()
    verbs = re.findall(r"^([a-z]+):(?!=)", makefile, re.M)
    assert {"run", "test", "lint", "fix", "bench", "soak", "fuzz", "docs", "requirements", "clean"} == set(verbs)
    comment = makefile.partition(".PHONY")[0]
    assert all(f"make {verb}" in comment for verb in verbs)
