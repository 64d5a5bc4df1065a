"""The few kinds of JSON schema that answers are made to fit, as a tree; what the shortest answer is. Pure.

`schemas` makes a tree of what a caller sent, and refuses what it cannot; its JSON form, itself a plain JSON schema
without references, is what waits in Redis, what llguidance compiles and what the answer is validated against. Must not
know of callers' spellings, of tokens or of llguidance. A leaf, since the worker reads the same tree.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from herder.schema_numbers import Number, shortest_number

INTEGER_MOST = 2**53 - 1
"""Integers beyond it lose digits in many readers of JSON; none is asked for where no bound is given."""
NUMBER_MOST = 10**15
ESCAPES = '"\\bfnrt'
"""The characters after a backslash that answers may hold: no code points by number, so no lone surrogate."""
COMPILE = {"whitespace_flexible": False, "json_allowed_escapes": ESCAPES}
"""How llguidance is to read a tree's JSON form: compact, so that a model cannot fill its tokens with spaces."""
LIMITS: dict[str, Any] = {
    "max_items_in_row": 2_000,
    "initial_lexer_fuel": 500_000,
    "step_lexer_fuel": 100_000,
    "step_max_items": 25_000,
    "max_lexer_states": 500_000,  # of 0.3 KB each; three for a byte of a string whose length is bounded
    "max_grammar_size": 100_000,
    "verbose_errors": False,
}
"""llguidance's own limits where a schema is used."""
TRIAL_LIMITS = LIMITS | {"max_items_in_row": 1_000}
"""Where it is tried, with some of its answers only."""
_CHARACTER_BYTES_MOST = 8  # what can be left of a character that was begun, and the quote: more than there is
_NUMBER_BYTES_MOST = 32


@dataclass(frozen=True)
class Choice:
    """One of several."""

    any_of: tuple[Node, ...]


@dataclass(frozen=True)
class Literal:
    """One of these values, as their JSON texts in UTF-8."""

    texts: tuple[bytes, ...]


@dataclass(frozen=True)
class Text:
    """A string of so many characters; `most` None has no end of its own."""

    least: int = 0
    most: int | None = None


@dataclass(frozen=True)
class List:
    """An array: the first elements, then any number of `items` (None: no more), `least` to `most` in all."""

    first: tuple[Node, ...]
    items: Node | None
    least: int = 0
    most: int | None = None


@dataclass(frozen=True)
class Record:
    """An object: its properties in order (name, what it is, whether it must be there), and what others may be.

    `unsaid`: its caller has not said that there are no others; answers have none, but values may.
    """

    properties: tuple[tuple[str, Node, bool], ...]
    others: Node | None = None
    unsaid: bool = field(default=False, compare=False)


Node = Choice | Literal | Text | Number | List | Record


def quoted(text: str) -> bytes:
    """A string as JSON, as it stands in an answer."""
    return json.dumps(text, ensure_ascii=False).encode()


# --- the JSON form -----------------------------------------------------------------------------------------


def as_schema(node: Node) -> dict[str, Any]:
    """The tree as a JSON schema."""
    match node:
        case Choice(any_of):
            return {"anyOf": [as_schema(each) for each in any_of]}
        case Literal(texts):
            return {"enum": [json.loads(text) for text in texts]}
        case Text(least, most):
            bounds = {"minLength": least or None, "maxLength": most}
            return {"type": "string"} | {k: v for k, v in bounds.items() if v is not None}
        case Number(low, high, integer, above, below):
            return {
                "type": "integer" if integer else "number",
                "exclusiveMinimum" if above else "minimum": _plain(low),
                "exclusiveMaximum" if below else "maximum": _plain(high),
            }
        case List():
            return _array(node)
        case Record(properties, others):
            return {
                "type": "object",
                "properties": {name: as_schema(each) for name, each, _ in properties},
                "required": [name for name, _, required in properties if required],
                "additionalProperties": as_schema(others) if others is not None else False,
            }


def _array(node: List) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "array"}
    if node.first:
        schema["prefixItems"] = [as_schema(each) for each in node.first]
    schema["items"] = as_schema(node.items) if node.items is not None else False
    if node.least:
        schema["minItems"] = node.least
    if node.most is not None:
        schema["maxItems"] = node.most
    return schema


def _plain(value: Fraction) -> int | float:
    return int(value) if value.denominator == 1 else float(value)


def as_text(node: Node) -> str:
    """The JSON form as it waits in Redis; the order of properties is kept."""
    return json.dumps(as_schema(node), ensure_ascii=False, separators=(",", ":"))


def tree_of(text: str) -> Node:
    """The tree behind its JSON form. Raises ValueError for any other schema."""
    try:
        return _node(json.loads(text, parse_float=Fraction))
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"not a schema of ours: {type(error).__name__} {error}") from error


def _node(schema: dict[str, Any]) -> Node:
    if "anyOf" in schema:
        return Choice(tuple(map(_node, schema["anyOf"])))
    if "enum" in schema:
        return Literal(tuple(literal(value) for value in schema["enum"]))
    match schema["type"]:
        case "string":
            return Text(schema.get("minLength", 0), schema.get("maxLength"))
        case "integer" | "number":
            above, below = "exclusiveMinimum" in schema, "exclusiveMaximum" in schema
            low = schema["exclusiveMinimum" if above else "minimum"]
            high = schema["exclusiveMaximum" if below else "maximum"]
            return Number(Fraction(low), Fraction(high), schema["type"] == "integer", above, below)
        case "array":
            items = _node(schema["items"]) if schema["items"] is not False else None
            first = tuple(map(_node, schema.get("prefixItems", ())))
            return List(first, items, schema.get("minItems", 0), schema.get("maxItems"))
        case "object":
            required = set(schema["required"])
            properties = tuple((k, _node(v), k in required) for k, v in schema["properties"].items())
            others = schema["additionalProperties"]
            return Record(properties, _node(others) if others is not False else None)
    raise ValueError(f"no such type: {schema['type']!r}")


def literal(value: Any) -> bytes:
    """A value of an enumeration as it stands in an answer."""
    if isinstance(value, Fraction):
        value = float(value)
    return json.dumps(value, ensure_ascii=False).encode()


# --- how short an answer can be ------------------------------------------------------------------------------


def shortest(node: Node) -> bytes:
    """A shortest answer of this tree (no valid one has fewer bytes). Look at `least_bytes` first."""
    match node:
        case Choice(any_of):
            return shortest(min(any_of, key=least_bytes))
        case Literal(texts):
            return min(texts, key=len)
        case Text(least):
            return b'"' + b" " * least + b'"'
        case Number():
            number = shortest_number(node, b"")
            assert number is not None, "a number without a value is refused before it is a tree"
            return number
        case List(first, items, least):
            elements = [shortest(each) for each in first[:least]]
            if least > len(first):
                assert items is not None
                elements += [shortest(items)] * (least - len(first))
            return b"[" + b",".join(elements) + b"]"
        case Record(properties):
            needed = (quoted(name) + b":" + shortest(each) for name, each, required in properties if required)
            return b"{" + b",".join(needed) + b"}"


def least_bytes(node: Node) -> int:
    """How many bytes a shortest answer has, without writing it."""
    match node:
        case Choice(any_of):
            return min(map(least_bytes, any_of))
        case Text(least):
            return least + 2
        case List(first, items, least):
            lengths = [least_bytes(each) for each in first[:least]]
            more = max(least - len(first), 0) * (least_bytes(items) if items is not None else 0)
            return 2 + sum(lengths) + more + max(least - 1, 0)
        case Record(properties):
            needed = [len(quoted(name)) + 1 + least_bytes(each) for name, each, must in properties if must]
            return 2 + sum(needed) + max(len(needed) - 1, 0)
    return len(shortest(node))


def longest_ending(node: Node) -> int:
    """A bound on the bytes that any beginning of an answer needs until it is a valid answer."""
    match node:
        case Choice(any_of):
            return max(map(longest_ending, any_of))
        case Literal(texts):
            return max(map(len, texts))
        case Text(least):
            return least + 2 + _CHARACTER_BYTES_MOST
        case Number():
            return _NUMBER_BYTES_MOST
        case List(first, items):
            inside = [longest_ending(each) for each in (*first, *([items] if items else []))]
            return least_bytes(node) + max(inside, default=0) + 2
        case Record(properties, others):
            inside = [len(quoted(name)) + longest_ending(each) for name, each, _ in properties]
            if others is not None:
                inside.append(longest_ending(others) + _CHARACTER_BYTES_MOST)
            return least_bytes(node) + max(inside, default=0) + 4


# --- answers in which everything comes ---------------------------------------------------------------------


def turns(node: Node) -> int:
    """How many answers of `varied` take every branch of every choice once."""
    match node:
        case Choice(any_of):
            return len(any_of) * max(map(turns, any_of))
        case List(first, items):
            return max(map(turns, (*first, *([items] if items else []))), default=1)
        case Record(properties):
            return max((turns(each) for _, each, _ in properties), default=1)
    return 1


def varied(node: Node, turn: int) -> Iterator[bytes]:
    """An answer in parts: every property, an element at least, and of choices the branches whose turn it is."""
    match node:
        case Choice(any_of):
            turn, place = divmod(turn, len(any_of))
            yield from varied(any_of[place], turn)
        case List(first, items, least, most):
            room = 0 if items is None or (most is not None and most <= len(first)) else 1
            elements = [
                *first,
                *([items] * max(room, least - len(first)) if items is not None and room else []),
            ]
            for i, each in enumerate(elements):
                yield b"," if i else b"["
                yield from varied(each, turn)
            yield b"]" if elements else b"[]"
        case Record(properties):
            for i, (name, each, _) in enumerate(properties):
                yield (b"," if i else b"{") + quoted(name) + b":"
                yield from varied(each, turn)
            yield b"}" if properties else b"{}"
        case _:
            yield shortest(node)
