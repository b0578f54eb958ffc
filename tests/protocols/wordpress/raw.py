"""Single answers of real sites, beside the whole exchanges of `tests/captures`: a status, a type and a body each."""

from pathlib import Path

from tolmach.wire import Head

__all__ = ["raw"]

_ANSWERS = Path(__file__).parent / "answers"


def raw(name: str) -> tuple[Head, bytes]:
    """The head and the body of `answers/NAME.txt`."""
    head, _, body = (_ANSWERS / f"{name}.txt").read_bytes().partition(b"\n\n")
    status, kind = head.decode().splitlines()
    return Head(int(status.removeprefix("HTTP ")), {"content-type": kind.removeprefix("Content-Type: ")}), body
