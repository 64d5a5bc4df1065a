"""A bench for prefix reuse: a scheduler over a scripted engine, stepped by hand."""

from __future__ import annotations

from dataclasses import replace

from herder.brief import Brief
from tests.unit.worker_bench import a_lease
from worker.engine import Step
from worker.fake import FakeEngine
from worker.scheduler import FOLLOW_LEAST, Scheduler
from worker.sequence import Sequence, sequences_of

SYSTEM = "You are a shepherd who answers in one short sentence, and never in two. "
assert len(SYSTEM) > FOLLOW_LEAST


class Bench:
    """A scheduler over a scripted engine, stepped by hand."""

    def __init__(self, *, slots: int = 4, context: int = 400, kv_tokens: int = 0, sequences: int = 0) -> None:
        self.engine = FakeEngine(slots=slots, context=context, kv_tokens=kv_tokens, sequences=sequences)
        self.scheduler = Scheduler(self.engine.facts)

    def admit(
        self, prompt: str, *, tokens: int = 5, account: str = "alice", shares: bool = False
    ) -> Sequence:
        """A job comes in."""
        (sequence,) = self.admit_all(Brief(prompt, share_prefix=shares), tokens=tokens, account=account)
        return sequence

    def admit_all(self, brief: Brief, *, tokens: int = 5, account: str = "alice") -> list[Sequence]:
        """A job comes in, with as many answers as it wants."""
        lease = replace(a_lease(brief.prompt, tokens=tokens, account=account), brief=brief)
        sequences = sequences_of(lease)
        for sequence in sequences:
            sequence.read(list(brief.prompt.encode()))
            self.scheduler.admit(sequence)
        return sequences

    def step(self, ms: float = 1.0, token_ms: float = 0.0) -> Step:
        """One step."""
        step = self.scheduler.plan()
        assert step is not None
        ms += token_ms * sum(len(row.tokens) for row in step.rows)
        self.scheduler.apply(step, self.engine.step(step), ms, self.engine.piece, self.engine.ends)
        return step

    def run(self, prompt: str, *, tokens: int = 5, account: str = "alice", shares: bool = False) -> Sequence:
        """Answer one job."""
        sequence = self.admit(prompt, tokens=tokens, account=account, shares=shares)
        self.finish()
        return sequence

    def finish(self) -> None:
        """Step until nothing is held."""
        for _ in range(1_000):
            if not self.scheduler.held:
                return
            self.step()
        raise AssertionError("it never ends")

    @property
    def computed(self) -> int:
        """Tokens that all steps so far have computed."""
        return sum(len(row.tokens) for step in self.engine.steps for row in step.rows)
