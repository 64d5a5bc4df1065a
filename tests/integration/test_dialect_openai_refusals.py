"""What OpenAI's clients are refused with: the field that is wrong is named, and nothing is paid."""

from __future__ import annotations

from typing import Any

import pytest

from herder.dialects.openai_bodies import PROMPTS_MAX
from tests.integration.api import Front, problem

COMPLETIONS, CHATS = "/v1/completions", "/v1/chat/completions"
ASK = [{"role": "user", "content": "hello"}]
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": CITY}}


async def refused(front: Front, path: str, status: int = 400, **body: Any) -> dict[str, Any]:
    """The error, of a request that cost nothing."""
    before = await front.balances()
    reply = await front.client.post(path, json=body)
    assert reply.status_code == status, reply.text
    assert await front.balances() == before
    error: dict[str, Any] = reply.json()["error"]
    return error


def called(arguments: Any) -> dict[str, Any]:
    """A call that the assistant has made."""
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": arguments}}
    return {"role": "assistant", "tool_calls": [call]}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": ["a", 3]}, "prompt.1"),
        ({"prompt": ["a", ""]}, "prompt.1"),
        ({"prompt": [True]}, "prompt.0"),
        ({"prompt": [1, "a"]}, "prompt"),
        ({"prompt": [1, 2]}, "prompt"),
        ({"prompt": [1, 257]}, "prompt.1"),
        ({"prompt": ["a", [-1]]}, "prompt.1.0"),
        ({"prompt": ["a"] * (PROMPTS_MAX + 1)}, "prompt"),
        ({"prompt": "a", "suffix": "b"}, "suffix"),
        ({"prompt": "a", "best_of": 3}, "best_of"),
        ({"prompt": "a", "best_of": True}, "best_of"),
        ({"prompt": "a", "top_p": False}, "top_p"),
        ({"prompt": "a", "n": True}, "n"),
        ({"prompt": "a", "cache_prompt": "no"}, "cache_prompt"),
        ({"prompt": "a", "stop": 0}, "stop"),
        ({"prompt": "a", "stop": {}}, "stop"),
        ({"prompt": "a", "echo": True, "logprobs": 1}, "logprobs"),
        ({"prompt": "a", "max_tokens": 0}, "max_tokens"),
        ({"prompt": "a", "max_tokens": "5"}, "max_tokens"),
        ({"prompt": ["a", "b"], "max_tokens": 0}, "max_tokens"),
        ({"prompt": "a", "temperature": 3}, "temperature"),
        ({"prompt": "a", "n": 9}, "n"),
        ({"prompt": "a", "stream": "yes"}, "stream"),
        ({"prompt": "a", "stream_options": 3}, "stream_options"),
        ({"prompt": "a", "stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
        ({"prompt": "a", "logit_bias": {"x": 1}}, "logit_bias.x"),
    ],
)
async def test_completions_that_arerefused(front: Front, body: dict[str, Any], param: str) -> None:
    error = await refused(front, COMPLETIONS, **body)
    assert (error["param"], error["type"]) == (param, "invalid_request_error"), error
    assert error["message"].startswith(f"{param}: "), error


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "messages"),
        ({"messages": [{"content": "a"}]}, "messages.0.role"),
        ({"messages": [{"role": "function", "content": "a"}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": None}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": {"a": 1}}]}, "messages.0.content"),
        ({"messages": [*ASK, {"role": "tool", "content": "a"}]}, "messages.1.tool_call_id"),
        ({"messages": [*ASK, called("{nope")]}, "messages.1.tool_calls.0.function.arguments"),
        ({"messages": [*ASK, called(5)]}, "messages.1.tool_calls.0.function.arguments"),
        ({"messages": [called("{}"), {"role": "user"}], "tools": [WEATHER]}, "messages.1.content"),
        ({"messages": ASK, "max_tokens": -1}, "max_tokens"),
        ({"messages": ASK, "max_completion_tokens": -1}, "max_completion_tokens"),
        ({"messages": ASK, "top_logprobs": 2}, "top_logprobs"),
        ({"messages": ASK, "logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"messages": ASK, "functions": [{"name": "a"}]}, "functions"),
        ({"messages": ASK, "modalities": ["audio"]}, "modalities"),
        ({"messages": ASK, "response_format": {"type": "xml"}}, "response_format.type"),
        ({"messages": ASK, "response_format": {"type": "json_schema"}}, "response_format.json_schema.schema"),
        ({"messages": ASK, "response_format": {"type": "json_object"}, "stop": "a"}, "stop"),
        ({"messages": ASK, "service_tier": "gold"}, "service_tier"),
        ({"messages": ASK, "metadata": "a"}, "metadata"),
    ],
)  # fmt: skip
async def test_chats_that_arerefused(front: Front, body: dict[str, Any], param: str) -> None:
    error = await refused(front, CHATS, **body)
    assert (error["param"], error["type"]) == (param, "invalid_request_error"), error


async def test_other_errors_have_their_own_status(front: Front) -> None:
    assert (await refused(front, CHATS, 404, messages=ASK, model="a/b"))["code"] == "model_not_found"
    assert (await refused(front, CHATS, messages=ASK, max_tokens=511))["code"] == "context_length_exceeded"
    assert (await refused(front, CHATS, 402, messages=ASK, max_tokens=20, max_fee=1))[
        "type"
    ] == "billing_error"
    for path in (CHATS, COMPLETIONS):
        reply = await front.anonymous.post(path, json={})
        assert (reply.status_code, reply.json()["error"]["code"]) == (401, "missing_key")
        assert (await front.client.post(path, content=b"{,}")).status_code == 400
        assert (await front.client.post(path, content=b'{"prompt":"a",}')).status_code == 400
    large = {"prompt": "a" * front.herd.settings.body_bytes_max}
    problem(await front.client.post(COMPLETIONS, json=large), 413, "too_large")
    front.herd.batches_open = 4
    problem(await front.client.post(COMPLETIONS, json=large), 503, "overloaded")


async def test_a_call_that_cannot_be_made_is_a_fault_of_the_tools(front: Front) -> None:
    body: dict[str, Any] = {"messages": ASK, "tool_choice": "required"}
    error = await refused(front, CHATS, **body, tools=[WEATHER], max_tokens=2)
    assert "shortest answer that fits tools has" in error["message"]
    many = [{"type": "function", "function": {"name": f"f{i}"}} for i in range(40)]
    assert (await refused(front, CHATS, **body, tools=many))["param"] == "tools"
