"""Logits that mean nothing: whose row it is fails, alone; where nobody's are left, the cache is given up."""

from __future__ import annotations

from dataclasses import replace

import pytest

from herder.brief import Brief
from herder.protocol import Outcome
from tests.unit.worker_bench import a_lease
from tests.unit.worker_loop import OPTIONS, Bench, at_work
from worker.engine import Drawn, Step
from worker.fake import FakeEngine
from worker.scheduler import CacheSpoilt, Scheduler
from worker.sequence import Sequence


class Overflowing(FakeEngine):
    """A slot whose prompt has a `#` gets no usable logits; `spoilt`, or one with `##`, and none does."""

    spoilt = False

    def step(self, step: Step) -> dict[int, Drawn]:
        drawn = super().step(step)
        texts = {row.slot: bytes(self.cells.tokens[row.slot]) for row in step.rows}
        self.spoilt = self.spoilt or any(b"##" in text for text in texts.values())
        bad = [slot for slot in drawn if self.spoilt or b"#" in texts[slot]]
        return drawn | dict.fromkeys(bad, Drawn(0, useless=True))


def admitted(scheduler: Scheduler, prompt: str) -> Sequence:
    sequence = Sequence(a_lease(prompt), list(prompt.encode()))
    scheduler.admit(sequence)
    return sequence


def until_ended(scheduler: Scheduler, engine: FakeEngine, sequence: Sequence) -> None:
    while not sequence.ended:
        run(scheduler, engine)


def run(scheduler: Scheduler, engine: FakeEngine) -> None:
    step = scheduler.plan()
    assert step is not None
    scheduler.apply(step, engine.step(step), 1.0, engine.piece, engine.ends)


async def test_only_the_job_whose_row_is_bad_fails() -> None:
    async with at_work(Overflowing(slots=3, context=200)) as bench:
        bad, *good = a_lease("one # of three"), a_lease("fine"), a_lease("fine too")
        bench.broker.queue.extend([good[0], bad, good[1]])
        bench.bell.ring("queue")
        for lease in (bad, *good):
            await bench.settled(lease.job_id)
    end = bench.broker.settled[bad.job_id]
    assert (end.outcome, end.error_code, end.captured) == (Outcome.FAILED, "engine_error", 0)
    assert "no usable logits" in (end.error_message or "")
    assert {bench.broker.settled[lease.job_id].outcome for lease in good} == {Outcome.SUCCEEDED}


async def test_of_several_answers_one_bad_row_fails_the_job_and_no_other() -> None:
    async with at_work(Overflowing(slots=4, context=200)) as bench:
        bad = replace(a_lease(), brief=Brief("# twice", n=2))
        good = a_lease("fine")
        bench.broker.queue.extend([bad, good])
        bench.bell.ring("queue")
        await bench.settled(bad.job_id)
        await bench.settled(good.job_id)
    assert bench.broker.settled[bad.job_id].error_code == "engine_error"
    assert bench.broker.settled[good.job_id].outcome is Outcome.SUCCEEDED


def test_what_a_bad_row_has_left_is_nobodys_beginning() -> None:
    engine = Overflowing(slots=2, context=200)
    scheduler = Scheduler(engine.facts)
    good = admitted(scheduler, "a neighbour that goes on")
    bad = admitted(scheduler, "# a long beginning that many share: ")
    until_ended(scheduler, engine, bad)
    assert not bad.sound
    assert not good.ended
    after = admitted(scheduler, "# a long beginning that many share: what?")
    until_ended(scheduler, engine, after)
    assert after.cached == 0


def test_once_nobody_is_left_all_that_was_kept_goes() -> None:
    """The engine washes a cache that is empty: what NaN has touched is not for the next."""
    engine = Overflowing(slots=2, context=200)
    scheduler = Scheduler(engine.facts)
    early = admitted(scheduler, "a beginning that was sound and may not be any more")
    until_ended(scheduler, engine, early)
    assert scheduler.prefixes.kept_cells > 0
    bad = admitted(scheduler, "#")
    until_ended(scheduler, engine, bad)
    assert not bad.sound
    assert scheduler.prefixes.kept_cells == 0
    again = admitted(scheduler, "a beginning that was sound and may not be any more")
    run(scheduler, engine)
    assert (again.cached, engine.cells.used) == (0, again.done)


def test_a_bad_job_after_another_is_not_a_spoilt_cache() -> None:
    engine = Overflowing(slots=2, context=200)
    scheduler = Scheduler(engine.facts)
    for _ in range(3):
        bad = admitted(scheduler, "#")
        run(scheduler, engine)
        assert bad.failure is not None


def test_where_no_row_is_sound_the_worker_cannot_go_on() -> None:
    engine = Overflowing(slots=2, context=200)
    scheduler = Scheduler(engine.facts)
    admitted(scheduler, "fine")
    admitted(scheduler, "##")
    with pytest.raises(CacheSpoilt):
        run(scheduler, engine)


def test_a_second_bad_row_and_none_that_is_sound_is_a_spoilt_cache() -> None:
    engine = Overflowing(slots=2, context=1_000)
    scheduler = Scheduler(engine.facts)
    bad = admitted(scheduler, "#")
    long = admitted(scheduler, "a long prompt, still to be read " * 20)
    until_ended(scheduler, engine, bad)
    engine.spoilt = True
    with pytest.raises(CacheSpoilt):
        until_ended(scheduler, engine, long)


async def test_a_worker_with_a_spoilt_cache_ends_and_settles_nobody() -> None:
    """Its leases lapse, in company: the neighbours run elsewhere, and whose fault it is shows when it runs alone."""
    bench = Bench(Overflowing(slots=2, context=200), OPTIONS)
    bench.broker.queue.extend([a_lease("fine"), a_lease("##")])
    with pytest.raises(BaseExceptionGroup) as caught:
        await bench.runner.run()
    assert caught.value.subgroup(CacheSpoilt)
    assert not bench.broker.settled
    assert not bench.broker.released
