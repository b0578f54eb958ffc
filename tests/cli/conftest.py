"""What the tests of the command share: the demo, a clean environment, and ways to run the command."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tolmach.cli import cli
from tolmach.cli.failures import Reporting
from tolmach.demo.server import ThreadedDemo, serve_in_thread

Run = Callable[..., Result]


@pytest.fixture(scope="package")
def demo() -> Iterator[ThreadedDemo]:
    with serve_in_thread(delay=0.001) as running:
        yield running


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own, and none of the user's settings."""
    for name in ("TOLMACH_MODEL", "TOLMACH_PROVIDER", "TOLMACH_API_KEY", "TOLMACH_PROXY", "TOLMACH_COOKIES"):
        monkeypatch.delenv(name, raising=False)
    for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    return tmp_path


@pytest.fixture
def run() -> Run:
    """Runs the command in this process, its output in a pipe."""

    def run(*args: str, **options: object) -> Result:
        return CliRunner().invoke(cli, args, obj=Reporting(), prog_name="tolmach", **options)  # type: ignore[arg-type]

    return run


@pytest.fixture
def ask(run: Run, demo: ThreadedDemo) -> Run:
    """`tolmach ask` of a service of the demo."""

    def ask(provider: str, *args: str, **options: object) -> Result:
        return run("ask", "-p", provider, "--base-url", f"{demo.url}/{provider}", *args, **options)

    return ask
