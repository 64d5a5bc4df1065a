"""A herder in memory for the client's chats: counts words as tokens, refuses what is too long, answers at once.

Both clients are driven over it; nothing waits.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import httpx
import pytest

from llama_herder import AsyncHerder, Herder

T = TypeVar("T")

BOTH = pytest.mark.parametrize("kind", [Herder, AsyncHerder])
URL = "http://herd.example"
WAIT_S = 30


@dataclass
class Script:
    """What it was asked, and how it answers: with `answers` in turn, the last of them again and again."""

    context: int = 1_000
    counts: bool = True
    answers: list[dict[str, Any]] = field(default_factory=lambda: [{"status": "succeeded"}])
    last_multiplier: float = 1.5
    bodies: list[dict[str, Any]] = field(default_factory=list)
    asked: list[tuple[str, str]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append((request.method, request.url.path))
        if request.method == "POST":
            return self._submitted(request)
        if request.url.path == "/info":
            return httpx.Response(200, json={"last_multiplier": self.last_multiplier})
        if request.url.path == "/v1/models":
            models = [{"id": "toy", "last_multiplier": 1.5}, {"id": "big", "last_multiplier": 3.0001}]
            return httpx.Response(200, json={"models": models})
        if request.url.path == "/v1/jobs":
            return self._page(request)
        return httpx.Response(200, json=self._job(request.url.path.rpartition("/")[2]))

    def read(self, at: int = -1) -> list[str]:
        """The contents of the turns of one submission."""
        return [turn["content"] for turn in self.bodies[at]["messages"]]

    def _submitted(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        self.bodies.append(body)
        self.keys.append(request.headers.get("idempotency-key", ""))
        words = sum(len(turn["content"].split()) for turn in body.get("messages", ()))
        if words + body["tokens"] > self.context:
            problem = {
                "code": "context_exceeded",
                "status": 422,
                "detail": "it does not fit",
                "tokens": body["tokens"],
            }
            counted = {"prompt_tokens": words, "context": self.context} if self.counts else {}
            return httpx.Response(422, json=problem | counted)
        job_id = f"job_{len(self.bodies)}"
        if request.url.params.get("stream"):
            return httpx.Response(
                200, headers={"content-type": "text/event-stream"}, content=self._events(job_id)
            )
        return httpx.Response(
            202, json={"id": job_id, "status": "queued", "multiplier": body.get("multiplier")}
        )

    def _job(self, job_id: str) -> dict[str, Any]:
        number = int(job_id.rpartition("_")[2])
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        text = (
            answer.get("text", f"answer {number}") if answer["status"] in {"succeeded", "cancelled"} else None
        )
        result = {"text": text, "output": answer.get("output")} if text is not None else None
        return {"id": job_id, "result": result, **answer}

    def _events(self, job_id: str) -> bytes:
        job = self._job(job_id)
        said = [("queued", {"job_id": job_id, "position": 0})]
        if job["result"]:
            said += [("tokens", {"text": job["result"]["text"], "count": 1})]
        said += [("error" if job["status"] == "failed" else "done", job)]
        return "".join(
            f"id: {at}-0\nevent: {name}\ndata: {json.dumps(found)}\n\n"
            for at, (name, found) in enumerate(said, 1)
        ).encode()

    def _page(self, request: httpx.Request) -> httpx.Response:
        """Three pages of two jobs each."""
        at = int(request.url.params.get("cursor", 0))
        jobs = [{"id": f"job_{at * 2 + i}"} for i in range(2)]
        following = {"next": str(at + 1)} if at < 2 else {}
        return httpx.Response(200, json={"jobs": jobs, **following})


def use(kind: type[Herder | AsyncHerder], script: Script, ask: Callable[[Any], Any]) -> Any:
    """What `ask(herder)` gives, awaited where that is needed."""
    transport = httpx.MockTransport(script)

    async def awaited() -> Any:
        async with AsyncHerder(URL, "hk", transport=transport) as herder:
            found = ask(herder)
            return await found if isinstance(found, Awaitable) else found

    if kind is AsyncHerder:
        return asyncio.run(awaited())
    with Herder(URL, "hk", transport=transport) as herder:
        return ask(herder)


class Heard:
    """What callbacks were told, in order, and a wait for so many of them."""

    def __init__(self) -> None:
        self.all: list[Any] = []
        self._changed = threading.Condition()

    def __call__(self, told: Any) -> None:
        with self._changed:
            self.all.append(told)
            self._changed.notify_all()

    def wait(self, count: int = 1) -> list[Any]:
        """All of them, once there are so many."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.all) >= count, WAIT_S)
            return list(self.all)
