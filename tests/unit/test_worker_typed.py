"""Typed answers in the worker, without a model: held back, tried twice, failed alone, never told in part."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from herder.brief import Brief, Sampling
from herder.protocol import FinishReason, Lease, Outcome
from herder.schema_tree import LIMITS, as_text
from herder.schemas import tree_from
from tests.unit.worker_bench import a_lease
from tests.unit.worker_loop import Gate, at_work
from worker.engine import Drawn, Step
from worker.fake import END, FakeEngine
from worker.grammar import Grammars
from worker.scheduler import Scheduler
from worker.sequence import Sequence, settlement_of

SCHEMA = as_text(tree_from({"properties": {"a": {"type": "integer"}}, "required": ["a"]}, "$"))
FITS, MISFITS = b'{"a":1}', b'{"a":"1"}'


def typed(prompt: str = "hello", *, tokens: int = 40, n: int = 1) -> Lease:
    """A job whose answer must fit."""
    return replace(a_lease(prompt), brief=Brief(prompt, schema=SCHEMA, n=n), tokens=tokens)


class ByHand:
    """A scheduler whose engine says what a test wants."""

    def __init__(self, *sequences: Sequence) -> None:
        engine = FakeEngine(slots=2, context=200)
        self.scheduler = Scheduler(engine.facts)
        self._piece, self._ends = engine.piece, engine.ends
        for sequence in sequences:
            sequence.read(engine.tokenize(sequence.lease.brief.prompt))
            self.scheduler.admit(sequence)

    def step(self, drawn: Drawn) -> Step:
        """One step in which every row that asks for a token gets this one."""
        step = self.scheduler.plan()
        assert step is not None
        told = {row.slot: drawn for row in step.rows if row.sample}
        self.scheduler.apply(step, told, 1.0, self._piece, self._ends)
        return step

    def say(self, text: bytes) -> list[Step]:
        """A whole answer, and its end."""
        return [self.step(Drawn(token)) for token in (*text, END)]


def test_an_answer_that_does_not_fit_is_made_once_more_from_its_prompt() -> None:
    sequence = Sequence(typed())
    bench = ByHand(sequence)
    first = bench.say(MISFITS)[0].opens[0]
    assert not sequence.ended
    assert (sequence.produced, sequence.text, sequence.held) == (0, "", True)
    again = bench.say(FITS)[0]
    (opening,) = again.opens
    assert (opening.slot, opening.schema, opening.prompt) == (first.slot, SCHEMA, first.prompt)
    assert opening.sampling.seed != first.sampling.seed
    assert opening.sampling.temperature > 0
    length = sequence.prompt_tokens
    assert again.trims == ((first.slot, length - 1),)
    assert [(row.start, row.tokens) for row in again.rows] == [(length - 1, (sequence.tokens[length - 1],))]
    assert (sequence.finish, sequence.text) == (FinishReason.STOP, FITS.decode())
    assert settlement_of([sequence]).completion_tokens == len(FITS)


def test_the_second_that_does_not_fit_is_the_last() -> None:
    sequence, neighbour = Sequence(typed()), Sequence(a_lease(tokens=40))
    bench = ByHand(sequence, neighbour)
    bench.say(MISFITS)
    bench.say(MISFITS)
    end = settlement_of([sequence])
    assert (end.outcome, end.error_code, end.captured, end.text) == (Outcome.FAILED, "schema_error", 0, "")
    assert neighbour.failure is None


def test_what_has_used_up_its_tokens_is_not_told_either() -> None:
    sequence = Sequence(typed(tokens=4))
    bench = ByHand(sequence)
    for token in FITS[:4] * 2:
        bench.step(Drawn(token))
    assert sequence.failure is not None
    assert sequence.failure.code == "schema_error"


def test_a_second_fault_of_the_grammar_fails_its_job_alone() -> None:
    sequence, neighbour = Sequence(typed()), Sequence(a_lease(tokens=40))
    bench = ByHand(sequence, neighbour)
    for _ in range(2):
        assert sequence.failure is None
        step = bench.scheduler.plan()
        assert step is not None
        mine = sequence.slot
        told = {row.slot: Drawn(65, fault="a limit" if row.slot == mine else None) for row in step.rows}
        bench.scheduler.apply(step, told, 1.0, lambda token: bytes([token]), lambda _: False)
    assert sequence.failure is not None
    assert (sequence.failure.code, sequence.failure.message) == ("schema_error", "a limit")
    assert neighbour.text == "AA"


def test_a_whole_answer_ends_without_an_end_token() -> None:
    sequence = Sequence(typed(tokens=len(FITS)))
    bench = ByHand(sequence)
    for i, token in enumerate(FITS, 1):
        bench.step(Drawn(token, whole=i == len(FITS)))
    assert (sequence.finish, sequence.produced) == (FinishReason.STOP, len(FITS))


@pytest.mark.parametrize(("said", "told"), [(FITS, FITS.decode()), (MISFITS, "")])
async def test_nothing_is_reported_before_the_answer_is_whole(said: bytes, told: str) -> None:
    async with at_work() as bench:
        jobs = [typed(f"[[say:{said.decode()}]]"), a_lease("prompt")]
        bench.broker.queue.extend(jobs)
        bench.bell.ring("queue")
        await bench.settled(*(job.job_id for job in jobs))
    end = bench.broker.settled[jobs[0].job_id]
    assert end.text == told
    assert end.outcome is (Outcome.SUCCEEDED if told else Outcome.FAILED)
    assert [chunk.text for chunk in bench.broker.log[jobs[0].job_id]] == ([told] if told else [])
    assert bench.broker.settled[jobs[1].job_id].outcome is Outcome.SUCCEEDED


async def test_a_schema_that_cannot_be_made_ready_is_refused_before_a_step() -> None:
    class Unable(Gate):
        def ready(self, schema: str, tokens: int) -> str | None:
            return "no vocabulary"

    engine = Unable(slots=2, context=200)
    async with at_work(engine) as bench:
        job = typed(n=2)
        bench.broker.queue.append(job)
        bench.bell.ring("queue")
        await bench.settled(job.job_id)
    end = bench.broker.settled[job.job_id]
    assert (end.error_code, end.error_message, end.captured) == ("schema_error", "no vocabulary", 0)
    assert engine.stepped == 0


def test_a_vocabulary_that_cannot_write_json_is_told() -> None:
    letters = [bytes([byte]) for byte in b"abc"]
    why = Grammars(letters, [0]).ready(SCHEMA, 100)
    assert why is not None
    assert "cannot write JSON" in why
    # Opened all the same, it fails with its first token, and forbids nothing.
    grammars = Grammars(letters, [0])
    assert grammars.open(3, SCHEMA, 100) is not None
    assert grammars.taken({3: Drawn(1), 4: Drawn(2)}) == {3: Drawn(1, fault=why), 4: Drawn(2)}
    assert grammars.open(3, None, 100) is None
    assert grammars.taken({3: Drawn(1)}) == {3: Drawn(1)}


BYTES = [bytes([byte]) for byte in range(256)] + [b""]
LONG = as_text(tree_from({"type": "string", "maxLength": 9_000}, "$"))


def written(grammars: Grammars, length: int) -> str | None:
    """A string of so many characters, token by token; why it could not be."""
    assert grammars.ready(LONG, 9_000) is None
    mask = grammars.open(0, LONG, 9_000)
    assert mask is not None
    for token in b'"' + b"x" * length:
        mask(np.zeros(len(BYTES), np.float32))
        drawn = grammars.taken({0: Drawn(token)})[0]
        if drawn.fault is not None:
            return drawn.fault
    return None


def test_an_answer_that_came_to_a_limit_does_not_spoil_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """All answers of a schema share a lexer, which remembers every state."""
    monkeypatch.setitem(LIMITS, "max_lexer_states", 1_000)
    grammars = Grammars(BYTES, [256])
    assert "too many states" in (written(grammars, 2_000) or "")
    assert written(grammars, 100) is None


def test_what_many_answers_have_used_is_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    grammars = Grammars(BYTES, [256])
    assert written(grammars, 100) is None
    first = grammars._compiled[LONG]
    assert written(grammars, 100) is None
    assert grammars._compiled[LONG] is first
    assert first.written == 202
    monkeypatch.setattr("worker.grammar.WORN_BYTES", 200)
    assert written(grammars, 100) is None
    assert grammars._compiled[LONG].written == 101


def test_logits_that_are_useless_are_not_made_an_answer() -> None:
    grammars = Grammars(BYTES, [256])
    assert grammars.open(0, LONG, 2) is not None
    useless = Drawn(0, useless=True)
    assert grammars.taken({0: useless}) == {0: useless}


def test_the_second_try_is_not_the_first_again() -> None:
    """Not even of an answer that was greedy, or one of several."""
    for sampling in (Sampling(), Sampling(temperature=1.5, seed=2**32 - 1)):
        for choice in range(4):
            lease = replace(typed(), brief=Brief("hello", schema=SCHEMA, sampling=sampling))
            sequence = Sequence(lease, choice=choice)
            before = sequence.lease.brief.sampling
            sequence.begin_again()
            after = sequence.lease.brief.sampling
            assert after.seed != before.seed
            assert after.seed < 2**128
            assert after.temperature == max(before.temperature, 0.7)
