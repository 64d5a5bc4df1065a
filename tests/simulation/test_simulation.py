"""A few seeds on the whole scripts find nothing; on scripts that were broken on purpose they find it, each time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from tests.simulation.__main__ import caught
from tests.simulation.mutants import MUTANTS, Mutant
from tests.simulation.seeds import Finding, play, seeds_of
from tests.simulation.server import IN_MEMORY, private_redis

SEEDS, STEPS = 40, 300
MUTANT_SEEDS, MUTANT_STEPS = 60, 400


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with private_redis(*IN_MEMORY) as url:
        yield url


async def test_some_seeds_find_nothing(url: str) -> None:
    counts: Counter[str] = Counter()
    for seed in range(SEEDS):
        finding = await play(url, seed, STEPS)
        assert finding.problem is None, (finding.seed, finding.steps, finding.problem, finding.log)
        counts += finding.counts
    # The positive control: all this really happened.
    for event in (
        "row c",
        "row f",
        "row h",
        "row i0",
        "settle STALE",
        "submit POOR",
        "submit REPLAY",
        "lapses",
        "row h2",
        "row i4",
        "charge OK",
        "charge REPLAY",
        "feed MORE",
        "batches ended",
        "attempted STALE",
        "attempts given up",
    ):
        assert counts[event], event


async def test_a_seed_repeats_itself(url: str) -> None:
    assert _story(await play(url, 3, STEPS)) == _story(await play(url, 3, STEPS))


def _story(finding: Finding) -> tuple[object, ...]:
    return finding.counts, finding.log


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_broken_script_is_caught(url: str, mutant: Mutant) -> None:
    finding = caught(url, mutant, seeds_of(mutant.mood, 0, MUTANT_SEEDS), MUTANT_STEPS)
    assert finding is not None, f"{MUTANT_SEEDS} seeds did not notice {mutant.name}"
