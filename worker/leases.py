"""The worker's dealings with the broker: take leases, keep them, report, settle, hand back; patient with Redis.

Knows when Redis was last reached and how long to leave it in peace; must not know of the engine or the scheduler.
Settling and reporting may be repeated, so they are; a lease whose reply was lost is not asked for again, it lapses.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol, TypeVar

from herder.errors import Unavailable
from herder.logs import get_logger
from herder.protocol import (
    Chunk,
    ChunkReply,
    Lease,
    ModelCard,
    RenewReply,
    Settlement,
    SettleReply,
    Taken,
    WorkerStats,
)
from worker.engine import EngineFacts
from worker.outbox import Outbox
from worker.sequence import Key

CALL_S = 10.0
PAUSE_S_MIN = 0.05
PAUSE_S_MAX = 2.0
GIVE_UP_S = 600.0
"""A worker that has not reached Redis for so long ends; whoever supervises it starts another."""

Reply = TypeVar("Reply")

log = get_logger(__name__)


class LeaseBroker(Protocol):
    """What a worker needs of the broker; see `herder.broker.Broker`."""

    async def register_worker(
        self, worker_id: str, card: ModelCard, stats: WorkerStats, vocab: bytes | None
    ) -> None: ...

    async def take(
        self, worker_id: str, model: str, *, slots: int, slots_total: int, kv_free: int, kv_total: int
    ) -> Taken: ...

    async def renew(
        self, worker_id: str, model: str, held: Sequence[tuple[str, int]], stats: WorkerStats
    ) -> dict[str, RenewReply]: ...

    async def chunk(self, worker_id: str, chunks: Sequence[Chunk]) -> list[ChunkReply]: ...

    async def settle(self, worker_id: str, settlement: Settlement) -> SettleReply: ...

    async def release(
        self, worker_id: str, held: Sequence[tuple[str, int]] | None, *, died: bool
    ) -> tuple[int, int]: ...

    async def leave(self, worker_id: str) -> None: ...


class Listener(Protocol):
    """A waiter on one channel; see `herder.doorbell.Listener`. An empty message means that some were missed."""

    async def next(self, timeout_s: float) -> bytes | None: ...


class Doorbell(Protocol):
    """What wakes the worker; see `herder.doorbell.Doorbell`."""

    def listen(self, *channels: str) -> AbstractAsyncContextManager[Listener]: ...


class RedisGone(Exception):
    """Redis could not be reached for GIVE_UP_S."""


class Leases:
    """One worker's line to the broker. Every method that asks returns None when Redis could not be reached."""

    def __init__(
        self,
        broker: LeaseBroker,
        worker_id: str,
        card: ModelCard,
        vocab: bytes | None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._broker = broker
        self._id = worker_id
        self._card = card
        self._vocab = vocab
        self._now = now
        self._missed_since: float | None = None
        self._misses = 0
        self._registered = False
        self._again_s = math.inf  # until a job that was left to another worker may be ours

    @property
    def pause_s(self) -> float:
        """How long to wait before asking again: 0 while Redis answers, then doubling."""
        return min(PAUSE_S_MIN * 2 ** min(self._misses - 1, 10), PAUSE_S_MAX) if self._misses else 0.0

    async def _ask(self, question: Awaitable[Reply]) -> Reply | None:
        """Await one call of the broker. Raises RedisGone after a long silence."""
        try:
            async with asyncio.timeout(CALL_S):
                reply = await question
        except (Unavailable, TimeoutError) as error:
            self._misses += 1
            self._missed_since = self._missed_since if self._missed_since is not None else self._now()
            # It may come back empty: tell it again who we are.
            self._registered = False
            if self._now() - self._missed_since > GIVE_UP_S:
                raise RedisGone(f"Redis has not answered for {GIVE_UP_S:.0f} s: {error}") from error
            return None
        self._misses, self._missed_since = 0, None
        return reply

    async def register(self, stats: WorkerStats) -> None:
        """Put this worker and its model card on the herd's list."""
        await self._broker.register_worker(self._id, self._card, stats, self._vocab)
        self._registered = True

    async def take(self, facts: EngineFacts, *, slots: int, kv_free: int) -> list[Lease] | None:
        """Lease what fits the free slots and KV cells; an empty list when the queue has nothing for us."""
        # Tour 4/8: a worker pulls as many jobs as it has free slots; the lease script moves them to running.
        in_all = {"slots_total": facts.slots, "kv_total": facts.kv_tokens}
        taken = await self._ask(
            self._broker.take(self._id, self._card.model, slots=slots, kv_free=kv_free, **in_all)
        )
        self._again_s = math.inf
        if taken is None:
            return None
        if taken.again_ms is not None:
            self._again_s = taken.again_ms / 1000
        return taken.leases

    def look_s(self, poll_s: float) -> float:
        """How long a worker with free slots that no bell wakes waits before it looks again."""
        return max(self.pause_s, min(poll_s, self._again_s))

    async def renew(self, held: Sequence[Key], stats: WorkerStats) -> dict[Key, RenewReply] | None:
        """Heartbeat, and another lease for everything held."""
        if not self._registered:
            card, vocab = self._card, self._vocab
            registration = self._broker.register_worker(self._id, card, stats, vocab)
            if await self._ask(_true(registration)) is None:
                return None
            self._registered = True
        replies = await self._ask(self._broker.renew(self._id, self._card.model, held, stats))
        if replies is None:
            return None
        return {(job_id, attempt): replies[job_id] for job_id, attempt in held if job_id in replies}

    async def report(self, outbox: Outbox) -> list[tuple[Key, ChunkReply]] | None:
        """Send the chunks that are due, in one round trip; returns those that say to stop (CANCEL, STALE)."""
        chunks = outbox.chunks()
        if not chunks:
            return []
        # Tour 6/8: the tokens' text joins each job's event log, fenced by attempt and by the index of its first token.
        replies = await self._ask(self._broker.chunk(self._id, chunks))
        if replies is None:
            return None
        stop: list[tuple[Key, ChunkReply]] = []
        for chunk, reply in zip(chunks, replies, strict=True):
            outbox.replied(chunk, reply)
            if reply in (ChunkReply.CANCEL, ChunkReply.STALE):
                stop.append(((chunk.job_id, chunk.attempt), reply))
        return stop

    async def settle(self, outbox: Outbox) -> list[tuple[Settlement, SettleReply]]:
        """End every attempt whose text is all told; those that the broker answered. The others stay in the outbox."""

        async def told(settlement: Settlement) -> SettleReply | None:
            return await self._ask(self._broker.settle(self._id, settlement))

        due = outbox.settlements()
        replies = await asyncio.gather(*map(told, due))
        answered = [(s, reply) for s, reply in zip(due, replies, strict=True) if reply is not None]
        for settlement, reply in answered:
            outbox.forget((settlement.job_id, settlement.attempt))
            log.info(
                "settled", job=settlement.job_id, outcome=settlement.outcome.value, reply=reply.value,
                prompt_tokens=settlement.prompt_tokens, cached_tokens=settlement.cached_tokens,
                completion_tokens=settlement.completion_tokens, error=settlement.error_code,
            )  # fmt: skip
        return answered

    async def hand_back(self, held: Sequence[Key]) -> None:
        """Return what is still held, not as a lapse, and leave the list. Whatever fails here lapses by itself."""
        if held:
            await self._ask(self._broker.release(self._id, held, died=False))
        await self._ask(_true(self._broker.leave(self._id)))


async def _true(nothing: Awaitable[None]) -> bool:
    """So that a call that returns nothing can be told from one that did not come off."""
    await nothing
    return True
