"""Whether two parts of a schema can be told apart, so that no value fits both. Pure."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from typing import Any

from herder.schema_numbers import Number
from herder.schema_tree import NUMBER_MOST, Choice, Literal, Node, Record, Text


def disjoint(left: Node, right: Node) -> bool:
    """Whether certainly no value fits both, as their callers mean them: answers may be made more narrowly."""
    match left, right:
        case Choice(any_of), _:
            return all(disjoint(each, right) for each in any_of)
        case _, Choice(any_of):
            return all(disjoint(left, each) for each in any_of)
        case Literal(ours), Literal(theirs):
            return not {_told(text) for text in ours} & {_told(text) for text in theirs}
        case Number(), Number():
            return _ends(left)[1] < _ends(right)[0] or _ends(right)[1] < _ends(left)[0]
        case Record(), Record():
            return _told_apart(left, right) or _told_apart(right, left)
    return not _kinds(left) & _kinds(right)


def _ends(number: Number) -> tuple[float | Fraction, float | Fraction]:
    """The bounds that a caller may have meant: where none is given there is one all the same."""
    if number.integer:
        return number.low, number.high
    low = -math.inf if number.low <= -NUMBER_MOST else number.low
    return low, math.inf if number.high >= NUMBER_MOST else number.high


def _told(text: bytes) -> tuple[bool, Any]:
    value = json.loads(text)
    return isinstance(value, bool), value


def _told_apart(left: Record, right: Record) -> bool:
    """Whether something that `left` requires cannot be in `right`."""
    theirs = {name: kind for name, kind, _ in right.properties}
    for name, kind, required in left.properties:
        if not required or (name not in theirs and right.unsaid):
            continue
        other = theirs.get(name, right.others)
        if other is None or disjoint(kind, other):
            return True
    return False


def _kinds(node: Node) -> frozenset[str]:
    match node:
        case Literal(texts):
            values = [json.loads(text) for text in texts]
            return frozenset("number" if type(v) in (int, float) else type(v).__name__ for v in values)
        case Text():
            return frozenset({"str"})
        case Number():
            return frozenset({"number"})
    return frozenset({type(node).__name__})
