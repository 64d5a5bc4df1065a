"""A bench for engines: the real scheduler over a real model, and how clear each of its choices was."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from herder.brief import Brief, Sampling
from herder.pricing import Terms
from herder.protocol import FinishReason, Lease
from worker.engine import Drawn, Opening, Row, Step
from worker.llama import LlamaEngine
from worker.scheduler import Scheduler
from worker.sequence import Sequence

_jobs = count(1)

CLEAR_LEAST = 0.05
NOISE_FACTOR = 4
"""Top two logits at least so far apart, in units of a model's noise, must give the same token in any company.

llama.cpp's CPU backend has two kernels for attention and takes the one for many rows from 64 on; what they differ by
on a model is its noise, and shows without any company. Each of two logits can move by that much, in either choice.
"""
LONG, CUT = 120, 60


def a_lease(
    prompt: str,
    *,
    tokens: int = 24,
    stop: tuple[str, ...] = (),
    sampling: Sampling = Sampling(),  # noqa: B008
    account: str = "alice",
) -> Lease:
    """A lease of a job of its own."""
    return Lease(
        f"job_{next(_jobs)}", 1, account, Brief(prompt, stop, sampling), tokens, Terms(10, 1, 34, 34)
    )


class MeasuredEngine(LlamaEngine):
    """Remembers of each choice how clear it was, and of each step what it held."""

    def __init__(self, path: Path, **more: Any) -> None:
        super().__init__(path, **more)
        self.gaps: dict[int, float] = {}
        self.steps: list[Step] = []
        self.logits: dict[int, npt.NDArray[np.float32]] = {}
        tokens = self.tokenize("Tell me about llamas and shepherds and hills. " * 20)[:LONG]
        if self.facts.batch_tokens < LONG:  # nothing is to be measured, only to be answered
            self.noise, self.clear = 0.0, CLEAR_LEAST
            return
        self.noise = float(np.abs(self.last_logits(tokens) - self.last_logits(tokens, cut=CUT)).max())
        self.clear = max(CLEAR_LEAST, NOISE_FACTOR * self.noise)

    def step(self, step: Step) -> dict[int, Drawn]:
        """As it is, remembered."""
        self.steps.append(step)
        self.gaps = {}
        return super().step(step)

    def _draw(self, rows: list[tuple[int, npt.NDArray[np.float32]]]) -> dict[int, Drawn]:
        for slot, logits in rows:
            second, first = np.partition(logits, -2)[-2:]
            self.gaps[slot] = float(first - second)
            self.logits[slot] = logits.copy()
        return super()._draw(rows)

    def last_logits(
        self, tokens: list[int], *, cut: int = 0, beside: Seq[list[int]] = ()
    ) -> npt.NDArray[np.float32]:
        """The logits after these tokens: in one batch or in two, alone or with other prompts in the (last) batch."""
        steps = [[Row(0, cut, tuple(tokens[cut:]), sample=True)]]
        steps[0] += [Row(slot, 0, tuple(other), sample=False) for slot, other in enumerate(beside, 1)]
        if cut:
            steps.insert(0, [Row(0, 0, tuple(tokens[:cut]), sample=False)])
        # With the first step what was in the cache goes, and the slot gets its sampler.
        trims = tuple((slot, 0) for slot in range(self.facts.sequences))
        for i, rows in enumerate(steps):
            first = i == 0
            self.step(Step(tuple(rows), trims if first else (), (Opening(0, Sampling()),) if first else ()))
        return self.logits[0]


@dataclass
class Answer:
    """What one job came to: its tokens (the one that ended it too), and how clear each choice was."""

    tokens: list[int] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)
    clear: float = CLEAR_LEAST
    text: str = ""
    finish: FinishReason | None = None
    cached: int = 0


class Driver:
    """Steps a scheduler and an engine by hand."""

    def __init__(self, engine: MeasuredEngine) -> None:
        self.engine = engine
        self.scheduler = Scheduler(engine.facts)
        self.answers: dict[str, Answer] = {}
        self.step_ms = 5.0
        # What an earlier driver has left in the cache is not this scheduler's.
        self._clean = tuple((slot, 0) for slot in range(engine.facts.sequences))

    def admit(self, lease: Lease) -> Sequence:
        """Take a job in."""
        sequence = Sequence(lease, self.engine.tokenize(lease.brief.prompt))
        self.answers[lease.job_id] = Answer(clear=self.engine.clear)
        self.scheduler.admit(sequence)
        assert not sequence.ended, sequence.failure
        return sequence

    def step(self) -> bool:
        """One step; False when there was nothing to do."""
        step = self.scheduler.plan()
        if step is None:
            return False
        whole = replace(step, trims=self._clean + step.trims)
        self._clean = ()
        sampled = self.engine.step(whole)
        for sequence in self.scheduler.apply(
            step, sampled, self.step_ms, self.engine.piece, self.engine.ends
        ):
            slot = sequence.slot
            assert slot is not None
            answer = self.answers[sequence.lease.job_id]
            answer.tokens.append(sampled[slot].token)
            answer.gaps.append(self.engine.gaps[slot])
            answer.text, answer.finish, answer.cached = sequence.text, sequence.finish, sequence.cached
        return True

    def run(self, *leases: Lease) -> list[Answer]:
        """Answer these jobs together, to the end."""
        for lease in leases:
            self.admit(lease)
        for _ in range(10_000):
            if not self.step():
                return [self.answers[lease.job_id] for lease in leases]
        raise AssertionError("it never ends")


def same(left: Answer, right: Answer) -> bool:
    """Whether two answers agree as far as the model was clear; asserts that they part only where it was not."""
    for i, (a, b) in enumerate(zip(left.tokens, right.tokens, strict=False)):
        if a != b:
            gap = min(left.gaps[i], right.gaps[i])
            assert gap < left.clear, f"token {i} differs although the top two logits are {gap:.3f} apart"
            return False
    assert left.tokens == right.tokens
    assert (left.text, left.finish) == (right.text, right.finish)
    return True
