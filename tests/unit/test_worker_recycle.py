"""When a worker makes room for a fresh process, and that it leaves in good order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from herder.protocol import Outcome
from herder.turns import Turns
from tests.unit.worker_bench import a_lease
from tests.unit.worker_loop import OPTIONS, Gate, at_work
from worker.drain import Drain
from worker.recycle import SPREAD, WARM_JOBS, Recycling, own_memory_mb
from worker.turn import Turn


@pytest.mark.parametrize(("draw", "last"), [(0.0, 1_000), (0.999, 1_000 + 1_000 // SPREAD - 1)])
def test_after_so_many_jobs_or_a_little_more(draw: float, last: int) -> None:
    recycling = Recycling(1_000, draw=lambda: draw)
    assert not recycling.due(last - 1)
    assert recycling.due(last)


def test_growth_counts_from_when_it_is_warm() -> None:
    memory_mb = 100.0
    recycling = Recycling(growth_mb=50, memory_mb=lambda: memory_mb)
    assert not recycling.due(1)
    memory_mb = 1_000.0  # buffers, on first use
    assert not recycling.due(WARM_JOBS)
    memory_mb = 1_049.0
    assert not recycling.due(WARM_JOBS + 1)
    memory_mb = 1_050.0
    assert recycling.due(WARM_JOBS + 2)


def test_no_limit_and_no_answer_are_never() -> None:
    assert not Recycling().due(10**9)
    unknown = Recycling(growth_mb=1, memory_mb=lambda: None)
    assert not unknown.due(WARM_JOBS)
    assert not unknown.due(10**9)


def test_what_a_process_holds_itself_is_counted() -> None:
    before = own_memory_mb()
    held = bytearray(64 * 2**20)
    after = own_memory_mb()
    assert (before is None) == (after is None)
    if before is not None and after is not None:
        assert 60 < after - before < 100
    assert len(held) == 64 * 2**20


async def test_a_worker_whose_jobs_are_done_finishes_what_runs_and_leaves() -> None:
    """Its drain has no end: whoever waits for nothing need not throw away what is half done."""
    engine = Gate(slots=2, context=5_000)
    async with at_work(engine, replace(OPTIONS, recycle_jobs=1, drain_ms=0)) as bench:
        short, long, after = a_lease("[[say:hi]]"), a_lease(tokens=4_000), a_lease()
        bench.broker.queue += [long, short]
        bench.bell.ring("queue")
        await bench.settled(short.job_id)
        await bench.broker.until(lambda: bench.runner.retired)
        bench.broker.queue.append(after)
        bench.bell.ring("queue")
        await bench.settled(long.job_id)
        assert bench.task is not None
        await bench.task
    assert bench.broker.settled[long.job_id].outcome is Outcome.SUCCEEDED
    assert bench.broker.left
    assert list(bench.broker.queue) == [after]
    assert bench.broker.released == []


async def test_one_that_retires_is_hurried_like_any_other() -> None:
    drain = Drain(drain_ms=0)
    drain.retire()
    assert drain.told
    drain.tell()
    await drain.until_over()  # its time is over at once
    twice = Drain(drain_ms=600_000)
    twice.retire()
    twice.tell()
    twice.tell()
    await twice.until_over()


# --- one at a time -------------------------------------------------------------------------------------------


@pytest.fixture
def turns() -> Iterator[Turns]:
    """Closed at the end."""
    turns = Turns()
    yield turns
    turns.close()


def test_one_worker_at_a_time_has_the_turn(turns: Turns) -> None:
    first, second, third = (Turn(turns.another()) for _ in range(3))
    assert first.take()
    assert first.take(), "asked twice"
    assert not second.take()
    second.over()
    third.over()
    assert not third.take(), "only who has it lets go of it"
    first.over()
    assert second.take()
    assert not first.take()


def test_without_a_supervisor_it_is_always_ones_turn() -> None:
    alone = Turn()
    assert alone.take()
    alone.over()
    assert alone.take()
    assert Turn(lock=999_999).take(), "a lock that is none holds nobody back"


def test_a_worker_that_is_due_waits_for_its_turn(turns: Turns) -> None:
    other, own = Turn(turns.another()), Turn(turns.another())
    recycling = Recycling(10, draw=lambda: 0.0, turn=own)
    assert other.take()
    assert not recycling.due(9)
    assert not recycling.due(10)
    other.over()
    assert recycling.due(11)
    assert not other.take()


async def test_a_fresh_worker_ends_the_turn_of_the_one_before(turns: Turns) -> None:
    """And one that is due goes on with its jobs for as long as another is being replaced."""
    own, other = Turn(turns.another()), Turn(turns.another())
    assert own.take()
    engine = Gate(slots=1, context=5_000)
    async with at_work(engine, replace(OPTIONS, recycle_jobs=1, turn=own)) as bench:
        first, second, third = a_lease("[[say:hi]]"), a_lease("[[say:hi]]"), a_lease("[[say:hi]]")
        await bench.broker.until(lambda: bench.broker.registered > 0)
        await bench.broker.until(other.take)
        bench.broker.queue += [first, second]
        bench.bell.ring("queue")
        await bench.settled(first.job_id, second.job_id)
        engine.stop_after = engine.stepped
        bench.broker.queue.append(third)
        bench.bell.ring("queue")
        await engine.waiting.wait()
        assert [bench.runner.retired] == [False]
        other.over()
        engine.allowed.set()
        assert bench.task is not None
        await bench.task
        assert bench.runner.retired
        assert third.job_id in bench.broker.settled
        assert not other.take()
