"""The steps of feeding: batches that were paid for go into their lines, cancelled ones out of them, a little at a time.

A herder feeds what it has just sold, the courier whatever is left: after a restart, or where a line was full. Several
may feed one batch at once, since each step is one script. Knows no HTTP and no arq.
"""

from __future__ import annotations

import asyncio
import contextlib
import time

from herder.batches import Batches, FeedState
from herder.errors import HerderError
from herder.logs import get_logger

BATCHES_MAX = 500  # looked at in one round
WANTED_MAX = 1_000  # batches that one herder remembers to feed; the courier finds the rest
TRY_AGAIN_S = 0.5

log = get_logger(__name__)


async def feed_round(batches: Batches, limit_s: float) -> int:
    """Feed every batch that waits, in turns, for at most about `limit_s` seconds; how many steps that were."""
    until = time.monotonic() + limit_s
    waiting = await batches.waiting(BATCHES_MAX)
    steps = 0
    while waiting:
        more = []
        for batch in waiting:
            if time.monotonic() >= until:
                return steps
            if await _step(batches, batch) is FeedState.MORE:
                more.append(batch)
            steps += 1
        waiting = more
    return steps


async def _step(batches: Batches, batch: str) -> FeedState:
    """One step, and a pause as long as it took: half of Redis is for everybody else.

    A batch that cannot be fed is passed by: the others must not wait for it.
    """
    began = time.monotonic()
    try:
        state, _ = await batches.feed(batch, line_max=batches.line_share())
    except HerderError:
        raise  # Redis is away, or full: that is no batch's fault
    except Exception:
        log.exception("a batch cannot be fed", batch=batch)
        return FeedState.UNKNOWN
    if state is FeedState.MORE:
        await asyncio.sleep(time.monotonic() - began)
    return state


class Feeder:
    """Feeds, in the background, the batches that it is told of. Use as an async context manager."""

    def __init__(self, batches: Batches) -> None:
        self._batches = batches
        self._wanted: dict[str, None] = {}
        self._rung = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Feeder:
        self._task = asyncio.create_task(self._run(), name="herder-feeder")
        return self

    async def __aexit__(self, *exc: object) -> None:
        assert self._task is not None
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    def want(self, batch: str) -> None:
        """Feed this one, soon."""
        if len(self._wanted) < WANTED_MAX:
            self._wanted[batch] = None
            self._rung.set()

    async def _run(self) -> None:
        failing = False
        while True:
            await self._rung.wait()
            self._rung.clear()
            try:
                await self._feed()
                failing = False
            except HerderError as error:
                if not failing:  # once an outage, not once a try
                    log.warning("feeding goes on later", why=str(error))
                failing = True
                await asyncio.sleep(TRY_AGAIN_S)
                self._rung.set()

    async def _feed(self) -> None:
        """A step of each in turn, until none has more; one whose line is full is left to the courier."""
        while self._wanted:
            for batch in list(self._wanted):
                if await _step(self._batches, batch) is not FeedState.MORE:
                    self._wanted.pop(batch, None)
