"""The same seed, the same text: whatever a worker has answered before, and however fast it was."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from herder.brief import Sampling
from herder.protocol import Lease
from tests.engines.bench import Driver, MeasuredEngine, a_lease
from worker.tuning import Tuning

WORDS = (
    "a llama and the river price of wool in morning fog: who sang, and what did a shepherd say then".split()
)
SLOTS, CONTEXT, TOKENS = 4, 512, 40
LENGTHS = (2, 5, 10, 20, 40, 80)
"""Words of the prompts: some are read in one step, some in more."""


@pytest.fixture(params=["on", "off"])
def driver(request: pytest.FixtureRequest, model_file: Path) -> Iterator[Driver]:
    """Each model, with one cache for all slots and with one for each.

    With cells enough that llama.cpp parts the attention of a lone row among its threads, which it does by where they
    lie.
    """
    tuning = Tuning(kv_unified=request.param)
    engine = MeasuredEngine(model_file, slots=SLOTS, context=CONTEXT, threads=2, tuning=tuning)
    yield Driver(engine)
    engine.close()


def said(*key: object, words: int) -> str:
    """So many words, the same for the same key."""
    return " ".join(random.Random(repr(key)).choices(WORDS, k=words))


def a_repeatable(prompt: str) -> Lease:
    """A job as it is with a seed in its body."""
    lease = a_lease(prompt, tokens=TOKENS, sampling=Sampling(temperature=1.3, seed=7, ignore_eos=True))
    return replace(lease, brief=replace(lease.brief, repeatable=True))


def test_a_repeatable_job_repeats_itself_when_it_is_alone(driver: Driver) -> None:
    rng = random.Random(1)
    first: dict[int, str] = {}
    for number in range(3):
        for words in LENGTHS:
            prompt = said(words=words)
            (answer,) = driver.run(a_repeatable(prompt))
            assert answer.cached == 0
            assert answer.text == first.setdefault(words, answer.text), f"{words} words, time {number}"
            # What the cache holds and how long a step seems to take is another thing for the next one.
            driver.step_ms = rng.choice((0.5, 5.0, 50.0, 500.0))
            others = rng.randrange(1, SLOTS + 1)
            driver.run(*(a_lease(said(number, words, i, words=20), tokens=5 + i) for i in range(others)))


def test_in_company_it_begins_with_what_the_cache_has(driver: Driver) -> None:
    prompt = said(words=80)
    driver.run(a_lease(prompt, tokens=2))
    _, answer = driver.run(a_lease(said("other", words=5), tokens=60), a_repeatable(prompt))
    assert answer.cached == len(driver.engine.tokenize(prompt)) - 1
