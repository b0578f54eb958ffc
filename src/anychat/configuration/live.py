"""The settings of a running program, read again when their file has changed."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from anychat.configuration.settings import Settings, find_config
from anychat.errors import ConfigError

__all__ = ["LiveSettings"]

_Stamp = tuple[int, int, int, int]


class LiveSettings:
    """The settings in force: the last that were without a mistake.

    Made with the arguments of `Settings.load`; raises `InvalidSettings` when there is nothing to begin with.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        environ: Mapping[str, str] | None = None,
        overrides: Mapping[str, Any] | None = None,
    ) -> None:
        self._path = path
        self._environ = environ
        self._overrides = overrides
        self._file = find_config(path, environ)
        self._stamp = _stamp(self._file)
        self.settings = Settings.load(self._file or path, environ, overrides)
        self.last_error: ConfigError | None = None
        """Why the latest reading changed nothing; None when it went well."""

    def changed(self) -> bool:
        """Whether the file is another one than when it was read last. One `stat`: cheap enough for every second.

        Where there was no file, one that has come since counts too.
        """
        if self._file is None:
            return find_config(self._path, self._environ) is not None
        return _stamp(self._file) != self._stamp

    def reload(self) -> Settings | None:
        """Read again: the new settings, or None and `last_error`; then those before stay in force."""
        try:
            self._file = self._file or find_config(self._path, self._environ)
            # Before the reading: what is written while it is read is a change for the next time.
            self._stamp = _stamp(self._file)
            self.settings = Settings.load(self._file or self._path, self._environ, self._overrides)
        except ConfigError as error:
            self.last_error = error
            return None
        self.last_error = None
        return self.settings


def _stamp(file: Path | None) -> _Stamp | None:
    """What changes with a file; None while it is not there."""
    if file is None:
        return None
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino, status.st_dev
