"""A worker's loop on the bench: a runner over a scripted engine whose steps a test can hold back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.unit.worker_bench import FakeBroker, FakeDoorbell
from worker.cards import model_card
from worker.engine import Drawn, Step
from worker.fake import FakeEngine
from worker.leases import Leases
from worker.runner import Options, Runner

OPTIONS = Options(lease_ms=10_000, drain_ms=10_000, queue_bell="queue", worker_bell="worker")


class Gate(FakeEngine):
    """A scripted engine whose steps wait until the test lets them through."""

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self.allowed = asyncio.Event()
        self.loop = asyncio.get_running_loop()
        self.waiting = asyncio.Event()
        self.stepped = 0
        self.stop_after: int | None = None

    def step(self, step: Step) -> dict[int, Drawn]:
        """Wait at the gate from step `stop_after` on."""
        self.stepped += 1
        if self.stop_after is not None and self.stepped > self.stop_after:
            self.loop.call_soon_threadsafe(self.waiting.set)
            asyncio.run_coroutine_threadsafe(self.allowed.wait(), self.loop).result(30)
        return super().step(step)


class Bench:
    """A runner at work."""

    def __init__(self, engine: FakeEngine, options: Options) -> None:
        self.engine = engine
        self.broker = FakeBroker()
        self.bell = FakeDoorbell()
        self.leases = Leases(self.broker, "w1", model_card("toy", engine.facts), None)
        self.runner = Runner(engine, self.leases, self.bell, options)
        self.task: asyncio.Task[None] | None = None

    async def heard(self, channel: str) -> None:
        """Wait until every ring of the channel has been taken, and what follows from it has begun."""
        await self.bell.listeners[channel].emptied()
        await asyncio.sleep(0)

    async def settled(self, *jobs: str) -> None:
        """Wait until these jobs have ended."""
        await self.broker.until(lambda: set(jobs) <= set(self.broker.settled))


@asynccontextmanager
async def at_work(engine: FakeEngine | None = None, options: Options = OPTIONS) -> AsyncIterator[Bench]:
    """A running bench; stopped at the end."""
    bench = Bench(engine or FakeEngine(slots=2, context=200), options)
    bench.task = asyncio.create_task(bench.runner.run())
    try:
        yield bench
    finally:
        if isinstance(engine, Gate):
            engine.allowed.set()
        bench.runner.stop()
        bench.runner.stop()
        await asyncio.wait([bench.task])
    if not bench.task.cancelled() and bench.task.exception():
        raise bench.task.exception()  # type: ignore[misc]
