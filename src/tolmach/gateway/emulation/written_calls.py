"""Tool calls written in an answer's text: found while the text comes, and read once it is whole.

The form that is asked for is a fenced block, at the start of a line:

    ```tool_calls
    [{"name": "get_weather", "arguments": {"city": "Paris"}}]
    ```

Taken as well, since models write it: the same in a block of `json` or of no language, or as the
whole answer without a fence, when its first words name one of the tools. Whether a text is a call
is known by its first characters, so text is held back only as long as it may still become one.
The white space between the text and a call is no part of either.
"""

import json
import re
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple, NoReturn

from tolmach.gateway.surfaces.bodies import MAX_DEPTH, depth_exceeds
from tolmach.protocols.bodies import clean

__all__ = ["BrokenCalls", "CallScanner", "WrittenCall", "parse_strictly", "read_calls"]

_Verdict = Literal["text", "more", "call"]

_MARKED = ("tool_calls", "tool_call")
_LANGUAGES = (*_MARKED, "json", "")
_KEYS = ("name", "type", "function", "tool_calls")
_MAX_SPACE = 256
"""So much white space before a block is held back, as it may belong to one."""

_FENCE = re.compile(r"\n[ \t]{0,32}(?=```)")
_LANGUAGE = re.compile(r"`{3,6}[ \t]{0,8}(?P<language>[a-z_]{0,16})")
_OPENING = re.compile(
    r'\s{0,64}(?:\[\s{0,64})?(?:\{\s{0,64}(?:"(?P<key>[a-z_]{0,16})'
    r'(?P<closed>"\s{0,64}(?::\s{0,64}(?:"(?P<value>[^"\\]{0,256})(?P<ended>")?)?)?)?)?)?'
)
"""The beginning of a call, or of a list of calls, as far as it has come."""


class BrokenCalls(Exception):
    """A block of calls that cannot be read; the message says why, in words for the model."""


class WrittenCall(NamedTuple):
    """A call as the model wrote it; its arguments are not checked yet."""

    name: str
    arguments: dict[str, Any]


class CallScanner:
    """Parts an answer's text, as it comes, into text and what begins a block of calls.

    `names` are those of the tools. Whatever the cut of the pieces, the same text comes out.
    """

    def __init__(self, names: frozenset[str]) -> None:
        self._names = names
        self._buffer = ""
        self._begun = False
        self._held: list[str] = []

    @property
    def held(self) -> str:
        """From the white space before the first block of calls to the end of what came; empty when there is none."""
        return "".join(self._held)

    def feed(self, piece: str) -> str:
        """The text that is known to be no call."""
        if self._held:
            self._held.append(piece)
            return ""
        self._buffer += piece
        return self._let_out(self._decided())

    def close(self) -> str:
        """The rest of the text, at the answer's end."""
        rest, self._buffer = self._buffer, ""
        return rest

    def _let_out(self, count: int) -> str:
        out, self._buffer = self._buffer[:count], self._buffer[count:]
        self._begun = self._begun or bool(out.strip())
        if self._held:
            self._held, self._buffer = [self._buffer], ""
        return out

    def _decided(self) -> int:
        """How many characters of the buffer are text, whatever follows."""
        text, at = self._buffer, 0
        for place in self._candidates(text):
            verdict = _verdict(text[place : place + 1024], self._names)
            if verdict != "text":
                if verdict == "call":
                    self._held = [""]
                return _without_space(text, place)
            at = place
        line = text.rfind("\n", at) + 1
        start = text[line:].lstrip(" \t")
        maybe = line > 0 and start in ("", "`", "``") and len(text) - line - len(start) <= 32
        return _without_space(text, line if maybe else len(text))

    def _candidates(self, text: str) -> Iterator[int]:
        """Where a call may begin: at the start of the answer, and where a line begins with a fence."""
        if not self._begun and not text.isspace() and text:
            yield len(text) - len(text.lstrip())
        for match in _FENCE.finditer(text):
            yield match.end()


def _without_space(text: str, end: int) -> int:
    """`end`, before the white space that stands there."""
    return max(len(text[:end].rstrip()), end - _MAX_SPACE)


def _verdict(text: str, names: frozenset[str]) -> _Verdict:
    """Whether the text, which ends where what has come ends, begins a call."""
    at = 0
    if text.startswith("`"):
        fence = _LANGUAGE.match(text)
        if fence is None:
            return "more" if text in ("`", "``") else "text"
        language, at = fence["language"], fence.end()
        if at == len(text):
            return "more" if any(known.startswith(language) for known in _LANGUAGES) else "text"
        if language in _MARKED:
            return "call" if text[at] in " \t\r\n[{" else "text"
        if language not in _LANGUAGES:
            return "text"
    return _opening(text[at:], names)


def _opening(text: str, names: frozenset[str]) -> _Verdict:
    """Whether JSON that begins like this is a call."""
    match = _OPENING.match(text)
    assert match is not None  # every part of it may be absent
    key, value = match["key"], match["value"]
    unfinished = match.end() == len(text)
    if key is None or match["closed"] is None:
        return "more" if unfinished and any(known.startswith(key or "") for known in _KEYS) else "text"
    if key in ("function", "tool_calls"):
        return "call"
    if key not in _KEYS or (value is None and not unfinished):
        return "text"
    wanted = names if key == "name" else ("function",)
    if match["ended"] is None:
        return "more" if unfinished and any(known.startswith(value or "") for known in wanted) else "text"
    return "call" if value in wanted else "text"


# Reading


def parse_strictly(text: str) -> Any:
    """The value of a JSON text. Raises `ValueError`, for the constants that JSON does not have too."""
    try:
        return _shallow(json.loads(text, parse_constant=_no_constant))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _shallow(value: Any) -> Any:
    """The value itself. Raises `RecursionError` where it is nested more than `MAX_DEPTH` deep.

    How deep json.loads goes differs from one Python to the next: one reads what another cannot walk through.
    """
    if depth_exceeds(value, MAX_DEPTH):
        raise RecursionError
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


# Models write line ends into strings as they are: that much is forgiven.
_decode = json.JSONDecoder(strict=False, parse_constant=_no_constant).raw_decode
_BETWEEN = re.compile(r"[\s,]*")
_CLOSING = re.compile(r"\s*(?:`{3,6})?")


def _past(pattern: re.Pattern[str], text: str, at: int) -> int:
    """The end of what matches there; `at` itself when nothing does."""
    match = pattern.match(text, at)
    return match.end() if match else at


def read_calls(held: str, names: frozenset[str]) -> tuple[list[WrittenCall], str]:
    """The calls of all blocks in what a scanner held, and the text behind and between them.

    No calls, and all as text, where it is JSON without a mark that turns out to be no call.
    Raises `BrokenCalls`.
    """
    calls: list[WrittenCall] = []
    texts: list[str] = []
    first = held
    while held := held.lstrip():
        marked, values, rest = _block(held)
        try:
            found = [call for value in values for call in _calls(value)]
            if not found:
                raise BrokenCalls("the list of calls is empty; to call nothing, answer without a block")
        except BrokenCalls:
            if marked or texts:
                raise
            return [], first
        calls += found
        scanner = CallScanner(names)
        scanner.feed("\n")
        texts.append(scanner.feed(rest) + scanner.close())
        held = scanner.held
    return calls, "".join(texts).strip()


def _block(held: str) -> tuple[bool, list[Any], str]:
    """Whether the block has our mark, its JSON values, and what stands behind it."""
    fence = _LANGUAGE.match(held)
    marked = fence is not None and fence["language"] in _MARKED
    at = _past(_BETWEEN, held, fence.end() if fence else 0)
    values = []
    while held[at : at + 1] in ("{", "["):
        try:
            value, at = _decode(held, at)
            _shallow(value)
        except RecursionError as error:
            raise BrokenCalls("the block is nested too deeply") from error
        except ValueError as error:
            raise BrokenCalls(f"the block is not valid JSON: {error}") from error
        values.append(value)
        if fence is None:
            break
        at = _past(_BETWEEN, held, at)
    if not values:
        raise BrokenCalls("the block has no JSON in it")
    end = _past(_CLOSING, held, at)
    rest = held[end:]
    if fence is not None and rest and "`" not in held[at:end]:
        raise BrokenCalls(f"the block is not valid JSON: after its end stands {rest[:40]!r}")
    return marked, values, rest


def _calls(value: Any) -> Iterator[WrittenCall]:
    """The calls in a value: it is one, a list of them, or an object with such a list."""
    if isinstance(value, dict) and isinstance(value.get("tool_calls"), list):
        value = value["tool_calls"]
    for item in value if isinstance(value, list) else [value]:
        if not isinstance(item, dict):
            raise BrokenCalls('a call is an object such as {"name": ..., "arguments": {...}}')
        yield _call(item["function"] if isinstance(item.get("function"), dict) else item)


def _call(value: dict[str, Any]) -> WrittenCall:
    """A call, under any of the names that models have for its parts."""
    name = value.get("name", value.get("function"))
    if not isinstance(name, str):
        raise BrokenCalls("a call has no name")
    under = next((key for key in ("arguments", "parameters", "args", "input") if key in value), None)
    if under is None and len(value) > 1:
        raise BrokenCalls(f"the call of {name} has no arguments")
    given = value[under] if under else None
    if isinstance(given, str):
        try:
            given = parse_strictly(given) if given.strip() else {}
        except ValueError as error:
            raise BrokenCalls(f"the arguments of {name} are not valid JSON: {error}") from error
    if given is not None and not isinstance(given, dict):
        raise BrokenCalls(f"the arguments of {name} must be an object")
    return WrittenCall(clean(name), given or {})
