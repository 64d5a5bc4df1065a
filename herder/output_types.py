"""The short way to say what an answer is: `{"age": "int", "units": "str"}`, to the tree of a schema. Pure.

A name of a type, a list of strings to choose from, a list with one thing (a list of that), or an object of these. All
that is named must be there, in the order given, and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from herder.schema_numbers import Number
from herder.schema_tree import INTEGER_MOST, NUMBER_MOST, List, Literal, Node, Record, Text, literal
from herder.schema_words import (
    CHOICE_BYTES_MAX,
    CHOICES_MAX,
    DEPTH_MAX,
    NAME_BYTES_MAX,
    NODES_MAX,
    PROPERTIES_MAX,
    SchemaRefused,
    named,
    spoken,
)

KINDS: dict[str, Node] = {
    "int": Number(Fraction(-INTEGER_MOST), Fraction(INTEGER_MOST), integer=True),
    "float": Number(Fraction(-NUMBER_MOST), Fraction(NUMBER_MOST), integer=False),
    "str": Text(),
    "bool": Literal((b"false", b"true")),
}
_WHAT = "must be int, float, str, bool, a list of strings to choose from, a list with one type, or an object of these"


def tree_of_type(wanted: Any, where: str) -> Node:
    """The tree of an output type, an object. Raises SchemaRefused with the path of what is wrong."""
    if not isinstance(wanted, Mapping):
        raise SchemaRefused(where, 'must be an object, for instance {"age": "int"}')
    return _node(wanted, where, 0, [0])


def _node(wanted: Any, at: str, depth: int, nodes: list[int]) -> Node:
    nodes[0] += 1
    if nodes[0] > NODES_MAX:
        raise SchemaRefused(at, f"has more than {NODES_MAX} parts")
    if depth > DEPTH_MAX:
        raise SchemaRefused(at, f"is nested more than {DEPTH_MAX} deep")
    match wanted:
        case str() if wanted in KINDS:
            return KINDS[wanted]
        case [str() as only] if only in KINDS:
            return List((), KINDS[only])
        case [Mapping() | list() as only]:
            return List((), _node(only, f"{at}.0", depth + 1, nodes))
        case [str(), *_]:
            return _choice(wanted, at)
        case Mapping():
            return _record(wanted, at, depth, nodes)
    raise SchemaRefused(at, _WHAT)


def _choice(wanted: list[Any], at: str) -> Node:
    if len(wanted) > CHOICES_MAX:
        raise SchemaRefused(at, f"has {len(wanted)} strings, at most {CHOICES_MAX}")
    for i, text in enumerate(wanted):
        if not isinstance(text, str):
            raise SchemaRefused(f"{at}.{i}", "must be a string, as the others are")
        if text in KINDS:
            raise SchemaRefused(
                f"{at}.{i}", f"is it the word {text} or the type? say it with response_format"
            )
        spoken(text, f"{at}.{i}", CHOICE_BYTES_MAX)
        if text in wanted[:i]:
            raise SchemaRefused(f"{at}.{i}", f"{named(text)} is in the list twice")
    return Literal(tuple(literal(text) for text in wanted))


def _record(wanted: Mapping[str, Any], at: str, depth: int, nodes: list[int]) -> Node:
    if not wanted or len(wanted) > PROPERTIES_MAX:
        raise SchemaRefused(at, f"must have 1 to {PROPERTIES_MAX} names, it has {len(wanted)}")
    properties = []
    for name, part in wanted.items():
        place = f"{at}.{named(name)}"
        if name == "":
            raise SchemaRefused(at, "has a name that is empty; say that with response_format, if it is meant")
        spoken(name, place, NAME_BYTES_MAX)
        properties.append((name, _node(part, place, depth + 1, nodes), True))
    return Record(tuple(properties))
