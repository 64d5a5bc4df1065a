"""A prompt for which a model computes NaN: it fails, alone, and what it leaves in the cache reaches nobody after it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from herder.settings import OnOff
from tests.engines.random_model import Shape, build, vocabulary_file
from tests.unit.worker_bench import a_lease
from worker.engine import ModelUnusable
from worker.llama import LlamaEngine
from worker.scheduler import CacheSpoilt, Scheduler
from worker.sequence import Sequence
from worker.tuning import Tuning

POISON = 1_234
SOUND, POISONED = [5, 6, 7, 8, 9], [1, POISON, 5]


@pytest.fixture(scope="module")
def spoilt_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model with one poisonous token."""
    folder = tmp_path_factory.mktemp("models")
    return build(folder / "spoilt.gguf", vocabulary_file("llama-spm"), shape=Shape(poison=POISON))


class Line:
    """An engine under its scheduler."""

    def __init__(self, engine: LlamaEngine) -> None:
        self.engine = engine
        self.scheduler = Scheduler(engine.facts)

    def admit(self, prompt: list[int]) -> Sequence:
        sequence = Sequence(a_lease(tokens=8), list(prompt))
        self.scheduler.admit(sequence)
        return sequence

    def run(self) -> None:
        step = self.scheduler.plan()
        assert step is not None
        self.scheduler.apply(step, self.engine.step(step), 1.0, self.engine.piece, self.engine.ends)

    def ended(self, *sequences: Sequence) -> None:
        while not all(sequence.ended for sequence in sequences):
            self.run()

    def answer(self, prompt: list[int]) -> Sequence:
        sequence = self.admit(prompt)
        self.ended(sequence)
        return sequence


@pytest.fixture(params=["auto", "off"])
def attention(request: pytest.FixtureRequest) -> OnOff:
    """Flash attention passes over cells that are masked, on a CPU; without it, 0 × NaN is NaN."""
    kind: OnOff = request.param
    return kind


@pytest.fixture
def line(spoilt_model: Path, attention: OnOff) -> Iterator[Line]:
    engine = LlamaEngine(
        spoilt_model, slots=4, context=64, threads=1, tuning=Tuning(flash_attention=attention)
    )
    yield Line(engine)
    engine.close()


def test_a_poisonous_prompt_fails_and_the_next_job_is_answered_as_ever(line: Line) -> None:
    before = line.answer(SOUND)
    bad = line.answer(POISONED)
    after = line.answer(SOUND)
    assert bad.failure is not None
    assert bad.failure.code == "engine_error"
    assert (after.failure, after.tokens) == (None, before.tokens)


def test_a_neighbour_goes_on_or_runs_again_elsewhere_but_never_fails(line: Line, attention: OnOff) -> None:
    before = line.answer(SOUND)
    neighbour = line.admit(SOUND)
    line.run()
    bad = line.admit(POISONED)
    if attention == "off":
        with pytest.raises(CacheSpoilt):
            line.ended(bad, neighbour)
        assert not neighbour.ended
    else:
        line.ended(bad, neighbour)
        assert not bad.sound
        assert neighbour.tokens == before.tokens


def test_a_model_that_computes_nothing_useful_is_not_served(tmp_path: Path) -> None:
    # Every prompt begins with this token.
    path = build(tmp_path / "bos.gguf", vocabulary_file("llama-spm"), shape=Shape(poison=1))
    engine = LlamaEngine(path, slots=1, context=64, threads=1)
    with pytest.raises(ModelUnusable, match="computes no numbers"):
        engine.warm()
    engine.close()


def test_a_model_that_stumbles_over_one_token_is(spoilt_model: Path) -> None:
    engine = LlamaEngine(spoilt_model, slots=1, context=64, threads=1)
    engine.warm()
    engine.close()
