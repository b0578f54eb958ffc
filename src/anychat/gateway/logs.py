"""The gateway's log: one JSON object a line, on standard error."""

import json
import logging
import sys
import time
from typing import Any

__all__ = ["JsonLines", "set_up"]

_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


class JsonLines(logging.Formatter):
    """Records as JSON objects: time, level, logger, message, and what the record brings in `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        value: dict[str, Any] = {
            "time": f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        value |= {name: item for name, item in vars(record).items() if name not in _OWN}
        if record.exc_info:
            value["exception"] = self.formatException(record.exc_info)
        return json.dumps(value, ensure_ascii=False, default=str)


def set_up(level: str) -> None:
    """Write what anychat logs from this level on; other packages' from warnings on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("anychat").setLevel(level.upper())
