"""Reasoning kept apart: the same however the answer is cut, nothing lost, nothing told twice to who comes back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from herder.api.parting import TOLD, Parted, told_of
from herder.reasoning import MARKS, OPEN, SPACE_CHARS_MAX, Parting, Parts, marks_of, parted

KINDS = [None, *MARKS, *(name + OPEN for name in MARKS)]


@st.composite
def cut_answers(draw: st.DrawFn) -> tuple[str | None, list[str]]:
    """How an answer is marked, and the answer, made of marks, of their beginnings and of what looks like them, cut."""
    kind = draw(st.sampled_from(KINDS))
    first, last = MARKS[(kind or "think").removesuffix(OPEN)]
    marks = [*(first[:n] for n in range(1, len(first) + 1)), *(last[:n] for n in range(1, len(last) + 1))]
    words = st.sampled_from([*marks, first, last, " ", "\n", " " * 9, "<", "é", "and"])
    answer = "".join(draw(st.lists(words, max_size=8)))
    places = sorted(draw(st.lists(st.integers(0, len(answer)), max_size=6)))
    return kind, [answer[a:b] for a, b in zip([0, *places], [*places, len(answer)], strict=True)]


def fed(kind: str | None, pieces: list[str]) -> Parts:
    """What is told of an answer that comes like this."""
    parting = Parting(kind)
    told = [*(parting.feed(piece) for piece in pieces), parting.end()]
    return Parts("".join(parts.reasoning for parts in told), "".join(parts.text for parts in told))


@given(cut_answers())
def test_any_cut_is_as_the_whole(given_: tuple[str | None, list[str]]) -> None:
    kind, pieces = given_
    answer = "".join(pieces)
    assert fed(kind, pieces) == fed(kind, list(answer)) == parted(kind, answer)


@pytest.mark.parametrize("kind", KINDS)
def test_a_mark_may_be_cut_anywhere(kind: str | None) -> None:
    first, last = MARKS[(kind or "think").removesuffix(OPEN)]
    answer = f" {first}a{last[:-1]}b{last}c"
    for one in range(len(answer) + 1):
        for other in range(one, len(answer) + 1):
            pieces = [answer[:one], answer[one:other], answer[other:]]
            assert fed(kind, pieces) == parted(kind, answer)


@given(cut_answers())
def test_nothing_is_lost_but_the_marks(given_: tuple[str | None, list[str]]) -> None:
    kind, pieces = given_
    answer = "".join(pieces)
    reasoning, text = parted(kind, answer)
    first, last = MARKS[(kind or "think").removesuffix(OPEN)]
    forms = [text]
    if kind is not None:
        opened = "" if kind.endswith(OPEN) else first
        forms += [opened + reasoning, opened + reasoning + last + text]
    assert answer in forms or answer.lstrip() in forms
    assert last not in reasoning


@given(cut_answers())
def test_held_back_is_never_more_than_a_mark(given_: tuple[str | None, list[str]]) -> None:
    kind, pieces = given_
    parting = Parting(kind)
    for piece in pieces:
        parting.feed(piece)
    assert len("".join(parting.end())) < SPACE_CHARS_MAX + max(
        len(mark) for pair in MARKS.values() for mark in pair
    )


@pytest.mark.parametrize(
    ("kind", "answer", "parts"),
    [
        (None, "<think>a</think>b", ("", "<think>a</think>b")),
        ("think", "<think>a</think>\n\nb", ("a", "\n\nb")),
        ("think", "\n <think>a", ("a", "")),
        ("think", " " * (SPACE_CHARS_MAX + 1) + "<think>", ("", " " * (SPACE_CHARS_MAX + 1) + "<think>")),
        ("think", "b <think>a</think>", ("", "b <think>a</think>")),
        ("think", "<thi", ("", "<thi")),
        ("think", "  ", ("", "  ")),
        ("think", "<think>a</think>b</think>c", ("a", "b</think>c")),
        ("think+", "a</think>b", ("a", "b")),
        ("think+", "a</thi", ("a</thi", "")),
        ("think+", "<think>a</think>b", ("<think>a", "b")),
        ("of a newer herder", "<think>a</think>b", ("", "<think>a</think>b")),
    ],
)
def test_how_answers_are_parted(kind: str | None, answer: str, parts: tuple[str, str]) -> None:
    assert parted(kind, answer) == parts


@pytest.mark.parametrize(
    ("template", "prompt", "marks"),
    [
        ("{{ messages }}", "hello<think>", None),
        ("{{ content.split('</think>')[-1] }}", "<think>\n", "think+"),
        ("{{ content.split('</think>')[-1] }}", "what is <think>?", "think"),
        ("{{ '<think>\n\n</think>\n\n' }}", "<think>\n\n</think>\n\n", "think"),
        ("{{ '[THINK]' }}{{ '[/THINK]' }}", "[THINK]", "bracket+"),
        # One that begins the reasoning need not know how it ends.
        ("{{ messages }}<think>\n", "hello<think>\n", "think+"),
        ("{{ messages }}<think>\n", "hello", None),
        ("{{ content.split('</think>')[-1] }}[THINK]", "hello[THINK]", "bracket+"),
    ],
)
def test_marks_are_found_in_the_template(template: str, prompt: str, marks: str | None) -> None:
    assert marks_of(template, prompt) == marks


def shown(frames: bytes) -> list[dict[str, Any]]:
    """The frames' fields, and their ids."""
    found = []
    for block in frames.decode().split("\n\n")[:-1]:
        named = dict(line.split(": ", 1) for line in block.split("\n"))
        found.append({"id": named["id"], **json.loads(named["data"])})
    return found


@given(cut_answers(), st.integers(1, 3), st.integers(0, 12))
def test_a_reader_that_comes_back_gets_the_rest_and_nothing_twice(
    given_: tuple[str | None, list[str]], choices: int, seen: int
) -> None:
    kind, pieces = given_
    log = [
        (
            f"1795251615290-{i}",
            {"attempt": "1", "index": str(i), "count": "1", "text": piece}
            | ({"choice": str(i % choices)} if choices > 1 else {}),
        )
        for i, piece in enumerate(pieces)
    ]
    parted_ = Parted(kind)
    whole = shown(b"".join([*(parted_.tokens(*each) for each in log), parted_.rest()]))
    had = whole[: min(seen, len(whole))]
    last = had[-1]["id"] if had else ""
    place = last.lstrip(TOLD)
    again = Parted(kind, told_of(last) if last else 0)
    frames = [(event_id, again.tokens(event_id, fields)) for event_id, fields in log]
    after = [event_id for event_id, _ in log].index(place) if place else -1
    rest = shown(b"".join([*(body for _, body in frames[after + 1 :]), again.rest()]))
    assert had + rest == whole
    for choice in {frame.get("choice") for frame in whole}:
        named = None if choice is None else str(choice)
        answer = "".join(fields["text"] for _, fields in log if fields.get("choice") == named)
        of_it = [frame for frame in whole if frame.get("choice") == choice]
        told = "".join(f.get("reasoning", "") for f in of_it), "".join(f["text"] for f in of_it)
        assert told == parted(kind, answer)


def test_an_attempt_that_is_void_leaves_nothing_held_back() -> None:
    parted_ = Parted("think")
    parted_.tokens("1-0", {"attempt": "1", "index": "0", "count": "1", "text": "<thi"})
    parted_.void()
    assert parted_.rest() == b""
