"""From a tree of values to a struct, every mistake on the way noted: the first one ends nothing."""

import math
import os
import types
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta, Struct, structs

from tolmach.configuration.files import is_file, place
from tolmach.configuration.problems import KeyPath, shortened, unknown
from tolmach.configuration.reading import Document

__all__ = ["BAD", "Checker", "fields_of"]

T = TypeVar("T", bound=Struct)


class _Bad:
    """Stands for a value whose mistake is told."""


BAD: Final = _Bad()
_UNIONS = (Union, types.UnionType)
_LEAST, _MOST = -(1 << 63), (1 << 63) - 1
"""The whole numbers that TOML has; Python's own have no end, and longer ones cannot even be written out."""


@cache
def fields_of(kind: type[Struct]) -> dict[str, Any]:
    """A table's keys with their types, annotations and all."""
    hints = get_type_hints(kind, include_extras=True)
    own: frozenset[str] = getattr(kind, "own", frozenset())
    return {name: hints[name] for name in kind.__struct_fields__ if name not in own}


class Checker:
    """Converts what a document holds, and notes in it what cannot be."""

    def __init__(self, document: Document) -> None:
        self.document = document

    def table(self, path: KeyPath, value: Any, kind: type[T], defaults: T | None = None) -> T | None:
        """The struct of a table; None when anything in it is wrong, which is then noted."""
        if not isinstance(value, dict):
            self.document.problem(path, f"a table, not {self._described(path, value)}")
            return None
        found = self.entries(path, value, fields_of(kind))
        good = {name: entry for name, entry in found.items() if entry is not BAD}
        missing = [
            field.name
            for field in structs.fields(kind)
            if field.required and field.name not in value and field.name in fields_of(kind)
        ]
        for name in missing:
            meta = _meta(fields_of(kind)[name])[1]
            self.document.problem((*path, name), f"is missing: {_right(meta)}")
        if missing or len(good) < len(found):
            return None
        return kind(**good) if defaults is None else structs.replace(defaults, **good)

    def entries(self, path: KeyPath, value: Mapping[str, Any], types: Mapping[str, Any]) -> dict[str, Any]:
        """The entries of a table by name, `BAD` for those that are wrong or unknown."""
        found: dict[str, Any] = {}
        for name, entry in value.items():
            if name in types:
                found[name] = self.value((*path, name), entry, types[name])
            else:
                self.document.problem((*path, name), unknown("unknown key", name, list(types)))
                found[name] = BAD
        return found

    def value(self, path: KeyPath, value: Any, annotated: Any) -> Any:
        """The value as the type has it; `BAD` when it is wrong."""
        if path in self.document.broken:
            return BAD
        kind, meta = _meta(annotated)
        if isinstance(kind, type) and issubclass(kind, Struct):
            table = self.table(path, value, kind)
            return BAD if table is None else table
        if meta and (meta.extra or {}).get("secret"):
            self.document.keep_secret(value)
        textual = self.document.origin(path).textual
        kind = _member(kind, value)
        if get_origin(kind) is tuple and textual and isinstance(value, str):
            value = [part for item in value.split(",") if (part := item.strip())]
        if get_origin(kind) is tuple and isinstance(value, list):
            return self._items(path, value, get_args(kind)[0], meta)
        if get_origin(kind) is dict and isinstance(value, dict):
            found = {key: self.value((*path, key), entry, get_args(kind)[1]) for key, entry in value.items()}
            return BAD if BAD in found.values() else found
        return self._plain(path, value, kind, meta, textual)

    def _items(self, path: KeyPath, value: list[Any], kind: Any, meta: Meta | None) -> Any:
        items = tuple(self.value((*path, at), item, kind) for at, item in enumerate(value))
        if meta and len(items) < (meta.min_length or 0):
            self.document.problem(path, f"{_right(meta)}, not {self._described(path, value)}")
            return BAD
        return BAD if BAD in items else items

    def _plain(self, path: KeyPath, value: Any, kind: Any, meta: Meta | None, textual: bool) -> Any:
        if textual and bool in (kind, *get_args(kind)) and str(value).lower() in ("true", "false"):
            value = str(value).lower() == "true"
        try:
            found = msgspec.convert(value, Annotated[kind, meta] if meta else kind, strict=not textual)
        except msgspec.ValidationError:
            found = BAD
        if isinstance(found, int) and not _LEAST <= found <= _MOST:
            found = BAD
        if found is BAD or (isinstance(found, float) and not math.isfinite(found)):
            self.document.problem(path, f"{_right(meta, kind)}, not {self._described(path, value)}")
            return BAD
        if isinstance(found, str) and found and meta and (meta.extra or {}).get("file"):
            return self._file(path, found)
        return found

    def _file(self, path: KeyPath, name: str) -> Any:
        """A file's full name. One that is not in the folder of the configuration is a mistake."""
        file = place(Path(self.document.file).parent, name)
        if not is_file(file):
            self.document.problem(path, f"there is no file {shortened(os.fspath(file))}")
            return BAD
        return os.fspath(file.absolute())

    def _described(self, path: KeyPath, value: Any) -> str:
        """A value in a message; nothing of a secret or a variable's."""
        match value:
            case dict():
                return "a table"
            case list():
                return "a list" if value else "an empty list"
            case str() if self.document.origin(path).variables or value in self.document.secrets:
                return "this text" if value else "an empty text"
            case bool():
                return str(value).lower()
            case str():
                return f'"{shortened(value)}"'
            case int() if not _LEAST <= value <= _MOST:
                return "a whole number of more than 64 bits"
        return str(value)


def _meta(annotated: Any) -> tuple[Any, Meta | None]:
    if get_origin(annotated) is not Annotated:
        return annotated, None
    kind, *notes = get_args(annotated)
    return kind, next((note for note in notes if isinstance(note, Meta)), None)


def _member(kind: Any, value: Any) -> Any:
    """Of a union, the member that is a list or a table where the value is one, else the rest."""
    if get_origin(kind) not in _UNIONS:
        return kind
    members = get_args(kind)
    if isinstance(value, list | dict):
        shape = tuple if isinstance(value, list) else dict
        found = next((member for member in members if get_origin(member) is shape), None)
        if found is not None:
            return found
    # TOML has no null: None is a default and no value.
    plain = [member for member in members if get_origin(member) not in (tuple, dict) and member is not types.NoneType]
    return Union[tuple(plain)] if plain else kind  # noqa: UP007 - made from what is there


_WORDS: dict[Any, str] = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    tuple: "a list",
    dict: "a table",
}


def _right(meta: Meta | None, kind: Any = None) -> str:
    """What a value should be."""
    if meta and meta.description:
        return meta.description
    if get_origin(kind) in _UNIONS:
        return " or ".join(_right(None, member) for member in get_args(kind) if member is not types.NoneType)
    if get_origin(kind) is Literal:
        return " or ".join(f'"{choice}"' for choice in get_args(kind))
    return _WORDS.get(get_origin(kind) or kind, "another value")
