"""Batches' door to Redis: store the items, charge once, feed and cancel in steps. One method a transition.

Beside the broker as the ledger is. Knows no HTTP. Items are ordinary jobs once they are in line.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from herder.broker import US_PER_TOKEN_UNMEASURED, Broker
from herder.errors import (
    AccountSuspended,
    HerderError,
    IdempotencyConflict,
    InsufficientFunds,
    NotFound,
    Overloaded,
    UnknownModel,
)
from herder.protocol import Webhook
from herder.replies import text_of

FEED_STEP = 64  # items a script: each takes Redis 0.1 to 0.2 ms, and a lease waits for the script to end
STORE_STEP = 250
STEP_BYTES_MAX = 1_000_000  # of items a script
STORING_TTL_MS = 3_600_000


class PricesChanged(Exception):
    """The price list changed between pricing and charging: price again."""


class StoreLost(Exception):
    """What was stored has gone (a Redis that came back empty): store it again."""


class FeedState(StrEnum):
    """What a step of feeding says: call again, later, never, or no such batch."""

    MORE = "MORE"
    FULL = "FULL"
    DONE = "DONE"
    UNKNOWN = "UNKNOWN"


@dataclass(frozen=True)
class Item:
    """One prompt of a batch, rendered and priced; becomes a job when it is fed.

    `input` is what the worker will read, JSON with prompt, stop, sampling (as `Broker.submit` writes it).
    """

    model: str
    tokens: int
    base: int
    fee: int
    multiplier_milli: int
    offered: bool
    head_start_ms: int
    kv_tokens: int
    input: str
    custom_id: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    webhook: Webhook | None = None

    def stored(self) -> str:
        """The item as feed.lua reads it."""
        fields: dict[str, Any] = {
            "model": self.model, "tokens": self.tokens, "base": self.base, "fee": self.fee,
            "multiplier_milli": self.multiplier_milli, "offered": int(self.offered),
            "head_start_ms": self.head_start_ms, "kv_tokens": self.kv_tokens, "input": self.input,
            "metadata": json.dumps(self.metadata, ensure_ascii=False),
        }  # fmt: skip
        if self.custom_id is not None:
            fields["custom_id"] = self.custom_id
        if self.webhook is not None:
            fields |= {"webhook_url": self.webhook.url, "webhook_endpoint": self.webhook.endpoint}
        return json.dumps(fields, ensure_ascii=False)


@dataclass(frozen=True)
class Charge:
    """A stored batch, ready to be paid for: the first `total` of its items, `fee` credits in all.

    `refused` counts the items behind them that the balance did not reach to.
    """

    batch: str
    account: str
    key_id: str
    models: tuple[str, ...]
    total: int
    refused: int
    tokens: int
    base: int
    fee: int
    set_prompt_fee: int
    fee_per_token: int
    price_version: int
    metadata: dict[str, str] = field(default_factory=dict)
    webhook: Webhook | None = None
    idempotency_key: str | None = None
    request_hash: str = ""


@dataclass(frozen=True)
class BatchRecord:
    """A batch as it stands. Money in credits; `hold` is what its unfed and its live items still hold.

    `fed` items are or were jobs; `running` of them run; the four counts behind it add up to `ended`.
    """

    batch: str
    account: str
    status: str  # running, ended
    cancel_requested: bool
    total: int
    refused: int
    fed: int
    running: int
    succeeded: int
    failed: int
    cancelled: int
    expired: int
    ended: int
    tokens: int
    completion_tokens: int
    base: int
    fee: int
    hold: int
    unfed_fee: int
    captured: int
    refunded: int
    created_ms: int
    ended_ms: int | None
    metadata: dict[str, str]
    webhook_url: str | None


class Batches:
    """Every transition of a batch, and the reads."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._settings = broker.settings

    async def store(self, account: str, batch: str, first_index: int, items: Sequence[Item]) -> None:
        """Keep items until they are paid for; at most STORE_STEP a call. Expires where no charge follows."""
        assert len(items) <= STORE_STEP
        arguments = {
            "account": account, "batch": batch, "first_index": first_index,
            "items": [item.stored() for item in items], "storing_ttl_ms": STORING_TTL_MS,
        }  # fmt: skip
        await self._broker.scripts.call("store", arguments)

    async def charge(self, charge: Charge) -> tuple[str, bool]:
        """Hold the fee and set the batch going. Returns (batch, whether it is an earlier one's replay).

        Raises InsufficientFunds, AccountSuspended, UnknownModel, IdempotencyConflict, Overloaded, NotFound,
        PricesChanged, StoreLost.
        """
        c, s = charge, self._settings
        arguments = {
            "batch": c.batch, "account": c.account, "key_id": c.key_id, "models": list(c.models),
            "total": c.total, "refused": c.refused, "tokens": c.tokens, "base": c.base, "fee": c.fee,
            "set_prompt_fee": c.set_prompt_fee, "fee_per_token": c.fee_per_token,
            "price_version": c.price_version, "metadata": json.dumps(c.metadata, ensure_ascii=False),
            "webhook_url": c.webhook and c.webhook.url, "webhook_endpoint": c.webhook and c.webhook.endpoint,
            "idempotency_key": c.idempotency_key, "request_hash": c.request_hash,
            "idempotency_ttl_ms": s.idempotency_ttl_ms, "queue_depth_max": s.queue_depth_max,
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
        raise self._refusal(reply, c)

    def _refusal(self, reply: list[Any], c: Charge) -> HerderError:
        match reply:
            case ["POOR", available]:
                return InsufficientFunds(
                    f"this batch costs {c.fee} credits and {available} are available",
                    needed=c.fee,
                    balance=int(available),
                )
            case ["CONFLICT"]:
                return IdempotencyConflict("this Idempotency-Key was used with another body; use a new key")
            case ["SUSPENDED"]:
                return AccountSuspended(f"account {c.account} is suspended; ask whoever runs the herd")
            case ["NO_MODEL", model]:
                return UnknownModel(f"no model {model} in this herd")
            case ["FULL", depth]:
                return Overloaded(
                    f"{depth} jobs are queued, the most is {self._settings.queue_depth_max}; try again later",
                    retry_after=5,
                )
            case ["NO_ACCOUNT"]:
                return NotFound(f"no account {c.account}")
        raise AssertionError(f"unexpected reply of charge: {reply}")

    async def feed(self, batch: str, limit: int = FEED_STEP) -> tuple[FeedState, int]:
        """One step of a batch: the next items into the line, or out of it where it is cancelled; (state, fed)."""
        s = self._settings
        arguments = {
            "batch": batch, "limit": limit, "window_ms": s.window_ms, "result_ttl_ms": s.result_ttl_ms,
            "us_per_token_default": US_PER_TOKEN_UNMEASURED, "queue_depth_max": s.queue_depth_max,
            "bytes_max": STEP_BYTES_MAX,
        }  # fmt: skip
        state, fed = await self._broker.scripts.call("feed", arguments)
        return FeedState(text_of(state)), int(fed)

    async def abandon(self, account: str, batch: str) -> None:
        """Mark a batch to be cancelled; `feed` does it. An ended one stays as it is. Raises NotFound."""
        if (
            text_of(await self._broker.scripts.call("abandon", {"account": account, "batch": batch}))
            == "UNKNOWN"
        ):
            raise NotFound(f"no batch {batch} in this account")

    # --- reads -------------------------------------------------------------------------------------------

    async def waiting(self, limit: int) -> list[str]:
        """Batches with items to feed or to cancel, oldest first."""
        ids = await self._broker.fetch(self._broker.redis.zrange(self._broker.keys("batches"), 0, limit - 1))
        return [batch.decode() for batch in ids]

    async def batch(self, batch: str) -> BatchRecord | None:
        """A batch that was paid for, or None."""
        fields = await self._broker.hash_of("batch", batch)
        return None if fields.get("status", "storing") == "storing" else _record(batch, fields)


def item_id(batch: str, index: int) -> str:
    """The job of an item; the same rule as the prelude's."""
    return f"job_{batch.removeprefix('batch_')}n{index}"


def _record(batch: str, fields: dict[str, str]) -> BatchRecord:
    counts = (
        "total", "refused", "fed", "running", "succeeded", "failed", "cancelled", "expired", "ended", "tokens",
        "completion_tokens", "base", "fee", "hold", "unfed_fee", "captured", "refunded", "created_ms",
    )  # fmt: skip
    return BatchRecord(
        batch=batch,
        account=fields["account"],
        status=fields["status"],
        cancel_requested=fields.get("cancel") == "1",
        ended_ms=int(fields["ended_ms"]) if "ended_ms" in fields else None,
        metadata=json.loads(fields["metadata"]),
        webhook_url=fields.get("webhook_url"),
        **{name: int(fields[name]) for name in counts},
    )
