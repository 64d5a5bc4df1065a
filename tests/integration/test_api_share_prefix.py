"""`share_prefix` on its way from a body to what the worker reads."""

from __future__ import annotations

from tests.integration.api import MODEL, Front, problem


async def test_nobody_shares_who_has_not_said_so(front: Front) -> None:
    await front.submit()
    assert (await front.lease()).brief.share_prefix is False
    await front.submit(share_prefix=True)
    assert (await front.lease()).brief.share_prefix is True


async def test_it_is_a_boolean_and_nothing_like_one(front: Front) -> None:
    for value in ("true", 1, None):
        reply = await front.client.post("/v1/jobs", json={"prompt": "a", "tokens": 5, "share_prefix": value})
        assert problem(reply, 422, "invalid_request")["errors"][0]["field"] == "share_prefix"


async def test_an_item_takes_it_over_from_its_batch(front: Front) -> None:
    items = [{"prompt": "a"}, {"prompt": "b", "share_prefix": False}]
    body = {"items": items, "tokens": 5, "raw": True, "share_prefix": True}
    assert (await front.client.post("/v1/batches", json=body)).status_code == 202
    lines = b'{"prompt": "c"}\n'
    kind = {"Content-Type": "application/jsonl"}
    query = {"tokens": "5", "raw": "true", "share_prefix": "true"}
    assert (
        await front.client.post("/v1/batches", content=lines, params=query, headers=kind)
    ).status_code == 202
    broker = front.herd.broker
    async with front.herd.bell.listen(broker.keys("queue_bell", MODEL)) as line:
        while await broker.fetch(broker.redis.zcard(broker.keys("queue", MODEL))) < 3:
            await line.next(0.1)
    briefs = [(await front.lease()).brief for _ in range(3)]
    assert {brief.prompt: brief.share_prefix for brief in briefs} == {"a": True, "b": False, "c": True}
