"""Money: integers that stay exact, deposits that count once, no balance below zero."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from herder.audit import audit
from herder.broker import Broker, connect
from herder.errors import Conflict, InsufficientFunds, InvalidRequest, NotFound
from herder.pricing import AMOUNT_LIMIT, Terms, capture
from herder.protocol import FinishReason, Outcome, Settlement, SettleReply
from herder.settings import Settings
from tests.integration.ring import Ring

_names = count()
ALL = AMOUNT_LIMIT - 1


async def test_a_deposit_counts_once(broker: Broker) -> None:
    ring = await Ring(broker).open("ann", funds=0)
    for _ in range(3):
        assert (await ring.ledger.deposit("ann", 50, "d1")).available == 50
    with pytest.raises(Conflict):
        await ring.ledger.deposit("ann", 51, "d1")
    assert (await ring.ledger.deposit("ann", 50, "d2")).available == 100
    assert (await ring.ledger.deposit("ann", 1, None)).available == 101
    postings, _ = await ring.ledger.postings("ann", before=None, limit=10)
    assert [p.amount for p in postings] == [1, 50, 50]


async def test_adjustments_never_reach_below_zero_or_what_is_held(broker: Broker) -> None:
    ring = await Ring(broker).open("ann", funds=100)
    await ring.submit("ann")  # holds 30
    with pytest.raises(InsufficientFunds):
        await ring.ledger.adjust("ann", -71, "too much")
    assert await ring.balances("ann") == (70, 30)
    assert (await ring.ledger.adjust("ann", -70, "all that is free")).available == 0
    with pytest.raises(NotFound):
        await ring.ledger.adjust("nobody", 1, "")
    for amount in (0, AMOUNT_LIMIT, -AMOUNT_LIMIT):
        with pytest.raises(InvalidRequest):
            await ring.ledger.adjust("ann", amount, "")
    for amount in (0, -1, AMOUNT_LIMIT):
        with pytest.raises(InvalidRequest):
            await ring.ledger.deposit("ann", amount, "d")
    assert (await audit(broker)).clean


async def test_the_largest_amounts_are_exact(broker: Broker) -> None:
    fee = 123_456_789_012_345
    ring = await Ring(broker).open("ann", "bob", funds=0)
    assert (await ring.ledger.deposit("ann", ALL, "all there is")).available == ALL == 9_007_199_254_740_991
    for account in ("ann", "bob"):
        with pytest.raises(InvalidRequest):
            await ring.ledger.deposit(account, 1, "one more")
    ask = await ring.ask("ann", tokens=1_000)
    terms = Terms(0, fee // 1_000, fee // 1_000 * 1_000, fee)
    await broker.submit(replace(ask, terms=terms))
    assert await ring.balances("ann") == (ALL - fee, fee)
    lease = await ring.lease_one()
    assert lease.terms == terms
    assert await ring.settle(lease, 777) is SettleReply.OK
    captured = capture(terms, 777)
    record = await broker.job(ask.job_id)
    assert record is not None
    assert (record.captured, record.refunded) == (captured, fee - captured)
    assert await ring.balances("ann") == (ALL - captured, 0)
    assert (await ring.ledger.adjust("ann", captured - ALL, "all of it")).available == 0
    report = await audit(broker)
    assert (report.problems, report.revenue, report.mint) == ((), captured, -captured)


async def test_a_fee_of_everything_and_one_more(broker: Broker) -> None:
    ring = await Ring(broker).open("ann", funds=ALL)
    ask = await ring.ask("ann")
    with pytest.raises(InsufficientFunds):
        await broker.submit(replace(ask, terms=replace(ask.terms, fee=AMOUNT_LIMIT)))
    await broker.submit(replace(ask, terms=replace(ask.terms, fee=ALL)))
    assert await ring.balances("ann") == (0, ALL)
    await broker.cancel("ann", ask.job_id)
    assert await ring.balances("ann") == (ALL, 0)


@pytest.mark.parametrize("captured", [-1, 31])
async def test_a_capture_outside_the_hold_is_our_own_mistake(broker: Broker, captured: int) -> None:
    ring = await Ring(broker).open("ann", funds=30)
    await ring.submit("ann")
    lease = await ring.lease_one()
    settlement = Settlement(
        lease.job_id, lease.attempt, Outcome.SUCCEEDED, "x", FinishReason.STOP, 5, 5, captured
    )
    with pytest.raises(AssertionError, match="OVERDRAWN"):
        await broker.settle("w1", settlement)
    assert await ring.balances("ann") == (0, 30)


amounts = st.one_of(st.integers(1, 100), st.integers(1, ALL))
moves = st.lists(
    st.one_of(
        st.tuples(st.just("deposit"), amounts, st.sampled_from(("a", "b", "c"))),
        st.tuples(st.just("adjust"), st.one_of(amounts, amounts.map(lambda a: -a)), st.just("")),
        st.tuples(st.just("job"), amounts, st.sampled_from(("settle", "fail", "cancel", "leave"))),
    ),
    max_size=12,
)


@given(moves)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_sequence_of_movements_adds_up(settings: Settings, moves: list[tuple[str, int, str]]) -> None:
    """Beside whole numbers in Python, which have no limit."""
    own = settings.model_copy(update={"redis_prefix": f"{settings.redis_prefix}-{next(_names)}"})
    asyncio.run(_play(own, moves))


async def _play(settings: Settings, moves: list[tuple[str, int, str]]) -> None:
    async with _open(settings) as ring:
        available = held = revenue = 0
        seen: dict[str, int] = {}
        for kind, amount, how in moves:
            minted = available + held + revenue
            if kind == "job":
                if available >= amount:
                    captured = await _job(ring, amount, how)
                    revenue += captured
                    held += amount if how == "leave" else 0
                    available -= amount if how == "leave" else captured
                continue
            fits = minted + amount < AMOUNT_LIMIT and available + amount >= 0
            try:
                if kind == "adjust":
                    await ring.ledger.adjust("ann", amount, "")
                else:
                    await ring.ledger.deposit("ann", amount, how)
            except Conflict:
                assert seen[how] != amount
            except (InvalidRequest, InsufficientFunds):
                assert not fits
            else:
                if how not in seen:
                    assert fits
                    available += amount
                    if kind == "deposit":
                        seen[how] = amount
            assert await ring.balances("ann") == (available, held)
        report = await audit(ring.broker)
        assert (report.problems, report.revenue) == ((), revenue)
        assert await ring.balances("ann") == (available, held)


async def _job(ring: Ring, fee: int, how: str) -> int:
    """One job of this fee, ended in this way (or left queued); returns what was captured."""
    ask = await ring.ask("ann", tokens=7)
    terms = Terms(1, 1, 8, fee)
    await ring.broker.submit(replace(ask, terms=terms))
    if how == "leave":
        # Out of the way of the next: nobody leases it.
        await ring.broker.lease("idle", ask.model, slots=1, kv_free=10_000, kv_total=10_000)
    elif how == "cancel":
        await ring.broker.cancel("ann", ask.job_id)
    else:
        await ring.settle(await ring.lease_one(), 3, Outcome.FAILED if how == "fail" else Outcome.SUCCEEDED)
    return capture(terms, 3) if how == "settle" else 0


@asynccontextmanager
async def _open(settings: Settings) -> AsyncIterator[Ring]:
    broker = await connect(settings)
    try:
        yield await Ring(broker).open("ann", funds=0)
    finally:
        await broker.close()
