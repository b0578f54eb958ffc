"""The command that adds an extra, by how tolmach was installed."""

import json
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from tolmach import extras
from tolmach.errors import MissingDependency
from tolmach.extras import install_command, missing


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Call it with the origin that the installer wrote down: tolmach counts as installed from there."""
    info = tmp_path / "site-packages/tolmach-0.1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tolmach\nVersion: 0.1.0\n")
    monkeypatch.syspath_prepend(str(info.parent))
    monkeypatch.setenv("VIRTUAL_ENV", sys.prefix)

    def set_origin(**origin: Any) -> None:
        (info / "direct_url.json").write_text(json.dumps(origin))

    return set_origin


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the repository in the current folder."""
    (tmp_path / "check out").mkdir()
    monkeypatch.chdir(tmp_path / "check out")
    return tmp_path / "check out"


def test_from_an_index(installed: Any) -> None:
    assert install_command("redis") == "pip install 'tolmach[redis]'"


def test_from_a_checkout(installed: Any, checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(url=checkout.as_uri(), dir_info={"editable": True})
    assert install_command("redis") == "pip install --editable '.[redis]'"
    installed(url=checkout.as_uri(), dir_info={})
    assert install_command("redis") == "pip install '.[redis]'"
    monkeypatch.chdir(checkout.parent)
    assert install_command("redis") == "pip install './check out[redis]'"
    monkeypatch.chdir("/")
    assert install_command("redis") == f"pip install {shlex.quote(f'{checkout}[redis]')}"


def test_from_a_wheel_in_a_file(installed: Any, checkout: Path) -> None:
    wheel = checkout / "tolmach-0.1.0-py3-none-any.whl"
    wheel.touch()
    installed(url=wheel.as_uri(), archive_info={})
    assert install_command("otel") == "pip install './tolmach-0.1.0-py3-none-any.whl[otel]'"
    wheel.unlink()
    assert install_command("otel") == "pip install 'tolmach[otel]'"


def test_from_an_address(installed: Any) -> None:
    installed(url="https://files.example/tolmach-0.1.0-py3-none-any.whl?signature=secret", archive_info={})
    assert install_command("otel") == (
        "pip install 'tolmach[otel] @ https://files.example/tolmach-0.1.0-py3-none-any.whl'"
    )


def test_from_a_repository(installed: Any) -> None:
    installed(url="https://git.example/tolmach.git", vcs_info={"vcs": "git", "commit_id": "a1b2c3"})
    assert install_command("otel") == "pip install 'tolmach[otel] @ git+https://git.example/tolmach.git@a1b2c3'"


def test_an_environment_that_is_not_activated_is_named(
    installed: Any, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VIRTUAL_ENV")
    scripts = checkout / ".venv/bin"
    monkeypatch.setattr(sys, "prefix", str(checkout / ".venv"))
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(scripts))
    installed(url=checkout.as_uri(), dir_info={"editable": True})
    assert install_command("redis") == "pip install --editable '.[redis]'"  # made without pip
    scripts.mkdir(parents=True)
    (scripts / "pip").touch()
    assert install_command("redis") == ".venv/bin/pip install --editable '.[redis]'"
    monkeypatch.chdir("/")
    assert install_command("redis").startswith(shlex.quote(f"{scripts}/pip") + " install ")


def test_what_is_not_installed_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setenv("VIRTUAL_ENV", sys.prefix)
    assert install_command("redis") == "pip install 'tolmach[redis]'"


def test_the_error_has_the_command(installed: Any) -> None:
    error = missing("the state needs redis", "redis")
    assert isinstance(error, MissingDependency)
    assert str(error) == "the state needs redis: pip install 'tolmach[redis]'"
    assert error.install == "pip install 'tolmach[redis]'"


def test_every_extra_that_the_code_names_exists() -> None:
    import ast
    import tomllib

    root = Path(__file__).parent.parent
    known = tomllib.loads((root / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    calls = [
        node
        for path in (root / "src").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "missing"
    ]
    named = {ast.literal_eval(call.args[1]) for call in calls}
    assert named == known.keys() - {"bench", "prices"}  # a price that is not known is no error


def test_no_message_has_a_command_of_its_own() -> None:
    source = Path(extras.__file__).parent
    assert [path.name for path in source.rglob("*.py") if "pip install" in path.read_text()] == []


def test_loading_it_costs_nothing() -> None:
    code = "import sys, tolmach.extras; sys.exit('importlib.metadata' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
