"""Cancelling what nobody waits for any more, in the background: a job or a batch whose reader went away.

Knows no HTTP.
"""

from __future__ import annotations

import asyncio

from herder.batches import Batches
from herder.broker import Broker
from herder.errors import NotFound, RedisUnavailable
from herder.feeding import Feeder
from herder.logs import get_logger

TRIES = 10
PAUSE_S = 2.0
STOP_S = 2.0  # for what is still to be cancelled when the herder stops; what is attended lapses after that

log = get_logger(__name__)


class Canceller:
    """Cancels again and again where Redis is away. Use as an async context manager."""

    def __init__(self, broker: Broker, batches: Batches, feeder: Feeder) -> None:
        self._broker = broker
        self._batches = batches
        self._feeder = feeder
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Canceller:
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=STOP_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def job(self, account: str, job_id: str) -> None:
        """Cancel a job, soon. One that has ended, or has gone, stays as it is."""
        self._begin(account, job_id, batch=False)

    def batch(self, account: str, batch: str) -> None:
        """Cancel what is left of a batch, soon."""
        self._begin(account, batch, batch=True)

    def _begin(self, account: str, name: str, *, batch: bool) -> None:
        task = asyncio.create_task(self._cancel(account, name, batch), name="herder-cancel")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _cancel(self, account: str, name: str, batch: bool) -> None:
        for _ in range(TRIES):
            try:
                if batch:
                    await self._batches.abandon(account, name)
                    self._feeder.want(name)
                else:
                    await self._broker.cancel(account, name)
            except NotFound:
                return
            except RedisUnavailable:
                await asyncio.sleep(PAUSE_S)
                continue
            return
        log.warning("what nobody waits for any more could not be cancelled", name=name)
