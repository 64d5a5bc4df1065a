"""`/v1/jobs`: submit, read, wait, list, cancel. What is decided is decided in `submission`; what moves, in `broker`."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic_core import to_json

from herder.api.bodies import JobRequest
from herder.api.callers import Caller
from herder.api.events import STREAM, CancelOnDisconnect, streamed
from herder.api.lookup import checked, fields_of, own, position_of
from herder.api.parameters import NOT_SOLD, Cursor, Flag, IdempotencyKey, Limit, Wait, sold_headers
from herder.api.problems import declared
from herder.api.purchase import record_of, replayed, submitted
from herder.api.reading import body_of
from herder.api.schema import json_body
from herder.api.shapes import Job, Jobs, SubmittedJob
from herder.api.shown import job_fields
from herder.api.state import Herd, herd_of
from herder.api.submission import warning_of
from herder.errors import Conflict, ContextExceeded, InvalidRequest, NotFound, RedisUnavailable
from herder.lifecycle import LIVE, Status
from herder.protocol import Accepted, JobRecord
from herder.records import KeyRecord, ModelState

FALLBACK_POLL_S = 2.0

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

JobBody = Annotated[JobRequest, Depends(body_of(JobRequest))]


@router.post(
    "",
    status_code=202,
    response_model=SubmittedJob,
    summary="Submit a prompt",
    responses={
        **declared(*NOT_SOLD, ContextExceeded, body=True),
        200: {**STREAM, "headers": sold_headers("job")},
        202: {"description": "Paid for and queued", "headers": sold_headers("job")},
    },
    openapi_extra=json_body(JobRequest),
)
async def submit(
    request: Request,
    key: Caller,
    body: JobBody,
    *,
    idempotency_key: IdempotencyKey = None,
    stream: Annotated[
        Flag, Query(description="answer with the job's events, as `GET /v1/jobs/{job_id}/events` does")
    ] = False,
    cancel_on_disconnect: CancelOnDisconnect = False,
) -> Response:
    """Hold the fee and join the line, in one step. Nothing is charged where this is refused.

    Offer nothing (the automatic price), a `multiplier`, or a static `fee`; `max_fee` is a ceiling with any of them.
    What the answer does not use of the fee is refunded.
    """
    # Tour 1/8: a prompt arrives, is checked, rendered and priced; nothing is held until the next step.
    herd = herd_of(request)
    if cancel_on_disconnect and not stream:
        raise InvalidRequest("cancel_on_disconnect is for stream=true: without it nobody is seen to go away")
    if stream:
        with herd.streams.reserved():
            bought = await _bought(herd, key, body, idempotency_key)
            return streamed(request, bought.record, cancels=cancel_on_disconnect, headers=bought.headers)
    return await sold(herd, key, body, idempotency_key)


async def sold(herd: Herd, key: KeyRecord, body: JobRequest, idempotency_key: str | None) -> Response:
    """The answer to a submission that is not streamed: a `SubmittedJob`, written without being checked once more."""
    bought = await _bought(herd, key, body, idempotency_key)
    if bought.state is None:
        fields = await fields_of(herd, bought.record)
    else:
        warning = warning_of(bought.state, bought.record.n)
        fields = job_fields(bought.record, bought.accepted.position, warning)
    fields["balance"] = bought.balance
    return Response(to_json(fields), 202, bought.headers, "application/json")


@dataclass(frozen=True)
class _Bought:
    """What was accepted; `state` is the model's as it was just then, None where the job had to be read again."""

    accepted: Accepted
    state: ModelState | None
    record: JobRecord
    balance: int

    @property
    def headers(self) -> dict[str, str]:
        """What every answer to a submission carries."""
        headers = {"Location": f"/v1/jobs/{self.accepted.job_id}"}
        return headers | ({"Idempotent-Replayed": "true"} if self.accepted.replayed else {})


async def _bought(herd: Herd, key: KeyRecord, body: JobRequest, idempotency_key: str | None) -> _Bought:
    """Submit, or find what this Idempotency-Key has submitted."""
    accepted = await replayed(herd, key, body, idempotency_key)
    if accepted is None:
        accepted, state, ask = await submitted(herd, key, body, idempotency_key)
        if accepted.available is not None:
            return _Bought(accepted, state, record_of(ask, accepted), accepted.available)
    try:
        record, account = await asyncio.gather(
            herd.broker.job(accepted.job_id), herd.ledger.account(key.account)
        )
    except RedisUnavailable as error:
        detail = f"the job was accepted as {accepted.job_id}, and then Redis went away; read it later"
        raise RedisUnavailable(detail, retry_after=2, job_id=accepted.job_id) from error
    if record is None:
        raise Conflict(f"the job of this Idempotency-Key, {accepted.job_id}, ended and is no longer kept")
    return _Bought(accepted, None, record, account.available if account is not None else 0)


@router.get("/{job_id}", response_model=Job, summary="Read a job, or wait for it", responses=declared(
    NotFound, InvalidRequest))  # fmt: skip
async def read(
    request: Request,
    key: Caller,
    job_id: str,
    wait: Wait = 0,
) -> Job:
    """The job as it is now; with `wait`, as soon as it has ended, or as it is when the time is up."""
    herd = herd_of(request)
    record = await own(herd, key, job_id)
    if wait > 0 and record.status in LIVE:
        record = await waited(herd, request, record, min(wait, herd.settings.wait_s_max))
    return Job(**await fields_of(herd, record))


async def waited(herd: Herd, request: Request, known: JobRecord, wait_s: float | None) -> JobRecord:
    """The job at its end, or as it is after `wait_s`, or when the caller or this herder goes. Raises NotFound.

    Waiters share one subscription; a ring only says: read again.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + (math.inf if wait_s is None else wait_s)
    job_id = known.job_id
    with herd.metrics.waiting.track_inprogress():
        async with herd.bell.listen(herd.broker.keys("job_bell", job_id)) as listener:
            while True:
                # Read after subscribing and after each ring, so that an end that came between is seen.
                record = await herd.broker.job(job_id)
                if record is None:
                    raise NotFound(f"{job_id} ended and is no longer kept")
                left = deadline - loop.time()
                if record.status not in LIVE or left <= 0 or herd.stopping.is_set():
                    # Tour 8/8: the answer reaches the client that waited for it.
                    return record
                if await request.is_disconnected():
                    return record
                await rung(herd, listener, min(left, FALLBACK_POLL_S), lambda message: b'"done"' in message)


async def rung(herd: Herd, listener: Any, timeout_s: float, last: Callable[[bytes], bool]) -> None:
    """Until the last ring, a missed one, the time for a look, or this herder's end; other rings are let go by."""
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
            if not message or last(message):
                return
    finally:
        stop.cancel()


@router.get("", response_model=Jobs, summary="List jobs", responses=declared(InvalidRequest))
async def listed(request: Request, key: Caller, limit: Limit = 20, cursor: Cursor = None) -> Jobs:
    """The account's jobs, newest first."""
    herd = herd_of(request)
    records, after = await herd.broker.jobs(key.account, before=cursor, limit=limit)
    queued = {record.model for record in records if record.status is Status.QUEUED}
    states = {model: await herd.market.state(model) for model in queued}
    # One after the other: a hundred at once would open a hundred connections.
    positions = [await position_of(herd, record) for record in records]
    jobs = [
        Job.model_validate(
            job_fields(record, position, warning_of(states.get(record.model), record.n), chances=False)
        )
        for record, position in zip(records, positions, strict=True)
    ]
    return Jobs(jobs=jobs, next=after)


@router.delete("/{job_id}", response_model=Job, summary="Cancel a job", responses=declared(NotFound))
async def cancel(request: Request, key: Caller, job_id: str) -> Job:
    """Queued: it ends now with a full refund. Running: it stops between two tokens, and what was not used is refunded.

    Safe to repeat; a job that has ended stays as it is.
    """
    herd = herd_of(request)
    checked(job_id, "job", "job")
    return Job(**await fields_of(herd, await herd.broker.cancel(key.account, job_id)))
