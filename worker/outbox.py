"""What this worker still has to tell the broker: for each attempt the chunks of its text, then its settlement.

Pure. A chunk whose reply was lost is sent again unchanged, because the broker tells repeats by the index of the first
token; text that grows meanwhile waits for the next chunk. Must not know of Redis, of time or of the engine.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from herder.choices import told_text
from herder.protocol import Chunk, ChunkReply, Settlement
from worker.sequence import Key, Sequence, settlement_of

REWINDS_MAX = 3
"""Times an attempt's whole log is sent again after a GAP (a Redis that came back without its last writes)."""

GATHER_S = 0.03
GATHER_MOST_S = 0.1
"""How long text waits for more to go with it: the first where at most GATHER_FEW jobs are answered, and in proportion
with more, since each chunk costs the broker, and whoever reads along, about as much as a token costs the engine."""
GATHER_FEW = 4


@dataclass
class Report:
    """One attempt on its way out, with all its answers: `pending` chunks have no reply yet, `sent` ones have."""

    answers: list[Sequence]
    pending: deque[Chunk] = field(default_factory=deque)
    sent: list[Chunk] = field(default_factory=list)
    rewinds: int = 0

    @property
    def failed(self) -> bool:
        """Whether one answer cannot be made: then the others are not wanted either."""
        return any(answer.failure is not None for answer in self.answers)

    @property
    def ended(self) -> bool:
        """Whether nothing more is to come."""
        return self.failed or all(answer.ended for answer in self.answers)

    @property
    def unreported(self) -> list[Sequence]:
        """Answers whose text has grown by what is in no chunk yet."""
        return [answer for answer in self.answers if answer.unreported]

    @property
    def settles(self) -> bool:
        """Whether only the settlement is left to be told."""
        return self.ended and not self.pending and (self.failed or not self.unreported)

    def cut(self) -> None:
        """A new chunk for each answer whose text has grown; several where there are many log-probabilities."""
        while unreported := self.unreported:
            for answer in unreported:
                first_index = sum(each.reported_tokens for each in self.answers)
                piece = answer.report()
                chunk = Chunk(
                    job_id=answer.lease.job_id,
                    attempt=answer.lease.attempt,
                    first_index=first_index,
                    token_count=piece.tokens,
                    text=piece.text,
                    choice=answer.choice if len(self.answers) > 1 else None,
                    logprobs=told_text(piece.chances) if piece.chances else None,
                )
                self.pending.append(chunk)


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
        return sum(report.ended for report in self._reports.values())

    @property
    def gather_s(self) -> float:
        """How long text that is not urgent may wait for more."""
        return min(GATHER_S * max(1.0, len(self._reports) / GATHER_FEW), GATHER_MOST_S)

    @property
    def clear(self) -> bool:
        """Whether nothing is left to send: no text, no chunk without a reply, no settlement."""
        return not any(r.pending or r.unreported or r.ended for r in self._reports.values())

    def track(self, *answers: Sequence) -> None:
        """Jobs have been leased; these are all their answers."""
        for answer in answers:
            self._reports.setdefault(answer.key, Report([])).answers.append(answer)

    def forget(self, key: Key) -> None:
        """Settled, handed back, or another's now."""
        self._reports.pop(key, None)

    def chunks(self) -> list[Chunk]:
        """All that is to be sent now, each attempt's in order. Cuts a new chunk where text has grown.

        Tokens without text of their own (half a character, a possible stop string) go with the chunk that brings it.
        """
        for report in self._reports.values():
            if not report.pending and not report.failed:
                report.cut()
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
        elif not report.sent:
            # 0. One of those behind a gap that is known: it is sent again with the others.
            return
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
        return [settlement_of(report.answers) for report in self._reports.values() if report.settles]
