"""The heartbeat alone: what is told is measured by what the broker was told last, by whichever beat."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from herder.protocol import RenewReply, WorkerStats
from tests.unit.worker_bench import FakeBroker
from worker import pulse as pulse_module
from worker.cards import model_card
from worker.fake import FakeEngine
from worker.leases import Leases
from worker.pulse import Pulse
from worker.sequence import Key

SLOTS = 4


class FakeHeart:
    """Slots in use, set by hand."""

    def __init__(self) -> None:
        self.busy = 0
        self.wedged = False
        self.held: list[Key] = []
        self.words: list[tuple[Key, RenewReply]] = []

    @property
    def occupancy(self) -> tuple[int, int]:
        """All slots, and those in use."""
        return SLOTS, self.busy

    @property
    def stats(self) -> WorkerStats:
        """What a beat says."""
        return WorkerStats(slots=SLOTS, busy=self.busy, tokens_per_second=0.0)

    def renewed(self, key: Key, reply: RenewReply) -> None:
        """Remember it."""
        self.words.append((key, reply))


@asynccontextmanager
async def beating(lease_ms: int = 600_000) -> AsyncIterator[tuple[FakeBroker, FakeHeart, Pulse]]:
    """A pulse at work."""
    broker, heart = FakeBroker(), FakeHeart()
    pulse = Pulse(
        heart, Leases(broker, "w1", model_card("toy", FakeEngine(slots=SLOTS).facts), None), lease_ms
    )
    tasks = [asyncio.create_task(pulse.renewing()), asyncio.create_task(pulse.telling())]
    yield broker, heart, pulse
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_change_that_a_renewal_has_told_halfway_is_told() -> None:
    async with beating() as (broker, heart, pulse):
        heart.busy = 3
        pulse.notice()
        await broker.until(lambda: broker.told == [(SLOTS, 3)])
        heart.busy, heart.held = 4, [("job_1", 1)]
        pulse.hurry()  # a renewal on its own account
        await broker.until(lambda: broker.told[-1] == (SLOTS, 4))
        heart.busy = 3
        pulse.notice()
        await broker.until(lambda: broker.told[-1] == (SLOTS, 3))
        assert heart.words == [(("job_1", 1), RenewReply.LOST)]


async def test_many_changes_are_few_beats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulse_module, "STATS_S", 0.05)
    async with beating() as (broker, heart, pulse):
        for step in range(1_000):
            heart.busy = step % SLOTS
            pulse.notice()
            await asyncio.sleep(0)
        heart.busy = SLOTS
        pulse.notice()
        await broker.until(lambda: broker.told[-1] == (SLOTS, SLOTS))
        assert len(broker.told) < 50


async def test_what_redis_did_not_hear_is_told_again() -> None:
    async with beating() as (broker, heart, pulse):
        broker.down = True
        heart.busy = 2
        pulse.notice()
        await broker.until(lambda: broker.calls)
        broker.down = False
        await broker.until(lambda: broker.told == [(SLOTS, 2)])


async def test_after_the_last_word_there_is_none() -> None:
    async with beating(lease_ms=4) as (broker, heart, pulse):
        await broker.until(lambda: len(broker.told) > 2)
        await pulse.hush()
        before = broker.calls
        heart.busy = 1
        pulse.notice()
        pulse.hurry()
        for _ in range(200):
            await asyncio.sleep(0)
        assert broker.calls == before
