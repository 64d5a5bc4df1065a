"""All open event streams of this process: room for them, a task that looks after them, their end when it stops.

One stream is next door, in `stream`. Knows no HTTP.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from contextvars import Context

from herder.api.lines import Lines
from herder.api.market import Market
from herder.api.metrics import Metrics
from herder.api.stream import Around, Stream
from herder.api.tellers import EVENTS, Teller
from herder.broker import Broker
from herder.doorbell import Doorbell
from herder.errors import Overloaded
from herder.protocol import JobRecord

TICK_S_MAX = 1.0
STOP_S = 0.5  # for what has been said to reach its readers when the herder stops


class Streams:
    """Every open stream, the task that looks after them, and what outlives one."""

    def __init__(
        self, broker: Broker, bell: Doorbell, market: Market, metrics: Metrics, stopping: asyncio.Event
    ) -> None:
        self._around = Around(broker, bell, market, metrics, Lines(broker, market), stopping)
        self._open: set[Stream] = set()
        self._reserved = 0
        self._task: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def reserved(self) -> Iterator[None]:
        """Room for one stream, to be opened inside. Raises Overloaded where there is none."""
        limit = self._around.broker.settings.streams_max
        if len(self._open) + self._reserved >= limit:
            raise Overloaded(f"{limit} event streams are open here; try again later", retry_after=5)
        self._reserved += 1
        try:
            yield
        finally:
            self._reserved -= 1

    def open(self, record: JobRecord, after: str | None, teller: Teller = EVENTS) -> Stream:
        """A stream of this job's events after an id of its log, in the words of its teller; to be closed."""
        stream = Stream(self._around, record, after, teller)
        self._open.add(stream)
        self._around.metrics.streams.inc()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(
                self._look_after(),
                name="herder-streams",
                context=Context(),  # of no request
            )
        return stream

    def close(self, stream: Stream) -> None:
        """It has ended, whatever ended it."""
        if stream in self._open:
            self._open.discard(stream)
            self._around.metrics.streams.dec()

    async def _look_after(self) -> None:
        """Until the last one is closed, or the herder stops; then they end, and who does not take that is cut."""
        settings = self._around.broker.settings
        ping_s, send_s = settings.stream_ping_ms / 1000, settings.stream_send_ms / 1000
        tick_s = min(TICK_S_MAX, ping_s / 4, send_s / 4)
        while self._open and not self._around.stopping.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(tick_s):
                    await self._around.stopping.wait()
            now = asyncio.get_running_loop().time()
            for stream in list(self._open):
                stream.looked_after(now, ping_s, send_s)
        for stream in list(self._open):
            stream.stop()
        if self._open:
            await asyncio.sleep(STOP_S)
        for stream in list(self._open):
            stream.cut()
