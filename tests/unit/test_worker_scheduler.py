"""What the next step holds: who goes first, how much prefill it bears, who gets which slot."""

from __future__ import annotations

import random

import pytest

from tests.unit.worker_bench import a_lease
from worker.engine import Drawn, Step
from worker.fake import FakeEngine
from worker.pace import (
    BLOCK,
    FIRST_BUDGET,
    LEAST_BUDGET,
    READERS_SHARE,
    STEP_TARGET_MS,
    PrefillPace,
    Speed,
    StepTime,
)
from worker.scheduler import REFUSALS_MAX, Scheduler
from worker.sequence import Sequence, chances_of


def admitted(scheduler: Scheduler, prompt: str, stop: tuple[str, ...] = (), **more: object) -> Sequence:
    """A sequence, admitted."""
    sequence = Sequence(a_lease(prompt, stop, **more), list(prompt.encode()))
    scheduler.admit(sequence)
    return sequence


def run(scheduler: Scheduler, engine: FakeEngine, ms: float = 1.0, token_ms: float = 0.0) -> Step:
    """One step; what was planned."""
    step = scheduler.plan()
    assert step is not None
    ms += token_ms * sum(len(row.tokens) for row in step.rows)
    scheduler.apply(step, engine.step(step), ms, engine.piece, engine.ends)
    return step


def test_decode_rows_come_first_and_a_long_prompt_comes_in_parts() -> None:
    engine = FakeEngine(slots=2, context=1_000)
    scheduler = Scheduler(engine.facts)
    short = admitted(scheduler, "ab", tokens=200)
    run(scheduler, engine)
    long = admitted(scheduler, "x" * 500)
    parts = []
    step = Step(())
    while not long.decoding:
        step = run(scheduler, engine, token_ms=STEP_TARGET_MS / 20)
        assert step.rows[0].slot == short.slot
        parts.append(len(step.rows[1].tokens))
    assert sum(parts) == 500, parts
    assert max(parts) <= 4 * FIRST_BUDGET
    assert max(parts[-5:]) < FIRST_BUDGET  # it was slow, so it got less
    assert [row.sample for row in step.rows] == [True, True]


def test_the_budget_follows_the_measured_time_and_those_who_wait() -> None:
    fast = PrefillPace(slots=4, batch_tokens=2_048)
    assert fast.budget(0) == FIRST_BUDGET
    for _ in range(10):
        fast.measured(0, fast.budget(0), 5.0)
    assert fast.budget(0) > 1_000
    slow = PrefillPace(slots=4, batch_tokens=2_048)
    slow.measured(0, 32, 640.0)
    assert slow.budget(0) == 16  # that was far too long, so half of it
    for _ in range(20):
        slow.measured(4, 0, 50.0)
    budgets = [slow.budget(decoding) for decoding in range(4)]
    assert budgets == sorted(budgets, reverse=True)
    assert budgets[3] >= LEAST_BUDGET
    for _ in range(10):
        slow.measured(0, 64, 64_000.0)
    assert slow.budget(3) == LEAST_BUDGET  # little, but never nothing


def test_the_time_of_a_step_is_learnt_in_its_parts() -> None:
    shuffled = random.Random(3)
    time = StepTime()
    for _ in range(400):
        decoding, prefilled = shuffled.randrange(17), shuffled.choice([0, 0, 20, 60, 120])
        if decoding + prefilled:
            time.measured(decoding, prefilled, 12 + 2 * decoding + prefilled)
    assert time.token_ms == pytest.approx(1, rel=0.1)
    assert [time.without_prompts(rows) for rows in (0, 16)] == pytest.approx([12, 44], rel=0.2)


@pytest.mark.parametrize(("apart", "beside"), [(False, 2), (True, -1)])
def test_prompts_beside_readers_come_in_whole_blocks_of_rows(apart: bool, beside: int) -> None:
    for token_ms in (0.7, 1.0, 1.9, 3.0, 9.0, 40.0):
        pace = PrefillPace(slots=4, batch_tokens=2_048, apart=apart)
        for _ in range(50):
            pace.measured(2, 0, 20.0)
            pace.measured(2, 150, 20.0 + 150 * token_ms)
        spare = (STEP_TARGET_MS * (1 - READERS_SHARE * 2 / 4) - 20) / token_ms
        budget = pace.budget(2)
        if spare + beside > BLOCK * 0.6:
            assert (budget + beside) % BLOCK == 0
            assert abs(budget - spare) <= BLOCK * 0.6
        else:
            assert budget <= max(spare * 1.1, LEAST_BUDGET)
        # Nobody waits for tokens: as many as there is time for.
        assert pace.budget(0) >= budget


def test_one_slow_step_does_not_make_a_machine_slow() -> None:
    pace = PrefillPace(slots=4, batch_tokens=2_048)
    for _ in range(50):
        pace.measured(2, 0, 20.0)
        pace.measured(2, 100, 120.0)
    before = pace.budget(2)
    pace.measured(2, 100, 5_000.0)
    assert LEAST_BUDGET < pace.budget(2) <= 50
    for _ in range(3):
        tokens = pace.budget(2)
        pace.measured(2, tokens, 20.0 + tokens)
    assert pace.budget(2) > 0.75 * before
    for _ in range(30):
        pace.measured(2, 100, 1_200.0)
    assert pace.budget(2) < before / 5


def test_a_fixed_budget_is_a_block_unless_that_takes_very_long() -> None:
    pace = PrefillPace(slots=4, batch_tokens=2_048)
    assert pace.budget(0, fixed=True) == BLOCK
    for token_ms in (0.1, 10.0, 100.0):
        for _ in range(20):
            pace.measured(0, 64, 64 * token_ms)
        assert pace.budget(0, fixed=True) == BLOCK
    for _ in range(20):
        pace.measured(0, 64, 64 * 400.0)
    assert pace.budget(0, fixed=True) == pace.budget(0) < BLOCK


def test_a_budget_never_overfills_the_batch() -> None:
    pace = PrefillPace(slots=300, batch_tokens=256)
    assert pace.budget(250) == 6
    pace.refused()
    assert PrefillPace(slots=4, batch_tokens=2_048).budget(0) // 2 == _refused_once()


def _refused_once() -> int:
    pace = PrefillPace(slots=4, batch_tokens=2_048)
    pace.refused()
    return pace.budget(0)


def test_a_job_that_does_not_fit_yet_waits_and_is_not_overtaken() -> None:
    engine = FakeEngine(slots=3, context=100, kv_tokens=120)
    scheduler = Scheduler(engine.facts)
    first = admitted(scheduler, "a" * 60, tokens=20)
    big = admitted(scheduler, "b" * 60, tokens=20)
    small = admitted(scheduler, "c", tokens=1)
    assert scheduler.free_slots == 0
    assert scheduler.kv_free == 0
    while not first.ended:
        run(scheduler, engine)
        assert small.slot is None
    run(scheduler, engine)
    assert big.slot is not None
    assert small.slot is not None


def test_speed_counts_all_sequences_over_busy_time() -> None:
    speed = Speed()
    assert speed.tokens_per_second == 0
    for _ in range(100):
        speed.measured(4, 100.0)
    assert speed.tokens_per_second == pytest.approx(40)
    for _ in range(300):
        speed.measured(8, 100.0)
    assert 70 < speed.tokens_per_second < 80


def test_refusals_without_end_give_up_the_youngest_only() -> None:
    engine = FakeEngine(slots=2, context=100)
    scheduler = Scheduler(engine.facts)
    old = admitted(scheduler, "old", tokens=50)
    run(scheduler, engine)
    young = admitted(scheduler, "young", tokens=50)
    given_up: list[Sequence] = []
    for _ in range(REFUSALS_MAX):
        step = scheduler.plan()
        assert step is not None
        given_up += scheduler.refused(step)
    assert given_up == [young]
    assert young.failure is not None
    assert young.failure.code == "engine_error"
    assert not old.ended


def test_a_certain_token_has_a_log_probability_of_0_and_not_of_less_than_0() -> None:
    told = chances_of(Drawn(1, -0.00001, ((1, -0.0), (2, -11.5))), lambda token: b"x")
    assert told is not None
    assert str(told["logprob"]) == str(told["top"][0]["logprob"]) == "0.0"
    assert told["top"][1]["logprob"] == -11.5
