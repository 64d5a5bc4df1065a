"""What the prototype of this idea did wrong, each a test by its name: lost money, lost jobs, prices that only rose."""

from __future__ import annotations

from dataclasses import replace

import pytest

from herder.audit import audit
from herder.broker import Broker
from herder.clock import SimulatedClock
from herder.errors import HerderError, InsufficientFunds, NotFound, UnknownModel
from herder.lifecycle import Status
from herder.protocol import Lease, Outcome, SettleReply
from tests.integration.ring import MODEL, Ring


async def everything(broker: Broker) -> dict[bytes, bytes | None]:
    """All keys of this herd, byte for byte; the clock aside, which every script moves."""
    keys = [key async for key in broker.redis.scan_iter(match=broker.keys.prefix + ":*")]
    return {key: await broker.redis.dump(key) for key in keys if key != broker.keys("time").encode()}


async def test_an_under_payer_is_told_and_keeps_the_money(broker: Broker) -> None:
    ring = await Ring(broker).open("ann", funds=29)
    with pytest.raises(InsufficientFunds, match="costs 30 credits and 29 are available") as refused:
        await ring.submit("ann")
    assert refused.value.extra == {"needed": 30, "balance": 29}
    assert await ring.balances("ann") == (29, 0)
    assert (await audit(broker)).clean
    await ring.ledger.deposit("ann", 1, "the missing one")
    assert (await ring.submit("ann")).position == 0


async def test_a_missing_reference_changes_nothing(broker: Broker) -> None:
    """A job, an account or a model that does not exist: refused, and not a byte is different."""
    ring = await Ring(broker).open("ann")
    lease = await _leased(ring)
    before = await everything(broker)
    assert len(before) > 5
    with pytest.raises(NotFound):
        await broker.cancel("ann", "job_nobody_knows")
    with pytest.raises(NotFound):
        await ring.submit("nobody")
    with pytest.raises(UnknownModel):
        await ring.submit("ann", model="nobody")
    with pytest.raises(NotFound):
        await ring.ledger.deposit("nobody", 5, "d")
    gone = replace(lease, job_id="job_nobody_knows")
    assert await ring.settle(gone, 1) is SettleReply.STALE
    assert await ring.say(gone, "x") == "STALE"
    assert await broker.release("w1", [("job_nobody_knows", 1)], died=True) == (0, 0)
    assert await broker.job("job_nobody_knows") is None
    assert await everything(broker) == before


async def test_bad_fields_cost_nothing(broker: Broker) -> None:
    """A stale price, a fee above the balance, a number in Lua's way: refused before the first write."""
    ring = await Ring(broker).open("ann", funds=1_000)
    ask = await ring.ask("ann")
    before = await everything(broker)
    for bad in (
        replace(ask, terms=replace(ask.terms, fee=1_001)),
        replace(ask, terms=replace(ask.terms, fee=2**60)),
        replace(ask, model=""),
        replace(ask, account=""),
        replace(ask, account="ann:x"),
    ):
        with pytest.raises(HerderError):
            await broker.submit(bad)
    assert await everything(broker) == before


async def test_a_dead_workers_job_is_served_by_another(timed_broker: Broker, clock: SimulatedClock) -> None:
    """With a supervisor at once, without one after the lease; the client pays once and gets one answer."""
    ring = await Ring(timed_broker).open("ann", workers=("w1", "w2"))
    await timed_broker.sweep()
    lease = await _leased(ring)
    for supervised in (True, False):
        if supervised:
            await timed_broker.release("w1", None, died=True)
        else:
            clock.advance(timed_broker.settings.lease_ms)
            assert await timed_broker.sweep() == (1, 0)
        again = await ring.lease_one("w2")
        assert again.job_id == lease.job_id
        assert await ring.settle(again, 20, worker="w2") is SettleReply.OK
        assert await ring.settle(lease, 20) is SettleReply.STALE
        record = await timed_broker.job(lease.job_id)
        assert record is not None
        assert (record.status, record.captured) == (Status.SUCCEEDED, 30)
        lease = await _leased(ring)
    await timed_broker.cancel("ann", lease.job_id)
    await ring.settle(lease, 0, Outcome.CANCELLED)
    assert await ring.balances("ann") == (1_000_000 - 60 - 10, 0)
    assert len(await timed_broker.callbacks(10)) == 3


async def test_the_price_comes_down_again(timed_broker: Broker, clock: SimulatedClock) -> None:
    """An accepted bid raises the multiplier that is asked; while the line is empty it decays to 1."""
    half_life = timed_broker.settings.last_multiplier_half_life_ms
    ring = await Ring(timed_broker).open("ann", "bob")

    async def asked() -> int:
        state = await timed_broker.model_state(MODEL)
        assert state is not None
        return state.last_multiplier_milli

    assert await asked() == 1_000
    await ring.submit("ann", multiplier=3.0)
    await ring.submit("bob", multiplier=1.0, offered=False)
    assert await asked() == 1_000, "a bid that nobody has accepted yet"
    lease = await ring.lease_one()
    assert lease.account == "ann"
    clock.advance(10 * half_life)
    assert await asked() == 3_000, "the line is not empty"
    await ring.lease_one()
    assert await asked() == 3_000, "an automatic price holds nothing up and pulls nothing down"
    clock.advance(half_life)
    assert await asked() == 2_000
    waiting = await ring.submit("bob", multiplier=2.0, offered=False)
    clock.advance(half_life)
    assert await asked() == 2_000, "it waits while somebody does"
    await timed_broker.cancel("bob", waiting.job_id)
    clock.advance(half_life)
    assert await asked() == 1_500
    clock.advance(100 * half_life)
    assert await asked() == 1_000


async def test_an_early_stop_is_refunded(broker: Broker) -> None:
    """Twenty tokens are held, eight are produced: eight are paid, and the prompt fee."""
    ring = await Ring(broker).open("ann", funds=100)
    lease = await _leased(ring)
    assert await ring.balances("ann") == (70, 30)
    assert await ring.settle(lease, 8) is SettleReply.OK
    assert await ring.balances("ann") == (82, 0)


async def _leased(ring: Ring) -> Lease:
    await ring.submit("ann")
    return await ring.lease_one()
