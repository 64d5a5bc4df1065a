"""What a long queue costs: p99 of a lease at depth ÷ at 100; and what an idle worker asks of Redis.

Both queues stand at once, on two redis-servers, and are leased from in turns. A queued job takes about 1.7 KB of Redis.
"""

from __future__ import annotations

import asyncio
import os
import time

from benchmarks.bench import MODEL, a_broker, an_ask_at
from benchmarks.report import Report, percentile
from herder.broker import Broker
from herder.protocol import WorkerStats

DEPTH = int(os.environ.get("BENCH_DEPTH", "1000000"))
SHALLOW = 100
LEASES = 1_000
TURN = 50  # leases of one queue before the other's
IN_FLIGHT = 128
IDLE_S = 10.0


async def run(report: Report, rounds: int) -> None:
    """Labels: `lease_p99` (at DEPTH ÷ at SHALLOW), `idle_commands_per_s`."""
    report.add("idle_commands_per_s", await _idle())
    async with a_broker() as shallow, a_broker(queue_depth_max=2 * DEPTH) as deep:
        await _fill(shallow, SHALLOW)
        empty, began = await _memory_bytes(deep), time.perf_counter()
        await _fill(deep, DEPTH)
        report.add("fill_jobs_per_s", DEPTH / (time.perf_counter() - began))
        report.add("bytes_per_queued_job", (await _memory_bytes(deep) - empty) / DEPTH)
        for _ in range(rounds):
            at_shallow: list[float] = []
            at_depth: list[float] = []
            for _ in range(LEASES // TURN):
                at_shallow += [await _leased_s(shallow) for _ in range(TURN)]
                at_depth += [await _leased_s(deep) for _ in range(TURN)]
            report.add("lease_p99", percentile(at_depth, 0.99) / percentile(at_shallow, 0.99))
            report.add("lease_p50", percentile(at_depth, 0.5) / percentile(at_shallow, 0.5))
            report.add("lease_p99_ms", 1000 * percentile(at_depth, 0.99))
    report.note(
        f"depth {DEPTH}; {LEASES} leases of one job in each round, each put back; a worker that polls once in 1.5 s"
    )


async def _leased_s(broker: Broker) -> float:
    """The seconds of one lease, whose job is put back."""
    started = time.perf_counter()
    (lease,) = await broker.lease("w", MODEL, slots=1, kv_free=10**6, kv_total=10**6)
    seconds = time.perf_counter() - started
    await broker.release("w", [(lease.job_id, lease.attempt)], died=False)
    return seconds


async def _fill(broker: Broker, depth: int) -> None:
    """With the log flushed once a second meanwhile, and never rewritten: a fork of so much memory is no lease's."""
    prices = await broker.prices()
    for name, value in (("auto-aof-rewrite-percentage", "0"), ("appendfsync", "everysec")):
        await broker.fetch(broker.redis.config_set(name, value))

    async def some(count: int) -> None:
        for _ in range(count):
            await broker.submit(an_ask_at(prices))

    await asyncio.gather(*(some(depth // IN_FLIGHT) for _ in range(IN_FLIGHT)))
    await some(depth % IN_FLIGHT)
    await broker.fetch(broker.redis.config_set("appendfsync", "always"))


async def _memory_bytes(broker: Broker) -> int:
    return int((await broker.fetch(broker.redis.info("memory")))["used_memory"])


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
