"""Records as callers see them: from `records` and `protocol` to `shapes`. Pure."""

from __future__ import annotations

import contextlib
import json
from typing import Any

from herder.api.shapes import (
    Account,
    Audit,
    AuditedAccount,
    Choice,
    Entry,
    JobError,
    Model,
    Result,
    Worker,
)
from herder.choices import logprobs_of
from herder.lifecycle import Status
from herder.protocol import FinishReason, JobRecord
from herder.reasoning import parted
from herder.records import AccountRecord, AuditReport, KeyRecord, ModelState, Posting, WorkerState


def job_fields(
    record: JobRecord, position: int | None, warning: str | None, *, chances: bool = True
) -> dict[str, object]:
    """The fields of `Job` from a record, and from what is known beside it; `chances`: with its log-probabilities."""
    result = None
    if record.text is not None and record.status in (Status.SUCCEEDED, Status.CANCELLED):
        result = _result(record, record.text, chances=chances)
    error = None
    if record.error_code is not None:
        error = JobError(code=record.error_code, message=record.error_message or "")
    queued = record.status is Status.QUEUED
    return {
        "id": record.job_id,
        "status": record.status,
        "model": record.model,
        "tokens": record.tokens,
        "n": record.n,
        "base_fee": record.base,
        "fee": record.fee,
        "multiplier": record.multiplier_milli / 1000,
        "position": position if queued else None,
        "attempt": record.attempt,
        "cancel_requested": record.cancel_requested,
        "submitted_ms": record.submitted_ms,
        "started_ms": record.started_ms,
        "ended_ms": record.ended_ms,
        "captured": record.captured,
        "refunded": record.refunded,
        "result": result,
        "error": error,
        "metadata": record.metadata,
        "warning": warning if queued else None,
        "webhook_url": record.webhook_url,
        "batch_id": record.batch,
        "custom_id": record.custom_id,
    }


def _result(record: JobRecord, text: str, *, chances: bool) -> Result:
    told = logprobs_of(record.logprobs) if record.logprobs is not None and chances else None
    parts = [parted(record.marks, choice.text) for choice in record.choices]
    first = parted(record.marks, text)
    choices = [
        Choice(
            text=parts[i].text,
            output=_output(record, choice.text, choice.finish_reason),
            reasoning=parts[i].reasoning or None,
            finish_reason=FinishReason(choice.finish_reason or FinishReason.CANCELLED),
            completion_tokens=choice.completion_tokens,
            logprobs=None if told is None else told[i],
        )
        for i, choice in enumerate(record.choices)
    ]
    return Result(
        text=first.text,
        output=_output(record, text, record.finish_reason),
        reasoning=first.reasoning or None,
        finish_reason=record.finish_reason or FinishReason.CANCELLED,
        prompt_tokens=record.prompt_tokens or 0,
        completion_tokens=record.completion_tokens or 0,
        cached_tokens=record.cached_tokens or 0,
        logprobs=None if told is None else told[0],
        choices=choices,
    )


def _output(record: JobRecord, text: str, finish_reason: str | None) -> Any:
    """What a typed answer is; its worker has checked it. Of a cancelled one there may be only a part: 1 of 12."""
    if not record.typed or finish_reason in (None, "", FinishReason.CANCELLED):
        return None
    with contextlib.suppress(ValueError):
        return json.loads(text)
    return None


def account_of(record: AccountRecord) -> Account:
    """A record as it is shown."""
    return Account(
        id=record.account,
        available=record.available,
        held=record.held,
        suspended=record.suspended,
        created_ms=record.created_ms,
    )


def entry_of(posting: Posting) -> Entry:
    """A posting as it is shown."""
    return Entry(id=posting.posting_id, kind=posting.kind.value, source=posting.source, target=posting.target,
                 amount=posting.amount, job_id=posting.job_id, memo=posting.memo, at_ms=posting.at_ms)  # fmt: skip


def key_fields(record: KeyRecord) -> dict[str, object]:
    """The fields of `Key` from a record."""
    return {"id": record.key_id, "account": record.account, "role": record.role, "label": record.label,
            "created_ms": record.created_ms, "revoked": record.revoked}  # fmt: skip


def model_of(state: ModelState) -> Model:
    """A model as it is shown."""
    return Model(
        id=state.card.model,
        context=state.card.context,
        workers=state.workers,
        slots=state.slots,
        queue_length=state.queue_length,
        last_multiplier=state.last_multiplier_milli / 1000,
        tokens_per_second=round(state.tokens_per_second, 3),
        description=state.card.description,
    )


def worker_of(state: WorkerState) -> Worker:
    """A worker as it is shown."""
    s = state.stats
    return Worker(id=state.worker, model=state.model, slots=s.slots, busy=s.busy, jobs_done=s.jobs_done,
                  tokens_per_second=round(s.tokens_per_second, 3), last_seen_ms=state.last_seen_ms)  # fmt: skip


def audit_of(report: AuditReport) -> Audit:
    """An audit as it is shown."""
    rows = [
        AuditedAccount(account=r.account, available=r.available, available_folded=r.available_folded,
                       held=r.held, held_folded=r.held_folded, postings=r.postings)
        for r in report.rows
    ]  # fmt: skip
    return Audit(clean=report.clean, rows=rows, revenue=report.revenue, revenue_folded=report.revenue_folded,
                 mint=report.mint, mint_folded=report.mint_folded, problems=list(report.problems))  # fmt: skip
