"""The audit notices every drift that is made by hand, and takes nothing that a working herd does for one."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Any

import pytest

from herder import audit_holds
from herder.audit import audit
from herder.batches import FeedState, item_id
from herder.broker import Broker
from herder.clock import SimulatedClock
from tests.integration.batch_bench import BatchBench
from tests.integration.ring import MODEL, Ring

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


async def exchanged(broker: Broker, batch: str) -> object:
    """What one item voided is said to have been the other's: all sums stay as they are."""
    key = broker.keys("ledger", "ann")
    rows = await broker.redis.xrange(key)
    entry, fields = next((entry, fields) for entry, fields in rows if fields[b"kind"] == b"void")
    await broker.redis.xdel(key, entry)
    return await broker.redis.xadd(key, fields | {b"job": item_id(batch, 1).encode()})


BATCH_DRIFTS: dict[str, Drift] = {
    "a void of another item": exchanged,
    "the batch's hold": changed("batch", "hold", "{job}"),
    "what is not in line yet": changed("batch", "unfed_fee", "{job}"),
    "how many are in line": changed("batch", "fed", "{job}"),
    "the batch is gone": lambda broker, batch: broker.redis.delete(broker.keys("batch", batch)),
    "the batch ended by hand": lambda broker, batch: broker.fetch(
        broker.redis.hset(broker.keys("batch", batch), mapping={"status": "ended", "hold": 0})
    ),
    "an item's fee": lambda broker, batch: broker.fetch(
        broker.redis.hincrby(broker.keys("job", item_id(batch, 2)), "fee", 1)
    ),
    "an item's hold": lambda broker, batch: broker.fetch(
        broker.redis.hincrby(broker.keys("job", item_id(batch, 2)), "hold", 1)
    ),
    "an item is gone": lambda broker, batch: broker.redis.delete(broker.keys("job", item_id(batch, 2))),
    "an item ended by hand": lambda broker, batch: broker.fetch(
        broker.redis.hset(broker.keys("job", item_id(batch, 2)), mapping={"status": "succeeded", "hold": 0})
    ),
    "no posting of its hold": posting_of("hold"),
    "no posting of a capture": posting_of("capture"),
    "no posting of a void": posting_of("void"),
}


@pytest.mark.parametrize("drift", BATCH_DRIFTS)
async def test_the_audit_notices_in_a_batch(broker: Broker, drift: str) -> None:
    """Two items have ended, three are in line, one is not."""
    bench = BatchBench(await Ring(broker).open("ann"))
    batch = await bench.paid(6)
    await bench.batches.feed(batch, 5)
    await bench.serve(2)
    assert (await audit(broker)).clean
    await BATCH_DRIFTS[drift](broker, batch)
    assert (await audit(broker)).problems


@pytest.mark.parametrize("field", ["hold", "captured twice"])
async def test_the_audit_notices_in_a_batch_that_has_ended(broker: Broker, field: str) -> None:
    bench = BatchBench(await Ring(broker).open("ann"))
    batch = await bench.paid(2)
    await bench.fed(batch)
    await bench.serve(2)
    assert (await audit(broker)).clean
    if field == "hold":
        await changed("batch", "hold", batch)(broker, batch)
    else:
        (ledger, book, account) = (
            broker.keys("ledger", "ann"),
            broker.keys("books"),
            broker.keys("account", "ann"),
        )
        twice = {"kind": "capture", "source": "held", "target": "revenue", "amount": 1, "job": item_id(batch, 0),
                 "memo": "", "at": 1, "batch": batch}  # fmt: skip
        await broker.fetch(broker.redis.xadd(ledger, twice))  # type: ignore[arg-type]
        await broker.fetch(broker.redis.hincrby(book, "revenue", 1))
        await broker.fetch(broker.redis.hincrby(account, "held", -1))
    (problem,) = (await audit(broker)).problems
    assert batch in problem


async def test_the_audit_passes_while_batches_are_at_work(broker: Broker) -> None:
    """Stored, charged, fed, answered, cancelled, ended: at no moment is any of it drift."""
    bench = BatchBench(await Ring(broker).open("ann"))
    done: Counter[str] = Counter()
    line = broker.keys("queue", MODEL)

    async def serve() -> None:
        for i in range(12):
            batch = await bench.paid(12)
            while (await bench.batches.feed(batch, 5))[0] is FeedState.MORE:
                await bench.serve(min(3, await broker.redis.zcard(line)))
                if i % 3 == 0:
                    await bench.batches.abandon("ann", batch)
            await bench.serve(await broker.redis.zcard(line))
            done["served"] += 1

    async def check() -> None:
        while done["served"] < 12:
            assert (await audit(broker)).problems == ()
            done["audits"] += 1

    await asyncio.gather(serve(), check(), check())
    assert done["audits"] >= 10


async def test_a_batch_that_goes_while_the_audit_looks_at_it_is_no_drift(
    timed_broker: Broker, clock: SimulatedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends, its time is over, and the first of its items are gone."""
    monkeypatch.setattr("herder.broker.SWEEP_LIMIT", 4)
    bench = BatchBench(await Ring(timed_broker).open("ann"))
    batch = await bench.paid(10)
    await bench.fed(batch)
    read = audit_holds._now

    async def read_and_end(*args: Any) -> Any:
        found = await read(*args)
        await bench.serve(10)
        clock.advance(timed_broker.settings.result_ttl_ms + 1)
        await timed_broker.sweep()
        return found

    monkeypatch.setattr(audit_holds, "_now", read_and_end)
    assert (await audit(timed_broker)).problems == ()
    assert await timed_broker.job(item_id(batch, 0)) is None
    assert await timed_broker.job(item_id(batch, 9)) is not None


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
