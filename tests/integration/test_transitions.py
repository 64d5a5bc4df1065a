"""Every row of the life of a job, on the real scripts: where it goes, and where the money goes."""

from __future__ import annotations

import pytest

from herder.audit import audit
from herder.broker import Broker, PricesChanged
from herder.clock import SimulatedClock
from herder.errors import (
    AccountSuspended,
    IdempotencyConflict,
    InsufficientFunds,
    NotFound,
    Overloaded,
    UnknownModel,
)
from herder.lifecycle import Status
from herder.protocol import EventKind, Outcome, RenewReply, SettleReply
from tests.integration.ring import MODEL, STATS, Ring

RUN_FEE = 30  # 10 + 1 × 20 tokens


async def status(broker: Broker, job_id: str) -> Status:
    record = await broker.job(job_id)
    assert record is not None
    return record.status


async def test_submit_holds_the_fee_and_settle_captures_what_was_used(broker: Broker) -> None:
    ring = await Ring(broker).open("alice", funds=100)
    accepted = await ring.submit("alice")
    assert await ring.balances("alice") == (70, RUN_FEE)
    lease = await ring.lease_one()
    assert await ring.say(lease, "hi", 0, 2) == "OK"
    assert await ring.settle(lease, 8) is SettleReply.OK
    record = await broker.job(accepted.job_id)
    assert record is not None
    assert (record.status, record.captured, record.refunded) == (Status.SUCCEEDED, 18, 12)
    assert await ring.balances("alice") == (82, 0)
    kinds = [event.kind for event in await broker.events(accepted.job_id)]
    assert kinds == [EventKind.QUEUED, EventKind.STARTED, EventKind.TOKENS, EventKind.DONE]
    assert [fields["job"] for _, fields in await broker.callbacks(10)] == [accepted.job_id]
    assert (await audit(broker)).clean


async def test_refusals_leave_no_trace(broker: Broker) -> None:
    ring = await Ring(broker).open("poor", funds=29)
    before = await broker.redis.dbsize()
    with pytest.raises(InsufficientFunds) as refused:
        await ring.submit("poor")
    assert (refused.value.extra["needed"], refused.value.extra["balance"]) == (30, 29)
    with pytest.raises(UnknownModel):
        await ring.submit("poor", model="nobody")
    with pytest.raises(NotFound):
        await ring.submit("stranger")
    with pytest.raises(PricesChanged):
        await ring.submit("poor", price_version=99)
    await ring.ledger.suspend("poor", suspended=True)
    with pytest.raises(AccountSuspended):
        await ring.submit("poor")
    assert await ring.balances("poor") == (29, 0)
    assert await broker.redis.dbsize() == before


async def test_idempotency_key_buys_once(broker: Broker) -> None:
    ring = await Ring(broker).open("alice", funds=100)
    first = await ring.submit("alice", idempotency_key="k1", request_hash="h")
    again = await ring.submit("alice", idempotency_key="k1", request_hash="h")
    assert (again.job_id, again.replayed) == (first.job_id, True)
    with pytest.raises(IdempotencyConflict):
        await ring.submit("alice", idempotency_key="k1", request_hash="other")
    assert await ring.balances("alice") == (70, 30)


async def test_the_same_job_id_again_is_not_sold_twice(broker: Broker) -> None:
    ring = await Ring(broker).open("alice", funds=100)
    ask = await ring.ask("alice")
    await broker.submit(ask)
    assert (await broker.submit(ask)).replayed
    assert await ring.balances("alice") == (70, 30)


async def test_a_full_backlog_refuses(broker: Broker) -> None:
    ring = await Ring(broker).open("alice")
    broker.settings = broker.settings.model_copy(update={"queue_depth_max": 2})
    await ring.submit("alice")
    await ring.submit("alice")
    with pytest.raises(Overloaded):
        await ring.submit("alice")


async def test_cancel_queued_refunds_everything(broker: Broker) -> None:
    ring = await Ring(broker).open("alice", "bob", funds=100)
    accepted = await ring.submit("alice")
    with pytest.raises(NotFound):
        await broker.cancel("bob", accepted.job_id)
    assert (await broker.cancel("alice", accepted.job_id)).status is Status.CANCELLED
    assert (await broker.cancel("alice", accepted.job_id)).status is Status.CANCELLED
    assert await ring.balances("alice") == (100, 0)
    assert await ring.lease() == []


async def test_cancel_running_captures_what_was_produced(broker: Broker) -> None:
    ring = await Ring(broker).open("alice", funds=100)
    accepted = await ring.submit("alice")
    lease = await ring.lease_one()
    assert (await broker.cancel("alice", accepted.job_id)).cancel_requested
    held = [(lease.job_id, lease.attempt)]
    assert await broker.renew("w1", MODEL, held, STATS) == {lease.job_id: RenewReply.CANCEL}
    assert await ring.say(lease, "hi", 0, 3) == "CANCEL"
    assert await ring.settle(lease, 3, Outcome.CANCELLED) is SettleReply.OK
    assert await ring.balances("alice") == (87, 0)
    assert await status(broker, accepted.job_id) is Status.CANCELLED


async def test_a_full_result_that_races_a_cancel_stays_succeeded(broker: Broker) -> None:
    ring = await Ring(broker).open("alice", funds=100)
    accepted = await ring.submit("alice")
    lease = await ring.lease_one()
    await broker.cancel("alice", accepted.job_id)
    assert await ring.settle(lease, 20) is SettleReply.OK
    assert await status(broker, accepted.job_id) is Status.SUCCEEDED


async def test_nobody_asked_for_a_cancelled_settlement(broker: Broker) -> None:
    ring = await Ring(broker).open("alice")
    await ring.submit("alice")
    lease = await ring.lease_one()
    with pytest.raises(AssertionError, match="NOT_FLAGGED"):
        await ring.settle(lease, 3, Outcome.CANCELLED)


async def test_failure_refunds_everything(broker: Broker) -> None:
    ring = await Ring(broker).open("alice", funds=100)
    accepted = await ring.submit("alice")
    assert await ring.settle(await ring.lease_one(), 5, Outcome.FAILED) is SettleReply.OK
    record = await broker.job(accepted.job_id)
    assert record is not None
    assert (record.status, record.error_code, record.refunded) == (Status.FAILED, "engine_error", 30)
    assert await ring.balances("alice") == (100, 0)


async def test_chunks_repeat_gap_and_go_stale(broker: Broker) -> None:
    ring = await Ring(broker).open("alice")
    accepted = await ring.submit("alice")
    lease = await ring.lease_one()
    assert await ring.say(lease, "a", 0, 2) == "OK"
    assert await ring.say(lease, "a", 0, 2) == "REPEAT"
    assert await ring.say(lease, "c", 5) == "GAP"
    assert await ring.say(lease, "b", 2) == "OK"
    assert await ring.say(lease, "b", 3, worker="w2") == "STALE"
    texts = [e.fields["text"] for e in await broker.events(accepted.job_id) if e.kind is EventKind.TOKENS]
    assert texts == ["a", "b"]


async def test_release_keeps_the_rank_and_counts_nothing(broker: Broker) -> None:
    ring = await Ring(broker).open("alice", "bob")
    first = await ring.submit("alice")
    lease = await ring.lease_one()
    await ring.submit("bob")
    assert await broker.release("w1", [(lease.job_id, lease.attempt)], died=False) == (1, 0)
    assert await broker.position(MODEL, first.job_id) == 0
    again = await ring.lease_one("w2")
    assert (again.job_id, again.attempt) == (first.job_id, 2)
    assert await ring.settle(lease, 5) is SettleReply.STALE
    assert await ring.settle(again, 5, worker="w2") is SettleReply.OK
    assert await ring.settle(again, 5, worker="w2") is SettleReply.REPEAT


async def test_a_flagged_job_never_goes_back_in_line(broker: Broker) -> None:
    ring = await Ring(broker).open("alice", funds=100)
    for died in (True, False):
        accepted = await ring.submit("alice")
        await ring.lease_one()
        await broker.cancel("alice", accepted.job_id)
        assert await broker.release("w1", None, died=died) == (1, 0)
        assert await status(broker, accepted.job_id) is Status.CANCELLED
    assert await ring.balances("alice") == (100, 0)


async def test_a_lapsed_lease_is_leased_again_and_the_late_result_refused(
    timed_broker: Broker, clock: SimulatedClock
) -> None:
    ring = await Ring(timed_broker).open("alice", workers=("w1", "w2"))
    await timed_broker.sweep()
    accepted = await ring.submit("alice")
    lease = await ring.lease_one("w1")
    clock.advance(timed_broker.settings.lease_ms + 1)
    assert await timed_broker.sweep() == (1, 0)
    again = await ring.lease_one("w2")
    assert await ring.settle(lease, 5) is SettleReply.STALE
    assert await ring.settle(again, 5, worker="w2") is SettleReply.OK
    kinds = [event.kind for event in await timed_broker.events(accepted.job_id)]
    assert EventKind.RESTARTED in kinds


async def test_a_late_renew_and_a_late_settle_of_the_current_attempt_count(
    timed_broker: Broker, clock: SimulatedClock
) -> None:
    ring = await Ring(timed_broker).open("alice")
    await timed_broker.sweep()
    accepted = await ring.submit("alice")
    lease = await ring.lease_one()
    clock.advance(timed_broker.settings.lease_ms + 1)
    assert await timed_broker.sweep() == (1, 0)
    assert await status(timed_broker, accepted.job_id) is Status.QUEUED
    replies = await timed_broker.renew("w1", MODEL, [(lease.job_id, 1)], STATS)
    assert replies[lease.job_id] is RenewReply.OK
    assert await status(timed_broker, accepted.job_id) is Status.RUNNING
    clock.advance(timed_broker.settings.lease_ms + 1)
    # In company or alone, a second lapse alone would be the end of it: this one settles late instead.
    await timed_broker.release("w1", [(lease.job_id, 1)], died=False)
    assert await ring.settle(lease, 5) is SettleReply.OK
    assert await ring.lease() == []


async def test_a_worker_that_is_late_again_and_again_is_no_evidence(
    timed_broker: Broker, clock: SimulatedClock
) -> None:
    ring = await Ring(timed_broker).open("alice")
    await timed_broker.sweep()
    accepted = await ring.submit("alice")
    lease = await ring.lease_one()
    for _ in range(3):
        clock.advance(timed_broker.settings.lease_ms + 1)
        assert await timed_broker.sweep() == (1, 0)
        replies = await timed_broker.renew("w1", MODEL, [(lease.job_id, 1)], STATS)
        assert replies[lease.job_id] is RenewReply.OK
    assert await status(timed_broker, accepted.job_id) is Status.RUNNING
    assert await ring.settle(lease, 5) is SettleReply.OK


async def test_two_deaths_alone_quarantine(broker: Broker) -> None:
    ring = await Ring(broker).open("alice", funds=100)
    accepted = await ring.submit("alice")
    for _ in range(2):
        await ring.lease_one()
        await broker.release("w1", None, died=True)
    record = await broker.job(accepted.job_id)
    assert record is not None
    assert (record.status, record.error_code) == (Status.FAILED, "quarantined")
    assert await ring.balances("alice") == (100, 0)


async def test_deaths_in_company_never_fail_a_job_but_separate_it(broker: Broker) -> None:
    ring = await Ring(broker).open("alice", "bob", workers=("w1", "w2"))
    jobs = {(await ring.submit("alice")).job_id, (await ring.submit("bob")).job_id}
    for _ in range(2):
        assert len(await ring.lease("w1", slots=4)) == 2
        await broker.release("w1", None, died=True)
    (alone,) = await ring.lease("w1", slots=4)
    assert await ring.lease("w1", slots=3) == []
    (other,) = await ring.lease("w2", slots=4)
    assert {alone.job_id, other.job_id} == jobs
    assert await ring.settle(alone, 1) is SettleReply.OK
    assert await ring.settle(other, 1, worker="w2") is SettleReply.OK


async def test_a_kill_is_half_the_evidence_of_a_crash(broker: Broker) -> None:
    """Nobody sends SIGKILL to himself: it takes four of them, alone, to hold a job responsible."""
    ring = await Ring(broker).open("alice")
    accepted = await ring.submit("alice")
    for _ in range(3):
        await ring.lease_one()
        await broker.release("w1", None, died=True, killed=True)
    assert await status(broker, accepted.job_id) is Status.QUEUED
    await ring.lease_one()
    assert await broker.release("w1", None, died=True, killed=True) == (1, 1)
    assert await status(broker, accepted.job_id) is Status.FAILED


async def test_after_a_restart_of_redis_nothing_lapses_for_one_lease(
    timed_broker: Broker, clock: SimulatedClock
) -> None:
    ring = await Ring(timed_broker).open("alice")
    await timed_broker.sweep()
    await ring.submit("alice")
    await ring.lease_one()
    clock.advance(60_000)
    await timed_broker.fetch(
        timed_broker.redis.hset(timed_broker.keys("server"), "run_id", "before the restart")
    )
    assert await timed_broker.sweep() == (0, 0)
    clock.advance(timed_broker.settings.lease_ms - 1)
    assert await timed_broker.sweep() == (0, 0)
    clock.advance(2)
    assert await timed_broker.sweep() == (1, 0)


async def test_an_ended_job_is_forgotten_after_its_time(timed_broker: Broker, clock: SimulatedClock) -> None:
    ring = await Ring(timed_broker).open("alice")
    accepted = await ring.submit("alice")
    await timed_broker.cancel("alice", accepted.job_id)
    assert len((await timed_broker.jobs("alice", before=None, limit=10))[0]) == 1
    clock.advance(timed_broker.settings.result_ttl_ms + 1)
    await timed_broker.sweep()
    assert await timed_broker.job(accepted.job_id) is None
    assert await timed_broker.redis.zcard(timed_broker.keys("account_jobs", "alice")) == 0
