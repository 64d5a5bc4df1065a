"""Drawing a token against plain arithmetic: which tokens each filter leaves, what penalties do, where chance falls."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from herder.brief import Sampling
from worker.engine import Drawn
from worker.sampling import SHARED_FROM, Sampler, Samplers, allowed, largest

Logits = npt.NDArray[np.float32]
NEAR = 1e-4
"""Sums are float32 here and exact in the reference; a set may differ where a sum lies so near to its target."""
DRAWING = Sampling(temperature=1.0)


@st.composite
def rows(draw: st.DrawFn) -> Logits:
    """Short rows of round numbers, with ties, and long ones that are peaked or flat; some tokens are not allowed."""
    row: Logits
    if draw(st.booleans()):
        quarters = draw(st.lists(st.integers(-40, 40), min_size=2, max_size=200))
        row = np.array(quarters, np.float32) / np.float32(4)
    else:
        rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        size = draw(st.integers(200, 20_000))
        row = rng.standard_normal(size, np.float32) * np.float32(draw(st.sampled_from([0.0, 0.5, 2.5, 8.0])))
    banned = draw(st.lists(st.integers(0, len(row) - 1), max_size=20))
    row[banned] = -np.inf
    if not np.isfinite(row).any():
        row[0] = 0
    return row


def left(row: Logits, how: Sampling) -> set[int]:
    """The tokens that may be drawn."""
    ids, values = allowed(row, how)
    places = range(len(row)) if ids is None else [int(each) for each in ids]
    assert len(places) == len(values)
    assert len(set(places)) == len(places)
    return {place for place in places if row[place] > -np.inf}


def softmax(row: Logits) -> list[float]:
    """In double precision."""
    peak = float(row.max())
    weights = [math.exp(float(value) - peak) for value in row]
    total = math.fsum(weights)
    return [weight / total for weight in weights]


def is_nucleus(kept: set[int], keys: list[float], chances: list[float], share: float) -> None:
    """As few as reach `share`, and none that is left out is better than one that is kept."""
    worst = min(kept, key=lambda token: keys[token])
    others = [token for token, chance in enumerate(chances) if chance > 0 and token not in kept]
    assert all(keys[token] <= keys[worst] + NEAR for token in others)
    mass = math.fsum(chances[token] for token in kept)
    assert mass >= share - NEAR
    assert len(kept) == 1 or mass - chances[worst] < share + NEAR


@given(rows(), st.integers(1, 400))
def test_top_k_keeps_the_likeliest_and_of_equal_ones_the_first(row: Logits, count: int) -> None:
    order = sorted((-float(value), token) for token, value in enumerate(row) if value > -np.inf)
    expected = [token for _, token in order[:count]]
    assert list(largest(row, count)) == expected
    if count < len(row):
        assert left(row, replace(DRAWING, top_k=count)) == set(expected)


@given(rows(), st.floats(0.01, 0.999))
def test_top_p_keeps_the_smallest_nucleus(row: Logits, share: float) -> None:
    keys = [float(value) for value in row]
    is_nucleus(left(row, replace(DRAWING, top_p=share)), keys, softmax(row), share)


@given(rows(), st.floats(0.01, 0.999))
def test_typical_p_keeps_what_is_nearest_to_the_mean_surprise(row: Logits, share: float) -> None:
    chances = softmax(row)
    mean = math.fsum(-chance * math.log(chance) for chance in chances if chance > 0)
    keys = [-abs(-math.log(chance) - mean) if chance > 0 else -math.inf for chance in chances]
    is_nucleus(left(row, replace(DRAWING, typical_p=share)), keys, chances, share)


@given(rows(), st.floats(0.001, 1))
def test_min_p_keeps_what_is_likely_enough_beside_the_likeliest(row: Logits, share: float) -> None:
    kept = left(row, replace(DRAWING, min_p=share))
    least = float(row.max()) + math.log(share)
    assert {t for t, value in enumerate(row) if value >= least + NEAR} <= kept
    assert kept <= {t for t, value in enumerate(row) if value >= least - NEAR}


@given(rows(), st.integers(0, 100), st.floats(0.05, 1), st.floats(0.05, 1), st.floats(0, 0.5))
def test_filters_come_one_after_the_other(
    row: Logits, top_k: int, typical_p: float, top_p: float, min_p: float
) -> None:
    steps: tuple[dict[str, Any], ...] = (
        {"top_k": top_k},
        {"typical_p": typical_p},
        {"top_p": top_p},
        {"min_p": min_p},
    )
    whole = DRAWING
    rest = row.copy()
    for step in steps:
        whole = replace(whole, **step)
        kept = left(rest, replace(DRAWING, **step))
        rest[[token for token in range(len(row)) if token not in kept]] = -np.inf
    once = left(row, whole)
    parted = once ^ left(rest, DRAWING)
    # Sums in another order may part where a target is only just reached, and nowhere else.
    assert math.fsum(chance for token, chance in enumerate(softmax(row)) if token in parted) <= 2 * max(
        [NEAR, *(chance for token, chance in enumerate(softmax(row)) if token in parted)]
    )
    assert once


PENALTIES = st.tuples(
    st.sampled_from([0.5, 1.0, 1.3]), st.sampled_from([-1.0, 0.0, 0.7]), st.sampled_from([-0.5, 0.0, 1.1])
)


@given(rows(), st.lists(st.integers(0, 199), max_size=90), st.integers(1, 64), PENALTIES)
def test_penalties_are_those_of_the_last_tokens(
    row: Logits, prompt: list[int], window: int, penalties: tuple[float, float, float]
) -> None:
    repeat, frequency, presence = penalties
    prompt = [token % len(row) for token in prompt]
    how = Sampling(
        repeat_penalty=repeat, frequency_penalty=frequency, presence_penalty=presence, penalty_tokens=window
    )
    before = row.copy()
    drawn = Sampler(how, tuple(prompt)).draw(row).token
    expected = [float(value) for value in row]
    for token, count in Counter(prompt[-window:]).items():
        value = expected[token]
        value = value / repeat if value > 0 else value * repeat
        expected[token] = value - count * frequency - presence
    assert expected[drawn] == pytest.approx(max(expected), abs=1e-5)
    assert (row == before).all()


def test_what_was_drawn_is_penalised_too() -> None:
    row = np.array([3.0, 2.9, 2.8, 2.7], np.float32)
    sampler = Sampler(Sampling(presence_penalty=2.0, penalty_tokens=2))
    # The third time the first one has left the window.
    assert [sampler.draw(row).token for _ in range(6)] == [0, 1, 2, 0, 1, 2]


@given(rows(), st.floats(0.2, 2), st.data())
@settings(max_examples=50)
def test_every_token_is_drawn_as_often_as_its_probability(
    row: Logits, temperature: float, found: st.DataObject
) -> None:
    chances = softmax((row / np.float32(temperature)).astype(np.float32))
    sampler = Sampler(Sampling(temperature=temperature))
    ends = np.cumsum(chances)
    for _ in range(10):
        token = found.draw(st.integers(0, len(row) - 1))
        if chances[token] < 1e-3:
            continue
        # In the order of the vocabulary, the middle of each token's share of [0, 1) draws this token.
        sampler._random = Fixed(float(ends[token]) - chances[token] / 2)  # type: ignore[assignment]
        assert sampler.draw(row).token == token


class Fixed:
    """Chance that is none."""

    def __init__(self, value: float) -> None:
        self.value = value

    def random(self) -> float:
        """The same again."""
        return self.value


@given(rows(), st.sampled_from([0.0, 1 - 2**-53]))
def test_the_ends_of_chance_draw_something_that_is_allowed(row: Logits, chance: float) -> None:
    sampler = Sampler(DRAWING)
    sampler._random = Fixed(chance)  # type: ignore[assignment]
    assert row[sampler.draw(row).token] > -np.inf


@given(st.integers(0, 2**66), st.integers(1, 30))
def test_chance_depends_on_the_seed_and_the_position_alone(seed: int, count: int) -> None:
    row = np.zeros(1_000, np.float32)
    stream = np.random.Generator(np.random.Philox(key=seed))
    sampler, neighbour = Sampler(replace(DRAWING, seed=seed)), Sampler(replace(DRAWING, seed=seed + 1))
    drawn = []
    for i in range(count):
        drawn.append(sampler.draw(row).token)
        if i % 3:
            neighbour.draw(row)
    assert drawn == [int(stream.random() * 1_000) for _ in range(count)]


@given(rows(), st.integers(0, 20))
def test_log_probabilities_are_the_models_own(row: Logits, count: int) -> None:
    bias = ((0, 50.0),)
    drawn = Sampler(Sampling(logprobs=count, logit_bias=bias)).draw(row)
    chances = softmax(row)

    def logprob(token: int) -> float:
        return math.log(chances[token]) if chances[token] > 0 else -math.inf

    assert drawn.logprob == pytest.approx(logprob(drawn.token), abs=1e-3)
    order = sorted((-float(value), token) for token, value in enumerate(row) if value > -np.inf)
    assert [token for token, _ in drawn.likeliest] == [token for _, token in order[:count]]
    for token, value in drawn.likeliest:
        assert value == pytest.approx(logprob(token), abs=1e-3)
    assert Sampler(Sampling()).draw(row).logprob is None


def test_a_bias_counts_and_unknown_tokens_do_not_matter() -> None:
    row = np.array([1.0, 2.0, 3.0], np.float32)
    assert Sampler(Sampling(logit_bias=((0, 2.5), (2, -100.0), (99, 100.0)))).draw(row).token == 0


def test_the_end_is_forbidden_where_it_is_to_be_ignored() -> None:
    row = np.array([1.0, 2.0, 3.0], np.float32)
    ignoring = Sampling(ignore_eos=True)
    assert Sampler(ignoring, ends=(2,)).draw(row).token == 1
    assert Sampler(Sampling(), ends=(2,)).draw(row).token == 2


def test_a_mask_comes_first_and_decides_about_the_end() -> None:
    row = np.array([1.0, 2.0, 3.0], np.float32)
    before = row.copy()

    def only_the_end(logits: Logits) -> None:
        assert (logits == before).all()
        logits[:2] = -np.inf

    for how in (Sampling(ignore_eos=True), Sampling(temperature=2.0, logit_bias=((0, 100.0),))):
        assert Sampler(how, ends=(2,), mask=only_the_end).draw(row).token == 2
    assert (row == before).all()


@pytest.mark.parametrize(
    "how", [Sampling(), DRAWING, replace(DRAWING, top_k=2, typical_p=0.5), Sampling(logprobs=2)]
)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_that_mean_nothing_draw_nothing(how: Sampling, bad: float) -> None:
    row = np.array([1.0, bad, 3.0], np.float32)
    assert Sampler(how).draw(row).useless
    assert Sampler(how).draw(np.full(3, -np.inf, np.float32)).useless
    assert not Sampler(how).draw(np.array([1.0, -np.inf, 3.0], np.float32)).useless


@pytest.mark.parametrize("size", [100, 1 + SHARED_FROM // 3])
def test_a_row_of_nonsense_is_its_own_slots_alone(size: int) -> None:
    rng = np.random.default_rng(1)
    rows = {slot: rng.standard_normal(size, np.float32) for slot in range(3)}

    def drawn() -> dict[int, Drawn]:
        samplers = Samplers(2)
        for slot in rows:
            samplers.open(slot, Sampler(Sampling(temperature=1.0, seed=slot, logprobs=1)))
        found = samplers.draw(list(rows.items()))
        samplers.close()
        return found

    before = drawn()
    rows[1] = np.full(size, np.nan, np.float32)
    after = drawn()
    assert after[1].useless
    assert (after[0], after[2]) == (before[0], before[2])


def test_a_temperature_next_to_nothing_is_none() -> None:
    row = np.array([1.0, 1.001, 1.0], np.float32)
    assert {Sampler(Sampling(temperature=1e-300, seed=seed)).draw(row).token for seed in range(9)} == {1}


def test_threads_draw_what_one_thread_draws() -> None:
    size = 50_000
    rng = np.random.default_rng(1)
    logits = [(slot, rng.standard_normal(size, np.float32)) for slot in range(2 + SHARED_FROM // size)]

    def drawn(threads: int) -> dict[int, int]:
        samplers = Samplers(threads)
        for slot, _ in logits:
            samplers.open(slot, Sampler(Sampling(temperature=1.0, seed=slot)))
        found = {slot: each.token for slot, each in samplers.draw(logits).items()}
        samplers.close()
        return found

    assert drawn(3) == drawn(1)
    assert len(drawn(3)) == len(logits)
