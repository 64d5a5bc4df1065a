"""Steps: a batch is fed, cancelled and forgotten a little at a time, whatever comes between."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from herder.audit import audit
from herder.batches import FeedState, item_id
from herder.broker import Broker
from herder.clock import SimulatedClock
from herder.errors import NotFound, Overloaded, RedisUnavailable
from herder.feeding import Feeder, feed_round
from herder.lifecycle import Status
from herder.protocol import Outcome
from herder.settings import Settings
from tests.integration.batch_bench import FEE, BatchBench, item
from tests.integration.ring import MODEL, Ring

FUNDS = 100_000


@pytest.fixture
async def bench(broker: Broker) -> BatchBench:
    """Ann has credits; a worker is there."""
    return BatchBench(await Ring(broker).open("ann", "bob", funds=FUNDS))


async def clean(bench: BatchBench) -> None:
    assert (await audit(bench.ring.broker)).problems == ()


async def test_feeding_waits_for_room_in_line(settings: Settings, bench: BatchBench) -> None:
    bench.ring.broker.settings = settings.model_copy(update={"queue_depth_max": 4})
    bench.batches = type(bench.batches)(bench.ring.broker)
    batch = await bench.paid(10)
    assert await bench.fed(batch) is FeedState.FULL
    line = bench.ring.broker.keys("queue", MODEL)
    assert await bench.ring.broker.redis.zcard(line) == 4
    with pytest.raises(Overloaded):
        await bench.batches.charge(await bench.stored(1))
    for _ in range(5):
        await bench.serve(2)
        await bench.fed(batch)
        await clean(bench)
    assert (await bench.record(batch)).status == "ended"


async def test_a_batch_leaves_room_for_single_prompts(settings: Settings, bench: BatchBench) -> None:
    bench.ring.broker.settings = settings.model_copy(update={"queue_depth_max": 10})
    bench.batches = type(bench.batches)(bench.ring.broker)
    batch = await bench.paid(20)
    await feed_round(bench.batches, 5.0)
    assert (await bench.record(batch)).fed == 9
    await bench.ring.submit("bob")
    with pytest.raises(Overloaded):
        await bench.ring.submit("bob")


async def test_a_step_of_large_items_is_short(bench: BatchBench) -> None:
    charge = await bench.charge(6)
    large = [item(index, input='{"prompt":"' + "x" * 400_000 + '"}') for index in range(6)]
    await bench.batches.store("ann", charge.batch, 0, large)
    await bench.batches.charge(charge)
    assert await bench.batches.feed(charge.batch) == (FeedState.MORE, 3)
    assert await bench.fed(charge.batch) is FeedState.DONE


async def test_items_are_stored_in_steps_of_bytes_not_of_characters(
    bench: BatchBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[int] = []

    async def store(_: str, __: str, ___: int, step: list[str]) -> None:
        steps.append(len(step))

    monkeypatch.setattr(bench.batches, "_store", store)
    await bench.batches.store("ann", "batch_b", 0, [item(index, input="🦙" * 150_000) for index in range(3)])
    assert steps == [1, 1, 1]


@pytest.mark.parametrize("fed", [0, 3, 4, 10])
@pytest.mark.parametrize("running", [0, 2])
async def test_a_cancel_refunds_the_rest_at_any_step(bench: BatchBench, fed: int, running: int) -> None:
    batch = await bench.paid(10)
    if fed:
        assert (await bench.batches.feed(batch, fed))[1] == fed
    leases = await bench.ring.lease(slots=min(fed, running))
    await bench.batches.abandon("ann", batch)
    await bench.batches.abandon("ann", batch)  # safe to repeat
    state, steps = FeedState.MORE, 0
    while state is FeedState.MORE:
        state, _ = await bench.batches.feed(batch, 4)
        steps += 1
        await clean(bench)
    assert state is FeedState.DONE
    assert steps >= 3
    assert await bench.batches.waiting(10) == []
    record = await bench.record(batch)
    assert (record.fed, record.cancelled, record.running) == (10, 10 - len(leases), len(leases))
    assert record.hold == FEE * len(leases)
    for lease in leases:
        assert await bench.ring.say(lease, "x") == "CANCEL"
        await bench.ring.settle(lease, 1, Outcome.CANCELLED)
    record = await bench.record(batch)
    assert (record.status, record.cancelled, record.hold) == ("ended", 10, 0)
    assert record.captured == 11 * len(leases)
    assert await bench.ring.balances("ann") == (FUNDS - record.captured, 0)
    await bench.batches.abandon("ann", batch)  # an ended one stays as it is
    assert await bench.record(batch) == record
    await clean(bench)


async def test_an_item_that_went_back_in_line_while_its_batch_was_cancelled_ends(bench: BatchBench) -> None:
    batch = await bench.paid(2)
    await bench.fed(batch)
    (lease,) = await bench.ring.lease(slots=1)
    await bench.batches.abandon("ann", batch)
    await bench.ring.broker.release("w1", [(lease.job_id, lease.attempt)], died=True)
    await bench.fed(batch)
    assert (await bench.record(batch)).status == "ended"
    await clean(bench)


async def test_nothing_of_a_cancelled_batch_starts_any_more(bench: BatchBench) -> None:
    batch = await bench.paid(10)
    await bench.batches.feed(batch, limit=6)
    await bench.ring.submit("bob")
    await bench.batches.abandon("ann", batch)
    # Before the first step of the cancelling, and in the middle of it: the line is passed by, others are not.
    (lease,) = await bench.ring.lease(slots=10)
    assert lease.account == "bob"
    while (await bench.batches.feed(batch, limit=2))[0] is FeedState.MORE:
        assert await bench.ring.lease(slots=10) == []
    record = await bench.record(batch)
    assert (record.status, record.cancelled, record.captured) == ("ended", 10, 0)


async def test_nobody_else_cancels_it(bench: BatchBench) -> None:
    batch = await bench.paid(1)
    with pytest.raises(NotFound):
        await bench.batches.abandon("bob", batch)
    assert not (await bench.record(batch)).cancel_requested


async def test_an_ended_batch_goes_in_steps_when_its_time_is_over(
    timed_broker: Broker, clock: SimulatedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("herder.broker.SWEEP_LIMIT", 4)
    bench = BatchBench(await Ring(timed_broker).open("ann"))
    batch = await bench.paid(10)
    alone = (await bench.ring.submit("ann")).job_id
    await bench.fed(batch)
    await bench.serve(11)
    clock.advance(timed_broker.settings.result_ttl_ms - 1)
    await timed_broker.sweep()
    assert None not in await bench.statuses(batch)
    clock.advance(2)
    for _ in range(6):
        await timed_broker.sweep()
    assert await bench.batches.batch(batch) is None
    assert await bench.batches.batches("ann", before=None, limit=9) == ([], None)
    for index in range(10):
        assert await timed_broker.job(item_id(batch, index)) is None
    redis, keys = timed_broker.redis, timed_broker.keys
    left = [key async for key in redis.scan_iter(f"{keys.prefix}:*{batch.removeprefix('batch_')}*")]
    assert left == []
    assert await timed_broker.jobs("ann", before=None, limit=50) == ([], None)
    assert await redis.zcard(keys("ended")) == 0
    assert alone
    await clean(bench)


async def test_many_small_batches_go_as_fast_as_they_came(
    timed_broker: Broker, clock: SimulatedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One batch a sweep, and nothing behind it, were less than an account may make in the same time."""
    monkeypatch.setattr("herder.broker.SWEEP_LIMIT", 8)
    bench = BatchBench(await Ring(timed_broker).open("ann"))
    ended = timed_broker.keys("ended")
    for _ in range(3):
        await bench.fed(await bench.paid(2))
        await bench.ring.submit("ann")
    await bench.serve(9)
    clock.advance(timed_broker.settings.result_ttl_ms + 1)
    await timed_broker.sweep()
    assert await timed_broker.redis.zcard(ended) == 1, "eight of nine jobs, in batches and alone"
    await timed_broker.sweep()
    assert await timed_broker.redis.zcard(ended) == 0
    assert await timed_broker.jobs("ann", before=None, limit=50) == ([], None)
    await clean(bench)


async def test_a_batch_that_has_begun_to_go_is_gone(
    timed_broker: Broker, clock: SimulatedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("herder.broker.SWEEP_LIMIT", 4)
    bench = BatchBench(await Ring(timed_broker).open("ann"))
    batch = await bench.paid(10)
    await bench.fed(batch)
    await bench.serve(10)
    clock.advance(timed_broker.settings.result_ttl_ms + 1)
    await timed_broker.sweep()
    assert await bench.batches.batch(batch) is None
    await clean(bench)


async def test_a_round_feeds_all_that_wait(bench: BatchBench) -> None:
    made = [await bench.paid(100) for _ in range(3)]
    await bench.batches.abandon("ann", made[1])
    while await feed_round(bench.batches, 5.0):
        pass
    assert await bench.batches.waiting(10) == []
    statuses = [set(await bench.statuses(batch)) for batch in made]
    assert statuses == [{Status.QUEUED}, {Status.CANCELLED}, {Status.QUEUED}]
    await clean(bench)


async def test_a_batch_that_cannot_be_fed_holds_nobody_up(bench: BatchBench) -> None:
    broken, whole, later = [await bench.paid(3) for _ in range(3)]
    await bench.ring.broker.redis.delete(bench.ring.broker.keys("batch_items", broken))
    async with asyncio.timeout(20), Feeder(bench.batches) as feeder:
        feeder.want(broken)
        feeder.want(later)
        while (await bench.record(later)).fed < 3:
            pass
    await feed_round(bench.batches, 5.0)
    assert await bench.batches.waiting(10) == [broken]
    assert (await bench.record(whole)).fed == 3


async def test_many_feed_one_batch_and_each_item_joins_once(bench: BatchBench) -> None:
    batch = await bench.paid(200)
    async with Feeder(bench.batches) as one, Feeder(bench.batches) as two:
        one.want(batch)
        two.want(batch)
        await asyncio.gather(*(bench.fed(batch, limit) for limit in (1, 7, 64)))
    assert await bench.ring.broker.redis.zcard(bench.ring.broker.keys("queue", MODEL)) == 200
    assert len(set(await bench.serve(200))) == 200
    record = await bench.record(batch)
    assert (record.status, record.succeeded, record.captured) == ("ended", 200, 200 * 15)
    await clean(bench)


async def test_a_feeder_goes_on_when_redis_is_back(
    bench: BatchBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("herder.feeding.TRY_AGAIN_S", 0.01)
    feed, failures = bench.batches.feed, [1, 1, 1]

    async def failing(*args: Any, **more: Any) -> Any:
        if failures:
            failures.pop()
            raise RedisUnavailable("gone")
        return await feed(*args, **more)

    monkeypatch.setattr(bench.batches, "feed", failing)
    batch = await bench.paid(100)
    async with Feeder(bench.batches) as feeder:
        feeder.want(batch)
        while (await bench.record(batch)).fed < 100:
            pass
    assert failures == []
