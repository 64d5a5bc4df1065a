"""Jobs and batches whose callers wait at a herder: renewed they run on, left alone they are cancelled and refunded."""

from __future__ import annotations

import pytest

from herder import broker as door
from herder.audit import audit
from herder.batches import item_id
from herder.broker import Broker
from herder.clock import SimulatedClock
from herder.doorbell import Doorbell
from herder.lifecycle import Status
from herder.protocol import JobRecord, Outcome, RenewReply, SettleReply
from tests.integration.batch_bench import FEE, BatchBench
from tests.integration.ring import MODEL, STATS, Ring

PRESENCE_MS = 15_000


async def present(broker: Broker) -> list[str]:
    """Who has a presence, by when it lapses."""
    return [name.decode() for name in await broker.redis.zrange(broker.keys("presence"), 0, -1)]


async def job(broker: Broker, job_id: str) -> JobRecord:
    """A job that is known."""
    record = await broker.job(job_id)
    assert record is not None
    return record


@pytest.fixture
async def ring(timed_broker: Broker, monkeypatch: pytest.MonkeyPatch) -> Ring:
    """One model, one worker, ann with 1000 credits; the sweep knows this life of Redis, and may pause."""
    monkeypatch.setattr(door, "SWEEP_PAUSE_MS", 10**9)
    ring = await Ring(timed_broker).open("ann", funds=1_000)
    await timed_broker.sweep()
    return ring


async def test_a_queued_job_that_nobody_renews_is_cancelled_and_refunded(
    ring: Ring, clock: SimulatedClock
) -> None:
    broker = ring.broker
    left = (await ring.submit("ann", presence_ms=PRESENCE_MS)).job_id
    plain = (await ring.submit("ann")).job_id
    assert await ring.balances("ann") == (940, 60)
    clock.advance(PRESENCE_MS - 1)
    await broker.sweep()
    assert (await job(broker, left)).status is Status.QUEUED
    clock.advance(1)
    await broker.sweep()
    ended = await job(broker, left)
    assert (ended.status, ended.captured, ended.refunded) == (Status.CANCELLED, 0, 30)
    assert (await job(broker, plain)).status is Status.QUEUED
    assert await ring.balances("ann") == (970, 30)
    told = [fields["job"] for _, fields in await broker.callbacks(10)]
    assert told == [left]
    assert (await audit(broker)).problems == ()


async def test_a_renewed_one_goes_on_and_its_end_is_the_end_of_its_presence(
    ring: Ring, clock: SimulatedClock
) -> None:
    broker = ring.broker
    job_id = (await ring.submit("ann", presence_ms=PRESENCE_MS)).job_id
    for _ in range(4):
        clock.advance(PRESENCE_MS - 1)
        assert await broker.present([job_id]) == set()
        await broker.sweep()
    lease = await ring.lease_one()
    assert await present(broker) == [job_id]
    assert await ring.settle(lease, 5) is SettleReply.OK
    assert await present(broker) == []
    assert await broker.present([job_id]) == {job_id}
    assert await present(broker) == []
    assert (await job(broker, job_id)).status is Status.SUCCEEDED


async def test_a_late_renewal_counts_as_long_as_nothing_was_cancelled(
    ring: Ring, clock: SimulatedClock
) -> None:
    broker = ring.broker
    job_id = (await ring.submit("ann", presence_ms=PRESENCE_MS)).job_id
    clock.advance(3 * PRESENCE_MS)
    assert await broker.present([job_id]) == set()
    await broker.sweep()
    assert (await job(broker, job_id)).status is Status.QUEUED


@pytest.mark.parametrize("same", [{"job_id": "job_again"}, {"idempotency_key": "again", "request_hash": "h"}])
async def test_who_submits_again_waits_from_then_on_and_puts_nothing_back(
    ring: Ring, clock: SimulatedClock, same: dict[str, str]
) -> None:
    broker = ring.broker
    first = await ring.submit("ann", presence_ms=PRESENCE_MS, **same)
    clock.advance(PRESENCE_MS - 1)
    assert (await ring.submit("ann", presence_ms=PRESENCE_MS, **same)).job_id == first.job_id
    clock.advance(PRESENCE_MS - 1)
    await broker.sweep()
    assert (await job(broker, first.job_id)).status is Status.QUEUED
    await ring.submit("ann", **same)  # by one who can come back: that keeps nobody here
    clock.advance(1)
    await broker.sweep()
    assert (await job(broker, first.job_id)).status is Status.CANCELLED
    assert (await ring.submit("ann", presence_ms=PRESENCE_MS, **same)).replayed
    assert await present(broker) == []


async def test_the_worker_is_rung_when_the_caller_of_what_it_runs_is_gone(
    ring: Ring, clock: SimulatedClock
) -> None:
    broker = ring.broker
    job_id = (await ring.submit("ann", presence_ms=6_000)).job_id
    await ring.lease_one()
    clock.advance(6_000)
    async with Doorbell(broker.redis) as bell, bell.listen(broker.keys("worker_bell", "w1")) as worker:
        await broker.sweep()
        assert await worker.next(10) == job_id.encode()


async def test_a_running_job_is_stopped_and_pays_for_what_was_produced(
    ring: Ring, clock: SimulatedClock
) -> None:
    broker = ring.broker
    job_id = (await ring.submit("ann", presence_ms=PRESENCE_MS)).job_id
    lease = await ring.lease_one()
    assert await ring.say(lease, "hello", count=5) == "OK"
    for _ in range(3):
        clock.advance(PRESENCE_MS // 3)
        assert (await broker.renew("w1", MODEL, [(job_id, 1)], STATS))[job_id] is RenewReply.OK
    assert await broker.sweep() == (0, 0)
    running = await job(broker, job_id)
    assert (running.status, running.cancel_requested) == (Status.RUNNING, True)
    assert await broker.present([job_id]) == {job_id}
    assert (await broker.renew("w1", MODEL, [(job_id, 1)], STATS))[job_id] is RenewReply.CANCEL
    assert await ring.say(lease, "x", first=5, count=2) == "CANCEL"
    assert await ring.settle(lease, 7, Outcome.CANCELLED) is SettleReply.OK
    ended = await job(broker, job_id)
    assert (ended.status, ended.captured, ended.refunded) == (Status.CANCELLED, 17, 13)
    assert await ring.balances("ann") == (983, 0)


async def test_a_batch_that_nobody_renews_is_abandoned_and_its_items_go_out_in_steps(
    ring: Ring, clock: SimulatedClock
) -> None:
    broker, bench = ring.broker, BatchBench(ring)
    batch = await bench.paid(5, presence_ms=PRESENCE_MS)
    await bench.batches.feed(batch, 2)
    first = await ring.lease_one()
    await ring.settle(first, 3)
    clock.advance(PRESENCE_MS - 1)
    assert await broker.present([], [batch]) == set()
    clock.advance(PRESENCE_MS - 1)
    await broker.sweep()
    assert not (await bench.record(batch)).cancel_requested
    clock.advance(1)
    await broker.sweep()
    assert (await bench.record(batch)).cancel_requested
    assert await broker.present([item_id(batch, 1)], [batch]) == {item_id(batch, 1), batch}
    assert await ring.lease() == []
    await bench.fed(batch)
    record = await bench.record(batch)
    assert (record.status, record.succeeded, record.cancelled) == ("ended", 1, 4)
    assert (record.captured, record.refunded) == (13, 5 * FEE - 13)
    assert await ring.balances("ann") == (1_000 - 13, 0)
    assert (await audit(broker)).problems == ()


async def test_a_batch_that_ends_has_no_presence_any_more(ring: Ring) -> None:
    broker, bench = ring.broker, BatchBench(ring)
    batch = await bench.paid(2, presence_ms=PRESENCE_MS)
    await bench.fed(batch)
    for lease in await ring.lease(slots=2):
        assert await present(broker) == [batch]
        await ring.settle(lease, 1)
    assert await present(broker) == []


async def test_after_a_restart_of_redis_a_herder_has_time_to_renew(ring: Ring, clock: SimulatedClock) -> None:
    broker = ring.broker
    renewed = (await ring.submit("ann", presence_ms=PRESENCE_MS)).job_id
    left = (await ring.submit("ann", presence_ms=PRESENCE_MS)).job_id
    clock.advance(60_000)
    await broker.fetch(broker.redis.hset(broker.keys("server"), "run_id", "before the restart"))
    await broker.sweep()
    clock.advance(broker.settings.presence_ms - 1)
    await broker.sweep()
    assert await broker.present([renewed, left]) == set()
    await broker.fetch(broker.redis.hset(broker.keys("server"), "run_id", "before another"))
    await broker.sweep()
    clock.advance(broker.settings.presence_ms)
    assert await broker.present([renewed]) == set()
    await broker.sweep()
    assert (await job(broker, renewed)).status is Status.QUEUED
    assert (await job(broker, left)).status is Status.CANCELLED


async def test_where_the_herd_stood_still_a_herder_has_time_to_renew(
    ring: Ring, clock: SimulatedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis that hung, a laptop that slept, a clock that was set: nobody could speak up meanwhile."""
    monkeypatch.setattr(door, "SWEEP_PAUSE_MS", 5_000)
    broker, presence_ms = ring.broker, ring.broker.settings.presence_ms
    renewed, left = [(await ring.submit("ann", presence_ms=PRESENCE_MS)).job_id for _ in range(2)]
    clock.advance(3_600_000)
    await broker.sweep()
    assert await broker.present([renewed, left]) == set()
    for passed_ms in range(1_000, PRESENCE_MS, 1_000):
        clock.advance(1_000)
        if passed_ms % 5_000 == 0:
            assert await broker.present([renewed]) == set()
        await broker.sweep()
        assert len(await present(broker)) == 2
    clock.advance(presence_ms - PRESENCE_MS + 1_000)
    await broker.sweep()
    assert await present(broker) == [renewed]
    assert (await job(broker, left)).status is Status.CANCELLED


async def test_one_sweep_cancels_at_most_so_many(
    ring: Ring, clock: SimulatedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "SWEEP_LIMIT", 2)
    jobs = [(await ring.submit("ann", presence_ms=PRESENCE_MS)).job_id for _ in range(5)]
    clock.advance(PRESENCE_MS)
    for left in (3, 1, 0):
        await ring.broker.sweep()
        assert len(await present(ring.broker)) == left
    assert {(await job(ring.broker, job_id)).status for job_id in jobs} == {Status.CANCELLED}


async def test_many_names_are_renewed_in_steps_and_none_in_none(
    ring: Ring, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "PRESENT_STEP", 2)
    jobs = [(await ring.submit("ann", presence_ms=PRESENCE_MS)).job_id for _ in range(3)]
    plain = (await ring.submit("ann")).job_id
    await ring.broker.present(jobs)  # Redis knows the script from then on
    before = await scripts(ring.broker)
    assert await ring.broker.present([*jobs, plain, "job_none"], ["batch_none"]) == {
        plain,
        "job_none",
        "batch_none",
    }
    assert await scripts(ring.broker) - before == 3
    assert await ring.broker.present([]) == set()
    assert await ring.broker.fetch(ring.broker.redis.zscore(ring.broker.keys("presence"), plain)) is None


async def scripts(broker: Broker) -> int:
    """Scripts that Redis has run."""
    stats = await broker.fetch(broker.redis.info("commandstats"))
    return int(stats["cmdstat_evalsha"]["calls"])


async def calls(broker: Broker) -> int:
    """Commands that scripts and clients have sent, but for the one that asks for this number."""
    stats = await broker.fetch(broker.redis.info("commandstats"))
    return sum(seen["calls"] for name, seen in stats.items() if name != "cmdstat_info")


async def test_a_job_without_presence_costs_no_call_more(ring: Ring) -> None:
    costs = {}
    for presence_ms in (0, PRESENCE_MS, 0, PRESENCE_MS):  # the first two load the scripts
        before = await calls(ring.broker)
        await ring.submit("ann", presence_ms=presence_ms)
        lease = await ring.lease_one()
        submitted = await calls(ring.broker)
        await ring.settle(lease, 3)
        costs[presence_ms] = (submitted - before, await calls(ring.broker) - submitted)
    (submit, settle), (submit_present, settle_present) = costs[0], costs[PRESENCE_MS]
    assert (submit_present - submit, settle_present - settle) == (1, 1)
