"""A courier makes one claim at a time, with one more waiting however many ask; and leaves nothing behind."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

from herder.courier import Claims, _close


class Desk:
    """Deliveries whose claims take until they may go on."""

    def __init__(self) -> None:
        self.claims = 0
        self.began, self.go_on = asyncio.Event(), asyncio.Event()

    async def claim(self, limit: int) -> list[tuple[str, int]]:
        assert limit > 0
        self.claims += 1
        self.began.set()
        await self.go_on.wait()
        return []


async def start_jobs(jobs: list[bytes]) -> None:
    assert jobs == []


async def test_one_claims_and_one_waits() -> None:
    desk = Desk()
    worker = SimpleNamespace(pool=None, job_counter=0, start_jobs=start_jobs)
    claims = Claims(cast("Any", worker), cast("Any", SimpleNamespace(deliveries=desk)), "lh")
    first = asyncio.create_task(claims.more())
    await desk.began.wait()
    second = asyncio.create_task(claims.more())
    await asyncio.sleep(0)
    assert await claims.more() == 0
    desk.go_on.set()
    await first
    await claims.more()  # the second still waits
    await second
    assert desk.claims == 2


async def test_one_that_is_broken_off_keeps_nobody_waiting() -> None:
    desk = Desk()
    desk.go_on.set()
    worker = SimpleNamespace(pool=None, job_counter=0, start_jobs=start_jobs)
    claims = Claims(cast("Any", worker), cast("Any", SimpleNamespace(deliveries=desk)), "lh")
    waiting = asyncio.create_task(claims.more())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await claims.more()
    assert desk.claims == 1


async def test_what_is_begun_during_the_end_is_ended_too() -> None:
    """A claim that was under way starts its attempts; nobody would wait for them."""
    for_ever = asyncio.Event()
    worker = SimpleNamespace(tasks={}, ctx={}, allow_pick_jobs=True, cron_jobs=[])

    async def claiming() -> None:
        worker.tasks["late"] = asyncio.create_task(for_ever.wait())

    worker.tasks["claiming"] = asyncio.create_task(claiming())
    running = asyncio.create_task(for_ever.wait())
    await _close(cast("Any", worker), cast("Any", running))
    assert running.cancelled()
    assert worker.tasks["late"].cancelled()
