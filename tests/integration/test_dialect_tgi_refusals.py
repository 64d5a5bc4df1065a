"""TGI's API: what is refused, in the words that its clients read; the ends of prompts; health and info."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from herder.settings import Settings
from tests.integration.api import CARD, MODEL, Front, open_front
from tests.integration.test_dialect_tgi import answered, asking
from tests.integration.tokenwise import WAIT_S


@pytest.mark.parametrize(
    ("body", "status", "kind", "names"),
    [
        ({"inputs": None}, 422, "validation", "inputs"),
        ({"inputs": ""}, 422, "validation", "inputs"),
        ({"parameters": []}, 422, "validation", "parameters"),
        ({"parameters": {"best_of": 2}}, 422, "validation", "parameters.best_of"),
        ({"parameters": {"watermark": True}}, 422, "validation", "parameters.watermark"),
        (
            {"parameters": {"decoder_input_details": True}},
            422,
            "validation",
            "parameters.decoder_input_details",
        ),
        ({"parameters": {"max_new_tokens": 0}}, 422, "validation", "parameters.max_new_tokens"),
        ({"parameters": {"max_new_tokens": 600}}, 422, "validation", "context"),
        ({"parameters": {"temperature": -1}}, 422, "validation", "parameters.temperature"),
        ({"parameters": {"repetition_penalty": 0}}, 422, "validation", "parameters.repetition_penalty"),
        ({"parameters": {"stop": "a"}}, 422, "validation", "parameters.stop"),
        ({"parameters": {"stop": [""]}}, 422, "validation", "parameters.stop"),
        ({"parameters": {"truncate": 0}}, 422, "validation", "parameters.truncate"),
        ({"parameters": {"truncate": 3}}, 422, "validation", "parameters.truncate"),
        (
            {"parameters": {"grammar": {"type": "regex", "value": "a"}}},
            422,
            "validation",
            "parameters.grammar",
        ),
        ({"parameters": {"grammar": {"type": "json", "value": 1}}}, 422, "validation", "parameters.grammar"),
        (
            {"parameters": {"grammar": {"type": "json", "value": "{"}}},
            400,
            "bad_request",
            "parameters.grammar",
        ),
        (
            {"parameters": {"grammar": {"type": "json", "value": {"type": "zzz"}}}},
            422,
            "validation",
            "parameters.grammar.value.type: ",
        ),
        ({"model": "gone"}, 404, "unknown_model", "gone"),
        ({"max_fee": 1}, 402, "max_fee_exceeded", "1"),
        ({"multiplier": 40}, 402, "insufficient_funds", "1200"),
    ],
)
async def test_what_is_refused_says_so_in_one_text_and_costs_nothing(
    front: Front, body: dict[str, Any], status: int, kind: str, names: str
) -> None:
    for path in ("/", "/generate_stream"):
        reply = await asyncio.wait_for(asking(front, path, **body), WAIT_S)
        assert (reply.status_code, reply.json().keys()) == (status, {"error", "error_type"}), reply.text
        assert reply.json()["error_type"] == kind
        assert names in reply.json()["error"]
    assert await front.balances() == (1000, 0)


async def test_nobody_without_a_key_and_nobody_faster_than_allowed(settings: Settings) -> None:
    async with open_front(settings.model_copy(update={"rate_limit_per_minute": 1})) as front:
        assert (await front.anonymous.post("/", json={"inputs": "x"})).json()["error_type"] == "missing_key"
        replies = [await front.client.post("/", json={}) for _ in range(9)]
        assert replies[-1].status_code == 429
        assert replies[-1].json()["error_type"] == "rate_limited"
        assert "Retry-After" in replies[-1].headers


async def test_the_end_of_a_prompt_is_kept_where_it_is_truncated(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def count(model: str, text: str) -> int:
        assert model == MODEL
        return 1 + len(text)

    monkeypatch.setattr(front.herd.counter, "count", count)
    for most, kept in ((4, "llo"), (6, "hello"), (9, "hello"), (2, "o")):
        lease, reply = await answered(front, parameters={"truncate": most, "return_full_text": True})
        assert (lease.brief.prompt, reply.json()[0]["generated_text"]) == (kept, "helloblue")
    reply = await asyncio.wait_for(asking(front, parameters={"truncate": 1}), WAIT_S)
    assert "leave nothing" in reply.json()["error"]


async def test_health_and_info_need_no_key(front: Front) -> None:
    assert (await front.anonymous.get("/health")).status_code == 200
    shown = (await front.anonymous.get("/info")).json()
    assert (shown["model_id"], shown["max_total_tokens"], shown["max_input_tokens"]) == (MODEL, 512, 511)
    await front.leave()
    assert (await front.anonymous.get("/info")).json()["max_total_tokens"] == CARD.context
