"""The benchmark that is a check: what it counts does go, and what costs too much is refused."""

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.documentation.documents import ROOT, rows

BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture
def instructions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The program, with valgrind, and figures of its own: a hundred instructions for each way."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    module = importlib.import_module("instructions")
    versions = {package: importlib.metadata.version(package) for package in module.PACKAGES}
    kept = {"instructions": {way.name: 100 for way in module.WAYS}, "packages": versions}
    monkeypatch.setattr(module, "KEPT", tmp_path / "instructions.json")
    module.KEPT.write_text(json.dumps({module.interpreter(): kept}))
    monkeypatch.setattr(module.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(sys, "argv", ["instructions.py"])
    return module


def counted(module: ModuleType, **others: int) -> Any:
    """A count that gives the same figures each time: those of the first way, or a hundred."""
    figures = {way.name: 100 for way in module.WAYS} | {module.WAYS[0].name: others.get("first", 100)}
    return lambda: figures


def test_each_way_is_answered() -> None:
    command = [sys.executable, "-W", "error", str(BENCHMARKS / "instructions.py"), "--once"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count(": answered\n") == 5


def test_an_answer_that_is_not_the_expected_one_is_no_figure(instructions: ModuleType) -> None:
    way = instructions.WAYS[1]
    with pytest.raises(RuntimeError, match="passed on, streamed: status 200, 52 pieces"):
        instructions.ask(way._replace(pieces=51), 1)
    with pytest.raises(RuntimeError, match="status 404"):
        instructions.ask(way._replace(body=way.body.replace(b'"gpt-4o"', b'"nobody/gpt"')), 1)


def test_three_per_cent_more_are_borne_and_four_are_not(
    instructions: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(instructions, "count", counted(instructions, first=103))
    instructions.main()
    assert "+3.00 %" in capsys.readouterr().out
    monkeypatch.setattr(instructions, "count", counted(instructions, first=104))
    with pytest.raises(SystemExit, match=r"takes 4\.0 % more .* say so in the commit"):
        instructions.main()
    monkeypatch.setattr(sys, "argv", ["instructions.py", "--keep"])
    instructions.main()
    monkeypatch.setattr(sys, "argv", ["instructions.py"])
    instructions.main()
    assert "+0.00 %" in capsys.readouterr().out


def test_a_python_without_kept_figures_is_told(
    instructions: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    known = instructions.interpreter()
    monkeypatch.setattr(instructions, "interpreter", lambda: "CPython 4.0")
    monkeypatch.setattr(instructions, "count", counted(instructions))
    instructions.main()
    assert f"nothing is kept for this Python; kept are: {known}" in capsys.readouterr().out


def test_without_valgrind_it_says_what_to_install(instructions: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instructions.shutil, "which", lambda name: None)
    with pytest.raises(SystemExit, match="apt-get install -y valgrind"):
        instructions.main()


def test_the_page_has_the_kept_figures() -> None:
    kept = json.loads((BENCHMARKS / "instructions.json").read_text())
    pythons = [python for python in kept if f"`{python}`" in (ROOT / "docs/performance.md").read_text()]
    assert pythons == list(kept)
    table = rows(ROOT / "docs/performance.md", "way")
    for way, *figures in table:
        assert figures == [f"{round(kept[python]['instructions'][way], -3) // 1000:,}" for python in pythons]
    assert {row[0] for row in table} == {way for each in kept.values() for way in each["instructions"]}
