"""OpenAI's API in front of a worker made of calls: what the model reads, what comes back, and what is refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import pytest

from herder.protocol import Lease, Outcome
from herder.settings import Settings
from tests.engines.random_model import vocabulary_file
from tests.integration.api import CARD, MODEL, STATS, WORKER, Front, open_front, problem

COMPLETIONS, CHATS = "/v1/completions", "/v1/chat/completions"
ASK = [{"role": "user", "content": "hello"}]
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {
    "type": "function",
    "function": {"name": "weather", "description": "What it is like outside.", "parameters": CITY},
}


@pytest.fixture
async def front(settings: Settings) -> AsyncIterator[Front]:
    async with open_front(settings) as front:
        yield front


async def _asked(front: Front, path: str, **body: Any) -> tuple[asyncio.Task[httpx.Response], Lease]:
    """A request that waits, and its job in the worker's hands."""
    task = asyncio.create_task(front.client.post(path, json=body))
    await front.until_waiting(1)
    return task, await front.lease(slots=body.get("n") or 1)


async def _answered(
    front: Front, path: str, answer: str = "blue", tokens: int = 1, **body: Any
) -> tuple[dict[str, Any], Lease]:
    task, lease = await _asked(front, path, **body)
    await front.settle(lease, answer, tokens)
    reply = await asyncio.wait_for(task, 10)
    assert reply.status_code == 200, reply.text
    found: dict[str, Any] = reply.json()
    return found, lease


async def test_a_completion(front: Front) -> None:
    task, lease = await _asked(
        front, COMPLETIONS, model=MODEL, prompt="Once", stop="\n", user="bob", suffix=None
    )
    assert (lease.brief.prompt, lease.brief.stop, lease.tokens) == ("Once", ("\n",), 16)
    assert lease.brief.sampling.temperature == 0
    await front.settle(lease, " more", 2)
    reply = await asyncio.wait_for(task, 10)
    shown = reply.json()
    assert shown["object"] == "text_completion"
    assert shown["choices"] == [{"index": 0, "text": " more", "logprobs": None, "finish_reason": "stop"}]
    assert (shown["model"], shown["service_tier"]) == (MODEL, "default")
    assert shown["system_fingerprint"].startswith("fp_")
    assert isinstance(shown["created"], int)
    assert shown["usage"]["total_tokens"] == 7
    assert reply.headers["x-herder-job-id"] == "job_" + shown["id"].removeprefix("cmpl-")
    assert (reply.headers["x-herder-fee"], reply.headers["x-herder-balance"]) == ("12", "988")
    assert reply.headers["x-request-id"]
    assert await front.balances() == (988, 0)


@pytest.mark.parametrize("cached", [True, False, None])
async def test_what_the_cache_is_for_may_be_said_beside_a_seed(front: Front, cached: bool | None) -> None:
    _, lease = await _answered(front, COMPLETIONS, prompt="Once", seed=-1, cache_prompt=cached)
    assert lease.brief.sampling.seed == 2**32 - 1
    assert (lease.brief.cache_prompt, lease.brief.repeatable) == (cached is not False, cached is not True)


async def test_a_chat(front: Front) -> None:
    hi = {"role": "user", "content": [{"type": "text", "text": "hi"}]}
    messages = [{"role": "developer", "content": "brief"}, hi]
    shown, lease = await _answered(
        front, CHATS, model="gpt-4o-mini", messages=messages, max_completion_tokens=20, temperature=0.5, store=True,
        metadata={"a": "b"}, stop=None, tools=[], response_format={"type": "text"}, parallel_tool_calls=None,
    )  # fmt: skip
    assert lease.brief.prompt == "<system>brief</system><user>hi</user><assistant>"
    assert (lease.tokens, lease.brief.sampling.temperature) == (20, 0.5)
    message = {"role": "assistant", "content": "blue", "refusal": None}
    assert shown["choices"] == [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}]
    (job,) = (await front.client.get("/v1/jobs")).json()["jobs"]
    assert job["metadata"] == {"a": "b"}


async def test_a_tool_is_told_of_and_called(front: Front) -> None:
    call = '<tool_call>{"name": "weather", "arguments": {"city": "Rome"}}</tool_call>'
    shown, lease = await _answered(front, CHATS, call, messages=ASK, tools=[WEATHER], max_tokens=50)
    assert "What it is like outside." in lease.brief.prompt
    assert lease.brief.schema is None
    (choice,) = shown["choices"]
    assert (choice["finish_reason"], choice["message"]["content"]) == ("tool_calls", None)
    (made,) = choice["message"]["tool_calls"]
    assert made["function"] == {"name": "weather", "arguments": '{"city": "Rome"}'}
    after = [*ASK, choice["message"], {"role": "tool", "tool_call_id": made["id"], "content": "sunny"}]
    _, lease = await _answered(front, CHATS, messages=after, tools=[WEATHER], max_tokens=50)
    assert lease.brief.prompt.endswith("<user><tool_response>sunny</tool_response></user><assistant>")


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "weather"}}])
async def test_a_tool_that_must_be_called_is_a_form_of_the_answer(front: Front, choice: Any) -> None:
    call = '{"name":"weather","arguments":{"city":"Rome"}}'
    body = {"messages": ASK, "tools": [WEATHER], "tool_choice": choice, "max_tokens": 80, "stop": ["}"]}
    shown, lease = await _answered(front, CHATS, call, **body)
    assert lease.brief.schema is not None
    assert '"weather"' in lease.brief.schema
    assert lease.brief.stop == ()
    assert shown["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "weather"
    assert shown["choices"][0]["finish_reason"] == "tool_calls"


async def test_no_tool_is_told_of_that_may_not_be_called(front: Front) -> None:
    shown, lease = await _answered(
        front, CHATS, '{"name": "weather"}', messages=ASK, tools=[WEATHER], tool_choice="none"
    )
    # Nor is a length named: it is the default.
    assert (lease.brief.prompt, lease.tokens) == ("<user>hello</user><assistant>", 256)
    assert shown["choices"][0]["message"]["content"] == '{"name": "weather"}'


async def test_an_answer_in_a_form(front: Front) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "a", "strict": True, "x": 1, "schema": {
        "type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"],
    }}}  # fmt: skip
    shown, lease = await _answered(
        front, CHATS, '{"age": 3}', messages=ASK, response_format=form, max_tokens=50
    )
    assert lease.brief.schema is not None
    assert shown["choices"][0]["message"]["content"] == '{"age": 3}'
    huggingface = {"type": "json_object", "value": form["json_schema"]["schema"]}  # type: ignore[index]
    _, again = await _answered(
        front, CHATS, '{"age": 3}', messages=ASK, response_format=huggingface, max_tokens=50
    )
    assert again.brief.schema == lease.brief.schema


# --- several prompts, and tokens -------------------------------------------------------------------------------


async def test_several_prompts_are_one_charge_and_come_back_in_order(front: Front) -> None:
    body = {"prompt": ["a", "b", "c"], "max_tokens": 5, "echo": True}
    task = asyncio.create_task(front.client.post(COMPLETIONS, json=body))
    leases: list[Lease] = []
    while len(leases) < 3:
        leases += await front.herd.broker.lease(WORKER, MODEL, slots=4, kv_free=10**6, kv_total=10**6)
    for lease in reversed(leases):
        await front.settle(lease, lease.brief.prompt.upper(), 1)
    reply = await asyncio.wait_for(task, 10)
    assert [(c["index"], c["text"]) for c in reply.json()["choices"]] == [(0, "aA"), (1, "bB"), (2, "cC")]
    assert reply.json()["usage"]["prompt_tokens"] == 15
    assert reply.headers["x-herder-job-id"].startswith("batch_")
    assert reply.headers["x-herder-fee"] == "33"
    assert await front.balances() == (967, 0)


async def test_prompts_of_which_one_cannot_be_paid_cost_nothing(front: Front) -> None:
    poor = await front.account("poor", 40)
    async with poor:
        reply = await poor.post(COMPLETIONS, json={"prompt": ["a", "b", "c"], "max_tokens": 5})
        problem(reply, 402, "insufficient_funds")
        assert reply.headers["x-should-retry"] == "false"
        assert await front.balances("poor") == (40, 0)
        assert (await poor.get("/v1/jobs")).json()["jobs"] == []


async def test_of_prompts_of_which_one_fails_the_other_answers_are_kept(front: Front) -> None:
    task = asyncio.create_task(front.client.post(COMPLETIONS, json={"prompt": ["a", "b"], "max_tokens": 5}))
    leases: list[Lease] = []
    while len(leases) < 2:
        leases += await front.herd.broker.lease(WORKER, MODEL, slots=4, kv_free=10**6, kv_total=10**6)
    await front.settle(leases[0], "A", 1)
    await front.settle(leases[1], "", 0, Outcome.FAILED)
    reply = await asyncio.wait_for(task, 10)
    document = problem(reply, 500, "answer_failed")
    assert reply.headers["x-should-retry"] == "false"
    assert await front.balances() == (989, 0)
    results = (await front.client.get(f"/v1/batches/{document['batch_id']}/results?follow=false")).text
    assert '"text":"A"' in results


async def test_a_prompt_of_tokens_is_read_as_the_text_that_they_are(settings: Settings) -> None:
    async with open_front(settings, worker=False) as front:
        card = replace(CARD, vocab_size=32_000, max_piece_bytes=48, bos_token="<s>")
        await front.herd.broker.register_worker(
            WORKER, card, STATS, vocabulary_file("llama-spm").read_bytes()
        )
        front.herd.market.forget()
        shown, lease = await _answered(front, COMPLETIONS, prompt=[1, 15043, 3186], echo=True)
        assert lease.brief.prompt == "Hello world"
        assert shown["choices"][0]["text"] == "Hello worldblue"
        reply = await front.client.post(COMPLETIONS, json={"prompt": [[15043], [75]]})
        assert problem(reply, 400, "invalid_request")["error"]["param"] == "prompt.1"


async def test_a_body_of_laminis_is_answered_as_lamini_does(front: Front) -> None:
    task = asyncio.create_task(
        front.client.post(COMPLETIONS, content=b'{"model_name": "toy", "prompt": "Once", "max_tokens": 9,}')
    )
    await front.until_waiting(1)
    await front.answer("blue")
    assert (await asyncio.wait_for(task, 10)).json() == {"output": "blue"}
    # One of OpenAI's that only speaks of it.
    shown, _ = await _answered(front, COMPLETIONS, prompt='{"model_name": 1}')
    assert shown["object"] == "text_completion"
