"""The outbox against a broker that loses replies and forgets its last writes: the log adds up all the same."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from herder.protocol import Chunk, ChunkReply
from tests.unit.worker_bench import a_lease
from worker.outbox import REWINDS_MAX, Outbox
from worker.sequence import Sequence

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
