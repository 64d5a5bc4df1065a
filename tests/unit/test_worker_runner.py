"""The worker's loop against a broker in memory and a scripted engine: leases, chunks, settlements, cancels."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from herder.pricing import capture
from herder.protocol import FinishReason, Outcome
from tests.unit.worker_bench import TERMS, a_lease
from tests.unit.worker_loop import OPTIONS, Gate, at_work
from worker.pulse import wait


async def test_jobs_are_answered_reported_and_settled() -> None:
    async with at_work() as bench:
        jobs = [a_lease(f"prompt {i}") for i in range(5)]
        bench.broker.queue.extend(jobs)
        bench.bell.ring("queue")
        await bench.settled(*(job.job_id for job in jobs))
    for job in jobs:
        end = bench.broker.settled[job.job_id]
        assert (end.outcome, end.finish_reason) == (Outcome.SUCCEEDED, FinishReason.LENGTH)
        assert (end.prompt_tokens, end.completion_tokens) == (8, 20)
        assert end.captured == capture(TERMS, 20)
        assert len(end.text) == 20
        assert bench.broker.text(job.job_id) == end.text
    assert bench.broker.left
    assert bench.runner.stats.jobs_done == 5


async def test_the_first_token_is_reported_at_once() -> None:
    engine = Gate(slots=1, context=200)
    engine.stop_after = 1
    async with at_work(engine) as bench:
        job = a_lease()
        bench.broker.queue.append(job)
        bench.bell.ring("queue")
        await engine.waiting.wait()
        # The second step has not ended, and the first token is out.
        await bench.broker.until(lambda: bench.broker.log[job.job_id])
        assert [(c.first_index, c.token_count) for c in bench.broker.log[job.job_id]] == [(0, 1)]


@pytest.mark.parametrize(("gather_s", "chunks"), [(1e-9, 20), (30.0, 2)])
async def test_text_waits_for_more_only_where_a_step_is_quicker(
    monkeypatch: pytest.MonkeyPatch, gather_s: float, chunks: int
) -> None:
    """One that waits for longer than any step gets the rest with the end; one that would wait in vain waits never."""
    waited = []

    async def noted(event: asyncio.Event, seconds: float) -> None:
        waited.append(seconds)
        await wait(event, seconds)

    monkeypatch.setattr("worker.outbox.GATHER_S", gather_s)
    monkeypatch.setattr("worker.outbox.GATHER_MOST_S", gather_s)
    monkeypatch.setattr("worker.runner.wait", noted)
    async with at_work() as bench:
        job = a_lease(tokens=20)
        bench.broker.queue.append(job)
        bench.bell.ring("queue")
        await bench.settled(job.job_id)
        assert len(bench.broker.log[job.job_id]) <= chunks
    assert (gather_s in waited) == (chunks == 2)


async def test_an_answer_that_ends_is_not_cut_and_its_end_token_not_counted() -> None:
    async with at_work() as bench:
        job = a_lease("[[say:Grüße 😀!]]", tokens=50)
        bench.broker.queue.append(job)
        bench.bell.ring("queue")
        await bench.settled(job.job_id)
    end = bench.broker.settled[job.job_id]
    assert (end.text, end.finish_reason) == ("Grüße 😀!", FinishReason.STOP)
    assert end.completion_tokens == len("Grüße 😀!".encode())
    assert end.captured == capture(TERMS, end.completion_tokens)
    assert sum(c.token_count for c in bench.broker.log[job.job_id]) == end.completion_tokens


async def test_a_stop_string_is_cut_and_never_reported() -> None:
    async with at_work() as bench:
        job = a_lease("[[say:one END two]]", tokens=50, stop=("END",))
        bench.broker.queue.append(job)
        bench.bell.ring("queue")
        await bench.settled(job.job_id)
    end = bench.broker.settled[job.job_id]
    assert (end.text, end.finish_reason) == ("one ", FinishReason.STOP)
    assert end.completion_tokens == len("one END")
    assert bench.broker.text(job.job_id) == "one "


async def test_what_does_not_fit_the_context_fails_with_a_full_refund() -> None:
    async with at_work() as bench:
        jobs = [a_lease("x" * 181), a_lease(""), a_lease("x" * 180)]
        bench.broker.queue.extend(jobs)
        bench.bell.ring("queue")
        await bench.settled(*(job.job_id for job in jobs))
    long, empty, fits = (bench.broker.settled[job.job_id] for job in jobs)
    assert fits.outcome is Outcome.SUCCEEDED
    for end in (long, empty):
        assert (end.outcome, end.error_code, end.captured) == (Outcome.FAILED, "context_exceeded", 0)


@pytest.mark.parametrize("way", ["bell", "renew", "chunk"])
async def test_a_cancelled_job_stops_between_two_steps(way: str) -> None:
    engine = Gate(slots=1, context=5_000)
    engine.stop_after = 3
    options = replace(OPTIONS, lease_ms=40) if way == "renew" else OPTIONS
    # A renewal must come although steps stand still: the gate is not a wedge, so half a lease must not have passed.
    async with at_work(engine, options) as bench:
        job = a_lease(tokens=4_000)
        bench.broker.queue.append(job)
        bench.bell.ring("queue")
        await engine.waiting.wait()
        if way == "bell":
            bench.broker.flagged.add(job.job_id)
            bench.bell.ring("worker", job.job_id.encode())
        else:
            bench.broker.flagged.add(job.job_id)
        engine.allowed.set()
        await bench.settled(job.job_id)
    end = bench.broker.settled[job.job_id]
    assert (end.outcome, end.finish_reason) == (Outcome.CANCELLED, FinishReason.CANCELLED)
    assert 3 <= end.completion_tokens < 4_000
    assert end.captured == capture(TERMS, end.completion_tokens)
    assert bench.broker.text(job.job_id) == end.text


async def test_a_second_turn_of_a_conversation_reuses_its_prefix() -> None:
    async with at_work() as bench:
        first = a_lease("[[say:hi]] and on", tokens=10)
        bench.broker.queue.append(first)
        bench.bell.ring("queue")
        await bench.settled(first.job_id)
        second = a_lease("[[say:hi]] and on" + "hi" + " more", tokens=10)
        stranger = replace(a_lease(second.brief.prompt, tokens=10), account="bob")
        bench.broker.queue.extend([stranger, second])
        bench.bell.ring("queue")
        await bench.settled(second.job_id, stranger.job_id)
    assert bench.broker.settled[second.job_id].cached_tokens == len(first.brief.prompt) + 2
    assert bench.broker.settled[stranger.job_id].cached_tokens == 0


async def test_a_job_left_to_another_worker_is_asked_for_again_in_time() -> None:
    """No bell rings for it, and the poll would be two seconds away."""
    async with at_work() as bench:
        bench.broker.again_ms = 1
        bench.bell.ring("queue")
        asked = bench.broker.takes
        await bench.broker.until(lambda: bench.broker.takes > asked + 5)
        job = a_lease()
        bench.broker.queue.append(job)
        await bench.settled(job.job_id)
