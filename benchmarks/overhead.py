"""What the broker costs: submit + lease + settle with the full ledger ÷ an arq job; submit to lease ÷ a round trip.

Both sides on redis-servers of the same kind with the same durability (every write on disk before it is answered),
with the same number of clients. arq runs at its best: no results kept, a burst worker, the fastest poll, the largest
batch of a small grid.
"""

from __future__ import annotations

import asyncio
import json
import logging
import tempfile
import time
from pathlib import Path
from typing import Any, cast

from arq import create_pool
from arq.connections import RedisSettings
from arq.worker import Worker, func

from benchmarks.bench import MODEL, a_broker, an_ask, settled
from benchmarks.report import Report
from herder.broker import Broker
from herder.embedded import EmbeddedRedis

JOBS = 2_000
CLIENTS = 16
PROBES = 300
ARQ_GRID = (16, 100)


async def run(report: Report, rounds: int) -> None:
    """Labels: `arq` (jobs a second, ours ÷ arq's), `redis_round_trip` (submit-to-leased p50 ÷ a raw round trip)."""
    logging.getLogger("arq").setLevel(logging.WARNING)
    for _ in range(rounds):
        ours = await _ours()
        theirs = max([await _arq(at_once) for at_once in ARQ_GRID])
        report.add("arq", ours / theirs)
        report.add("jobs_per_s", ours)
        report.add("arq_jobs_per_s", theirs)
        await _round_trip(report)
    report.note(
        f"{JOBS} jobs, {CLIENTS} clients; arq: burst worker, max_jobs best of {ARQ_GRID}, no results kept"
    )
    report.note("not measured here yet: saq, fastapi_echo, litellm")


async def _ours() -> float:
    async with a_broker(queue_depth_max=10 * JOBS) as broker:
        started = time.perf_counter()
        await asyncio.gather(*(_submitter(broker) for _ in range(CLIENTS)), _worker(broker))
        return JOBS / (time.perf_counter() - started)


async def _submitter(broker: Broker) -> None:
    for _ in range(JOBS // CLIENTS):
        await broker.submit(await an_ask(broker))


async def _worker(broker: Broker) -> None:
    done = 0
    while done < JOBS:
        leases = await broker.lease("w", MODEL, slots=CLIENTS, kv_free=10**6, kv_total=10**6)
        await asyncio.gather(*(broker.settle("w", settled(lease)) for lease in leases))
        done += len(leases)
        if not leases:
            await asyncio.sleep(0.001)


async def _nothing(_ctx: dict[str, Any], text: str) -> str:
    return text


def _dumps(job: dict[str, Any]) -> bytes:
    return json.dumps(job).encode()


async def _arq(at_once: int) -> float:
    with tempfile.TemporaryDirectory(prefix="herd-bench-") as folder:
        server = EmbeddedRedis(Path(folder))
        where = RedisSettings.from_dsn(await server.start())
        pool = await create_pool(where, job_serializer=_dumps, job_deserializer=json.loads)
        worker = Worker(
            functions=[func(cast("Any", _nothing), name="nothing", keep_result=0)],
            redis_settings=where,
            job_serializer=_dumps,
            job_deserializer=json.loads,
            max_jobs=at_once,
            max_burst_jobs=JOBS,
            poll_delay=0.001,
            handle_signals=False,
            burst=False,
        )
        started = time.perf_counter()

        async def enqueue() -> None:
            for _ in range(JOBS // CLIENTS):
                await pool.enqueue_job("nothing", "hello")

        running = asyncio.create_task(worker.async_run())
        await asyncio.gather(*(enqueue() for _ in range(CLIENTS)))
        while worker.jobs_complete < JOBS:  # noqa: ASYNC110 (arq has no event for it)
            await asyncio.sleep(0.001)
        rate = JOBS / (time.perf_counter() - started)
        await asyncio.gather(*worker.tasks.values(), return_exceptions=True)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await worker.close()
        await pool.aclose()
        await server.stop()
        return rate


async def _round_trip(report: Report) -> None:
    """One client, one job at a time: submit, then lease; beside one SET that is written as durably."""
    async with a_broker() as broker:
        ours, raw = [], []
        for i in range(PROBES):
            ask = await an_ask(broker)
            started = time.perf_counter()
            await broker.submit(ask)
            (lease,) = await broker.lease("w", MODEL, slots=1, kv_free=10**6, kv_total=10**6)
            ours.append(time.perf_counter() - started)
            await broker.settle("w", settled(lease))
            started = time.perf_counter()
            await broker.fetch(broker.redis.set("raw", i))
            raw.append(time.perf_counter() - started)
        report.add("redis_round_trip", sorted(ours)[PROBES // 2] / sorted(raw)[PROBES // 2])
