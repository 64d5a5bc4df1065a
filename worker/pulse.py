"""A worker's heartbeat: renews what it holds in good time, and tells at once how many of its slots are in use.

Knows when to tell the broker; what is held and what the answers mean is the runner's. Must not know of the engine.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from herder.logs import get_logger
from herder.protocol import RenewReply, WorkerStats
from worker.leases import Leases
from worker.sequence import Key

BEATS_A_LEASE = 4
STATS_S = 0.2
"""Least time between two heartbeats that say how many slots are in use."""
NOTHING = (-1, -1)

log = get_logger(__name__)


class Heart(Protocol):
    """Whose pulse it is; see `worker.runner.Runner`."""

    @property
    def stats(self) -> WorkerStats: ...

    @property
    def occupancy(self) -> tuple[int, int]: ...

    @property
    def held(self) -> list[Key]: ...

    @property
    def wedged(self) -> bool: ...

    def renewed(self, key: Key, reply: RenewReply) -> None: ...


class Pulse:
    """The two loops that keep the broker told."""

    def __init__(self, heart: Heart, leases: Leases, lease_ms: int) -> None:
        self._heart = heart
        self._leases = leases
        self._every_s = lease_ms / 1000 / BEATS_A_LEASE
        self._due, self._changed = asyncio.Event(), asyncio.Event()
        self._told = NOTHING
        self._beating = asyncio.Lock()

    def hurry(self) -> None:
        """Rings were missed: a renewal tells what is to be stopped."""
        self._due.set()

    def notice(self) -> None:
        """Slots may have been taken or freed; cheap, for every step."""
        if self._heart.occupancy != self._told:
            self._changed.set()

    async def hush(self) -> None:
        """Wait until no beat is under way. None follows: it would put a worker that has left on the list again."""
        await self._beating.acquire()

    async def renewing(self) -> None:
        """Heartbeat and renewal, for as long as steps come to an end: a wedged engine must lose its leases."""
        while True:
            await wait(self._due, self._every_s)
            self._due.clear()
            if self._heart.wedged:
                log.error("a step has taken longer than half a lease: not renewing")
                continue
            for key, reply in (await self._beat(self._heart.held)).items():
                self._heart.renewed(key, reply)

    async def telling(self) -> None:
        """A heartbeat of the numbers alone soon after slots were taken or freed, so that who watches sees it."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            await self._beat([])
            await asyncio.sleep(max(STATS_S, self._leases.pause_s))
            self.notice()

    async def _beat(self, held: list[Key]) -> dict[Key, RenewReply]:
        async with self._beating:
            stats = self._heart.stats
            replies = await self._leases.renew(held, stats)
            # Whichever loop it was: what the broker shows now is what a change is measured by.
            self._told = (stats.slots, stats.busy) if replies is not None else NOTHING
        return replies or {}


async def wait(event: asyncio.Event, timeout_s: float) -> None:
    """Wait for the event, or so long."""
    try:
        async with asyncio.timeout(timeout_s):
            await event.wait()
    except TimeoutError:
        return
