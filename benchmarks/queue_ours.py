"""Jobs through our broker, as fast as they go: submit, lease, settle, with the full ledger. A process of its own.

Called by `overhead` with one JSON object: the Redis, how many jobs, how many submit at once, the slots of each of two
workers. Prints jobs a second.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

import uvloop

from benchmarks.bench import CARD, MODEL, an_ask_at, settled
from herder.broker import Broker, connect
from herder.ledger import Ledger
from herder.protocol import WorkerStats
from herder.settings import Settings

WORKERS = ("w", "v")
PAUSE_S = 0.002  # of a worker that found nothing


async def _run(url: str, jobs: int, clients: int, slots: int) -> float:
    broker = await connect(Settings(redis_url=url, queue_depth_max=10 * jobs))
    try:
        await broker.set_prices(10, 1)
        for worker in WORKERS:
            await broker.register_worker(worker, CARD, WorkerStats(slots, 0, 0.0), None)
        ledger = Ledger(broker, b"bench")
        await ledger.create_account("payer")
        await ledger.deposit("payer", 10**12, "bench")
        started = time.perf_counter()
        left = [jobs]
        work = (_worker(broker, worker, slots, left) for worker in WORKERS)
        await asyncio.gather(*(_submitter(broker, jobs // clients) for _ in range(clients)), *work)
        rate = jobs / (time.perf_counter() - started)
        account = await ledger.account("payer")
        assert account is not None
        assert account.held == 0, "not every job is settled"
        return rate
    finally:
        await broker.close()


async def _submitter(broker: Broker, count: int) -> None:
    # The price list is read once, as the herder reads it: what it costs to price is not the broker's.
    prices = await broker.prices()
    for _ in range(count):
        await broker.submit(an_ask_at(prices))


async def _worker(broker: Broker, worker: str, slots: int, left: list[int]) -> None:
    while left[0] > 0:
        leases = await broker.lease(worker, MODEL, slots=slots, kv_free=10**6, kv_total=10**6)
        left[0] -= len(leases)
        await asyncio.gather(*(broker.settle(worker, settled(lease)) for lease in leases))
        if not leases:
            await asyncio.sleep(PAUSE_S)


def main() -> None:
    """Run as told by the first argument."""
    given: dict[str, Any] = json.loads(sys.argv[1])
    print(uvloop.run(_run(**given)))


if __name__ == "__main__":
    main()
