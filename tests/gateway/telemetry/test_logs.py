"""The gateway's log: what others chose is in it, and steers nobody's terminal."""

import io
import json
import logging
import re
import sys

import pytest

from tolmach.gateway.telemetry.logs import AccessLine, JsonLines, write_access

EVIL = "m/\x1b]52;c;cHdu\x07\x9b2J\u202e\u2028\x7f модель"
_HARM = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def test_a_line_of_the_access_log(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.BytesIO()
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(out, encoding="utf-8"))
    write_access(AccessLine(request=EVIL, method="POST", path=EVIL, surface="openai", status=404, total_ms=1.0))
    line = out.getvalue().decode()
    assert not _HARM.search(line)
    assert line.count("\n") == 1
    told = json.loads(line)
    assert (told["request"], told["path"]) == (EVIL, EVIL)


def test_a_line_of_any_other_log() -> None:
    try:
        raise ValueError(EVIL)
    except ValueError:
        record = logging.getLogger("tolmach").makeRecord(
            "tolmach", logging.WARNING, "f", 1, "said %s", (EVIL,), sys.exc_info(), extra={"model": EVIL}
        )
    line = JsonLines().format(record)
    assert not _HARM.search(line)
    told = json.loads(line)
    assert (told["message"], told["model"]) == (f"said {EVIL}", EVIL)
    assert EVIL in told["exception"]
