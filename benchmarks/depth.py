"""What a long queue costs: p99 of a lease at depth ÷ at 100; and what an idle worker asks of Redis."""

from __future__ import annotations

import asyncio
import time

from benchmarks.bench import MODEL, a_broker, an_ask
from benchmarks.report import Report, percentile
from herder.broker import Broker
from herder.protocol import WorkerStats

DEPTH = 100_000
SHALLOW = 100
LEASES = 500
IN_FLIGHT = 64
IDLE_S = 10.0


async def run(report: Report, rounds: int) -> None:
    """Labels: `lease_p99` (at DEPTH ÷ at SHALLOW), `idle_commands_per_s`."""
    for _ in range(rounds):
        shallow = await _lease_p99(SHALLOW)
        deep = await _lease_p99(DEPTH)
        report.add("lease_p99", deep / shallow)
        report.add("lease_p99_ms", 1000 * deep)
    report.add("idle_commands_per_s", await _idle())
    report.note(
        f"depth {DEPTH}; {LEASES} leases of one job, each put back; a worker that polls once in 1.5 s"
    )


async def _lease_p99(depth: int) -> float:
    async with a_broker(queue_depth_max=2 * DEPTH) as broker:
        await _fill(broker, depth)
        seconds = []
        for _ in range(LEASES):
            started = time.perf_counter()
            (lease,) = await broker.lease("w", MODEL, slots=1, kv_free=10**6, kv_total=10**6)
            seconds.append(time.perf_counter() - started)
            await broker.release("w", [(lease.job_id, lease.attempt)], died=False)
        return percentile(seconds, 0.99)


async def _fill(broker: Broker, depth: int) -> None:
    async def some(count: int) -> None:
        for _ in range(count):
            await broker.submit(await an_ask(broker))

    await asyncio.gather(*(some(depth // IN_FLIGHT) for _ in range(IN_FLIGHT)))
    await some(depth % IN_FLIGHT)


async def _idle() -> float:
    """The idle loop of a worker, as worker/runner.py has it: one poll in 1.5 s, one heartbeat in a quarter lease."""
    async with a_broker() as broker:
        before = await _commands(broker)
        deadline = time.perf_counter() + IDLE_S
        beat = 0.0
        while time.perf_counter() < deadline:
            if time.perf_counter() > beat:
                await broker.renew("w", MODEL, [], WorkerStats(16, 0, 0.0))
                beat = time.perf_counter() + broker.settings.lease_ms / 4000
            await broker.lease("w", MODEL, slots=16, kv_free=10**6, kv_total=10**6)
            await asyncio.sleep(1.5)
        return (await _commands(broker) - before - 1) / IDLE_S


async def _commands(broker: Broker) -> int:
    """Commands that clients have sent: calls inside a script do not count."""
    stats = await broker.fetch(broker.redis.info("commandstats"))
    return sum(
        stats.get(f"cmdstat_{name}", {}).get("calls", 0)
        for name in ("evalsha", "eval", "ping", "script|load")
    )
