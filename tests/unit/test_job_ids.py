"""Ids of jobs: of one length, of base62, and each character as likely as any other."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from herder.api.submission import JOB_ID_CHARS, new_job_id
from herder.apikeys import ALPHABET

DRAW = "herder.api.submission.os.urandom"


def test_an_id_is_22_characters_of_base62() -> None:
    """However many bytes had to be left out."""
    assert all(re.fullmatch(r"job_[0-9A-Za-z]{22}", new_job_id()) for _ in range(2_000))


def test_each_character_stands_for_as_many_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all bytes there are, drawn a few at a time."""
    few = range(0, 4 * len(ALPHABET) - JOB_ID_CHARS, JOB_ID_CHARS)
    draws = iter([bytes(range(first, first + JOB_ID_CHARS)) for first in few])
    monkeypatch.setattr(DRAW, lambda _: next(draws))
    some = "".join(new_job_id().removeprefix("job_") for _ in few)
    assert Counter(some) == Counter((4 * ALPHABET)[: len(some)])


def test_too_few_good_bytes_are_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes that belong to no character make an id no shorter."""
    draws = iter([b"\xff" * 32, b"\x01" * 32])
    monkeypatch.setattr(DRAW, lambda _: next(draws))
    assert new_job_id() == "job_" + "1" * JOB_ID_CHARS
