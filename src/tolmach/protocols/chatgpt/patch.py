"""The delta encoding v1 of chatgpt.com: a document that grows by operations on JSON pointers.

A delta is `{"p": pointer, "o": operation, "v": value, "c": channel}`; what is absent is as in the
delta before. Each channel has a document of its own. Only the parts that an answer is read from
are kept: operations on others (metadata, above all) are passed over, whatever they are.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from tolmach.decoding import convert
from tolmach.errors import RemoteProtocolError
from tolmach.protocols.pointer import array_index, parse_pointer

__all__ = ["Channel", "Documents", "Operation"]

# What an answer is read from: the first tokens of the pointers that matter.
_READ = frozenset(
    {
        ("conversation_id",),
        ("error",),
        ("message",),
        ("message", "author"),
        ("message", "content"),
        ("message", "end_turn"),
        ("message", "id"),
        ("message", "recipient"),
        ("message", "status"),
    }
)
_NESTED_PATCHES = 4


class Operation(NamedTuple):
    """One operation, with everything that was inherited put in."""

    path: tuple[str, ...]
    name: str
    value: Any


class Channel:
    """The document of one channel.

    Texts grow by many small appends: those to one place are collected, and written into the
    document when something else is done to it.
    """

    def __init__(self) -> None:
        self._root: Any = None
        self._growing: tuple[str, ...] | None = None
        self._pieces: list[str] = []

    @property
    def root(self) -> Any:
        """The whole document."""
        self._settle()
        return self._root

    def grow(self, path: tuple[str, ...]) -> None:
        """Have appends to the text at `path` collected."""
        self._settle()
        self._growing = path

    def grows(self, operation: Operation) -> bool:
        """Whether the operation was an append to the growing text, and has been collected."""
        if operation.name != "append" or operation.path != self._growing or not isinstance(operation.value, str):
            return False
        self._pieces.append(operation.value)
        return True

    def _settle(self) -> None:
        pieces, self._pieces = self._pieces, []
        path, self._growing = self._growing, None
        if path is not None and pieces:
            self._root = _at(self._root, path, _append, "".join(pieces))

    def apply(self, operation: Operation) -> None:
        """Raises `RemoteProtocolError` for an operation that the document has no place for."""
        self._settle()
        if operation.path and operation.path[:2] not in _READ:
            return
        function = _OPERATIONS.get(operation.name)
        if function is None:
            raise RemoteProtocolError(f"unknown delta operation {operation.name[:40]!a}")
        self._root = _at(self._root, operation.path, function, operation.value)


class _Absent:
    """Marks a place where nothing stands, and one whose value is to be taken out."""


_ABSENT = _Absent()
_Function = Callable[[Any, Any], Any]


def _append(old: Any, value: Any) -> Any:
    if isinstance(old, str) and isinstance(value, str):
        return old + value
    if isinstance(old, list):
        old.extend(value if isinstance(value, list) else [value])
        return old
    if isinstance(old, dict) and isinstance(value, dict):
        old.update(value)
        return old
    if old is None or isinstance(old, _Absent):
        return value
    raise RemoteProtocolError(f"a delta appends {type(value).__name__} to {type(old).__name__}")


def _add(old: Any, value: Any) -> Any:
    return value


def _replace(old: Any, value: Any) -> Any:
    return value


def _truncate(old: Any, value: Any) -> Any:
    if not isinstance(old, str | list) or type(value) is not int or value < 0:
        raise RemoteProtocolError("a delta truncates what is no text or list, or to what is no length")
    return old[:value]


def _remove(old: Any, value: Any) -> Any:
    return _ABSENT


_OPERATIONS: dict[str, _Function] = {
    "add": _add,
    "append": _append,
    "remove": _remove,
    "replace": _replace,
    "truncate": _truncate,
}


def _at(root: Any, path: tuple[str, ...], function: _Function, value: Any) -> Any:
    """The document with the value at `path` changed by `function`; containers are changed in place."""
    if not path:
        new = function(root, value)
        return None if new is _ABSENT else new
    parent = root
    for token in path[:-1]:
        parent = _child(parent, token)
    key = path[-1]
    if isinstance(parent, dict):
        new = function(parent.get(key, _ABSENT), value)
        if new is not _ABSENT:
            parent[key] = new
        else:
            parent.pop(key, None)
    elif isinstance(parent, list):
        _change_item(parent, key, function, value)
    else:
        raise _no_place(path)
    return root


def _child(parent: Any, token: str) -> Any:
    if isinstance(parent, dict) and token in parent:
        return parent[token]
    index = array_index(token)
    if isinstance(parent, list) and index is not None and index < len(parent):
        return parent[index]
    raise _no_place((token,))


def _change_item(items: list[Any], key: str, function: _Function, value: Any) -> None:
    index = len(items) if key == "-" else array_index(key)
    if index is None or index > len(items) or (index == len(items) and function in (_truncate, _remove)):
        raise _no_place((key,))
    if index == len(items):
        items.append(function(_ABSENT, value))
        return
    if function is _add:
        items.insert(index, value)  # RFC 6902, 4.1
        return
    new = function(items[index], value)
    if new is _ABSENT:
        del items[index]
    else:
        items[index] = new


def _no_place(path: tuple[str, ...]) -> RemoteProtocolError:
    return RemoteProtocolError(f"a delta changes what is not there: {path[-1][:40]!a}")


class Documents:
    """The documents of all channels, and what the next delta inherits from the last."""

    def __init__(self) -> None:
        self._path: tuple[str, ...] = ()
        self._name = "add"
        self._channel: int | None = None
        self._channels: dict[int | None, Channel] = {}

    def take(self, delta: dict[str, Any]) -> tuple[Channel, list[Operation]]:
        """The channel that a delta is for, and its operations. Raises `RemoteProtocolError`."""
        if "v" not in delta:
            raise RemoteProtocolError("a delta without a value")
        value = delta["v"]
        bare = "p" not in delta and "o" not in delta
        if "c" in delta:
            self._channel = convert(delta["c"], int | None)  # type: ignore[arg-type]  # a union is a type here
        channel = self._channels.setdefault(self._channel, Channel())
        if bare and _is_patch(value):
            return channel, _flatten((), value, _NESTED_PATCHES)
        if bare and isinstance(value, dict) and "message" in value:
            self._path, self._name = (), "add"
        if "p" in delta:
            self._path = _pointer(delta["p"])
        if "o" in delta:
            self._name = convert(delta["o"], str)
        if self._name == "patch":
            return channel, _flatten(self._path, value, _NESTED_PATCHES)
        return channel, [Operation(self._path, self._name, value)]


def _is_patch(value: Any) -> bool:
    """Whether a bare value is a list of operations, as the service also sends it."""
    return isinstance(value, list) and bool(value) and all(isinstance(v, dict) and "v" in v and "o" in v for v in value)


def _pointer(value: Any) -> tuple[str, ...]:
    try:
        return parse_pointer(convert(value, str))
    except ValueError as error:
        raise RemoteProtocolError("a delta with what is no JSON pointer") from error


def _flatten(base: tuple[str, ...], value: Any, depth: int) -> list[Operation]:
    """The operations of a patch, whose paths continue `base`."""
    if not isinstance(value, list) or depth == 0:
        raise RemoteProtocolError("a patch is a list of operations")
    out: list[Operation] = []
    path: tuple[str, ...] = ()
    name = "add"
    for item in value:
        if not isinstance(item, dict) or "v" not in item:
            raise RemoteProtocolError("a patch holds what is no operation")
        path = _pointer(item["p"]) if "p" in item else path
        name = convert(item["o"], str) if "o" in item else name
        if name == "patch":
            out += _flatten(base + path, item["v"], depth - 1)
        else:
            out.append(Operation(base + path, name, item["v"]))
    return out
