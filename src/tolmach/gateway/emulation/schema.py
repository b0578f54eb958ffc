"""JSON values checked against a JSON schema: the part of JSON Schema 2020-12 that tools and structured outputs use.

What a schema says and this module cannot check is refused by name. Only `pattern` and `format` are
let through, and listed in `unchecked`: a caller's regular expression could keep the process busy
for ever.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any

from tolmach.errors import BadRequest, UnsupportedFeature

__all__ = ["Schema"]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_integer(value: Any) -> bool:
    return _is_number(value) and (isinstance(value, int) or value.is_integer())


_TYPES: dict[str, Callable[[Any], bool]] = {
    "null": lambda value: value is None,
    "boolean": lambda value: isinstance(value, bool),
    "integer": _is_integer,
    "number": _is_number,
    "string": lambda value: isinstance(value, str),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
}

_UNCHECKED = frozenset({"format", "pattern"})
_ANNOTATIONS = frozenset(
    {"title", "description", "default", "example", "examples", "deprecated", "readOnly", "writeOnly"}
    | {"$schema", "$id", "$comment", "contentEncoding", "contentMediaType"}
)
_TABLES = frozenset({"properties", "$defs", "definitions"})
_LISTS = frozenset({"anyOf", "oneOf", "allOf"})
_SINGLE = frozenset({"items", "additionalProperties", "not"})

_MAX_SCHEMAS = 5_000
_MAX_STEPS = 100_000
_MAX_DEPTH = 100


def _is_count(value: Any) -> bool:
    return _is_integer(value) and value >= 0


_SHAPES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "type": (
        lambda value: all(isinstance(t, str) and t in _TYPES for t in (value if isinstance(value, list) else [value])),
        f"one of {', '.join(_TYPES)}, or a list of these",
    ),
    "required": (lambda value: isinstance(value, list) and all(isinstance(v, str) for v in value), "a list of names"),
    "enum": (lambda value: isinstance(value, list), "a list of values"),
    "const": (lambda value: True, "a value"),
    "$ref": (lambda value: isinstance(value, str) and value.startswith("#"), "a place in the same schema, from #"),
    "uniqueItems": (lambda value: isinstance(value, bool), "true or false"),
    **dict.fromkeys(
        ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"),
        (_is_count, "a whole number from 0"),
    ),
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), (_is_number, "a number")),
    "multipleOf": (lambda value: _is_number(value) and value > 0, "a number above 0"),
}
"""Keyword -> whether its value is of the right shape, and what that is."""


class Schema:
    """A schema, itself checked: raises `BadRequest` for what is no schema, `UnsupportedFeature` for keywords not known.

    `where` is the field it stands in, for errors, such as `tools[0].function.parameters`.
    """

    def __init__(self, schema: Any, where: str) -> None:
        self._root = schema
        self._where = where
        self._known: set[int] = set()
        self._steps = 0
        self.unchecked: set[str] = set()
        """The keywords in it that are not checked."""
        self._admit(schema, where, 0)
        self._check_references(schema)

    # The schema

    def _admit(self, schema: Any, where: str, depth: int) -> None:
        if isinstance(schema, bool):
            return
        if not isinstance(schema, dict):
            raise BadRequest(f"{where}: a schema is an object", param=where, status=400)
        self._known.add(id(schema))
        if len(self._known) > _MAX_SCHEMAS or depth > _MAX_DEPTH:
            raise UnsupportedFeature(f"{self._where}: the schema is too large", feature=self._where)
        for keyword, value in schema.items():
            if keyword in _SHAPES:
                fits, words = _SHAPES[keyword]
                if not fits(value):
                    raise BadRequest(f"{where}.{keyword}: {words}", param=f"{where}.{keyword}", status=400)
            elif keyword in _UNCHECKED:
                self.unchecked.add(keyword)
            elif keyword not in _ANNOTATIONS:
                for name, inner in self._inner(keyword, value, where):
                    self._admit(inner, name, depth + 1)

    def _inner(self, keyword: str, value: Any, where: str) -> Iterator[tuple[str, Any]]:
        """The schemas that stand in a keyword, each with its place."""
        place = f"{where}.{keyword}"
        if keyword in _SINGLE:
            yield place, value
        elif keyword in _TABLES and isinstance(value, dict):
            yield from ((f"{place}.{name}", inner) for name, inner in value.items())
        elif keyword in _LISTS and isinstance(value, list) and value:
            yield from ((f"{place}[{i}]", inner) for i, inner in enumerate(value))
        elif keyword in _TABLES or keyword in _LISTS:
            words = "an object of schemas" if keyword in _TABLES else "a list of schemas"
            raise BadRequest(f"{place}: {words}", param=place, status=400)
        else:
            text = f"{where}: the JSON schema keyword {keyword!r} cannot be checked here"
            raise UnsupportedFeature(text, feature=place)

    def _check_references(self, schema: Any) -> None:
        waiting = [schema]
        while waiting:
            item = waiting.pop()
            if isinstance(item, dict):
                if id(item) in self._known and "$ref" in item:
                    self._target(item["$ref"])
                waiting.extend(item.values())
            elif isinstance(item, list):
                waiting.extend(item)

    def _target(self, reference: str) -> Any:
        """The schema that a reference leads to (RFC 6901, in a fragment)."""
        target = self._root
        for step in reference[1:].split("/")[1:]:
            key = step.replace("~1", "/").replace("~0", "~")
            if isinstance(target, list) and key in map(str, range(len(target))):
                target = target[int(key)]
            elif isinstance(target, dict) and key in target:
                target = target[key]
            else:
                target = None
                break
        if isinstance(target, bool) or (isinstance(target, dict) and id(target) in self._known):
            return target
        text = f"{self._where}: the reference {reference!r} leads to no schema"
        raise BadRequest(text, param=self._where, status=400)

    # Values

    def problem(self, value: Any) -> str | None:
        """What is wrong with a value, in words that name the place (`$.city`); None when it is as it must be."""
        self._steps = 0
        try:
            return next(self._problems(self._root, value, "$", frozenset()), None)
        except RecursionError:
            return "it is nested too deeply"

    def _problems(self, schema: Any, value: Any, at: str, seen: frozenset[str]) -> Iterator[str]:
        """`seen` are the references followed for this same value: a circle of them allows everything."""
        self._steps += 1
        if self._steps > _MAX_STEPS:
            raise UnsupportedFeature(f"{self._where}: the schema takes too long to check", feature=self._where)
        if schema is True:
            return
        if schema is False:
            yield f"{at}: nothing is allowed here"
            return
        reference = schema.get("$ref")
        if reference is not None and reference not in seen:
            yield from self._problems(self._target(reference), value, at, seen | {reference})
        yield from _plain(schema, value, at)
        if isinstance(value, dict):
            yield from self._of_object(schema, value, at)
        elif isinstance(value, list) and "items" in schema:
            for i, item in enumerate(value):
                yield from self._problems(schema["items"], item, f"{at}[{i}]", frozenset())
        yield from self._combined(schema, value, at, seen)

    def _of_object(self, schema: dict[str, Any], value: dict[str, Any], at: str) -> Iterator[str]:
        properties = schema.get("properties", {})
        further = schema.get("additionalProperties", True)
        for name in schema.get("required", ()):
            if name not in value:
                yield f"{at}.{name}: it is missing"
        for name, item in value.items():
            if name in properties:
                yield from self._problems(properties[name], item, f"{at}.{name}", frozenset())
            elif further is False:
                yield f"{at}.{name}: there is no property of this name"
            elif further is not True:
                yield from self._problems(further, item, f"{at}.{name}", frozenset())

    def _combined(self, schema: dict[str, Any], value: Any, at: str, seen: frozenset[str]) -> Iterator[str]:
        for inner in schema.get("allOf", ()):
            yield from self._problems(inner, value, at, seen)
        for keyword in ("anyOf", "oneOf"):
            if keyword not in schema:
                continue
            found = [next(self._problems(inner, value, at, seen), None) for inner in schema[keyword]]
            fitting = found.count(None)
            if fitting == 0:
                yield f"{at}: none of the allowed forms fits ({'; '.join(p for p in found[:3] if p)})"
            elif fitting > 1 and keyword == "oneOf":
                yield f"{at}: {fitting} of the forms fit, where just one may"
        if "not" in schema and next(self._problems(schema["not"], value, at, seen), None) is None:
            yield f"{at}: this form is not allowed"


def _plain(schema: dict[str, Any], value: Any, at: str) -> Iterator[str]:
    """What the keywords say that hold no schema."""
    wanted = schema.get("type")
    if wanted is not None:
        names = wanted if isinstance(wanted, list) else [wanted]
        if not any(_TYPES[name](value) for name in names):
            yield f"{at}: expected {' or '.join(names)}, got {_type_of(value)}"
    if "enum" in schema and not any(_same(value, item) for item in schema["enum"]):
        yield f"{at}: it must be one of {_json(schema['enum'])}"
    if "const" in schema and not _same(value, schema["const"]):
        yield f"{at}: it must be {_json(schema['const'])}"
    if _is_number(value):
        yield from _bounds(schema, value, at)
    for kind, keyword, words in (
        (str, "Length", "characters"),
        (list, "Items", "items"),
        (dict, "Properties", "properties"),
    ):
        if isinstance(value, kind):
            if len(value) < schema.get(f"min{keyword}", 0):
                yield f"{at}: at least {schema[f'min{keyword}']} {words}"
            if len(value) > schema.get(f"max{keyword}", len(value)):
                yield f"{at}: at most {schema[f'max{keyword}']} {words}"
    if schema.get("uniqueItems") and isinstance(value, list) and len({_json(item) for item in value}) < len(value):
        yield f"{at}: the same item stands in it twice"


def _bounds(schema: dict[str, Any], value: Any, at: str) -> Iterator[str]:
    if value < schema.get("minimum", value):
        yield f"{at}: at least {schema['minimum']}"
    if value > schema.get("maximum", value):
        yield f"{at}: at most {schema['maximum']}"
    if "exclusiveMinimum" in schema and value <= schema["exclusiveMinimum"]:
        yield f"{at}: more than {schema['exclusiveMinimum']}"
    if "exclusiveMaximum" in schema and value >= schema["exclusiveMaximum"]:
        yield f"{at}: less than {schema['exclusiveMaximum']}"
    if "multipleOf" in schema and not _is_multiple(value, schema["multipleOf"]):
        yield f"{at}: a multiple of {schema['multipleOf']}"


def _is_multiple(value: Any, step: Any) -> bool:
    if isinstance(value, int) and isinstance(step, int):
        return value % step == 0
    try:
        times = value / step  # 0.3 is a multiple of 0.1, though not in binary
    except OverflowError:
        return False
    return abs(times - round(times)) < 1e-9 * max(1.0, abs(times)) if abs(times) < 1e300 else True


def _same(a: Any, b: Any) -> bool:
    """Equality as JSON has it: true is not 1, and 1.0 is 1."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    return bool(a == b)


def _type_of(value: Any) -> str:
    return next(
        name for name in ("null", "boolean", "integer", "number", "string", "array", "object") if _TYPES[name](value)
    )


def _json(value: Any) -> str:
    """The value in one form, for comparing and for showing."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False)
