"""Damaged model files: one sound GGUF, changed in one way after another, the same for the same seed.

Pure. A place in the header is found by walking it, so that every kind of field is hit, not only the large ones.
"""

from __future__ import annotations

import random
import struct
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from worker.gguf import ARRAY, SCALAR_BYTES, STRING

ABSURD = (
    0,
    1,
    3,
    2**16,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**32,
    2**40,
    2**62,
    2**63 - 1,
    2**63,
    2**64 - 32,
    2**64 - 1,
)
FLIPS_MAX = 16
FIRST_FIELDS = 24
"""Bytes of magic, version and the two counts."""


@dataclass(frozen=True)
class Field:
    """A number in the header: where, how many bytes, and what it says."""

    kind: str
    at: int
    width: int


@dataclass(frozen=True)
class Mutation:
    """A damaged file, and in which way."""

    name: str
    content: bytes


def fields(whole: bytes) -> tuple[dict[str, list[Field]], int]:
    """Every number in the header of a sound file by what it says, and where the header ends."""
    found: dict[str, list[Field]] = defaultdict(list)
    at = FIRST_FIELDS

    def number(kind: str, width: int) -> int:
        nonlocal at
        found[kind].append(Field(kind, at, width))
        value = int.from_bytes(whole[at : at + width], "little")
        at += width
        return value

    def text() -> None:
        nonlocal at
        length = number("length", 8)
        at += length

    found["count"] += [Field("count", 8, 8), Field("count", 16, 8)]
    tensors, entries = struct.unpack_from("<QQ", whole, 8)
    for _ in range(entries):
        text()
        kind = number("type", 4)
        if kind == STRING:
            text()
        elif kind == ARRAY:
            inner, length = number("type", 4), number("array length", 8)
            for _ in range(length):
                text() if inner == STRING else number("array value", SCALAR_BYTES[inner])
        else:
            number("value", SCALAR_BYTES[kind])
    for _ in range(tensors):
        text()
        for _ in range(number("dimensions", 4)):
            number("dimension", 8)
        number("tensor type", 4)
        number("offset", 8)
    return found, at


def mutations(whole: bytes, count: int, seed: int) -> Iterator[Mutation]:
    """`count` damaged files, each kind of damage in turn."""
    rng = random.Random(seed)
    found, ends_at = fields(whole)
    ways: dict[str, Callable[[], bytes]] = {
        f"absurd {kind}": lambda kind=kind: _absurd(whole, rng, found[kind])  # type: ignore[misc]
        for kind in sorted(found)
    }
    ways |= {
        "bits of the header": lambda: _flipped(whole, rng, 0, ends_at),
        "bits of the weights": lambda: _flipped(whole, rng, ends_at, len(whole)),
        "cut in the header": lambda: whole[: rng.randrange(ends_at)],
        "cut in the weights": lambda: whole[: rng.randrange(ends_at, len(whole))],
        "a piece elsewhere": lambda: _moved(whole, rng, ends_at),
        "noise in the weights": lambda: whole[:ends_at] + rng.randbytes(len(whole) - ends_at),
    }
    names = list(ways)
    for i in range(count):
        name = names[i % len(names)]
        yield Mutation(f"{i:03d} {name}", ways[name]())


def _absurd(whole: bytes, rng: random.Random, places: list[Field]) -> bytes:
    """One number is another, mostly one that nobody means."""
    field = rng.choice(places)
    old = int.from_bytes(whole[field.at : field.at + field.width], "little")
    value = rng.choice((*ABSURD, old + 1, old - 1, 2 * old)) % (1 << 8 * field.width)
    if value == old:
        value ^= 1
    return whole[: field.at] + value.to_bytes(field.width, "little") + whole[field.at + field.width :]


def _flipped(whole: bytes, rng: random.Random, start: int, end: int) -> bytes:
    """Some bits of a part are the other way round."""
    content = bytearray(whole)
    for _ in range(rng.randint(1, FLIPS_MAX)):
        content[rng.randrange(start, end)] ^= 1 << rng.randrange(8)
    return bytes(content)


def _moved(whole: bytes, rng: random.Random, ends_at: int) -> bytes:
    """A piece of the header stands where another was."""
    length = rng.randint(8, 512)
    source, target = (rng.randrange(ends_at - length) for _ in range(2))
    return whole[:target] + whole[source : source + length] + whole[target + length :]
