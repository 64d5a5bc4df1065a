"""Content identifiers, and files and folders as IPFS makes them: UnixFS in dag-pb, in two profiles. Pure.

Blocks come from and go to whoever calls; every block that is read is compared with its CID here. The npm package
`ipfs-unixfs-importer` gives the same CIDs; `docs/how-to/modules.md` says what is left out.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from herder.dagpb import DIRECTORY, FILE, BadBlock, Node, Pointer, decoded, encoded, varint

RAW, DAG_PB = 0x55, 0x70
SHA2_256 = b"\x12\x20"  # the hash, and its 32 bytes
V0_CHARS = 46
CID_CHARS_MAX = 128
BLOCK_BYTES_MAX = 2 * 1024 * 1024  # what other nodes take at most
DIRECTORY_BYTES_MAX = 256 * 1024  # of a folder in one block; larger ones would be sharded
DEPTH_MAX = 32
NAME_BYTES_MAX = 255

_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


class BadCid(ValueError):
    """A text that is no CID, or one of a kind that is not read here; the message says which."""


class NoSuchPath(Exception):
    """The content is there, and what was asked for is not in it."""


@dataclass(frozen=True)
class Cid:
    """What a block is called: the SHA-256 of its bytes, and what they are. Its text is `Qm…` (v0) or `b…` (v1)."""

    version: int
    codec: int
    digest: bytes

    def __bytes__(self) -> bytes:
        head = b"" if self.version == 0 else varint(1) + varint(self.codec)
        return head + SHA2_256 + self.digest

    def __str__(self) -> str:
        if self.version == 0:
            return _base58(bytes(self))
        return "b" + base64.b32encode(bytes(self)).decode().rstrip("=").lower()


@dataclass(frozen=True)
class Profile:
    """How content is cut and linked; each gives CIDs of its own."""

    name: str
    chunk_bytes: int
    links_max: int
    raw_leaves: bool
    version: int


V0 = Profile("unixfs-v0-2015", 256 * 1024, 174, False, 0)
V1 = Profile("unixfs-v1-2025", 1024 * 1024, 1024, True, 1)
PROFILES = {profile.name: profile for profile in (V0, V1)}


@dataclass(frozen=True)
class Link:
    """Content that was put away: its CID, the bytes that it is, and the bytes of all its blocks."""

    cid: Cid
    size: int
    stored: int


Put = Callable[[Cid, bytes], None]
Get = Callable[[Cid], bytes]


# --- texts ---------------------------------------------------------------------------------------------------


def parsed(text: str) -> Cid:
    """The CID of this text: base58 (`Qm…`, `z…`) or base32 (`b…`). Raises BadCid."""
    if not 0 < len(text) <= CID_CHARS_MAX or not text.isascii():
        raise BadCid("no CID: one begins with Qm or with baf")
    if text.startswith("Qm"):
        if len(text) != V0_CHARS:
            raise BadCid(
                f"no CID: one that begins with Qm has {V0_CHARS} characters, and this has {len(text)}"
            )
        return _cid_of(b"\x01" + varint(DAG_PB) + _unbase58(text), 0)
    if text[0] == "z":
        return _cid_of(_unbase58(text[1:]), 1)
    if text[0] != "b":
        raise BadCid("no CID: one begins with Qm or with baf")
    try:
        packed = base64.b32decode(text[1:].upper() + "=" * (-len(text[1:]) % 8))
    except ValueError:
        raise BadCid("no CID: it is mistyped, or was not copied whole") from None
    found = _cid_of(packed, 1)
    if str(found) != text:
        raise BadCid("no CID: it is mistyped, or was not copied whole")
    return found


def _cid_of(packed: bytes, version: int) -> Cid:
    """From the bytes of a CIDv1, which a v0 is turned into before."""
    if len(packed) != 36:
        raise BadCid("no CID that is read here: it is mistyped, or its hash is not SHA-256")
    if packed[0] != 1 or packed[1] not in (RAW, DAG_PB):
        raise BadCid("no CID that is read here: it must be of a raw or a dag-pb block")
    if packed[2:4] != SHA2_256:
        raise BadCid("no CID that is read here: its hash is not SHA-256")
    return Cid(version, packed[1], packed[4:])


def _base58(packed: bytes) -> str:
    number, text = int.from_bytes(packed), ""
    while number:
        number, digit = divmod(number, 58)
        text = _BASE58[digit] + text
    return "1" * (len(packed) - len(packed.lstrip(b"\0"))) + text


def _unbase58(text: str) -> bytes:
    number = 0
    for char in text:
        digit = _BASE58.find(char)
        if digit < 0:
            raise BadCid("no CID: it is mistyped, or was not copied whole")
        number = number * 58 + digit
    return number.to_bytes((number.bit_length() + 7) // 8)


# --- making --------------------------------------------------------------------------------------------------


def file_of(pieces: Iterable[bytes], put: Put, profile: Profile = V0) -> Link:
    """A file of these bytes, whichever way they are cut; its blocks are put, each after those it links to."""
    links = [_leaf(chunk, put, profile) for chunk in _chunks(pieces, profile.chunk_bytes)]
    while len(links) > 1:
        groups = (links[i : i + profile.links_max] for i in range(0, len(links), profile.links_max))
        links = [_branch(group, put, profile) for group in groups]
    return links[0]


def directory_of(entries: dict[str, Link], put: Put, profile: Profile = V0) -> Link:
    """A folder of what is there already, by name. Raises ValueError for a name that it cannot have, or for too many."""
    for name in entries:
        if not named(name):
            raise ValueError(f"{name!r} cannot be a name in a folder")
    ordered = sorted(entries.items(), key=lambda entry: entry[0].encode())
    pointers = tuple(Pointer(bytes(link.cid), name, link.stored) for name, link in ordered)
    block = encoded(Node(DIRECTORY, None, None, (), pointers))
    if len(block) > DIRECTORY_BYTES_MAX:
        raise ValueError(
            f"{len(entries)} names are too many for one folder: {DIRECTORY_BYTES_MAX} bytes at most"
        )
    link = _put(block, DAG_PB, put, profile)
    return Link(link.cid, 0, link.stored + sum(link.stored for link in entries.values()))


def named(name: str) -> bool:
    """Whether something in a folder can be called this, here and on a disk."""
    try:
        length = len(name.encode())
    except UnicodeEncodeError:
        return False
    return 0 < length <= NAME_BYTES_MAX and name not in (".", "..") and not set(name) & set("/\0")


def _chunks(pieces: Iterable[bytes], chunk_bytes: int) -> Iterator[bytes]:
    """The same bytes in pieces of one length, the last as long as is left; one empty chunk of nothing."""
    held, some = bytearray(), False
    for piece in pieces:
        held += piece
        while len(held) >= chunk_bytes:
            yield bytes(held[:chunk_bytes])
            del held[:chunk_bytes]
            some = True
    if held or not some:
        yield bytes(held)


def _leaf(chunk: bytes, put: Put, profile: Profile) -> Link:
    if profile.raw_leaves:
        return _put(chunk, RAW, put, profile, size=len(chunk))
    block = encoded(Node(FILE, chunk, len(chunk), (), ()))
    return _put(block, DAG_PB, put, profile, size=len(chunk))


def _branch(links: Sequence[Link], put: Put, profile: Profile) -> Link:
    sizes = tuple(link.size for link in links)
    pointers = tuple(Pointer(bytes(link.cid), "", link.stored) for link in links)
    block = encoded(Node(FILE, None, sum(sizes), sizes, pointers))
    link = _put(block, DAG_PB, put, profile, size=sum(sizes))
    return Link(link.cid, link.size, link.stored + sum(link.stored for link in links))


def _put(block: bytes, codec: int, put: Put, profile: Profile, size: int = 0) -> Link:
    cid = Cid(profile.version, codec, hashlib.sha256(block).digest())
    put(cid, block)
    return Link(cid, size, len(block))


# --- reading -------------------------------------------------------------------------------------------------


def checked(cid: Cid, block: bytes) -> bytes:
    """The block, if it is what its CID says. Raises BadBlock."""
    if hashlib.sha256(block).digest() != cid.digest:
        raise BadBlock(f"the block {cid} is damaged: its bytes are not those it was made of")
    return block


def node_at(cid: Cid, get: Get) -> Node:
    """What this block is, compared with its CID; a raw one is a file of its bytes. Raises BadBlock."""
    block = checked(cid, get(cid))
    return Node(FILE, block, len(block), (), ()) if cid.codec == RAW else decoded(block)


def target_of(pointer: Pointer) -> Cid:
    """What a link leads to. Raises BadBlock for what this herd does not read."""
    try:
        if pointer.target[:2] == SHA2_256:
            return _cid_of(b"\x01" + varint(DAG_PB) + pointer.target, 0)
        return _cid_of(pointer.target, 1)
    except BadCid as error:
        raise BadBlock(f"a link leads to {error}") from None


def resolved(cid: Cid, path: Sequence[str], get: Get) -> Cid:
    """What lies at this path below a folder. Raises NoSuchPath, BadBlock."""
    for name in path:
        node = node_at(cid, get)
        if node.kind != DIRECTORY:
            raise NoSuchPath(f"{cid} is a file, and has no {name!r} in it")
        found = next((pointer for pointer in node.pointers if pointer.name == name), None)
        if found is None:
            raise NoSuchPath(f"there is no {name!r} in the folder {cid}")
        cid = target_of(found)
    return cid


def size_of(node: Node) -> int:
    """The bytes of a file, as its first block has them."""
    return node.size if node.size is not None else len(node.inline or b"")


def bytes_at(cid: Cid, get: Get) -> Iterator[bytes]:
    """The bytes of a file, chunk for chunk, each compared with its CID. Raises NoSuchPath for a folder, BadBlock.

    Of every part just as much as its parent says, so that a small tree is never a file without end.
    """
    waiting: list[tuple[Cid, int | None, int]] = [(cid, None, 0)]
    while waiting:
        at, expected, depth = waiting.pop()
        node = node_at(at, get)
        if node.kind != FILE:
            raise NoSuchPath(f"{cid} is a folder; name a file in it")
        inline, size = node.inline or b"", size_of(node)
        whole = len(inline) + sum(node.parts) == size and len(node.parts) == len(node.pointers)
        if not whole or expected not in (None, size) or depth > DEPTH_MAX or 0 in node.parts:
            raise BadBlock(f"the file {cid} is not put together as a file is")
        if inline:
            yield inline
        below = zip(node.pointers, node.parts, strict=True)
        waiting += reversed([(target_of(pointer), part, depth + 1) for pointer, part in below])
