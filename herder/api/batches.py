"""`/v1/batches`: many prompts in one call, paid for at once; read, follow, cancel.

What is decided is decided in `batch_reading`, `batch_items`, `batch_pricing`, `batch_purchase`; what moves, in Redis.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Annotated, Any, Protocol

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse

from herder.api.batch_bodies import BatchRequest
from herder.api.batch_purchase import Bought, batch_bought, batch_replayed
from herder.api.batch_reading import LINES_TYPES, SLICE, BatchAsk, batch_of_lines, batch_of_object
from herder.api.batch_results import MEDIA_TYPE, ResultsResponse, result_lines
from herder.api.batch_shapes import Batch, Batches, SubmittedBatch, batch_fields
from herder.api.callers import BatchCaller, Caller
from herder.api.envelope import told_as_replayed
from herder.api.large_bodies import small_size, whole_body
from herder.api.lookup import checked, owned
from herder.api.parameters import NOT_SOLD, Cursor, Flag, IdempotencyKey, Limit, Whole, sold_headers
from herder.api.problems import declared
from herder.api.reading import query_of
from herder.api.schema import json_body
from herder.api.state import Herd, herd_of
from herder.batch_records import BatchRecord
from herder.errors import (
    Conflict,
    InvalidRequest,
    NotFound,
    Overloaded,
    RedisUnavailable,
)
from herder.lifecycle import Status
from herder.records import KeyRecord

LOOKS_MAX = 20  # pages that one of another API is looked for in

router = APIRouter(prefix="/v1/batches", tags=["batches"])


class Others(Protocol):
    """Batches in another API's words, which come to the same addresses; `app` says whose."""

    def is_theirs(self, body: bytes | bytearray) -> bool:
        """Whether this body is one of them."""
        ...

    async def submitted(
        self, request: Request, key: KeyRecord, body: bytes | bytearray, idempotency_key: str | None
    ) -> Response:
        """Buy it, and say so in their words."""
        ...

    def shown(self, record: BatchRecord) -> dict[str, Any] | None:
        """A batch that was bought so, in their words; None for any other."""
        ...


def _others(request: Request) -> Others:
    others: Others = request.app.state.other_batches
    return others


def _bodies() -> dict[str, Any]:
    """The two forms of a body, as documentation shows them."""
    extra = json_body(BatchRequest)
    line = '`{"custom_id": "row-1", "prompt": "Name three colours.", "tokens": 40}`'
    description = f"one item a line, such as {line}; the options are query parameters of the same names"
    lines = {"schema": {"type": "string", "description": description}}
    extra["requestBody"]["content"]["application/jsonl"] = lines
    return extra


@router.post(
    "",
    status_code=202,
    response_model=SubmittedBatch,
    summary="Submit many prompts",
    responses={
        **declared(*NOT_SOLD, body=True),
        202: {
            "description": "Paid for; its items join the line one after the other",
            "headers": sold_headers("batch"),
        },
    },
    openapi_extra=_bodies(),
)
async def submit(
    request: Request, response: Response, key: BatchCaller, idempotency_key: IdempotencyKey = None
) -> SubmittedBatch | Response:
    """Hold the fees of all items in one charge, all or nothing unless told otherwise; each item is then a job.

    As JSON: `prompts`, or `items`, with the options beside them. As JSON lines: one item a line, the options in the
    query. What an item does not say is taken from the options. Nothing is stored or charged unless all items are right.
    """
    herd = herd_of(request)
    if herd.full:
        raise Overloaded("Redis is nearly full; try again later", retry_after=5)
    async with contextlib.AsyncExitStack() as places:
        small, others = small_size(request, herd), _others(request)
        if small is None:
            await places.enter_async_context(herd.large_body_soon(key.account))
        body = await whole_body(request, herd)
        theirs = others.is_theirs(body)
        # A short body may name a file as large as a batch, or have thousands of items.
        if small is not None and (theirs or body.count(b'"') > 2 * SLICE):
            await places.enter_async_context(herd.large_body_soon(key.account))
        if theirs:
            return await others.submitted(request, key, body, idempotency_key)
        ask = await _asked(request, herd, body, digest=idempotency_key is not None)
        # What is wrong somewhere was never accepted.
        bought = None if ask.faults.found else await batch_replayed(herd, key, ask, idempotency_key)
        if bought is None:
            bought = await batch_bought(herd, key, ask, idempotency_key)
            herd.feeder.want(bought.batch)
    response.headers["Location"] = f"/v1/batches/{bought.batch}"
    if bought.replayed:
        told_as_replayed(request)
    return await _submitted(herd, key, bought)


async def _asked(request: Request, herd: Herd, body: bytearray, *, digest: bool) -> BatchAsk:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    reading = batch_of_lines if kind in LINES_TYPES else batch_of_object
    return await reading(body, query_of(request), herd.settings, digest=digest)


async def _submitted(herd: Herd, key: KeyRecord, bought: Bought) -> SubmittedBatch:
    try:
        record, account = await asyncio.gather(
            herd.batches.batch(bought.batch), herd.ledger.account(key.account)
        )
    except RedisUnavailable as error:
        detail = f"the batch was accepted as {bought.batch}, and then Redis went away; read it later"
        raise RedisUnavailable(detail, retry_after=2, batch_id=bought.batch) from error
    if record is None:
        raise Conflict(f"the batch of this Idempotency-Key, {bought.batch}, ended and is no longer kept")
    fields = batch_fields(record, await _eta_ms(herd, record))
    return SubmittedBatch.model_validate({**fields, "balance": account.available if account else 0})


@router.get("", response_model=Batches, summary="List batches", responses=declared(InvalidRequest, NotFound))
async def listed(
    request: Request,
    key: Caller,
    limit: Limit = 20,
    cursor: Cursor = None,
    after: Annotated[
        str | None, Query(description="instead of `cursor`: a batch's id, as OpenAI's clients page")
    ] = None,
) -> Batches:
    """The account's batches, newest first; without `eta_ms`, which each one alone has.

    `data` has those that were made in OpenAI's words, in these: of this page, or of the first one after it that has
    any, since their clients stop at a page without. For a `cursor` it is not looked so far.
    """
    herd, show = herd_of(request), _others(request).shown
    looks = LOOKS_MAX if cursor is None else 0
    if after is not None and cursor is None:
        cursor = await herd.batches.place(await _own(herd, key, after))
    records, rest = await herd.batches.batches(key.account, before=cursor, limit=limit)
    theirs, more = [told for record in records if (told := show(record)) is not None], rest
    while not theirs and more is not None and looks > 0:
        looks -= 1
        found, more = await herd.batches.batches(key.account, before=more, limit=limit)
        theirs = [told for record in found if (told := show(record)) is not None]
    return Batches(
        batches=[Batch.model_validate(batch_fields(record, None)) for record in records],
        next=rest,
        data=theirs,
        has_more=more is not None,
    )


@router.get("/{batch_id}", response_model=Batch, summary="Read a batch", responses=declared(NotFound))
async def read(request: Request, key: Caller, batch_id: str) -> Batch | Response:
    """How far it is, what it has cost, and how long the rest will probably take.

    One that was made in OpenAI's words is told in these.
    """
    herd = herd_of(request)
    record = await _own(herd, key, batch_id)
    theirs = _others(request).shown(record)
    if theirs is not None:
        return JSONResponse(theirs)
    return Batch.model_validate(batch_fields(record, await _eta_ms(herd, record)))


@router.get(
    "/{batch_id}/results",
    summary="Read a batch's results as they come",
    response_class=Response,
    responses={
        **declared(NotFound, InvalidRequest, Overloaded),
        200: {
            "description": "One JSON object a line for each item that has ended; empty lines keep the connection alive",
            "content": {MEDIA_TYPE: {"schema": {"type": "string"}, "example": (
                '{"cursor":1,"index":4,"custom_id":"row-4","job_id":"job_0aZ3hK9xQvTn5WdE8rYb2cn4",'
                '"status":"succeeded","result":{"text":"Blue.","finish_reason":"stop","prompt_tokens":9,'
                '"completion_tokens":5,"cached_tokens":0},"error":null,"fee":45,"captured":23,"refunded":22}\n'
            )}},
        },
    },
)  # fmt: skip
async def results(
    request: Request,
    key: Caller,
    batch_id: str,
    cursor: Annotated[
        Whole, Query(ge=0, le=10**9, description="`cursor` of the last line that was read; 0 for all")
    ] = 0,
    follow: Annotated[Flag, Query(description="go on while the batch runs; else only what there is")] = True,
) -> Response:
    """JSON lines in the order in which items end. Broken off, it goes on where it was: with the last `cursor`."""
    herd = herd_of(request)
    await _own(herd, key, batch_id)
    with herd.streams.reserved():
        return ResultsResponse(request, herd, result_lines(herd, batch_id, cursor, follow=follow))


@router.delete("/{batch_id}", response_model=Batch, summary="Cancel a batch", responses=declared(NotFound))
async def cancel(request: Request, key: Caller, batch_id: str) -> Batch:
    """What has not started is cancelled and refunded, a few items at a time; what runs stops between two tokens.

    The answer is the batch as it is then: `cancelling` until the last item has ended. Safe to repeat.
    """
    herd = herd_of(request)
    checked(batch_id, "batch", "batch")
    await herd.batches.abandon(key.account, batch_id)
    herd.feeder.want(batch_id)
    record = await _own(herd, key, batch_id)
    return Batch.model_validate(batch_fields(record, await _eta_ms(herd, record)))


async def _own(herd: Herd, key: KeyRecord, batch_id: str) -> BatchRecord:
    """The caller's batch. Raises NotFound."""
    checked(batch_id, "batch", "batch")
    return owned(await herd.batches.batch(batch_id), key, f"batch {batch_id}")


async def _eta_ms(herd: Herd, record: BatchRecord) -> int | None:
    """How long the rest will take: what stands before its last item, and what is not in line yet."""
    if record.status == "ended":
        return None
    state = await herd.market.state(record.model)
    if state is None:
        return None
    left = record.total - record.ended
    last = await herd.batches.last_item(record)
    if last is not None and last.status is Status.QUEUED:
        position = await herd.broker.position(last.model, last.job_id)
        left = max(left, (position or 0) + 1 + record.total - record.fed)
    return state.eta_ms(left)
