"""Lamini's `/v1/completions`: one prompt and many, types, lengths, errors by which its clients tell them apart."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as limits
from hypothesis import strategies as st

from herder.protocol import Outcome
from herder.settings import Settings
from tests.integration.api import MODEL, Front, open_front, problem

LLAMA_2 = "meta-llama/Llama-2-7b-chat-hf"
PATH = "/v1/completions"


@pytest.fixture
async def front(settings: Settings) -> AsyncIterator[Front]:
    async with open_front(settings, credits_=10_000) as front:
        yield front


async def _ask(front: Front, headers: dict[str, str] | None = None, **body: Any) -> httpx.Response:
    return await front.client.post(PATH, json={"model_name": LLAMA_2, **body}, headers=headers)


# --- one prompt ------------------------------------------------------------------------------------------------


async def test_a_prompt_is_answered_as_it_is(front: Front) -> None:
    asked = asyncio.create_task(_ask(front, prompt="<s>[INST] hi [/INST]", max_new_tokens=5))
    await front.until_waiting(1)
    lease = await front.lease()
    assert lease.brief.prompt == "[INST] hi [/INST]"  # the model adds its own
    assert lease.tokens == 5
    await front.settle(lease, "blue", 2)
    reply = await asyncio.wait_for(asked, 10)
    assert reply.json() == {"output": "blue"}
    assert reply.headers["x-herder-fee"] == "12"
    assert reply.headers["x-herder-balance"] == "9988"


@pytest.mark.parametrize("name", ["out_type", "output_type"])
async def test_a_typed_answer_has_its_keys_in_the_order_asked(front: Front, name: str) -> None:
    wanted = {"units": "string", "age": "int"}
    asked = asyncio.create_task(_ask(front, prompt="How old?", **{name: wanted}))
    await front.until_waiting(1)
    lease = await front.lease()
    assert lease.brief.schema is not None
    await front.settle(lease, '{"units": "years", "age": 25}', 9)
    assert (await asyncio.wait_for(asked, 10)).text == '{"units":"years","age":25}'


@pytest.mark.parametrize(
    ("body", "tokens"),
    [
        ({"max_tokens": 300, "max_new_tokens": 7}, 7),
        ({"max_tokens": 7}, 7),
        ({"max_tokens": 100_000}, 511),
        ({"max_tokens": None}, 256),
        ({"max_new_tokens": None}, 256),
    ],
)
async def test_how_long_an_answer_may_be(front: Front, body: dict[str, Any], tokens: int) -> None:
    """`max_tokens` is a guess of the prompt's tokens too, and no reason to refuse; the context is 512."""
    asked = asyncio.create_task(_ask(front, prompt="abcd", **body))
    await front.until_waiting(1)
    lease = await front.lease()
    assert lease.tokens == tokens
    await front.settle(lease, "blue", 1)
    assert (await asyncio.wait_for(asked, 10)).status_code == 200


async def test_the_lessons_curls_have_commas_too_many(front: Front) -> None:
    raw = f'{{\n    "model_name": "{LLAMA_2}",\n    "prompt": "How, are you,]?",\n}}'
    asked = asyncio.create_task(front.client.post(PATH, content=raw))
    await front.until_waiting(1)
    lease = await front.lease()
    assert lease.brief.prompt == "How, are you,]?"
    await front.settle(lease, "fine", 1)
    assert (await asyncio.wait_for(asked, 10)).json() == {"output": "fine"}


@pytest.mark.parametrize(
    ("body", "status", "code", "said"),
    [
        ({"prompt": "x", "max_new_tokens": 100_000}, 400, "invalid_request", "max_new_tokens: "),
        ({"prompt": "x", "max_new_tokens": 600}, 400, "context_exceeded", "do not fit"),
        ({"prompt": "x", "max_new_tokens": 0}, 400, "invalid_request", "max_new_tokens: "),
        ({"prompt": "x", "max_tokens": -1}, 400, "invalid_request", "max_tokens: "),
        ({"prompt": "x", "max_tokens": "many"}, 400, "invalid_request", "max_tokens: "),
        ({"prompt": "x", "max_new_tokens": True}, 400, "invalid_request", "max_new_tokens: "),
        ({"prompt": ""}, 400, "invalid_request", "prompt: "),
        ({"prompt": None}, 400, "invalid_request", "prompt: must be a string or a list"),
        ({"prompt": []}, 400, "invalid_request", "prompt: must be a list with something"),
        ({"prompt": ["a", 1]}, 400, "invalid_request", "prompt.1: must be a string"),
        ({"prompt": ["a", ""]}, 400, "invalid_request", "prompt.1: "),
        ({"prompt": ["a", "b\x00"]}, 400, "invalid_request", "prompt.1: must not contain NUL"),
        ({"prompt": ["a"] * 10_001}, 400, "invalid_request", "prompt: "),
        ({"prompt": ["a"], "max_new_tokens": 0}, 400, "invalid_request", "max_new_tokens: "),
        ({"prompt": ["a", "b" * 5_000], "max_tokens": 9}, 400, "invalid_request", "prompt.1"),
        ({"prompt": "x", "out_type": "int"}, 400, "invalid_request", "out_type: "),
        ({"prompt": "x", "out_type": {"age": "integr"}}, 400, "invalid_request", "out_type.age: "),
        ({"prompt": ["x"], "output_type": {"age": 3}}, 400, "invalid_request", "output_type.age: "),
        ({"prompt": "x", "model_name": "no/such"}, 594, "unknown_model", "no model no/such"),
        ({"prompt": ["x"], "model_name": "no/such"}, 594, "unknown_model", "no model no/such"),
        ({"prompt": "x", "fee": 1}, 402, "fee_too_low", "base fee"),
        ({"prompt": ["x"] * 100, "max_new_tokens": 100}, 402, "insufficient_funds", "enough for"),
    ],
)
async def test_what_is_refused_costs_nothing(
    front: Front, body: dict[str, Any], status: int, code: str, said: str
) -> None:
    document = problem(await _ask(front, **body), status, code)
    assert said in document["detail"]
    assert await front.balances() == (10_000, 0)


async def test_without_a_key_or_with_a_wrong_one(front: Front) -> None:
    body = {"model_name": LLAMA_2, "prompt": "x"}
    problem(await front.anonymous.post(PATH, json=body), 401, "missing_key")
    async with front.with_key("hk_" + "0" * 30) as wrong:
        problem(await wrong.post(PATH, json=body), 401, "invalid_key")


async def test_a_failure_is_refunded(front: Front) -> None:
    asked = asyncio.create_task(_ask(front, prompt="x"))
    await front.until_waiting(1)
    await front.settle(await front.lease(), "", 0, Outcome.FAILED)
    problem(await asyncio.wait_for(asked, 10), 500, "answer_failed")
    assert await front.balances() == (10_000, 0)


# --- reservations ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "capacity", "size"),
    [
        (b'{"capacity": 20, "batch_size": 5, "model_name": "m", "max_tokens": null}', 20, 5),
        (b'{"capacity": 3, "batch_size": 5}', 5, 5),
        (b'{"capacity": 0, "batch_size": 0}', 5, 5),
        (b'{"capacity": "x", "batch_size": true}', 5, 5),
        (b"nothing", 5, 5),
        (b" " * 70_000, 5, 5),
        (b'{"capacity": 1000000000, "batch_size": 2}', 1_000_000, 2),
    ],
)
async def test_a_reservation_is_made_for_everyone(front: Front, raw: bytes, capacity: int, size: int) -> None:
    reply = await front.anonymous.post("/v1/reservation", content=raw)
    assert reply.status_code == 200
    document = reply.json()
    assert document["capacity_remaining"] == capacity
    assert document["dynamic_max_batch_size"] == size
    assert document["start_time"] < document["end_time"]
    assert "+" not in document["start_time"]


async def test_the_version_is_a_string(front: Front) -> None:
    assert isinstance((await front.anonymous.get("/v1/version")).json(), str)


# --- anything --------------------------------------------------------------------------------------------------

ODD = st.none() | st.booleans() | st.integers(-5, 10**6) | st.floats(allow_nan=False) | st.text(max_size=5)
WILD = st.recursive(
    ODD, lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=3), x, max_size=3), max_leaves=6
)
FIELDS = ["prompt", "out_type", "output_type", "max_tokens", "max_new_tokens", "fee", "multiplier", "server"]


@limits(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.dictionaries(st.sampled_from(FIELDS), WILD, max_size=6))
async def test_whatever_is_sent_is_no_fault_of_ours_and_loses_no_credit(
    front: Front, body: dict[str, Any]
) -> None:
    raw = json.dumps({"model_name": MODEL, **body})
    front.herd.stopping.set()  # nobody waits for long
    reply = await front.client.post(PATH, content=raw)
    assert reply.status_code in (200, 400, 402, 503), reply.text
    for path in ("/v1/streaming_completions", "/v3/streaming_completions", "/v1/batch_completions"):
        reply = await front.client.post(path, content=raw)
        assert reply.status_code < 500, reply.text
    available, held = await front.balances()
    assert available + held == 10_000
