"""`/v1/jobs`: submit, read, wait, list, cancel. What is decided is decided in `submission`; what moves, in `broker`."""

from __future__ import annotations

import asyncio
import re
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request, Response

from herder.api.bodies import JobRequest
from herder.api.callers import Caller
from herder.api.problems import declared
from herder.api.purchase import replayed, submitted
from herder.api.reading import body_of
from herder.api.schema import json_body
from herder.api.shapes import Job, Jobs, SubmittedJob
from herder.api.shown import job_fields
from herder.api.state import Herd, herd_of
from herder.api.submission import (
    warning_of,
)
from herder.errors import (
    AccountSuspended,
    Conflict,
    ContextExceeded,
    FeeTooLow,
    IdempotencyConflict,
    InsufficientFunds,
    InvalidRequest,
    MaxFeeExceeded,
    NotFound,
    NoWorker,
    Overloaded,
    RedisUnavailable,
    UnknownModel,
)
from herder.lifecycle import LIVE, Status
from herder.protocol import JobRecord
from herder.records import KeyRecord

FALLBACK_POLL_S = 2.0
_JOB_ID = re.compile(r"job_[0-9A-Za-z]{1,64}", re.ASCII)

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

JobBody = Annotated[JobRequest, Depends(body_of(JobRequest))]
IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern="^[!-~]+$",
        description="the same key with the same body is the same job, paid once; a UUID does well",
    ),
]


@router.post(
    "",
    status_code=202,
    response_model=SubmittedJob,
    summary="Submit a prompt",
    responses={
        **declared(
            InsufficientFunds, FeeTooLow, MaxFeeExceeded, AccountSuspended, UnknownModel, NotFound, Conflict,
            IdempotencyConflict, ContextExceeded, Overloaded, NoWorker, body=True,
        ),
        202: {
            "description": "Paid for and queued",
            "headers": {
                "Location": {"description": "the job's address", "schema": {"type": "string"}},
                "Idempotent-Replayed": {
                    "description": "`true` where this Idempotency-Key had made the job before",
                    "schema": {"type": "string"},
                },
            },
        },
    },
    openapi_extra=json_body(JobRequest),
)  # fmt: skip
async def submit(
    request: Request, response: Response, key: Caller, body: JobBody, idempotency_key: IdempotencyKey = None
) -> SubmittedJob:
    """Hold the fee and join the line, in one step. Nothing is charged where this is refused.

    Offer nothing (the automatic price), a `multiplier`, or a static `fee`; `max_fee` is a ceiling with any of them.
    What the answer does not use of the fee is refunded.
    """
    # Tour 1/8: a prompt arrives, is checked, rendered and priced; nothing is held until the next step.
    herd = herd_of(request)
    accepted, state = await replayed(herd, key, body, idempotency_key), None
    if accepted is None:
        accepted, state = await submitted(herd, key, body, idempotency_key)
    try:
        record, account = await asyncio.gather(
            herd.broker.job(accepted.job_id), herd.ledger.account(key.account)
        )
    except RedisUnavailable as error:
        detail = f"the job was accepted as {accepted.job_id}, and then Redis went away; read it later"
        raise RedisUnavailable(detail, retry_after=2, job_id=accepted.job_id) from error
    if record is None:
        raise Conflict(f"the job of this Idempotency-Key, {accepted.job_id}, ended and is no longer kept")
    response.headers["Location"] = f"/v1/jobs/{accepted.job_id}"
    if accepted.replayed:
        response.headers["Idempotent-Replayed"] = "true"
    if accepted.replayed or state is None:
        fields = await _fields(herd, record)
    else:
        fields = job_fields(record, accepted.position, warning_of(state))
    return SubmittedJob(**fields, balance=account.available if account else 0)


@router.get("/{job_id}", response_model=Job, summary="Read a job, or wait for it", responses=declared(
    NotFound, InvalidRequest))  # fmt: skip
async def read(
    request: Request,
    key: Caller,
    job_id: str,
    wait: Annotated[
        float,
        Query(
            ge=0,
            le=3600,
            allow_inf_nan=False,
            description="seconds to wait for its end; HERDER_WAIT_S_MAX at most",
        ),
    ] = 0,
) -> Job:
    """The job as it is now; with `wait`, as soon as it has ended, or as it is when the time is up."""
    herd = herd_of(request)
    record = await _own(herd, key, job_id)
    if wait > 0 and record.status in LIVE:
        record = await _waited(herd, request, key, job_id, min(wait, herd.settings.wait_s_max))
    return Job(**await _fields(herd, record))


async def _waited(herd: Herd, request: Request, key: KeyRecord, job_id: str, wait_s: float) -> JobRecord:
    """The job at its end, or after `wait_s`. Waiters share one subscription; a ring only says: read again."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + wait_s
    with herd.metrics.waiting.track_inprogress():
        async with herd.bell.listen(herd.broker.keys("job_bell", job_id)) as listener:
            while True:
                # Read after subscribing and after each ring, so that an end that came between is seen.
                record = await _own(herd, key, job_id)
                left = deadline - loop.time()
                if record.status not in LIVE or left <= 0 or herd.stopping.is_set():
                    # Tour 8/8: the answer reaches the client that waited for it.
                    return record
                if await request.is_disconnected():
                    return record
                await _rung(herd, listener, min(left, FALLBACK_POLL_S))


async def _rung(herd: Herd, listener: Any, timeout_s: float) -> None:
    """Until the job's last ring, a missed one, or the time for a look; rings of tokens are let go by."""
    loop = asyncio.get_running_loop()
    until = loop.time() + timeout_s
    stop = asyncio.ensure_future(herd.stopping.wait())
    try:
        while (left := until - loop.time()) > 0:
            ring = asyncio.ensure_future(listener.next(left))
            await asyncio.wait({ring, stop}, return_when=asyncio.FIRST_COMPLETED)
            if not ring.done():
                ring.cancel()
                await asyncio.gather(ring, return_exceptions=True)
                return
            message = ring.result()
            if not message or b'"done"' in message:
                return
    finally:
        stop.cancel()


@router.get("", response_model=Jobs, summary="List jobs", responses=declared(InvalidRequest))
async def listed(
    request: Request,
    key: Caller,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    cursor: Annotated[
        str | None, Query(pattern="^[0-9]{1,15}$", description="`next` of the page before")
    ] = None,
) -> Jobs:
    """The account's jobs, newest first."""
    herd = herd_of(request)
    records, after = await herd.broker.jobs(key.account, before=cursor, limit=limit)
    queued = {record.model for record in records if record.status is Status.QUEUED}
    warnings = {model: warning_of(await herd.market.state(model)) for model in queued}
    # One after the other: a hundred at once would open a hundred connections.
    positions = [await _position(herd, record) for record in records]
    jobs = [
        Job(**job_fields(record, position, warnings.get(record.model)))  # type: ignore[arg-type]
        for record, position in zip(records, positions, strict=True)
    ]
    return Jobs(jobs=jobs, next=after)


@router.delete("/{job_id}", response_model=Job, summary="Cancel a job", responses=declared(NotFound))
async def cancel(request: Request, key: Caller, job_id: str) -> Job:
    """Queued: it ends now with a full refund. Running: it stops between two tokens, and what was not used is refunded.

    Safe to repeat; a job that has ended stays as it is.
    """
    herd = herd_of(request)
    _checked(job_id)
    return Job(**await _fields(herd, await herd.broker.cancel(key.account, job_id)))


async def _own(herd: Herd, key: KeyRecord, job_id: str) -> JobRecord:
    """The caller's job; another account's is as absent as one that never was."""
    _checked(job_id)
    record = await herd.broker.job(job_id)
    if record is None or record.account != key.account:
        raise NotFound(f"no job {job_id} in this account")
    return record


def _checked(job_id: str) -> None:
    if not _JOB_ID.fullmatch(job_id):
        raise NotFound("no such job: an id is `job_` and letters and digits")


async def _position(herd: Herd, record: JobRecord) -> int | None:
    if record.status is not Status.QUEUED:
        return None
    return await herd.broker.position(record.model, record.job_id)


async def _fields(herd: Herd, record: JobRecord) -> dict[str, Any]:
    """A job's fields, with what only matters while it is queued."""
    if record.status is not Status.QUEUED:
        return job_fields(record, None, None)
    position, state = await asyncio.gather(_position(herd, record), herd.market.state(record.model))
    return job_fields(record, position, warning_of(state))
