"""A job that keeps killing its worker is found, failed and refunded; its neighbours are answered and pay once.

Real processes under the real supervisor; the scripted engine dies, hangs, or keeps the GIL, because a prompt says so.
"""

from __future__ import annotations

import asyncio
import re

import pytest

from herder.lifecycle import Status
from llama_herder import Job
from tests.e2e.books import closed_books
from tests.e2e.parts import in_parts
from tests.e2e.scripted import ScriptedHerd, scripted_herd
from worker.watchdog import EXIT_WEDGED

NEIGHBOURS = 6
LIMIT_S = 100.0
TOKENS = 200
FEE = 10 + TOKENS

ENDS = {
    "[[crash]]": "ended with SIGSEGV",
    "[[hang]]": "ended with exit code 5",
    "[[seize]]": "ended with exit code 1",
}

LEAVES_OR_SERVES = re.compile(r"has left for a fresh process|\bserving\b")


def restarts(herd: ScriptedHerd) -> dict[str, int]:
    """How often each part has been started again."""
    return {child.name: child.restarts for child in herd.children}


@pytest.mark.parametrize("poison", list(ENDS))
async def test_a_job_that_keeps_killing_its_worker(poison: str) -> None:
    async with scripted_herd(step_ms=2, workers=2) as herd, herd.client() as client:
        neighbours = [await client.submit(f"question {i}", tokens=TOKENS) for i in range(NEIGHBOURS)]
        bad = await client.submit(f"answer {poison}", tokens=TOKENS)
        neighbours += [await client.submit(f"late question {i}", tokens=TOKENS) for i in range(NEIGHBOURS)]
        async with asyncio.timeout(LIMIT_S):
            ended = [await client.wait(job, LIMIT_S) for job in (bad, *neighbours)]
        account = await client.account()
        records = await herd.records([job.id for job in ended])
        assert (await client.info()).models
        started_again = restarts(herd)
    culprit, *others = (records[job.id] for job in ended)
    assert (culprit.status, culprit.error_code, culprit.captured) == (Status.FAILED, "quarantined", 0)
    assert [record.status for record in others] == [Status.SUCCEEDED] * len(others)
    assert [record.captured for record in others] == [FEE] * len(others)
    assert (account.available, account.held) == (100_000 - FEE * len(others), 0)
    assert any(record.attempt > 1 for record in others), "nobody was in company of it"
    assert herd.said(ENDS[poison])
    # One that hangs may have lapsed before its worker ends.
    assert poison != "[[crash]]" or herd.said("jobs taken back: 1, of them quarantined: 1")
    assert (started_again["api"], started_again["courier"]) == (0, 0)
    # Twice in company and twice alone; a lease that lapses before the watchdog bites may bring it to another worker.
    assert 2 <= started_again["worker-1"] + started_again["worker-2"] <= 6


async def test_a_job_that_finds_no_fault_after_a_crash_of_its_neighbour_goes_on_from_the_start() -> None:
    async with scripted_herd(step_ms=2, workers=1) as herd, herd.client() as client:
        slow = await client.submit("a long answer", tokens=TOKENS)
        bad = await client.submit("[[crash]]", tokens=8)
        async with asyncio.timeout(LIMIT_S):
            answer, failed = await client.wait(slow, LIMIT_S), await client.wait(bad, LIMIT_S)
        alone = await client.run("a long answer", tokens=TOKENS, timeout=LIMIT_S)
        await herd.records([answer.id, failed.id, alone.id])
    assert (answer.status, failed.status) == ("succeeded", "failed")
    assert (answer.captured, failed.captured) == (FEE, 0)
    assert answer.text == alone.text


async def test_workers_make_room_for_fresh_ones_one_at_a_time_and_nobody_notices() -> None:
    async with scripted_herd(
        workers=2, recycle_jobs=4, lease_ms=2_000, watchdog_ms=30_000, log_level="info"
    ) as herd:
        jobs: list[Job] = []
        ended: list[Job] = []
        async with herd.client() as client, asyncio.timeout(LIMIT_S):
            while sum(restarts(herd).values()) < 5:
                some = [await client.submit(f"question {i}", tokens=20) for i in range(8)]
                jobs += some
                ended += [await client.wait(job, LIMIT_S) for job in some]
        records = await herd.records([job.id for job in jobs])
        fresh = restarts(herd)
    assert [job.status for job in ended] == ["succeeded"] * len(jobs)
    assert {record.attempt for record in records.values()} == {1}
    moves = [(name, "serving" in line) for name, line in herd.lines if LEAVES_OR_SERVES.search(line)]
    left = [i for i, (_, serving) in enumerate(moves) if not serving]
    assert all(moves[i + 1] == (moves[i][0], True) for i in left[:-1]), (
        "the next leaves once the heir is at work"
    )
    assert len(herd.said("has left for a fresh process")) == fresh["worker-1"] + fresh["worker-2"]
    assert herd.said("is started again") == herd.said("ended with") == []


def test_without_a_supervisor_of_ours_a_fresh_process_is_asked_for_with_0() -> None:
    """By 0, which every restart policy knows; a wedged worker ends there too, and another answers its neighbour."""
    with in_parts(
        model="scripted", recycle_jobs=2, lease_ms=500, watchdog_ms=1_000, log_level="info"
    ) as parts:
        _, parts.url = parts.herder()
        parts.courier()
        first = parts.worker("--engine", "fake")
        with parts.client() as client:
            assert [client.run(f"question {i}", tokens=8, timeout=LIMIT_S).attempt for i in range(2)] == [
                1,
                1,
            ]
            assert first.process.wait(LIMIT_S) == 0
            assert "making room for a fresh process" in first.told()
            wedged = parts.worker("--engine", "fake", "--slots", "2", "--fake-step-ms", "5")
            jobs = [client.submit("a neighbour", tokens=400), client.submit("[[hang]]", tokens=8)]
            assert wedged.process.wait(LIMIT_S) == EXIT_WEDGED
            assert "most recent call first" in wedged.told()
            client.cancel(jobs[1])
            parts.worker("--engine", "fake")
            assert client.wait(jobs[0], LIMIT_S).status == "succeeded"
            assert client.wait(jobs[1], LIMIT_S).status in {"cancelled", "failed"}
        closed_books(parts, [job.id for job in jobs])
