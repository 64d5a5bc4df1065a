"""Text from token bytes: however the bytes are cut, the same whole characters come out, and never a stop string."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from worker.text import TextStream

# Few letters, so that stop strings overlap themselves and each other all the time; some of two to four bytes.
LETTERS = st.text(alphabet="ab é😀", max_size=60)
STOPS = st.lists(st.text(alphabet="ab é😀", min_size=1, max_size=5), max_size=4).map(tuple)


@st.composite
def cut(draw: st.DrawFn, raw: bytes) -> list[bytes]:
    """The bytes in pieces, empty ones among them."""
    places = sorted(draw(st.lists(st.integers(0, len(raw)), max_size=20)))
    return [raw[a:b] for a, b in zip([0, *places], [*places, len(raw)], strict=True)]


def stream(pieces: list[bytes], stops: tuple[str, ...]) -> tuple[str, bool, list[str]]:
    """(whole text, stopped, what each push released)."""
    text = TextStream(stops)
    parts = [text.push(piece) for piece in pieces]
    if not text.stopped:
        parts.append(text.finish())
    return "".join(parts), text.stopped, parts


def expected(text: str, stops: tuple[str, ...]) -> tuple[str, bool]:
    """The definition: the first stop string to be complete wins, the longest of those that are complete at once."""
    for end in range(1, len(text) + 1):
        complete = [len(stop) for stop in stops if text[:end].endswith(stop)]
        if complete:
            return text[: end - max(complete)], True
    return text, False


@given(st.data(), LETTERS, STOPS)
def test_the_cut_does_not_matter(data: st.DataObject, text: str, stops: tuple[str, ...]) -> None:
    pieces = data.draw(cut(text.encode()))
    whole, stopped, _ = stream(pieces, stops)
    assert (whole, stopped) == expected(text, stops)


@given(st.data(), LETTERS, STOPS)
def test_what_is_released_is_never_taken_back(data: st.DataObject, text: str, stops: tuple[str, ...]) -> None:
    *_, parts = stream(data.draw(cut(text.encode())), stops)
    shown = ""
    for part in parts:
        shown += part
        assert text.startswith(shown)
        assert not any(stop in shown for stop in stops)


@given(st.data(), st.text(max_size=40))
def test_any_text_comes_out_whole(data: st.DataObject, text: str) -> None:
    raw = text.encode("utf-8", "replace")
    whole, _, parts = stream(data.draw(cut(raw)), ())
    assert whole == raw.decode()
    assert not any("\ufffd" in part for part in parts if "\ufffd" not in text)


@given(st.data(), st.binary(max_size=40))
def test_invalid_bytes_become_replacement_characters(data: st.DataObject, raw: bytes) -> None:
    whole, _, _ = stream(data.draw(cut(raw)), ())
    # A character that is cut at the very end is dropped; nothing else differs from decoding it all at once.
    assert raw.decode("utf-8", "replace").startswith(whole)
    assert len(raw.decode("utf-8", "replace")) - len(whole) <= 3


@given(st.data(), LETTERS)
def test_no_more_is_held_than_a_stop_string_may_need(data: st.DataObject, text: str) -> None:
    stop = "ab ab"
    pieces = data.draw(cut(text.encode()))
    live = TextStream((stop,))
    taken, shown = b"", ""
    for piece in pieces:
        taken += piece
        shown += live.push(piece)
        if live.stopped:
            return
        sure = taken.decode("utf-8", "ignore")
        held = sure[len(shown) :]
        assert held == "" or stop.startswith(held)
