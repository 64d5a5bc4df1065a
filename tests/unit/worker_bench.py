"""A bench for the worker: leases without ceremony, a broker and a doorbell in memory."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import count

from herder.brief import Brief
from herder.errors import RedisUnavailable
from herder.pricing import Terms
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

_jobs = count(1)
TERMS = Terms(set_prompt_fee=10, fee_per_token=1, base=110, fee=220)


def a_lease(prompt: str = "hello", stop: tuple[str, ...] = (), **more: object) -> Lease:
    """A lease of a job of its own."""
    lease = Lease(
        job_id=f"job_{next(_jobs)}",
        attempt=1,
        account="alice",
        brief=Brief(prompt, stop),
        tokens=20,
        terms=TERMS,
    )
    return replace(lease, **more)  # type: ignore[arg-type]


class FakeBroker:
    """What a worker needs of the broker, in memory, with the same answers; `down` makes every call fail."""

    def __init__(self) -> None:
        self.queue: deque[Lease] = deque()
        self.running: dict[str, int] = {}
        self.log: dict[str, list[Chunk]] = defaultdict(list)
        self.settled: dict[str, Settlement] = {}
        self.flagged: set[str] = set()
        self.released: list[tuple[str, int]] = []
        self.registered = 0
        self.renewals: list[list[tuple[str, int]]] = []
        self.told: list[tuple[int, int]] = []
        self.lease_replies = asyncio.Event()
        self.lease_replies.set()
        self.again_ms: int | None = None  # what an empty lease says
        self.takes = 0
        self.calls = 0
        self.left = False
        self.down = False
        self.lose_replies = 0
        self._changed = asyncio.Event()

    async def until(self, condition: object) -> None:
        """Wait until `condition()` holds, looking after every call that the worker makes."""
        async with asyncio.timeout(5):
            while not condition():  # type: ignore[operator]
                await self._changed.wait()
                self._changed.clear()

    def _called(self) -> None:
        self.calls += 1
        self._changed.set()
        if self.down:
            raise RedisUnavailable("the test has taken Redis away")

    def _replied(self) -> None:
        """The script has run; its reply may still be lost."""
        if self.lose_replies:
            self.lose_replies -= 1
            raise RedisUnavailable("the test has lost the reply")

    async def register_worker(
        self, worker_id: str, card: ModelCard, stats: WorkerStats, vocab: bytes | None
    ) -> None:
        self._called()
        self.registered += 1

    async def take(
        self, worker_id: str, model: str, *, slots: int, slots_total: int, kv_free: int, kv_total: int
    ) -> Taken:
        self._called()
        self.takes += 1
        leases: list[Lease] = []
        while self.queue and self.queue[0].brief.n <= slots:
            leases.append(self.queue.popleft())
            slots -= leases[-1].brief.n
        self.running |= {lease.job_id: lease.attempt for lease in leases}
        self._changed.set()
        await self.lease_replies.wait()
        return Taken(leases, None if leases else self.again_ms)

    async def renew(
        self, worker_id: str, model: str, held: Sequence[tuple[str, int]], stats: WorkerStats
    ) -> dict[str, RenewReply]:
        self._called()
        self.renewals.append(list(held))
        self.told.append((stats.slots, stats.busy))
        replies = {}
        for job, attempt in held:
            mine = self.running.get(job) == attempt
            word = RenewReply.CANCEL if job in self.flagged else RenewReply.OK
            replies[job] = word if mine else RenewReply.LOST
        return replies

    async def chunk(self, worker_id: str, chunks: Sequence[Chunk]) -> list[ChunkReply]:
        self._called()
        replies = [self._chunk(chunk) for chunk in chunks]
        self._replied()
        return replies

    def _chunk(self, chunk: Chunk) -> ChunkReply:
        if self.running.get(chunk.job_id) != chunk.attempt:
            return ChunkReply.STALE
        expected = sum(c.token_count for c in self.log[chunk.job_id])
        if chunk.first_index != expected:
            return ChunkReply.REPEAT if chunk.first_index < expected else ChunkReply.GAP
        self.log[chunk.job_id].append(chunk)
        return ChunkReply.CANCEL if chunk.job_id in self.flagged else ChunkReply.OK

    async def settle(self, worker_id: str, settlement: Settlement) -> SettleReply:
        self._called()
        job = settlement.job_id
        if job in self.settled and self.settled[job].attempt == settlement.attempt:
            return SettleReply.REPEAT
        if self.running.get(job) != settlement.attempt:
            return SettleReply.STALE
        del self.running[job]
        self.settled[job] = settlement
        self._replied()
        return SettleReply.OK

    async def release(
        self, worker_id: str, held: Sequence[tuple[str, int]] | None, *, died: bool
    ) -> tuple[int, int]:
        self._called()
        self.released += [pair for pair in held or () if self.running.pop(pair[0], None) == pair[1]]
        return len(self.released), 0

    async def leave(self, worker_id: str) -> None:
        self._called()
        self.left = True

    def text(self, job_id: str) -> str:
        """What the job's event log adds up to."""
        return "".join(chunk.text for chunk in self.log[job_id])


class FakeListener:
    """A waiter on one channel."""

    def __init__(self) -> None:
        self._messages: asyncio.Queue[bytes] = asyncio.Queue(16)
        self._taken = asyncio.Event()

    def ring(self, message: bytes) -> None:
        """Give it a message; a ring too many is lost, as it may be."""
        if not self._messages.full():
            self._messages.put_nowait(message)

    async def next(self, timeout_s: float) -> bytes | None:
        """The next message, or None after a time."""
        try:
            async with asyncio.timeout(timeout_s):
                message = await self._messages.get()
        except TimeoutError:
            return None
        self._taken.set()
        return message

    async def emptied(self) -> None:
        """Wait until no message is left."""
        async with asyncio.timeout(5):
            while not self._messages.empty():
                self._taken.clear()
                await self._taken.wait()


class FakeDoorbell:
    """Rings by hand."""

    def __init__(self) -> None:
        self.listeners: dict[str, FakeListener] = {}

    @asynccontextmanager
    async def listen(self, *channels: str) -> AsyncIterator[FakeListener]:
        """A listener on one channel."""
        (channel,) = channels
        yield self.listeners.setdefault(channel, FakeListener())

    def ring(self, channel: str, message: bytes = b"1") -> None:
        """Ring a channel, listened to or not."""
        self.listeners.setdefault(channel, FakeListener()).ring(message)
