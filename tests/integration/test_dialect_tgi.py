"""TGI's API: answers whole and token by token, and what is asked for."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from herder.protocol import FinishReason, Lease, Outcome
from herder.settings import Settings
from tests.integration.api import Front
from tests.integration.streaming import serving
from tests.integration.tokenwise import WAIT_S, Hand, data_of, token


def asking(front: Front, path: str = "/", /, **body: Any) -> asyncio.Task[httpx.Response]:
    """A request on its way."""
    return asyncio.create_task(front.client.post(path, json={"inputs": "hello", **body}))


async def answered(
    front: Front, path: str = "/", /, text: str = "blue", **body: Any
) -> tuple[Lease, httpx.Response]:
    """A request and its answer, of two tokens; also what the worker was given."""
    request, hand = asking(front, path, **body), Hand(front.herd.broker)
    lease = await hand.lease()
    tokens = [token(text[:2], 3), token(text[2:], 4)]
    await hand.settle(lease, text, tokens)
    return lease, await asyncio.wait_for(request, WAIT_S)


async def test_an_answer_is_a_list_of_one_at_the_root_and_an_object_elsewhere(front: Front) -> None:
    lease, reply = await answered(front)
    assert (reply.status_code, reply.json()) == (200, [{"generated_text": "blue"}])
    assert (lease.brief.prompt, lease.tokens, lease.brief.sampling.temperature) == ("hello", 20, 0)
    assert lease.brief.sampling.logprobs is None
    assert reply.headers["x-herder-job-id"] == lease.job_id
    assert (reply.headers["x-herder-fee"], reply.headers["x-herder-balance"]) == ("12", "988")
    for path in ("/generate", "/tgi/generate"):
        assert (await answered(front, path))[1].json() == {"generated_text": "blue"}
    assert (await answered(front, "/tgi", parameters=None))[1].json() == [{"generated_text": "blue"}]


async def test_details_name_the_tokens(front: Front) -> None:
    _, reply = await answered(front, parameters={"details": True, "return_full_text": True, "seed": 5})
    assert reply.json() == [
        {
            "generated_text": "helloblue",
            "details": {
                "finish_reason": "eos_token",
                "generated_tokens": 2,
                "input_length": 5,
                "seed": None,
                "prefill": [],
                "tokens": [
                    {"id": 3, "text": "bl", "logprob": -0.5, "special": False},
                    {"id": 4, "text": "ue", "logprob": -0.5, "special": False},
                ],
            },
        }
    ]


async def test_the_likeliest_tokens_of_each_place(front: Front) -> None:
    request, hand = asking(front, parameters={"top_n_tokens": 2, "details": True}), Hand(front.herd.broker)
    lease = await hand.lease()
    assert lease.brief.sampling.logprobs == 2
    await hand.settle(lease, "blue", [token("blue", 3, top=2)])
    (top,) = (await asyncio.wait_for(request, WAIT_S)).json()[0]["details"]["top_tokens"]
    assert [each["id"] for each in top] == [3, 4]


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"seed": 1 << 32 | 9}, {"seed": 9, "temperature": 0.0}),
        ({"do_sample": True}, {"temperature": 1.0}),
        ({"top_k": 5, "do_sample": False}, {"temperature": 1.0, "top_k": 5}),
        ({"top_p": 0.5, "temperature": 0.25}, {"temperature": 0.25, "top_p": 0.5}),
        ({"typical_p": 0.5}, {"temperature": 1.0, "typical_p": 0.5}),
        (
            {"repetition_penalty": 1.25, "frequency_penalty": 0.5},
            {"temperature": 0.0, "repeat_penalty": 1.25, "frequency_penalty": 0.5},
        ),
    ],
)
async def test_greedy_unless_sampling_is_asked_for(
    front: Front, parameters: dict[str, Any], expected: dict[str, Any]
) -> None:
    lease, _ = await answered(front, parameters=parameters)
    sampling = lease.brief.sampling
    assert {name: getattr(sampling, name) for name in expected} == expected


async def test_every_other_field_may_be_null_or_unknown(front: Front) -> None:
    names = (
        "max_new_tokens do_sample temperature top_k top_p typical_p repetition_penalty frequency_penalty seed stop "
        "return_full_text best_of truncate watermark details decoder_input_details top_n_tokens grammar what"
    )
    lease, reply = await answered(
        front, parameters=dict.fromkeys(names.split()), stream=None, model=None, adapter_id="x"
    )
    assert reply.status_code == 200
    assert lease.tokens == 20


async def test_both_names_of_stop_strings(front: Front) -> None:
    lease, _ = await answered(front, parameters={"stop": ["a"], "stop_sequences": ["b"], "max_new_tokens": 3})
    assert (lease.brief.stop, lease.tokens) == (("a", "b"), 3)


@pytest.mark.parametrize(
    "value", [{"type": "object", "properties": {}}, '{"type": "object", "properties": {}}']
)
async def test_a_grammar_is_a_form_that_the_answer_has(front: Front, value: Any) -> None:
    lease, reply = await answered(
        front, text="{  }", parameters={"grammar": {"type": "json", "value": value}}
    )
    assert reply.json() == [{"generated_text": "{  }"}]
    assert lease.brief.schema is not None


# --- streams ---------------------------------------------------------------------------------------------------


async def test_every_token_is_an_event_and_the_last_one_is_special_and_empty(front: Front) -> None:
    request, hand = asking(front, stream=True, parameters={"return_full_text": True}), Hand(front.herd.broker)
    lease = await hand.lease()
    await hand.say(lease, "blue sk", token("blue"), token(" sk"))
    await hand.say(lease, "y", token("y"))
    await hand.settle(lease, "blue sky", reason=FinishReason.LENGTH)
    reply = await asyncio.wait_for(request, WAIT_S)
    said = data_of(reply)
    assert [event["token"]["text"] for event in said] == ["blue", " sk", "y", ""]
    assert [event["token"]["special"] for event in said] == [False, False, False, True]
    assert [event["index"] for event in said] == [1, 2, 3, 4]
    assert said[0] == {
        "index": 1,
        "token": {"id": 7, "text": "blue", "logprob": -0.5, "special": False},
        "generated_text": None,
        "details": None,
    }
    assert said[-1]["generated_text"] == "helloblue sky"
    assert said[-1]["details"] == {
        "finish_reason": "length", "generated_tokens": 3, "input_length": 5, "seed": None,
    }  # fmt: skip
    assert b"[DONE]" not in reply.content
    assert reply.headers["x-herder-job-id"] == lease.job_id


async def test_a_stop_string_does_not_leak_and_what_stands_before_it_is_not_lost(front: Front) -> None:
    request, hand = asking(front, stream=True, parameters={"stop": ["\nUser:"]}), Hand(front.herd.broker)
    lease = await hand.lease()
    await hand.say(lease, "blue", token("blue"))
    await hand.say(lease, ".", count=2)
    await hand.settle(lease, "blue.", [token("blue"), token(".\nU", 8), token("ser: x", 9)])
    said = data_of(await asyncio.wait_for(request, WAIT_S))
    assert [(event["token"]["id"], event["token"]["text"]) for event in said] == [
        (7, "blue"), (8, "."), (0, ""),
    ]  # fmt: skip
    assert (said[-1]["generated_text"], said[-1]["details"]["finish_reason"]) == ("blue.", "stop_sequence")


async def test_a_character_of_several_tokens_comes_with_the_last_of_them(front: Front) -> None:
    request, hand = asking(front, stream=True), Hand(front.herd.broker)
    lease = await hand.lease()
    pieces = ["a", "\ufffd", "\ufffd\ufffd", "b"]
    await hand.say(lease, "aéb", *(token(piece, i) for i, piece in enumerate(pieces)))
    await hand.settle(lease, "aéb")
    said = data_of(await asyncio.wait_for(request, WAIT_S))
    assert [event["token"]["text"] for event in said] == ["a", "", "é", "b", ""]


async def test_a_worker_that_dies_is_not_noticed_where_the_next_one_says_the_same(front: Front) -> None:
    request, hand = asking(front, stream=True), Hand(front.herd.broker)
    first = await hand.lease()
    await hand.say(first, "blue s", token("blue"), token(" s"))
    await hand.die(first)
    second = await hand.lease()
    await hand.say(second, "blue", token("bl"), token("ue"))
    await hand.say(second, " sky", token(" sky", 9))
    await hand.settle(second, "blue sky")
    said = data_of(await asyncio.wait_for(request, WAIT_S))
    assert [(e["token"]["id"], e["token"]["text"]) for e in said] == [
        (7, "blue"),
        (7, " s"),
        (9, "ky"),
        (0, ""),
    ]


async def test_one_that_says_something_else_ends_the_stream(front: Front) -> None:
    request, hand = asking(front, stream=True), Hand(front.herd.broker)
    first = await hand.lease()
    await hand.say(first, "blue", token("blue"))
    await hand.die(first)
    second = await hand.lease()
    await hand.say(second, "red", token("red"))
    said = data_of(await asyncio.wait_for(request, WAIT_S))
    assert said[-1]["error_type"] == "conflict"
    assert "answers differently" in said[-1]["error"]


async def test_a_job_that_fails_is_an_error_event(front: Front) -> None:
    request, hand = asking(front, "/generate_stream"), Hand(front.herd.broker)
    await hand.settle(await hand.lease(), "", outcome=Outcome.FAILED)
    (said,) = data_of(await asyncio.wait_for(request, WAIT_S))
    assert said["error_type"] == "answer_failed"
    assert "it broke" in said["error"]
    assert await front.balances() == (1000, 0)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_caller_that_goes_away_gets_the_rest_back(settings: Settings, stream: bool) -> None:
    async with serving(settings) as herder:
        before = await herder.herd.ledger.account("alice")
        async with herder.client() as client:
            request = asyncio.create_task(client.post("/", json={"inputs": "hello", "stream": stream}))
            lease = await Hand(herder.herd.broker).lease()
            request.cancel()
            await asyncio.gather(request, return_exceptions=True)
        record = await herder.herd.broker.job(lease.job_id)
        while record is not None and not record.cancel_requested:
            record = await herder.herd.broker.job(lease.job_id)
        await Hand(herder.herd.broker).die(lease)
        assert await herder.herd.ledger.account("alice") == before
