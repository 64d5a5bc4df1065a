"""The worker's loop when jobs are to stop or it is: cancels that come too early, what the heartbeat tells, the end."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from typing import Any

import pytest

from herder.pricing import capture
from herder.protocol import FinishReason, Outcome
from tests.unit.worker_bench import TERMS, a_lease
from tests.unit.worker_loop import OPTIONS, Bench, Gate, at_work
from worker.fake import FakeEngine

CALM = replace(OPTIONS, lease_ms=600_000)  # no heartbeat but those that something asks for


class SlowReader(FakeEngine):
    """An engine that takes its time to count a prompt's tokens."""

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self.reading, self.read = threading.Event(), threading.Event()

    def tokenize(self, text: str) -> list[int]:
        """Wait until the test lets it."""
        self.reading.set()
        self.read.wait(30)
        return super().tokenize(text)


async def test_a_cancel_that_overtakes_the_lease_stops_the_job_before_its_first_token() -> None:
    async with at_work(FakeEngine(slots=1, context=5_000), CALM) as bench:
        bench.broker.lease_replies.clear()
        job = a_lease(tokens=4_000)
        bench.broker.queue.append(job)
        bench.bell.ring("queue")
        await bench.broker.until(lambda: job.job_id in bench.broker.running)
        bench.broker.flagged.add(job.job_id)
        bench.bell.ring("worker", job.job_id.encode())
        await bench.heard("worker")
        bench.broker.lease_replies.set()
        await bench.settled(job.job_id)
    end = bench.broker.settled[job.job_id]
    assert (end.outcome, end.completion_tokens, end.captured) == (Outcome.CANCELLED, 0, capture(TERMS, 0))


@pytest.mark.parametrize("way", ["bell", "renewal"])
async def test_a_cancel_while_the_prompt_is_counted_stops_the_job(way: str) -> None:
    engine = SlowReader(slots=1, context=5_000)
    async with at_work(engine, CALM) as bench:
        job = a_lease(tokens=4_000)
        bench.broker.queue.append(job)
        bench.bell.ring("queue")
        await asyncio.to_thread(engine.reading.wait, 5)
        bench.broker.flagged.add(job.job_id)
        # An empty message means that rings were missed: then the renewal, which names the job already, tells.
        bench.bell.ring("worker", job.job_id.encode() if way == "bell" else b"")
        await bench.heard("worker")
        if way == "renewal":
            await bench.broker.until(lambda: [(job.job_id, 1)] in bench.broker.renewals)
        engine.read.set()
        await bench.settled(job.job_id)
    end = bench.broker.settled[job.job_id]
    assert (end.finish_reason, end.completion_tokens) == (FinishReason.CANCELLED, 0)


async def test_a_cancel_in_the_middle_of_a_prompt_stops_it_after_the_step() -> None:
    engine = Gate(slots=1, context=2_000)
    engine.stop_after = 1
    async with at_work(engine, CALM) as bench:
        job = a_lease("x" * 1_500, tokens=100)
        bench.broker.queue.append(job)
        bench.bell.ring("queue")
        await engine.waiting.wait()
        bench.broker.flagged.add(job.job_id)
        bench.bell.ring("worker", job.job_id.encode())
        await bench.heard("worker")
        engine.allowed.set()
        await bench.settled(job.job_id)
        assert engine.stepped == 2
    assert bench.broker.settled[job.job_id].completion_tokens == 0


async def test_what_is_taken_and_freed_is_told_without_waiting_for_the_heartbeat() -> None:
    engine = Gate(slots=2, context=5_000)
    engine.stop_after = 2
    async with at_work(engine, CALM) as bench:
        jobs = [a_lease(tokens=4_000), a_lease(tokens=4_000)]
        bench.broker.queue.extend(jobs)
        bench.bell.ring("queue")
        await engine.waiting.wait()
        await bench.broker.until(lambda: (2, 2) in bench.broker.told)
        engine.allowed.set()
        for busy, job in ((1, jobs[0]), (0, jobs[1])):
            bench.broker.flagged.add(job.job_id)
            bench.bell.ring("worker", job.job_id.encode())
            await bench.broker.until(lambda busy=busy: (2, busy) in bench.broker.told)
        assert len(bench.broker.told) <= 6  # as many as there were changes, not one a step


async def test_a_draining_worker_counts_only_the_slots_that_still_work() -> None:
    engine = Gate(slots=3, context=200)
    engine.stop_after = 2
    async with at_work(engine, replace(CALM, lease_ms=1_000)) as bench:
        job = a_lease()
        bench.broker.queue.append(job)
        bench.bell.ring("queue")
        await engine.waiting.wait()
        await bench.broker.until(lambda: (3, 1) in bench.broker.told)
        bench.runner.stop()
        await bench.broker.until(lambda: (1, 1) in bench.broker.told)


@pytest.mark.parametrize("where", ["on its way", "being read"])
async def test_jobs_that_are_just_coming_in_are_handed_back_and_do_not_lapse(where: str) -> None:
    engine = SlowReader(slots=2, context=200)
    bench = Bench(engine, CALM)
    task = asyncio.create_task(bench.runner.run())
    await bench.broker.until(lambda: bench.broker.registered)
    jobs = [a_lease(), a_lease()]
    if where == "on its way":
        bench.broker.lease_replies.clear()
    bench.broker.queue.extend(jobs)
    bench.bell.ring("queue")
    await bench.broker.until(lambda: len(bench.broker.running) == 2)
    bench.runner.stop()
    bench.runner.stop()
    for _ in range(50):  # the worker could leave now
        await asyncio.sleep(0)
    bench.broker.lease_replies.set()
    engine.read.set()
    await asyncio.wait_for(task, 20)
    assert sorted(bench.broker.released) == sorted((job.job_id, 1) for job in jobs)
    assert bench.broker.running == {}
    assert bench.broker.left


async def test_what_has_ended_is_settled_and_not_handed_back() -> None:
    engine = Gate(slots=1, context=200)
    engine.stop_after = 2
    async with at_work(engine, CALM) as bench:
        job = a_lease()
        bench.broker.queue.append(job)
        bench.bell.ring("queue")
        await engine.waiting.wait()
        bench.broker.down = True
        engine.allowed.set()
        calls = bench.broker.calls
        outbox = bench.runner._outbox
        # It has ended, and pauses grow long.
        await bench.broker.until(lambda: outbox.unsettled == 1 and bench.broker.calls > calls + 5)
        bench.broker.down = False
        bench.runner.stop()
        bench.runner.stop()
        assert bench.task is not None
        await asyncio.wait_for(asyncio.shield(bench.task), 20)
    assert set(bench.broker.settled) == {job.job_id}
    assert bench.broker.released == []
