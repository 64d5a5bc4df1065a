"""The audit notices every drift that is made by hand, and takes nothing that a working herd does for one."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Any

import pytest

from herder.audit import audit
from herder.broker import Broker
from tests.integration.ring import Ring

Drift = Callable[[Broker, str], Awaitable[object]]


def posting_of(kind: str) -> Drift:
    """Deletes one posting of this kind."""

    async def delete(broker: Broker, job_id: str) -> object:
        key = broker.keys("ledger", "ann")
        rows = await broker.redis.xrange(key)
        return await broker.redis.xdel(key, next(entry for entry, f in rows if f[b"kind"] == kind.encode()))

    return delete


def changed(name: str, field: str, *args: str) -> Drift:
    """Adds 1 to a field; '{job}' stands for the live job."""

    async def change(broker: Broker, job_id: str) -> object:
        key = broker.keys(name, *(arg.format(job=job_id) for arg in args))
        return await broker.fetch(broker.redis.hincrby(key, field, 1))

    return change


DRIFTS: dict[str, Drift] = {
    "available": changed("account", "available", "ann"),
    "held": changed("account", "held", "ann"),
    "revenue": changed("books", "revenue"),
    "mint": changed("books", "mint"),
    "a job's hold": changed("job", "hold", "{job}"),
    **{f"no {kind}": posting_of(kind) for kind in ("deposit", "adjust", "hold", "capture", "void")},
    "a job is gone": lambda broker, job: broker.redis.delete(broker.keys("job", job)),
    "a job ended by hand": lambda broker, job: broker.fetch(
        broker.redis.hset(broker.keys("job", job), mapping={"status": "succeeded", "hold": 0})
    ),
    "a forged posting": lambda broker, job: broker.redis.xadd(
        broker.keys("ledger", "ann"),
        {
            "kind": "deposit",
            "source": "mint",
            "target": "available",
            "amount": 1,
            "job": "",
            "memo": "",
            "at": 1,
        },
    ),
    "captured twice": lambda broker, job: broker.redis.xadd(
        broker.keys("ledger", "ann"),
        {
            "kind": "capture",
            "source": "held",
            "target": "revenue",
            "amount": 1,
            "job": job,
            "memo": "",
            "at": 1,
        },
    ),
}


@pytest.mark.parametrize("drift", DRIFTS)
async def test_the_audit_notices(broker: Broker, drift: str) -> None:
    ring = await Ring(broker).open("ann", funds=1_000)
    await ring.ledger.adjust("ann", 5, "")
    await ring.submit("ann")
    await ring.settle(await ring.lease_one(), 8)
    live = await ring.submit("ann")
    assert (await audit(broker)).clean
    await DRIFTS[drift](broker, live.job_id)
    assert (await audit(broker)).problems


async def test_the_audit_passes_while_the_herd_is_at_work(broker: Broker) -> None:
    """New accounts, deposits, submissions and settlements all the time: none of it is drift."""
    ring = await Ring(broker).open("ann")
    done: Counter[str] = Counter()

    async def serve() -> None:
        for i in range(40):
            await ring.submit("ann")
            await ring.settle(await ring.lease_one(), 8)
            await ring.submit("ann")
            await ring.broker.release("w1", [(lease.job_id, 1) for lease in await ring.lease()], died=False)
            await ring.settle(await ring.lease_one(), 3)
            await ring.ledger.create_account(f"new{i}")
            await ring.ledger.deposit(f"new{i}", 7, "d")
            done["served"] += 1

    async def check() -> None:
        while done["served"] < 40:
            assert (await audit(broker)).problems == ()
            done["audits"] += 1

    await asyncio.gather(serve(), check())
    assert done["audits"] >= 5


async def test_an_account_made_while_the_audit_begins_is_no_drift(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the list of accounts and their balances comes a new one, with money in it."""
    ring = await Ring(broker).open("ann")
    fetch, made = broker.fetch, count()

    async def meddled(reply: Any) -> Any:
        answer = await fetch(reply)
        if isinstance(answer, list) and answer == [b"ann"] and next(made) == 0:
            monkeypatch.undo()
            await ring.open("new")
        return answer

    monkeypatch.setattr(broker, "fetch", meddled)
    report = await audit(broker)
    assert next(made) == 1
    assert (report.problems, len(report.rows)) == ((), 2)
