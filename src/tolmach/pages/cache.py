"""What was found on pages, remembered for a day: in this process, and in a file of the user's cache folder."""

import os
import re
import secrets
import threading
import time
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import msgspec
from msgspec import Struct, field

from tolmach.discovery import Found
from tolmach.pages.assistants import Finding

__all__ = ["KEPT_SECONDS", "forget", "keep", "kept", "kept_file"]

KEPT_SECONDS = 86400.0
"""How long a finding holds."""
_MOST = 500
_LONGEST = 8 << 20
_SECRET = re.compile(r"key|token|secret|pass|nonce|auth|sig|session|code", re.IGNORECASE)

_lock = threading.Lock()
_memory: dict[str, Finding] = {}


class _File(Struct):
    """The file; another version of it is not read."""

    version: int = 1
    pages: dict[str, Finding] = field(default_factory=dict)


def kept_file() -> Path:
    """Where findings are kept: `discovered.json` in the user's cache folder (XDG Base Directory Specification)."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path("~/.cache").expanduser()) / "tolmach" / "discovered.json"


def kept(url: str) -> Finding | None:
    """What was found on the page at `url` within the last day."""
    with _lock:
        known = _memory.get(url)
        if known is None:
            known = _read().pages.get(url)
            if known is not None and known.found:
                _memory[url] = known
    return known if known is not None and known.found and _is_young(known) else None


def keep(url: str, finding: Finding) -> None:
    """Remember it. A file that cannot be written is left: the finding then holds for this process alone."""
    with _lock:
        _memory[url] = finding
        if _may_be_written(url, finding.found):
            _change(url, finding)


def forget(url: str) -> None:
    """Forget what was found on this page."""
    with _lock:
        _memory.pop(url, None)
        _change(url, None)


def _is_young(finding: Finding) -> bool:
    return 0 <= time.time() - finding.at < KEPT_SECONDS


def _may_be_written(url: str, found: tuple[Found, ...]) -> bool:
    """Whether no address in it has something like a key in its query."""
    urls = (url, *(str(one.row.get(key, "")) for one in found for key in ("url", "page")), *(one.page for one in found))
    names = {name for text in urls for name, _ in parse_qsl(urlsplit(text).query, keep_blank_values=True)}
    return not any(_SECRET.search(name) for name in names)


def _read() -> _File:
    """The file; an empty one where there is none that can be read."""
    try:
        with kept_file().open("rb") as opened:
            data = opened.read(_LONGEST)
        read = msgspec.json.decode(data, type=_File)
    except (OSError, RuntimeError, msgspec.MsgspecError, UnicodeError, RecursionError):
        return _File()  # a cache: what cannot be read is found again
    return read if read.version == 1 else _File()


def _change(url: str, finding: Finding | None) -> None:
    file = _read()
    if finding is None and url not in file.pages:
        return
    pages = {address: known for address, known in file.pages.items() if address != url and _is_young(known)}
    if finding is not None:
        pages[url] = finding
    newest = sorted(pages.items(), key=lambda item: item[1].at)[-_MOST:]
    try:
        _write(kept_file(), msgspec.json.encode(_File(pages=dict(newest))))
    except (OSError, RuntimeError):
        return  # a cache that cannot be written (no home, a read-only disk) must fail no question


def _write(file: Path, data: bytes) -> None:
    """Put the file there in one go, readable by the user alone."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    made = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    try:
        with open(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as opened:
            opened.write(data)
        os.replace(made, file)
    finally:
        made.unlink(missing_ok=True)
