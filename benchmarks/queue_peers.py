"""Jobs that do nothing through arq or saq, as fast as they go: enqueue, run, result. Run by a peer's own python.

Called by `overhead` with one JSON object: which peer, the Redis, how many jobs, how many enqueue at once, and the
settings of its worker. Prints jobs a second. Must not know of the herd, which is not installed there.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import sys
import time
from typing import Any

RESULT_S = 3600
TICK_S = 0.002

# Not imported by name: type checkers of the project do not have them.
uvloop: Any = importlib.import_module("uvloop")


async def nothing(_ctx: Any, *, text: str) -> str:
    """The job."""
    return text


async def arq(url: str, jobs: int, clients: int, max_jobs: int, poll_delay: float) -> float:
    """arq at these settings of its worker, its results kept, JSON for pickle."""
    connections: Any = importlib.import_module("arq.connections")
    worker_of: Any = importlib.import_module("arq.worker")
    coded = {"job_serializer": lambda job: json.dumps(job).encode(), "job_deserializer": json.loads}
    pool = await connections.create_pool(connections.RedisSettings.from_dsn(url), **coded)
    worker = worker_of.Worker(
        functions=[worker_of.func(nothing, name="nothing", keep_result=RESULT_S)],
        redis_pool=pool, max_jobs=max_jobs, poll_delay=poll_delay, handle_signals=False, **coded,
    )  # fmt: skip

    async def enqueue() -> None:
        for _ in range(jobs // clients):
            await pool.enqueue_job("nothing", text="hello")

    started = time.perf_counter()
    running = asyncio.create_task(worker.async_run())
    await asyncio.gather(*(enqueue() for _ in range(clients)))
    while worker.jobs_complete < jobs:  # noqa: ASYNC110 (arq has no event for it)
        await asyncio.sleep(TICK_S)
    rate = jobs / (time.perf_counter() - started)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    return rate


async def saq(url: str, jobs: int, clients: int, concurrency: int, ops: int) -> float:
    """saq at this concurrency of its worker, and so many operations at once of its queue; its results kept."""
    client: Any = importlib.import_module("redis.asyncio").from_url(url, max_connections=1_000)
    queue: Any = importlib.import_module("saq.queue.redis").RedisQueue(client, max_concurrent_ops=ops)
    left, done = [jobs], asyncio.Event()

    async def after(_ctx: Any) -> None:
        left[0] -= 1
        if not left[0]:
            done.set()

    make: Any = importlib.import_module("saq").Worker
    worker = make(queue, functions=[("nothing", nothing)], concurrency=concurrency, after_process=after)
    worker.SIGNALS = []

    async def enqueue() -> None:
        for _ in range(jobs // clients):
            await queue.enqueue("nothing", text="hello", ttl=RESULT_S)

    started = time.perf_counter()
    running = asyncio.create_task(worker.start())
    await asyncio.gather(*(enqueue() for _ in range(clients)))
    await done.wait()
    rate = jobs / (time.perf_counter() - started)
    await worker.stop()
    await asyncio.gather(running, return_exceptions=True)
    await queue.disconnect()
    return rate


def main() -> None:
    """Run as told by the first argument."""
    given = json.loads(sys.argv[1])
    logging.disable(logging.WARNING)
    peers: dict[str, Any] = {"arq": arq, "saq": saq}
    print(uvloop.run(peers[given.pop("peer")](**given)))


if __name__ == "__main__":
    main()
