"""Endings of an answer that grows: the same as if each beginning were read anew, and none dearer than the last."""

from __future__ import annotations

import json
import random
import time
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from herder.schema_tree import Node, as_text, tree_of, turns, varied
from herder.schema_words import SchemaRefused
from herder.schemas import tree_from
from tests.random_schemas import random_schema
from worker.answers import misfit
from worker.closing import Closing, Reading


@settings(max_examples=200)
@given(st.integers(0, 2**32))
def test_a_growing_answer_is_read_as_if_anew(seed: int) -> None:
    """Written in random pieces, with questions about pieces that are not written after all."""
    rng = random.Random(seed)
    try:
        tree = tree_from(random_schema(seed), "$")
    except SchemaRefused:
        return
    text = b"".join(varied(tree, rng.randrange(turns(tree))))
    closing, at = Closing(tree), 0
    while at < len(text):
        size = rng.randint(1, 9)
        for more in (b"", b'x"', b",", text[at : at + size], text[at : at + size] + b"],1}"):
            if rng.random() < 0.7:
                assert closing.rest(more) == Closing(tree).rest(text[:at] + more)
        closing.write(text[at : at + size])
        at += size
    assert closing.rest() == b""


@settings(max_examples=200)
@given(st.integers(0, 2**32), st.integers(0, 63))
def test_answers_in_which_everything_comes_fit(seed: int, turn: int) -> None:
    try:
        tree = tree_from(random_schema(seed), "$")
    except SchemaRefused:
        return
    assert misfit(b"".join(varied(tree, turn)).decode(), as_text(tree)) is None


def test_every_branch_has_its_turn() -> None:
    tree = tree_from({"anyOf": [{"enum": ["a"]}, {"items": {"anyOf": [{"const": 1}, {"const": 2}]}}]}, "$")
    assert {b"".join(varied(tree, turn)) for turn in range(turns(tree))} == {b'"a"', b"[1]", b"[2]"}


class Counting(Closing):
    """How many values are looked at."""

    reads = 0

    def _read(self, node: Node, at: int) -> Reading:
        self.reads += 1
        return super()._read(node, at)


def test_a_token_costs_the_same_however_long_the_answer_is() -> None:
    """Twenty kinds of lists of twenty kinds of numbers, each of which the answer might be."""
    numbers: dict[str, Any] = {"anyOf": [{"type": "number", "minimum": -i} for i in range(20)]}
    lists: dict[str, Any] = {"anyOf": [{"type": "array", "items": numbers}] * 20}
    tree = tree_of(as_text(tree_from({"properties": {"a": lists}}, "$")))
    closing = Counting(tree)
    closing.write(b'{"a":[')
    costs = []
    for _ in range(300):
        before = closing.reads
        closing.write(b"1,")
        assert closing.rest(b"2") == b"]}"
        costs.append(closing.reads - before)
    assert max(costs[200:]) <= max(costs[:100])


def test_a_whole_answer_is_checked_at_once_whatever_it_might_have_been() -> None:
    """Each of a thousand values misses nineteen alternatives, in each of nineteen lists that are too short for it."""
    numbers = [*({"type": "number", "minimum": 100 + i} for i in range(19)), {"type": "number"}]
    items = {"anyOf": numbers}
    lists = [*({"type": "array", "items": items, "maxItems": i + 1} for i in range(19)), {"items": items}]
    schema = as_text(tree_from({"anyOf": lists}, "$"))
    began = time.process_time()
    assert misfit(json.dumps([1] * 1_000), schema) is None
    assert time.process_time() - began < 1.0
