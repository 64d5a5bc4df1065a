"""How an answer that was begun can be brought to its end in the fewest bytes: by it no typed answer is ever cut off.

Pure. Reads the bytes written so far along the schema's tree; compact JSON, as llguidance is told to allow. What was
read of a list or an object before its last comma is not read again, so that a token costs the same however long the
answer has become. Must not know of tokens, of models or of llguidance, which has the last word on what is proposed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from herder.schema_numbers import Number, shortest_number
from herder.schema_tree import (
    Choice,
    List,
    Literal,
    Node,
    Record,
    Text,
    quoted,
    shortest,
)

_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_NUMBER = re.compile(rb"-?[0-9.]*")
_SCALAR = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[^",\]}]+', re.DOTALL)
_ESCAPED = re.compile(rb"\\.", re.DOTALL)
_DECIMALS_READ = 60
"""A number with more of them is as good as ended."""
_UNREAD_BYTES = 64
"""So much is written before it is read, where nobody asks: else the first who did would wait for all of it."""


@dataclass(frozen=True)
class Ended:
    """A value that is complete at this place."""

    at: int


@dataclass(frozen=True)
class Open:
    """The text ends within a value (or where it might); `rest` is a shortest way to complete it."""

    rest: bytes


Reading = Ended | Open | None
"""None: what is written is no value of this kind."""


class Closing:
    """The shortest endings of one answer, which grows."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._written = b""
        self._text = b""
        self._unread = 0
        self._seen: dict[tuple[int, int], Reading] = {}
        # (node, where it begins) → (elements or properties that are over, where the next one begins)
        self._resumed: dict[tuple[int, int], tuple[int, int]] = {}
        self._live: dict[tuple[int, int], tuple[int, int]] = {}
        self._begun_strings: dict[int, tuple[bytes, int]] = {}
        self._shortest: dict[int, bytes] = {}

    def write(self, more: bytes) -> None:
        """The answer goes on with these bytes."""
        self._written += more
        self._unread += len(more)
        if self._unread >= _UNREAD_BYTES:
            self.rest()

    def rest(self, more: bytes = b"") -> bytes | None:
        """The bytes that complete what is written and `more`, as few as possible; None where that is no beginning of
        an answer."""
        self._text, self._seen, self._live, self._begun_strings = self._written + more, {}, {}, {}
        found = self._read(self._node, 0)
        self._resumed, self._unread = self._live, 0
        if isinstance(found, Open):
            return found.rest
        return b"" if found is not None and found.at == len(self._text) else None

    def _least(self, node: Node) -> bytes:
        if id(node) not in self._shortest:
            self._shortest[id(node)] = shortest(node)
        return self._shortest[id(node)]

    def _read(self, node: Node, at: int) -> Reading:
        """The value of this kind that begins at `at`."""
        key = (id(node), at)
        if key not in self._seen:
            self._seen[key] = Open(self._least(node)) if at == len(self._text) else self._begun(node, at)
        return self._seen[key]

    def _begun(self, node: Node, at: int) -> Reading:
        match node:
            case Choice(any_of):
                return _better(*(self._read(each, at) for each in any_of))
            case Literal(texts):
                return self._literal(texts, at)
            case Text():
                return self._string(node, at)
            case Number():
                return self._number(node, at)
            case List():
                return self._array(node, at)
            case Record():
                return self._object(node, at)

    # --- what has no parts ---------------------------------------------------------------------------------

    def _literal(self, texts: tuple[bytes, ...], at: int) -> Reading:
        match = _SCALAR.match(self._text, at)
        if match and (match.end() < len(self._text) or match[0].endswith(b'"')) and match[0] in texts:
            return Ended(match.end())
        if match and match.end() < len(self._text):
            return None
        written = self._text[at:]
        fitting = [text[len(written) :] for text in texts if text.startswith(written)]
        return Open(min(fitting, key=len)) if fitting else None

    def _string(self, node: Text, at: int) -> Reading:
        if self._text[at : at + 1] != b'"':
            return None
        match = _STRING.match(self._text, at)
        if match:
            return Ended(match.end())
        if at not in self._begun_strings:
            begun = self._text[at + 1 :]
            rest = _character(begun)
            self._begun_strings[at] = rest, len(_ESCAPED.sub(b"x", begun + rest).decode("utf-8", "replace"))
        rest, length = self._begun_strings[at]
        return Open(rest + b" " * max(node.least - length, 0) + b'"')

    def _number(self, node: Number, at: int) -> Reading:
        match = _NUMBER.match(self._text, at)
        if not match or not match[0]:
            return None
        if match.end() < len(self._text):
            return Ended(match.end())
        if len(match[0].partition(b".")[2]) > _DECIMALS_READ:
            return Open(b"")
        rest = shortest_number(node, match[0])
        return None if rest is None else Open(rest)

    # --- what has parts ------------------------------------------------------------------------------------

    def _array(self, node: List, at: int) -> Reading:
        if self._text[at : at + 1] != b"[":
            return None
        at += 1
        if self._text[at : at + 1] == b"]":
            return Ended(at + 1)
        if at == len(self._text):
            return Open(self._least(node)[1:])
        key = (id(node), at)
        over, at = self._resumed.get(key, (0, at))
        for index in range(over, node.most if node.most is not None else len(self._text)):
            self._reached(key, index, at)
            kind = node.first[index] if index < len(node.first) else node.items
            found = self._read(kind, at) if kind is not None else None
            found = self._followed(found, b"]", node, index + 1)
            if not isinstance(found, Ended) or self._text[found.at - 1 : found.at] == b"]":
                return found
            at = found.at
        return None

    def _reached(self, key: tuple[int, int], index: int, at: int) -> None:
        """What comes before `at` is over, and written: the next reading may begin there."""
        if at <= len(self._written):
            self._live[key] = index, at

    def _followed(self, found: Reading, end: bytes, node: List | Record, done: int) -> Reading:
        """What an element or a member comes to with what stands after it: behind the comma or the `end`, or open."""
        if found is None:
            return None
        if isinstance(found, Ended):
            following = self._text[found.at : found.at + 1]
            if following:
                return Ended(found.at + 1) if following in (b",", end) else None
        rest = self._elements(node, done) if isinstance(node, List) else self._properties(node, done)
        return Open(found.rest + rest) if isinstance(found, Open) else Open(rest)

    def _elements(self, node: List, done: int) -> bytes:
        """What completes an array that has `done` elements, the last of them complete."""
        missing = [self._least(each) for each in node.first[done : node.least]]
        if node.items is not None:
            missing += [self._least(node.items)] * (node.least - max(done, len(node.first)))
        return b"".join(b"," + each for each in missing) + b"]"

    def _object(self, node: Record, at: int) -> Reading:
        if self._text[at : at + 1] != b"{":
            return None
        start = at + 1
        if self._text[start : start + 1] == b"}":
            return Ended(start + 1)
        index, at = self._resumed.get((id(node), start), (0, start))
        while True:
            self._reached((id(node), start), index, at)
            key = _STRING.match(self._text, at)
            if key is None:
                return self._member(node, index, self._text[at:], first=at == start)
            kind, index = self._property(node, index, key[0])
            if kind is None or self._text[key.end() : key.end() + 1] not in (b":", b""):
                return None
            if key.end() == len(self._text):
                return Open(b":" + self._least(kind) + self._properties(node, index))
            found = self._followed(self._read(kind, key.end() + 1), b"}", node, index)
            if not isinstance(found, Ended) or self._text[found.at - 1 : found.at] == b"}":
                return found
            at = found.at

    def _property(self, node: Record, index: int, key: bytes) -> tuple[Node | None, int]:
        """What a complete key announces, and the index of the property that may come next."""
        for i in range(index, len(node.properties)):
            name, kind, required = node.properties[i]
            if quoted(name) == key:
                return kind, i + 1
            if required:
                return None, i
        return node.others, len(node.properties)

    def _properties(self, node: Record, index: int) -> bytes:
        """What completes an object from this property on, after a member."""
        needed = (
            b"," + quoted(name) + b":" + self._least(kind)
            for name, kind, required in node.properties[index:]
            if required
        )
        return b"".join(needed) + b"}"

    def _member(self, node: Record, index: int, begun: bytes, *, first: bool) -> Reading:
        """The text ends where a member is to come, or within its key."""
        if first and not begun:
            return Open(self._least(node)[1:])
        ways = []
        for i in range(index, len(node.properties)):
            name, kind, must = node.properties[i]
            key = quoted(name)
            if key.startswith(begun):
                ways.append(key[len(begun) :] + b":" + self._least(kind) + self._properties(node, i + 1))
            if must:
                break
        else:
            ways += self._other(node, begun)
        return Open(min(ways, key=len)) if ways else None

    def _other(self, node: Record, begun: bytes) -> list[bytes]:
        """A member whose name the schema does not know: the shortest name that is not one it knows."""
        if node.others is None:
            return []
        known = {quoted(name) for name, _, _ in node.properties}
        start = begun or b'"'
        rest = start[len(begun) :] + _character(start[1:])
        while begun + rest + b'"' in known:
            rest += b"_"
        return [rest + b'":' + self._least(node.others) + b"}"]


def _better(*readings: Reading) -> Reading:
    """Of several readings of one text: where one is complete all are, since JSON tells its own ends."""
    best: Reading = None
    for each in readings:
        if isinstance(each, Ended):
            return each
        if each is not None and (
            best is None or (isinstance(best, Open) and len(each.rest) < len(best.rest))
        ):
            best = each
    return best


def _character(begun: bytes) -> bytes:
    """What completes the last character of a string's inside: an escape, or the bytes of a code point."""
    backslashes = len(begun) - len(begun.rstrip(b"\\"))
    if backslashes % 2:
        return b"n"
    for back in range(1, min(3, len(begun)) + 1):
        lead = begun[-back]
        if lead < 0x80:
            return b""
        if lead >= 0xC0:
            size = 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
            if back >= size:
                return b""
            # After these leads not every continuation is a character.
            second = {0xE0: b"\xa0", 0xF0: b"\x90"}.get(lead, b"\x80") if back == 1 else b""
            return second + b"\x80" * (size - back - len(second))
    return b""
