"""One block of a file or a folder, as bytes and back: UnixFS in dag-pb, protobuf by hand. Pure; knows no CIDs.

A block is `PBNode {Data = 1, Links = 2}`, links first; its `Data` is UnixFS's `{Type = 1, Data = 2, filesize = 3,
blocksizes = 4}`; a link is `{Hash = 1, Name = 2, Tsize = 3}`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

DIRECTORY, FILE = 1, 2
RAW_LEAF = 0  # what some clients made of the leaves of a file, long ago
VARINT_BYTES_MAX = 9
VARINT, BYTES = 0, 2


class BadBlock(Exception):
    """A block that is damaged, or not of the kind that is read here; the message says how."""


@dataclass(frozen=True)
class Pointer:
    """A link: the bytes of a CID, a name (in folders), and the bytes of all the blocks that it leads to."""

    target: bytes
    name: str
    stored: int


@dataclass(frozen=True)
class Node:
    """A block: FILE or DIRECTORY, the bytes in it, the whole file's size, each link's share of that, and the links."""

    kind: int
    inline: bytes | None
    size: int | None
    parts: tuple[int, ...]
    pointers: tuple[Pointer, ...]


def varint(number: int) -> bytes:
    """Seven bits a byte, the lowest first."""
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)


def encoded(node: Node) -> bytes:
    """The bytes of a block."""
    unixfs = _number(1, node.kind)
    if node.inline:
        unixfs += _bytes(2, node.inline)
    if node.size is not None:
        unixfs += _number(3, node.size)
    unixfs += b"".join(_number(4, part) for part in node.parts)
    links = b"".join(
        _bytes(2, _bytes(1, p.target) + _bytes(2, p.name.encode()) + _number(3, p.stored))
        for p in node.pointers
    )
    return links + _bytes(1, unixfs)


def decoded(block: bytes) -> Node:
    """What a block says. Raises BadBlock."""
    unixfs: bytes | None = None
    pointers: list[Pointer] = []
    for field, value in _fields(block):
        if field == 2 and isinstance(value, bytes):
            pointers.append(_pointer(value))
        elif field == 1 and isinstance(value, bytes) and unixfs is None:
            unixfs = value
        else:
            raise BadBlock("a block is no dag-pb")
    if unixfs is None:
        raise BadBlock("a block is neither a file nor a folder")
    return _node(unixfs, tuple(pointers))


def _node(unixfs: bytes, pointers: tuple[Pointer, ...]) -> Node:
    kind: int | None = None
    inline: bytes | None = None
    size: int | None = None
    parts: list[int] = []
    for field, value in _fields(unixfs):
        match field, value:
            case 1, int():
                kind = value
            case 2, bytes():
                inline = value
            case 3, int():
                size = value
            case 4, int():
                parts.append(value)
            case 4, bytes():  # packed, as other writers may
                parts += _varints(value)
            case _:  # modes and times, which change nothing here
                continue
    if kind not in (DIRECTORY, FILE, RAW_LEAF):
        raise BadBlock(
            "a block is neither a file nor a plain folder (a sharded folder or a link is not read here)"
        )
    return Node(FILE if kind == RAW_LEAF else kind, inline, size, tuple(parts), pointers)


def _pointer(link: bytes) -> Pointer:
    target, name, stored = b"", "", 0
    for field, value in _fields(link):
        match field, value:
            case 1, bytes():
                target = value
            case 2, bytes():
                try:
                    name = value.decode()
                except UnicodeDecodeError:
                    raise BadBlock("a name in a folder is not UTF-8") from None
            case 3, int():
                stored = value
            case _:
                raise BadBlock("a link of a block is no dag-pb")
    return Pointer(target, name, stored)


def _number(field: int, number: int) -> bytes:
    return varint(field << 3 | VARINT) + varint(number)


def _bytes(field: int, value: bytes) -> bytes:
    return varint(field << 3 | BYTES) + varint(len(value)) + value


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Each field of a message: its number, and what it is. Raises BadBlock."""
    at = 0
    while at < len(message):
        tag, at = _varint_at(message, at)
        number, at = _varint_at(message, at)
        if tag & 7 == VARINT:
            yield tag >> 3, number
        elif tag & 7 == BYTES and at + number <= len(message):
            yield tag >> 3, message[at : at + number]
            at += number
        else:
            raise BadBlock("a block is cut off, or no protobuf")


def _varints(packed: bytes) -> list[int]:
    found, at = [], 0
    while at < len(packed):
        number, at = _varint_at(packed, at)
        found.append(number)
    return found


def _varint_at(message: bytes, at: int) -> tuple[int, int]:
    number = 0
    for i, byte in enumerate(message[at : at + VARINT_BYTES_MAX]):
        number |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:
            return number, at + i + 1
    raise BadBlock("a block is cut off, or no protobuf")
