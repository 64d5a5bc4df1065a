"""Whether two parts of a schema can be told apart, so that no value fits both. Pure."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from typing import Any

from herder.schema_numbers import Number
from herder.schema_tree import NUMBER_MOST, Choice, Literal, Node, Record, Text

PAIRS_MAX = 20_000
"""So many pairs of parts are looked at; a schema that needs more is not told apart."""


class Apart:
    """What was found out of pairs of parts, which must live as long; each is looked at once."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], bool] = {}
        self._values: dict[int, frozenset[tuple[bool, Any]]] = {}

    def disjoint(self, left: Node, right: Node) -> bool:
        """Whether certainly no value fits both, as their callers mean them: answers may be made more narrowly."""
        key = (id(left), id(right))
        if key not in self._known:
            if len(self._known) >= PAIRS_MAX:
                return False
            self._known[key] = False  # it has its place, whatever is within
            self._known[key] = self._looked_at(left, right)
        return self._known[key]

    def _looked_at(self, left: Node, right: Node) -> bool:
        match left, right:
            case Choice(any_of), _:
                return all(self.disjoint(each, right) for each in any_of)
            case _, Choice(any_of):
                return all(self.disjoint(left, each) for each in any_of)
            case Literal(), Literal():
                return self._told(left).isdisjoint(self._told(right))
            case Number(), Number():
                return _ends(left)[1] < _ends(right)[0] or _ends(right)[1] < _ends(left)[0]
            case Record(), Record():
                return self._told_apart(left, right) or self._told_apart(right, left)
        return not _kinds(left) & _kinds(right)

    def _told(self, node: Literal) -> frozenset[tuple[bool, Any]]:
        """Its values; true is not 1."""
        if id(node) not in self._values:
            values = map(json.loads, node.texts)
            self._values[id(node)] = frozenset((isinstance(value, bool), value) for value in values)
        return self._values[id(node)]

    def _told_apart(self, left: Record, right: Record) -> bool:
        """Whether something that `left` requires cannot be in `right`."""
        theirs = {name: kind for name, kind, _ in right.properties}
        for name, kind, required in left.properties:
            if not required or (name not in theirs and right.unsaid):
                continue
            other = theirs.get(name, right.others)
            if other is None or self.disjoint(kind, other):
                return True
        return False


def _ends(number: Number) -> tuple[float | Fraction, float | Fraction]:
    """The bounds that a caller may have meant: where none is given there is one all the same."""
    if number.integer:
        return number.low, number.high
    low = -math.inf if number.low <= -NUMBER_MOST else number.low
    return low, math.inf if number.high >= NUMBER_MOST else number.high


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
