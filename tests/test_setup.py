"""What `make` relies on: the pins and the metadata."""

import ast
import importlib.metadata
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
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


def needed(requirements: list[Requirement]) -> Iterator[tuple[str, Requirement]]:
    """Whatever these need here, extras of extras too: who asks, and for what."""
    left, seen = [("tolmach", each) for each in requirements], set()
    while left:
        asker, requirement = left.pop()
        if (asker, str(requirement)) in seen:
            continue
        seen.add((asker, str(requirement)))
        yield asker, requirement
        for line in importlib.metadata.requires(requirement.name) or []:
            inner = Requirement(line)
            extras = ["", *requirement.extras]
            if inner.marker is None or any(inner.marker.evaluate({"extra": extra}) for extra in extras):
                left.append((str(requirement), inner))


def test_pins_are_whole() -> None:
    # `pip check`, which the installer asks, overlooks what is needed for an extra of a package.
    pinned = pins("dev")
    wanted = list(needed(declared("dev")))
    assert any(requirement.extras for _, requirement in wanted)
    for asker, requirement in wanted:
        version, _ = pinned.get(canonicalize_name(requirement.name), ("", None))
        assert version, f"{asker} needs {requirement}, which has no pin"
        assert requirement.specifier.contains(version, prereleases=True), f"{asker} needs {requirement}, not {version}"


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


def test_metadata_names_the_command() -> None:
    assert PROJECT["project"]["scripts"] == {"tolmach": "tolmach.cli:main"}


def test_every_verb_of_the_makefile_is_told() -> None:
    makefile = (ROOT / "Makefile").read_text()
    verbs = re.findall(r"^([a-z]+):(?!=)", makefile, re.M)
    assert {"run", "test", "lint", "fix", "bench", "soak", "fuzz", "docs", "package", "requirements", "clean"} == set(
        verbs
    )
    comment = makefile.partition(".PHONY")[0]
    assert all(f"make {verb}" in comment for verb in verbs)
