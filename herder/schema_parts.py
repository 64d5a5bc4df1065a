"""The parts of a schema that stand by themselves: objects, arrays, strings, numbers, values written out. Pure.

`schemas` finds out which of them a schema is, and reads what is inside for them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from typing import Any

from herder.schema_numbers import Number, shortest_number
from herder.schema_tree import (
    INTEGER_MOST,
    NUMBER_MOST,
    List,
    Node,
    Record,
    Text,
    literal,
)
from herder.schema_words import (
    CHOICE_BYTES_MAX,
    DECIMALS_MAX,
    ITEMS_LEAST_MAX,
    ITEMS_MAX,
    LENGTH_MAX,
    NAME_BYTES_MAX,
    PROPERTIES_MAX,
    SchemaRefused,
    named,
    spoken,
)

Inner = Callable[[Any, str], Node]
"""Reads a schema within, at this path."""


def record_of(schema: Mapping[str, Any], at: str, inner: Inner) -> Record:
    """An object. Raises SchemaRefused, as all here do."""
    given = schema.get("properties", {})
    if not isinstance(given, Mapping):
        raise SchemaRefused(f"{at}.properties", "must be an object of schemas")
    if len(given) > PROPERTIES_MAX:
        raise SchemaRefused(f"{at}.properties", f"has {len(given)} properties, at most {PROPERTIES_MAX}")
    required = schema.get("required", [])
    if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
        raise SchemaRefused(f"{at}.required", "must be a list of names")
    for i, name in enumerate(required):
        if name not in given:
            raise SchemaRefused(f"{at}.required.{i}", f"{named(name)} is not in properties")
    needed = set(required)
    properties = []
    for name, part in given.items():
        place = f"{at}.properties.{named(name)}"
        spoken(name, place, NAME_BYTES_MAX)
        properties.append((name, inner(part, place), name in needed))
    others = schema.get("additionalProperties", not given)
    return Record(
        tuple(properties),
        None if others is False else inner(others, f"{at}.additionalProperties"),
        unsaid="additionalProperties" not in schema,
    )


def array_of(schema: Mapping[str, Any], at: str, inner: Inner) -> List:
    """An array."""
    if schema.get("uniqueItems", False) is not False:
        raise SchemaRefused(f"{at}.uniqueItems", "is not supported: a list may say a thing twice")
    first = schema.get("prefixItems", [])
    if not isinstance(first, list) or len(first) > ITEMS_MAX:
        raise SchemaRefused(f"{at}.prefixItems", f"must be a list of at most {ITEMS_MAX} schemas")
    least = _count(schema, "minItems", at, ITEMS_LEAST_MAX) or 0
    most = _count(schema, "maxItems", at, ITEMS_MAX)
    if most is not None and least > most:
        raise SchemaRefused(f"{at}.minItems", f"is more than maxItems, {most}")
    begins = tuple(inner(each, f"{at}.prefixItems.{i}") for i, each in enumerate(first))
    rest = schema.get("items", not first or least > len(first))
    if isinstance(rest, list):
        raise SchemaRefused(
            f"{at}.items", "must be one schema; what the first elements are stands in prefixItems"
        )
    items = None if rest is False else inner(rest, f"{at}.items")
    if items is None and least > len(begins):
        raise SchemaRefused(f"{at}.minItems", f"there can be {len(begins)} elements at most")
    if most is not None:
        begins = begins[:most]
    return List(begins, items, least, most)


def text_of(schema: Mapping[str, Any], at: str) -> Text:
    """A string."""
    least = _count(schema, "minLength", at, LENGTH_MAX) or 0
    most = _count(schema, "maxLength", at, LENGTH_MAX)
    if most is not None and least > most:
        raise SchemaRefused(f"{at}.minLength", f"is more than maxLength, {most}")
    return Text(least, most)


def number_of(schema: Mapping[str, Any], at: str, *, integer: bool) -> Number:
    """A number. Where a bound is given it is at most 15 digits and six decimals; where none is, there is one."""
    widest = Fraction(INTEGER_MOST if integer else NUMBER_MOST)
    low, above = _bound(schema, at, ("minimum", "exclusiveMinimum"), -widest, max)
    high, below = _bound(schema, at, ("maximum", "exclusiveMaximum"), widest, min)
    if integer:
        low = Fraction(low.__floor__() + 1 if above else low.__ceil__())
        high = Fraction(high.__ceil__() - 1 if below else high.__floor__())
        above = below = False
    number = _apart(Number(low, high, integer, above, below))
    if number.low > number.high or shortest_number(number, b"") is None:
        word = next(
            word for word in ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum") if word in schema
        )
        raise SchemaRefused(f"{at}.{word}", "no number is within these bounds")
    return number


def _apart(number: Number) -> Number:
    """The number without a whole bound that is excluded where the other bound is near: llguidance would let it in.

    Answers begin one last place further on.
    """
    low, high, step = number.low, number.high, Fraction(1, 10**DECIMALS_MAX)
    if number.above and low.denominator == 1 and low >= 0 and high < low + 1:
        number = replace(number, low=low + step, above=False)
    if number.below and high == 0 and low > -1:
        number = replace(number, high=-step, below=False)
    return number


def _bound(
    schema: Mapping[str, Any],
    at: str,
    words: tuple[str, str],
    widest: Fraction,
    narrower: Callable[..., tuple[Fraction, bool]],
) -> tuple[Fraction, bool]:
    """The narrower of what the two keywords say, and whether the bound itself is excluded."""
    found = [(exact_in(schema[word], f"{at}.{word}"), word == words[1]) for word in words if word in schema]
    if not found:
        return widest, False
    # Of two equal bounds the one that excludes is narrower, whichever end it is.
    return narrower(found, key=lambda bound: (bound[0], bound[1] if narrower is max else not bound[1]))


def _count(schema: Mapping[str, Any], word: str, at: str, most: int) -> int | None:
    if word not in schema:
        return None
    value = schema[word]
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        value = -1
    if not 0 <= value <= most or value != int(value):
        raise SchemaRefused(f"{at}.{word}", f"must be a whole number from 0 to {most}")
    return int(value)


def exact_in(value: Any, at: str) -> Fraction:
    """A number of a schema, exactly; one that not every reader of JSON would read alike is refused."""
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise SchemaRefused(at, "must be a number")
    # Looked at before it is computed with: 1e999999 has a million digits.
    exact = _short(Decimal(str(value))) if not isinstance(value, int) else Decimal(value)
    if exact is None or abs(exact) > INTEGER_MOST:
        raise SchemaRefused(at, _PLAIN)
    fraction = Fraction(exact)
    # Of fifteen digits a float is still the number that was written.
    shifted = fraction * 10**DECIMALS_MAX
    if fraction.denominator != 1 and (shifted.denominator != 1 or abs(shifted) >= NUMBER_MOST):
        raise SchemaRefused(at, _PLAIN)
    return fraction


def _short(value: Decimal) -> Decimal | None:
    """The number, unless it takes many digits to write it."""
    if not value.is_finite() or value.adjusted() > 16 or len(value.as_tuple().digits) > 40:
        return None
    return value if value == 0 or value.adjusted() >= -DECIMALS_MAX else None


_PLAIN = f"must be a number of at most 15 digits, {DECIMALS_MAX} of them after the point"


def kind_of(value: Any, at: str) -> str:
    """The type of a value that is written out."""
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case str():
            return "string"
        case int() | float() | Decimal():
            return "integer" if exact_in(value, at).denominator == 1 else "number"
    raise SchemaRefused(at, "lists and objects cannot be written out; describe them with properties or items")


def value_of(value: Any, at: str) -> bytes:
    """A value that is written out, as it stands in an answer."""
    if isinstance(value, str):
        spoken(value, at, CHOICE_BYTES_MAX)
        return literal(value)
    if value is None or isinstance(value, bool):
        return literal(value)
    exact = exact_in(value, at)
    if exact.denominator == 1:
        return literal(int(exact))
    if "e" in repr(float(exact)):
        raise SchemaRefused(at, "is too small a number to be written out")
    return literal(float(exact))
