"""A herd of constant speed under the simulated clock: who starts when, given who comes when."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass

from herder.clock import SimulatedClock
from herder.protocol import Lease, WorkerStats
from tests.integration.ring import MODEL, Ring


@dataclass(frozen=True)
class Arrival:
    """One job to come, `at_ms` after the beginning."""

    at_ms: int
    account: str
    tokens: int = 32
    multiplier: float = 1.0


@dataclass
class Served:
    """When a job came and started, in ms after the beginning, and how many starts were before its own."""

    account: str
    came_ms: int
    started_ms: int = -1
    starts_before_coming: int = 0
    place: int = -1

    @property
    def starts_waited(self) -> int:
        """How many other jobs started between this one's coming and its start."""
        return self.place - self.starts_before_coming


class Pace:
    """`slots` jobs at once, `ms_per_token` for each token of a job."""

    def __init__(self, ring: Ring, clock: SimulatedClock, *, slots: int, ms_per_token: int) -> None:
        self.ring, self.clock = ring, clock
        self.slots, self.ms_per_token = slots, ms_per_token
        self.beginning = clock.now_ms
        self.jobs: dict[str, Served] = {}
        self.starts: list[str] = []
        self._busy: list[tuple[int, int, Lease]] = []

    async def measure(self, share: float = 1.0) -> None:
        """A heartbeat that tells the herd its true speed times `share`; a share of 1.25 is a boast."""
        speed = self.slots * 1_000 / self.ms_per_token * share
        await self.ring.broker.renew("w1", MODEL, [], WorkerStats(self.slots, 0, speed))

    async def serve(self, arrivals: Iterable[Arrival], *, until: str | None = None) -> list[Served]:
        """Take arrivals and serve them until all are started, or those of the account `until` are."""
        coming = sorted(arrivals, key=lambda arrival: arrival.at_ms)
        while True:
            while coming and self.beginning + coming[0].at_ms <= self.clock.now_ms:
                await self._come(coming.pop(0))
            await self._start()
            waiting = [job for job in self.jobs.values() if job.place < 0]
            if not coming and not [job for job in waiting if until in (None, job.account)]:
                return list(self.jobs.values())
            await self._go_on(self.beginning + coming[0].at_ms if coming else None)

    async def _come(self, arrival: Arrival) -> None:
        accepted = await self.ring.submit(
            arrival.account, tokens=arrival.tokens, multiplier=arrival.multiplier
        )
        self.jobs[accepted.job_id] = Served(
            arrival.account, arrival.at_ms, starts_before_coming=len(self.starts)
        )

    async def _start(self) -> None:
        for lease in await self.ring.lease("w1", slots=self.slots - len(self._busy), kv=10**9):
            job = self.jobs[lease.job_id]
            job.started_ms, job.place = self.clock.now_ms - self.beginning, len(self.starts)
            self.starts.append(lease.job_id)
            until = self.clock.now_ms + lease.tokens * self.ms_per_token
            heapq.heappush(self._busy, (until, len(self.starts), lease))

    async def _go_on(self, next_arrival: int | None) -> None:
        """To the next arrival, or to the next end of a job, which is settled."""
        if self._busy and (next_arrival is None or self._busy[0][0] <= next_arrival):
            self.clock.now_ms, _, lease = heapq.heappop(self._busy)
            await self.ring.settle(lease, lease.tokens)
        else:
            assert next_arrival is not None, "a job waits and nothing runs"
            self.clock.now_ms = next_arrival
