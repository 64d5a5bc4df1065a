"""The client's batches against a real herder: every prompt answered once, whatever line breaks and whoever stops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import pytest

import llama_herder
from herder.broker import Broker
from herder.protocol import Outcome
from herder.settings import Settings
from llama_herder import AsyncHerder, BatchResult, Herder, _async, _batch_calls
from tests.integration.broken_lines import Cutting
from tests.integration.client_herd import FUNDS, Herd, running
from tests.integration.ring import CARD, STATS

PROMPTS = [f"prompt {n}" for n in range(12)]
FEE, CAPTURED = 50, 13
TEMPLATED = replace(CARD, template="{% for m in messages %}{{ m.content }}{% endfor %}")


async def work(herd: Herd, count: int, outcome: Outcome = Outcome.SUCCEEDED) -> None:
    """End so many jobs."""
    for _ in range(count):
        await herd.work(3, outcome)


async def all_of(results: AsyncIterator[BatchResult]) -> list[BatchResult]:
    return [result async for result in results]


@pytest.mark.parametrize("ordered", [True, False])
async def test_map_answers_every_prompt(herd: Herd, herder: AsyncHerder, ordered: bool) -> None:
    results = herder.map(PROMPTS, 40, ordered=ordered)
    found, _ = await asyncio.gather(all_of(results), work(herd, 12))
    assert sorted(result.index for result in found) == list(range(12))
    key = (lambda result: result.index) if ordered else (lambda result: result.cursor)
    assert found == sorted(found, key=key)
    assert {(r.status, r.text, r.fee, r.captured, r.refunded) for r in found} == {
        ("succeeded", "xxx", FEE, CAPTURED, FEE - CAPTURED)
    }
    assert results.batch is not None
    ended = await herder.batch_status(results.batch)
    assert (ended.status, ended.counts.succeeded, ended.captured, ended.held) == (
        "ended",
        12,
        12 * CAPTURED,
        0,
    )
    assert await herd.balance() == (FUNDS - 12 * CAPTURED, 0)


async def test_the_sync_client_in_a_thread(herd: Herd) -> None:
    items: Any = [
        "one",
        [{"role": "user", "content": "two"}],
        {"custom_id": "c", "prompt": "three", "tokens": 20, "metadata": {"a": "b"}},
    ]

    def ask() -> tuple[list[BatchResult], llama_herder.Job]:
        with Herder(herd.url, herd.key) as herder:
            found = list(herder.map(items, 40, multiplier=2, metadata={"for": "a test"}))
            return found, herder.job(found[2].job_id)

    await herd.ring.broker.register_worker("w1", TEMPLATED, STATS, None)
    (found, job), _ = await asyncio.gather(asyncio.to_thread(ask), work(herd, 3))
    assert [(r.index, r.custom_id, r.fee) for r in found] == [(0, None, 100), (1, None, 100), (2, "c", 60)]
    assert (job.custom_id, job.metadata, job.batch_id) == ("c", {"a": "b"}, job.raw["batch_id"])
    assert job.batch_id is not None
    assert job.batch_id.startswith("batch_")


async def test_json_lines_are_the_same_batch(
    herd: Herd, herder: AsyncHerder, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: Any = {
        "stop": ["a", "b"],
        "raw": True,
        "multiplier": 1.5,
        "metadata": {"für": "♥"},
        "top_p": 0.00001,
    }
    first = await herder.batch(PROMPTS, 40, idempotency_key="k", **options)
    monkeypatch.setattr(_batch_calls, "ITEMS_MAX", 2)
    again = await herder.batch(PROMPTS, 40, idempotency_key="k", **options)
    assert (again.id, again.total, again.fee) == (first.id, 12, 12 * 75)
    assert first.metadata == {"für": "♥"}
    assert [one.id for one in await herder.batches()] == [first.id]
    gone = await herder.cancel_batch(first)
    assert gone.status in ("cancelling", "ended")
    found = await all_of(herder.batch_results(first))
    assert {result.status for result in found} == {"cancelled"}
    assert len(found) == 12
    assert await herd.balance() == (FUNDS, 0)


async def test_refusals_name_items_and_charge_nothing(herd: Herd, herder: AsyncHerder) -> None:
    with pytest.raises(llama_herder.InvalidRequest, match="item 1: tokens") as wrong:
        await herder.batch(["a", {"prompt": "b", "tokens": 0}], 40)
    assert wrong.value.errors[0][0] == "item 1: tokens"
    with pytest.raises(llama_herder.InsufficientFunds) as poor:
        await herder.batch(["x"] * 101, 40)
    assert (poor.value.needed, poor.value.extra["affordable_items"]) == (5050, 100)
    assert await herd.balance() == (FUNDS, 0)
    some = await herder.batch(["x"] * 101, 40, charge="as_many_as_affordable")
    assert (some.total, some.refused, some.balance) == (100, 1, 0)
    await herder.cancel_batch(some)


@pytest.mark.usefixtures("hurried")
async def test_a_line_that_breaks_again_and_again_loses_nothing(herd: Herd) -> None:
    line = Cutting(0, 97, lost=2)
    async with AsyncHerder(herd.url, herd.key, transport=line) as herder:
        found, _ = await asyncio.gather(all_of(herder.map(PROMPTS, 40)), work(herd, 12))
        assert [result.index for result in found] == list(range(12))
        assert len(await herder.batches()) == 1
    cursors = [int(r.url.params["cursor"]) for r in line.requests if r.url.path.endswith("/results")]
    assert len(cursors) > 5
    assert cursors == sorted(cursors)
    assert await herd.balance() == (FUNDS - 12 * CAPTURED, 0)


async def test_results_outlive_the_herder(
    herd: Herd, settings: Settings, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The herder stops while somebody follows, and comes back on the same port."""
    away, back = asyncio.Event(), asyncio.Event()

    async def pause(seconds: float) -> None:
        away.set()
        await back.wait()

    monkeypatch.setattr(_async, "_sleep", pause)
    port = httpx.URL(herd.url).port
    async with AsyncHerder(herd.url, herd.key) as herder:
        following = asyncio.create_task(all_of(herder.map(PROMPTS, 40)))
        await work(herd, 5)
        await herd.stop()
        async with asyncio.timeout(30):
            await away.wait()
        async with running(settings, broker, port=port or 0, again=True) as again:
            back.set()
            await work(again, 7)
            async with asyncio.timeout(30):
                assert [result.index for result in await following] == list(range(12))
