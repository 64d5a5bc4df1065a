"""What the broker costs, beside what others would use: jobs a second, submit to lease, requests a second.

All on redis-servers of the same kind with the same durability (every write on disk before it is answered), one process
for those who submit and those who work, uvloop. Peers run in environments of their own, at the best settings of a
small grid, which is tried first.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import rates
from benchmarks.bench import MODEL, a_broker, an_ask, settled
from benchmarks.peers import environment
from benchmarks.report import Report
from herder.embedded import EmbeddedRedis

JOBS = 3_200
CLIENTS = 64
SLOTS = 64
PROBES = 300
REQUESTS_S = 5.0
WARM_S = 2.0
SCRIPT = Path(__file__).with_name("queue_peers.py")
GRID: dict[str, tuple[dict[str, float], ...]] = {
    "arq": (
        {"max_jobs": 100, "poll_delay": 0.005},
        {"max_jobs": 100, "poll_delay": 0.05},
        {"max_jobs": 400, "poll_delay": 0.02},
    ),
    "saq": ({"concurrency": 16, "ops": 64}, {"concurrency": 64, "ops": 64}, {"concurrency": 100, "ops": 20}),
}


async def run(report: Report, rounds: int) -> None:
    """Labels: `arq`, `saq` (jobs a second, ours ÷ theirs), `redis_round_trip` (submit-to-leased p50 ÷ a raw round
    trip), `fastapi_echo`, `litellm` (requests a second, ours ÷ theirs).
    """
    best = {peer: await _best(report, peer) for peer in GRID}
    for _ in range(rounds):
        for peer, settings in best.items():
            ours, theirs = await _ours(), await _theirs(peer, settings)
            report.add(peer, ours / theirs)
            report.add("jobs_per_s", ours)
            report.add(f"{peer}_jobs_per_s", theirs)
        await _round_trip(report)
    await _requests(report, rounds)
    report.note(
        f"{JOBS} jobs, {CLIENTS} clients; ours: two workers of {SLOTS} slots; results kept by all three"
    )
    report.note(f"{rates.CALLERS} callers for {REQUESTS_S:.0f} s; litellm --num_workers 1, mock_response")


async def _best(report: Report, peer: str) -> dict[str, float]:
    """The settings of the grid with which the peer is fastest; all are noted."""
    found = [(await _theirs(peer, settings), settings) for settings in GRID[peer]]
    for jobs_per_s, settings in found:
        told = " ".join(f"{name}={value}" for name, value in settings.items())
        report.note(f"grid of {peer}: {jobs_per_s:.4g} jobs a second with {told}")
    return max(found, key=lambda pair: pair[0])[1]


async def _ours() -> float:
    return await _jobs_per_s((sys.executable, "-m", "benchmarks.queue_ours"), {"slots": SLOTS})


async def _theirs(peer: str, settings: dict[str, float]) -> float:
    return await _jobs_per_s((str(environment(peer)), str(SCRIPT)), {"peer": peer, **settings})


async def _jobs_per_s(command: tuple[str, ...], given: dict[str, object]) -> float:
    """What a process says that does JOBS jobs on an empty Redis."""
    with tempfile.TemporaryDirectory(prefix="herd-bench-") as folder:
        redis = EmbeddedRedis(Path(folder))
        given |= {"url": await redis.start(), "jobs": JOBS, "clients": CLIENTS}
        try:
            process = await asyncio.create_subprocess_exec(
                *command, json.dumps(given), stdout=asyncio.subprocess.PIPE
            )
            told, _ = await process.communicate()
            assert process.returncode == 0, command
            return float(told)
        finally:
            await redis.stop()


async def _requests(report: Report, rounds: int) -> None:
    async with rates.ours() as ours, rates.echo() as echo, rates.litellm() as litellm:
        peers = {"fastapi_echo": echo, "litellm": litellm}
        for target in (ours, *peers.values()):
            await rates.rate(target, WARM_S)
        for _ in range(rounds):
            for name, peer in peers.items():
                mine, theirs = await rates.rate(ours, REQUESTS_S), await rates.rate(peer, REQUESTS_S)
                report.add(name, mine / theirs)
                report.add("requests_per_s", mine)
                report.add(f"{name}_requests_per_s", theirs)


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
