"""Lamini's lists of prompts: one charge, answers in order, and what is told of those that fail."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from herder.protocol import Lease, Outcome
from herder.settings import Settings
from tests.integration.api import MODEL, Front, open_front, problem

PATH = "/v1/completions"


@pytest.fixture
async def front(settings: Settings) -> AsyncIterator[Front]:
    async with open_front(settings, credits_=10_000) as front:
        yield front


async def _ask(front: Front, headers: dict[str, str] | None = None, **body: Any) -> httpx.Response:
    return await front.client.post(PATH, json={"model_name": MODEL, **body}, headers=headers)


async def _answered(front: Front, answers: list[str], **asking: Any) -> httpx.Response:
    """Ask, with a worker that gives these answers in the order of the line."""
    asked = asyncio.create_task(_ask(front, **asking))
    await front.until_waiting(1)
    for text in answers:
        await front.settle(await _leased(front), text, 1)
    return await asyncio.wait_for(asked, 10)


async def _leased(front: Front) -> Lease:
    """The next item, once it is in line."""
    while True:
        leases = await front.herd.broker.lease("w1", MODEL, slots=1, kv_free=10**6, kv_total=10**6)
        if leases:
            return leases[0]


async def _batch(front: Front) -> dict[str, Any]:
    """The only batch there is."""
    (batch,) = (await front.client.get("/v1/batches")).json()["batches"]
    assert isinstance(batch, dict)
    return batch


async def test_a_list_is_answered_in_its_order_in_one_charge(front: Front) -> None:
    asked = asyncio.create_task(_ask(front, prompt=["a", "b", "c"], max_new_tokens=4))
    await front.until_waiting(1)
    leases = [await _leased(front) for _ in range(3)]
    for lease in reversed(leases):
        await front.settle(lease, lease.brief.prompt.upper(), 1)
    reply = await asyncio.wait_for(asked, 10)
    assert reply.json() == [{"output": "A"}, {"output": "B"}, {"output": "C"}]
    batch = await _batch(front)
    assert reply.headers["x-herder-job-id"] == batch["id"]
    assert reply.headers["x-herder-fee"] == str(batch["captured"]) == "33"
    assert reply.headers["x-herder-balance"] == "9967"
    entries = (await front.client.get("/v1/account/ledger")).json()["entries"]
    assert [entry["kind"] for entry in entries].count("hold") == 1


async def test_a_list_of_one_is_a_list(front: Front) -> None:
    assert (await _answered(front, ["A"], prompt=["a"])).json() == [{"output": "A"}]


async def test_a_list_of_typed_answers(front: Front) -> None:
    reply = await _answered(front, ['{"age": 1}', '{"age": 2}'], prompt=["a", "b"], out_type={"age": "int"})
    assert reply.json() == [{"age": 1}, {"age": 2}]


async def test_a_list_in_which_one_fails_still_tells_what_was_paid_for(front: Front) -> None:
    """Their clients take `output` of every answer, or lose them all."""
    asked = asyncio.create_task(_ask(front, prompt=["a", "b"], max_new_tokens=4))
    await front.until_waiting(1)
    await front.settle(await _leased(front), "A", 1)
    await front.settle(await _leased(front), "", 0, Outcome.FAILED)
    reply = await asyncio.wait_for(asked, 10)
    assert reply.json() == [{"output": "A"}, {"output": None, "error": "it broke"}]
    assert await front.balances() == (10_000 - 11, 0)


async def test_a_typed_list_in_which_one_fails_has_null_there(front: Front) -> None:
    asked = asyncio.create_task(_ask(front, prompt=["a", "b"], out_type={"age": "int"}))
    await front.until_waiting(1)
    await front.settle(await _leased(front), "", 0, Outcome.FAILED)
    await front.settle(await _leased(front), '{"age": 2}', 1)
    assert (await asyncio.wait_for(asked, 10)).json() == [None, {"age": 2}]


async def test_a_list_in_which_all_fail_is_a_failure(front: Front) -> None:
    asked = asyncio.create_task(_ask(front, prompt=["a", "b"]))
    await front.until_waiting(1)
    for _ in range(2):
        await front.settle(await _leased(front), "", 0, Outcome.FAILED)
    problem(await asyncio.wait_for(asked, 10), 500, "answer_failed")
    assert await front.balances() == (10_000, 0)


async def test_a_list_that_its_owner_cancels(front: Front) -> None:
    asked = asyncio.create_task(_ask(front, prompt=["a", "b"]))
    await front.until_waiting(1)
    await front.client.delete(f"/v1/batches/{(await _batch(front))['id']}")
    problem(await asyncio.wait_for(asked, 10), 409, "conflict")
    assert await front.balances() == (10_000, 0)


async def test_a_herder_that_stops_cancels_a_list(front: Front) -> None:
    asked = asyncio.create_task(_ask(front, prompt=["a", "b"]))
    await front.until_waiting(1)
    front.herd.stopping.set()
    problem(await asyncio.wait_for(asked, 10), 503, "overloaded")
    while await front.balances() != (10_000, 0):
        await front.herd.broker.ping()


async def test_a_list_whose_herder_has_died_is_cancelled(settings: Settings) -> None:
    """Presence is half a second here; without anybody who keeps it the sweep cancels the batch."""
    async with open_front(settings.model_copy(update={"presence_ms": 500})) as front:
        asked = asyncio.create_task(_ask(front, prompt=["a", "b"], max_new_tokens=4))
        await front.until_waiting(1)
        before = (await _batch(front))["created_ms"]
        while await front.herd.broker.now_ms() < before + 1_500:
            await front.herd.broker.sweep()
            assert not asked.done()
        front.herd.attendance._names.clear()
        while not asked.done():
            await front.herd.broker.sweep()
            for batch in await front.herd.batches.waiting(10):
                await front.herd.batches.feed(batch)
        problem(asked.result(), 409, "conflict")
        assert await front.balances() == (1_000, 0)


async def test_the_same_idempotency_key_is_the_same_list(front: Front) -> None:
    headers = {"Idempotency-Key": "one"}
    first = await _answered(front, ["A", "B"], prompt=["a", "b"], headers=headers)
    again = await _ask(front, headers, prompt=["a", "b"])
    assert again.json() == first.json()
    assert [reply.headers.get("idempotent-replayed") for reply in (first, again)] == [None, "true"]
    problem(await _ask(front, headers, prompt=["a", "c"]), 409, "idempotency_conflict")


async def test_each_answer_of_a_list_is_as_long_as_its_prompt_leaves_room_for(front: Front) -> None:
    asked = asyncio.create_task(_ask(front, prompt=["a", "b" * 2_400]))
    await front.until_waiting(1)
    leases = [await _leased(front) for _ in range(2)]
    assert leases[0].tokens == 256
    assert leases[1].tokens == 512 - 2_400 / 8
    for lease in leases:
        await front.settle(lease, "x", 1)
    assert (await asyncio.wait_for(asked, 10)).status_code == 200


async def test_a_bid_goes_for_the_whole_list(front: Front) -> None:
    reply = await _answered(front, ["A", "B"], prompt=["a", "b"], max_new_tokens=1, headers={"X-Fee": "41"})
    assert reply.headers["x-herder-fee"] == "41"


async def test_many_short_lists_at_once_have_room_and_long_ones_few(front: Front) -> None:
    """A client of theirs sends ten of five prompts at once."""
    front.herd.batches_open = 4
    assert (await _answered(front, ["A"], prompt=["a"])).status_code == 200
    problem(await _ask(front, prompt=["a"] * 201), 503, "overloaded")
