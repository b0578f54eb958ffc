"""The settings of a running program, read again when their file, or a recipe that it names, has changed."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tolmach.configuration.files import place
from tolmach.configuration.problems import InvalidSettings
from tolmach.configuration.reading import read_document
from tolmach.configuration.settings import Settings, find_config
from tolmach.errors import ConfigError

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
        self._recipes = self._stamped_recipes()
        self.settings = Settings.load(self._file or path, environ, overrides)
        self.last_error: ConfigError | None = None
        """Why the latest reading changed nothing; None when it went well."""

    def changed(self) -> bool:
        """Whether the file, or that of a recipe, is another one than when it was read last.

        One `stat` for each of them: cheap enough for every second. Where there was no file, one that has come
        since counts too.
        """
        if self._file is None:
            try:
                return find_config(self._path, self._environ) is not None
            except InvalidSettings:
                return False  # one is named that is not there
        return _stamp(self._file) != self._stamp or any(_stamp(one) != was for one, was in self._recipes.items())

    def reload(self) -> Settings | None:
        """Read again: the new settings, or None and `last_error`; then those before stay in force."""
        try:
            self._file = self._file or find_config(self._path, self._environ)
            # Before the reading: what is written while it is read is a change for the next time.
            self._stamp = _stamp(self._file)
            self._recipes = self._stamped_recipes()
            self.settings = Settings.load(self._file or self._path, self._environ, self._overrides)
        except ConfigError as error:
            self.last_error = error
            return None
        self.last_error = None
        return self.settings

    def _stamped_recipes(self) -> dict[Path, _Stamp | None]:
        """The files of the recipes that the file names, also of those that are broken or not there yet."""
        if self._file is None:
            return {}
        try:
            document = read_document(self._file)
        except InvalidSettings:
            return {}  # told by the reading that follows
        document.expand_all(os.environ if self._environ is None else self._environ)
        return {file: _stamp(file) for file in _recipes_in(document.tree, self._file.parent)}


def _recipes_in(tree: Mapping[str, Any], folder: Path) -> Iterator[Path]:
    providers = tree.get("providers")
    for row in providers.values() if isinstance(providers, dict) else ():
        name = row.get("recipe") if isinstance(row, dict) else None
        if isinstance(name, str) and name:
            yield place(folder, name)


def _stamp(file: Path | None) -> _Stamp | None:
    """What changes with a file; None while it is not there."""
    if file is None:
        return None
    try:
        status = file.stat()
    except (OSError, ValueError):  # a name with a null character is no file's
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino, status.st_dev
