"""What holds for all tests: none writes into the user's own folders."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# A time limit on each example would fail a sound test on a busy machine.
settings.register_profile("tolmach", deadline=None)
settings.load_profile("tolmach")


@pytest.fixture(autouse=True, scope="session")
def data_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder where ledgers are that nobody names."""
    folder = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(folder))
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        yield folder
