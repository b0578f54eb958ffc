"""What holds for all tests: how much of each sweep is taken, none writes into the user's own folders, and programs
that they start can be stopped.
"""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests import sweeps

# A time limit on each example would fail a sound test on a busy machine.
settings.register_profile("tolmach", deadline=None)
settings.load_profile("tolmach")

_STOPPING = (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("sweeps")
    group.addoption("--all", action="store_true", dest="sweep_all", help="the whole of each sweep, not a part of it")
    group.addoption("--seed", type=int, dest="sweep_seed", help="which part of each sweep (default: by the commit)")


def pytest_configure(config: pytest.Config) -> None:
    if config.option.sweep_seed is None:  # the processes of one run are told it
        config.option.sweep_seed = sweeps.commits_seed()
    sweeps.begin(whole=config.option.sweep_all, seed=config.option.sweep_seed)
    _limit_each_test(config)
    _take_ignored_signals()


def pytest_report_header(config: pytest.Config) -> str:
    return "sweeps: the whole of each" if sweeps.whole() else f"sweeps: a part of each (--seed {sweeps.seed()}; --all)"


def _limit_each_test(config: pytest.Config) -> None:
    """Fail a test that hangs (by pytest-timeout, with the stacks of its threads), unless a limit is asked for."""
    if config.pluginmanager.hasplugin("timeout") and getattr(config.option, "timeout", None) is None:
        config.option.timeout = 900.0 if sweeps.whole() else 180.0


def _take_ignored_signals() -> None:
    """Take signals that the shell has ignored (`pytest &` in a script, `nohup`): programs would inherit that."""
    for number in _STOPPING:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


@pytest.fixture(autouse=True, scope="session")
def data_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder where ledgers are that nobody names."""
    folder = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(folder))
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        yield folder
