"""The whole herder behind its HTTP surface, in this process: a client without a network, and a worker made of calls."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
from fastapi import FastAPI

from herder.api.state import Herd
from herder.app import create_app
from herder.pricing import capture
from herder.protocol import (
    Chunk,
    FinishReason,
    Lease,
    ModelCard,
    Outcome,
    Settlement,
    SettleReply,
    WorkerStats,
)
from herder.records import Role
from herder.settings import Settings

MODEL = "toy"
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ m.content }}</{{ m.role }}>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
CARD = ModelCard(
    model=MODEL,
    context=512,
    vocab_size=257,
    max_piece_bytes=8,
    template=TEMPLATE,
    bos_token="<s>",
    eos_token="</s>",
    adds_bos=True,
)
STATS = WorkerStats(slots=4, busy=0, tokens_per_second=0.0)
WORKER = "w1"


class Front:
    """A herder that is up. `client` has alice's key; `admin` an administrator's; `anonymous` none."""

    def __init__(self, app: FastAPI) -> None:
        self.app = app
        self.herd: Herd = app.state.herd
        self.client = self.with_key(None)
        self.admin = self.with_key(None)
        self.anonymous = self.with_key(None)

    def with_key(self, key: str | None) -> httpx.AsyncClient:
        """A client of its own."""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        transport = httpx.ASGITransport(self.app)
        return httpx.AsyncClient(transport=transport, base_url="http://herd", headers=headers)

    async def account(self, name: str, credits_: int, role: Role = Role.CLIENT) -> httpx.AsyncClient:
        """An account with credits, and a client with a key of it."""
        await self.herd.ledger.create_account(name)
        if credits_:
            await self.herd.ledger.deposit(name, credits_, None)
        _, key = await self.herd.ledger.create_key(name, role, "")
        return self.with_key(key)

    async def worker(self, card: ModelCard = CARD) -> None:
        """A worker comes."""
        await self.herd.broker.register_worker(WORKER, card, STATS, None)
        self.herd.market.forget()

    async def leave(self) -> None:
        """The worker goes."""
        await self.herd.broker.leave(WORKER)
        self.herd.market.forget()

    async def submit(self, **body: Any) -> dict[str, Any]:
        """A job of alice's."""
        reply = await self.client.post("/v1/jobs", json={"prompt": "hello", "tokens": 20, **body})
        assert reply.status_code == 202, reply.text
        job: dict[str, Any] = reply.json()
        return job

    async def balances(self, name: str = "alice") -> tuple[int, int]:
        """(available, held)."""
        record = await self.herd.ledger.account(name)
        assert record is not None
        return record.available, record.held

    async def until_waiting(self, clients: int) -> None:
        """Until so many long polls are waiting; the test's own time limit is the limit."""
        while self.herd.metrics.registry.get_sample_value("herder_long_polls") != clients:
            await self.herd.broker.ping()

    async def until_full(self, full: bool) -> None:
        """Until the herder finds Redis full, or no longer."""
        while self.herd.full != full:
            await self.herd.broker.ping()

    async def lease(self, slots: int = 1) -> Lease:
        """The next job, in the worker's hands; `slots` as many as it wants answers."""
        (lease,) = await self.herd.broker.lease(WORKER, MODEL, slots=slots, kv_free=10**6, kv_total=10**6)
        return lease

    async def say(self, lease: Lease, text: str, first: int = 0) -> None:
        """A token event."""
        await self.herd.broker.chunk(WORKER, [Chunk(lease.job_id, lease.attempt, first, 1, text)])

    async def settle(
        self,
        lease: Lease,
        text: str,
        tokens: int,
        outcome: Outcome = Outcome.SUCCEEDED,
        error_code: str = "engine_error",
    ) -> SettleReply:
        """The end of an attempt; `error_code` is that of one that failed."""
        reason = FinishReason.CANCELLED if outcome is Outcome.CANCELLED else FinishReason.STOP
        failed = outcome is Outcome.FAILED
        settlement = Settlement(
            job_id=lease.job_id,
            attempt=lease.attempt,
            outcome=outcome,
            text=text,
            finish_reason=None if failed else reason,
            prompt_tokens=5,
            completion_tokens=tokens,
            captured=0 if failed else capture(lease.terms, tokens),
            error_code=error_code if failed else None,
            error_message="it broke" if failed else None,
        )
        return await self.herd.broker.settle(WORKER, settlement)

    async def answer(self, text: str = "blue", tokens: int = 1) -> None:
        """Serve the next job."""
        await self.settle(await self.lease(), text, tokens)


@contextlib.asynccontextmanager
async def open_front(
    settings: Settings, *, credits_: int = 1_000, worker: bool = True
) -> AsyncIterator[Front]:
    """A herder on these settings, with alice, an administrator and, unless told otherwise, a worker."""
    app = create_app(settings)
    async with app.router.lifespan_context(app), contextlib.AsyncExitStack() as stack:
        front = Front(app)
        front.client = await front.account("alice", credits_)
        front.admin = await front.account("root", 0, Role.ADMIN)
        for client in (front.client, front.admin, front.anonymous):
            await stack.enter_async_context(client)
        if worker:
            await front.worker()
        yield front


def problem(reply: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The problem document of a refusal, checked to be a whole one."""
    assert (reply.status_code, reply.headers["content-type"]) == (status, "application/problem+json"), (
        reply.text
    )
    document: dict[str, Any] = reply.json()
    assert document["code"] == code, document
    assert document["status"] == status
    assert document["title"]
    assert document["detail"]
    assert document["request_id"] == reply.headers["x-request-id"]
    return document
