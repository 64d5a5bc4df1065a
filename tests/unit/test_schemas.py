"""The allow-list of schemas: what is refused is refused with its path, what is accepted means what it says."""

from __future__ import annotations

import json
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from herder.output_types import tree_of_type
from herder.schema_apart import Apart
from herder.schema_numbers import Number, shortest_number
from herder.schema_tree import as_schema, as_text, least_bytes, longest_ending, shortest, tree_of
from herder.schema_words import ANNOTATIONS, KEYWORDS, SchemaRefused
from herder.schemas import tree_from
from tests.hostile_schemas import HOSTILE, chain, deep, deep_objects, laughs
from tests.random_schemas import random_schema
from worker.answers import misfit
from worker.closing import Closing


@pytest.mark.parametrize(("path", "schema", "why"), HOSTILE)
def test_what_is_not_supported_is_refused_where_it_stands(path: str, schema: Any, why: str) -> None:
    with pytest.raises(SchemaRefused) as refusal:
        tree_from(schema, "$")
    assert why in refusal.value.why
    assert len(refusal.value.path) < 400
    if path:
        assert refusal.value.path == path


def test_what_is_just_within_the_limits_is_accepted() -> None:
    """The positive control of the corpus."""
    for schema in (
        deep(16),
        chain(15),
        laughs(2),
        {"enum": [f"{i}" for i in range(512)]},
        {"properties": {f"p{i}": {"type": "null"} for i in range(128)}},
        {"type": "array", "minItems": 100, "items": {"type": "integer"}},
        {"type": "string", "minLength": 8_190},
        {"type": "number", "minimum": -999999999.123456},
    ):
        assert tree_of(as_text(tree_from(schema, "$"))) is not None


def test_annotations_say_nothing() -> None:
    plain: dict[str, Any] = {"type": "object", "properties": {"a": {"type": "integer"}}}
    noted = {**plain, **dict.fromkeys(ANNOTATIONS - {"$schema"}, "whatever")}
    assert tree_from(noted, "$") == tree_from(plain, "$")
    assert not ANNOTATIONS & set(KEYWORDS)


@settings(max_examples=150)
@given(st.integers(0, 2**32))
def test_a_tree_is_never_wider_than_the_schema(seed: int) -> None:
    """Its shortest answer fits the caller's schema, and its JSON form comes back as the same tree."""
    schema = random_schema(seed)
    try:
        tree = tree_from(schema, "$")
    except SchemaRefused as refusal:
        if "within these bounds" in refusal.why:
            return
        raise
    assert tree_of(as_text(tree)) == tree
    least = shortest(tree)
    assert len(least) == least_bytes(tree)
    assert misfit(least.decode(), as_text(tree)) is None
    Draft202012Validator(schema).validate(json.loads(least))


@settings(max_examples=150)
@given(st.integers(0, 2**32), st.integers(0, 2**32))
def test_whatever_was_begun_can_be_ended(seed: int, cut: int) -> None:
    """A shortest answer, cut anywhere and ended again, fits; and no ending is longer than was promised."""
    try:
        tree = tree_from(random_schema(seed), "$")
    except SchemaRefused:
        return
    whole = shortest(tree)
    begun = whole[: cut % (len(whole) + 1)]
    rest = Closing(tree).rest(begun)
    assert rest is not None
    assert len(rest) <= longest_ending(tree)
    assert misfit((begun + rest).decode(), as_text(tree)) is None


@pytest.mark.parametrize(
    ("begun", "ended"),
    [
        (b"", b'{"a":0,"b":""}'),
        (b'{"a":-', b'{"a":-1,"b":""}'),
        (b'{"a":1,"b":"x\\', b'{"a":1,"b":"x\\n"}'),
        (b'{"a":1,"b":"\xe2\x82', b'{"a":1,"b":"\xe2\x82\x80"}'),
        (b'{"a":1,"b":"\xf0', b'{"a":1,"b":"\xf0\x90\x80\x80"}'),
        (b'{"a":1,"b":"","c":[', b'{"a":1,"b":"","c":[null,null]}'),
        (b'{"a":1,"b":"","c":[null', b'{"a":1,"b":"","c":[null,null]}'),
        (b'{"a":1,"b":"","c":[null,null,', b'{"a":1,"b":"","c":[null,null,null]}'),
        (b'{"a":1,"b":"",', b'{"a":1,"b":"","d":0}'),
        (b'{"a":1,"b":"","d":0', b'{"a":1,"b":"","d":0}'),
        (b'{"x', None),
        (b'{"b', None),
        (b'{"a":x', None),
        (b'{"a":1,"b":"","c":[null,null,null,', None),
    ],
)
def test_the_shortest_ending(begun: bytes, ended: bytes | None) -> None:
    nulls = {"type": "array", "items": {"type": "null"}, "minItems": 2, "maxItems": 3}
    tree = tree_from(
        {
            "properties": {
                "a": {"type": "integer"},
                "b": {"type": "string"},
                "c": nulls,
                "d": {"type": "integer"},
            },
            "required": ["a", "b"],
        },
        "$",
    )
    rest = Closing(tree).rest(begun)
    assert (None if rest is None else begun + rest) == ended


@settings(max_examples=300)
@given(st.data())
def test_numbers_begun_are_ended_within_their_bounds(data: st.DataObject) -> None:
    low = Fraction(data.draw(st.integers(-(10**9), 10**9)), 10 ** data.draw(st.integers(0, 6)))
    width = Fraction(data.draw(st.integers(1, 10**9)), 10 ** data.draw(st.integers(0, 6)))
    number = Number(low, low + width, integer=False)
    middle = low + width * Fraction(data.draw(st.integers(0, 100)), 100)
    written = f"{float(middle):.9f}".encode()
    if not low <= Fraction(written.decode()) <= low + width or written.startswith(b"-0.000000000"):
        return
    begun = written[: data.draw(st.integers(0, len(written) - 2))]
    rest = shortest_number(number, begun)
    assert rest is not None
    assert low <= Fraction((begun + rest).decode()) <= low + width


def test_the_order_of_properties_and_what_is_left_out() -> None:
    tree = tree_from({"properties": {"z": {}, "a": {"const": 1.0}}, "required": ["a"]}, "$")
    form = as_schema(tree)
    assert list(form["properties"]) == ["z", "a"]
    assert form["additionalProperties"] is False
    assert form["properties"]["a"] == {"enum": [1]}


def test_types_side_by_side_and_references() -> None:
    by_name = {
        "$ref": "#/$defs/color%20~1~0",
        "$defs": {"color /~": {"type": ["string", "null"], "enum": ["a", None, 5]}},
    }
    assert as_schema(tree_from(by_name, "$")) == {"enum": ["a", None]}
    exclusive = [
        {"properties": {"kind": {"const": "a"}}, "required": ["kind"]},
        {"properties": {"kind": {"const": "b"}}, "required": ["kind"]},
        {"type": "null"},
    ]
    assert len(as_schema(tree_from({"oneOf": exclusive}, "$"))["anyOf"]) == 3
    left, right = (tree_from({"type": kind}, "$") for kind in ("integer", "number"))
    assert not Apart().disjoint(left, right)


@pytest.mark.parametrize(
    ("wanted", "schema"),
    [
        ({"a": "int"}, {"type": "integer"}),
        ({"a": "str"}, {"type": "string"}),
        ({"a": "bool"}, {"enum": [False, True]}),
        ({"a": ["red", "green"]}, {"enum": ["red", "green"]}),
        ({"a": ["red"]}, {"enum": ["red"]}),
        ({"a": ["int"]}, {"type": "array", "items": {"type": "integer"}}),
        ({"a": [["x", "y"]]}, {"type": "array", "items": {"enum": ["x", "y"]}}),
        ({"a": [{"b": "bool"}]}, {"type": "array", "items": {"type": "object"}}),
    ],
)
def test_output_types(wanted: Any, schema: dict[str, Any]) -> None:
    form = as_schema(tree_of_type(wanted, "output_type"))
    assert (form["required"], form["additionalProperties"]) == (["a"], False)
    got = form["properties"]["a"]
    assert {word: got[word] for word in schema if word != "items"} == {
        w: v for w, v in schema.items() if w != "items"
    }
    if "items" in schema:
        assert schema["items"].items() <= got["items"].items()


@pytest.mark.parametrize(
    ("wanted", "path"),
    [
        ({}, "output_type"),
        ({"a": "integer"}, "output_type.a"),
        ({"a": 5}, "output_type.a"),
        ({"a": None}, "output_type.a"),
        ({"a": []}, "output_type.a"),
        ({"a": ["int", "str"]}, "output_type.a.0"),
        ({"a": ["x", 5]}, "output_type.a.1"),
        ({"a": [{"b": "float"}, {"b": "int"}]}, "output_type.a"),
        ({"a": {"b": {"c": "date"}}}, "output_type.a.b.c"),
        ({f"p{i}": "int" for i in range(129)}, "output_type"),
        ({"a": ["\ud800", "x"]}, "output_type.a.0"),
        ({"a": ["red", "green", "red"]}, "output_type.a.2"),
        ({"": "int"}, "output_type"),
        ({"a": {"": "int"}}, "output_type.a"),
    ],
)
def test_output_types_that_are_none(wanted: Any, path: str) -> None:
    with pytest.raises(SchemaRefused) as refusal:
        tree_of_type(wanted, "output_type")
    assert refusal.value.path == path


@pytest.mark.parametrize(
    "text", ["", "{", "nul", "NaN", '{"a":1e999}', '"\\ud800"', "[" * 100_000, '{"a":"1"}', "{}"]
)
def test_what_does_not_fit_is_told(text: str) -> None:
    schema = as_text(tree_of_type({"a": "int"}, "output_type"))
    assert misfit(text, schema)
    assert misfit('{"a":1}', schema) is None


def branch(depth: int, kind: int) -> dict[str, Any]:
    """Like another but for the last thing that is looked at."""
    both = {"a": deep_objects(depth), "kind": {"const": kind}}
    return {"properties": both, "required": ["a", "kind"]}


def test_alternatives_are_told_apart_in_no_time() -> None:
    """Each pair of parts is looked at once: not each time that one of those around them is."""
    began = time.process_time()
    tree_from({"oneOf": [branch(13, i) for i in range(32)]}, "$")
    lists = [{"anyOf": [{"enum": [f"{i} {j} {k}" for k in range(60)]} for j in range(30)]} for i in range(2)]
    tree_from({"oneOf": lists}, "$")
    many = [{"anyOf": [{"const": f"{i} {j}"} for j in range(13)]} for i in range(30)]
    with pytest.raises(SchemaRefused, match="could fit"):
        tree_from({"oneOf": many}, "$")
    assert time.process_time() - began < 2.0


def test_the_page_lists_every_keyword_with_its_meaning() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs/how-to/typed-answers.md").read_text()
    for word, meaning in KEYWORDS.items():
        assert f"| `{word}` | {meaning} |" in page
