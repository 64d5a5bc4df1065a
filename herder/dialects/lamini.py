"""Lamini's API: prompts one or many, typed answers, reservations. Polled answers are next door, in `lamini_polled`.

`POST /v1/completions` is OpenAI's as well, and its route is in their file, which asks `completion` here.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from herder.api.info import installed_version
from herder.api.reading import counted_bytes, object_in, validated
from herder.api.state import herd_of
from herder.dialects.attended import Bought, answered, bought, result_of
from herder.dialects.lamini_bodies import Asked, forgiving
from herder.dialects.many import BoughtMany, answered_many, bought_many, records_of, refuse_if_none
from herder.errors import HerderError, UnknownModel
from herder.lifecycle import Status
from herder.protocol import JobRecord
from herder.records import KeyRecord

RESERVATION_BYTES_MAX = 65_536
RESERVED_MOST = 1_000_000  # prompts; what is reserved is a number in an answer, and nothing else
BATCH_SIZE = 5  # what their clients send when told nothing
RESERVED_FOR = timedelta(hours=1)
RESERVED_SINCE = timedelta(minutes=1)  # a client whose clock is behind would sleep until it begins

router = APIRouter()


class NoSuchModel(UnknownModel):
    """The status by which their clients know it."""

    status = 594


@contextlib.contextmanager
def in_their_words() -> Iterator[None]:
    """Errors as their clients tell them apart."""
    try:
        yield
    except UnknownModel as error:
        raise NoSuchModel(error.detail, **error.extra) from None


async def read(request: Request, raw: bytearray) -> Asked:
    """A body of theirs; a large one is read aside. Empties `raw`. Raises BadRequest, InvalidRequest."""
    value = await asyncio.to_thread(forgiving, raw)
    raw.clear()
    return validated(Asked, value, herd_of(request).settings)


async def completion(request: Request, key: KeyRecord, raw: bytearray) -> Response:
    """The answer to a prompt, or the answers to a list of them in its order, one charge for all."""
    with in_their_words():
        body = await read(request, raw)
        if isinstance(body.prompt, str):
            one = await answered(request, await bought_one(request, key, body))
            return JSONResponse(answer_of(one.record), headers=one.headers)
        many = await answered_many(request, await bought_list(request, key, body))
        answers = await _answers(request, many)
        written = await asyncio.to_thread(json.dumps, answers)
        return Response(written, 200, many.headers, "application/json")


async def bought_one(request: Request, key: KeyRecord, body: Asked, *, attended: bool = True) -> Bought:
    """A job for the one prompt of a body."""
    fields = {"prompt": body.prompt, **body.fields(herd_of(request).settings)}
    return await bought(request, key, body, fields, body.names, attended=attended, fit=body.fit)


async def bought_list(request: Request, key: KeyRecord, body: Asked, *, attended: bool = True) -> BoughtMany:
    """A batch for the list of a body."""
    assert isinstance(body.prompt, list)
    fields = body.fields(herd_of(request).settings)
    return await bought_many(
        request, key, body, fields, body.prompt, names=body.names, attended=attended, fit=body.fit
    )


async def _answers(request: Request, many: BoughtMany) -> list[Any]:
    """What the items have come to, in order. Raises AnswerFailed or Conflict where none has an answer."""
    answers, failed = [], None
    async for record in records_of(herd_of(request), many.record):
        answers.append(answer_of(record))
        if record is not None and record.status is not Status.SUCCEEDED:
            failed = failed or record
    refuse_if_none(many.record, failed)
    return answers


def answer_of(record: JobRecord | None) -> Any:
    """`{"output": "…"}`, or the typed object.

    Of one among many that has no answer, and was refunded: null for an object that would not be what was asked for,
    and an `output` of null for a text, since their clients take that field of every answer or lose them all.
    """
    if record is not None and record.status is Status.SUCCEEDED:
        result = result_of(record)
        return result.output if record.typed else {"output": result.text}
    if record is not None and record.typed:
        return None
    why = record.error_message or record.status.value if record is not None else "it is no longer kept"
    return {"output": None, "error": why}


@router.post("/v1/reservation", include_in_schema=False)
async def reservation(request: Request) -> dict[str, Any]:
    """As much as is asked for, to everyone: nothing is set aside, and without this answer their clients never end.

    Whoever may not ask is told so where the prompts come in.
    """
    asked: dict[str, Any] = {}
    with contextlib.suppress(HerderError):
        asked = object_in(await counted_bytes(request, RESERVATION_BYTES_MAX, "the limit of a reservation"))
    now = datetime.now(UTC).replace(tzinfo=None)
    size = _count(asked.get("batch_size"), BATCH_SIZE)
    return {
        "reservation_id": f"reservation_{secrets.token_hex(8)}",
        "capacity_remaining": max(_count(asked.get("capacity"), size), size),
        "dynamic_max_batch_size": size,
        "start_time": (now - RESERVED_SINCE).isoformat(),
        "end_time": (now + RESERVED_FOR).isoformat(),
    }


def _count(given: Any, otherwise: int) -> int:
    """A number of prompts, at least 1: of 0 at a time a list has no end."""
    if isinstance(given, bool) or not isinstance(given, int) or given < 1:
        return otherwise
    return min(given, RESERVED_MOST)


@router.get("/v1/version", include_in_schema=False)
async def version() -> str:
    """The herd's version, a string."""
    return installed_version()
