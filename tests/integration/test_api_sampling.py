"""Options of sampling on their way from a body to what the worker reads; what is wrong is named; n answers are paid."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

import pytest

from herder.api.options import BIASES_MAX, SamplingOptions
from herder.brief import Sampling
from herder.choices import Choice, choices_text, logprobs_text, told_text
from herder.pricing import capture
from herder.protocol import Chunk, ChunkReply, FinishReason, Lease, Outcome, Settlement
from herder.records import Role
from tests.integration.api import CARD, MODEL, STATS, Front, problem

GIVEN: dict[str, Any] = {
    "temperature": 0.7, "top_p": 0.9, "top_k": 40, "min_p": 0.05, "typical_p": 0.95, "repeat_penalty": 1.1,
    "frequency_penalty": -0.5, "presence_penalty": 0.25, "penalty_tokens": 128, "seed": 7, "logprobs": 3,
    "ignore_eos": True, "logit_bias": {"0": -100, "256": 1.5},
}  # fmt: skip
READ = Sampling(**{**GIVEN, "logit_bias": ((0, -100.0), (256, 1.5))})


async def test_every_option_reaches_the_worker(front: Front) -> None:
    assert set(GIVEN) == {name for name in SamplingOptions.model_fields if name != "n"} == set(asdict(READ))
    await front.submit(**GIVEN, n=3)
    brief = (await front.lease(3)).brief
    assert (brief.sampling, brief.n) == (READ, 3)


async def test_the_documented_defaults_change_nothing(front: Front) -> None:
    await front.submit()
    brief = (await front.lease()).brief
    assert (brief.sampling, brief.n) == (Sampling(seed=brief.sampling.seed), 1)


async def test_items_of_a_batch_have_the_same_options(front: Front) -> None:
    items = [{"prompt": "a"}, {"prompt": "b", "top_k": 3, "n": 1}]
    body = {"items": items, "tokens": 5, **GIVEN, "n": 2}
    batch = (await front.client.post("/v1/batches", json=body)).json()
    assert (batch["base_fee"], batch["tokens"]) == (2 * 10 + 2 * 5 + 5, 15)
    query = {name: json.dumps(value) for name, value in GIVEN.items()} | {"tokens": "5", "n": "2"}
    lines = b'{"prompt": "a"}\n{"prompt": "b", "top_k": 3, "n": 1}\n'
    kind = {"Content-Type": "application/jsonl"}
    reply = await front.client.post("/v1/batches", content=lines, params=query, headers=kind)
    assert reply.json()["base_fee"] == batch["base_fee"]
    async with front.herd.bell.listen(front.herd.broker.keys("queue_bell", MODEL)) as line:
        while (
            await front.herd.broker.fetch(
                front.herd.broker.redis.zcard(front.herd.broker.keys("queue", MODEL))
            )
            < 4
        ):
            await line.next(0.1)
    leases = await front.herd.broker.lease("w1", MODEL, slots=8, kv_free=10**6, kv_total=10**6)
    assert sorted(lease.brief.n for lease in leases) == [1, 1, 2, 2]
    for lease in leases:
        expected = asdict(READ) | ({"top_k": 3} if lease.brief.prompt.count("b</user>") else {})
        assert asdict(lease.brief.sampling) == expected


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"top_k": -1}, "top_k"),
    ({"top_k": 1.0}, "top_k"),
    ({"top_k": 1_000_001}, "top_k"),
    ({"min_p": 1.01}, "min_p"),
    ({"typical_p": 0}, "typical_p"),
    ({"repeat_penalty": 0}, "repeat_penalty"),
    ({"repeat_penalty": 10.5}, "repeat_penalty"),
    ({"frequency_penalty": -2.1}, "frequency_penalty"),
    ({"presence_penalty": "1"}, "presence_penalty"),
    ({"penalty_tokens": 5_000}, "penalty_tokens"),
    ({"logprobs": 21}, "logprobs"),
    ({"logprobs": True}, "logprobs"),
    ({"logprobs": 20, "tokens": 3_121}, "logprobs"),
    ({"logprobs": 20, "tokens": 800, "n": 4}, "logprobs"),
    ({"ignore_eos": 1}, "ignore_eos"),
    ({"n": 0}, "n"),
    ({"n": 5}, "n"),
    ({"logit_bias": [1]}, "logit_bias"),
    ({"logit_bias": {"x": 1}}, "logit_bias.x"),
    ({"logit_bias": {"01": 1}}, "logit_bias.01"),
    ({"logit_bias": {"-1": 1}}, "logit_bias.-1"),
    ({"logit_bias": {"1": 101}}, "logit_bias.1"),
    ({"logit_bias": {"257": 1}}, "logit_bias.257"),
    ({"logit_bias": {"9999999999": 1}}, "logit_bias.9999999999"),
    ({"logit_bias": {str(i): 1 for i in range(BIASES_MAX + 1)}}, "logit_bias"),
]


@pytest.mark.parametrize(("options", "field"), WRONG, ids=[str(options)[:40] for options, _ in WRONG])
async def test_an_option_out_of_its_range_is_named_and_costs_nothing(
    front: Front, options: dict[str, Any], field: str
) -> None:
    before = await front.balances()
    for path in ("/v1/jobs", "/v1/quote"):
        reply = await front.client.post(path, json={"prompt": "a", "tokens": 5, **options})
        document = problem(reply, 422, "invalid_request")
        assert any(error["field"].startswith(field) for error in document["errors"]), document
    item = {"prompt": "a", "tokens": 5, **options}
    document = problem(await front.client.post("/v1/batches", json={"items": [item]}), 422, "invalid_request")
    assert any(f"item 0: {field}" in error["field"] for error in document["errors"]), document
    assert await front.balances() == before


async def test_n_answers_cost_their_tokens_and_one_prompt(front: Front) -> None:
    quote = (await front.client.post("/v1/quote", json={"prompt": "a", "tokens": 20, "n": 3})).json()
    job = await front.submit(n=3)
    assert job["base_fee"] == job["fee"] == quote["base_fee"] == 10 + 3 * 20
    assert quote["max_tokens"] == (1_000 - 10) // 3
    await front.settle(await front.lease(3), "blue", 33)
    assert await front.balances() == (1_000 - 10 - 33, 0)
    poor = await front.account("bob", 40, Role.CLIENT)
    reply = await poor.post("/v1/jobs", json={"prompt": "a", "tokens": 20, "n": 3})
    document = problem(reply, 402, "insufficient_funds")
    assert document["max_affordable_tokens"] == 10
    assert (await poor.post("/v1/jobs", json={"prompt": "a", "tokens": 10, "n": 3})).status_code == 202


def settled(lease: Lease, *texts: str, **more: Any) -> Settlement:
    """The end of an attempt of several answers, five tokens each."""
    used = 5 * len(texts)
    return Settlement(
        job_id=lease.job_id,
        attempt=lease.attempt,
        outcome=Outcome.SUCCEEDED,
        text=texts[0],
        finish_reason=FinishReason.STOP,
        prompt_tokens=5,
        completion_tokens=used,
        captured=capture(lease.terms, used),
        choices=choices_text([Choice(text, "stop", 5) for text in texts]),
        **more,
    )


def answer(text: str, tokens: int = 5, logprobs: Any = None) -> dict[str, Any]:
    """An entry of `choices`."""
    return {"text": text, "finish_reason": "stop", "completion_tokens": tokens, "logprobs": logprobs}


def choices_in(result: dict[str, Any]) -> list[dict[str, Any]]:
    """The entries of `choices`, with the fields that `answer` has."""
    return [{name: choice[name] for name in answer("")} for choice in result["choices"]]


async def test_one_answer_is_one_choice(front: Front) -> None:
    job = await front.submit()
    assert job["n"] == 1
    await front.answer("blue", 3)
    result = (await front.client.get(f"/v1/jobs/{job['id']}")).json()["result"]
    assert (result["text"], result["completion_tokens"], result["logprobs"]) == ("blue", 3, None)
    assert choices_in(result) == [answer("blue", 3)]


async def test_several_answers_are_told_apart_in_the_stream_and_in_the_result(front: Front) -> None:
    job = await front.submit(n=2)
    lease = await front.lease(2)
    said = [
        Chunk(lease.job_id, lease.attempt, 2 * i, 2, text, i % 2)
        for i, text in enumerate(("bl", "re", "ue", "d"))
    ]
    assert await front.herd.broker.chunk("w1", said) == [ChunkReply.OK] * 4
    assert await front.herd.broker.chunk("w1", said[2:]) == [ChunkReply.REPEAT] * 2
    await front.herd.broker.settle("w1", settled(lease, "blue", "red"))
    found = (await front.client.get(f"/v1/jobs/{job['id']}")).json()
    assert (found["n"], found["captured"], found["refunded"]) == (2, 20, 30)
    assert choices_in(found["result"]) == [answer("blue"), answer("red")]
    assert (found["result"]["text"], found["result"]["completion_tokens"]) == ("blue", 10)
    stream = (await front.client.get(f"/v1/jobs/{job['id']}/events")).text
    events = [json.loads(line[6:]) for line in stream.splitlines() if line.startswith("data: ")]
    tokens = [event for event in events if "count" in event]
    assert [(event["choice"], event["index"], event["text"]) for event in tokens] == [
        (0, 0, "bl"), (1, 2, "re"), (0, 4, "ue"), (1, 6, "d"),
    ]  # fmt: skip
    assert events[-1]["result"] == found["result"]


async def test_a_stream_of_one_answer_names_no_choice(front: Front) -> None:
    job = await front.submit()
    lease = await front.lease()
    await front.say(lease, "blue")
    await front.settle(lease, "blue", 1)
    assert (
        '"choice":'
        not in (await front.client.get(f"/v1/jobs/{job['id']}/events")).text.partition("event: done")[0]
    )


async def test_log_probabilities_come_with_the_result_and_not_in_lists(front: Front) -> None:
    job = await front.submit(logprobs=1)
    lease = await front.lease()
    chances = [
        [{"token": 1, "text": "é", "logprob": -0.5, "top": [{"token": 2, "text": "\n", "logprob": -0.25}]}]
    ]
    await front.herd.broker.settle("w1", settled(lease, "é", logprobs=logprobs_text(chances)))  # type: ignore[arg-type]
    result = (await front.client.get(f"/v1/jobs/{job['id']}")).json()["result"]
    assert result["logprobs"] == chances[0]
    assert choices_in(result) == [answer("é", logprobs=chances[0])]
    (listed,) = (await front.client.get("/v1/jobs")).json()["jobs"]
    assert (listed["result"]["logprobs"], listed["result"]["text"]) == (None, "é")


async def test_a_stream_tells_the_log_probabilities_of_its_tokens_in_one_line_of_ascii(front: Front) -> None:
    job = await front.submit(logprobs=0)
    lease = await front.lease()
    entry = {"token": 1, "text": "é\u2028\n", "logprob": -0.5, "top": []}
    told = told_text([entry])  # type: ignore[list-item]
    chunks = [
        Chunk(lease.job_id, lease.attempt, 0, 2, "é\u2028\n", logprobs=told),
        Chunk(lease.job_id, lease.attempt, 2, 1, "x"),
    ]
    await front.herd.broker.chunk("w1", chunks)
    await front.herd.broker.settle("w1", settled(lease, "é\u2028\nx"))
    events = (await front.client.get(f"/v1/jobs/{job['id']}/events")).content.split(b"\n\n")
    first, second = (event for event in events if b"event: tokens" in event)
    assert json.loads(first.partition(b"data: ")[2])["logprobs"] == [entry]
    assert first.isascii()
    assert "logprobs" not in json.loads(second.partition(b"data: ")[2])


async def test_more_answers_than_any_worker_has_slots_are_warned_of(front: Front) -> None:
    assert (await front.submit(n=4))["warning"] is None
    few = replace(STATS, slots=3)
    await front.herd.broker.register_worker("w1", CARD, few, None)
    await front.herd.broker.register_worker("w2", CARD, few, None)
    front.herd.market.forget()
    job = await front.submit(n=4)
    assert "makes 4 answers at once" in job["warning"]
    assert "an n of 3 or less" in job["warning"]
    quote = (await front.client.post("/v1/quote", json={"n": 4, "tokens": 5})).json()
    assert (quote["feasible"], quote["warning"]) == (True, job["warning"])
    assert (await front.client.post("/v1/quote", json={"n": 3, "tokens": 5})).json()["warning"] is None
    assert (await front.client.get(f"/v1/jobs/{job['id']}")).json()["warning"] == job["warning"]
    assert (await front.submit(n=3))["warning"] is None
    listed = (await front.client.get("/v1/jobs")).json()["jobs"]
    assert [each["warning"] is None for each in listed] == [True, False, False]


async def test_the_accounts_clock_goes_on_by_all_answers_and_back_by_what_was_not_used(front: Front) -> None:
    broker = front.herd.broker

    async def clock() -> float:
        score = await broker.fetch(broker.redis.zscore(broker.keys("clocks", MODEL), "alice"))
        return float(score)

    await front.submit(n=4)
    begun = await clock()
    fields = await broker.hash_of("job", (await front.lease(4)).job_id)
    cost_ms = int(fields["us_per_token"]) / 1000
    assert begun - int(fields["arrival"]) == 4 * 20 * cost_ms
    (job_id,) = [job["id"] for job in (await front.client.get("/v1/jobs")).json()["jobs"]]
    await front.client.delete(f"/v1/jobs/{job_id}")
    await broker.release("w1", None, died=False)
    assert await clock() == int(fields["arrival"])
