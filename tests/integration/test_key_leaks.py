"""No key without an expiry outlives what it is for; the scan that says so finds a key that was planted."""

from __future__ import annotations

import pytest

from herder.batches import item_id
from herder.broker import Broker
from herder.clock import SimulatedClock
from herder.keys import TABLE, leaked
from herder.protocol import Outcome
from tests.integration.batch_bench import BatchBench
from tests.integration.ring import MODEL, STATS, Ring


async def leaks(broker: Broker) -> list[str]:
    """Keys of this herd that should not be there."""
    redis, prefix = broker.redis, broker.keys.prefix
    found = [key.decode() async for key in redis.scan_iter(match=prefix + ":*", count=1_000)]
    assert found
    line = await redis.zrange(broker.keys("queue", MODEL), 0, -1)
    leased = await redis.zrange(broker.keys("leases"), 0, -1)
    live = [member.decode().partition(":")[2] for member in line] + [job.decode() for job in leased]
    # A batch is kept with all its items, from its charge to its purge.
    for key in found:
        if key.startswith(f"{prefix}:account-batches:"):
            for batch in await redis.zrange(key, 0, -1):
                total = int(
                    await broker.fetch(redis.hget(broker.keys("batch", batch.decode()), "total")) or 0
                )
                live += [batch.decode(), *(item_id(batch.decode(), index) for index in range(total))]
    return [key for key in found if leaked(prefix, key, await redis.pttl(key), frozenset(live))]


async def test_a_busy_herd_leaks_nothing(timed_broker: Broker, clock: SimulatedClock) -> None:
    broker, lease_ms = timed_broker, timed_broker.settings.lease_ms
    ring = await Ring(broker).open("ann", "bob", workers=("w1", "w2"))
    await broker.sweep()
    for account in ("ann", "bob") * 4:
        await ring.submit(account, idempotency_key=f"k{clock.now_ms}", request_hash="h")
        clock.advance(1)
    outcomes = (Outcome.SUCCEEDED, Outcome.FAILED)
    for lease, outcome in zip(await ring.lease("w1", slots=2), outcomes, strict=True):
        assert await ring.say(lease, "hello") == "OK"
        await ring.settle(lease, 3, outcome)
    for lease in await ring.lease("w1", slots=2):
        await broker.cancel(lease.account, lease.job_id)
    await broker.release("w1", None, died=True)
    await ring.lease("w2", slots=1)
    clock.advance(lease_ms + 1)
    assert (await broker.sweep())[0] == 1
    await ring.ledger.throttle("somebody", 60)
    await broker.leave("w1")
    assert await leaks(broker) == []
    # All jobs end; then what is kept of them has its time.
    for lease in await ring.lease("w2", slots=10):
        await ring.settle(lease, 1, worker="w2")
    assert await broker.redis.zcard(broker.keys("queue", MODEL)) == 0
    assert await leaks(broker) == []


async def test_a_batch_leaves_nothing(timed_broker: Broker, clock: SimulatedClock) -> None:
    """Stored and not paid for, running, cancelled, answered; and nothing of any of them once their time is over."""
    broker = timed_broker
    bench = BatchBench(await Ring(broker).open("ann"))
    await bench.stored(3)
    assert await leaks(broker) == []
    made = [await bench.paid(6, idempotency_key=f"k{i}", request_hash="h") for i in range(3)]
    assert await leaks(broker) == []
    await bench.batches.feed(made[0], 4)
    await bench.serve(2)
    await bench.batches.abandon("ann", made[1])
    for batch in made:
        await bench.fed(batch)
        assert await leaks(broker) == []
    await bench.serve(10)
    assert {(await bench.record(batch)).status for batch in made} == {"ended"}
    assert await leaks(broker) == []
    clock.advance(broker.settings.result_ttl_ms + 1)
    for _ in made:
        await broker.sweep()
    redis, prefix = broker.redis, broker.keys.prefix
    jobs = [key async for key in redis.scan_iter(f"{prefix}:*n[0-9]*")]
    assert [key for key in jobs if b":job:" in key or b":input:" in key or b":events:" in key] == []
    names = ("batch", "batch_items", "batch_results", "batches", "account_batches", "ended")
    for name in names:
        pattern = (
            broker.keys(name, "*")
            if name.startswith("batch_") or name == "batch"
            else broker.keys(name, "ann")
        )
        left = [key.decode() async for key in redis.scan_iter(pattern)]
        # What was stored and not paid for expires by itself.
        assert [key for key in left if await redis.pttl(key) == -1] == [], name
    assert await broker.jobs("ann", before=None, limit=9) == ([], None)


async def test_a_job_that_runs_alone_leaves_no_worker_behind(broker: Broker) -> None:
    """A worker that is off the list leases a job that is to run alone: its hash once came back without an expiry."""
    ring = await Ring(broker).open("ann", "bob")
    await ring.submit("ann")
    await ring.submit("bob")
    for _ in range(2):
        assert len(await ring.lease("w1", slots=2)) == 2
        await broker.release("w1", None, died=True)
    await broker.leave("w1")
    alone = await ring.lease("w1", slots=2)
    assert len(alone) == 1
    assert await ring.lease("w1", slots=2) == []
    assert await leaks(broker) == []


@pytest.mark.parametrize(
    "planted",
    [
        "stray",
        "worker:w9",
        "job:gone",
        "input:gone",
        "events:gone",
        "idempotency:ann:k",
        "rate:somebody",
        "batch:gone",
        "batch-items:gone",
        "batch-results:gone",
    ],
)
async def test_a_planted_key_is_found(broker: Broker, planted: str) -> None:
    await Ring(broker).open("ann")
    key = f"{broker.keys.prefix}:{planted}"
    await broker.redis.set(key, "x")
    assert await leaks(broker) == [key]
    if planted != "stray":
        await broker.redis.pexpire(key, 60_000)
        assert await leaks(broker) == []


async def test_every_key_of_a_busy_herd_has_the_type_of_the_table(broker: Broker) -> None:
    ring = await Ring(broker).open("ann")
    await ring.submit("ann", idempotency_key="k", request_hash="h")
    await ring.submit("ann")
    await ring.lease_one()
    await broker.renew("w1", MODEL, [], STATS)
    await broker.sweep()
    bench = BatchBench(ring)
    half = await bench.paid(2)
    await bench.batches.feed(half, 1)
    await broker.cancel("ann", item_id(half, 0))
    await ring.ledger.throttle("somebody", 60)
    redis, prefix = broker.redis, broker.keys.prefix
    seen = set()
    async for key in redis.scan_iter(match=prefix + ":*"):
        name = key.decode().removeprefix(prefix + ":").partition(":")[0]
        (kind,) = [kind for kind in TABLE.values() if kind.pattern.partition(":")[0] == name]
        assert (await redis.type(key)).decode() == kind.redis_type, key
        seen.add(name)
    assert {"job", "input", "events", "queue", "leases", "worker-jobs", "idempotency", "rate"} <= seen
    assert {"batch", "batch-items", "batch-results", "batches", "account-batches"} <= seen
