"""Batches over HTTP without ceremony: submit, wait until fed or ended, read the results."""

from __future__ import annotations

import json
from typing import Any

from tests.integration.api import Front

FEE = 30  # of 20 tokens
LINES = {"content-type": "application/jsonl"}


async def posted(front: Front, body: Any = None, **more: Any) -> dict[str, Any]:
    """A batch that was accepted."""
    given = {"prompts": ["a", "b", "c"], "tokens": 20} if body is None else body
    reply = await front.client.post("/v1/batches", json=given, **more)
    assert reply.status_code == 202, reply.text
    batch: dict[str, Any] = reply.json()
    return batch


async def until_fed(front: Front, batch: dict[str, Any]) -> dict[str, Any]:
    """The batch once all its items are in line."""
    while True:
        now: dict[str, Any] = (await front.client.get(f"/v1/batches/{batch['id']}")).json()
        if not now["counts"]["waiting"]:
            return now


async def until_ended(front: Front, batch: dict[str, Any]) -> dict[str, Any]:
    """The batch at its end."""
    while True:
        now: dict[str, Any] = (await front.client.get(f"/v1/batches/{batch['id']}")).json()
        if now["status"] == "ended":
            return now


async def results(front: Front, batch: dict[str, Any], **params: Any) -> list[dict[str, Any]]:
    """The lines there are."""
    reply = await front.client.get(batch["results_url"], params={"follow": "false", **params})
    assert (reply.status_code, reply.headers["content-type"]) == (200, "application/jsonl")
    return [json.loads(line) for line in reply.text.splitlines() if line]
