"""Batches from files, in OpenAI's words: one charge, answers in the order of the input, every fault by its line."""

from __future__ import annotations

from typing import Any

import pytest

from herder.audit import audit
from herder.protocol import Outcome
from tests.integration.api import Front, problem
from tests.integration.batch_calls import posted, until_ended
from tests.integration.file_calls import (
    CHAT,
    COMPLETION,
    batch,
    chat,
    completion,
    ended,
    fed,
    lines_of,
    upload,
)


async def test_chats_are_bought_at_once_and_answered_in_the_order_of_the_file(front: Front) -> None:
    reply = await batch(front, chat("a"), "\n", chat("b", "hi"), chat("c"), metadata={"story": "12"})
    made = reply.json()
    assert (reply.status_code, made["object"], made["status"]) == (200, "batch", "in_progress")
    assert (made["endpoint"], made["completion_window"], made["metadata"]) == (CHAT, "24h", {"story": "12"})
    assert made["request_counts"] == {"total": 3, "completed": 0, "failed": 0}
    assert reply.headers["x-herder-fee"] == "90"
    assert await front.balances() == (910, 90)
    holds = (await front.client.get("/v1/account/ledger")).json()["entries"]
    assert [each["amount"] for each in holds if each["kind"] == "hold"] == [90]
    await fed(front, 3)
    leases = [await front.lease() for _ in range(3)]
    for lease, text in zip(reversed(leases), "321", strict=True):
        await front.settle(lease, text, 5)
    done = await ended(front, made)
    assert done["request_counts"] == {"total": 3, "completed": 3, "failed": 0}
    assert (done["error_file_id"], done["status"]) == (None, "completed")
    rows = await lines_of(front, done["output_file_id"])
    assert [(row["custom_id"], row["error"]) for row in rows] == [("a", None), ("b", None), ("c", None)]
    body = rows[0]["response"]["body"]
    assert (rows[0]["response"]["status_code"], body["object"]) == (200, "chat.completion")
    assert [row["response"]["body"]["choices"][0]["message"]["content"] for row in rows] == ["1", "2", "3"]
    shown = (await front.client.get(f"/v1/files/{done['output_file_id']}")).json()
    assert shown["purpose"] == "batch_output"
    assert shown["bytes"] == len((await front.client.get(f"/v1/files/{shown['id']}/content")).content)
    problem(await front.client.delete(f"/v1/files/{shown['id']}"), 409, "conflict")
    problem(await front.client.get(f"/v1/files/{shown['id'].replace('output', 'errors')}"), 404, "not_found")
    async with await front.account("bob", 0) as bob:
        problem(await bob.get(f"/v1/files/{shown['id']}/content"), 404, "not_found")
    assert await front.balances() == (955, 0)
    assert (await audit(front.herd.broker)).clean


async def test_completions_fail_one_by_one_and_their_errors_have_a_file(front: Front) -> None:
    made = (await batch(front, completion("a"), completion("b", ["twice"]), endpoint=COMPLETION)).json()
    await fed(front, 2)
    good, bad = await front.lease(), await front.lease()
    assert (good.brief.prompt, bad.brief.prompt) == ("once", "twice")
    problem(await front.client.get(f"/v1/files/file-output-{made['id'][6:]}"), 404, "not_found")
    await front.settle(good, " upon", 2)
    await front.settle(bad, "", 0, Outcome.FAILED)
    done = await ended(front, made)
    assert done["request_counts"] == {"total": 2, "completed": 1, "failed": 1}
    (row,) = await lines_of(front, done["output_file_id"])
    assert (row["custom_id"], row["response"]["body"]["choices"][0]["text"]) == ("a", " upon")
    (row,) = await lines_of(front, done["error_file_id"])
    assert (row["custom_id"], row["response"], row["error"]["code"]) == ("b", None, "engine_error")
    assert await front.balances() == (988, 0)


async def test_tools_and_tiers_come_back_with_the_answer(front: Front) -> None:
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
    made = (await batch(front, chat("a", tools=[tool], service_tier="priority"), chat("b"))).json()
    assert await front.balances() == (910, 90)
    await fed(front, 2)
    for _ in range(2):
        await front.answer('<tool_call>{"name": "look", "arguments": {}}</tool_call>')
    rows = await lines_of(front, (await ended(front, made))["output_file_id"])
    first, second = [row["response"]["body"] for row in rows]
    assert first["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "look"
    assert (first["service_tier"], second["service_tier"]) == ("priority", "default")
    assert second["choices"][0]["finish_reason"] == "stop"


async def test_a_bid_for_all_and_no_length_named(front: Front) -> None:
    made = await batch(front, chat("a", max_tokens=None), headers={"x-fee": "500"})
    assert made.headers["x-herder-fee"] == "500"
    assert (await front.lease()).tokens == 256


async def test_a_batch_is_cancelled_in_their_way_and_ours_in_ours(front: Front) -> None:
    made = (await batch(front, chat("a"), chat("b"))).json()
    await fed(front, 2)
    told = (await front.client.post(f"/v1/batches/{made['id']}/cancel")).json()
    assert told["status"] in ("cancelling", "cancelled")
    done = await ended(front, made)
    assert (done["status"], done["output_file_id"]) == ("cancelled", None)
    assert [row["error"]["code"] for row in await lines_of(front, done["error_file_id"])] == [
        "batch_cancelled"
    ] * 2
    assert await front.balances() == (1_000, 0)
    ours = await posted(front)
    told = (await front.client.post(f"/v1/batches/{ours['id']}/cancel")).json()
    assert told["status"] in ("cancelling", "ended")
    assert (await until_ended(front, ours))["counts"]["cancelled"] == 3
    problem(await front.client.post("/v1/batches/batch_9/cancel"), 404, "not_found")


async def test_a_list_has_theirs_in_their_words_and_goes_on_after_one(front: Front) -> None:
    theirs = [(await batch(front, chat(name))).json()["id"] for name in "ab"]
    *_, ours = [(await posted(front))["id"] for _ in range(3)]
    page = (await front.client.get("/v1/batches", params={"limit": 1})).json()
    assert ([each["id"] for each in page["batches"]], page["has_more"]) == ([ours], True)
    assert [each["id"] for each in page["data"]] == [theirs[1]]
    page = (await front.client.get("/v1/batches", params={"limit": 1, "cursor": page["next"]})).json()
    assert page["data"] == []
    page = (await front.client.get("/v1/batches", params={"limit": 4})).json()
    assert [each["id"] for each in page["batches"]][::3] == [ours, theirs[1]]
    page = (await front.client.get("/v1/batches", params={"after": ours, "limit": 3})).json()
    assert [each["id"] for each in page["data"]] == [theirs[1]]
    page = (await front.client.get("/v1/batches", params={"limit": 4})).json()
    assert ([each["id"] for each in page["data"]], page["has_more"]) == ([theirs[1]], True)
    rest = (await front.client.get("/v1/batches", params={"limit": 2, "after": theirs[1]})).json()
    assert ([each["id"] for each in rest["data"]], rest["has_more"]) == ([theirs[0]], False)


async def test_the_same_key_is_the_same_batch(front: Front) -> None:
    sent = (await upload(front, chat("a"))).json()["id"]
    body = {"input_file_id": sent, "endpoint": CHAT, "completion_window": "24h"}
    headers = {"Idempotency-Key": "one"}
    first, again = [await front.client.post("/v1/batches", json=body, headers=headers) for _ in range(2)]
    assert first.json()["id"] == again.json()["id"]
    assert again.headers["idempotent-replayed"] == "true"
    assert await front.balances() == (970, 30)


@pytest.mark.parametrize(
    ("line", "field"),
    [
        ("{\n", ""),
        ("[]\n", ""),
        ({"method": "POST", "url": CHAT, "body": {}}, "custom_id"),
        (chat("a") | {"custom_id": ""}, "custom_id"),
        (chat("b"), "custom_id"),
        (chat("a") | {"method": "GET"}, "method"),
        (completion("a"), "url"),
        (chat("a") | {"body": None}, "body"),
        (chat("a", messages=None), "body.messages"),
        (chat("a", messages=[{"role": "user", "content": 3}]), "body.messages.0.content"),
        (chat("a", max_tokens=0), "body.max_tokens"),
        (chat("a", max_tokens="many"), "body.max_tokens"),
        (chat("a", temperature=9), "body.temperature"),
        (chat("a", stream=True), "body.stream"),
        (chat("a", service_tier="gold"), "body.service_tier"),
        (chat("a", fee=10), "body.fee"),
        (chat("a", "word " * 4_000), ""),
    ],
)
async def test_a_fault_names_its_line_and_nothing_is_bought(front: Front, line: Any, field: str) -> None:
    found = problem(await batch(front, chat("b"), line), 422, "invalid_request")
    told = [fault["field"] for fault in found["errors"]]
    assert [each.partition(" (")[0] for each in told][:1] == [f"line 2: {field}" if field else "line 2"]
    assert await front.balances() == (1_000, 0)
    assert (await front.client.get("/v1/batches")).json()["batches"] == []


async def test_what_is_wrong_with_all_of_it(front: Front) -> None:
    sent = (await upload(front, chat("a"))).json()["id"]
    for body, status, code in (
        ({"input_file_id": sent, "endpoint": "/v1/embeddings"}, 422, "invalid_request"),
        ({"input_file_id": "file-9", "endpoint": CHAT}, 404, "not_found"),
        ({"input_file_id": None, "endpoint": CHAT}, 422, "invalid_request"),
        ({"input_file_id": sent}, 422, "invalid_request"),
    ):
        problem(await front.client.post("/v1/batches", json=body), status, code)
    problem(await batch(front, chat("a", model="nobody")), 404, "unknown_model")
    many = await batch(front, *[chat(str(n)) for n in range(40)])
    assert problem(many, 402, "insufficient_funds")["affordable_items"] == 33
    ours = {"prompts": ['"input_file_id"'], "tokens": 20}
    assert (await front.client.post("/v1/batches", json=ours)).status_code == 202
