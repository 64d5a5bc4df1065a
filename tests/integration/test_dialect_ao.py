"""`/ao/messages`: what an AO process sends and gets back; whose credits pay; what is refused, and costs nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from herder.protocol import Outcome
from herder.settings import Settings
from tests.e2e.receiver import receiving
from tests.integration.api import Front, open_front, problem
from tests.integration.post import Post, for_webhooks, hits

ASK = {
    "Target": "token-contract", "Action": "Transfer", "Recipient": "llama-herder", "Quantity": "30",
    "X-Prompt": "What is the meaning of life?", "X-Tokens": "20",
}  # fmt: skip


async def send(front: Front, message: dict[str, Any], **changed: Any) -> httpx.Response:
    """A message of alice's."""
    return await front.client.post("/ao/messages", json=message | changed)


async def messages(reply: httpx.Response, status: int = 200) -> list[dict[str, Any]]:
    """What was answered at once."""
    assert reply.status_code == status, reply.text
    found: list[dict[str, Any]] = reply.json()["messages"]
    return found


async def test_info_tells_the_prices_as_the_original_did(front: Front) -> None:
    await messages(await send(front, {"Action": "info "}))
    (told,) = await messages(await send(front, {"Target": "llama-herder", "Action": "Info"}))
    assert (told["Action"], told["From"], told["Target"]) == ("Info-Response", "llama-herder", "alice")
    expected = {"Base-Fee": "10", "Token-Fee": "1", "Last-Multiplier": "1", "Queue-Length": "0"}
    assert {name: told[name] for name in expected} == expected
    assert told["Name"] == "llama-herder"
    assert told["Version"]
    assert "toy" in told["Data"]
    assert {"name": "Base-Fee", "value": "10"} in told["Tags"]


@pytest.mark.parametrize("form", ["fields", "map", "list", "small"])
@pytest.mark.parametrize("action", ["Transfer", "Credit-Notice"])
async def test_a_prompt_that_is_paid_for_is_answered_by_its_reference(
    front: Front, form: str, action: str
) -> None:
    tags = {**ASK, "Action": action, "X-Reference": "7", "Sender": "mallory", "From": "root"}
    forms: dict[str, dict[str, Any]] = {
        "fields": tags,
        "map": {"Tags": tags},
        "list": {"Tags": [{"name": name, "value": value} for name, value in tags.items()], "Data": "x"},
        "small": {name.lower(): value for name, value in tags.items()} | {"quantity": 30, "x-tokens": 20},
    }
    reply = await front.client.post("/ao/messages", json=forms[form])
    assert await messages(reply, 202) == []
    assert reply.headers["x-herder-fee"] == "30"
    assert reply.headers["x-herder-balance"] == "970"
    assert await front.balances() == (970, 30)
    await front.answer("To be.", tokens=5)
    (told,) = (await front.client.get("/ao/messages", params={"for": "7"})).json()["messages"]
    assert (told["Action"], told["X-Reference"], told["Data"]) == ("Inference-Response", "7", "To be.")
    assert (told["Target"], told["X-Fee"], told["X-Refunded"]) == ("alice", "15", "15")
    assert told["X-Job"] == reply.json()["job_id"]
    assert await front.balances() == (985, 0)


async def test_the_formula_of_the_page_is_enough_and_less_stays_with_the_payer(front: Front) -> None:
    (told,) = await messages(await send(front, ASK, **{"Quantity": "29", "X-Reference": "a"}))
    assert (told["Action"], told["Recipient"], told["Quantity"]) == ("Transfer", "alice", "29")
    assert (told["X-Reason"], told["X-Needed"]) == ("Insufficient payment", "30")
    assert told["X-Reference"] == "a"
    assert await front.balances() == (1_000, 0)
    assert (await front.client.get("/v1/jobs")).json()["jobs"] == []
    await messages(await send(front, ASK, Quantity=told["X-Needed"]), 202)


async def test_a_quantity_is_a_bid_and_a_termination_a_stop(front: Front) -> None:
    await send(front, ASK, **{"Quantity": "45", "X-Termination": "\n"})
    lease = await front.lease()
    assert lease.brief.stop == ("\n",)
    assert "<user>What is the meaning of life?</user>" in lease.brief.prompt
    assert lease.terms.fee == 45


async def test_the_same_message_is_the_same_job_and_another_with_its_reference_is_not(front: Front) -> None:
    first = await send(front, ASK, **{"X-Reference": "0"})
    again = await send(front, ASK, **{"X-Reference": "0"})
    other = await send(front, ASK, **{"X-Reference": "0", "X-Prompt": "Why?"})
    assert first.json()["job_id"] == again.json()["job_id"] != other.json()["job_id"]
    assert await front.balances() == (940, 60)
    await front.answer("one")
    (told,) = await messages(await send(front, ASK, **{"X-Reference": "0"}))
    assert told["Data"] == "one"
    assert await front.balances() == (959, 30)
    await front.answer("two")
    both = (await front.client.get("/ao/messages", params={"for": "0"})).json()["messages"]
    assert [each["Data"] for each in both] == ["two", "one"]


async def test_without_a_reference_each_is_a_job_of_its_own(front: Front) -> None:
    ids = {(await send(front, ASK)).json()["job_id"] for _ in range(2)}
    assert len(ids) == 2
    await front.answer("one")
    (told,) = (await front.client.get("/ao/messages")).json()["messages"]
    assert "X-Reference" not in told
    assert told["X-Job"] in ids


async def test_answers_are_the_accounts_own_and_come_in_pages(front: Front) -> None:
    await front.submit()
    for reference in "abc":
        await send(front, ASK, **{"X-Reference": reference})
    for _ in range(4):
        await front.answer()
    first = (await front.client.get("/ao/messages", params={"limit": 2})).json()
    rest = (await front.client.get("/ao/messages", params={"limit": 2, "cursor": first["next"]})).json()
    assert [m["X-Reference"] for m in first["messages"] + rest["messages"]] == ["c", "b", "a"]
    assert rest["next"] is None
    named = (await front.client.get("/ao/messages", params={"for": "b"})).json()["messages"]
    assert [m["X-Reference"] for m in named] == ["b"]
    bob = await front.account("bob", 100)
    async with bob:
        assert (await bob.get("/ao/messages")).json() == {"messages": [], "next": None}


async def test_the_list_of_messages_shrinks_with_the_jobs(settings: Settings) -> None:
    async with open_front(settings.model_copy(update={"result_ttl_ms": 1_000})) as front:
        broker = front.herd.broker
        gone = [(await send(front, ASK)).json()["job_id"] for _ in range(2)]
        for _ in gone:
            await front.answer()
        while any([await broker.job(job_id) for job_id in gone]):
            await broker.ping()
        kept = (await send(front, ASK)).json()["job_id"]
        ids, _ = await broker.newest("account_ao", "alice", before=None, limit=9)
        assert ids == [kept]


async def test_what_failed_or_was_cancelled_is_a_transfer_back(front: Front) -> None:
    for reference in "fc":
        await send(front, ASK, **{"X-Reference": reference})
    await front.settle(await front.lease(), "", 0, Outcome.FAILED)
    waiting = [
        job for job in (await front.client.get("/v1/jobs")).json()["jobs"] if job["status"] == "queued"
    ]
    await front.client.delete(f"/v1/jobs/{waiting[0]['id']}")
    told = (await front.client.get("/ao/messages")).json()["messages"]
    assert [(m["Action"], m["Quantity"], m["Recipient"], m["X-Reason"]) for m in told] == [
        ("Transfer", "30", "alice", "The job was cancelled"),
        ("Transfer", "30", "alice", "it broke"),
    ]
    assert await front.balances() == (1_000, 0)


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"Action": None}, "Action"),
        ({"Action": "Burn"}, "Action"),
        ({"Action": "Inference"}, "Action"),
        ({"X-Prompt": None}, "X-Prompt"),
        ({"X-Prompt": ["a"]}, "X-Prompt"),
        ({"X-Tokens": "many"}, "X-Tokens"),
        ({"X-Tokens": "0"}, "X-Tokens"),
        ({"X-Tokens": 2.5}, "X-Tokens"),
        ({"Quantity": "-1"}, "Quantity"),
        ({"Quantity": "1.5"}, "Quantity"),
        ({"Quantity": None}, "Quantity"),
        ({"Quantity": "30000"}, "Quantity"),
        ({"X-Reference": "r" * 513}, "X-Reference"),
        ({"X-Termination": "s" * 300}, "X-Termination"),
        ({"reply_url": "ftp://example.com"}, "reply_url"),
        ({"Tags": [{"name": "Quantity", "value": "31"}]}, "Quantity"),
        ({"Tags": [{"name": "Quantity"}]}, "Tags.0"),
        ({"Tags": "Quantity"}, "Tags"),
    ],
)
async def test_what_is_wrong_is_named_and_costs_nothing(
    front: Front, changed: dict[str, Any], field: str
) -> None:
    found = problem(await send(front, ASK, **changed), 422, "invalid_request")
    assert [fault["field"].split(" ")[0] for fault in found["errors"]] == [field]
    assert await front.balances() == (1_000, 0)


async def test_who_has_no_key_no_credits_or_names_no_model(front: Front) -> None:
    problem(await front.anonymous.post("/ao/messages", json=ASK), 401, "missing_key")
    problem(await front.anonymous.get("/ao/messages"), 401, "missing_key")
    problem(await send(front, ASK, Quantity="1001"), 402, "insufficient_funds")
    problem(await send(front, ASK, **{"X-Model": "nobody"}), 404, "unknown_model")
    problem(await front.client.post("/ao/messages", content=b"[]"), 400, "bad_request")
    await messages(await send(front, ASK, **{"X-Model": "tgi"}), 202)


async def test_an_answer_goes_to_the_reply_url_signed_as_a_message(settings: Settings) -> None:
    quick = for_webhooks(settings)
    async with open_front(quick) as front:
        with receiving() as receiver:
            post = Post(front.herd.broker)
            for reference, text in (("short", "To be."), ("long", "é" * 30_000)):
                reply = await send(
                    front, ASK, **{"X-Reference": reference, "reply_url": f"{receiver.url}/ao"}
                )
                await messages(reply, 202)
                await front.answer(text)
            await send(front, ASK, **{"X-Reference": "bad", "reply_url": f"{receiver.url}/ao"})
            await front.settle(await front.lease(), "", 0, Outcome.FAILED)
            webhook = await post.webhook(f"{receiver.url}/ao")
            secret = await post.secret(webhook)
            async with post.couriers():
                await hits(receiver, 3)
            told = {hit.verified(secret)["X-Reference"]: hit for hit in receiver.hits}
        short, long, bad = (told[name].verified(secret) for name in ("short", "long", "bad"))
        assert (short["Action"], short["Data"], short["Target"]) == ("Inference-Response", "To be.", "alice")
        assert "X-Truncated" not in short
        assert (long["X-Truncated"], long["X-Url"]) == (
            "true",
            f"https://herd.example/v1/jobs/{long['X-Job']}",
        )
        assert len(told["long"].body) < 20_000 < 2.3 * len(told["long"].body)
        assert "é".startswith(long["Data"][:1])
        assert (bad["Action"], bad["Quantity"], bad["X-Reason"]) == ("Transfer", "30", "it broke")


async def test_an_accounts_default_address_hears_of_the_job(settings: Settings) -> None:
    async with open_front(for_webhooks(settings)) as front:
        with receiving() as receiver:
            await front.client.put("/v1/webhooks/default", json={"url": receiver.url})
            await send(front, ASK)
            await front.answer("To be.")
            post = Post(front.herd.broker)
            async with post.couriers():
                await hits(receiver, 1)
            event = receiver.hits[0].verified(await post.secret(await post.webhook(receiver.url)))
        assert event["type"] == "job.succeeded"


_TEXTS = st.one_of(
    st.none(), st.text(max_size=5), st.integers(), st.booleans(), st.sampled_from(["30", "20", "0"])
)
_NAMES = st.sampled_from([*ASK, "X-Reference", "X-Termination", "reply_url", "Model-ID", "X-Model", "Tags"])
_TAGS = st.dictionaries(_NAMES, _TEXTS, max_size=6)
_PAIRS = st.lists(st.one_of(_TEXTS, st.fixed_dictionaries({"name": _NAMES, "value": _TEXTS})), max_size=4)
_ACTIONS = st.sampled_from(["Info", "Transfer", "Credit-Notice", "Init"])


def test_no_message_is_a_500_or_loses_a_credit(settings: Settings) -> None:
    with asyncio.Runner() as runner:
        stack = contextlib.AsyncExitStack()
        front = runner.run(stack.enter_async_context(open_front(settings, credits_=100_000)))
        seen: set[int] = set()

        @given(fields=_TAGS, tags=st.one_of(_TEXTS, _TAGS, _PAIRS), action=_ACTIONS)
        @examples(max_examples=150, suppress_health_check=list(HealthCheck))
        def tried(fields: dict[str, Any], tags: Any, action: str) -> None:
            content = json.dumps({**ASK, **fields, "Tags": tags, "Action": action})
            reply = runner.run(front.client.post("/ao/messages", content=content))
            assert reply.status_code < 500, reply.text
            seen.add(reply.status_code)
            available, held = runner.run(front.balances())
            assert available + held == 100_000

        tried()
        assert {200, 202, 422} <= seen
        runner.run(stack.aclose())
