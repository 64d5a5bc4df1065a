"""What a real engine does when it is asked for too much or for nonsense: it says so, and goes on."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest

from herder.brief import Sampling
from worker.engine import KvFull, ModelUnusable, Opening, Row, Step, StepFailed
from worker.llama import LlamaEngine

HERD_TINY = Path(str(files("herder") / "models" / "herd-tiny.gguf"))
SLOTS, CONTEXT = 2, 128
EMPTY = tuple((slot, 0) for slot in range(SLOTS))
OPEN = tuple(Opening(slot, Sampling()) for slot in range(SLOTS))


@pytest.fixture(scope="module")
def small() -> Iterator[LlamaEngine]:
    """Two slots over 256 cells."""
    engine = LlamaEngine(HERD_TINY, slots=SLOTS, context=CONTEXT, threads=1)
    yield engine
    engine.close()


def works(engine: LlamaEngine) -> bool:
    """Whether it still decodes."""
    tokens = tuple(engine.tokenize("hello"))
    return set(engine.step(Step((Row(1, 0, tokens, sample=True),), EMPTY, OPEN))) == {1}


def test_a_full_cache_is_told_and_a_smaller_batch_fits(small: LlamaEngine) -> None:
    cells = small.facts.kv_tokens
    assert cells == SLOTS * CONTEXT
    small.step(Step((Row(0, 0, (5,) * (cells - 10), sample=False),), EMPTY, OPEN))
    with pytest.raises(KvFull):
        small.step(Step((Row(1, 0, (5,) * 11, sample=True),)))
    assert set(small.step(Step((Row(1, 0, (5,) * 10, sample=True),)))) == {1}
    assert works(small)


def test_a_gap_in_the_positions_fails_the_step_and_nothing_else(small: LlamaEngine) -> None:
    assert works(small)
    with pytest.raises(StepFailed):
        small.step(Step((Row(1, 90, (5,), sample=True),)))
    assert works(small)


def test_a_token_that_does_not_exist_fails_the_step_and_nothing_else(small: LlamaEngine) -> None:
    with pytest.raises(StepFailed):
        small.step(Step((Row(1, 0, (small.facts.vocab_size,), sample=True),), EMPTY, OPEN))
    assert works(small)


def test_a_batch_over_the_limit_is_refused_before_it_reaches_native_code(small: LlamaEngine) -> None:
    with pytest.raises(StepFailed, match="batch"):
        small.step(Step((Row(0, 0, (5,) * (small.facts.batch_tokens + 1), sample=False),)))
    assert works(small)


def test_a_model_that_does_not_load_names_its_file(tmp_path: Path) -> None:
    path = tmp_path / "broken.gguf"
    path.write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(ModelUnusable, match=r"broken\.gguf"):
        LlamaEngine(path, slots=1)
