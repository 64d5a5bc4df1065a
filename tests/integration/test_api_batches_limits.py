"""What a batch may not be, said with its item; and that others are served while one is taken."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import pytest

from herder.settings import Settings
from tests.integration.api import CARD, Front, open_front, problem
from tests.integration.batch_calls import LINES, posted
from tests.integration.file_calls import CHAT, chat, upload


async def test_unknown_models_and_texts_that_do_not_fit_are_named(front: Front) -> None:
    reply = await front.client.post("/v1/batches", json={"prompts": ["a"], "tokens": 20, "model": "gone"})
    problem(reply, 404, "unknown_model")
    items = [{"prompt": "a"}, {"prompt": "b", "model": "gone"}, {"prompt": "c"}]
    reply = await front.client.post("/v1/batches", json={"items": items, "tokens": 20})
    assert problem(reply, 422, "invalid_request")["errors"][0]["field"] == "item 1: model"
    longer: list[dict[str, Any]] = [{"prompt": "a"}, {"prompt": "b " * 4_000}, {"prompt": "c", "tokens": 510}]
    reply = await front.client.post("/v1/batches", json={"items": longer, "tokens": 20})
    errors = problem(reply, 422, "invalid_request")["errors"]
    assert [error["field"] for error in errors] == ["item 1", "item 2"]
    assert "do not fit the context" in errors[0]["message"]
    assert await front.balances() == (1_000, 0)


async def test_a_query_that_is_not_utf8_is_not_read_as_something_else(front: Front) -> None:
    for stop, status in (("%E9", 422), ("a%ED%A0%80", 422), ("%EF%BF%BD", 202), ("%C3%A9+%2B", 202)):
        url = f"/v1/batches?tokens=4&stop={stop}"
        reply = await front.client.post(url, content=b'{"prompt":"a"}', headers=LINES)
        assert reply.status_code == status, reply.text


async def test_a_template_may_refuse_an_item(front: Front) -> None:
    refusal = "{% if messages[0].content == 'no' %}{{ raise_exception('not this') }}{% endif %}"
    template = refusal + "yes{{ messages[0].content }}"
    await front.worker(replace(CARD, template=template))
    reply = await front.client.post("/v1/batches", json={"prompts": ["yes", "no", "yes", "no"], "tokens": 20})
    errors = problem(reply, 422, "invalid_request")["errors"]
    assert [error["field"] for error in errors] == ["item 1", "item 3"]
    assert "not this" in errors[0]["message"]


async def test_ten_thousand_and_one_get_advice(front: Front) -> None:
    reply = await front.client.post("/v1/batches", json={"prompts": ["a"] * 10_001, "tokens": 20})
    refusal = problem(reply, 422, "invalid_request")
    assert "upload JSON lines" in refusal["detail"]
    assert refusal["limit"] == 10_000


async def test_a_body_has_a_cap_of_its_own(settings: Settings) -> None:
    caps = {"body_bytes_max": 1_000, "batch_bytes_max": 5_000}
    async with open_front(settings.model_copy(update=caps)) as front:
        assert (await posted(front, {"prompts": ["a" * 100] * 20, "tokens": 1}))["total"] == 20
        body = {"prompts": ["a" * 100] * 60, "tokens": 1}
        refusal = problem(await front.client.post("/v1/batches", json=body), 413, "too_large")
        assert "HERDER_BATCH_BYTES_MAX" in refusal["detail"]

        async def undeclared() -> AsyncIterator[bytes]:
            for _ in range(60):
                yield b'{"prompt":"' + b"a" * 100 + b'"}\n'

        reply = await front.client.post("/v1/batches?tokens=1", content=undeclared(), headers=LINES)
        assert problem(reply, 413, "too_large")["limit"] == 5_000
        assert front.herd.batches_open == 0
        anonymous = await front.anonymous.post("/v1/batches", json=body)
        problem(anonymous, 413, "too_large")


async def test_only_so_many_are_read_at_once(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    going, reading = asyncio.Event(), asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b'{"prompt":"a"}\n'
        reading.set()
        await going.wait()

    monkeypatch.setattr("herder.api.state.PLACE_WAIT_S", 0.1)
    async with await front.account("bob", 1_000) as bob, await front.account("carol", 1_000) as carol:
        waiting: list[asyncio.Task[httpx.Response]] = []

        async def send(client: httpx.AsyncClient) -> httpx.Response:
            return await client.post("/v1/batches?tokens=1", content=slow(), headers=LINES)

        for client, open_ in ((front.client, 2), (bob, 4)):
            waiting += [asyncio.create_task(send(client)) for _ in range(2)]
            while front.herd.batches_open < open_:
                await reading.wait()
                await front.herd.broker.ping()
            refusal = problem(await send(client), 503, "overloaded")
            assert refusal["retry_after"] == 2
        problem(await send(carol), 503, "overloaded")
        for client in (front.client, bob, carol):
            reply = await client.post("/v1/batches", json={"prompts": ["a"], "tokens": 1})
            assert reply.status_code == 202, "a short one needs no place"
        monkeypatch.setattr("herder.api.state.PLACE_WAIT_S", 30)
        last = asyncio.create_task(send(carol))
        going.set()
        replies = await asyncio.gather(*waiting, last)
    assert [reply.status_code for reply in replies] == [202] * 5
    assert (front.herd.batches_open, front.herd.batches_of) == (0, {})


async def test_short_bodies_that_make_much_work_need_a_place(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thousands of items, or a file as large as a batch."""
    monkeypatch.setattr("herder.api.state.PLACE_WAIT_S", 0.05)
    await front.herd.ledger.deposit("alice", 10**6, None)
    sent = await upload(front, chat("a"))
    of_file = {"input_file_id": sent.json()["id"], "endpoint": CHAT, "completion_window": "24h"}
    front.herd.batches_open = 4
    for body, status in (
        ({"prompts": ["a"] * 150, "tokens": 1}, 202),
        ({"prompts": ["a"] * 201}, 503),
        (of_file, 503),
    ):
        assert (await front.client.post("/v1/batches", json=body)).status_code == status
    front.herd.batches_open = 0
    assert (await front.client.post("/v1/batches", json=of_file)).status_code == 200


async def test_twenty_short_batches_at_once_are_all_taken(front: Front) -> None:
    body = {"prompts": ["a"], "tokens": 1}
    replies = await asyncio.gather(*(front.client.post("/v1/batches", json=body) for _ in range(20)))
    assert {reply.status_code for reply in replies} == {202}


async def test_an_upload_that_never_ends_is_given_up(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("herder.api.large_bodies.UPLOAD_S_MAX", 0.2)

    async def endless() -> AsyncIterator[bytes]:
        yield b'{"prompt":"a"}\n'
        await asyncio.Event().wait()

    reply = await front.client.post("/v1/batches?tokens=1", content=endless(), headers=LINES)
    assert "did not come within" in problem(reply, 400, "bad_request")["detail"]
    assert front.herd.batches_open == 0


async def test_others_are_served_while_a_batch_is_taken(front: Front) -> None:
    """Many requests come and go between the start of a large batch and its end."""
    await front.herd.ledger.deposit("alice", 10**7, None)
    taking = asyncio.create_task(
        front.client.post("/v1/batches", json={"prompts": ["hello there"] * 5_000, "tokens": 20})
    )
    served = 0
    while not taking.done():
        assert (await front.client.get("/v1/account")).status_code == 200
        served += 1
    assert (await taking).status_code == 202
    assert served >= 10


async def test_full_redis_and_missing_workers(settings: Settings) -> None:
    async with open_front(settings.model_copy(update={"refuse_without_worker": True})) as front:
        await front.leave()
        body = {"prompts": ["a"], "tokens": 20}
        problem(await front.client.post("/v1/batches", json=body), 503, "no_worker")
        front.herd.full = True
        problem(await front.client.post("/v1/batches", json=body), 503, "overloaded")


@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "once"}])
async def test_faults_of_every_kind_are_told_together(front: Front, headers: dict[str, str]) -> None:
    """What is wrong in itself, what only the model says, and what its text is too long for; in order, and counted."""
    wrong: list[dict[str, Any]] = [
        {"prompt": "a", "tokens": 100_000},
        {"prompt": "fine"},
        {"prompt": "a", "logit_bias": {"100000000": 1}},
        {"prompt": ""},
        {"prompt": "a", "output_type": {"b": "nothing"}},
        {"prompt": "a", "model": "none"},
        {"prompt": "a", "template": "none"},
    ]
    body = {"items": wrong, "tokens": 5}
    document = problem(
        await front.client.post("/v1/batches", json=body, headers=headers), 422, "invalid_request"
    )
    assert [fault["field"].split(".")[0] for fault in document["errors"]] == [
        "item 0: tokens", "item 2: logit_bias", "item 3: prompt", "item 4: output_type", "item 5: model",
        "item 6: template",
    ]  # fmt: skip
    assert document["detail"].endswith("; and 3 more")
    assert await front.balances() == (1_000, 0)
    many = {"items": [{"prompt": ""}] * 30, "tokens": 5}
    document = problem(
        await front.client.post("/v1/batches", json=many, headers=headers), 422, "invalid_request"
    )
    assert len(document["errors"]) == 20
    assert document["detail"].endswith("; and at least 17 more")
