"""Request bodies of callers: JSON, checked where it enters, with errors that name the field."""

import json
import math
import re
from typing import Any, NoReturn, TypeVar

import msgspec

from tolmach.errors import BadRequest

__all__ = [
    "LONGEST_MODEL",
    "MAX_DEPTH",
    "MOST_COMMAS",
    "MOST_STRUCTURES",
    "check_depth",
    "check_shape",
    "depth_exceeds",
    "read_object",
    "wrong",
]

T = TypeVar("T")

LONGEST_MODEL = 256
"""Characters of a model's name, which is looked up, remembered and logged."""
MOST_STRUCTURES = 200_000
MOST_COMMAS = 1_000_000
"""What a body of 32 MB may have; one of nothing but brackets would take seconds and 1.6 GB."""
MAX_DEPTH = 100
"""Objects and lists within each other, the body itself counted."""

_SURROGATE = re.compile("[\ud800-\udfff]")
_PLACE = re.compile(r"(?P<what>.*?)(?: - at `\$\.?(?P<where>[^`]*)`)?", re.S)
_MISSING = re.compile(r"missing required field `(?P<name>[^`]+)`")


def wrong(param: str | None, text: str, code: str | None = None) -> BadRequest:
    """The error for a field that is not as it must be."""
    return BadRequest(f"{param}: {text}" if param else text, param=param, status=400, code=code)


def read_object(body: bytes) -> dict[str, Any]:
    """The JSON object that a body is; halves of surrogate pairs in it are joined, lone ones replaced by U+FFFD.

    Raises `BadRequest`.
    """
    try:
        value = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        # msgspec refuses lone surrogates; callers that cut a text in the middle of a character send them.
        value = _with_surrogates(body) if b"\\u" in body else _refuse(error)
    if not isinstance(value, dict):
        raise wrong(None, "the body must be a JSON object")
    if body.count(b"{") + body.count(b"[") > MAX_DEPTH and depth_exceeds(value, MAX_DEPTH):
        raise wrong(None, f"the body is nested more than {MAX_DEPTH} deep")
    return value


def check_depth(body: bytes, limit: int) -> None:
    """Raises `BadRequest` for JSON that is nested deeper than `limit`, or of so many values that to read it would hold
    the loop; bodies that are no JSON pass.

    Brackets and commas are counted over the bytes, those in texts included, before anything is read.
    """
    structures = body.count(b"{") + body.count(b"[")
    if structures > MOST_STRUCTURES or body.count(b",") > MOST_COMMAS:
        raise wrong(
            None, f"the body has more than {MOST_STRUCTURES:,} brackets or {MOST_COMMAS:,} commas: it is not read here"
        )
    if structures <= limit:
        return
    try:
        value = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeError):
        return
    except RecursionError as error:
        _refuse(error)
    if depth_exceeds(value, limit):
        raise wrong(None, f"the body is nested more than {limit} deep")


def depth_exceeds(value: Any, limit: int) -> bool:
    """Whether objects and lists of a parsed value stand in each other more than `limit` deep, itself counted."""
    level = [value]
    for _ in range(limit + 1):
        nested = [item for item in level if isinstance(item, dict | list)]
        if not nested:
            return False
        level = [inner for item in nested for inner in (item.values() if isinstance(item, dict) else item)]
    return True


def _refuse(error: Exception) -> NoReturn:
    why = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
    raise wrong(None, f"the body is not JSON in UTF-8: {why}") from error


def _with_surrogates(body: bytes) -> Any:
    try:
        value = json.loads(body.decode(), parse_constant=_no_constant, parse_float=_finite)
        return _joined(value)
    except (ValueError, RecursionError) as error:
        _refuse(error)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError("a number out of range")
    return number


def _joined(value: Any) -> Any:
    if isinstance(value, str):
        if not _SURROGATE.search(value):
            return value
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, list):
        return [_joined(item) for item in value]
    if isinstance(value, dict):
        return {_joined(key): _joined(item) for key, item in value.items()}
    return value


def check_shape(value: Any, shape: type[T]) -> T:
    """A parsed value as `shape`. Raises `BadRequest` that names the field."""
    try:
        return msgspec.convert(value, shape)
    except (msgspec.ValidationError, RecursionError) as error:
        found = _PLACE.fullmatch(str(error))
        what, where = (found["what"], found["where"] or "") if found else (str(error), "")
        if missing := _MISSING.search(what):
            where = f"{where}.{missing['name']}" if where else missing["name"]
            raise wrong(where, "it is required", "missing_required_parameter") from error
        raise wrong(where or None, _lower_first(what)) from error


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]
