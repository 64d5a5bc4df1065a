"""Which words of JSON Schema are understood, what each means here, and how large a schema may be. Pure."""

from __future__ import annotations

import difflib
import unicodedata
from fractions import Fraction

from herder.schema_numbers import Number
from herder.schema_tree import NUMBER_MOST, Choice, List, Literal, Node, Record, Text

SCHEMA_BYTES_MAX = 64 * 1024  # as JSON, references written out
DEPTH_MAX = 16
NODES_MAX = 1_000
REFERENCES_MAX = 16  # one within another
BRANCHES_MAX = 32
PROPERTIES_MAX = 128
CHOICES_MAX = 512
NAME_BYTES_MAX = 256
CHOICE_BYTES_MAX = 1_024
ITEMS_MAX = 1_000
ITEMS_LEAST_MAX = 100  # the ending of what was begun is worked out at every token
LENGTH_MAX = 100_000
DECIMALS_MAX = 6
LEAST_BYTES_MAX = 8 * 1024
ANY_DEPTH = 3
"""How deep lists and objects of which nothing is said may be nested."""

DRAFTS = (
    "https://json-schema.org/draft/2020-12/schema",
    "https://json-schema.org/draft/2019-09/schema",
    "http://json-schema.org/draft-07/schema",
)

KEYWORDS = {
    "type": "one of the seven types, or a list of them",
    "enum": "one of these strings, numbers, booleans or null; a type beside it picks among them",
    "const": "this string, number, boolean or null",
    "properties": "the object's properties, written in this order",
    "required": "which of `properties` must be there",
    "additionalProperties": "what other properties may be; left out beside `properties`: there are none",
    "items": "what the elements are (after those of `prefixItems`); left out: anything",
    "prefixItems": "what the first elements are; with `items` left out there are no more than these",
    "minItems": "least number of elements",
    "maxItems": "most elements",
    "uniqueItems": "only `false`",
    "minLength": "least number of characters",
    "maxLength": "most characters",
    "minimum": "the number is this or more",
    "maximum": "the number is this or less",
    "exclusiveMinimum": "the number is more than this",
    "exclusiveMaximum": "the number is less than this",
    "anyOf": "one of these schemas",
    "oneOf": "the same, where no value can fit two of them",
    "allOf": "a list of one schema, which is meant",
    "$ref": "`#`, or `#/…`: a place in the same schema; not one that it stands in",
}
"""Keyword → what it means here. Anything else is refused."""

ANNOTATIONS = frozenset({
    "title", "description", "default", "examples", "example", "deprecated", "readOnly", "writeOnly", "discriminator",
    "$comment", "$schema",
})  # fmt: skip
"""Keywords that say nothing of what is valid."""

TYPES: dict[str, frozenset[str]] = {
    "object": frozenset({"properties", "required", "additionalProperties"}),
    "array": frozenset({"items", "prefixItems", "minItems", "maxItems", "uniqueItems"}),
    "string": frozenset({"minLength", "maxLength"}),
    "integer": frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}),
    "number": frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}),
    "boolean": frozenset(),
    "null": frozenset(),
}
"""Which keywords say something of which type."""

SPOKEN = frozenset("\b\f\n\r\t")
_SHOWN_CHARS = 60


class SchemaRefused(ValueError):
    """A schema that answers cannot be made to fit; `path` is where in the request, dotted."""

    def __init__(self, path: str, why: str) -> None:
        super().__init__(f"{path}: {why}")
        self.path, self.why = path, why


def named(word: object) -> str:
    """A name from the request as it is shown in a path."""
    text = str(word).encode("ascii", "backslashreplace").decode()
    return text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "…"


def hint(word: object) -> str:
    """What may have been meant by a keyword that is not one."""
    meant = difflib.get_close_matches(str(word)[:_SHOWN_CHARS], KEYWORDS, 1)
    return f"did you mean {meant[0]}?" if meant else f"supported are {', '.join(KEYWORDS)}"


def spoken(text: str, at: str, most: int) -> None:
    """Raises SchemaRefused for a string that cannot stand in an answer."""
    try:
        length = len(text.encode())
    except UnicodeEncodeError:
        raise SchemaRefused(at, "is not valid Unicode (a lone surrogate)") from None
    if length > most:
        raise SchemaRefused(at, f"has {length} bytes, at most {most}")
    if any(unicodedata.category(char) == "Cc" and char not in SPOKEN for char in text):
        raise SchemaRefused(at, "has control characters")


def anything(depth: int) -> Node:
    """Any value, lists and objects in it nested at most so deep."""
    number = Number(Fraction(-NUMBER_MOST), Fraction(NUMBER_MOST), integer=False)
    plain: tuple[Node, ...] = (Text(), number, Literal((b"true", b"false", b"null")))
    if depth == 0:
        return Choice(plain)
    inside = anything(depth - 1)
    return Choice((*plain, List((), inside), Record((), inside, unsaid=True)))


ANY_NODES = 4 * (2 ** (ANY_DEPTH + 1) - 1) + 2 ** (ANY_DEPTH + 1)
"""How many parts `anything` counts for."""
