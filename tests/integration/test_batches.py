"""Batches on real scripts: one hold for all, each item a job, nothing charged that is not there."""

from __future__ import annotations

import pytest

from herder.audit import audit
from herder.batches import FeedState, PricesChanged, StoreLost, item_id
from herder.broker import Broker
from herder.errors import (
    AccountSuspended,
    IdempotencyConflict,
    InsufficientFunds,
    NotFound,
    UnknownModel,
)
from herder.lifecycle import Status
from herder.protocol import Outcome
from herder.records import PostingKind
from tests.integration.batch_bench import FEE, BatchBench, item
from tests.integration.ring import MODEL, Ring

FUNDS = 100_000


@pytest.fixture
async def bench(broker: Broker) -> BatchBench:
    """Ann has credits; a worker is there."""
    return BatchBench(await Ring(broker).open("ann", "bob", funds=FUNDS))


async def clean(bench: BatchBench) -> None:
    assert (await audit(bench.ring.broker)).problems == ()


async def test_one_hold_for_all_and_an_item_is_a_job(bench: BatchBench) -> None:
    batch = await bench.paid(3)
    assert await bench.ring.balances("ann") == (FUNDS - 3 * FEE, 3 * FEE)
    await clean(bench)
    assert await bench.fed(batch) is FeedState.DONE
    await clean(bench)
    (first, second, third) = await bench.serve(3, produced=5)
    assert [first, second, third] == [item_id(batch, index) for index in range(3)]
    record = await bench.record(batch)
    assert (record.status, record.succeeded, record.ended, record.hold, record.unfed_fee) == (
        "ended",
        3,
        3,
        0,
        0,
    )
    assert (record.captured, record.refunded, record.completion_tokens) == (45, 45, 15)
    assert await bench.ring.balances("ann") == (FUNDS - 45, 0)
    postings, _ = await bench.ring.ledger.postings("ann", before=None, limit=50)
    holds = [p for p in postings if p.kind is PostingKind.HOLD]
    assert [(p.amount, p.job_id, p.batch_id) for p in holds] == [(3 * FEE, batch, batch)]
    ends = [p for p in postings if p.kind in (PostingKind.CAPTURE, PostingKind.VOID)]
    assert {(p.job_id, p.batch_id) for p in ends} == {(job, batch) for job in (first, second, third)}
    job = await bench.ring.broker.job(second)
    assert job is not None
    assert (job.batch, job.batch_index, job.custom_id, job.account) == (batch, 1, "row-1", "ann")
    await clean(bench)


async def test_every_item_fails_alone(bench: BatchBench) -> None:
    batch = await bench.paid(3)
    await bench.fed(batch)
    leases = await bench.ring.lease(slots=3)
    outcomes = (Outcome.FAILED, Outcome.SUCCEEDED, Outcome.FAILED)
    for lease, outcome in zip(leases, outcomes, strict=True):
        await bench.ring.settle(lease, 5, outcome)
    assert await bench.statuses(batch) == [Status.FAILED, Status.SUCCEEDED, Status.FAILED]
    record = await bench.record(batch)
    assert (record.failed, record.succeeded, record.captured, record.refunded) == (2, 1, 15, 75)
    await clean(bench)


async def test_an_item_can_be_cancelled_alone(bench: BatchBench) -> None:
    batch = await bench.paid(2)
    await bench.fed(batch)
    await bench.ring.broker.cancel("ann", item_id(batch, 0))
    await bench.serve(1)
    record = await bench.record(batch)
    assert (record.status, record.cancelled, record.succeeded) == ("ended", 1, 1)
    assert record.captured + record.refunded == record.fee
    await clean(bench)


async def test_a_crash_between_store_and_charge_costs_nothing_and_expires(bench: BatchBench) -> None:
    charge = await bench.stored(3)
    assert await bench.ring.balances("ann") == (FUNDS, 0)
    assert await bench.batches.batch(charge.batch) is None
    redis, keys = bench.ring.broker.redis, bench.ring.broker.keys
    for name in ("batch", "batch_items"):
        assert 0 < await redis.pttl(keys(name, charge.batch)) <= 3_600_000
    assert await bench.batches.waiting(10) == []
    assert await bench.batches.feed(charge.batch) == (FeedState.UNKNOWN, 0)
    with pytest.raises(NotFound):
        await bench.batches.abandon("ann", charge.batch)
    await bench.batches.charge(charge)
    for name in ("batch", "batch_items"):
        assert await redis.pttl(keys(name, charge.batch)) == -1


async def test_what_was_stored_and_lost_is_not_charged_for(bench: BatchBench) -> None:
    charge = await bench.stored(300)
    await bench.ring.broker.redis.delete(bench.ring.broker.keys("batch_items", charge.batch))
    with pytest.raises(StoreLost):
        await bench.batches.charge(charge)
    assert await bench.ring.balances("ann") == (FUNDS, 0)


async def test_a_charge_is_safe_to_repeat(bench: BatchBench) -> None:
    charge = await bench.stored(2, idempotency_key="k", request_hash="h")
    assert await bench.batches.charge(charge) == (charge.batch, False)
    assert await bench.batches.charge(charge) == (charge.batch, False)
    again = await bench.stored(2, idempotency_key="k", request_hash="h")
    assert await bench.batches.charge(again) == (charge.batch, True)
    other = await bench.stored(2, idempotency_key="k", request_hash="other")
    with pytest.raises(IdempotencyConflict):
        await bench.batches.charge(other)
    assert await bench.ring.balances("ann") == (FUNDS - 2 * FEE, 2 * FEE)
    await bench.batches.store("ann", charge.batch, 0, [item(0, fee=1)])  # too late: paid for as it is
    await bench.fed(charge.batch)
    job = await bench.ring.broker.job(item_id(charge.batch, 0))
    assert job is not None
    assert job.fee == FEE


async def test_every_no_costs_nothing(bench: BatchBench) -> None:
    charge = bench.batches.charge
    with pytest.raises(InsufficientFunds) as poor:
        await charge(await bench.stored(1, fee=FUNDS + 1))
    assert poor.value.extra == {"needed": FUNDS + 1, "balance": FUNDS}
    with pytest.raises(UnknownModel, match="no model other"):
        await charge(await bench.stored(1, models=(MODEL, "other")))
    with pytest.raises(PricesChanged):
        await charge(await bench.stored(1, price_version=99))
    with pytest.raises(NotFound):
        await charge(await bench.stored(1, account="nobody"))
    await bench.ring.ledger.suspend("ann", suspended=True)
    with pytest.raises(AccountSuspended):
        await charge(await bench.stored(1))
    assert await bench.ring.balances("ann") == (FUNDS, 0)
    assert await bench.batches.waiting(10) == []


async def test_a_suspended_account_s_batch_goes_on(bench: BatchBench) -> None:
    """It was paid for: what was accepted is answered, as a suspended account's jobs are."""
    batch = await bench.paid(2)
    await bench.ring.ledger.suspend("ann", suspended=True)
    await bench.fed(batch)
    await bench.serve(2)
    assert (await bench.record(batch)).succeeded == 2


async def test_results_are_listed_in_the_order_of_their_ends(bench: BatchBench) -> None:
    batch = await bench.paid(5)
    await bench.fed(batch)
    leases = await bench.ring.lease(slots=5)
    for place in (3, 0, 4, 1, 2):
        await bench.ring.settle(leases[place], place)
    for first in range(6):
        read, rows = await bench.batches.ended_items(batch, first, 100)
        assert read == 5 - first
        assert [(place, index) for place, index, _ in rows] == list(enumerate((3, 0, 4, 1, 2)))[first:]
        assert [job.batch_index for _, _, job in rows] == [3, 0, 4, 1, 2][first:]
    assert len((await bench.batches.ended_items(batch, 1, 2))[1]) == 2


async def test_lists_are_paged_newest_first(bench: BatchBench) -> None:
    made = [await bench.paid(1) for _ in range(5)]
    page, after = await bench.batches.batches("ann", before=None, limit=2)
    assert [r.batch for r in page] == [made[4], made[3]]
    page, after = await bench.batches.batches("ann", before=after, limit=3)
    assert ([r.batch for r in page], after) == ([made[2], made[1], made[0]], None)
    assert await bench.batches.batches("bob", before=None, limit=3) == ([], None)
