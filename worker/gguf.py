"""A GGUF file's header: is the file whole and sane, and its vocabulary as a GGUF of its own.

Pure Python over bytes that nobody vouches for: every count and length is checked before it is used, because llama.cpp
aborts the process on some files that this refuses in one line. Must not know of models, workers or llama_cpp.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path

MAGIC = b"GGUF"
VERSIONS = (2, 3)
ENTRIES_MAX = 65_536
KEY_BYTES_MAX = 65_535
ARRAY_MAX = 2**28
DIMENSIONS_MAX = 4
# Entries whose wrong number is said here, since llama.cpp would speak of memory or abort: what it counts, and its most.
SIZES = {".context_length": ("tokens of context", 2**30), ".block_count": ("layers", 512)}

STRING, ARRAY = 8, 9
SCALAR_BYTES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}

# (values a block, bytes a block) of ggml's tensor types; one that is not listed is left to llama.cpp to judge.
BLOCKS = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 36),
    10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 24: (1, 1), 25: (1, 2),
    26: (1, 4), 27: (1, 8), 28: (1, 8), 30: (1, 2),
}  # fmt: skip


class BadGguf(Exception):
    """Not a GGUF file, or a damaged one; the message says what is wrong with it."""


@dataclass(frozen=True)
class Header:
    """`entries` are the metadata as raw bytes by key; `ends_at` is the least size that the whole file must have."""

    version: int
    tensors: int
    entries: dict[str, bytes]
    ends_at: int


class _Cursor:
    """Reads forward over a buffer and never past its end."""

    def __init__(self, data: mmap.mmap | bytes) -> None:
        self.data = data
        self.at = 0

    def skip(self, count: int) -> None:
        if count < 0 or self.at + count > len(self.data):
            raise BadGguf("the file ends in the middle of its header: it is truncated or damaged")
        self.at += count

    def number(self, form: str) -> int:
        start = self.at
        self.skip(struct.calcsize("<" + form))
        return int(struct.unpack_from("<" + form, self.data, start)[0])

    def string(self, limit: int) -> bytes:
        length = self.number("Q")
        if length > limit:
            raise BadGguf(f"a name of {length} bytes in its header: it is damaged")
        start = self.at
        self.skip(length)
        return bytes(self.data[start : self.at])


def read_header(path: Path) -> Header:
    """Read and check the header, and that the file is as long as its tensors need. Raises BadGguf or OSError."""
    with path.open("rb") as file:
        if file.read(4) != MAGIC:
            raise BadGguf("it is not a GGUF file (its first four bytes are not 'GGUF')")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            header = _parse(data)
            if len(data) < header.ends_at:
                raise BadGguf(f"it is truncated: {len(data)} bytes of at least {header.ends_at}")
            return header


def _parse(data: mmap.mmap | bytes) -> Header:
    cursor = _Cursor(data)
    cursor.skip(4)
    version = cursor.number("I")
    if version not in VERSIONS:
        raise BadGguf(f"GGUF version {version} is not one of {VERSIONS}")
    tensors, count = cursor.number("Q"), cursor.number("Q")
    if tensors > ENTRIES_MAX or count > ENTRIES_MAX:
        raise BadGguf(f"its header claims {tensors} tensors and {count} entries: it is damaged")
    entries: dict[str, bytes] = {}
    for _ in range(count):
        start = cursor.at
        key = cursor.string(KEY_BYTES_MAX).decode("utf-8", "replace")
        _skip_value(cursor, cursor.number("I"))
        entries[key] = bytes(data[start : cursor.at])
    _check_sizes(entries)
    alignment = _unsigned(entries, "general.alignment", 32)
    ends_at = 0
    for _ in range(tensors):
        ends_at = max(ends_at, _tensor_end(cursor))
    if alignment == 0 or alignment & (alignment - 1):
        raise BadGguf(f"its alignment {alignment} is not a power of two: it is damaged")
    if tensors:
        ends_at += -(-cursor.at // alignment) * alignment
    return Header(version, tensors, entries, max(ends_at, cursor.at))


def _check_sizes(entries: dict[str, bytes]) -> None:
    for key in entries:
        for ending, (unit, most) in SIZES.items():
            if key.endswith(ending) and not 1 <= (size := _unsigned(entries, key, 1)) <= most:
                raise BadGguf(f"{size} {unit} in its header, 1 to {most} are possible: it is damaged")


def _skip_value(cursor: _Cursor, kind: int) -> None:
    if kind in SCALAR_BYTES:
        cursor.skip(SCALAR_BYTES[kind])
    elif kind == STRING:
        cursor.skip(cursor.number("Q"))
    elif kind == ARRAY:
        inner, length = cursor.number("I"), cursor.number("Q")
        if length > ARRAY_MAX:
            raise BadGguf(f"an array of {length} values in its header: it is damaged")
        if inner in SCALAR_BYTES:
            cursor.skip(SCALAR_BYTES[inner] * length)
        elif inner == STRING:
            for _ in range(length):
                cursor.skip(cursor.number("Q"))
        else:
            raise BadGguf(f"an array of values of type {inner} in its header: it is damaged")
    else:
        raise BadGguf(f"a value of unknown type {kind} in its header: it is damaged")


def _tensor_end(cursor: _Cursor) -> int:
    """Where this tensor's data ends, counted from the start of the data; 0 for a type whose size is not known here."""
    cursor.string(KEY_BYTES_MAX)
    dimensions = cursor.number("I")
    if dimensions > DIMENSIONS_MAX:
        raise BadGguf(f"a tensor of {dimensions} dimensions: it is damaged")
    values = 1
    for _ in range(dimensions):
        values *= cursor.number("Q")
    kind, offset = cursor.number("I"), cursor.number("Q")
    if kind not in BLOCKS:
        return offset
    block, size = BLOCKS[kind]
    return offset + values // block * size


def _unsigned(entries: dict[str, bytes], key: str, default: int) -> int:
    """The value of a 32-bit entry."""
    raw = entries.get(key)
    return int(struct.unpack("<I", raw[-4:])[0]) if raw else default


def without_tensors(header: Header) -> bytes:
    """The same metadata as a GGUF without tensors: what is needed to tokenize, and nothing of the model."""
    # A part of a split model would send its reader looking for the other parts.
    entries = [raw for key, raw in header.entries.items() if not key.startswith("split.")]
    return MAGIC + struct.pack("<IQQ", header.version, 0, len(entries)) + b"".join(entries)
