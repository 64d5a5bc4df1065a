"""Damaged model files, a handful of them; `python -m tests.e2e.mutated_ggufs` tries as many as one likes."""

from __future__ import annotations

import pytest

from tests.e2e.gguf_mutations import FLIPS_MAX, fields, mutations
from tests.e2e.mutated_ggufs import HERD_TINY, REFUSED, SERVED, field
from worker.gguf import MAGIC, read_header

# Of each sort of end one or two: refused in Python, refused by llama.cpp in the child, served all the same.
NUMBERS = (2, 7, 9, 11, 13, 15)


def test_workers_on_damaged_files_say_so_in_one_line_or_serve() -> None:
    chosen = [m for m in mutations(HERD_TINY.read_bytes(), max(NUMBERS) + 1, 0) if int(m.name[:3]) in NUMBERS]
    with field() as ready:
        outcomes = [ready.attempt(mutation) for mutation in chosen]
    assert [(outcome.name, outcome.fault, outcome.said) for outcome in outcomes if outcome.fault] == []
    assert {outcome.word for outcome in outcomes} == {REFUSED, SERVED}


def test_the_same_seed_damages_the_same_bytes() -> None:
    whole = HERD_TINY.read_bytes()
    first, again = (list(mutations(whole, 40, 3)) for _ in range(2))
    assert first == again
    assert [m.content for m in mutations(whole, 40, 4)] != [m.content for m in first]
    assert all(mutation.content != whole for mutation in first)
    for mutation in first:
        if "absurd" in mutation.name:
            differs = [i for i, (a, b) in enumerate(zip(mutation.content, whole, strict=True)) if a != b]
            assert max(differs) - min(differs) < 8
        if "bits" in mutation.name:
            bits = sum((a ^ b).bit_count() for a, b in zip(mutation.content, whole, strict=True))
            assert 1 <= bits <= FLIPS_MAX


def test_the_places_are_those_of_the_header() -> None:
    whole = HERD_TINY.read_bytes()
    found, ends_at = fields(whole)
    header = read_header(HERD_TINY)
    assert whole.startswith(MAGIC)
    assert len(found["offset"]) == len(found["tensor type"]) == header.tensors
    names = [int.from_bytes(whole[f.at : f.at + 8], "little") for f in found["length"]]
    assert max(names) < ends_at < len(whole)
    assert whole[ends_at:].count(0) > 0


@pytest.mark.parametrize("kind", ["count", "length", "type", "array length", "value", "dimension", "offset"])
def test_every_kind_of_field_is_found(kind: str) -> None:
    assert fields(HERD_TINY.read_bytes())[0][kind]
