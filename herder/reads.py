"""The reads of the broker: jobs, events, models, workers, the market. They inform; nothing is written on their word."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import redis.asyncio
import redis.exceptions

from herder.choices import Choice, choices_of
from herder.clock import Clock
from herder.keys import Keys
from herder.lifecycle import Status
from herder.line import translated
from herder.pricing import MILLI, Prices, decayed_multiplier, head_start_ms
from herder.protocol import Event, EventKind, FinishReason, JobRecord, ModelCard, WorkerStats
from herder.records import ModelState, WorkerState
from herder.settings import Settings


class Reads:
    """What the broker knows and can tell. All methods raise RedisUnavailable when Redis is away."""

    def __init__(self, client: redis.asyncio.Redis, keys: Keys, settings: Settings, clock: Clock) -> None:
        self.redis = client
        self.keys = keys
        self.settings = settings
        self.clock = clock

    async def fetch(self, reply: Any) -> Any:
        """Await a reply of redis-py, whose types do not tell its sync from its async client; errors become ours."""
        try:
            return await reply
        except redis.exceptions.RedisError as error:
            raise translated(error) from error

    async def ping(self) -> None:
        """Raises RedisUnavailable unless Redis answers."""
        await self.fetch(self.redis.ping())

    async def now_ms(self) -> int:
        """The broker's time: Redis's, or the simulated one."""
        override = self.clock.override_ms()
        if override is not None:
            return override
        seconds, microseconds = await self.fetch(self.redis.time())
        return int(seconds) * 1000 + int(microseconds) // 1000

    async def memory_share(self) -> float | None:
        """used_memory ÷ maxmemory of Redis; None where it has no limit."""
        memory = await self.fetch(self.redis.info("memory"))
        limit = int(memory.get("maxmemory", 0))
        return int(memory["used_memory"]) / limit if limit else None

    # --- jobs --------------------------------------------------------------------------------------------

    async def job(self, job_id: str) -> JobRecord | None:
        """A job, or None where there is none (any more)."""
        fields = await self.hash_of("job", job_id)
        return job_record(job_id, fields) if fields else None

    async def position(self, model: str, job_id: str) -> int | None:
        """How many jobs stand before this one in its line; None when it is not queued."""
        member = await self.fetch(self.redis.hget(self.keys("job", job_id), "member"))
        if member is None:
            return None
        rank = await self.fetch(self.redis.zrank(self.keys("queue", model), member))
        return None if rank is None else int(rank)

    async def jobs(
        self, account: str, *, before: str | None, limit: int, listed: str = "account_jobs"
    ) -> tuple[list[JobRecord], str | None]:
        """An account's jobs, newest first, and the cursor of the next page; `before` is such a cursor.

        `listed`: those of `account_ao`, another list of them.
        """
        ids, after = await self.newest(listed, account, before=before, limit=limit)
        hashes = await self.hashes_of([("job", job_id) for job_id in ids])
        found = zip(ids, hashes, strict=True)
        return [job_record(job_id, fields) for job_id, fields in found if fields], after

    async def newest(
        self, name: str, account: str, *, before: str | None, limit: int
    ) -> tuple[list[str], str | None]:
        """A page of an account's ids by sequence number, newest first, and the cursor of the next page."""
        upper = f"({int(before)}" if before else "+inf"
        rows = await self.fetch(
            self.redis.zrevrangebyscore(
                self.keys(name, account), upper, "-inf", start=0, num=limit + 1, withscores=True
            )
        )
        more, rows = len(rows) > limit, rows[:limit]  # one was read beyond the page, to know
        return [found.decode() for found, _ in rows], str(int(rows[-1][1])) if more else None

    async def remembered(self, account: str, idempotency_key: str) -> tuple[str, str] | None:
        """The request hash and job of an Idempotency-Key that is still remembered."""
        fields = await self.hash_of("idempotency", account, idempotency_key)
        return (fields["request_hash"], fields["job"]) if fields else None

    async def events(self, job_id: str, *, after: str = "-", limit: int = 1_000) -> list[Event]:
        """The job's event log after an event id ('-': from its start), in order."""
        start = after if after == "-" else f"({after}"
        rows = await self.fetch(self.redis.xrange(self.keys("events", job_id), min=start, count=limit))
        events = []
        for event_id, fields in rows:
            named = _decoded(fields)
            events.append(Event(event_id.decode(), EventKind(named.pop("kind")), named))
        return events

    async def callbacks(self, limit: int) -> list[tuple[str, dict[str, str]]]:
        """The oldest entries of the callback queue: (entry id, fields)."""
        rows = await self.fetch(self.redis.xrange(self.keys("callbacks"), count=limit))
        return [(entry.decode(), _decoded(fields)) for entry, fields in rows]

    # --- the market --------------------------------------------------------------------------------------

    async def prices(self) -> Prices:
        """The price list that submissions are checked against."""
        fields = await self.hash_of("prices")
        if not fields:
            return Prices(self.settings.set_prompt_fee, self.settings.fee_per_token, 0)
        return Prices(int(fields["set_prompt_fee"]), int(fields["fee_per_token"]), int(fields["version"]))

    async def models(self) -> list[str]:
        """Every model that a worker has ever served, by name."""
        return sorted(name.decode() for name in await self.fetch(self.redis.smembers(self.keys("models"))))

    async def card(self, model: str) -> ModelCard | None:
        """The model's card, or None for a model that no worker has served."""
        text = await self.fetch(self.redis.get(self.keys("card", model)))
        return ModelCard(**json.loads(text)) if text else None

    async def vocab(self, model: str) -> bytes | None:
        """The model's vocabulary, a GGUF without tensors."""
        vocabulary: bytes | None = await self.fetch(self.redis.get(self.keys("vocab", model)))
        return vocabulary

    async def model_state(self, model: str) -> ModelState | None:
        """A model as it stands, or None for an unknown one."""
        pipe = self.redis.pipeline(transaction=False)
        pipe.get(self.keys("card", model))
        pipe.time()
        pipe.hgetall(self.keys("model", model))
        pipe.zcard(self.keys("queue", model))
        pipe.zrange(self.keys("workers"), 0, -1, withscores=True)
        text, (seconds, microseconds), fields, queued, seen = await self.fetch(pipe.execute())
        if not text:
            return None
        card, market = ModelCard(**json.loads(text)), _decoded(fields)
        override = self.clock.override_ms()
        now = int(seconds) * 1000 + int(microseconds) // 1000 if override is None else override
        workers = [w for w in await self._workers_of(seen) if w.model == model]
        milli = int(market.get("last_multiplier", MILLI))
        empty_since = int(market.get("empty_since", 0))
        empty_ms = int(market.get("empty_ms", 0)) + (now - empty_since if empty_since else 0)
        us_per_token = int(market.get("us_per_token", 0))
        return ModelState(
            card=card,
            workers=len(workers),
            slots=sum(w.stats.slots for w in workers),
            busy=sum(w.stats.busy for w in workers),
            queue_length=int(queued),
            last_multiplier_milli=decayed_multiplier(
                milli, empty_ms, self.settings.last_multiplier_half_life_ms
            ),
            ms_per_token=us_per_token / 1000,
            tokens_per_second=sum(w.stats.tokens_per_second for w in workers),
            mean_tokens=float(market.get("mean_tokens", 0)),
            slots_most=max((w.stats.slots for w in workers), default=0),
        )

    async def model_states(self) -> list[ModelState]:
        """All models of the herd."""
        states = [await self.model_state(model) for model in await self.models()]
        return [state for state in states if state is not None]

    async def worker_states(self) -> list[WorkerState]:
        """The workers whose heartbeat is recent."""
        rows = await self.fetch(self.redis.zrange(self.keys("workers"), 0, -1, withscores=True))
        return await self._workers_of(rows)

    async def _workers_of(self, rows: list[tuple[bytes, float]]) -> list[WorkerState]:
        """What each worker said of itself; `rows` are their ids and when they said it."""
        pipe = self.redis.pipeline(transaction=False)
        for worker, _ in rows:
            pipe.hgetall(self.keys("worker", worker.decode()))
        states = []
        for (worker, seen), fields in zip(rows, await self.fetch(pipe.execute()), strict=True):
            named = _decoded(fields)
            if "stats" in named:
                stats = WorkerStats(**json.loads(named["stats"]))
                states.append(WorkerState(worker.decode(), named["model"], stats, int(seen)))
        return states

    async def hypothetical_position(self, account: str, model: str, multiplier_milli: int) -> int:
        """Where a job of this account with this bid would stand now; the same rule as submit.lua, nothing written."""
        now = await self.now_ms()
        market = await self.hash_of("model", model)
        clock = await self.fetch(self.redis.zscore(self.keys("clocks", model), account))
        floor = min(now, max(int(market.get("frontier", 0)), now - self.settings.window_ms))
        rank = max(int(clock or 0), floor) - head_start_ms(multiplier_milli, self.settings.doubling_ms)
        return int(await self.fetch(self.redis.zcount(self.keys("queue", model), "-inf", rank)))

    async def hash_of(self, name: str, *args: str) -> dict[str, str]:
        """A hash of the table of keys, decoded; empty where there is none."""
        return _decoded(await self.fetch(self.redis.hgetall(self.keys(name, *args))))

    async def hashes_of(self, names: Sequence[tuple[str, ...]]) -> list[dict[str, str]]:
        """Several hashes in one round trip."""
        if not names:
            return []
        pipe = self.redis.pipeline(transaction=False)
        for name, *args in names:
            pipe.hgetall(self.keys(name, *args))
        return [_decoded(fields) for fields in await self.fetch(pipe.execute())]


def _decoded(fields: dict[Any, Any]) -> dict[str, str]:
    return {key.decode(): value.decode() for key, value in fields.items()}


def _choices(fields: dict[str, str]) -> tuple[Choice, ...]:
    """The answers, as soon as there are any."""
    text = fields.get("text")
    if text is None:
        return ()
    if "choices" in fields:
        return choices_of(fields["choices"], text)
    return (Choice(text, fields.get("finish_reason", ""), int(fields.get("completion_tokens", 0))),)


def job_record(job_id: str, fields: dict[str, str]) -> JobRecord:
    """A job's hash as a record."""

    def number(name: str) -> int | None:
        return int(fields[name]) if name in fields else None

    reason = fields.get("finish_reason")
    return JobRecord(
        job_id=job_id,
        account=fields["account"],
        model=fields["model"],
        status=Status(fields["status"]),
        tokens=int(fields["tokens"]),
        base=int(fields["base"]),
        fee=int(fields["fee"]),
        multiplier_milli=int(fields["multiplier_milli"]),
        attempt=int(fields["attempt"]),
        submitted_ms=int(fields["submitted_ms"]),
        started_ms=number("started_ms"),
        ended_ms=number("ended_ms"),
        cancel_requested=fields.get("cancel") == "1",
        captured=number("captured"),
        refunded=number("refunded"),
        text=fields.get("text"),
        finish_reason=FinishReason(reason) if reason else None,
        prompt_tokens=number("prompt_tokens"),
        completion_tokens=number("completion_tokens"),
        cached_tokens=number("cached_tokens"),
        error_code=fields.get("error_code"),
        error_message=fields.get("error_message"),
        metadata=json.loads(fields.get("metadata", "{}")),
        n=number("n") or 1,
        choices=_choices(fields),
        logprobs=fields.get("logprobs"),
        worker=fields.get("worker"),
        webhook_url=fields.get("webhook_url"),
        batch=fields.get("batch"),
        batch_index=number("batch_index"),
        custom_id=fields.get("custom_id"),
        marks=fields.get("marks"),
        typed="typed" in fields,
        run=fields.get("run"),
        ao=fields.get("ao"),
        manner=fields.get("manner"),
    )
