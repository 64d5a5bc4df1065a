"""Batches as callers see them, and how they are made from records. Money in credits, times in milliseconds."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from herder.api.shapes import JobError, Result
from herder.api.shown import job_fields
from herder.batch_records import BatchRecord
from herder.lifecycle import Status
from herder.protocol import JobRecord


class BatchCounts(BaseModel):
    """Where the items of a batch are; `waiting` ones are paid for and not in line yet. They add up to `total`."""

    waiting: int
    queued: int
    running: int
    succeeded: int
    failed: int
    cancelled: int
    expired: int


class Batch(BaseModel):
    """A batch: one charge, many jobs. `fee` = `captured` + `refunded` + `held` at any time."""

    id: str = Field(examples=["batch_0aZ3hK9xQvTn5WdE8rYb2c"])
    status: Literal["running", "cancelling", "ended"]
    total: int
    refused: int = Field(description="items that the balance did not reach to (`as_many_as_affordable`)")
    counts: BatchCounts
    tokens: int
    completion_tokens: int
    base_fee: int
    fee: int
    captured: int
    refunded: int
    held: int
    created_ms: int
    ended_ms: int | None
    eta_ms: int | None = Field(description="how long the rest will probably take; null: ended, or not known")
    metadata: dict[str, str]
    webhook_url: str | None
    results_url: str


class SubmittedBatch(Batch):
    """A batch that was just accepted, or the earlier one of the same Idempotency-Key."""

    balance: int = Field(description="what the account can still spend")


class Batches(BaseModel):
    """A page of batches, newest first."""

    batches: list[Batch]
    next: str | None
    object: str = "list"
    data: list[dict[str, Any]] = Field(
        description="those made in OpenAI's words, as OpenAI's clients read them"
    )
    has_more: bool


class BatchResult(BaseModel):
    """One line of the results: an item that has ended. `cursor` is where to go on after it."""

    cursor: int
    index: int = Field(description="its place in the batch, from 0")
    custom_id: str | None
    job_id: str
    status: Status
    result: Result | None
    error: JobError | None
    fee: int
    captured: int | None
    refunded: int | None


def batch_fields(record: BatchRecord, eta_ms: int | None) -> dict[str, object]:
    """The fields of `Batch` from a record, and from what is known beside it."""
    ended = record.status == "ended"
    return {
        "id": record.batch,
        "status": "ended" if ended else "cancelling" if record.cancel_requested else "running",
        "total": record.total,
        "refused": record.refused,
        "counts": BatchCounts(
            waiting=record.total - record.fed,
            queued=record.fed - record.ended - record.running,
            running=record.running,
            succeeded=record.succeeded,
            failed=record.failed,
            cancelled=record.cancelled,
            expired=record.expired,
        ),
        "tokens": record.tokens,
        "completion_tokens": record.completion_tokens,
        "base_fee": record.base,
        "fee": record.fee,
        "captured": record.captured,
        "refunded": record.refunded,
        "held": record.hold,
        "created_ms": record.created_ms,
        "ended_ms": record.ended_ms,
        "eta_ms": None if ended else eta_ms,
        "metadata": record.metadata,
        "webhook_url": record.webhook_url,
        "results_url": f"/v1/batches/{record.batch}/results",
    }


def result_line(cursor: int, index: int, record: JobRecord) -> bytes:
    """One line of the results, its end included."""
    fields = job_fields(record, None, None)
    line = BatchResult.model_validate(
        {
            "cursor": cursor,
            "index": index,
            "custom_id": record.custom_id,
            "job_id": record.job_id,
            "status": record.status,
            "result": fields["result"],
            "error": fields["error"],
            "fee": record.fee,
            "captured": record.captured,
            "refunded": record.refunded,
        }
    )
    return line.model_dump_json().encode() + b"\n"
