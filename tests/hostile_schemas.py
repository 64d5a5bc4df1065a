"""Schemas that are meant to do harm, or to slip through: each with what its refusal says; `path` begins `$`."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

REGEX_BOMB = "^(a+)+$" + "(x{1000}){1000}"


def deep(levels: int) -> dict[str, Any]:
    """Arrays of arrays."""
    schema: dict[str, Any] = {"type": "integer"}
    for _ in range(levels):
        schema = {"type": "array", "items": schema}
    return schema


def deep_objects(levels: int) -> dict[str, Any]:
    """Objects of objects, each of which must have the next."""
    schema: dict[str, Any] = {"type": "integer"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
    return schema


def laughs(levels: int) -> dict[str, Any]:
    """Each definition holds the next one ten times."""
    defs: dict[str, Any] = {f"d{levels}": {"type": "null"}}
    for i in range(levels):
        defs[f"d{i}"] = {"type": "array", "prefixItems": [{"$ref": f"#/$defs/d{i + 1}"}] * 10}
    return {"$ref": "#/$defs/d0", "$defs": defs}


def chain(length: int) -> dict[str, Any]:
    """References to references."""
    defs: dict[str, Any] = {f"d{i}": {"$ref": f"#/$defs/d{i + 1}"} for i in range(length)}
    return {"$ref": "#/$defs/d0", "$defs": {**defs, f"d{length}": {"type": "null"}}}


STRING, NUMBER, ARRAY = {"type": "string"}, {"type": "number"}, {"type": "array"}

HOSTILE: list[tuple[str, Any, str]] = [
    # a keyword that is not known, or does not mean what it seems to
    ("$.pattern", {**STRING, "pattern": "^a$"}, "not supported"),
    ("$.pattern", {**STRING, "pattern": REGEX_BOMB}, "not supported"),
    ("$.format", {**STRING, "format": "date"}, "not supported"),
    ("$.multipleOf", {**NUMBER, "multipleOf": 0.01}, "not supported"),
    ("$.not", {"not": {"type": "string"}}, "not supported"),
    ("$.if", {"if": {}, "then": {}}, "not supported"),
    ("$.patternProperties", {"type": "object", "patternProperties": {"^a": {}}}, "not supported"),
    ("$.propertyNames", {"type": "object", "propertyNames": {}}, "not supported"),
    ("$.minProperties", {"type": "object", "minProperties": 1}, "not supported"),
    ("$.unevaluatedProperties", {"type": "object", "unevaluatedProperties": False}, "not supported"),
    ("$.contains", {**ARRAY, "contains": {}}, "not supported"),
    ("$.dependentRequired", {"type": "object", "dependentRequired": {}}, "not supported"),
    ("$.x-guidance", {**STRING, "x-guidance": {"lenient": True}}, "not supported"),
    ("$.nullable", {**STRING, "nullable": True}, "not supported"),
    ("$.$id", {"$id": "https://a.example/s", **STRING}, "not supported"),
    ("$.$anchor", {"$anchor": "a", **STRING}, "not supported"),
    ("$.$dynamicRef", {"$dynamicRef": "#a"}, "not supported"),
    ("$.requierd", {"type": "object", "requierd": []}, "did you mean required"),
    ("$.properties.a.properties.b.pattern",
     {"properties": {"a": {"properties": {"b": {**STRING, "pattern": "a"}}}}}, "not supported"),
    ("$.uniqueItems", {**ARRAY, "uniqueItems": True}, "not supported"),
    ("$.$schema", {"$schema": "https://a.example/own-draft", **STRING}, "must be one of"),
    ("$.minLength", {"type": "integer", "minLength": 3}, "says nothing of integer"),
    # references
    ("$.$ref", {"$ref": "https://a.example/schema.json"}, "within the schema"),
    ("$.$ref", {"$ref": "file:///etc/passwd"}, "within the schema"),
    ("$.$ref", {"$ref": "other.json#/a"}, "within the schema"),
    ("$.$ref", {"$ref": "#/$defs/none"}, "is not in the schema"),
    ("$.$ref", {"$ref": "#/$defs/a/0", "$defs": {"a": []}}, "is not in the schema"),
    ("$.$ref", {"$ref": 5}, "must be a string"),
    ("$.$ref", {"$ref": "#"}, "refers to itself"),
    ("$.properties.next.$ref",
     {"type": "object", "properties": {"next": {"$ref": "#"}}}, "refers to itself"),
    ("$.$defs.b.items.$ref",
     {"$ref": "#/$defs/a", "$defs": {"a": {"items": {"$ref": "#/$defs/b"}}, "b": {"items": {"$ref": "#/$defs/a"}}}},
     "refers to itself"),
    ("$.$ref.$ref.$ref.$ref.$ref.$ref.$ref.$ref.$ref.$ref.$ref.$ref.$ref.$ref.$ref.$ref.$ref", chain(40), ""),
    ("$.title.$ref", {"$ref": "#/title", "title": {"$ref": "#/title"}}, "refers to itself"),
    ("$.type", {"$ref": "#/$defs/a", "$defs": {"a": {}}, "type": "string"}, "cannot stand beside $ref"),
    ("$.anyOf.0.properties", {"anyOf": [{"properties": 5}]}, "must be an object"),
    # too large
    ("$" + ".items" * 17, deep(200), "deep"),
    ("$" + ".items" * 17, deep(17), "deep"),
    ("", laughs(4), "more than 1000 parts"),
    ("", {"anyOf": [{"type": "object", "properties": {f"p{i}": {} for i in range(100)}}] * 30}, "parts"),
    ("$.properties", {"properties": {f"p{i}": {"type": "null"} for i in range(129)}}, "at most 128"),
    ("$.anyOf", {"anyOf": [{"type": "null"}] * 33}, "at most 32"),
    ("$.enum", {"enum": list(range(513))}, "at most 512"),
    ("$.enum.0", {"enum": ["x" * 1_025]}, "at most 1024"),
    ("", {"enum": [f"{i:0>1000}" for i in range(512)]}, "is larger than"),
    ("", {"properties": {"x" * 257: {}}}, "at most 256"),
    ("$.maxItems", {**ARRAY, "maxItems": 1_001}, "from 0 to 1000"),
    ("$.minItems", {**ARRAY, "minItems": 10**18}, "from 0 to 100"),
    ("$.maxLength", {**STRING, "maxLength": 2**63}, "from 0 to 100000"),
    ("$.minLength", {**STRING, "minLength": -1}, "from 0 to 100000"),
    ("$.minLength", {**STRING, "minLength": 1.5}, "from 0 to 100000"),
    ("$", {**ARRAY, "minItems": 100, "items": {**STRING, "minLength": 100_000}}, "the shortest answer has"),
    ("$.minimum", {**NUMBER, "minimum": Decimal("1e999999999")}, "at most 15 digits"),
    ("$.minimum", {**NUMBER, "minimum": Decimal("1e-999999999")}, "at most 15 digits"),
    ("$.maximum", {**NUMBER, "maximum": 10**400}, "at most 15 digits"),
    ("$.maximum", {**NUMBER, "maximum": Decimal("0.1234567")}, "at most 15 digits"),
    ("$.const", {"const": Decimal("1e999999999")}, "at most 15 digits"),
    # contradictions
    ("$.minimum", {"type": "integer", "minimum": 5, "maximum": 4}, "no number is within"),
    ("$.minimum", {"type": "integer", "minimum": 0.2, "maximum": 0.8}, "no number is within"),
    ("$.exclusiveMinimum", {**NUMBER, "exclusiveMinimum": 5, "exclusiveMaximum": 5}, "no number is within"),
    ("$.exclusiveMinimum", {**NUMBER, "exclusiveMinimum": True}, "must be a number"),
    ("$.minLength", {**STRING, "minLength": 5, "maxLength": 4}, "is more than maxLength"),
    ("$.minItems", {**ARRAY, "minItems": 5, "maxItems": 4}, "is more than maxItems"),
    ("$.minItems", {**ARRAY, "prefixItems": [{}], "items": False, "minItems": 2}, "1 elements at most"),
    ("$.required.1", {"properties": {"a": {}}, "required": ["a", "b"]}, "is not in properties"),
    ("$.required", {"properties": {"a": {}}, "required": "a"}, "must be a list"),
    ("$.enum", {"enum": []}, "not empty"),
    ("$.enum", {"type": "integer", "enum": ["a"]}, "no value is of the type"),
    ("$.enum.0", {"enum": [[1]]}, "cannot be written out"),
    ("$.minimum", {"enum": [1], "minimum": 0}, "cannot stand beside"),
    ("$.type", {"type": "date"}, "must be of"),
    ("$.type", {"type": []}, "must be of"),
    ("$.type", {"type": ["string", {}]}, "must be of"),
    ("$.properties.a", {"properties": {"a": False}}, "allows no value"),
    ("$.properties.a", {"properties": {"a": 5}}, "must be a schema"),
    ("$.items", {"items": [{}]}, "must be one schema"),
    ("$.anyOf", {"anyOf": []}, "not empty"),
    ("$.anyOf", {"anyOf": {}}, "must be a list"),
    ("$.allOf", {"allOf": [{}, {}]}, "only one"),
    ("$.oneOf.1", {"oneOf": [{"type": "integer"}, {"type": "number"}]}, "could fit"),
    ("$.oneOf.1", {"oneOf": [{"properties": {"a": {}}}, {"properties": {"b": {}}, "required": ["b"]}]}, "could fit"),
    ("$.oneOf.1", {"oneOf": [NUMBER, {"type": "integer", "minimum": 2 * 10**15}]}, "could fit"),
    ("$.oneOf.1", {"oneOf": [{"type": "object"}, deep_objects(6)]}, "could fit"),
    ("$.prefixItems", {"$schema": "http://json-schema.org/draft-07/schema#", "type": "array",
                       "prefixItems": [STRING], "items": NUMBER}, "only where $schema is"),
    ("$.exclusiveMinimum", {**NUMBER, "exclusiveMinimum": 3, "exclusiveMaximum": 3.000001}, "no number is within"),
    ("$.required", {"anyOf": [{}], "required": []}, "cannot stand beside"),
    # text that cannot be written
    ("$.enum.0", {"enum": ["\ud800"]}, "surrogate"),
    ("$.const", {"const": "a\x00b"}, "control characters"),
    ("$.properties.a\x07", {"properties": {"a\x07": {}}}, "control characters"),
    ("$.properties.\\ud83d", {"properties": {"\ud83d": {}}}, "surrogate"),
    ("$.\\ud800", {"\ud800": 1}, "not supported"),
    ("", {"properties": {"a" * 100_000: {}}}, ""),
]  # fmt: skip
"""(path in which it is refused, '' where it is long or does not matter; the schema; what the refusal says)"""
