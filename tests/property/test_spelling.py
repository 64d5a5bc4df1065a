"""The parts of an answer that its tokens bring are together the answer, however its bytes were cut into tokens."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import example, given
from hypothesis import strategies as st

from herder.choices import TokenChances
from herder.dialects.spelling import spelled


def tokens_of(pieces: list[bytes]) -> list[TokenChances]:
    """Tokens of these bytes, with the texts that a worker gives them."""
    return [
        {"token": i, "text": piece.decode("utf-8", "replace"), "logprob": -1.0, "top": []}
        for i, piece in enumerate(pieces)
    ]


def cut(raw: bytes, places: list[int]) -> list[bytes]:
    """The bytes in pieces."""
    ends = sorted({*(place % (len(raw) + 1) for place in places), 0, len(raw)})
    return [raw[start:end] for start, end in pairwise(ends)]


@example("aaéé\ufffd😀😀", [16])
@example("ééé", [1, 3, 4])
@given(st.text(alphabet="ab é😀\n\ufffd", max_size=20), st.lists(st.integers(0, 80), max_size=20))
def test_the_parts_follow_one_another_and_never_go_beyond_the_text(said: str, places: list[int]) -> None:
    spans = spelled(said, tokens_of(cut(said.encode(), places)))
    assert [start for start, _ in spans] == [0, *(end for _, end in spans)][: len(spans)]
    assert all(start <= end <= len(said) for start, end in spans)


@given(st.text(alphabet="ab \nc", max_size=20), st.lists(st.integers(0, 80), max_size=20))
def test_the_parts_of_a_text_without_cut_characters_are_the_text(said: str, places: list[int]) -> None:
    spans = spelled(said, tokens_of(cut(said.encode(), places)))
    assert "".join(said[start:end] for start, end in spans) == said


@given(st.lists(st.sampled_from("é😀a"), unique=True), st.lists(st.integers(0, 80), max_size=20))
def test_the_parts_of_a_text_in_which_no_character_comes_twice_are_the_text(
    letters: list[str], places: list[int]
) -> None:
    said = "".join(letters)
    spans = spelled(said, tokens_of(cut(said.encode(), places)))
    assert "".join(said[start:end] for start, end in spans) == said


@given(st.lists(st.text(alphabet="ab é😀\n", min_size=1, max_size=4), max_size=8))
def test_tokens_of_whole_characters_bring_their_own_text(texts: list[str]) -> None:
    said = "".join(texts)
    spans = spelled(said, tokens_of([text.encode() for text in texts]))
    assert [said[start:end] for start, end in spans] == texts


@given(
    st.text(alphabet="ab\n", min_size=1, max_size=20),
    st.lists(st.integers(0, 80), max_size=9),
    st.integers(0, 20),
)
def test_of_an_answer_that_is_cut_off_the_last_tokens_bring_what_is_left(
    said: str, places: list[int], end: int
) -> None:
    kept = said[: end % (len(said) + 1)]
    spans = spelled(kept, tokens_of(cut(said.encode(), places)))
    assert "".join(kept[start:end] for start, end in spans) == kept


def test_a_character_comes_with_the_token_that_completes_it() -> None:
    spans = spelled("aéb", tokens_of([b"a", b"\xc3", b"\xa9", b"b"]))
    assert spans == [(0, 1), (1, 1), (1, 2), (2, 3)]
    # The next one is another, though it is the same letter.
    assert spelled("éé", tokens_of([b"\xc3", b"\xa9", "é".encode()])) == [(0, 0), (0, 1), (1, 2)]
