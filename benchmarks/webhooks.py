"""What webhooks cost whoever settles: p99 with a receiver that fails in every way ÷ without webhooks; and their rate.

A courier runs beside both sides, in a process of its own as it does in a herd, and so does the receiver. One worker
settles at a steady pace; both sides take turns at going first.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator

from benchmarks.bench import MODEL, a_broker, an_ask, settled
from benchmarks.report import Report, percentile
from herder.api.destinations import new_endpoint_id
from herder.broker import Broker
from herder.deliveries import Deliveries
from herder.signatures import new_secret

JOBS = 1500
PACE_S = 0.02
WARM_UP = 50
RATE_JOBS = 500
LIMIT_S = 120.0
SETTINGS: dict[str, object] = {
    "webhook_allow": ("127.0.0.0/8",),
    "webhook_ports": ("*",),
    "webhook_timeout_ms": 400,
    "webhook_schedule_s": (0.0, *[1.0] * 30),
}


async def run(report: Report, rounds: int) -> None:
    """Labels: `settle_p99` (with ÷ without), the two in ms, and `deliveries_per_s` to a receiver that is well.

    Once as a herd keeps its books, every write on disk before it is answered, so that each write of the courier is a
    disk's wait for whoever settles just then; and once with Redis's usual second of risk (`_everysec`).
    """
    for number in range(rounds):
        for name, fsync in (("", "always"), ("_everysec", "everysec")):
            found: dict[bool, float] = {}
            for hooked in (False, True) if number % 2 else (True, False):
                found[hooked] = await _settle_p99(hooked, fsync)
            report.add(f"settle_p99{name}", found[True] / found[False])
            report.add(f"with_ms{name}", 1000 * found[True])
            report.add(f"without_ms{name}", 1000 * found[False])
        report.add("deliveries_per_s", await _rate())
    report.note(
        f"{JOBS} jobs at one in {1000 * PACE_S:.0f} ms, settled one by one; a courier runs on both sides"
    )
    report.note("the receiver answers 500, after the timeout of 400 ms, with a redirect, or never, by turns")


async def _settle_p99(hooked: bool, fsync: str) -> float:
    async with _herd("bad", hooked) as broker:
        await broker.fetch(broker.redis.config_set("appendfsync", fsync))
        seconds = []
        started = time.perf_counter()
        for number in range(WARM_UP + JOBS):
            await broker.submit(await an_ask(broker))
            (lease,) = await broker.lease("w", MODEL, slots=1, kv_free=10**6, kv_total=10**6)
            await asyncio.sleep(max(0.0, started + number * PACE_S - time.perf_counter()))
            before = time.perf_counter()
            await broker.settle("w", settled(lease))
            if number >= WARM_UP:
                seconds.append(time.perf_counter() - before)
        return percentile(seconds, 0.99)


async def _rate() -> float:
    """Deliveries a second, from the end of the first job to the last delivery, to a receiver that answers at once."""
    async with _herd("good", hooked=True) as broker:
        for _ in range(RATE_JOBS):
            await broker.submit(await an_ask(broker))
        started = time.perf_counter()
        for _ in range(RATE_JOBS):
            (lease,) = await broker.lease("w", MODEL, slots=1, kv_free=10**6, kv_total=10**6)
            await broker.settle("w", settled(lease))
        while await broker.fetch(broker.redis.zcard(broker.keys("delivered"))) < RATE_JOBS:
            assert time.perf_counter() < started + LIMIT_S, "the deliveries take too long"
            await asyncio.sleep(0.05)
        return RATE_JOBS / (time.perf_counter() - started)


@contextlib.asynccontextmanager
async def _herd(receiver: str, hooked: bool) -> AsyncIterator[Broker]:
    """A broker with a courier and a receiver beside it; `hooked`: the payer's jobs are told there."""
    async with a_broker(**SETTINGS) as broker, contextlib.AsyncExitStack() as stack:
        listening = await stack.enter_async_context(_process("benchmarks.bad_receiver", receiver))
        assert listening.stdout is not None
        port = int(await listening.stdout.readline())
        if hooked:
            url = f"http://127.0.0.1:{port}/hook"
            door = Deliveries(broker)
            endpoint = await door.ensure_endpoint("payer", url, new_endpoint_id(), new_secret())
            await door.set_default("payer", url, endpoint)
        environment = {
            f"HERDER_{name.upper()}": ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
            for name, value in {
                **SETTINGS,
                "redis_url": broker.settings.redis_url,
                "log_level": "error",
            }.items()
        }
        courier = _process("llama_herder.cli.main", "courier", **environment)
        await stack.enter_async_context(courier)
        await asyncio.sleep(2)  # until it is up
        yield broker


@contextlib.asynccontextmanager
async def _process(*module: str, **environment: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", *module, env=os.environ | environment, stdout=asyncio.subprocess.PIPE
    )
    try:
        yield process
        assert process.returncode is None, f"{module[0]} did not last"
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        await process.wait()
