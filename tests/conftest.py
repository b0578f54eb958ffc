"""What holds for all tests: none writes into the user's own folders, and programs that they start can be stopped."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# A time limit on each example would fail a sound test on a busy machine.
settings.register_profile("tolmach", deadline=None)
settings.load_profile("tolmach")

_STOPPING = (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


def pytest_configure() -> None:
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
