"""The event-stream format as the client reads it, cut into any pieces; and the events that its frames become."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

import llama_herder
from llama_herder._sse import Frame, Parser, TooLong
from llama_herder._streams import _order
from llama_herder.events import KNOWN, Done, Queued, Restarted, Started, Tokens, event_of

TEXT = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=12)
WORD = TEXT.filter(lambda text: "\0" not in text and not text.startswith(" "))


def frames_of(content: bytes, cuts: list[int] | None = None) -> list[Frame]:
    parser = Parser()
    edges = [0, *sorted(cut % (len(content) + 1) for cut in cuts or []), len(content)]
    return [frame for start, end in pairwise(edges) for frame in parser.feed(content[start:end])]


@st.composite
def streams(draw: st.DrawFn) -> tuple[bytes, list[Frame]]:
    """Frames, and some way of writing them that the format allows."""
    end = draw(st.sampled_from(["\n", "\r\n", "\r"]))
    written = [draw(st.sampled_from(["", "\ufeff"]))]
    frames: list[Frame] = []
    for _ in range(draw(st.integers(0, 4))):
        event, rows = draw(WORD.filter(bool)), draw(st.lists(TEXT, min_size=1, max_size=3))
        event_id = draw(st.none() | WORD)
        lines = [f"event: {event}", *(f"data: {row}" for row in rows), ": ping", "else: 1", "lonely"]
        if event_id is not None:
            lines.append(draw(st.sampled_from(["id: ", "id:"])) + event_id)
        if draw(st.booleans()):
            lines.append("id: with\0nul")
        written += [line + end for line in [*lines, ""]]
        frames.append(Frame(event, "\n".join(rows), event_id))
    return "".join(written).encode(), frames


@given(streams(), st.lists(st.integers(0, 10_000), max_size=8))
def test_frames_survive_any_cutting(written: tuple[bytes, list[Frame]], cuts: list[int]) -> None:
    content, frames = written
    assert frames_of(content) == frames
    assert frames_of(content, cuts) == frames
    assert frames_of(content, list(range(len(content)))) == frames


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_every_line_end_ends_a_line(end: str) -> None:
    text = end.join(["\ufeffid: 1-0", "event: tokens", "data: a", "data:b", "data", "", "data: c", "", ""])
    assert frames_of(text.encode()) == [Frame("tokens", "a\nb\n", "1-0"), Frame("message", "c", None)]


@pytest.mark.parametrize(
    ("content", "frames"),
    [
        (b": ping\n\n", []),
        (b"event: tokens\nid: 1-0\n\n", []),
        (b"data: cut off\n", []),
        (b"data:  two spaces\n\n", [Frame("message", " two spaces", None)]),
        (b"data: a: b\n\n", [Frame("message", "a: b", None)]),
        (b"id: 1\nid: 2\0\ndata: x\n\n", [Frame("message", "x", "1")]),
        (b"data: \xff\n\n", [Frame("message", "\ufffd", None)]),
        (b"data: x\n\n\xef\xbb\xbfdata: y\n\n", [Frame("message", "x", None)]),
        (b"Data: x\n\n", []),
        (b"", []),
    ],
)
def test_corners(content: bytes, frames: list[Frame]) -> None:
    assert frames_of(content) == frames


@pytest.mark.parametrize(
    ("line", "retry_ms"),
    [
        (b"retry: 1000\n", 1000),
        (b"retry: -1\n", None),
        (b"retry: 1e3\n", None),
        (b"retry: " + b"9" * 5000 + b"\n", None),
    ],
)
def test_retry_is_a_number_or_nothing(line: bytes, retry_ms: int | None) -> None:
    parser = Parser()
    parser.feed(line)
    assert parser.retry_ms == retry_ms


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=6))
def test_rubbish_breaks_nothing(content: bytes, cuts: list[int]) -> None:
    assert frames_of(content, cuts) == frames_of(content)


@pytest.mark.parametrize("piece", [b"data: " + b"x" * 50, b"data: x\n", b": x\n"])
def test_a_frame_without_an_end_is_refused(piece: bytes) -> None:
    parser = Parser(bytes_max=1000)
    parser.feed(b"data: " + b"x" * 900 + b"\n\n")
    with pytest.raises(TooLong):
        [parser.feed(piece) for _ in range(1000)]


def test_events_are_read_from_their_json() -> None:
    tokens = {"attempt": 2, "index": 7, "count": 3, "text": "abc", "mood": "fine"}
    assert event_of("tokens", tokens, "5-0") == Tokens("abc", 3, 7, 2, id="5-0")
    assert event_of("tokens", tokens, "5-0").raw["mood"] == "fine"
    queued = {"job_id": "job_1", "position": 2, "eta_ms": None}
    assert event_of("queued", queued, None) == Queued("job_1", 2, None)
    assert event_of("queued", {"eta_ms": 1200}, None) == Queued("", 0, 1200)
    assert event_of("started", {"attempt": 1}, "6-0") == Started(1, id="6-0")
    assert event_of("restarted", {"attempt": 2, "id": "no"}, "7-0") == Restarted(2, id="7-0")
    done = event_of("done", {"id": "job_1", "status": "cancelled", "result": {"text": "ab"}}, "8-0")
    assert isinstance(done, Done)
    assert (done.id, done.job.id, done.job.status, done.job.text) == ("8-0", "job_1", "cancelled", "ab")


def test_events_are_public_and_frozen() -> None:
    for kind in (Queued, Started, Tokens, Restarted, Done):
        assert getattr(llama_herder, kind.__name__) is kind
        with pytest.raises(AttributeError):
            kind().id = "1-0"
    assert {"queued", "started", "tokens", "restarted", "done", "error"} == KNOWN


def test_reasoning_is_beside_the_text() -> None:
    event = event_of("tokens", {"text": "4", "reasoning": "hm", "index": 0, "count": 3}, "1-0")
    assert isinstance(event, Tokens)
    assert (event.reasoning, event.text) == ("hm", "4")
    job = llama_herder.Job.from_json({"result": {"text": "4", "reasoning": "hm", "choices": [{"text": "4"}]}})
    assert (job.reasoning, job.text, llama_herder.Job().reasoning) == ("hm", "4", "")
    assert job.result is not None
    assert job.result.choices[0].reasoning is None


def test_what_was_held_back_comes_after_the_event_whose_id_it_has() -> None:
    ids = ["9-5", "09-5", "009-5", "9-6", "10-0"]
    assert sorted(["10-0", "009-5", "9-6", "09-5", "9-5"], key=_order) == ids
