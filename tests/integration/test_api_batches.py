"""`/v1/batches` from outside: submit, follow, list, cancel."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from herder.audit import audit
from herder.records import PostingKind
from tests.integration.api import CARD, Front, problem
from tests.integration.batch_calls import FEE, LINES, posted, results, until_ended, until_fed


async def test_a_batch_is_one_charge_and_many_jobs(front: Front) -> None:
    batch = await posted(front)
    assert (batch["status"], batch["total"], batch["fee"], batch["held"], batch["balance"]) == (
        "running", 3, 3 * FEE, 3 * FEE, 1_000 - 3 * FEE,
    )  # fmt: skip
    assert sum(batch["counts"].values()) == 3
    fed = await until_fed(front, batch)
    assert fed["counts"]["queued"] == 3
    jobs = (await front.client.get("/v1/jobs")).json()["jobs"]
    assert [job["batch_id"] for job in jobs] == [batch["id"]] * 3
    prompts = [(await front.lease()).brief.prompt for _ in range(3)]
    assert prompts == [f"<user>{text}</user><assistant>" for text in "abc"]
    await front.herd.broker.release("w1", None, died=False)
    for _ in range(3):
        await front.answer("blue", 1)
    ended = await until_ended(front, batch)
    assert ended["counts"]["succeeded"] == 3
    assert (ended["captured"], ended["refunded"], ended["held"], ended["completion_tokens"]) == (33, 57, 0, 3)
    assert ended["ended_ms"] >= ended["created_ms"]
    assert await front.balances() == (1_000 - 33, 0)
    lines = await results(front, batch)
    assert [(line["cursor"], line["index"], line["status"]) for line in lines] == [
        (1, 0, "succeeded"), (2, 1, "succeeded"), (3, 2, "succeeded"),
    ]  # fmt: skip
    assert lines[0]["result"]["text"] == "blue"
    assert (lines[0]["fee"], lines[0]["captured"], lines[0]["refunded"]) == (FEE, 11, 19)
    postings, _ = await front.herd.ledger.postings("alice", before=None, limit=100)
    assert [p.amount for p in postings if p.kind is PostingKind.HOLD] == [3 * FEE]
    assert (await audit(front.herd.broker)).clean


async def test_lines_with_options_in_the_query(front: Front) -> None:
    rows = [
        {"custom_id": "a", "prompt": "one"},
        {"custom_id": "b", "prompt": "two", "tokens": 5, "raw": True},
    ]
    text = "\n\n".join(json.dumps(row) for row in rows)
    reply = await front.client.post(
        "/v1/batches", params={"tokens": 20, "stop": ["x", "y"], "metadata": '{"run":"7"}'},
        content=text, headers=LINES,
    )  # fmt: skip
    batch = reply.json()
    assert (reply.status_code, batch["total"], batch["tokens"], batch["fee"]) == (202, 2, 25, 45)
    assert reply.headers["location"] == f"/v1/batches/{batch['id']}"
    assert batch["metadata"] == {"run": "7"}
    await until_fed(front, batch)
    leases = [await front.lease() for _ in range(2)]
    assert [(lease.brief.prompt, lease.tokens, lease.brief.stop) for lease in leases] == [
        ("<user>one</user><assistant>", 20, ("x", "y")), ("two", 5, ("x", "y")),
    ]  # fmt: skip
    for lease in reversed(leases):
        await front.settle(lease, "blue", 1)
    assert [(line["index"], line["custom_id"]) for line in await results(front, batch)] == [
        (1, "b"),
        (0, "a"),
    ]


async def test_a_cancel_refunds_what_has_not_started(front: Front) -> None:
    batch = await posted(front, {"prompts": ["a"] * 30, "tokens": 20})
    await until_fed(front, batch)
    lease = await front.lease()
    cancelled = (await front.client.delete(f"/v1/batches/{batch['id']}")).json()
    assert cancelled["status"] == "cancelling"
    while (now := (await front.client.get(f"/v1/batches/{batch['id']}")).json())["counts"]["cancelled"] < 29:
        assert now["status"] == "cancelling"
    await front.settle(lease, "bl", 1)
    ended = await until_ended(front, batch)
    assert (ended["counts"]["cancelled"], ended["counts"]["succeeded"]) == (29, 1)
    assert (ended["captured"], ended["refunded"]) == (11, 30 * FEE - 11)
    again = (await front.client.delete(f"/v1/batches/{batch['id']}")).json()
    assert again == ended
    assert (await audit(front.herd.broker)).clean


async def test_other_accounts_see_nothing_of_it(front: Front) -> None:
    batch = await posted(front)
    async with await front.account("bob", 100) as bob:
        for method, path in (("GET", ""), ("GET", "/results"), ("DELETE", "")):
            problem(await bob.request(method, f"/v1/batches/{batch['id']}{path}"), 404, "not_found")
        assert (await bob.get("/v1/batches")).json()["batches"] == []
    for name in ("batch_none", "job_1", "batch_a:b", "batch_é"):
        problem(await front.client.get(f"/v1/batches/{name}"), 404, "not_found")


async def test_items_of_many_kinds_keep_their_order(front: Front) -> None:
    await front.worker(replace(CARD, model="plain", template=None))
    items = [
        {"prompt": "a"}, {"prompt": "b", "raw": True}, {"messages": [{"role": "user", "content": "c"}]},
        {"prompt": "d", "model": "plain"}, {"prompt": "e", "model": "toy"},
    ]  # fmt: skip
    batch = await posted(front, {"items": items, "tokens": 20, "model": "toy"})
    await until_fed(front, batch)
    toys = [(await front.lease()).brief.prompt for _ in range(4)]
    assert toys == [f"<user>{c}</user><assistant>" if c != "b" else c for c in "abce"]
    (plain,) = await front.herd.broker.lease("w1", "plain", slots=1, kv_free=10**6, kv_total=10**6)
    assert plain.brief.prompt == "d"
    for item in ({"messages": [{"role": "user", "content": "c"}]},):
        reply = await front.client.post("/v1/batches", json={"items": [item], "tokens": 20, "model": "plain"})
        assert "has no chat template" in problem(reply, 422, "invalid_request")["detail"]


async def test_an_eta_counts_what_stands_before_the_last_item(front: Front) -> None:
    batch = await posted(front)
    broker = front.herd.broker
    await broker.fetch(
        broker.redis.hset(broker.keys("model", "toy"), mapping={"us_per_token": 10_000, "mean_tokens": 8})
    )
    await until_fed(front, batch)
    front.herd.market.forget()
    now = (await front.client.get(f"/v1/batches/{batch['id']}")).json()
    assert now["eta_ms"] == 3 * 80
    await front.submit(multiplier=10)
    front.herd.market.forget()
    now = (await front.client.get(f"/v1/batches/{batch['id']}")).json()
    assert now["eta_ms"] == 4 * 80


async def test_lists_have_pages(front: Front) -> None:
    made = [(await posted(front))["id"] for _ in range(3)]
    page = (await front.client.get("/v1/batches?limit=2")).json()
    rest = (await front.client.get("/v1/batches", params={"limit": 2, "cursor": page["next"]})).json()
    assert [b["id"] for b in page["batches"] + rest["batches"]] == made[::-1]
    assert rest["next"] is None


@pytest.mark.parametrize("per_item", [False, True])
async def test_a_batch_may_name_where_its_end_is_told(front: Front, per_item: bool) -> None:
    body = {
        "prompts": ["a", "b"],
        "tokens": 20,
        "webhook_url": "https://example.com/x?a=1",
        "webhook_per_item": per_item,
    }
    batch = await posted(front, body)
    assert batch["webhook_url"] == "https://example.com/x?a=1"
    await until_fed(front, batch)
    for _ in range(2):
        await front.answer()
    told = [fields for _, fields in await front.herd.broker.callbacks(10)]
    assert [("job" in fields, "webhook_url" in fields) for fields in told] == [
        (True, per_item), (True, per_item), (False, True),
    ]  # fmt: skip
    assert (told[2]["batch"], told[2]["webhook_url"]) == (batch["id"], "https://example.com/x?a=1")
    assert len({fields["endpoint"] for fields in told if "endpoint" in fields}) == 1
