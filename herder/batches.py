"""Batches' door to Redis: store the items, charge once, feed and cancel in steps. One method a transition.

Beside the broker as the ledger is. Knows no HTTP. Items are ordinary jobs once they are in line.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from herder.batch_records import BatchRecord, Charge, FeedState, Item, batch_record, item_id
from herder.broker import US_PER_TOKEN_UNMEASURED, Broker, PricesChanged
from herder.errors import NotFound
from herder.protocol import JobRecord
from herder.reads import job_record
from herder.replies import refusal, text_of

__all__ = ["BatchRecord", "Batches", "Charge", "FeedState", "Item", "PricesChanged", "StoreLost", "item_id"]

FEED_STEP = 64  # items a script: each takes Redis 0.1 to 0.2 ms, and a lease waits for the script to end
STORE_STEP = 250
STEP_BYTES_MAX = 1_000_000  # of items a script
LINE_PERCENT = 90
STORING_TTL_MS = 3_600_000


class StoreLost(Exception):
    """What was stored has gone (a Redis that came back empty): store it again."""


class Batches:
    """Every transition of a batch, and the reads."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._settings = broker.settings

    async def store(self, account: str, batch: str, first_index: int, items: Iterable[Item]) -> None:
        """Keep items until they are paid for, in steps. Expires where no charge follows."""
        step: list[str] = []
        size = 0
        for item in items:
            text = item.stored()
            length = len(text.encode())
            if step and (len(step) >= STORE_STEP or size + length > STEP_BYTES_MAX):
                await self._store(account, batch, first_index, step)
                first_index, size = first_index + len(step), 0
                step = []
            step.append(text)
            size += length
        await self._store(account, batch, first_index, step)

    async def _store(self, account: str, batch: str, first_index: int, step: list[str]) -> None:
        if step:
            arguments = {
                "account": account, "batch": batch, "first_index": first_index, "items": step,
                "storing_ttl_ms": STORING_TTL_MS,
            }  # fmt: skip
            await self._broker.scripts.call("store", arguments)

    async def charge(self, charge: Charge) -> tuple[str, bool]:
        """Hold the fee and set the batch going. Returns (batch, whether it is an earlier one's replay).

        Raises InsufficientFunds, AccountSuspended, UnknownModel, IdempotencyConflict, Overloaded, NotFound,
        PricesChanged, StoreLost.
        """
        c, s = charge, self._settings
        assert c.total > 0, "a batch without items would never end"
        arguments = {
            "batch": c.batch, "account": c.account, "key_id": c.key_id, "models": list(c.models),
            "total": c.total, "refused": c.refused, "tokens": c.tokens, "base": c.base, "fee": c.fee,
            "set_prompt_fee": c.set_prompt_fee, "fee_per_token": c.fee_per_token,
            "price_version": c.price_version, "metadata": json.dumps(c.metadata, ensure_ascii=False),
            "webhook_url": c.webhook and c.webhook.url, "webhook_endpoint": c.webhook and c.webhook.endpoint,
            "idempotency_key": c.idempotency_key, "request_hash": c.request_hash,
            "idempotency_ttl_ms": s.idempotency_ttl_ms, "queue_depth_max": s.queue_depth_max,
            "presence_ms": c.presence_ms or None, "openai": c.openai,
        }  # fmt: skip
        reply = [text_of(part) for part in await self._broker.scripts.call("charge", arguments)]
        match reply:
            case ["OK"]:
                return c.batch, False
            case ["REPLAY", batch]:
                return str(batch), batch != c.batch
            case ["REPRICE"]:
                raise PricesChanged
            case ["LOST"]:
                raise StoreLost
        raise refusal(reply, "batch", c.account, c.fee, s.queue_depth_max)

    async def feed(
        self, batch: str, limit: int = FEED_STEP, line_max: int | None = None
    ) -> tuple[FeedState, int]:
        """One step of a batch: the next items into the line, or out of it where it is cancelled; (state, fed).

        `line_max` is how long the line may become, HERDER_QUEUE_DEPTH_MAX where it is not said.
        """
        s = self._settings
        arguments = {
            "batch": batch, "limit": limit, "window_ms": s.window_ms, "result_ttl_ms": s.result_ttl_ms,
            "us_per_token_default": US_PER_TOKEN_UNMEASURED, "queue_depth_max": line_max or s.queue_depth_max,
            "bytes_max": STEP_BYTES_MAX,
        }  # fmt: skip
        state, fed = await self._broker.scripts.call("feed", arguments)
        return FeedState(text_of(state)), int(fed)

    def line_share(self) -> int:
        """How far batches may fill a line: the rest is for whoever submits one prompt, and would get a 503."""
        return max(1, self._settings.queue_depth_max * LINE_PERCENT // 100)

    async def abandon(self, account: str, batch: str) -> None:
        """Mark a batch to be cancelled; `feed` does it. An ended one stays as it is. Raises NotFound."""
        reply = await self._broker.scripts.call("abandon", {"account": account, "batch": batch})
        if text_of(reply) == "UNKNOWN":
            raise NotFound(f"no batch {batch} in this account")

    # --- reads -------------------------------------------------------------------------------------------

    async def waiting(self, limit: int) -> list[str]:
        """Batches with items to feed or to cancel, oldest first."""
        ids = await self._broker.fetch(self._broker.redis.zrange(self._broker.keys("batches"), 0, limit - 1))
        return [batch.decode() for batch in ids]

    async def batch(self, batch: str) -> BatchRecord | None:
        """A batch that was paid for, or None; one whose records have begun to go is gone."""
        return batch_record(batch, await self._broker.hash_of("batch", batch))

    async def batches(
        self, account: str, *, before: str | None, limit: int
    ) -> tuple[list[BatchRecord], str | None]:
        """An account's batches, newest first, and the cursor of the next page; `before` is such a cursor."""
        ids, after = await self._broker.newest("account_batches", account, before=before, limit=limit)
        hashes = await self._broker.hashes_of([("batch", batch) for batch in ids])
        found = [batch_record(batch, fields) for batch, fields in zip(ids, hashes, strict=True)]
        return [record for record in found if record is not None], after

    async def place(self, record: BatchRecord) -> str:
        """The cursor of what comes after this batch in its account's list."""
        key = self._broker.keys("account_batches", record.account)
        found = await self._broker.fetch(self._broker.redis.zscore(key, record.batch))
        return str(int(found or 0))

    async def last_item(self, record: BatchRecord) -> JobRecord | None:
        """The job of the item that joined the line last."""
        return await self._broker.job(item_id(record.batch, record.fed - 1)) if record.fed else None

    async def items(self, batch: str, first: int, count: int) -> list[JobRecord | None]:
        """So many items from an index on, in order; None for one that is not in line yet, or that has gone."""
        ids = [item_id(batch, index) for index in range(first, first + count)]
        hashes = await self._broker.hashes_of([("job", job) for job in ids])
        return [job_record(job, fields) if fields else None for job, fields in zip(ids, hashes, strict=True)]

    async def ended_items(
        self, batch: str, first: int, limit: int
    ) -> tuple[int, list[tuple[int, int, JobRecord]]]:
        """Items in the order of their ends, from the `first`-th on: how many there are, and (place, index, job).

        Fewer jobs than items where the records have begun to go.
        """
        broker = self._broker
        found = await broker.fetch(
            broker.redis.lrange(broker.keys("batch_results", batch), first, first + limit - 1)
        )
        ids = [item_id(batch, int(index)) for index in found]
        hashes = await broker.hashes_of([("job", job) for job in ids])
        rows = [
            (place, int(found[place - first]), job_record(ids[place - first], fields))
            for place, fields in enumerate(hashes, first)
            if fields
        ]
        return len(found), rows
