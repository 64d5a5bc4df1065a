"""Chats of TGI's clients: what their reader insists on, piece by piece and whole."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx

from herder.protocol import Outcome
from tests.integration.api import Front
from tests.integration.tokenwise import WAIT_S, Hand, data_of, token

PATH = "/tgi/v1/chat/completions"
# Every field, nulls included, as the client sends them.
BODY = {
    "model": "tgi", "messages": [{"role": "user", "content": "hello", "name": None, "tool_calls": None}],
    "repetition_penalty": None, "frequency_penalty": None, "logit_bias": None, "logprobs": None, "top_logprobs": None,
    "max_tokens": 20, "n": None, "presence_penalty": None, "stream": False, "seed": None, "temperature": None,
    "top_p": None, "tools": None, "tool_choice": None,
}  # fmt: skip
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}
CALL = '<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>'


async def served(front: Front, *pieces: str, **body: Any) -> httpx.Response:
    """A chat and its answer."""
    request = asyncio.create_task(front.client.post(PATH, json={**BODY, **body}))
    hand = Hand(front.herd.broker)
    lease = await hand.lease()
    for piece in pieces:
        await hand.say(lease, piece, token(piece))
    await hand.settle(lease, "".join(pieces))
    return await asyncio.wait_for(request, WAIT_S)


async def test_an_answer_has_a_fingerprint(front: Front) -> None:
    reply = await served(front, "blue")
    shown = reply.json()
    assert isinstance(shown["system_fingerprint"], str)
    assert shown["choices"][0]["message"]["content"] == "blue"
    assert "logprobs" in shown["choices"][0]
    assert int(reply.headers["content-length"]) == len(reply.content)
    assert reply.headers["x-herder-job-id"].startswith("job_")


async def test_every_delta_has_a_role_and_tool_calls_and_no_mark_ends_the_stream(front: Front) -> None:
    reply = await served(front, "bl", "ue", stream=True)
    said = data_of(reply)
    deltas = [event["choices"][0]["delta"] for event in said]
    assert all(delta["role"] == "assistant" and delta["tool_calls"] is None for delta in deltas)
    assert "".join(delta["content"] or "" for delta in deltas) == "blue"
    assert all(isinstance(event["system_fingerprint"], str) for event in said)
    assert said[-1]["choices"][0]["finish_reason"] == "stop"


async def test_a_call_is_an_object_and_no_list(front: Front) -> None:
    said = data_of(await served(front, CALL, stream=True, tools=[TOOL], tool_choice="auto"))
    calls = [event["choices"][0]["delta"]["tool_calls"] for event in said]
    (call,) = [call for call in calls if call is not None]
    assert (call["index"], call["type"], call["function"]["name"]) == (0, "function", "add")
    assert isinstance(call["id"], str)


async def test_an_error_is_one_text_before_a_stream_and_in_it(front: Front) -> None:
    reply = await front.client.post(PATH, json={**BODY, "messages": []})
    assert reply.json().keys() == {"error", "error_type"}
    assert (reply.status_code, reply.json()["error_type"]) == (422, "validation")
    request = asyncio.create_task(front.client.post(PATH, json={**BODY, "stream": True}))
    hand = Hand(front.herd.broker)
    await hand.settle(await hand.lease(), "", outcome=Outcome.FAILED)
    failed = data_of(await asyncio.wait_for(request, WAIT_S))[-1]
    assert failed["error_type"] == "answer_failed"
    assert "it broke" in failed["error"]
