"""The outbox against a broker that loses replies and forgets its last writes: the log adds up all the same."""

from __future__ import annotations

from itertools import accumulate, zip_longest

from hypothesis import given
from hypothesis import strategies as st

from herder.brief import Brief, Sampling
from herder.choices import TokenChances, choices_of, told_of
from herder.pricing import capture
from herder.protocol import Chunk, ChunkReply, Outcome
from tests.unit.worker_bench import TERMS, a_lease
from worker.outbox import REWINDS_MAX, Outbox
from worker.sequence import PIECE_CHANCES_MAX, Sequence, sequences_of

FATE = st.sampled_from(["ok", "ok", "lost before", "lost after", "forgets"])


class Log:
    """The broker's side of one job's event log: the rule of chunk.lua."""

    def __init__(self) -> None:
        self.chunks: list[Chunk] = []

    def take(self, chunk: Chunk) -> ChunkReply:
        """Append, or say why not."""
        expected = sum(c.token_count for c in self.chunks)
        if chunk.first_index != expected:
            return ChunkReply.REPEAT if chunk.first_index < expected else ChunkReply.GAP
        self.chunks.append(chunk)
        return ChunkReply.OK


def send(outbox: Outbox, log: Log, fate: str) -> None:
    """One round trip that may go wrong."""
    if fate == "forgets" and log.chunks:
        log.chunks.pop()
    chunks = outbox.chunks()
    if fate == "lost before":
        return
    replies = [log.take(chunk) for chunk in chunks]
    if fate == "lost after":
        return
    for chunk, reply in zip(chunks, replies, strict=True):
        outbox.replied(chunk, reply)


@given(
    st.text(alphabet="ab 😀E", min_size=1, max_size=30),
    st.lists(st.tuples(st.integers(0, 6), FATE), max_size=40),
    st.booleans(),
)
def test_the_log_adds_up_to_the_settled_text(said: str, rounds: list[tuple[int, str]], stops: bool) -> None:
    # Redis forgetting its last writes is survived a written number of times.
    forgotten = 0
    raw = said.encode()
    sequence = Sequence(a_lease(tokens=len(raw), stop=("E",) if stops else ()), [1, 2, 3])
    outbox, log = Outbox(), Log()
    outbox.track(sequence)
    rest = list(raw)
    for count, fate in rounds:
        for _ in range(count):
            if rest and not sequence.ended:
                byte = rest.pop(0)
                sequence.take(byte, bytes([byte]), ends=False)
        if fate == "forgets":
            forgotten += 1
            if forgotten > REWINDS_MAX:
                continue
        send(outbox, log, fate)
        assert "".join(c.text for c in log.chunks) == sequence.text[: sum(len(c.text) for c in log.chunks)]
    while rest and not sequence.ended:
        byte = rest.pop(0)
        sequence.take(byte, bytes([byte]), ends=False)
    if not sequence.ended:
        sequence.cancel()
    for _ in range(60):
        if outbox.settlements():
            break
        send(outbox, log, "ok")
    (settlement,) = outbox.settlements()
    assert settlement.text == sequence.text
    if not forgotten:
        assert "".join(chunk.text for chunk in log.chunks) == settlement.text
        assert sum(chunk.token_count for chunk in log.chunks) <= settlement.completion_tokens
        assert all(chunk.text and chunk.token_count for chunk in log.chunks)
    outbox.forget(sequence.key)
    assert outbox.clear
    assert len(outbox) == 0


def test_a_redis_that_forgot_its_last_write_gets_it_again() -> None:
    sequence = Sequence(a_lease(tokens=4), [1])
    outbox, log = Outbox(), Log()
    outbox.track(sequence)
    for byte in b"abcd":
        sequence.take(byte, bytes([byte]), ends=False)
        send(outbox, log, "ok" if byte != ord("d") else "forgets")
    send(outbox, log, "ok")
    assert "".join(chunk.text for chunk in log.chunks) == "abcd"
    assert len(outbox.settlements()) == 1


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 6), FATE), max_size=60))
def test_the_log_adds_up_to_every_answer_of_several(rounds: list[tuple[int, int, str]]) -> None:
    forgotten = 0
    answers = sequences_of(a_lease(tokens=200, brief=Brief("x", n=3)))
    outbox, log = Outbox(), Log()
    outbox.track(*answers)
    for which, count, fate in rounds:
        for byte in b"abcdef"[:count]:
            answers[which].take(byte, bytes([byte]), ends=False)
        forgotten += fate == "forgets"
        if fate != "forgets" or forgotten <= REWINDS_MAX:
            send(outbox, log, fate)
    assert not outbox.settlements()
    for answer in answers:
        answer.cancel()
    for _ in range(60):
        if outbox.settlements():
            break
        send(outbox, log, "ok")
    (settlement,) = outbox.settlements()
    produced = sum(answer.produced for answer in answers)
    assert (settlement.completion_tokens, settlement.captured) == (produced, capture(TERMS, produced))
    assert settlement.choices is not None
    assert [c.text for c in choices_of(settlement.choices, settlement.text)] == [a.text for a in answers]
    if not forgotten:
        for answer in answers:
            assert "".join(c.text for c in log.chunks if c.choice == answer.choice) == answer.text
        ends = [0, *accumulate(chunk.token_count for chunk in log.chunks)]
        assert [chunk.first_index for chunk in log.chunks] == ends[:-1]


def test_a_gap_is_one_rewind_however_many_chunks_are_behind_it() -> None:
    answers = sequences_of(a_lease(tokens=9, brief=Brief("x", n=4)))
    outbox, log = Outbox(), Log()
    outbox.track(*answers)
    for _ in range(REWINDS_MAX):
        for answer in answers:
            answer.take(97, b"a", ends=False)
        send(outbox, log, "ok")
        log.chunks.clear()
    send(outbox, log, "ok")
    for answer in answers:
        answer.take(98, b"b", ends=False)
        answer.cancel()
    for _ in range(9):
        send(outbox, log, "ok")
    assert ["".join(c.text for c in log.chunks if c.choice == i) for i in range(4)] == ["aaab"] * 4
    assert len(outbox.settlements()) == 1


def test_one_answer_that_fails_fails_the_job_at_once() -> None:
    answers = sequences_of(a_lease(tokens=9, brief=Brief("x", n=2)))
    outbox, log = Outbox(), Log()
    outbox.track(*answers)
    for answer in answers:
        answer.take(97, b"a", ends=False)
    answers[1].fail("engine_error", "it broke")
    (settlement,) = outbox.settlements()
    assert (settlement.outcome, settlement.captured, settlement.text) == (Outcome.FAILED, 0, "")
    assert (settlement.error_code, settlement.choices) == ("engine_error", None)
    send(outbox, log, "ok")
    assert log.chunks == []


def test_answers_have_random_streams_of_their_own() -> None:
    seeds = [
        answer.lease.brief.sampling.seed
        for seed in (0, 1, 2**32 - 1)
        for answer in sequences_of(a_lease(brief=Brief("x", sampling=Sampling(seed=seed), n=4)))
    ]
    assert len(set(seeds)) == len(seeds)
    assert seeds[::4] == [0, 1, 2**32 - 1]


def test_a_stale_attempt_is_forgotten() -> None:
    sequence = Sequence(a_lease(tokens=4), [1])
    outbox = Outbox()
    outbox.track(sequence)
    sequence.take(97, b"a", ends=False)
    (chunk,) = outbox.chunks()
    outbox.replied(chunk, ChunkReply.STALE)
    assert outbox.held == []
    outbox.replied(chunk, ChunkReply.OK)  # a late word on it changes nothing
    assert outbox.held == []


def told_by(log: Log) -> str:
    """The text that the log adds up to."""
    return "".join(chunk.text for chunk in log.chunks)


@given(
    st.text(alphabet="abE", min_size=1, max_size=9),
    st.lists(st.sampled_from(["ok", "lost before", "lost after"]), max_size=30),
    st.integers(1, 3),
    st.booleans(),
)
def test_what_was_held_back_to_the_end_is_told_once_whatever_replies_are_lost(
    said: str, fates: list[str], size: int, cancelled: bool
) -> None:
    sequence = Sequence(a_lease(tokens=len(said) + 1, stop=("abab", "bE")), [1])
    outbox, log = Outbox(), Log()
    outbox.track(sequence)
    pieces = [said[i : i + size].encode() for i in range(0, len(said), size)]
    for piece, fate in zip_longest(pieces, fates):
        if piece is not None and not sequence.ended:
            sequence.take(1, piece, ends=False)
        elif piece is None and not sequence.ended:
            sequence.cancel() if cancelled else sequence.take(0, b"", ends=True)
        send(outbox, log, fate or "ok")
    if not sequence.ended:
        sequence.take(0, b"", ends=True)
    for fate in ("lost after", "ok", "lost after", "ok"):
        send(outbox, log, fate)
    assert outbox.settlements()
    assert told_by(log) == sequence.text
    assert all(chunk.token_count for chunk in log.chunks)


def chances_of_byte(byte: int) -> TokenChances:
    """What is told of a token that is one byte."""
    text = bytes([byte]).decode("utf-8", "replace")
    return {"token": byte, "text": text, "logprob": -0.25, "top": []}


@given(
    st.text(alphabet="ab 😀E\n", min_size=1, max_size=30),
    st.lists(st.tuples(st.integers(0, 6), FATE), max_size=40),
    st.sampled_from([(), ("E",), ("ab a", "b\n"), ("😀😀",)]),
)
def test_the_entries_of_tokens_go_with_the_text_in_which_they_end(
    said: str, rounds: list[tuple[int, str]], stops: tuple[str, ...]
) -> None:
    raw = said.encode()
    sequence = Sequence(a_lease(tokens=len(raw), stop=stops), [1])
    outbox, log = Outbox(), Log()
    outbox.track(sequence)
    rest = list(raw)
    for count, fate in [*rounds, (len(raw), "ok"), *[(0, "ok")] * 3]:
        for _ in range(count):
            if rest and not sequence.ended:
                byte = rest.pop(0)
                sequence.take(byte, bytes([byte]), ends=False, chances=chances_of_byte(byte))
        send(outbox, log, "ok" if fate == "forgets" else fate)
        text = told_by(log)
        entries = [each for chunk in log.chunks if chunk.logprobs for each in told_of(chunk.logprobs)]
        # Every entry of a byte whose character has been told, and none of what is held back or cut off.
        assert [each["token"] for each in entries] == list(text.encode())
    assert told_by(log) == sequence.text
    assert len(sequence.chances) == sequence.produced


@given(st.integers(0, 20), st.text(alphabet="ab 😀E", min_size=1, max_size=200), st.booleans())
def test_what_comes_at_once_is_told_in_pieces_that_are_not_too_long(
    likeliest: int, said: str, several: bool
) -> None:
    raw = said.encode()
    sampling = Sampling(logprobs=likeliest)
    answers = sequences_of(
        a_lease(tokens=len(raw), brief=Brief("x", sampling=sampling, n=2 if several else 1))
    )
    outbox, log = Outbox(), Log()
    outbox.track(*answers)
    for answer in answers:
        for byte in raw:
            answer.take(byte, bytes([byte]), ends=False, chances=chances_of_byte(byte))
    send(outbox, log, "lost after")
    send(outbox, log, "ok")
    assert outbox.settlements()
    for answer in answers:
        chunks = [chunk for chunk in log.chunks if chunk.choice in (None, answer.choice)]
        told = [told_of(chunk.logprobs or "[]") for chunk in chunks]
        assert "".join(chunk.text for chunk in chunks) == said
        assert [entry for entries in told for entry in entries] == answer.chances
        # A character of up to four tokens is not cut.
        assert all((likeliest + 1) * (len(entries) - 3) <= PIECE_CHANCES_MAX for entries in told)
        assert all(chunk.token_count for chunk in chunks)
        assert sum(chunk.token_count for chunk in chunks) == len(raw)
