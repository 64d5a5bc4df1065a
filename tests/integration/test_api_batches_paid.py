"""Batches and money: one charge, all or nothing or as far as it goes, once for each Idempotency-Key."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from herder.api import batch_items
from herder.audit import audit
from herder.batches import Batches
from herder.errors import RedisUnavailable
from tests.integration.api import Front, problem
from tests.integration.batch_calls import FEE, posted, until_ended, until_fed


async def test_a_static_fee_is_for_the_whole_batch(front: Front) -> None:
    batch = await posted(front, {"items": [{"prompt": "a", "tokens": t} for t in (1, 7, 20)], "fee": 100})
    assert (batch["base_fee"], batch["fee"]) == (58, 100)
    await until_fed(front, batch)
    leases = [await front.lease() for _ in range(3)]
    assert sorted(lease.terms.fee for lease in leases) == [18, 30, 52]
    for lease in leases:
        await front.settle(lease, "blue", lease.tokens)
    assert (await until_ended(front, batch))["captured"] == 100


async def test_an_automatic_price_is_taken_once_and_lowered_to_max_fee(front: Front) -> None:
    await front.submit(multiplier=2, tokens=20)
    await front.answer()
    front.herd.market.forget()
    dear = await posted(front)
    assert 3 * FEE < dear["fee"] <= 2 * 3 * FEE
    cheap = await posted(front, {"prompts": ["a", "b", "c"], "tokens": 20, "max_fee": 100})
    assert 98 <= cheap["fee"] <= 100
    own = await posted(front, {"items": [{"prompt": "a", "multiplier": 3}, {"prompt": "b"}], "tokens": 20})
    assert FEE * 4 < own["fee"] <= FEE * 5
    reply = await front.client.post("/v1/batches", json={"prompts": ["a"] * 3, "tokens": 20, "max_fee": 89})
    refusal = problem(reply, 402, "max_fee_exceeded")
    assert (refusal["needed"], refusal["base_fee"], refusal["fee_per_token"]) == (90, 90, 1)
    reply = await front.client.post("/v1/batches", json={"prompts": ["a"] * 3, "tokens": 20, "fee": 89})
    assert problem(reply, 402, "fee_too_low")["needed"] == 90


async def test_a_repetition_that_comes_while_the_first_is_being_priced_is_not_refused(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first takes the whole balance: the second must not be told that nothing was bought."""
    both, bought, real = asyncio.Event(), asyncio.Event(), batch_items.fitted_items
    came = 0

    async def fitted_items(*arguments: Any) -> Any:
        nonlocal came
        came += 1
        if came == 2:
            both.set()
            await bought.wait()
        await both.wait()
        return await real(*arguments)

    monkeypatch.setattr("herder.api.batch_purchase.fitted_items", fitted_items)
    body, headers = {"prompts": ["a"] * 33, "tokens": 20}, {"Idempotency-Key": "k"}
    replies = [
        asyncio.create_task(front.client.post("/v1/batches", json=body, headers=headers)) for _ in range(2)
    ]
    done, _ = await asyncio.wait(replies, timeout=20, return_when=asyncio.FIRST_COMPLETED)
    assert [task.result().status_code for task in done] == [202]
    bought.set()
    first, second = await asyncio.gather(*replies)
    assert (first.status_code, second.status_code) == (202, 202), second.text
    assert first.json()["id"] == second.json()["id"]
    assert {reply.headers.get("idempotent-replayed") for reply in (first, second)} == {None, "true"}
    assert await front.balances() == (1_000 - 33 * FEE, 33 * FEE)


async def test_all_or_nothing_says_how_many_would_do(front: Front) -> None:
    reply = await front.client.post("/v1/batches", json={"prompts": ["a"] * 40, "tokens": 20})
    refusal = problem(reply, 402, "insufficient_funds")
    assert (refusal["needed"], refusal["balance"], refusal["affordable_items"]) == (1_200, 1_000, 33)
    assert (refusal["base_fee"], refusal["set_prompt_fee"], refusal["fee_per_token"]) == (1_200, 10, 1)
    assert await front.balances() == (1_000, 0)
    assert (await front.client.get("/v1/batches")).json()["batches"] == []
    assert [
        key async for key in front.herd.broker.redis.scan_iter(f"{front.herd.broker.keys.prefix}:batch*")
    ] == [], "nothing is stored"


async def test_as_many_as_the_balance_buys(front: Front) -> None:
    body = {"prompts": ["a"] * 40, "tokens": 20, "charge": "as_many_as_affordable"}
    batch = await posted(front, body)
    assert (batch["total"], batch["refused"], batch["fee"], batch["balance"]) == (33, 7, 990, 10)
    refusal = problem(await front.client.post("/v1/batches", json=body), 402, "insufficient_funds")
    assert (refusal["needed"], refusal["balance"], refusal["affordable_items"]) == (FEE, 10, 0)
    assert refusal["base_fee"] == FEE
    await front.herd.ledger.deposit("alice", 990, None)
    limited = await posted(front, {**body, "max_fee": 100})
    assert (limited["total"], limited["refused"], limited["fee"]) == (3, 37, 90)
    reply = await front.client.post("/v1/batches", json={**body, "max_fee": 29})
    assert problem(reply, 402, "max_fee_exceeded")["needed"] == FEE
    spread = await posted(front, {**body, "fee": 2_000})
    assert (spread["total"], spread["fee"]) == (18, 900)
    assert (await audit(front.herd.broker)).clean


async def test_what_is_spent_meanwhile_is_counted_again(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at the balance and the charge somebody spends most of it."""
    store = Batches.store

    async def meddling(self: Batches, account: str, *more: Any) -> None:
        await store(self, account, *more)
        if (await front.balances())[0] == 1_000:
            await front.herd.ledger.adjust("alice", -800, "spent")

    monkeypatch.setattr(Batches, "store", meddling)
    batch = await posted(front, {"prompts": ["a"] * 40, "tokens": 20, "charge": "as_many_as_affordable"})
    assert (batch["total"], batch["refused"], batch["balance"]) == (6, 34, 20)
    await until_fed(front, batch)
    keys = front.herd.broker.keys
    assert not await front.herd.broker.redis.exists(keys("batch_items", batch["id"]))
    await front.herd.ledger.adjust("alice", 980, "back")
    reply = await front.client.post("/v1/batches", json={"prompts": ["a"] * 30, "tokens": 20})
    refusal = problem(reply, 402, "insufficient_funds")
    assert (refusal["balance"], refusal["affordable_items"]) == (200, 6)


async def test_prices_that_change_meanwhile_are_asked_again(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Batches.store
    changed: list[int] = []

    async def meddling(self: Batches, account: str, *more: Any) -> None:
        await store(self, account, *more)
        if not changed:
            changed.append(1)
            await front.herd.broker.set_prices(5, 2)

    monkeypatch.setattr(Batches, "store", meddling)
    batch = await posted(front)
    assert batch["fee"] == 3 * 45
    await until_fed(front, batch)
    lease = await front.lease()
    assert (lease.terms.fee, lease.terms.set_prompt_fee, lease.terms.fee_per_token) == (45, 5, 2)
    assert (await audit(front.herd.broker)).clean


async def test_the_same_key_is_the_same_batch(front: Front) -> None:
    key = {"Idempotency-Key": "k1"}
    first = await front.client.post("/v1/batches", json={"prompts": ["a"], "tokens": 20}, headers=key)
    again = await front.client.post(
        "/v1/batches", json={"tokens": 20, "items": [{"prompt": "a"}]}, headers=key
    )
    assert (again.status_code, again.json()["id"]) == (202, first.json()["id"])
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    other = await front.client.post("/v1/batches", json={"prompts": ["b"], "tokens": 20}, headers=key)
    problem(other, 409, "idempotency_conflict")
    assert await front.balances() == (1_000 - FEE, FEE)


async def test_a_key_of_a_job_is_none_of_a_batch(front: Front) -> None:
    job, batch = {"prompt": "a", "tokens": 20}, {"prompts": ["a"], "tokens": 20}
    for first, second in (("jobs", "batches"), ("batches", "jobs")):
        key = {"Idempotency-Key": f"{first}-{second}"}
        bodies = {"jobs": job, "batches": batch}
        assert (await front.client.post(f"/v1/{first}", json=bodies[first], headers=key)).status_code == 202
        reply = await front.client.post(f"/v1/{second}", json=bodies[second], headers=key)
        problem(reply, 409, "idempotency_conflict")
    assert await front.balances() == (1_000 - 2 * FEE, 2 * FEE)


async def test_a_rush_with_one_key_is_one_batch(front: Front) -> None:
    key, body = {"Idempotency-Key": "rush"}, {"prompts": ["a", "b"], "tokens": 20}
    replies = await asyncio.gather(
        *(front.client.post("/v1/batches", json=body, headers=key) for _ in range(4))
    )
    assert {reply.status_code for reply in replies} == {202}
    assert len({reply.json()["id"] for reply in replies}) == 1
    assert await front.balances() == (1_000 - 2 * FEE, 2 * FEE)


async def test_a_lost_reply_of_the_charge_is_no_second_batch(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    charge, lost = Batches.charge, [1]

    async def losing(self: Batches, given: Any) -> tuple[str, bool]:
        found = await charge(self, given)
        if lost.pop() if lost else 0:
            raise RedisUnavailable("gone")
        return found

    monkeypatch.setattr(Batches, "charge", losing)
    batch = await posted(front)
    assert await front.balances() == (1_000 - 3 * FEE, 3 * FEE)
    assert len((await front.client.get("/v1/batches")).json()["batches"]) == 1
    assert (await until_fed(front, batch))["counts"]["queued"] == 3


async def test_a_suspended_account_gets_no_batch(front: Front) -> None:
    await front.herd.ledger.suspend("alice", suspended=True)
    reply = await front.client.post("/v1/batches", json={"prompts": ["a"], "tokens": 20})
    problem(reply, 403, "account_suspended")
    assert await front.balances() == (1_000, 0)


async def test_a_replay_of_a_batch_that_is_gone(front: Front) -> None:
    key = {"Idempotency-Key": "gone"}
    batch = await posted(front, headers=key)
    await until_fed(front, batch)
    await front.herd.broker.redis.delete(front.herd.broker.keys("batch", batch["id"]))
    reply = await front.client.post(
        "/v1/batches", json={"prompts": ["a", "b", "c"], "tokens": 20}, headers=key
    )
    problem(reply, 409, "conflict")
