"""Batches from files over HTTP without ceremony: lines, an upload, a batch, its end, what is in a file."""

from __future__ import annotations

import json
from typing import Any

import httpx

from tests.integration.api import Front

CHAT, COMPLETION = "/v1/chat/completions", "/v1/completions"


def chat(custom_id: str, text: str = "hello", **body: Any) -> dict[str, Any]:
    """One line."""
    asked = {"model": "toy", "messages": [{"role": "user", "content": text}], "max_tokens": 20, **body}
    return {"custom_id": custom_id, "method": "POST", "url": CHAT, "body": asked}


def completion(custom_id: str, prompt: Any = "once", **body: Any) -> dict[str, Any]:
    """One line."""
    asked = {"model": "toy", "prompt": prompt, "max_tokens": 20, **body}
    return {"custom_id": custom_id, "method": "POST", "url": COMPLETION, "body": asked}


async def upload(front: Front, *lines: Any, **form: str) -> httpx.Response:
    """A file of lines."""
    text = "".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines)
    files = {"file": ("asked.jsonl", text.encode("utf-8", "surrogatepass"), "application/jsonl")}
    return await front.client.post("/v1/files", files=files, data={"purpose": "batch", **form})


async def batch(front: Front, *lines: Any, endpoint: str = CHAT, **more: Any) -> httpx.Response:
    """A batch of lines, submitted."""
    sent = await upload(front, *lines)
    assert sent.status_code == 200, sent.text
    body = {"input_file_id": sent.json()["id"], "endpoint": endpoint, "completion_window": "24h"}
    headers = more.pop("headers", {})
    return await front.client.post("/v1/batches", json=body | more, headers=headers)


async def ended(front: Front, made: dict[str, Any]) -> dict[str, Any]:
    """The batch at its end."""
    while True:
        now: dict[str, Any] = (await front.client.get(f"/v1/batches/{made['id']}")).json()
        if now["status"] in ("completed", "cancelled"):
            return now


async def fed(front: Front, count: int) -> None:
    """So many jobs are in line."""
    while (await front.client.get("/info")).json()["queue_length"] < count:
        pass


async def lines_of(front: Front, file_id: str) -> list[dict[str, Any]]:
    """What is in a file."""
    reply = await front.client.get(f"/v1/files/{file_id}/content")
    assert reply.status_code == 200, reply.text
    return [json.loads(line) for line in reply.text.splitlines()]
