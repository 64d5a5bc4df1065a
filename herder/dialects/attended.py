"""Buying an answer and staying on the line for it: what every dialect does with a body once it is one of ours.

Their clients cannot come back for an answer: a connection that is dropped, or a herder that dies, cancels the job, and
what was not used is refunded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from fastapi import Request, Response

from herder.api.bodies import JobRequest
from herder.api.envelope import told_as_replayed
from herder.api.events import streamed
from herder.api.jobs import waited
from herder.api.purchase import record_of, replayed, submitted
from herder.api.reading import validated
from herder.api.shapes import Result
from herder.api.shown import job_fields
from herder.api.state import Herd, herd_of
from herder.api.tellers import Teller
from herder.dialects.asking import Lenient, bid_of, model_named
from herder.errors import (
    AnswerFailed,
    Conflict,
    ContextExceeded,
    HerderError,
    InvalidRequest,
    Overloaded,
    RedisUnavailable,
)
from herder.lifecycle import LIVE, Status
from herder.protocol import Accepted, Ask, JobRecord
from herder.records import KeyRecord

FIT_TRIES = 3  # to find how much room a prompt leaves for an answer of no named length
FINAL_FAILURES = ("schema_error", "quarantined", "context_exceeded")


@dataclass(frozen=True)
class Bought:
    """A job that was paid for; `balance` is what is left."""

    record: JobRecord
    balance: int

    @property
    def headers(self) -> dict[str, str]:
        """What every answer carries: the job, its fee (what was paid in the end, if it has), and the balance."""
        record = self.record
        fee = record.captured if record.captured is not None else record.fee
        return {
            "x-herder-job-id": record.job_id,
            "x-herder-fee": str(fee),
            "x-herder-balance": str(self.balance),
        }


async def bought(
    request: Request,
    key: KeyRecord,
    asked: Lenient,
    fields: dict[str, Any],
    names: Mapping[str, str] | None = None,
    *,
    attended: bool = True,
    fit: bool = False,
) -> Bought:
    """Buy one answer. `fields` are those of `JobRequest`, without model and bid; no `tokens` is as many as fit, up to
    HERDER_TOKENS_DEFAULT. `names` are the dialect's own for our fields, by which errors name them.

    `attended`: the caller stays, and the job goes where it does. `fit`: `tokens` too are as many as fit, up to those.
    An Idempotency-Key works as in `/v1/jobs`. Raises what a submission can be refused with.
    """
    herd = herd_of(request)
    given = {name: value for name, value in fields.items() if value is not None}
    fit = fit or "tokens" not in given
    given.setdefault("tokens", min(herd.settings.tokens_default, herd.settings.tokens_max))
    given |= bid_of(request, asked)
    model = await model_named(herd, asked.model)
    if model is not None:
        given["model"] = model
    again = request.headers.get("idempotency-key")
    try:
        body = validated(JobRequest, given, herd.settings)
        accepted = await replayed(herd, key, body, again)
        if accepted is not None:
            return await known(request, key, accepted.job_id)
        accepted, ask = await _accepted(herd, key, body, again, attended=attended, fit=fit)
    except InvalidRequest as error:
        renamed(error, names or {})
    if accepted.available is None:
        return await known(request, key, accepted.job_id)
    return Bought(record_of(ask, accepted), accepted.available)


async def _accepted(
    herd: Herd, key: KeyRecord, meant: JobRequest, again: str | None, *, attended: bool, fit: bool
) -> tuple[Accepted, Ask]:
    """Submit, with `fit` for fewer tokens where its prompt leaves no room for all."""
    body = meant
    for _ in range(FIT_TRIES):
        try:
            accepted, _, ask = await submitted(herd, key, body, again, attended=attended, meant=meant)
        except ContextExceeded as error:
            tokens = error.extra["context"] - error.extra["prompt_tokens"]
            if not fit or tokens < 1:
                raise
            body = body.model_copy(update={"tokens": tokens})
        else:
            return accepted, ask
    raise ContextExceeded("the prompt leaves no room for an answer; make it shorter", limit=0)


async def known(request: Request, key: KeyRecord, job_id: str) -> Bought:
    """A job that was bought before."""
    herd = herd_of(request)
    record, account = await asyncio.gather(herd.broker.job(job_id), herd.ledger.account(key.account))
    if record is None:
        raise Conflict(f"the job of this Idempotency-Key, {job_id}, ended and is no longer kept")
    told_as_replayed(request)
    return Bought(record, account.available if account is not None else 0)


def renamed(error: InvalidRequest, names: Mapping[str, str]) -> NoReturn:
    """The same error, of the fields that the caller has sent."""
    faults = error.extra.get("errors") or []
    detail = error.detail
    told = []
    for fault in faults:
        name = _as_sent(fault["field"], names)
        detail = detail.replace(f"{fault['field']}: ", f"{name}: ", 1) if fault["field"] else detail
        message = fault["message"]
        for inner in (each for each in names if "." in each):  # no word of a sentence
            message, detail = message.replace(inner, names[inner]), detail.replace(inner, names[inner])
        told.append({**fault, "field": name, "message": message})
    raise InvalidRequest(detail, **{**error.extra, "errors": told}) from None


def _as_sent(field: str, names: Mapping[str, str]) -> str:
    """The caller's own name for one of our fields, by the longest beginning that has one."""
    for inner in sorted(names, key=len, reverse=True):
        if field == inner or field.startswith(f"{inner}."):
            return names[inner] + field[len(inner) :]
    return field


async def answered(request: Request, sold: Bought) -> Bought:
    """The job when it has ended well. Raises AnswerFailed, Conflict (cancelled meanwhile), Overloaded (this herder
    stops); what was not used is refunded in each case. And RedisUnavailable: whoever can ask for this answer again
    finds it for one HERDER_PRESENCE_MS."""
    herd, record = herd_of(request), sold.record
    with herd.attendance.of(record.job_id):
        comes_back = False
        try:
            if record.status in LIVE:
                record = await waited(herd, request, record, None)
        except RedisUnavailable:
            comes_back = may_come_back(request)
            raise
        finally:
            # The caller has gone, or this herder goes.
            if record.status in LIVE and not comes_back and herd.attendance.alone(record.job_id):
                herd.cancel.job(record.account, record.job_id)
    failed = failure_of(record)
    if failed is not None:
        raise failed
    account = await herd.ledger.account(record.account)
    return Bought(record, account.available if account is not None else sold.balance)


def may_come_back(request: Request) -> bool:
    """Whether this caller, who is told to try again, can be known by it."""
    return "idempotency-key" in request.headers


def failure_of(record: JobRecord) -> HerderError | None:
    """Why a job has no answer for whoever waited; None where it has one."""
    job_id = record.job_id
    if record.status is Status.SUCCEEDED:
        return None
    if record.status is Status.FAILED:
        return AnswerFailed(
            f"{job_id} failed and was refunded: {record.error_message}",
            final=record.error_code in FINAL_FAILURES,
            job_id=job_id,
            reason=record.error_code,
        )
    if record.status is Status.CANCELLED:
        return Conflict(f"{job_id} was cancelled; what it did not use is refunded", job_id=job_id)
    return Overloaded(f"this herder stops; {job_id} is cancelled, ask again", retry_after=1, job_id=job_id)


def told(request: Request, sold: Bought, teller: Teller, media_type: str = "text/event-stream") -> Response:
    """The answer as it comes, in the words of a teller. Inside `herd.streams.reserved()`."""
    return streamed(
        request, sold.record, headers=sold.headers, teller=teller, media_type=media_type, attended=True
    )


def result_of(record: JobRecord) -> Result:
    """The answer of a job that has succeeded: its texts, reasoning, values, counts and log-probabilities."""
    result = job_fields(record, None, None)["result"]
    assert isinstance(result, Result)
    return result
