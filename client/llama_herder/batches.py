"""What the calls on batches take and return: an item to send, a batch as it stands, one item's result.

Frozen dataclasses read from the herder's JSON, as in `types`. Knows nothing of HTTP.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from llama_herder._json import FromJson
from llama_herder.answers import Form, Result, Sampling
from llama_herder.types import Chatting, JobError, Message

Charge: TypeAlias = Literal["all_or_nothing", "as_many_as_affordable"]


class BatchItem(Sampling, Chatting, Form, total=False):
    """One prompt of a batch: `prompt` or `messages`, and whatever of it differs from the rest of the batch."""

    custom_id: str
    prompt: str
    messages: Sequence[Message]
    model: str
    tokens: int
    share_prefix: bool
    cache_prompt: bool
    multiplier: float
    stop: str | Sequence[str]
    metadata: Mapping[str, str]


Prompts: TypeAlias = Sequence[str | Sequence[Message] | BatchItem]


@dataclass(frozen=True)
class BatchCounts(FromJson):
    """How many items of a batch are where; `waiting` ones are not in line yet."""

    waiting: int = 0
    queued: int = 0
    running: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    expired: int = 0

    @property
    def ended(self) -> int:
        """Items that have come to their end, whichever."""
        return self.succeeded + self.failed + self.cancelled + self.expired


@dataclass(frozen=True)
class Batch(FromJson):
    """Prompts that were paid for together. `status` is running, cancelling or ended.

    `total` items were accepted, `refused` ones behind them the balance did not reach to. `fee` was held for all of
    them, `held` still is. `balance` is what was left after submitting it.
    """

    id: str = ""
    status: str = ""
    total: int = 0
    refused: int = 0
    counts: BatchCounts = field(default_factory=BatchCounts)
    tokens: int = 0
    completion_tokens: int = 0
    base_fee: int = 0
    fee: int = 0
    captured: int = 0
    refunded: int = 0
    held: int = 0
    created_ms: int = 0
    ended_ms: int | None = None
    eta_ms: int | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    webhook_url: str | None = None
    results_url: str = ""
    balance: int | None = None

    @property
    def ended(self) -> bool:
        """Whether all of its items have ended."""
        return self.status == "ended"

    @classmethod
    def _nested(cls, values: dict[str, Any]) -> dict[str, Any]:
        if "counts" in values:
            values["counts"] = BatchCounts.from_json(values["counts"])
        return values


@dataclass(frozen=True)
class BatchResult(FromJson):
    """How one item of a batch ended. `index` is its place in the batch, from 0; `cursor` its place among the ended.

    `status` is succeeded, failed, cancelled or expired; `captured` + `refunded` = `fee`.
    """

    cursor: int = 0
    index: int = 0
    custom_id: str | None = None
    job_id: str = ""
    status: str = ""
    result: Result | None = None
    error: JobError | None = None
    fee: int = 0
    captured: int = 0
    refunded: int = 0

    @property
    def text(self) -> str:
        """The answer; empty where there is none."""
        return self.result.text if self.result else ""

    @classmethod
    def _nested(cls, values: dict[str, Any]) -> dict[str, Any]:
        for name, kind in (("result", Result), ("error", JobError)):
            if name in values:
                values[name] = kind.from_json(values[name])
        return values
