"""Random JSON schemas of the kinds that are supported, small enough for a short answer; the same for a seed."""

from __future__ import annotations

import random
from typing import Any

VALUES: list[Any] = [
    "red", "green", "é", "日本", 'a"b\\c', "x\ny", "", 1, 2.5, -3, True, None, "red wine", 0.25, 100_000,
]  # fmt: skip
NAMES = ["a", "name", "naïve", "age", "units", "x y", 'q"t', "ab", "日", "long_property_name", "b\\n"]
PLAIN = ["string", "integer", "number", "boolean", "null", "enum", "const"]
NESTED = ["object", "object", "array", "anyOf", "types", "anything", "prefix", "ref"]
DEPTH = 3


def random_schema(seed: int) -> dict[str, Any]:
    """A schema; nearly every one is supported (bounds may leave no number)."""
    return _schema(random.Random(seed), 0)


def _schema(rng: random.Random, depth: int) -> dict[str, Any]:
    kind = rng.choice(PLAIN + (NESTED if depth < DEPTH else []))
    match kind:
        case "string":
            return {"type": "string"} | _maybe(rng, minLength=rng.randint(0, 6), maxLength=rng.randint(6, 20))
        case "integer" | "number":
            return {"type": kind} | _bounds(rng)
        case "boolean" | "null":
            return {"type": kind}
        case "enum":
            return {"enum": rng.sample(VALUES, rng.randint(1, 6))}
        case "const":
            return {"const": rng.choice(VALUES)}
        case "anything":
            return rng.choice([{}, {"type": "object"}, {"type": "array"}])
        case "types":
            return {
                "type": rng.sample(["string", "integer", "number", "null", "boolean", "object", "array"], 2)
            }
        case "anyOf":
            return {"anyOf": [_schema(rng, depth + 1) for _ in range(rng.randint(1, 3))]}
        case "object":
            return _object(rng, depth)
    return _listed(rng, kind, depth)


def _listed(rng: random.Random, kind: str, depth: int) -> dict[str, Any]:
    if kind == "array":
        some = _maybe(rng, minItems=rng.randint(0, 3), maxItems=rng.randint(3, 6))
        return {"type": "array", "items": _schema(rng, depth + 1)} | some
    if kind == "ref" and depth == 0:
        inner = _schema(rng, 1)
        return {"$ref": "#/$defs/it", "$defs": {"it": inner}, "title": "by reference"}
    first = [_schema(rng, depth + 1) for _ in range(rng.randint(1, 3))]
    some = _maybe(rng, items=_schema(rng, depth + 1), minItems=rng.randint(0, len(first)))
    return {"type": "array", "prefixItems": first} | some


def _object(rng: random.Random, depth: int) -> dict[str, Any]:
    names = rng.sample(NAMES, rng.randint(0, 5))
    schema: dict[str, Any] = {"type": "object", "properties": {n: _schema(rng, depth + 1) for n in names}}
    if names and rng.random() < 0.8:
        schema["required"] = rng.sample(names, rng.randint(0, len(names)))
    if rng.random() < 0.3:
        schema["additionalProperties"] = rng.choice([False, True, _schema(rng, depth + 1)])
    return schema


def _bounds(rng: random.Random) -> dict[str, Any]:
    low = rng.choice([None, rng.randint(-(10**6), 10**3), round(rng.uniform(-10, 10), rng.randint(1, 6))])
    bounds: dict[str, Any] = {}
    if low is not None:
        bounds[rng.choice(["minimum", "exclusiveMinimum"])] = low
    if rng.random() < 0.5:
        high = (low or 0) + rng.choice([1e-5, 0.5, 1, 1.5, 2, 10, rng.randint(2, 10**6), 2.25])
        bounds[rng.choice(["maximum", "exclusiveMaximum"])] = round(high, 6)
    return bounds


def _maybe(rng: random.Random, **words: Any) -> dict[str, Any]:
    return {word: value for word, value in words.items() if rng.random() < 0.45}
