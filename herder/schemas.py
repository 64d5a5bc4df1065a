"""From a JSON schema that somebody sent to the tree that answers are made to fit; what is not listed here is refused.

An allow-list: a keyword that would be ignored is a promise that would be broken. A schema may be read more narrowly
than JSON Schema does (an object has no properties beside those it names), never more widely. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from herder.schema_apart import Apart
from herder.schema_parts import array_of, kind_of, number_of, record_of, text_of, value_of
from herder.schema_tree import Choice, Literal, Node, as_text, least_bytes
from herder.schema_words import (
    ANNOTATIONS,
    ANY_DEPTH,
    ANY_NODES,
    BRANCHES_MAX,
    CHOICES_MAX,
    DEPTH_MAX,
    DRAFTS,
    KEYWORDS,
    LEAST_BYTES_MAX,
    NODES_MAX,
    REFERENCES_MAX,
    SCHEMA_BYTES_MAX,
    TYPES,
    SchemaRefused,
    anything,
    hint,
    named,
)

_CONTAINERS = frozenset({"$defs", "definitions"})


def tree_from(schema: Any, where: str) -> Node:
    """The tree of a caller's schema. Raises SchemaRefused with the path of what is wrong; `where` begins the path."""
    return checked(_Reader(schema, where).node(schema, where, 0), where)


def checked(node: Node, where: str) -> Node:
    """The tree, if it is not too large in all. Raises SchemaRefused."""
    least = least_bytes(node)
    if least > LEAST_BYTES_MAX:
        raise SchemaRefused(where, f"the shortest answer has {least} bytes, more than {LEAST_BYTES_MAX}")
    if len(as_text(node).encode()) > SCHEMA_BYTES_MAX:
        raise SchemaRefused(where, f"is larger than {SCHEMA_BYTES_MAX} bytes, its references written out")
    return node


class _Reader:
    """One schema on its way to be a tree: how large it is so far, and which references are being followed."""

    def __init__(self, root: Any, where: str) -> None:
        self._root = root
        self._where = where
        self._nodes = 0
        self._bytes = 0
        self._following: dict[str, str] = {}  # and the path at which each began

    def node(self, schema: Any, at: str, depth: int) -> Node:
        """One schema within the schema; `depth` counts arrays, objects, choices and references around it."""
        if depth > DEPTH_MAX:
            raise SchemaRefused(at, f"is nested more than {DEPTH_MAX} deep")
        self._count(1, at)
        if schema is True or schema == {}:
            return self._anything(at)
        if schema is False:
            raise SchemaRefused(at, "false allows no value")
        if not isinstance(schema, Mapping):
            raise SchemaRefused(at, "must be a schema: an object, or true")
        words = {word for word in schema if word not in ANNOTATIONS and word not in _CONTAINERS}
        self._known(schema, words, at)
        # 1. What stands for another schema stands alone.
        for word in ("$ref", "anyOf", "oneOf", "allOf"):
            if word in words:
                return self._composed(schema, word, words, at, depth)
        # 2. Values that are written out; a type beside them must agree.
        if words & {"enum", "const"}:
            return self._listed(schema, words, at)
        # 3. One type, or several; where none is named the keywords tell it.
        return self._typed(schema, words, at, depth)

    def _known(self, schema: Mapping[str, Any], words: set[str], at: str) -> None:
        for word in schema:
            if word in words and word not in KEYWORDS:
                raise SchemaRefused(f"{at}.{named(word)}", f"this keyword is not supported; {hint(word)}")
        if str(schema.get("$schema", DRAFTS[0])).rstrip("#") not in DRAFTS:
            raise SchemaRefused(f"{at}.$schema", f"must be one of {', '.join(DRAFTS)}")
        if "prefixItems" in words and str(self._root.get("$schema", DRAFTS[0])).rstrip("#") != DRAFTS[0]:
            # There it says nothing, and `items` is said of the first elements as well.
            raise SchemaRefused(f"{at}.prefixItems", f"is understood only where $schema is {DRAFTS[0]}")

    def _count(self, nodes: int, at: str) -> None:
        self._nodes += nodes
        if self._nodes > NODES_MAX:
            raise SchemaRefused(
                at, f"here the schema has more than {NODES_MAX} parts, its references written out"
            )

    def _anything(self, at: str) -> Node:
        self._count(ANY_NODES, at)
        return anything(ANY_DEPTH)

    # --- one schema that stands for others -------------------------------------------------------------------

    def _composed(self, schema: Mapping[str, Any], word: str, words: set[str], at: str, depth: int) -> Node:
        beside = sorted(words - {word} - ({"type"} if word != "$ref" else set()))
        if beside:
            raise SchemaRefused(f"{at}.{named(beside[0])}", f"cannot stand beside {word}; put it inside")
        if "type" in words:
            raise SchemaRefused(f"{at}.type", f"cannot stand beside {word}; put it inside")
        inside = schema[word]
        at = f"{at}.{word}"
        if word == "$ref":
            return self._referred(inside, at, depth)
        if not isinstance(inside, list) or not inside:
            raise SchemaRefused(at, "must be a list of schemas, not empty")
        if word == "allOf" and len(inside) > 1:
            raise SchemaRefused(at, "only one schema can stand in it; write them as one")
        if len(inside) > BRANCHES_MAX:
            raise SchemaRefused(at, f"has {len(inside)} schemas, at most {BRANCHES_MAX}")
        branches = [self.node(each, f"{at}.{i}", depth + 1) for i, each in enumerate(inside)]
        if word == "oneOf":
            self._exclusive(branches, at)
        return branches[0] if len(branches) == 1 else Choice(tuple(branches))

    def _exclusive(self, branches: list[Node], at: str) -> None:
        apart = Apart()
        for i, left in enumerate(branches):
            for j in range(i):
                if not apart.disjoint(branches[j], left):
                    raise SchemaRefused(
                        f"{at}.{i}",
                        f"a value could fit this and {j} as well; use anyOf, or tell them apart by a const",
                    )

    def _referred(self, reference: Any, at: str, depth: int) -> Node:
        if not isinstance(reference, str):
            raise SchemaRefused(at, "must be a string")
        if reference in self._following:
            raise SchemaRefused(
                self._place(at),
                f"{named(reference)} refers to itself; schemas without an end are not supported",
            )
        if len(self._following) >= REFERENCES_MAX:
            raise SchemaRefused(at, f"a reference within more than {REFERENCES_MAX} others")
        target = self._found(reference, at)
        self._following[reference] = at
        found = self.node(target, at, depth + 1)
        del self._following[reference]
        return found

    def _place(self, at: str) -> str:
        """Where in the schema a path ends that went through references."""
        reference, begins = list(self._following.items())[-1]
        steps = [
            named(step.replace("~1", "/").replace("~0", "~")) for step in unquote(reference).split("/")[1:]
        ]
        return ".".join([self._where, *steps]) + at.removeprefix(begins)

    def _found(self, reference: str, at: str) -> Any:
        if reference != "#" and not reference.startswith("#/"):
            raise SchemaRefused(at, "only references within the schema are followed: #/$defs/…")
        target = self._root
        for written in unquote(reference).split("/")[1:]:
            step = written.replace("~1", "/").replace("~0", "~")
            if isinstance(target, list) and step.isascii() and step.isdigit() and int(step[:6]) < len(target):
                target = target[int(step[:6])]
            elif isinstance(target, Mapping) and step in target:
                target = target[step]
            else:
                raise SchemaRefused(at, f"{named(reference)} is not in the schema")
        return target

    # --- values written out --------------------------------------------------------------------------------

    def _listed(self, schema: Mapping[str, Any], words: set[str], at: str) -> Node:
        beside = sorted(words - {"enum", "const", "type"})
        if beside:
            raise SchemaRefused(f"{at}.{named(beside[0])}", "cannot stand beside enum or const")
        values = schema["enum"] if "enum" in schema else [schema["const"]]
        word = "enum" if "enum" in schema else "const"
        if "enum" in schema and "const" in schema:
            raise SchemaRefused(f"{at}.const", "cannot stand beside enum")
        if not isinstance(values, list) or not values:
            raise SchemaRefused(f"{at}.{word}", "must be a list of values, not empty")
        if len(values) > CHOICES_MAX:
            raise SchemaRefused(f"{at}.{word}", f"has {len(values)} values, at most {CHOICES_MAX}")
        kinds = self._types(schema, at) if "type" in schema else tuple(TYPES)
        where = f"{at}.{word}" if word == "const" else f"{at}.enum."
        texts: dict[bytes, None] = {}
        for i, value in enumerate(values):
            place = where if word == "const" else f"{where}{i}"
            kind = kind_of(value, place)
            if kind in kinds or (kind == "integer" and "number" in kinds):
                texts[value_of(value, place)] = None
        if not texts:
            raise SchemaRefused(f"{at}.{word}", "no value is of the type beside it")
        self._bytes += sum(map(len, texts))
        if self._bytes > SCHEMA_BYTES_MAX:
            raise SchemaRefused(
                at, f"here the schema is larger than {SCHEMA_BYTES_MAX} bytes, its references written out"
            )
        return Literal(tuple(texts))

    # --- one type or several -------------------------------------------------------------------------------

    def _types(self, schema: Mapping[str, Any], at: str) -> tuple[str, ...]:
        kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        if not kinds or not all(isinstance(kind, str) and kind in TYPES for kind in kinds):
            raise SchemaRefused(f"{at}.type", f"must be of {', '.join(TYPES)}")
        return tuple(dict.fromkeys(kinds))

    def _typed(self, schema: Mapping[str, Any], words: set[str], at: str, depth: int) -> Node:
        if "type" in schema:
            kinds = self._types(schema, at)
        else:
            kinds = tuple(kind for kind in ("object", "array", "string", "number") if words & TYPES[kind])
            if not kinds:
                return self._anything(at)
        meant = {"type"}.union(*(TYPES[kind] for kind in kinds))
        for word in sorted(words - meant):
            raise SchemaRefused(f"{at}.{word}", f"says nothing of {' or '.join(kinds)}")
        if len(kinds) == 1:
            return self._one(schema, kinds[0], at, depth)
        self._count(len(kinds), at)
        return Choice(tuple(self._one(schema, kind, at, depth + 1) for kind in kinds))

    def _one(self, schema: Mapping[str, Any], kind: str, at: str, depth: int) -> Node:
        def inner(part: Any, place: str) -> Node:
            return self.node(part, place, depth + 1)

        match kind:
            case "object":
                return record_of(schema, at, inner)
            case "array":
                return array_of(schema, at, inner)
            case "string":
                return text_of(schema, at)
            case "integer" | "number":
                return number_of(schema, at, integer=kind == "integer")
            case "boolean":
                return Literal((b"false", b"true"))
        return Literal((b"null",))
