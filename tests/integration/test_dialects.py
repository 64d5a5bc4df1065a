"""What all dialects do with a body: names, bids, how long an answer may be, and who gets what when nobody waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, Request

from herder.api.callers import Caller
from herder.broker import Broker
from herder.dialects.asking import Lenient, asked
from herder.dialects.attended import answered, bought, result_of
from herder.errors import RedisUnavailable
from herder.protocol import Outcome
from herder.settings import Settings
from tests.integration.api import CARD, MODEL, Front, open_front, problem

router = APIRouter()


class Question(Lenient):
    question: str
    length: int | None = None


@router.post("/v1/questions")
async def ask(request: Request, key: Caller) -> dict[str, Any]:
    """The smallest dialect there can be."""
    body = await asked(request, Question)
    names: Mapping[str, str] = {"tokens": "length", "prompt": "question"}
    fields = {"prompt": body.question, "raw": True, "tokens": body.length}
    sold = await answered(request, await bought(request, key, body, fields, names))
    return {"text": result_of(sold.record).text, **sold.headers}


@pytest.fixture
async def front(settings: Settings) -> AsyncIterator[Front]:
    names = ("tgi", "big=toy", "gone=nope", f"{MODEL}=nope")
    tiers = {"service_tier": ("flex=1", "priority=2.5"), "model_alias": names}
    async with open_front(settings.model_copy(update=tiers)) as front:
        front.app.include_router(router)
        yield front


async def _ask(front: Front, headers: dict[str, str] | None = None, **body: Any) -> httpx.Response:
    return await front.client.post("/v1/questions", json={"question": "hello", **body}, headers=headers)


async def _answered(front: Front, *, answer: str = "blue", tokens: int = 1, **asking: Any) -> httpx.Response:
    """Ask, with a worker that answers."""
    asked_ = asyncio.create_task(_ask(front, **asking))
    await front.until_waiting(1)
    await front.answer(answer, tokens)
    return await asyncio.wait_for(asked_, 10)


async def test_an_answer_is_waited_for_and_paid_for(front: Front) -> None:
    reply = await _answered(front, length=20, tokens=5)
    assert reply.json()["text"] == "blue"
    assert reply.json()["x-herder-fee"] == "15"
    assert reply.json()["x-herder-balance"] == "985"
    assert (await front.client.get(f"/v1/jobs/{reply.json()['x-herder-job-id']}")).json()["captured"] == 15
    assert await front.balances() == (985, 0)


async def test_nulls_and_fields_that_nobody_knows_are_nothing(front: Front) -> None:
    reply = await _answered(
        front, length=None, model=None, fee=None, service_tier=None, best_of=None, x={"y": 1}
    )
    assert reply.status_code == 200


@pytest.mark.parametrize("name", ["tgi", "", "big", MODEL, None])
async def test_names_of_the_default_model(front: Front, name: str | None) -> None:
    assert (await _answered(front, model=name, length=2)).status_code == 200


@pytest.mark.parametrize("name", ["gone", "other/model"])
async def test_a_model_that_is_not_there(front: Front, name: str) -> None:
    problem(await _ask(front, model=name, length=2), 404, "unknown_model")
    assert await front.balances() == (1000, 0)


@pytest.mark.parametrize(
    ("body", "headers", "fee"),
    [
        ({}, {"x-multiplier": "1.5"}, 45),
        ({"multiplier": 2}, {}, 60),
        ({"multiplier": 2}, {"x-multiplier": "2.0"}, 60),
        ({}, {"x-fee": "77"}, 77),
        ({"service_tier": "priority"}, {}, 75),
        ({"service_tier": "flex"}, {}, 30),
        ({"service_tier": "auto", "max_fee": 30}, {}, 30),
        ({"service_tier": "priority", "fee": 31}, {}, 31),
    ],
)
async def test_bids(front: Front, body: dict[str, Any], headers: dict[str, str], fee: int) -> None:
    reply = await _answered(front, length=20, tokens=20, headers=headers, **body)
    assert reply.json()["x-herder-fee"] == str(fee)


@pytest.mark.parametrize(
    ("body", "headers", "status", "code"),
    [
        ({}, {"x-multiplier": "much"}, 422, "invalid_request"),
        ({}, {"x-multiplier": "1}"}, 422, "invalid_request"),
        ({}, {"x-multiplier": '2,"x":3'}, 422, "invalid_request"),
        ({}, {"x-multiplier": "9" * 80}, 422, "invalid_request"),
        ({"multiplier": 2}, {"x-multiplier": "3"}, 422, "invalid_request"),
        ({"max_fee": 29}, {"x-max-fee": "99"}, 422, "invalid_request"),
        ({"max_fee": 29}, {"x-max-fee": "null"}, 422, "invalid_request"),
        ({}, {"x-fee": "true"}, 422, "invalid_request"),
        ({"service_tier": "scale", "multiplier": 2}, {}, 422, "invalid_request"),
        ({"multiplier": 0.5}, {}, 422, "invalid_request"),
        ({"service_tier": "scale"}, {}, 422, "invalid_request"),
        ({"max_fee": 29}, {}, 402, "max_fee_exceeded"),
        ({"fee": 2}, {}, 402, "fee_too_low"),
        ({"length": 0}, {}, 422, "invalid_request"),
        ({"length": 600}, {}, 422, "context_exceeded"),
        ({"length": "many"}, {}, 422, "invalid_request"),
    ],
)
async def test_what_is_refused_costs_nothing(
    front: Front, body: dict[str, Any], headers: dict[str, str], status: int, code: str
) -> None:
    document = problem(await _ask(front, headers, **{"length": 20, **body}), status, code)
    assert document["error"]["message"] == document["detail"]
    assert await front.balances() == (1000, 0)


async def test_two_ceilings_in_headers_are_refused(front: Front) -> None:
    headers = [("x-max-fee", "99"), ("x-max-fee", "9")]
    reply = await front.client.post(
        "/v1/questions", json={"question": "hello", "length": 20}, headers=headers
    )
    assert problem(reply, 422, "invalid_request")["errors"][0]["field"] == "x-max-fee"


@pytest.mark.parametrize("key", [None, "again"])
async def test_who_is_told_to_try_again_finds_the_answer(
    front: Front, monkeypatch: pytest.MonkeyPatch, key: str | None
) -> None:
    """While Redis is away a waiting call ends with a 503; what it waited for is there for the same key. Nobody can ask
    again for one without a key: it is cancelled."""
    headers = {"Idempotency-Key": key} if key else {}
    asked_ = asyncio.create_task(_ask(front, headers, length=20))
    await front.until_waiting(1)

    async def away(self: Broker, job_id: str) -> None:
        raise RedisUnavailable("gone")

    with monkeypatch.context() as patch:
        patch.setattr(Broker, "job", away)
        problem(await asyncio.wait_for(asked_, 20), 503, "redis_unavailable")
    if key is None:
        while await front.balances() != (1000, 0):
            await front.herd.broker.ping()
    else:
        reply = await _answered(front, headers=headers, length=20, tokens=20)
        assert (reply.status_code, await front.balances()) == (200, (970, 0))


async def test_a_fault_is_told_of_the_field_that_was_sent(front: Front) -> None:
    document = problem(await _ask(front, length=0), 422, "invalid_request")
    assert document["errors"][0]["field"] == "length"
    assert document["detail"].startswith("length: ")
    assert document["error"]["param"] == "length"


async def test_an_answer_of_no_named_length_takes_what_is_left(front: Front) -> None:
    """The default is 256 tokens, and the context 512."""
    asked_ = asyncio.create_task(_ask(front, question="a" * 400))
    await front.until_waiting(1)
    lease = await front.lease()
    assert lease.tokens <= CARD.context - 400 / CARD.max_piece_bytes
    assert lease.tokens >= CARD.context - 402
    await front.settle(lease, "blue", 1)
    assert (await asyncio.wait_for(asked_, 10)).status_code == 200


@pytest.mark.parametrize(
    ("reason", "again"), [("engine_error", None), ("schema_error", "false"), ("context_exceeded", "false")]
)
async def test_a_job_that_fails_is_refunded_and_said_to_have_failed(
    front: Front, reason: str, again: str | None
) -> None:
    asked_ = asyncio.create_task(_ask(front, length=20))
    await front.until_waiting(1)
    await front.settle(await front.lease(), "", 0, Outcome.FAILED, reason)
    reply = await asyncio.wait_for(asked_, 10)
    document = problem(reply, 500, "answer_failed")
    assert (document["reason"], reply.headers.get("x-should-retry")) == (reason, again)
    assert document["job_id"].startswith("job_")
    assert await front.balances() == (1000, 0)


async def test_a_job_that_its_owner_cancels_is_no_reason_to_try_again(front: Front) -> None:
    asked_ = asyncio.create_task(_ask(front, length=20))
    await front.until_waiting(1)
    (job,) = (await front.client.get("/v1/jobs")).json()["jobs"]
    await front.client.delete(f"/v1/jobs/{job['id']}")
    reply = await asyncio.wait_for(asked_, 10)
    problem(reply, 409, "conflict")
    assert reply.headers["x-should-retry"] == "false"
    assert await front.balances() == (1000, 0)


async def test_a_herder_that_stops_cancels_what_nobody_can_come_back_for(front: Front) -> None:
    asked_ = asyncio.create_task(_ask(front, length=20))
    await front.until_waiting(1)
    front.herd.stopping.set()
    problem(await asyncio.wait_for(asked_, 10), 503, "overloaded")
    while await front.balances() != (1000, 0):
        await front.herd.broker.ping()


async def test_a_job_whose_herder_has_died_is_cancelled_and_one_that_waits_is_not(settings: Settings) -> None:
    """Presence is half a second here; without anybody who keeps it the sweep cancels the job."""
    async with open_front(settings.model_copy(update={"presence_ms": 500})) as front:
        front.app.include_router(router)
        asked_ = asyncio.create_task(_ask(front, length=20))
        await front.until_waiting(1)
        before = (await front.client.get("/v1/jobs")).json()["jobs"][0]["submitted_ms"]
        while await front.herd.broker.now_ms() < before + 1_500:
            await front.herd.broker.sweep()
            assert not asked_.done()
        front.herd.attendance._names.clear()
        problem(await _until_done(front, asked_), 409, "conflict")
        assert await front.balances() == (1000, 0)


async def test_a_batch_whose_caller_waits_is_kept_as_a_job_is(settings: Settings) -> None:
    async with open_front(settings.model_copy(update={"presence_ms": 500})) as front:
        prompts = ["a", "b"]
        body = {"prompt": prompts, "max_tokens": 5}
        asked_ = asyncio.create_task(front.client.post("/v1/completions", json=body))
        await front.until_waiting(1)
        before = await front.herd.broker.now_ms()
        while await front.herd.broker.now_ms() < before + 1_500:
            await front.herd.broker.sweep()
        (batch,) = (await front.client.get("/v1/batches")).json()["batches"]
        assert batch["status"] == "running"
        for _ in prompts:
            await front.answer("blue")
        assert (await asyncio.wait_for(asked_, 10)).status_code == 200


async def test_of_two_who_wait_for_the_same_job_the_first_to_go_leaves_the_other_attended(
    front: Front,
) -> None:
    attendance = front.herd.attendance
    with attendance.of("job_1"):
        with attendance.of("job_1"):
            pass
        assert list(attendance._names) == ["job_1"]
    assert list(attendance._names) == []


async def _until_done(front: Front, asked_: asyncio.Task[httpx.Response]) -> httpx.Response:
    while not asked_.done():
        await front.herd.broker.sweep()
    return asked_.result()


async def test_the_same_idempotency_key_is_the_same_answer(front: Front) -> None:
    headers = {"Idempotency-Key": "one"}
    first = await _answered(front, length=20, headers=headers)
    again = await _ask(front, headers, length=20)
    assert again.json() == first.json()
    assert [reply.headers.get("idempotent-replayed") for reply in (first, again)] == [None, "true"]
    problem(await _ask(front, headers, length=21), 409, "idempotency_conflict")


async def test_a_request_that_is_repeated_is_the_same_though_its_answer_was_made_to_fit(front: Front) -> None:
    asking: dict[str, Any] = {"question": "a" * 2_400, "headers": {"Idempotency-Key": "two"}}
    first = await _answered(front, **asking)
    again = await _ask(front, **asking)
    assert again.json() == first.json()
    record = await front.herd.broker.job(first.json()["x-herder-job-id"])
    assert record is not None
    assert record.tokens < front.herd.settings.tokens_default
