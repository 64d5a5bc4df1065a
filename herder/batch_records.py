"""What a batch is made of and what is known of it: items, the charge, the record. Frozen; no IO.

Money in credits, times in milliseconds since the epoch, multipliers in thousandths.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from herder.protocol import Webhook


class FeedState(StrEnum):
    """What a step of feeding says: call again, later, never, or no such batch."""

    MORE = "MORE"
    FULL = "FULL"
    DONE = "DONE"
    UNKNOWN = "UNKNOWN"


@dataclass(frozen=True)
class Item:
    """One prompt of a batch, rendered and priced; becomes a job when it is fed.

    `input` is what the worker will read, a `Brief` in its JSON form; `n`, `chain` and `marks` as in an `Ask`;
    `typed`: its answer must fit a schema; `manner` is how its answer is told where that is not our own.
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
    n: int = 1
    chain: tuple[str, ...] = ()
    marks: str | None = None
    typed: bool = False
    manner: str | None = None

    def stored(self) -> str:
        """The item as feed.lua reads it."""
        fields: dict[str, Any] = {
            "model": self.model, "tokens": self.tokens, "base": self.base, "fee": self.fee,
            "multiplier_milli": self.multiplier_milli, "offered": int(self.offered),
            "head_start_ms": self.head_start_ms, "kv_tokens": self.kv_tokens, "input": self.input,
            "metadata": json.dumps(self.metadata, ensure_ascii=False) if self.metadata else "{}",
        }  # fmt: skip
        if self.n != 1:
            fields["n"] = self.n
        if self.chain:
            fields["chain"] = json.dumps(self.chain)
        if self.marks is not None:
            fields["marks"] = self.marks
        if self.manner is not None:
            fields["manner"] = self.manner
        if self.typed:
            fields["typed"] = 1
        if self.custom_id is not None:
            fields["custom_id"] = self.custom_id
        if self.webhook is not None:
            fields |= {"webhook_url": self.webhook.url, "webhook_endpoint": self.webhook.endpoint}
        return json.dumps(fields, ensure_ascii=False)


@dataclass(frozen=True)
class Charge:
    """A stored batch, ready to be paid for: the first `total` of its items, `fee` credits in all.

    `refused` counts the items behind them that the balance did not reach to; `presence_ms` as in an `Ask`; `openai` is
    what the record of a batch in OpenAI's words keeps of what was asked for.
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
    presence_ms: int = 0
    openai: str | None = None


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
    model: str  # of the first item
    metadata: dict[str, str]
    webhook_url: str | None
    openai: str | None = None


def item_id(batch: str, index: int) -> str:
    """The job of an item; the same rule as the prelude's."""
    return f"job_{batch.removeprefix('batch_')}n{index}"


def batch_record(batch: str, fields: dict[str, str]) -> BatchRecord | None:
    """A batch's hash as a record; None for one that was not paid for, or whose records have begun to go."""
    if fields.get("status", "storing") == "storing" or "purged" in fields:
        return None
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
        model=fields["model"],
        metadata=json.loads(fields["metadata"]),
        webhook_url=fields.get("webhook_url"),
        openai=fields.get("openai"),
        **{name: int(fields[name]) for name in counts},
    )
