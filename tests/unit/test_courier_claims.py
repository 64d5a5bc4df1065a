"""Claims of a courier: one is made at a time, and one more waits, however many ask."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

from herder.courier import Claims


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
