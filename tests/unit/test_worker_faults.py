"""The worker's loop when things go wrong or are to end: lost replies, no Redis, failed and wedged engines, stops."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from herder.protocol import Outcome
from tests.unit.worker_bench import a_lease
from tests.unit.worker_loop import OPTIONS, Bench, Gate, at_work
from worker import leases as leases_module
from worker.engine import Drawn, KvFull, Step
from worker.fake import FakeEngine
from worker.leases import RedisGone
from worker.runner import Runner


async def test_an_attempt_that_is_lost_is_dropped_in_silence() -> None:
    engine = Gate(slots=1, context=5_000)
    engine.stop_after = 3
    async with at_work(engine) as bench:
        lost, after = a_lease(tokens=4_000), a_lease()
        bench.broker.queue.append(lost)
        bench.bell.ring("queue")
        await engine.waiting.wait()
        bench.broker.running[lost.job_id] = 2
        bench.broker.queue.append(after)
        engine.allowed.set()
        await bench.settled(after.job_id)
    assert lost.job_id not in bench.broker.settled
    assert bench.broker.running == {lost.job_id: 2}


async def test_a_failed_decode_fails_its_jobs_and_nothing_else() -> None:
    async with at_work() as bench:
        bad, good = a_lease("[[fail]]"), a_lease("fine")
        bench.broker.queue.append(bad)
        bench.bell.ring("queue")
        await bench.settled(bad.job_id)
        bench.broker.queue.append(good)
        bench.bell.ring("queue")
        await bench.settled(good.job_id)
    end = bench.broker.settled[bad.job_id]
    assert (end.outcome, end.error_code, end.captured) == (Outcome.FAILED, "engine_error", 0)
    assert bench.broker.settled[good.job_id].outcome is Outcome.SUCCEEDED


async def test_a_full_cache_is_tried_again_with_less() -> None:
    class Full(FakeEngine):
        refusals = 5

        def step(self, step: Step) -> dict[int, Drawn]:
            if self.refusals:
                self.refusals -= 1
                raise KvFull("no room")
            return super().step(step)

    async with at_work(Full(slots=2, context=200)) as bench:
        job = a_lease()
        bench.broker.queue.append(job)
        bench.bell.ring("queue")
        await bench.settled(job.job_id)
    assert bench.broker.settled[job.job_id].outcome is Outcome.SUCCEEDED


async def test_lost_replies_and_a_redis_that_goes_away_lose_and_double_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(leases_module, "PAUSE_S_MAX", 0.01)
    engine = Gate(slots=1, context=5_000)
    engine.stop_after = 2
    async with at_work(engine) as bench:
        job = a_lease(tokens=300)
        bench.broker.queue.append(job)
        bench.bell.ring("queue")
        await engine.waiting.wait()
        bench.broker.down = True
        engine.allowed.set()
        # The engine goes on while Redis is away.
        calls = bench.broker.calls
        await bench.broker.until(lambda: bench.broker.calls > calls + 3 and engine.stepped >= 300)
        bench.broker.down, bench.broker.lose_replies = False, 3
        await bench.settled(job.job_id)
    assert bench.broker.text(job.job_id) == bench.broker.settled[job.job_id].text
    assert bench.broker.settled[job.job_id].completion_tokens == 300


async def test_a_worker_that_never_reaches_redis_again_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases_module, "GIVE_UP_S", 0.0)
    bench = Bench(FakeEngine(slots=1), OPTIONS)
    task = asyncio.create_task(bench.runner.run())
    await bench.broker.until(lambda: bench.broker.registered)
    bench.broker.down = True
    # The first miss starts the count, a later one ends it.
    while not task.done():
        bench.bell.ring("worker", b"")
        await asyncio.sleep(0)
    with pytest.raises(ExceptionGroup) as caught:
        await task
    assert caught.value.subgroup(RedisGone)


async def test_a_wedged_engine_is_not_renewed() -> None:
    engine = Gate(slots=1, context=200)
    engine.stop_after = 1
    now = [0.0]
    bench = Bench(engine, replace(OPTIONS, lease_ms=1_000))
    bench.runner = Runner(engine, bench.leases, bench.bell, replace(OPTIONS, lease_ms=1_000), lambda: now[0])
    task = asyncio.create_task(bench.runner.run())
    job = a_lease()
    bench.broker.queue.append(job)
    bench.bell.ring("queue")
    await engine.waiting.wait()
    held = [(job.job_id, 1)]
    bench.bell.ring("worker", b"")  # asks for a renewal now
    await bench.broker.until(
        lambda: held in bench.broker.renewals
    )  # the positive control: a step under way is fine
    now[0] = 0.6
    before = len(bench.broker.renewals)
    bench.bell.ring("worker", b"")
    bench.bell.ring("queue")
    for _ in range(50):
        await asyncio.sleep(0)
    assert len(bench.broker.renewals) == before
    assert bench.runner.mid_step
    engine.allowed.set()
    await bench.settled(job.job_id)
    bench.bell.ring("worker", b"")
    await bench.broker.until(lambda: len(bench.broker.renewals) > before)
    bench.runner.stop()
    await task


async def test_the_first_stop_finishes_what_runs_and_leases_nothing_new() -> None:
    engine = Gate(slots=1, context=200)
    engine.stop_after = 2
    async with at_work(engine) as bench:
        job, late = a_lease(), a_lease()
        bench.broker.queue.extend([job, late])
        bench.bell.ring("queue")
        await engine.waiting.wait()
        bench.runner.stop()
        engine.allowed.set()
        assert bench.task is not None
        await asyncio.wait_for(asyncio.shield(bench.task), 20)
    assert set(bench.broker.settled) == {job.job_id}
    assert list(bench.broker.queue) == [late]
    assert bench.broker.released == []


@pytest.mark.parametrize("drain_ms", [0, 10_000])
async def test_a_second_stop_or_the_end_of_the_drain_hands_the_jobs_back(drain_ms: int) -> None:
    engine = Gate(slots=1, context=200)
    engine.stop_after = 2
    async with at_work(engine, replace(OPTIONS, drain_ms=drain_ms)) as bench:
        job = a_lease()
        bench.broker.queue.append(job)
        bench.bell.ring("queue")
        await engine.waiting.wait()
        bench.runner.stop()
        if drain_ms:
            bench.runner.stop()
        assert bench.task is not None
        await asyncio.wait_for(asyncio.shield(bench.task), 20)
        assert bench.broker.released == [(job.job_id, 1)]
        assert bench.broker.left
