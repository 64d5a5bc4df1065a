"""A herder in memory for the client's batches: what it was sent, what it answers, what goes wrong in turn.

Both clients are driven over it; time passes only where they pause.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import httpx
import pytest

from llama_herder import AsyncHerder, Herder, HerderError
from tests.unit.stream_script import Fault, Pauses, Pieces

T = TypeVar("T")

BATCH = "batch_1"
FEE = 10
BOTH = pytest.mark.parametrize("kind", [Herder, AsyncHerder])


def result(
    cursor: int, index: int, status: str = "succeeded", custom_id: str | None = None
) -> dict[str, Any]:
    """The line of an item, the `cursor`-th that ended."""
    good = status == "succeeded"
    answer = {"text": f"♥ {index}\n", "finish_reason": "stop", "prompt_tokens": 3, "completion_tokens": 4}
    error = {"code": "engine_error", "message": "it broke"} if status == "failed" else None
    return {
        "cursor": cursor,
        "index": index,
        "custom_id": custom_id,
        "job_id": f"job_1n{index}",
        "status": status,
        "result": answer if good else None,
        "error": error,
        "fee": FEE,
        "captured": 6 if good else 0,
        "refunded": 4 if good else FEE,
    }


def line(found: dict[str, Any]) -> bytes:
    """A result as a herder writes it."""
    return json.dumps(found, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


@dataclass
class Script:
    """Takes batches as a herder does, once every fault has had its turn; ends all items at once, in `order`."""

    order: list[int] | None = None
    statuses: dict[int, str] = field(default_factory=dict)
    refused: int = 0
    faults: list[Fault] = field(default_factory=list)
    seen: list[httpx.Request] = field(default_factory=list)
    bodies: list[Pieces] = field(default_factory=list)
    items: list[dict[str, Any]] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)
    paid: dict[str, bytes] = field(default_factory=dict)
    cancelled: bool = False

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.seen.append(request)
        return self.faults.pop(0)(request) if self.faults else self.whole(request)

    def whole(self, request: httpx.Request) -> httpx.Response:
        """An answer without a fault."""
        if request.method == "POST":
            return self._submitted(request)
        if request.url.path == "/v1/account":
            return httpx.Response(200, json={"id": "ann", "available": 1000})
        if request.url.path.endswith("/results"):
            return self.streamed([line(found) for found in self._rest(request)])
        self.cancelled |= request.method == "DELETE"
        return httpx.Response(200, json=self._batch())

    def lost(self, request: httpx.Request) -> httpx.Response:
        """What was asked for happens, and the reply is lost."""
        self.whole(request)
        raise httpx.ReadError("the line broke")

    def cut(self, at: int, error: Exception | None = None) -> Fault:
        """The results up to a byte; then they end, or break."""

        def answer(request: httpx.Request) -> httpx.Response:
            return self.streamed([b"".join(line(found) for found in self._rest(request))[:at]], error)

        return answer

    def streamed(self, pieces: list[bytes], error: Exception | None = None) -> httpx.Response:
        """An open answer with these bytes in it."""
        self.bodies.append(Pieces([piece for piece in pieces if piece], error))
        return httpx.Response(200, headers={"content-type": "application/jsonl"}, stream=self.bodies[-1])

    def results(self) -> list[dict[str, Any]]:
        """Every line, in the order of completion."""
        order = self.order if self.order is not None else list(range(len(self.items)))
        return [
            result(at, index, self.statuses.get(index, "succeeded"), self.items[index].get("custom_id"))
            for at, index in enumerate(order, 1)
        ]

    def requests(self) -> list[str]:
        """What was asked for, in order."""
        return [
            " ".join([r.method, r.url.path.removeprefix("/v1"), r.url.params.get("cursor", "")]).strip()
            for r in self.seen
        ]

    def _rest(self, request: httpx.Request) -> list[dict[str, Any]]:
        return self.results()[int(request.url.params["cursor"]) :]

    def _submitted(self, request: httpx.Request) -> httpx.Response:
        key = request.headers["idempotency-key"]
        known = self.paid.setdefault(key, request.content)
        assert known == request.content, "the same key with another body"
        self.options = dict(request.url.params)
        if request.headers["content-type"] == "application/jsonl":
            self.items = [json.loads(row) for row in request.content.splitlines() if row.strip()]
        else:
            self.options = json.loads(request.content)
            prompts = [{"prompt": prompt} for prompt in self.options.pop("prompts", [])]
            self.items = self.options.pop("items", prompts)
        self.items = self.items[: len(self.items) - self.refused]
        return httpx.Response(202, json={**self._batch(), "balance": 7})

    def _batch(self) -> dict[str, Any]:
        ended = [found["status"] for found in self.results()]
        counts = {status: ended.count(status) for status in ("succeeded", "failed", "cancelled", "expired")}
        whole = len(ended) == len(self.items)
        counts["queued"] = len(self.items) - len(ended)
        return {
            "id": BATCH,
            "status": "ended" if whole else "running",
            "total": len(self.items),
            "refused": self.refused,
            "counts": counts,
            "fee": FEE * len(self.items),
            "metadata": {},
        }


def ended(count: int = 3, **more: Any) -> Script:
    """A herder whose batch has ended."""
    return Script(items=[{"prompt": str(n)} for n in range(count)], **more)


def both(
    kind: type[Herder | AsyncHerder],
    script: Callable[[httpx.Request], httpx.Response],
    use: Callable[[Any], Any],
) -> tuple[list[Any], HerderError | None, Pauses]:
    """What a call gives with one of the two clients: its items if it is a stream, else it alone; and its error."""
    pauses, found = Pauses(), list[Any]()
    transport = httpx.MockTransport(script)

    def ordinary() -> None:
        with Herder("http://herd.example", "hk", transport=transport) as herder:
            pauses.use(herder, patch)
            given = use(herder)
            found.extend(given) if hasattr(given, "close") else found.append(given)

    async def asynchronous() -> None:
        async with AsyncHerder("http://herd.example", "hk", transport=transport) as herder:
            pauses.use(herder, patch)
            given = use(herder)
            if not hasattr(given, "__anext__"):
                found.append(await given)
                return
            async with contextlib.aclosing(given) as results:
                async for one in results:
                    found.append(one)

    with pytest.MonkeyPatch.context() as patch:
        try:
            ordinary() if kind is Herder else asyncio.run(asynchronous())
        except HerderError as error:
            return found, error, pauses
    return found, None, pauses
