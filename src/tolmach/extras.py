"""Optional packages: who lacks one is told the command that is right for how tolmach was installed."""

import json
import os
import shlex
import sys
import sysconfig
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from tolmach.errors import MissingDependency

__all__ = ["install_command", "missing"]


def missing(what: str, extra: str) -> MissingDependency:
    """The error for a package that is not there; `what` says what needs it, `extra` brings it."""
    command = install_command(extra)
    return MissingDependency(f"{what}: {command}", install=command)


def install_command(extra: str) -> str:
    """The line for a shell that adds the packages of `extra` to the environment that runs this."""
    return " ".join([_pip(), "install", *(shlex.quote(word) for word in _wanted(extra, _origin()))])


def _origin() -> dict[str, Any] | None:
    """Where tolmach was installed from: PEP 610's record; None where that was an index, which leaves none."""
    from importlib import metadata  # takes 20 ms to load, and is needed by errors alone

    try:
        record = metadata.distribution("tolmach").read_text("direct_url.json")
    except metadata.PackageNotFoundError:
        return None
    return json.loads(record) if record else None


def _wanted(extra: str, origin: dict[str, Any] | None) -> list[str]:
    """pip's arguments."""
    name = f"tolmach[{extra}]"
    if origin is None:
        return [name]
    # Signed addresses have their secret in the query.
    url = urlunsplit(urlsplit(origin["url"])._replace(query="", fragment=""))
    if "vcs_info" in origin:
        revision = origin["vcs_info"]
        return [f"{name} @ {revision['vcs']}+{url}@{revision['commit_id']}"]
    if not url.startswith("file:"):
        return [f"{name} @ {url}"]
    path = _path(url)
    if not path.exists():
        return [name]
    # Without the option pip would put a copy in place of what is edited.
    option = ["--editable"] if origin.get("dir_info", {}).get("editable") else []
    return [*option, f"{_shown(path)}[{extra}]"]


def _pip() -> str:
    """The pip of this environment, as short as it works: by its path unless the environment is activated."""
    pip = Path(sysconfig.get_path("scripts"), "pip.exe" if os.name == "nt" else "pip")
    if sys.prefix in (sys.base_prefix, os.environ.get("VIRTUAL_ENV")) or not pip.exists():
        return "pip"
    return shlex.quote(_shown(pip))


def _path(url: str) -> Path:
    from urllib.request import url2pathname

    return Path(url2pathname(urlsplit(url).path))


def _shown(path: Path) -> str:
    """Relative to the current folder where it is in there, and with a slash: without one pip takes it for a name."""
    here = Path.cwd()
    if here == here.parent or not path.is_relative_to(here):
        return str(path)
    relative = path.relative_to(here).as_posix()
    return relative if relative == "." or "/" in relative else f"./{relative}"
