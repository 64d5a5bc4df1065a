"""No key without an expiry outlives what it is for; the scan that says so finds a key that was planted."""

from __future__ import annotations

import pytest

from herder.broker import Broker
from herder.clock import SimulatedClock
from herder.keys import TABLE, leaked
from herder.protocol import Outcome
from tests.integration.ring import MODEL, STATS, Ring


async def leaks(broker: Broker) -> list[str]:
    """Keys of this herd that should not be there."""
    redis, prefix = broker.redis, broker.keys.prefix
    found = [key.decode() async for key in redis.scan_iter(match=prefix + ":*", count=1_000)]
    assert found
    line = await redis.zrange(broker.keys("queue", MODEL), 0, -1)
    leased = await redis.zrange(broker.keys("leases"), 0, -1)
    live = frozenset(
        [member.decode().partition(":")[2] for member in line] + [job.decode() for job in leased]
    )
    return [key for key in found if leaked(prefix, key, await redis.pttl(key), live)]


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
    ["stray", "worker:w9", "job:gone", "input:gone", "events:gone", "idempotency:ann:k", "rate:somebody"],
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
    await ring.ledger.throttle("somebody", 60)
    redis, prefix = broker.redis, broker.keys.prefix
    seen = set()
    async for key in redis.scan_iter(match=prefix + ":*"):
        name = key.decode().removeprefix(prefix + ":").partition(":")[0]
        (kind,) = [kind for kind in TABLE.values() if kind.pattern.partition(":")[0] == name]
        assert (await redis.type(key)).decode() == kind.redis_type, key
        seen.add(name)
    assert {"job", "input", "events", "queue", "leases", "worker-jobs", "idempotency", "rate"} <= seen
