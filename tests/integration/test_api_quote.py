"""Quotes: the price and the place in line, nothing held; the same answer that a submission would get."""

from __future__ import annotations

from typing import Any

import pytest

from herder.settings import Settings
from tests.integration.api import Front, open_front, problem

BODIES: list[dict[str, Any]] = [
    {"tokens": 20},
    {"tokens": 20, "multiplier": 2.5},
    {"tokens": 20, "fee": 77},
    {"tokens": 20, "fee": 29},
    {"tokens": 20, "max_fee": 29},
    {"tokens": 20, "multiplier": 3, "max_fee": 40},
    {"tokens": 20, "fee": 50, "max_fee": 40},
    {"tokens": 20, "multiplier": 99},
    {"tokens": 505},
    {"tokens": 512},
]


@pytest.mark.parametrize("body", BODIES, ids=str)
async def test_a_quote_says_what_a_submission_then_does(front: Front, body: dict[str, Any]) -> None:
    body = {"prompt": "hello", **body}
    reply = await front.client.post("/v1/quote", json=body)
    assert reply.status_code == 200, reply.text
    assert await front.balances() == (1_000, 0)
    quote = reply.json()
    job = await front.client.post("/v1/jobs", json=body)
    assert quote["feasible"] == (job.status_code == 202)
    if quote["feasible"]:
        same = ("model", "tokens", "base_fee", "fee", "multiplier", "position")
        assert [quote[name] for name in same] == [job.json()[name] for name in same]
        assert quote["reason"] is None
    else:
        assert quote["reason"]["code"] == job.json()["code"]
        assert quote["fee"] == job.json().get("needed", quote["fee"])


async def test_a_quote_for_a_place_in_a_line(front: Front) -> None:
    for _ in range(3):
        await front.submit()
    quote = (await front.client.post("/v1/quote", json={"prompt": "a", "tokens": 20, "multiplier": 1})).json()
    assert (quote["position"], quote["balance"], quote["max_tokens"]) == (3, 910, 900)
    bid = (await front.client.post("/v1/quote", json={"prompt": "a", "tokens": 20, "multiplier": 8})).json()
    assert (bid["position"], bid["fee"], bid["max_tokens"]) == (0, 240, 103)


async def test_a_quote_needs_neither_prompt_nor_tokens(front: Front) -> None:
    quote = (await front.client.post("/v1/quote", json={})).json()
    assert (quote["tokens"], quote["base_fee"], quote["feasible"]) == (256, 266, True)


async def test_the_most_tokens_are_what_a_submission_takes(front: Front) -> None:
    poor = await front.account("poor", 137)
    most = (await poor.post("/v1/quote", json={"multiplier": 1.7})).json()["max_tokens"]
    over = {"prompt": "a", "tokens": most + 1, "multiplier": 1.7}
    assert (
        problem(await poor.post("/v1/jobs", json=over), 402, "insufficient_funds")["max_affordable_tokens"]
        == most
    )
    assert (await poor.post("/v1/jobs", json={**over, "tokens": most})).status_code == 202


async def test_a_free_herd(settings: Settings) -> None:
    async with open_front(
        settings.model_copy(update={"set_prompt_fee": 0, "fee_per_token": 0}), credits_=0
    ) as front:
        quote = (await front.client.post("/v1/quote", json={"prompt": "a", "tokens": 5})).json()
        assert (quote["fee"], quote["feasible"], quote["max_tokens"]) == (0, True, None)
        job = await front.submit(fee=500)
        assert (job["fee"], job["multiplier"]) == (0, 1.0)
        await front.answer()
        assert (await front.client.get(f"/v1/jobs/{job['id']}")).json()["captured"] == 0


async def test_an_unknown_model_and_a_wrong_body_are_refused(front: Front) -> None:
    problem(await front.client.post("/v1/quote", json={"model": "nope"}), 404, "unknown_model")
    problem(await front.client.post("/v1/quote", json={"tokens": 0}), 422, "invalid_request")
    problem(await front.client.post("/v1/quote", json={"multiplier": 101}), 422, "invalid_request")


async def test_one_reckless_bid_is_not_everybodys_price(front: Front) -> None:
    await front.submit(tokens=1, multiplier=80)
    await front.lease()
    front.herd.market.forget()
    quote = (await front.client.post("/v1/quote", json={"prompt": "a", "tokens": 20})).json()
    assert (quote["multiplier"], quote["fee"]) == (2.0, 60)
    models = (await front.client.get("/v1/models")).json()["models"]
    assert models[0]["last_multiplier"] > 79  # told as it is (and decaying), charged only so far
