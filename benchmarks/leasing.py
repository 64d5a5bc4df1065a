"""What looking for held beginnings costs: lease + settle ÷ the same with a lease script that knows of none.

Both scripts work on one Redis, block by block in turn, so that a busy machine is unfair to neither. The queue is filled
outside of the time that is measured.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.resources import files
from itertools import count
from pathlib import Path
from unittest.mock import patch

from benchmarks.bench import MODEL, a_broker, an_ask, settled
from benchmarks.report import Report
from herder import scripts
from herder.broker import Broker, connect
from herder.chains import chain_key, chain_of

BLOCKS = 16
JOBS = 64  # a block
SLOTS = 4
KEY = chain_key(b"a secret of the benchmark only")
PEER = Path(__file__).with_name("lease_plain.lua")
_prompts = count()

Prompt = Callable[[], str]


def short() -> str:
    """Too short for a chain."""
    return "hello"


def alone() -> str:
    """4 kB that nobody has in common with anybody."""
    return f"{next(_prompts)} " + "x" * 4_000


def chatting() -> str:
    """A turn of one of eight chats, 4 kB of which are known."""
    return f"chat {random.randrange(8)} " + "x" * 4_000 + f"{next(_prompts)}"


WORKLOADS: dict[str, Prompt] = {"no_chains": short, "nothing_shared": alone, "chats": chatting}


async def run(report: Report, rounds: int) -> None:
    """Labels, ours ÷ the peer's: `no_chains`, `nothing_shared`, `chats` in jobs a second; `…_redis` in its time."""
    for _ in range(rounds):
        for name, prompt in WORKLOADS.items():
            async with a_broker() as broker:
                peer = await _peer(broker)
                await _compare(report, name, prompt, broker, peer)
                await peer.close()
    report.note(
        f"lease + settle of {BLOCKS} blocks of {JOBS} jobs a side, {SLOTS} at once, on one Redis in turn; "
        "peer: the lease script as it was before"
    )


async def _peer(broker: Broker) -> Broker:
    """Another broker on the same Redis, with the peer's lease script."""
    whole = scripts.script_source
    own = (files("herder") / "lua" / "lease.lua").read_text("utf-8")
    plain = whole("lease").replace(own, PEER.read_text("utf-8"))

    def source(name: str) -> str:
        return plain if name == "lease" else whole(name)

    with patch.object(scripts, "script_source", source):
        return await connect(broker.settings)


async def _compare(report: Report, name: str, prompt: Prompt, broker: Broker, peer: Broker) -> None:
    spent: dict[Broker, tuple[float, int]] = {broker: (0, 0), peer: (0, 0)}
    for block in range(2 * BLOCKS + 2):
        side = (broker, peer)[(block + block // 2) % 2]  # ours, peer's, peer's, ours
        await _fill(broker, prompt)
        seconds, redis_us = await _block(side)
        if block > 1:  # the first of each side loads its script
            spent[side] = spent[side][0] + seconds, spent[side][1] + redis_us
    report.add(name, spent[peer][0] / spent[broker][0])
    report.add(f"{name}_redis", spent[broker][1] / spent[peer][1])
    report.add(f"{name}_jobs_per_s", BLOCKS * JOBS / spent[broker][0])


async def _fill(broker: Broker, prompt: Prompt) -> None:
    for _ in range(JOBS):
        ask = await an_ask(broker)
        await broker.submit(replace(ask, chain=chain_of(KEY, "payer", prompt(), shared=False)))


async def _block(broker: Broker) -> tuple[float, int]:
    """Lease and settle until nothing is left: seconds in all, and µs that Redis spent in scripts."""
    before, started, done = await _script_us(broker), time.perf_counter(), 0
    while done < JOBS:
        leases = await broker.lease("w", MODEL, slots=SLOTS, kv_free=10**6, kv_total=10**6)
        await asyncio.gather(*(broker.settle("w", settled(lease)) for lease in leases))
        done += len(leases)
    return time.perf_counter() - started, await _script_us(broker) - before


async def _script_us(broker: Broker) -> int:
    stats = await broker.fetch(broker.redis.info("commandstats"))
    return int(stats.get("cmdstat_evalsha", {}).get("usec", 0))
