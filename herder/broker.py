"""The only door to Redis for jobs: one async method a transition, plus the reads. Decides nothing, awaits everything.

Knows no HTTP and no llama.cpp. Expected races come back as values; a caller's mistake is an exception of `errors`;
our own mistake is an assert. Money and accounts are next door, in `ledger`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import redis.asyncio
from pydantic_core import to_json

from herder import reads
from herder.clock import Clock, ServerClock
from herder.errors import (
    NotFound,
    RedisUnavailable,
    SetupError,
)
from herder.keys import SCHEMA_VERSION, Keys
from herder.pricing import Prices, head_start_ms
from herder.protocol import (
    Accepted,
    Ask,
    Chunk,
    ChunkReply,
    JobRecord,
    Lease,
    ModelCard,
    RenewReply,
    Settlement,
    SettleReply,
    Taken,
    WorkerStats,
)
from herder.replies import lease_of, refusal, text_of
from herder.scripts import Scripts
from herder.settings import Settings

US_PER_TOKEN_UNMEASURED = 20_000
LEASE_LOOKAHEAD = 16
LEASE_SCAN_MAX = 1_000  # of the line, where jobs stand in it that only a larger worker can run
PREFIX_TTL_MS = 300_000  # a worker is taken to hold what it took so long ago, at most twice as long
PREFIXES_MAX = 32_768  # beginnings of a model's prompts; as many again of the time before
PREFIX_HOLDERS_MAX = 4  # workers that are known to hold one
SWEEP_LIMIT = 500
SWEEP_PAUSE_MS = 5_000  # sweeps are a second apart: where it was so long, the herd stood still
PRESENT_STEP = 500  # names a script
CONNECTIONS_MAX = 8  # of one process, its subscription included
CONNECTION_WAIT_S = 20
GONE_LEASES = 3  # a worker that was silent for this many leases is off the list


class PricesChanged(Exception):
    """The price list changed between pricing and submitting: price again."""


class Broker(reads.Reads):
    """One connection pool, every transition. Make one with `connect`."""

    def __init__(self, client: redis.asyncio.Redis, settings: Settings, clock: Clock | None = None) -> None:
        super().__init__(client, Keys(settings.redis_prefix), settings, clock or ServerClock())
        self.scripts = Scripts(client, settings.redis_prefix, self.clock)

    async def close(self) -> None:
        """Give the connections back."""
        await self.scripts.close()
        await self.redis.aclose()

    async def check_schema(self) -> None:
        """Stamp an empty database; raises SetupError for one that another version of the herd has written."""
        version = int(await self.scripts.call("schema", {"version": SCHEMA_VERSION}))
        if version != SCHEMA_VERSION:
            raise SetupError(
                f"this Redis holds schema version {version}, this herd speaks {SCHEMA_VERSION}: "
                "use the herd that wrote it, another HERDER_REDIS_PREFIX, or an empty database"
            )

    # --- the client's side -------------------------------------------------------------------------------

    async def submit(self, ask: Ask) -> Accepted:
        """Hold the fee and queue the job, in one step; the same job id or idempotency key again is answered, not sold.

        Raises InsufficientFunds, AccountSuspended, UnknownModel, IdempotencyConflict, Overloaded, PricesChanged.
        """
        # Tour 2/8: the fee is held and the job joins the queue in one Lua script; nothing can come between.
        s = self.settings
        arguments = {
            "job": ask.job_id, "account": ask.account, "key_id": ask.key_id, "model": ask.model,
            "tokens": ask.tokens, "base": ask.terms.base, "fee": ask.terms.fee,
            "set_prompt_fee": ask.terms.set_prompt_fee, "fee_per_token": ask.terms.fee_per_token,
            "multiplier_milli": ask.multiplier_milli, "offered": int(ask.offered),
            "head_start_ms": head_start_ms(ask.multiplier_milli, s.doubling_ms),
            "price_version": ask.price_version, "kv_tokens": ask.kv_tokens,
            "n": ask.brief.n if ask.brief.n > 1 else None,
            "chain": json.dumps(ask.chain) if ask.chain else None,
            "marks": ask.marks, "typed": None if ask.brief.schema is None else 1,
            "metadata": to_json(ask.metadata).decode() if ask.metadata else None,
            "idempotency_key": ask.idempotency_key, "request_hash": ask.request_hash,
            "idempotency_ttl_ms": s.idempotency_ttl_ms, "result_ttl_ms": s.result_ttl_ms,
            "queue_depth_max": s.queue_depth_max, "window_ms": s.window_ms,
            "us_per_token_default": US_PER_TOKEN_UNMEASURED,
            "webhook_url": ask.webhook and ask.webhook.url,
            "webhook_endpoint": ask.webhook and ask.webhook.endpoint,
            "presence_ms": ask.presence_ms or None, "run": ask.run, "ao": ask.ao,
        }  # fmt: skip
        reply = [text_of(part) for part in await self.scripts.call("submit", arguments, ask.brief.as_json())]
        match reply:
            case ["OK", int(position), int(submitted_ms), int(available)]:
                return Accepted(ask.job_id, position, False, submitted_ms, available)
            case ["REPLAY", job_id]:
                return Accepted(str(job_id), 0, replayed=True)
            case ["REPRICE"]:
                raise PricesChanged
            case _:
                raise refusal(reply, "prompt", ask.account, ask.terms.fee, s.queue_depth_max)

    async def cancel(self, account: str, job_id: str) -> JobRecord:
        """Cancel a queued job, or flag a running one; an ended job is returned as it is. Raises NotFound."""
        reply = text_of(await self.scripts.call("cancel", {"account": account, "job": job_id}))
        record = None if reply == "UNKNOWN" else await self.job(job_id)
        if record is None:
            raise NotFound(f"no job {job_id} in this account")
        return record

    async def present(self, jobs: Sequence[str], batches: Sequence[str] = ()) -> set[str]:
        """Their callers still wait: another `presence_ms` for each. Returns those that have no presence (any more)."""
        names = [*jobs, *batches]
        gone: set[str] = set()
        for start in range(0, len(names), PRESENT_STEP):  # those that wait together would be one script
            reply = await self.scripts.call("present", {"names": names[start : start + PRESENT_STEP]})
            gone |= {text_of(name) for name in reply}
        return gone

    # --- the worker's side -------------------------------------------------------------------------------

    async def register_worker(
        self, worker_id: str, card: ModelCard, stats: WorkerStats, vocab: bytes | None
    ) -> None:
        """Put a worker and its model card on the herd's list; `vocab` is a GGUF without tensors."""
        arguments = {
            "op": "register", "worker": worker_id, "model": card.model, "card": json.dumps(asdict(card)),
            "stats": json.dumps(asdict(stats)), "gone_ms": self._gone_ms(),
        }  # fmt: skip
        await self.scripts.call("worker", arguments, vocab or b"")

    async def leave(self, worker_id: str) -> None:
        """Take a worker off the lists. What it still holds lapses, or is released."""
        await self.scripts.call("worker", {"op": "leave", "worker": worker_id})

    async def lease(
        self, worker_id: str, model: str, *, slots: int, kv_free: int, kv_total: int
    ) -> list[Lease]:
        """`take`, for a worker that has no more than these slots and does not wait."""
        taken = await self.take(
            worker_id, model, slots=slots, slots_total=slots, kv_free=kv_free, kv_total=kv_total
        )
        return taken.leases

    async def take(
        self, worker_id: str, model: str, *, slots: int, slots_total: int, kv_free: int, kv_total: int
    ) -> Taken:
        """Take jobs from the head of the model's queue: as many as fit `slots` and `kv_free` KV cells.

        `slots_total` and `kv_total` are what the worker has in all: a job that needs more is never for it.
        """
        if slots <= 0:
            return Taken([])
        s = self.settings
        arguments = {
            "worker": worker_id, "model": model, "slots": slots, "slots_total": slots_total,
            "kv_free": kv_free, "kv_total": kv_total, "lease_ms": s.lease_ms, "skips_max": s.lease_skips_max,
            "lookahead": LEASE_LOOKAHEAD, "scan_max": LEASE_SCAN_MAX, "gone_ms": self._gone_ms(),
            "prefix_window_ms": s.prefix_window_ms, "prefix_wait_ms": s.prefix_wait_ms,
            "prefix_ttl_ms": PREFIX_TTL_MS, "prefixes_max": PREFIXES_MAX, "holders_max": PREFIX_HOLDERS_MAX,
        }  # fmt: skip
        again_ms, rows = await self.scripts.call("lease", arguments)
        return Taken([lease_of(row) for row in rows], int(again_ms) if again_ms >= 0 else None)

    async def renew(
        self, worker_id: str, model: str, held: Sequence[tuple[str, int]], stats: WorkerStats
    ) -> dict[str, RenewReply]:
        """Heartbeat, and another lease for every held (job, attempt)."""
        arguments = {
            "worker": worker_id, "model": model, "held": [list(pair) for pair in held],
            "stats": json.dumps(asdict(stats)), "tokens_per_second": stats.tokens_per_second,
            "lease_ms": self.settings.lease_ms, "gone_ms": self._gone_ms(),
        }  # fmt: skip
        replies = await self.scripts.call("renew", arguments)
        return {job: RenewReply(text_of(word)) for (job, _), word in zip(held, replies, strict=True)}

    async def chunk(self, worker_id: str, chunks: Sequence[Chunk]) -> list[ChunkReply]:
        """Append token events, all in one round trip."""
        calls: list[tuple[dict[str, Any], str | bytes]] = [
            (
                {
                    "worker": worker_id, "job": c.job_id, "attempt": c.attempt,
                    "first_index": c.first_index, "token_count": c.token_count, "choice": c.choice,
                    "logprobs": c.logprobs,
                },
                c.text,
            )
            for c in chunks
        ]  # fmt: skip
        if not calls:
            return []
        return [ChunkReply(text_of(word)) for word in await self.scripts.pipeline("chunk", calls)]

    async def settle(self, worker_id: str, settlement: Settlement) -> SettleReply:
        """End an attempt: capture, result and callback in one step. Safe to repeat."""
        # Tour 7/8: the fee is captured, the result stored and the callback posted in one Lua script.
        arguments = {k: v for k, v in vars(settlement).items() if k not in ("text", "job_id")}
        arguments |= {"job": settlement.job_id, "worker": worker_id}
        reply = text_of(await self.scripts.call("settle", arguments, settlement.text))
        assert reply not in ("OVERDRAWN", "NOT_FLAGGED"), f"settlement of {settlement.job_id} is {reply}"
        return SettleReply(reply)

    async def release(
        self, worker_id: str, held: Sequence[tuple[str, int]] | None, *, died: bool, killed: bool = False
    ) -> tuple[int, int]:
        """Hand jobs back (None: all of this worker's); (taken, quarantined).

        `died` counts it as a lapse of each; `killed` (it was SIGKILL) as half of one.
        """
        pairs = None if held is None else [list(pair) for pair in held]
        arguments = {"worker": worker_id, "held": pairs, "died": died, "killed": killed}
        taken, quarantined = await self.scripts.call("release", arguments)
        return int(taken), int(quarantined)

    # --- the chores --------------------------------------------------------------------------------------

    async def sweep(self) -> tuple[int, int]:
        """Requeue what lapsed, cancel what nobody waits for, forget what is gone; (lapsed, quarantined)."""
        server = await self.fetch(self.redis.info("server"))
        arguments = {
            "run_id": server["run_id"], "lease_ms": self.settings.lease_ms, "limit": SWEEP_LIMIT,
            "presence_ms": self.settings.presence_ms, "pause_ms": SWEEP_PAUSE_MS,
            "gone_ms": self._gone_ms(), "window_ms": self.settings.window_ms,
            "result_ttl_ms": self.settings.result_ttl_ms, "webhook_ttl_ms": self.settings.webhook_ttl_ms,
        }  # fmt: skip
        lapsed, quarantined = await self.scripts.call("sweep", arguments)
        return int(lapsed), int(quarantined)

    async def set_prices(self, set_prompt_fee: int, fee_per_token: int) -> Prices:
        """Set the price list of the herd; submissions priced at the old one are priced again."""
        arguments = {"set_prompt_fee": set_prompt_fee, "fee_per_token": fee_per_token}
        return Prices(set_prompt_fee, fee_per_token, int(await self.scripts.call("prices", arguments)))

    def _gone_ms(self) -> int:
        return GONE_LEASES * self.settings.lease_ms


async def connect(settings: Settings, clock: Clock | None = None, *, attempts: int = 50) -> Broker:
    """A broker on `settings.redis_url`, its schema checked; waits for a Redis that is still starting.

    Raises RedisUnavailable after `attempts` × 0.2 s, SetupError for an unknown schema.
    """
    try:
        client = _client(settings.redis_url)
    except ValueError as error:
        raise SetupError(f"HERDER_REDIS_URL is no address of a Redis: {error}") from error
    broker = Broker(client, settings, clock)
    for attempt in range(attempts):
        try:
            await broker.ping()
            break
        except RedisUnavailable:
            if attempt == attempts - 1:
                await broker.close()
                raise
            await asyncio.sleep(0.2)
    try:
        await broker.check_schema()
    except BaseException:
        await broker.close()
        raise
    return broker


def _client(url: str) -> redis.asyncio.Redis:
    """A bounded pool: whoever finds it empty waits, so that a rush is a queue here and not a crowd at Redis.

    Nothing is sent twice behind our back: a lease or an adjustment whose reply was lost is not repeated.
    """
    pool = redis.asyncio.BlockingConnectionPool.from_url(
        url,
        max_connections=CONNECTIONS_MAX,
        timeout=CONNECTION_WAIT_S,
        health_check_interval=15,
        socket_connect_timeout=5,
    )
    client: redis.asyncio.Redis = redis.asyncio.Redis.from_pool(pool)
    return client
