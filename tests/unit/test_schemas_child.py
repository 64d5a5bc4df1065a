"""What llguidance makes of a schema, byte by byte: no number outside its bounds, no part that it cannot bear."""

from __future__ import annotations

import random
from decimal import Decimal
from fractions import Fraction
from typing import Any, cast

import pytest

from herder import schemas_child
from herder.schema_tree import COMPILE, TRIAL_LIMITS, as_text
from herder.schema_words import SchemaRefused
from herder.schemas import tree_from
from tests.random_schemas import random_schema

NARROW = 120


@pytest.fixture(scope="module")
def compiler() -> schemas_child.Compiler:
    return schemas_child.Compiler()


def narrow(seed: int) -> tuple[dict[str, Any], Fraction, Fraction]:
    """A number whose bounds are near each other, and the bounds."""
    rng = random.Random(seed)
    low = rng.choice([0, 1, -1, 10, -10, 99, 0.5, round(rng.uniform(-20, 20), rng.randint(0, 6))])
    high = round(low + rng.choice([1e-6, 1e-5, 1e-3, 0.1, 0.5, 1, 1.5, rng.random()]), 6)
    least, most = rng.choice(["minimum", "exclusiveMinimum"]), rng.choice(["maximum", "exclusiveMaximum"])
    return {"type": "number", least: low, most: high}, Fraction(str(low)), Fraction(str(high))


def around(low: Fraction, high: Fraction) -> set[str]:
    """Numbers at the bounds and beside them, as they may be written."""
    found = {"0", "-0"}
    for bound in (low, high):
        exact = Decimal(bound.numerator) / Decimal(bound.denominator)
        for place in range(9):
            found |= {f"{exact + sign * Decimal(10) ** -place:f}" for sign in (-1, 0, 1)}
    return found | {text.rstrip("0").rstrip(".") for text in found if "." in text}


@pytest.mark.parametrize("first", range(0, NARROW, 40))
def test_no_number_outside_its_bounds_is_let_in(compiler: schemas_child.Compiler, first: int) -> None:
    """Of bounds that exclude, and lie less than 1 apart, above all."""
    lib, inside = compiler._lib, 0
    for seed in range(first, first + 40):
        schema, low, high = narrow(seed)
        try:
            text = as_text(tree_from(schema, "$"))
        except SchemaRefused:
            continue
        assert compiler.compile(text) == {}
        grammar = lib.LLMatcher.grammar_from_json_schema(text, overrides=cast(Any, COMPILE))
        matcher = lib.LLMatcher(
            compiler._tokenizer, grammar, log_level=0, limits=lib.LLParserLimits(**TRIAL_LIMITS)
        )
        for written in around(low, high):
            value, tried = Fraction(written), matcher.deep_copy()
            if tried.consume_tokens(list(written.encode())) and tried.is_accepting():
                inside += 1
                assert low <= value <= high, (schema, written)
                assert value != low or "minimum" in schema, (schema, written)
                assert value != high or "maximum" in schema, (schema, written)
    assert inside > 40


def test_what_is_random_and_supported_can_be_compiled(compiler: schemas_child.Compiler) -> None:
    """And every answer that is tried is allowed."""
    for seed in range(60):
        try:
            tree = tree_from(random_schema(seed), "$")
        except SchemaRefused:
            continue
        assert compiler.compile(as_text(tree)) == {}


@pytest.mark.parametrize(
    "within",
    [
        lambda bad: {"properties": {"a": {"type": "integer"}, "b": bad}},
        lambda bad: {"type": "array", "items": bad},
        lambda bad: {
            "anyOf": [{"type": "null"}, {"type": "boolean"}, {"type": "array", "prefixItems": [bad]}]
        },
    ],
)
def test_a_part_that_need_not_come_is_tried_as_well(compiler: schemas_child.Compiler, within: Any) -> None:
    """The shortest answer is without it, and a worker would come upon it in the middle of one."""
    many = {"properties": {f"p{i}": {"type": ["string", "number"]} for i in range(9)}}
    strings = [{"type": "string", "minLength": 8_000 - i, "maxLength": 90_000} for i in range(32)]
    for bad in ({"anyOf": [many] * 32}, {"anyOf": strings}):
        assert "error" in compiler.compile(as_text(tree_from(within(bad), "$")))
    assert compiler.compile(as_text(tree_from(within({"anyOf": [many] * 4}), "$"))) == {}


def test_what_takes_long_is_refused_by_the_time_of_the_processor(
    compiler: schemas_child.Compiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = as_text(tree_from({"properties": {f"p{i}": {} for i in range(9)}}, "$"))
    assert compiler.compile(text) == {}
    monkeypatch.setattr(schemas_child, "COMPILE_CPU_S", 0.0)
    assert "too long" in compiler.compile(text)["error"]
