"""What this worker still has to tell the broker: for each attempt the chunks of its text, then its settlement.

Pure. A chunk whose reply was lost is sent again unchanged, because the broker tells repeats by the index of the first
token; text that grows meanwhile waits for the next chunk. Must not know of Redis, of time or of the engine.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from herder.protocol import Chunk, ChunkReply, Settlement
from worker.sequence import Key, Sequence

REWINDS_MAX = 3
"""Times an attempt's whole log is sent again after a GAP (a Redis that came back without its last writes)."""


@dataclass
class Report:
    """One attempt on its way out: `pending` chunks have no reply yet, `sent` ones have."""

    sequence: Sequence
    pending: deque[Chunk] = field(default_factory=deque)
    sent: list[Chunk] = field(default_factory=list)
    rewinds: int = 0

    @property
    def unreported(self) -> bool:
        """Whether text has grown that is in no chunk yet."""
        return len(self.sequence.text) > self.sequence.reported_chars


class Outbox:
    """Every attempt that this worker holds, from its lease until its settlement is answered."""

    def __init__(self) -> None:
        self._reports: dict[Key, Report] = {}

    def __len__(self) -> int:
        return len(self._reports)

    @property
    def held(self) -> list[Key]:
        """The attempts to renew."""
        return list(self._reports)

    @property
    def unsettled(self) -> int:
        """Attempts that have ended and whose settlement is not answered."""
        return sum(report.sequence.ended for report in self._reports.values())

    @property
    def clear(self) -> bool:
        """Whether nothing is left to send: no text, no chunk without a reply, no settlement."""
        return not any(r.pending or r.unreported or r.sequence.ended for r in self._reports.values())

    def track(self, sequence: Sequence) -> None:
        """A job has been leased."""
        self._reports[sequence.key] = Report(sequence)

    def forget(self, key: Key) -> None:
        """Settled, handed back, or another's now."""
        self._reports.pop(key, None)

    def chunks(self) -> list[Chunk]:
        """All that is to be sent now, each attempt's in order. Cuts a new chunk where text has grown.

        Tokens without text of their own (half a character, a possible stop string) go with the chunk that brings it.
        """
        for report in self._reports.values():
            sequence = report.sequence
            if report.unreported and not report.pending:
                report.pending.append(
                    Chunk(
                        job_id=sequence.lease.job_id,
                        attempt=sequence.lease.attempt,
                        first_index=sequence.reported_tokens,
                        token_count=sequence.produced - sequence.reported_tokens,
                        text=sequence.text[sequence.reported_chars :],
                    )
                )
                sequence.reported_tokens, sequence.reported_chars = sequence.produced, len(sequence.text)
        return [chunk for report in self._reports.values() for chunk in report.pending]

    def replied(self, chunk: Chunk, reply: ChunkReply) -> None:
        """The broker's word on a chunk; STALE means that the attempt is not wanted any more."""
        report = self._reports.get((chunk.job_id, chunk.attempt))
        if report is None or chunk not in report.pending:
            return
        if reply is ChunkReply.STALE:
            self.forget((chunk.job_id, chunk.attempt))
        elif reply is not ChunkReply.GAP:
            report.pending.remove(chunk)
            report.sent.append(chunk)
        elif report.rewinds < REWINDS_MAX:
            # 1. Tokens before these are missing over there: send all again, cut as before.
            report.rewinds += 1
            report.pending.extendleft(reversed(report.sent))
            report.sent.clear()
        else:
            # 2. It does not help: the settlement carries the whole text.
            report.pending.clear()

    def settlements(self) -> list[Settlement]:
        """The attempts that have ended and whose text is all told."""
        return [
            report.sequence.settlement()
            for report in self._reports.values()
            if report.sequence.ended and not report.pending and not report.unreported
        ]
