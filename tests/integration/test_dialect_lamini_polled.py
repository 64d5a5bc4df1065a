"""Lamini's answers that are asked for again: both kinds of stream, batches, and the chat that is OpenAI's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from herder.protocol import Lease, Outcome
from herder.settings import Settings
from tests.integration.api import MODEL, Front, open_front, problem

V1, V3, BATCH = "/v1/streaming_completions", "/v3/streaming_completions", "/v1/batch_completions"


@pytest.fixture
async def front(settings: Settings) -> AsyncIterator[Front]:
    async with open_front(settings, credits_=10_000) as front:
        yield front


async def _post(front: Front, path: str, **body: Any) -> httpx.Response:
    reply = await front.client.post(path, json={"model_name": MODEL, "max_new_tokens": 9, **body})
    assert reply.status_code == 200, reply.text
    return reply


async def _result(front: Front, path: str, name: str) -> Any:
    reply = await front.client.get(f"{path}/{name}/result")
    assert reply.status_code == 200, reply.text
    return reply.json()


async def _leased(front: Front) -> Lease:
    """The next item, once it is in line."""
    while True:
        leases = await front.herd.broker.lease("w1", MODEL, slots=1, kv_free=10**6, kv_total=10**6)
        if leases:
            return leases[0]


async def test_the_first_stream_is_the_same_request_with_the_server_it_was_told(front: Front) -> None:
    first = await _post(front, V1, prompt="sky?")
    server = first.json()["server"]
    assert first.json() == {"server": server, "status": [False], "data": [{"output": ""}]}
    assert first.headers["x-herder-job-id"] == server
    lease = await front.lease()
    await front.say(lease, "bl")
    told = (await _post(front, V1, prompt="sky?", server=server)).json()
    assert told == {"server": server, "status": [False], "data": [{"output": "bl"}]}
    await front.settle(lease, "blue", 2)
    told = (await _post(front, V1, prompt="sky?", server=server)).json()
    assert told == {"server": server, "status": [True], "data": [{"output": "blue"}]}
    assert await front.balances() == (10_000 - 12, 0)


async def test_a_typed_stream_has_nothing_before_it_is_whole(front: Front) -> None:
    server = (await _post(front, V1, prompt="age?", output_type={"age": "int"})).json()["server"]
    lease = await front.lease()
    await front.say(lease, '{"age')
    assert (await _post(front, V1, prompt="age?", server=server)).json()["data"] == [None]
    await front.settle(lease, '{"age": 3}', 5)
    assert (await _post(front, V1, prompt="age?", server=server)).json()["data"] == [{"age": 3}]


@pytest.mark.parametrize("prompt", ["sky?", ["sky?", "sea?"]])
async def test_a_client_that_never_comes_back_with_the_server_is_answered_once(
    front: Front, prompt: Any
) -> None:
    """2.1's asynchronous stream would buy the same again each time it asks."""
    headers = {"user-agent": "Python/3.11 aiohttp/3.9"}
    body = {"model_name": MODEL, "prompt": prompt, "max_new_tokens": 9}
    asked = asyncio.create_task(front.client.post(V1, json=body, headers=headers))
    await front.until_waiting(1)
    for _ in range(1 if isinstance(prompt, str) else 2):
        await front.settle(await _leased(front), "blue", 1)
    told = (await asyncio.wait_for(asked, 10)).json()
    assert set(told["status"]) == {True}
    assert told["data"][0] == {"output": "blue"}


async def test_the_third_stream_is_bought_and_then_read(front: Front) -> None:
    name = (await _post(front, V3, prompt="sky?")).json()["id"]
    assert await _result(front, V3, name) == {}
    lease = await front.lease()
    await front.say(lease, "bl")
    assert await _result(front, V3, name) == {"outputs": [{"output": "bl"}], "finish_reason": [None]}
    await front.settle(lease, "blue", 2)
    assert await _result(front, V3, name) == {"outputs": [{"output": "blue"}], "finish_reason": ["stop"]}


async def test_an_answer_that_begins_again_is_told_from_its_new_beginning(front: Front) -> None:
    name = (await _post(front, V3, prompt="sky?")).json()["id"]
    lease = await front.lease()
    await front.say(lease, "old")
    await front.herd.broker.release("w1", [(lease.job_id, lease.attempt)], died=True)
    again = await _leased(front)
    await front.say(again, "new")
    assert (await _result(front, V3, name))["outputs"] == [{"output": "new"}]


async def test_a_stream_of_several(front: Front) -> None:
    name = (await _post(front, V3, prompt=["a", "b"])).json()["id"]
    assert name.startswith("batch_")
    one, two = await _leased(front), await _leased(front)
    await front.settle(two, "B", 1)
    await front.say(one, "A")
    told = await _result(front, V3, name)
    assert told == {"outputs": [{"output": "A"}, {"output": "B"}], "finish_reason": [None, "stop"]}
    await front.settle(one, "", 0, Outcome.FAILED)
    told = await _result(front, V3, name)
    assert told["finish_reason"] == ["error", "stop"]
    assert told["outputs"][0] == {"output": None, "error": "it broke"}


@pytest.mark.parametrize(("path", "prompts"), [(V1, 65), (V3, 65), (BATCH, 10_001)])
async def test_more_than_can_be_polled_is_refused(front: Front, path: str, prompts: int) -> None:
    body = {"model_name": MODEL, "prompt": ["a"] * prompts}
    problem(await front.client.post(path, json=body), 400, "invalid_request")
    assert await front.balances() == (10_000, 0)


async def test_a_stream_that_fails_says_so_where_it_is_read(front: Front) -> None:
    name = (await _post(front, V3, prompt="sky?")).json()["id"]
    await front.settle(await front.lease(), "", 0, Outcome.FAILED)
    problem(await front.client.get(f"{V3}/{name}/result"), 500, "answer_failed")
    assert await front.balances() == (10_000, 0)


async def test_a_batch_is_filled_from_the_left(front: Front) -> None:
    """Their clients count what has ended, and take so many from the left."""
    reply = await _post(front, BATCH, prompt=["a", "b", "c"])
    name = reply.json()["id"]
    assert reply.headers["x-herder-fee"] == "57"
    assert await _result(front, BATCH, name) == {}
    one, two, three = [await _leased(front) for _ in range(3)]
    await front.settle(two, "B", 1)
    assert await _result(front, BATCH, name) == {}
    await front.settle(one, "A", 1)
    told = await _result(front, BATCH, name)
    assert told == {
        "outputs": [{"output": "A"}, {"output": "B"}, None],
        "finish_reason": ["stop", "stop", None],
    }
    await front.settle(three, "", 0, Outcome.FAILED)
    told = await _result(front, BATCH, name)
    assert told["outputs"][2] == {"output": None, "error": "it broke"}
    assert all(told["finish_reason"])


async def test_a_long_batch_is_told_when_it_is_whole(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("herder.dialects.lamini_polled.PART_MAX", 1)
    name = (await _post(front, BATCH, prompt=["a", "b"])).json()["id"]
    await front.settle(await _leased(front), "A", 1)
    assert await _result(front, BATCH, name) == {}
    await front.settle(await _leased(front), "B", 1)
    assert (await _result(front, BATCH, name))["finish_reason"] == ["stop", "stop"]


async def test_a_typed_batch(front: Front) -> None:
    name = (await _post(front, BATCH, prompt=["a"], output_type={"age": "integer"})).json()["id"]
    await front.settle(await _leased(front), '{"age": 3}', 1)
    assert await _result(front, BATCH, name) == {"outputs": [{"age": 3}], "finish_reason": ["stop"]}


async def test_a_batch_in_which_all_fail_is_a_failure(front: Front) -> None:
    name = (await _post(front, BATCH, prompt="a")).json()["id"]
    await front.settle(await _leased(front), "", 0, Outcome.FAILED)
    problem(await front.client.get(f"{BATCH}/{name}/result"), 500, "answer_failed")
    assert await front.balances() == (10_000, 0)


async def test_what_is_polled_outlives_whoever_bought_it(front: Front) -> None:
    """No presence: it can be read at any herder, and later."""
    await _post(front, V1, prompt="a")
    await _post(front, V3, prompt=["a", "b"])
    await _post(front, BATCH, prompt=["a", "b"])
    assert await front.herd.broker.redis.zcard(front.herd.broker.keys("presence")) == 0


@pytest.mark.parametrize("path", [V1, V3, BATCH])
async def test_a_model_that_nobody_has(front: Front, path: str) -> None:
    for prompt in ("a", ["a"]):
        reply = await front.client.post(path, json={"model_name": "no/such", "prompt": prompt})
        problem(reply, 594, "unknown_model")


@pytest.mark.parametrize("name", ["job_nothing", "batch_nothing", "x", "job_.."])
async def test_names_of_nothing(front: Front, name: str) -> None:
    for path in (V3, BATCH):
        problem(await front.client.get(f"{path}/{name}/result"), 404, "not_found")
    reply = await front.client.post(V1, json={"model_name": MODEL, "prompt": "a", "server": name})
    problem(reply, 404, "not_found")


async def test_another_accounts_answers_are_not_there(front: Front) -> None:
    one = (await _post(front, V3, prompt="a")).json()["id"]
    many = (await _post(front, BATCH, prompt=["a"])).json()["id"]
    async with await front.account("bob", 100) as bob:
        for path, name in ((V3, one), (V3, many), (BATCH, many)):
            problem(await bob.get(f"{path}/{name}/result"), 404, "not_found")
        reply = await bob.post(V1, json={"model_name": MODEL, "prompt": "a", "server": one})
        problem(reply, 404, "not_found")


async def test_the_chat_is_openais(front: Front) -> None:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 9}
    asked = asyncio.create_task(front.client.post("/inf/chat/completions", json=body))
    await front.until_waiting(1)
    await front.answer("hello")
    reply = await asyncio.wait_for(asked, 10)
    assert reply.json()["choices"][0]["message"]["content"] == "hello"
    wrong = await front.client.post("/inf/chat/completions", json={**body, "model": "no/such"})
    problem(wrong, 404, "unknown_model")
