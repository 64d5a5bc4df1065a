"""Forms that nobody can keep to, that would never end, or that only look so."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from typing import Any

from jsonschema import Draft202012Validator

from tests.e2e.attacks import BAD, INVALID, SCHEMA_ERROR, SUCCEEDED, Attack, job, nested, written
from tests.hostile_schemas import HOSTILE, deep, laughs

WHERE = "response_format.json_schema.schema"
TOO_DEEP = (20, 100, 250, 300, 900)
MUCH_TOO_DEEP = (990, 2_000, 50_000)


def attacks() -> Iterator[Attack]:
    """All of them."""
    yield from _refused()
    yield from _bombs()
    yield from _controls()


def _format(schema: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"schema": schema}}


def _refused() -> Iterator[Attack]:
    for number, (path, schema, _) in enumerate(HOSTILE):
        field = path.replace("$", WHERE, 1) if path.startswith("$") else ""
        surrogate = b"\\ud" in written(schema)
        check = None if surrogate or not field else partial(_at, field)
        name = f"schema {number} {path or 'large'}"[:60].encode("ascii", "backslashreplace").decode()
        yield job(name, INVALID, response_format=_format(schema), check=check)


def _at(field: str, problem: Any) -> object:
    return problem["errors"][0]["field"] == field


def _bombs() -> Iterator[Attack]:
    for depth in TOO_DEEP + MUCH_TOO_DEEP:
        refusals = (INVALID,) if depth in TOO_DEEP else (INVALID, BAD)
        forms: dict[str, tuple[str, str]] = {
            "lists": ("[" * depth + '"int"' + "]" * depth, '{"output_type":{"a":%s}}'),
            "objects": ('{"a":' * depth + '"int"' + "}" * depth, '{"output_type":%s}'),
            "items": (
                '{"items":' * depth + "{}" + "}" * depth,
                '{"response_format":{"type":"json_schema","json_schema":{"schema":%s}}}',
            ),
        }
        for name, (form, body) in forms.items():
            content = (body % form)[:-1] + ',"prompt":"hi","tokens":6}'
            yield Attack(f"form of {depth} {name}", content.encode(), frozenset(refusals))
        # Nothing is said of what stands in a default: only how it is written.
        silent = '{"type":"boolean","default":' + "[" * depth + "]" * depth + "}"
        content = (
            '{"prompt":"hi","tokens":8,"response_format":' + json.dumps(_format(0))[:-3] + silent + "}}}"
        )
        for headers in ({}, {"Idempotency-Key": f"deep-{depth}"}):
            beside = " again and again" if headers else ""
            becomes = frozenset({SUCCEEDED, INVALID, BAD})
            yield Attack(f"default {depth} deep{beside}", content.encode(), becomes, headers=headers)
    for name, wanted in {
        "empty": {}, "unknown type": {"a": "date"}, "number": {"a": 5}, "null": {"a": None}, "no list": {"a": []},
        "two types": {"a": ["int", "float"]}, "list of lists": {"a": [["int"], ["int"]]}, "NUL": {"a\x00": "int"},
        "NUL in a choice": {"a": ["b\x00"]}, "513 choices": {"a": [f"c{i}" for i in range(513)]},
        "129 names": {f"a{i}": "int" for i in range(129)}, "long name": {"a" * 257: "int"},
        "wide": {f"a{i}": {f"b{j}": "int" for j in range(100)} for i in range(100)},
        "large choices": {f"a{i}": [f"{j}{'x' * 1_000}" for j in range(5)] for i in range(40)},
        "17 deep": nested(17, "int", "a"),
    }.items():  # fmt: skip
        yield job(f"output_type: {name}", INVALID, output_type=wanted)
    for name, wanted in {"text": "int", "list": ["int"], "number": 5, "true": True}.items():
        yield job(f"output_type is a {name}", INVALID, output_type=wanted)
    yield job("both forms", INVALID, output_type={"a": "int"}, response_format={"type": "json_object"})
    yield job("a form and a stop", INVALID, output_type={"a": "int"}, stop="}")
    for name, wanted in {
        "no schema": {"type": "json_schema"}, "a schema too many": {"type": "text", "json_schema": {"schema": {}}},
        "unknown": {"type": "xml"}, "a grammar": {"type": "grammar", "grammar": "start: /a*/"}, "a list": [],
        "no object": {"type": "json_schema", "json_schema": {"schema": []}},
    }.items():  # fmt: skip
        yield job(f"response_format: {name}", INVALID, response_format=wanted)


def _fits(schema: Any, answer: Any) -> object:
    output = answer["result"]["output"]
    Draft202012Validator(schema).validate(output)
    assert json.loads(answer["result"]["text"]) == output
    return answer["result"]["finish_reason"] == "stop"


def _controls() -> Iterator[Attack]:
    """Within every limit, if only just: answered, and valid."""
    words = [f"choice {i}" for i in range(512)]
    schemas: dict[str, tuple[Any, int]] = {
        "16 deep": (deep(15) | {"minItems": 1}, 80),
        "128 properties": ({"properties": {f"p{i}": {"type": "null"} for i in range(128)}}, 60),
        "32 branches": ({"anyOf": [{"const": f"b{i}"} for i in range(32)]}, 40),
        "512 values": ({"enum": words}, 40),
        "huge counts": ({"type": "array", "maxItems": 1_000, "items": {"type": "string", "maxLength": 100_000}}, 60),
        "all that is required": (
            {"properties": {f"p{i}": {"type": "boolean"} for i in range(20)}, "required": [f"p{i}" for i in range(20)]},
            300,
        ),
        "a hundred exactly": ({"type": "array", "minItems": 100, "maxItems": 100, "items": {"const": 0}}, 300),
        "100 characters exactly": ({"type": "string", "minLength": 100, "maxLength": 100}, 400),
        "laughs": (laughs(2), 400),
        "quotes": ({"enum": ['"', "\\", '\\"', "\\\\"]}, 20),
        "15 digits": ({"type": "integer", "minimum": 999_999_999_999_998, "maximum": 999_999_999_999_999}, 30),
        "names like words of schemas": ({"properties": {"$ref": {"const": 1}, "type": {"const": 2}},
                                         "required": ["$ref", "type"]}, 40),
        "anything": ({}, 30),
    }  # fmt: skip
    for number, (name, (schema, tokens)) in enumerate(schemas.items()):
        hot = {"temperature": 2.0, "seed": number} if number % 2 else {}
        check = partial(_fits, schema)
        yield job(
            f"legal schema: {name}",
            SUCCEEDED,
            response_format=_format(schema),
            tokens=tokens,
            check=check,
            **hot,
        )
    yield job("a form in two tokens", SCHEMA_ERROR, INVALID, output_type={"a": "int", "b": "str"}, tokens=2)
    biased = {"logit_bias": {str(i): -100 for i in range(5, 240)}, "temperature": 2.0, "seed": 3}
    whole = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    yield job(
        "a form whose tokens are all forbidden", SUCCEEDED, SCHEMA_ERROR,
        output_type={"a": "int"}, tokens=40, check=partial(_whole, whole), **biased,
    )  # fmt: skip
    yield job("a form with ignore_eos", SUCCEEDED, output_type={"a": "int"}, tokens=60, ignore_eos=True,
              check=partial(_fits, whole))  # fmt: skip


def _whole(schema: Any, answer: Any) -> object:
    return answer["status"] != "succeeded" or _fits(schema, answer)
