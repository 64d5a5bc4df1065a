"""A herder on a loopback port in the test's own event loop, readers of its streams, and a worker made of calls."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from herder.api.state import Herd
from herder.broker import Broker
from herder.pricing import capture
from herder.protocol import Chunk, FinishReason, Lease, Outcome, Settlement
from herder.records import Role
from herder.serve import Server, server
from herder.settings import Settings
from tests.integration.api import CARD, MODEL, STATS, WORKER

WAIT_S = 20
CANCELS = {"cancel_on_disconnect": "true"}
SMALL_BYTES = 4_096  # a receive buffer that is soon full


@dataclass(frozen=True)
class Event:
    """One event as a reader sees it; without an id where it had none."""

    kind: str
    shown: dict[str, Any]
    event_id: str | None


def events_of(text: str) -> list[Event]:
    """Whole frames; comments and `retry` are left out, and nothing else may stand there."""
    found = []
    for block in text.split("\n\n")[:-1]:
        lines = [line.partition(": ") for line in block.split("\n") if line and not line.startswith(":")]
        fields = {name: value for name, _, value in lines}
        assert len(fields) == len(lines), block
        if set(fields) <= {"retry"}:
            continue
        assert set(fields) - {"id"} == {"event", "data"}, block
        found.append(Event(fields["event"], json.loads(fields["data"]), fields.get("id")))
    return found


def text_of(events: list[Event]) -> str:
    """The answer, put together as a client does."""
    text = ""
    for event in events:
        if event.kind in ("started", "restarted"):
            text = ""
        elif event.kind == "tokens":
            text += event.shown["text"]
    return text


class Reader:
    """One open stream."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self.text = ""
        self._pieces = response.aiter_text()

    @property
    def events(self) -> list[Event]:
        """What has been read so far."""
        return events_of(self.text)

    async def until(self, condition: Callable[[], object]) -> None:
        """Read on until it holds."""
        async with asyncio.timeout(WAIT_S):
            while not condition():
                self.text += await anext(self._pieces)

    async def until_kind(self, kind: str) -> None:
        """Read on until an event of this kind is there."""
        await self.until(lambda: any(event.kind == kind for event in self.events))

    async def rest(self) -> list[Event]:
        """Read to the end; all events."""
        async with asyncio.timeout(WAIT_S):
            async for piece in self._pieces:
                self.text += piece
        return self.events


class Serving:
    """A herder that serves here, and alice, who has a key and credits."""

    def __init__(self, running: Server, key: str) -> None:
        self.running = running
        self.key = key
        host, port = running.servers[0].sockets[0].getsockname()[:2]
        self.url = f"http://{host}:{port}"
        self.http = self.client(limits=httpx.Limits(max_connections=None))

    @property
    def herd(self) -> Herd:
        """Its inside; only for looking."""
        herd = self.running.config.app.state.herd  # type: ignore[union-attr]
        assert isinstance(herd, Herd)
        return herd

    def sample(self, name: str) -> float:
        """A metric of it."""
        return self.herd.metrics.registry.get_sample_value(name) or 0.0

    def client(self, **options: Any) -> httpx.AsyncClient:
        """A client with alice's key, of its own."""
        return httpx.AsyncClient(
            base_url=self.url, headers={"X-API-Key": self.key}, trust_env=False, verify=False, timeout=WAIT_S,
            **options,
        )  # fmt: skip

    async def submit(self, **body: Any) -> str:
        """A job of alice's."""
        reply = await self.http.post("/v1/jobs", json={"prompt": "hello", "tokens": 20, **body})
        assert reply.status_code == 202, reply.text
        return str(reply.json()["id"])

    @contextlib.asynccontextmanager
    async def reading(
        self,
        job_id: str,
        after: str | None = None,
        client: httpx.AsyncClient | None = None,
        query: Mapping[str, str] | None = None,
    ) -> AsyncIterator[Reader]:
        """A reader of this job's events; its connection is cut on the way out."""
        headers = {} if after is None else {"Last-Event-ID": after}
        path = f"/v1/jobs/{job_id}/events"
        request = (client or self.http).stream("GET", path, headers=headers, params=query)
        async with request as response:
            assert response.status_code == 200, await response.aread()
            yield Reader(response)

    @contextlib.asynccontextmanager
    async def lazy(self, job_id: str, query: Mapping[str, str] | None = None) -> AsyncIterator[Reader]:
        """A reader whose buffer is soon full."""
        buffer = [(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BYTES)]
        async with (
            self.client(transport=httpx.AsyncHTTPTransport(verify=False, socket_options=buffer)) as client,
            self.reading(job_id, client=client, query=query) as reader,
        ):
            yield reader

    async def until_streams(self, count: int) -> None:
        """Until so many streams are open."""
        await self.until(lambda: self.sample("herder_streams") == count)

    async def until(self, condition: Callable[[], object]) -> None:
        """Until something inside is so."""
        async with asyncio.timeout(WAIT_S):
            while not condition():
                await asyncio.wait({asyncio.ensure_future(asyncio.Event().wait())}, timeout=0.005)


@contextlib.asynccontextmanager
async def serving(settings: Settings, *, key: str = "") -> AsyncIterator[Serving]:
    """A herder, up; with `key`, alice's of a herder that serves the same Redis already."""
    running = server(settings.model_copy(update={"port": 0}))
    task = asyncio.create_task(running._serve(None))
    while not running.started:
        await asyncio.wait({task}, timeout=0.01)
        assert not task.done(), "the herder did not start"
    herd: Herd = running.config.app.state.herd  # type: ignore[union-attr]
    if not key:
        await herd.ledger.create_account("alice")
        await herd.ledger.deposit("alice", 10**9, None)
        _, key = await herd.ledger.create_key("alice", Role.CLIENT, "")
        await herd.broker.register_worker(WORKER, CARD, STATS, None)
        herd.market.forget()
    found = Serving(running, key)
    try:
        yield found
    finally:
        running.end_long_polls()
        running.should_exit = True
        await asyncio.wait_for(task, WAIT_S)
        await found.http.aclose()


class Hand:
    """A worker, one call at a time."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker

    async def lease(self) -> Lease:
        """The next job."""
        (lease,) = await self.broker.lease(WORKER, MODEL, slots=1, kv_free=10**6, kv_total=10**6)
        return lease

    async def say(self, lease: Lease, first: int, *texts: str) -> None:
        """A token event a text."""
        chunks = [Chunk(lease.job_id, lease.attempt, first + i, 1, text) for i, text in enumerate(texts)]
        replies = await self.broker.chunk(WORKER, chunks)
        assert {reply.value for reply in replies} <= {"OK", "CANCEL"}, replies

    async def die(self, lease: Lease) -> None:
        """The worker dies with this job."""
        assert await self.broker.release(WORKER, [(lease.job_id, lease.attempt)], died=True) == (1, 0)

    async def settle(
        self, lease: Lease, text: str, tokens: int = 1, outcome: Outcome = Outcome.SUCCEEDED
    ) -> None:
        """The end of an attempt."""
        failed = outcome is Outcome.FAILED
        reason = FinishReason.CANCELLED if outcome is Outcome.CANCELLED else FinishReason.STOP
        settlement = Settlement(
            job_id=lease.job_id, attempt=lease.attempt, outcome=outcome, text=text,
            finish_reason=None if failed else reason, prompt_tokens=5, completion_tokens=tokens,
            captured=0 if failed else capture(lease.terms, tokens),
            error_code="engine_error" if failed else None, error_message="it broke" if failed else None,
        )  # fmt: skip
        await self.broker.settle(WORKER, settlement)

    async def ids(self, job_id: str) -> list[str]:
        """Every id of the job's log."""
        return [event.event_id for event in await self.broker.events(job_id)]
