"""JSON values against schemas: each keyword, what is refused, and that nothing goes on for ever."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.sweeps import examples
from tolmach.errors import BadRequest, TolmachError, UnsupportedFeature
from tolmach.gateway.emulation.schema import Schema

TREE = {
    "type": "object",
    "properties": {"value": {"type": "integer"}, "children": {"type": "array", "items": {"$ref": "#"}}},
    "required": ["value"],
    "additionalProperties": False,
}
DEFS = {
    "$defs": {"a/b": {"type": "string"}, "c": {"$ref": "#/$defs/a~1b"}},
    "properties": {"x": {"$ref": "#/$defs/c"}, "y": {"$ref": "#/properties/x"}, "z": {"$ref": "#/anyOf/1"}},
    "anyOf": [{"type": "object"}, {"type": "null"}],
}


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"type": "string"}, ["", "a"], [1, None, [], {}, True]),
        ({"type": "integer"}, [1, -1, 2.0, 10**30], [1.5, True, "1", float("inf")]),
        ({"type": "number"}, [1, 1.5], [False, "1"]),
        ({"type": "boolean"}, [True, False], [0, 1, "true"]),
        ({"type": "null"}, [None], [0, "", False]),
        ({"type": ["string", "null"]}, ["a", None], [1]),
        ({"enum": ["a", 1, None]}, ["a", 1, 1.0, None], [True, "b", 0]),
        ({"const": {"a": [1, True]}}, [{"a": [1, True]}], [{"a": [1, 1]}, {"a": [1]}, {}]),
        ({"minLength": 2, "maxLength": 3}, ["ab", "abc", 7], ["a", "abcd"]),
        ({"minimum": 1, "maximum": 2}, [1, 2, "x"], [0.9, 2.1]),
        ({"exclusiveMinimum": 1, "exclusiveMaximum": 2}, [1.5], [1, 2]),
        ({"multipleOf": 0.1}, [0.3, 7, 0], [0.35]),
        ({"multipleOf": 3}, [9, -3], [10, 9.5]),
        ({"minItems": 1, "maxItems": 2}, [[1], [1, 2], {}], [[], [1, 2, 3]]),
        ({"uniqueItems": True}, [[1, 2], [], [{"a": 1}, {"a": 2}]], [[1, 1], [{"a": 1, "b": 2}, {"b": 2, "a": 1}]]),
        ({"minProperties": 1, "maxProperties": 1}, [{"a": 1}], [{}, {"a": 1, "b": 2}]),
        ({"items": {"type": "string"}}, [["a"], [], 5], [["a", 1]]),
        ({"properties": {"a": {"type": "string"}}}, [{}, {"a": "x", "b": 1}, 5], [{"a": 1}]),
        ({"required": ["a"]}, [{"a": None}], [{}]),
        ({"properties": {"a": {}}, "additionalProperties": False}, [{"a": 1}], [{"b": 1}]),
        ({"additionalProperties": {"type": "integer"}}, [{"b": 1}], [{"b": "1"}]),
        ({"anyOf": [{"type": "string"}, {"minimum": 3}]}, ["a", 4], [2]),
        ({"oneOf": [{"type": "integer"}, {"minimum": 3}]}, [2, 3.5, "a"], [4]),
        ({"allOf": [{"minimum": 1}, {"maximum": 2}]}, [1, 2], [0, 3]),
        ({"not": {"type": "string"}}, [1], ["a"]),
        ({"properties": {"a": False, "b": True}}, [{"b": 1}], [{"a": 1}]),
        (TREE, [{"value": 1, "children": [{"value": 2}]}], [{"value": 1, "children": [{"valu": 2}]}]),
        (DEFS, [{"x": "a", "y": "b", "z": None}], [{"x": 1}, {"y": 1}, {"z": 1}, "s"]),
        ({"title": "T", "description": "D", "default": 1, "$schema": "s", "examples": []}, [1, "a"], []),
        (True, [1], []),
        (False, [], [1]),
    ],
)
def test_values_fit_or_do_not(schema, good, bad):
    checked = Schema(schema, "s")
    assert [value for value in good if checked.problem(value) is not None] == []
    assert [value for value in bad if checked.problem(value) is None] == []


@pytest.mark.parametrize(
    ("schema", "value", "problem"),
    [
        (TREE, {"value": 1, "children": [{"value": "2"}]}, "$.children[0].value: expected integer, got string"),
        (TREE, {"children": []}, "$.value: it is missing"),
        (TREE, {"value": 1, "odd": 1}, "$.odd: there is no property of this name"),
        ({"enum": ["a", "é"]}, "b", '$: it must be one of ["a", "é"]'),
        ({"anyOf": [{"const": 1}]}, 2, "$: none of the allowed forms fits ($: it must be 1)"),
    ],
)
def test_a_problem_says_where_and_what(schema, value, problem):
    assert Schema(schema, "s").problem(value) == problem


@pytest.mark.parametrize("keyword", ["patternProperties", "prefixItems", "if", "dependentRequired", "nullable", "odd"])
def test_a_keyword_not_known_is_refused_by_name(keyword):
    with pytest.raises(UnsupportedFeature, match=rf"s\.properties\.a.*'{keyword}'"):
        Schema({"properties": {"a": {keyword: {}}}}, "s")


def test_what_is_not_checked_is_listed():
    checked = Schema({"properties": {"a": {"pattern": "(a+)+$"}, "b": {"format": "date"}}}, "s")
    assert checked.unchecked == {"pattern", "format"}
    assert checked.problem({"a": "a" * 1000 + "b"}) is None


def test_values_are_no_schemas():
    schema = {"enum": [{"odd": 1}], "const": {"$ref": "x"}, "default": {"odd": 1}, "examples": [{"odd": 2}]}
    assert Schema(schema, "s").problem(1) is not None


@pytest.mark.parametrize(
    ("schema", "param"),
    [
        (3, "s"),
        ({"type": "text"}, "s.type"),
        ({"type": [["string"]]}, "s.type"),
        ({"required": "a"}, "s.required"),
        ({"enum": 1}, "s.enum"),
        ({"minLength": -1}, "s.minLength"),
        ({"minimum": "1"}, "s.minimum"),
        ({"multipleOf": 0}, "s.multipleOf"),
        ({"properties": []}, "s.properties"),
        ({"anyOf": []}, "s.anyOf"),
        ({"items": [{}]}, "s.items"),
        ({"properties": {"a": 1}}, "s.properties.a"),
        ({"$ref": "other.json"}, "s.$ref"),
        ({"$ref": "#/$defs/none"}, "s"),
        ({"$ref": "#/enum", "enum": [1]}, "s"),
        ({"$ref": "#/const", "const": {"type": "string"}}, "s"),
    ],
)
def test_what_is_no_schema_is_refused(schema, param):
    with pytest.raises(BadRequest) as caught:
        Schema(schema, "s")
    assert caught.value.param == param


def test_references_in_a_circle_come_to_an_end():
    circle = Schema({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}, "s")
    assert circle.problem(1) is None
    assert Schema({"anyOf": [{"$ref": "#"}, {"type": "string"}]}, "s").problem(1) is None


def test_a_schema_that_doubles_at_each_level_comes_to_an_end():
    inner = {"properties": {"x": {"$ref": "#/$defs/a"}}, "required": ["x"]}
    schema = Schema({"$ref": "#/$defs/a", "$defs": {"a": {"anyOf": [inner, inner]}}}, "s")
    value: Any = {}
    for _ in range(40):
        value = {"x": value}
    with pytest.raises(UnsupportedFeature, match="too long"):
        schema.problem(value)


def test_deep_values_and_deep_schemas_are_told():
    value: Any = {"value": 1}
    schema: Any = {}
    for _ in range(5000):
        value = {"value": 1, "children": [value]}
        schema = {"items": schema}
    assert Schema(TREE, "s").problem(value) == "it is nested too deeply"
    with pytest.raises(UnsupportedFeature, match="too large"):
        Schema(schema, "s")


keywords = st.sampled_from(["type", "properties", "items", "anyOf", "$ref", "enum", "required", "minimum", "maxLength"])
values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats() | st.sampled_from(["string", "object", "#", "#/a"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keywords | st.sampled_from("ab"), inner, max_size=3),
    max_leaves=15,
)


@given(values, values)
@examples(400)
def test_any_schema_is_taken_or_refused_and_any_value_judged(schema, value):
    try:
        problem = Schema(schema, "s").problem(value)
    except TolmachError:
        return
    assert problem is None or problem
