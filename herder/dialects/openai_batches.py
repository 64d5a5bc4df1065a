"""Batches in OpenAI's shape, at the addresses of ours: told apart by the `input_file_id` of what is submitted.

Bought as ours are, all or nothing, in one charge; the record keeps what was asked for, and they are shown in OpenAI's
words. The files are next door, in `openai_files`; their lines in `openai_lines`.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from herder.api.batch_purchase import batch_bought, batch_replayed
from herder.api.batch_reading import batch_of_items
from herder.api.batch_shapes import batch_fields
from herder.api.callers import Caller
from herder.api.envelope import told_as_replayed
from herder.api.lookup import checked, owned
from herder.api.reading import object_in, validated
from herder.api.state import herd_of
from herder.batch_records import BatchRecord
from herder.dialects.asking import Lenient, bid_of
from herder.dialects.openai_files import BATCH, upload_id
from herder.dialects.openai_lines import ENDPOINTS, Asked, in_their_words, requests_in
from herder.dialects.openai_tools import wrong
from herder.errors import BadRequest, Conflict, InvalidRequest
from herder.files import Files
from herder.records import KeyRecord

BODY_BYTES_MAX = 65_536  # their whole body, beside the file; a larger one is a batch of ours
MARK = "input_file_id"

router = APIRouter(include_in_schema=False)


class BatchBody(Lenient):
    """The body of `POST /v1/batches`."""

    input_file_id: str
    endpoint: str
    completion_window: str | None = None
    metadata: dict[str, Any] | None = None


def is_theirs(body: bytes | bytearray) -> bool:
    """Whether this is the body of a batch of theirs; what is wrong with one of ours is told by whoever reads it."""
    if len(body) > BODY_BYTES_MAX or MARK.encode() not in body:
        return False
    try:
        return MARK in object_in(body)
    except (BadRequest, InvalidRequest):
        return False


async def submitted(
    request: Request, key: KeyRecord, body: bytes | bytearray, idempotency_key: str | None
) -> Response:
    """Buy a batch from a file. Raises what a submission can be refused with."""
    herd = herd_of(request)
    given = validated(BatchBody, object_in(body), herd.settings)
    if given.endpoint not in ENDPOINTS:
        raise wrong("endpoint", f"must be one of {', '.join(ENDPOINTS)}")
    options = bid_of(request, given)
    if given.metadata:
        options["metadata"] = {name: value for name, value in given.metadata.items() if value is not None}
    files, file = Files(herd.broker), upload_id(given.input_file_id)
    if (await files.file(key.account, file)).purpose != BATCH:
        raise wrong("input_file_id", f"the file's purpose is not {BATCH}")
    try:
        found = await requests_in(herd, await files.text(file), given.endpoint)
        found.items.reverse()
        rows = (found.items.pop() for _ in range(len(found.items)))  # none is kept once it is read
        ask = await batch_of_items(options, rows, herd.settings, digest=idempotency_key is not None)
        asked = Asked(
            input_file_id=file, endpoint=given.endpoint, completion_window=given.completion_window or "24h"
        )
        ask = replace(ask, fit=found.fit, openai=asked.model_dump_json(), manners=found.manners)
        bought = None if ask.faults.found else await batch_replayed(herd, key, ask, idempotency_key)
        if bought is None:
            bought = await batch_bought(herd, key, ask, idempotency_key)
            herd.feeder.want(bought.batch)
    except InvalidRequest as error:
        raise in_their_words(error, given.endpoint) from None
    record, account = await asyncio.gather(herd.batches.batch(bought.batch), herd.ledger.account(key.account))
    if record is None:
        raise Conflict(f"the batch of this Idempotency-Key, {bought.batch}, ended and is no longer kept")
    headers = {
        "Location": f"/v1/batches/{record.batch}",
        "x-herder-job-id": record.batch,
        "x-herder-fee": str(record.fee),
        "x-herder-balance": str(account.available if account is not None else 0),
    }
    if bought.replayed:
        told_as_replayed(request)
    return JSONResponse(shown(record), 200, headers)


@router.post("/v1/batches/{batch_id}/cancel")
async def cancel(request: Request, key: Caller, batch_id: str) -> Response:
    """What has not started is cancelled and refunded. One of ours is shown as ours."""
    herd = herd_of(request)
    checked(batch_id, "batch", "batch")
    await herd.batches.abandon(key.account, batch_id)
    herd.feeder.want(batch_id)
    record = owned(await herd.batches.batch(batch_id), key, f"batch {batch_id}")
    return JSONResponse(shown(record) or json.loads(json.dumps(batch_fields(record, None), default=dict)))


def shown(record: BatchRecord) -> dict[str, Any] | None:
    """A batch as OpenAI's API shows it; None for one of ours."""
    if record.openai is None:
        return None
    asked = Asked.model_validate_json(record.openai)
    ended, suffix = record.status == "ended", record.batch.removeprefix("batch_")
    cancelled = ended and record.cancel_requested
    created, at = record.created_ms // 1000, (record.ended_ms or 0) // 1000
    failed = record.ended - record.succeeded
    status = "in_progress" if not record.cancel_requested else "cancelling"
    if ended:
        status = "cancelled" if cancelled else "completed"
    return {
        "id": record.batch,
        "object": "batch",
        "endpoint": asked.endpoint,
        "model": record.model,
        "errors": None,
        "input_file_id": asked.input_file_id,
        "completion_window": asked.completion_window,
        "status": status,
        "output_file_id": f"file-output-{suffix}" if ended and record.succeeded else None,
        "error_file_id": f"file-errors-{suffix}" if ended and failed else None,
        "created_at": created,
        "in_progress_at": created,
        "expires_at": None,
        "finalizing_at": at if ended and not cancelled else None,
        "completed_at": at if ended and not cancelled else None,
        "failed_at": None,
        "expired_at": None,
        "cancelling_at": at if cancelled else None,
        "cancelled_at": at if cancelled else None,
        "request_counts": {"total": record.total, "completed": record.succeeded, "failed": failed},
        "metadata": record.metadata or None,
    }
