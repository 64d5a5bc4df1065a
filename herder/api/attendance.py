"""Jobs and batches whose caller is on the line here and cannot come back: this process keeps their presence leases.

Where it dies nobody does, and the sweep cancels what is left. Knows no HTTP.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterator
from contextvars import Context

from herder.broker import Broker
from herder.errors import RedisUnavailable
from herder.logs import get_logger

RENEWALS = 3  # in the time of a lease

log = get_logger(__name__)


class Attendance:
    """Who is attended here, and the task that says so."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._names: Counter[str] = Counter()  # two may wait for the same job
        self._task: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def of(self, name: str) -> Iterator[None]:
        """Keep the presence of a job or a batch while inside."""
        self._names[name] += 1
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="herder-attendance", context=Context())
        try:
            yield
        finally:
            self._names[name] -= 1
            if self._names[name] <= 0:
                del self._names[name]

    def alone(self, name: str) -> bool:
        """Whether nobody else here waits for it; inside `of`."""
        return self._names[name] <= 1

    async def _run(self) -> None:
        while self._names:
            await asyncio.sleep(self._broker.settings.presence_ms / 1000 / RENEWALS)
            batches = [name for name in self._names if name.startswith("batch_")]
            jobs = [name for name in self._names if not name.startswith("batch_")]
            try:
                if self._names:
                    await self._broker.present(jobs, batches)
            except RedisUnavailable:
                continue  # without Redis nothing lapses either
            except Exception:
                log.exception("presence could not be renewed")
