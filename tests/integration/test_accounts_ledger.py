"""Accounts, postings, keys and rate limits of the ledger, on a real Redis."""

from __future__ import annotations

import pytest

from herder.broker import Broker
from herder.clock import SimulatedClock
from herder.errors import AccountSuspended, Conflict, NotFound
from herder.ledger import Ledger
from herder.records import PostingKind, Role
from tests.conftest import KEY_SECRET
from tests.integration.ring import Ring


async def test_accounts_are_made_once_and_listed_by_age(ledger: Ledger) -> None:
    for name in ("zoe", "ann"):
        record = await ledger.create_account(name)
        assert (record.account, record.available, record.held, record.suspended) == (name, 0, 0, False)
    with pytest.raises(Conflict):
        await ledger.create_account("zoe")
    assert {record.account for record in await ledger.accounts()} == {"zoe", "ann"}
    assert await ledger.account("nobody") is None
    for call in (ledger.suspend("nobody", suspended=True), ledger.deposit("nobody", 1, None)):
        with pytest.raises(NotFound):
            await call


async def test_a_suspended_account_submits_nothing_until_it_is_resumed(broker: Broker) -> None:
    ring = await Ring(broker).open("ann")
    accepted = await ring.submit("ann", idempotency_key="k", request_hash="h")
    assert (await ring.ledger.suspend("ann", suspended=True)).suspended
    with pytest.raises(AccountSuspended):
        await ring.submit("ann")
    # What it has paid for is served, and a lost reply is still answered.
    again = await ring.submit("ann", idempotency_key="k", request_hash="h")
    assert (again.job_id, again.replayed) == (accepted.job_id, True)
    await ring.settle(await ring.lease_one(), 3)
    assert not (await ring.ledger.suspend("ann", suspended=False)).suspended
    await ring.submit("ann")


async def test_postings_tell_the_whole_story_page_by_page(broker: Broker) -> None:
    ring = await Ring(broker).open("ann", funds=100)
    accepted = await ring.submit("ann")
    await ring.settle(await ring.lease_one(), 8)
    await ring.ledger.adjust("ann", -2, "a correction")
    seen, cursor, pages = [], None, 0
    while True:
        page, cursor = await ring.ledger.postings("ann", before=cursor, limit=2)
        seen += page
        pages += 1
        if cursor is None:
            break
    assert pages == 3
    told = [(p.kind, p.source, p.target, p.amount, p.job_id) for p in reversed(seen)]
    job = accepted.job_id
    assert told == [
        (PostingKind.DEPOSIT, "mint", "available", 100, None),
        (PostingKind.HOLD, "available", "held", 30, job),
        (PostingKind.CAPTURE, "held", "revenue", 18, job),
        (PostingKind.VOID, "held", "available", 12, job),
        (PostingKind.ADJUST, "available", "mint", 2, None),
    ]
    assert seen[0].memo == "a correction"


async def test_a_key_opens_its_account_until_it_is_revoked(ledger: Ledger) -> None:
    await ledger.create_account("ann")
    await ledger.create_account("bob")
    record, secret = await ledger.create_key("ann", Role.CLIENT, "laptop")
    admin, _ = await ledger.create_key("ann", Role.ADMIN, "ops")
    assert (await ledger.authenticate(secret)) == record
    assert {key.key_id for key in await ledger.keys("ann")} == {record.key_id, admin.key_id}
    assert await ledger.keys("bob") == []
    with pytest.raises(NotFound):
        await ledger.revoke_key("bob", record.key_id)
    with pytest.raises(NotFound):
        await ledger.revoke_key("nobody", record.key_id)
    with pytest.raises(NotFound):
        await ledger.create_key("nobody", Role.CLIENT, "")
    assert (await ledger.authenticate(secret)) == record
    assert (await ledger.revoke_key("ann", record.key_id)).revoked
    assert await ledger.authenticate(secret) is None
    assert await ledger.authenticate("hk_nonsense") is None


async def test_the_secret_of_a_key_is_nowhere_in_redis(broker: Broker, ledger: Ledger) -> None:
    await ledger.create_account("ann")
    _, secret = await ledger.create_key("ann", Role.CLIENT, "laptop")
    found = [key async for key in broker.redis.scan_iter(match=broker.keys.prefix + ":*")]
    assert found
    for key in found:
        dumped = await broker.redis.dump(key)
        assert dumped is not None
        assert secret.encode() not in key + dumped
    # Another herder's secret opens nothing.
    assert await Ledger(broker, KEY_SECRET + b"!").authenticate(secret) is None


async def test_a_rate_limit_lets_a_minutes_worth_through_and_then_its_pace(
    timed_broker: Broker, clock: SimulatedClock
) -> None:
    ledger = Ledger(timed_broker, KEY_SECRET)
    waits = [await ledger.throttle("ann", 60) for _ in range(62)]
    assert waits[:60] == [0] * 60
    assert 0 < waits[60] <= 1_000
    assert waits[61] == waits[60], "a refused request takes nothing"
    assert await ledger.throttle("bob", 60) == 0
    clock.advance(waits[60])
    assert await ledger.throttle("ann", 60) == 0
    assert await ledger.throttle("ann", 60) > 0
