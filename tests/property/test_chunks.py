"""An answer told to somebody who cannot take a piece back, on a worker that dies and another that begins again."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from herder.dialects.chunks import Chunks
from herder.errors import HerderError
from herder.protocol import EventKind, JobRecord

ANSWER = "abcabcabd"


class Letters(Chunks):
    """Its bytes are the text of one answer; an error is a `!`."""

    def piece(self, choice: int, text: str, reasoning: str, count: int) -> bytes:
        return text.encode()

    def end(self, record: JobRecord) -> bytes:
        return b"."

    def broken(self, error: HerderError) -> bytes:
        return b"!"


def _said(teller: Chunks, text: str, cuts: list[int]) -> str:
    """One attempt, cut into pieces."""
    places = sorted({min(cut, len(text)) for cut in cuts} | {0, len(text)})
    pieces = [text[a:b] for a, b in pairwise(places)]
    return b"".join(teller.tokens("1-0", {"text": p, "count": "1"}) for p in pieces).decode()


@given(
    st.lists(st.tuples(st.integers(0, len(ANSWER)), st.lists(st.integers(0, 9))), max_size=4),
    st.lists(st.integers(0, 9)),
)
def test_attempts_that_say_the_same_are_one_answer(
    deaths: list[tuple[int, list[int]]], cuts: list[int]
) -> None:
    teller, said = Letters(), ""
    for length, where in deaths:
        said += _said(teller, ANSWER[:length], where)
        said += teller.begun(EventKind.RESTARTED, 2, "1-0").decode()
        assert ANSWER.startswith(said)
    said += _said(teller, ANSWER, cuts)
    assert said == ANSWER
    assert not teller.over


@given(st.integers(1, len(ANSWER)), st.integers(0, len(ANSWER) - 1), st.lists(st.integers(0, 9)))
def test_one_that_says_another_thing_ends_in_an_error(length: int, other: int, cuts: list[int]) -> None:
    teller = Letters()
    said = _said(teller, ANSWER[:length], cuts)
    teller.begun(EventKind.RESTARTED, 2, "1-0")
    different = ANSWER[:other] + "z" + ANSWER[other + 1 :]
    said += _said(teller, different, cuts)
    if other < length:
        assert said == ANSWER[:length] + "!"
        assert teller.over
        assert teller.stopped() == b"", "it has said that there is no more"
    else:
        assert said == different


def test_answers_are_told_apart() -> None:
    teller = Letters()
    for choice in "01":
        assert teller.tokens("1-0", {"text": "ab", "count": "1", "choice": choice}) == b"ab"
    teller.begun(EventKind.RESTARTED, 2, "1-0")
    assert teller.tokens("1-0", {"text": "abc", "count": "1", "choice": "1"}) == b"c"
    assert teller.tokens("1-0", {"text": "x", "count": "1", "choice": "0"}) == b"!"


def test_reasoning_is_told_apart_from_the_answer() -> None:
    teller = Letters()
    assert teller.tokens("1-0", {"text": "", "count": "1"}, "thought") == b""
    assert teller.tokens("1-0", {"text": "a", "count": "1"}) == b"a"
    teller.begun(EventKind.RESTARTED, 2, "1-0")
    assert teller.tokens("1-0", {"text": "", "count": "1"}, "other") == b"!"
