"""The gateway's log: one JSON object a line, on standard error.

No header of a request, no key and no text of a question or answer stands in it; texts do when the
configuration says so. What the configuration keeps secret is taken out of every line, should a
service have repeated it in an error. What a terminal would obey is an escape in it (`tolmach.safe_text`).
"""

import json
import logging
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType

from tolmach.safe_text import json_text

__all__ = ["AccessLine", "JsonLines", "Secrets", "access", "secrets", "set_up", "write_access"]

_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}

_LEAST_SECRET = 6
"""Characters; what is shorter is no secret and may stand in any text."""

access = logging.getLogger("tolmach.access")
"""Its level says whether requests are logged. The lines themselves do not go through it: that costs too much."""


class Secrets:
    """The texts that no line of the log may have in it."""

    def __init__(self) -> None:
        self._texts: tuple[str, ...] = ()

    def keep(self, texts: Iterable[str]) -> None:
        """Hide these too; those before stay hidden, for sessions under way still use them."""
        known = {*self._texts, *(text for text in texts if len(text) >= _LEAST_SECRET)}
        self._texts = tuple(sorted(known, key=len, reverse=True))

    def hide(self, text: str) -> str:
        for secret in self._texts:
            text = text.replace(secret, "…")
        return text


secrets = Secrets()
"""Those of this process."""


class JsonLines(logging.Formatter):
    """Records as JSON objects: time, level, logger, message, and what the record brings in `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        value: dict[str, Any] = {
            "time": _time(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": secrets.hide(record.getMessage()),
        }
        value |= {name: item for name, item in vars(record).items() if name not in _OWN}
        if record.exc_info:
            value["exception"] = secrets.hide(self.formatException(record.exc_info))
        return json_text(json.dumps(value, ensure_ascii=False, default=str))


def _time(seconds: float) -> str:
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{int(seconds % 1 * 1000):03}Z"


class AccessLine(Struct, kw_only=True, omit_defaults=True):
    """One request. Times are milliseconds from its coming; what there was none of is left out."""

    time: str = ""
    level: str = ""
    logger: str = ""
    request: str
    method: str
    path: str
    surface: str
    target: str = ""
    status: int
    """0 when the caller went away before there was one."""
    gone: bool = False
    """Whether the caller went away before the end."""
    error: str = ""
    """The kind of the error that the answer ended in."""
    first_ms: float | None = None
    total_ms: float
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    question: str | UnsetType = UNSET
    """The request's body, and below the answer's: only with `log.texts`."""
    answer: str | UnsetType = UNSET


_encode = msgspec.json.Encoder().encode


def write_access(line: AccessLine) -> None:
    """Write the line, with the time that it is now."""
    line.time = _time(time.time())
    line.level, line.logger = "info", "tolmach.access"
    if line.question is not UNSET:
        line.question = secrets.hide(line.question)
    if type(line.answer) is str:
        line.answer = secrets.hide(line.answer)
    data = _encode(line)
    if not data.isascii() or b"\x7f" in data:
        data = json_text(data.decode()).encode()
    # Nobody reads it any more: the request is answered all the same.
    with suppress(OSError, ValueError):
        stream = sys.stderr.buffer
        stream.write(data + b"\n")
        stream.flush()


def set_up(level: str, hidden: Iterable[str] = ()) -> None:
    """Write what tolmach logs from this level on; other packages' from warnings on. `hidden` stands in no line."""
    secrets.keep(hidden)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("tolmach").setLevel(level.upper())
