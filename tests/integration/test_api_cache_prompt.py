"""`cache_prompt` and `seed` on their way from a body to what the worker reads."""

from __future__ import annotations

import pytest

from tests.integration.api import Front, problem
from tests.integration.batch_calls import posted, until_fed


@pytest.mark.parametrize(
    ("options", "cached", "repeatable"),
    [
        ({}, True, False),
        ({"seed": 0}, True, True),
        ({"seed": 7, "cache_prompt": True}, True, False),
        ({"seed": 7, "cache_prompt": False}, False, True),
        ({"cache_prompt": False}, False, True),
        ({"cache_prompt": None}, True, False),
    ],
)
async def test_what_the_worker_reads(
    front: Front, options: dict[str, object], cached: bool, repeatable: bool
) -> None:
    await front.submit(**options)
    brief = (await front.lease()).brief
    assert (brief.cache_prompt, brief.repeatable) == (cached, repeatable)


async def test_it_is_a_boolean_and_nothing_like_one(front: Front) -> None:
    for value in ("false", 0):
        reply = await front.client.post("/v1/jobs", json={"prompt": "a", "tokens": 5, "cache_prompt": value})
        assert problem(reply, 422, "invalid_request")["errors"][0]["field"] == "cache_prompt"


async def test_an_item_takes_it_over_from_its_batch(front: Front) -> None:
    items = [{"prompt": "a", "multiplier": 2}, {"prompt": "b", "cache_prompt": True}]
    batch = await posted(front, {"items": items, "tokens": 5, "raw": True, "cache_prompt": False})
    await until_fed(front, batch)
    briefs = [(await front.lease()).brief for _ in items]
    assert [(brief.prompt, brief.cache_prompt) for brief in briefs] == [("a", False), ("b", True)]


async def test_lines_take_it_over_from_the_query(front: Front) -> None:
    query = {"tokens": "5", "raw": "true", "cache_prompt": "false"}
    kind = {"Content-Type": "application/jsonl"}
    reply = await front.client.post("/v1/batches", content=b'{"prompt": "c"}\n', params=query, headers=kind)
    assert reply.status_code == 202
    await until_fed(front, reply.json())
    assert (await front.lease()).brief.cache_prompt is False
