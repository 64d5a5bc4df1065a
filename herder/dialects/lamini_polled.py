"""Lamini's answers that are asked for again and again: two kinds of stream, and batches.

Whoever asks for them can come back, at any herder, so that these are ordinary jobs and batches: nothing is kept here.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from herder.api.callers import BatchCaller, Caller
from herder.api.lookup import checked, own, owned
from herder.api.state import Herd, herd_of
from herder.dialects.attended import answered, failure_of, result_of
from herder.dialects.lamini import answer_of, bought_list, bought_one, in_their_words, read
from herder.dialects.lamini_bodies import Asked
from herder.dialects.many import answered_many, body_of_many, records_of, refuse_if_none
from herder.errors import InvalidRequest
from herder.lifecycle import LIVE, Status
from herder.protocol import EventKind, JobRecord
from herder.records import KeyRecord

STREAMED_MAX = 64  # prompts of one stream, each of whose logs is read whenever it is asked for
PART_MAX = 1_000  # prompts of a batch that is told while it runs: what is told is told again each second
EVENTS_PAGE = 1_000
FAILED = "error"  # the finish reason of an answer that there is not

router = APIRouter()


@dataclass(frozen=True)
class _Part:
    """One answer as far as it is; `text` is None before it has begun. `record` is that of one that has ended."""

    text: str | None
    record: JobRecord | None = None
    typed: bool = False

    @property
    def begun(self) -> bool:
        """Whether there is anything to tell."""
        return self.text is not None or self.record is not None

    @property
    def reason(self) -> str | None:
        """Why it ended."""
        return reason_of(self.record) if self.record is not None else None

    @property
    def output(self) -> Any:
        """As `/v1/completions` has it, the text so far; None of a typed answer that is not whole."""
        if self.record is not None:
            return answer_of(self.record)
        return None if self.typed else {"output": self.text or ""}


def reason_of(record: JobRecord) -> str:
    """Why an answer ended, in a word that is never empty."""
    return result_of(record).finish_reason.value if record.status is Status.SUCCEEDED else FAILED


# --- v1: the same request again, with the server it was told ---------------------------------------------------


@router.post("/v1/streaming_completions", include_in_schema=False)
async def again_and_again(request: Request, key: BatchCaller) -> JSONResponse:
    """Buys the answers, and with a `server` tells how far they are. `server` is the name of the job, or the batch."""
    with in_their_words():
        body = await _body(request, key)
        if body.server is None:
            stays = _forgets(request)
            name, headers = await _bought(request, key, body, most=STREAMED_MAX, attended=stays)
        else:
            name, headers = str(body.server), {}
        parts = await _parts(herd_of(request), key, name)
    told = {
        "server": name,
        "status": [part.record is not None for part in parts],
        "data": [part.output for part in parts],
    }
    return JSONResponse(told, headers=headers)


def _forgets(request: Request) -> bool:
    """Whether the answer has to be whole at once: the asynchronous stream of 2.1 never sends the server it was told,
    and so would buy the same again each time. Later ones say their version."""
    agent = request.headers.get("user-agent", "")
    return "aiohttp" in agent and "lamini-version" not in request.headers


# --- v3 ---------------------------------------------------------------------------------------------------------


@router.post("/v3/streaming_completions", include_in_schema=False)
async def stream(request: Request, key: BatchCaller) -> JSONResponse:
    """Buys the answers."""
    with in_their_words():
        name, headers = await _bought(request, key, await _body(request, key), most=STREAMED_MAX)
    return JSONResponse({"id": name}, headers=headers)


@router.get("/v3/streaming_completions/{name}/result", include_in_schema=False)
async def streamed_so_far(request: Request, key: Caller, name: str) -> dict[str, Any]:
    """The texts so far; empty before the first has begun."""
    parts = await _parts(herd_of(request), key, name)
    if not any(part.begun for part in parts):
        return {}
    return {"outputs": [part.output for part in parts], "finish_reason": [part.reason for part in parts]}


# --- batches ----------------------------------------------------------------------------------------------------


@router.post("/v1/batch_completions", include_in_schema=False)
async def batch(request: Request, key: BatchCaller) -> JSONResponse:
    """Buys the answers, in one charge."""
    with in_their_words():
        body = await _body(request, key)
        if isinstance(body.prompt, str):
            body.prompt = [body.prompt]
        name, headers = await _bought(request, key, body, most=herd_of(request).settings.batch_items_max)
    return JSONResponse({"id": name}, headers=headers)


@router.get("/v1/batch_completions/{name}/result", include_in_schema=False)
async def batch_so_far(request: Request, key: Caller, name: str) -> Response:
    """The answers from the first on, up to one that has not ended; empty before that, and of a long batch until all
    have. Their clients count what has ended, and take so many from the left.
    """
    herd = herd_of(request)
    checked(name, "batch", "batch")
    record = owned(await herd.batches.batch(name), key, f"batch {name}")
    if record.status != "ended" and record.total > PART_MAX:
        return JSONResponse({})
    outputs: list[Any] = []
    reasons: list[str | None] = []
    failed = None
    async for job in records_of(herd, record):
        if job is None or job.status in LIVE:
            break
        outputs.append(answer_of(job))
        reasons.append(reason_of(job))
        failed = failed or (job if reasons[-1] == FAILED else None)
    refuse_if_none(record, failed)
    if not outputs:
        return JSONResponse({})
    rest = [None] * (record.total - len(outputs))
    told = {"outputs": outputs + rest, "finish_reason": reasons + rest}
    return Response(await asyncio.to_thread(json.dumps, told), media_type="application/json")


# --- both -------------------------------------------------------------------------------------------------------


async def _body(request: Request, key: KeyRecord) -> Asked:
    return await read(request, await body_of_many(request, key.account))


async def _bought(
    request: Request, key: KeyRecord, body: Asked, *, most: int, attended: bool = False
) -> tuple[str, dict[str, str]]:
    """The name of what was bought, and the headers that say so. `attended`: it has ended, or gone with its caller."""
    if isinstance(body.prompt, str):
        one = await bought_one(request, key, body, attended=attended)
        one = await answered(request, one) if attended else one
        return one.record.job_id, one.headers
    if len(body.prompt) > most:
        message = f"must have at most {most} prompts here, it has {len(body.prompt)}"
        raise InvalidRequest(
            f"prompt: {message}", limit=most, errors=[{"field": "prompt", "message": message}]
        )
    many = await bought_list(request, key, body, attended=attended)
    many = await answered_many(request, many) if attended else many
    return many.record.batch, many.headers


async def _parts(herd: Herd, key: KeyRecord, name: str) -> list[_Part]:
    """How far the answers of a job or a batch are. Raises NotFound; AnswerFailed or Conflict where there is none."""
    if not name.startswith("batch_"):
        job = await own(herd, key, name)
        failed = failure_of(job) if job.status not in LIVE else None
        if failed is not None:
            raise failed
        return [await _part(herd, job)]
    checked(name, "batch", "batch")
    record = owned(await herd.batches.batch(name), key, f"batch {name}")
    if record.total > STREAMED_MAX:
        message = f"a batch of more than {STREAMED_MAX} prompts is no stream; read it as a batch"
        raise InvalidRequest(message, errors=[])
    jobs = [job async for job in records_of(herd, record)]
    failed_jobs = (job for job in jobs if job is not None and failure_of(job) and job.status not in LIVE)
    refuse_if_none(record, next(failed_jobs, None))
    return [await _part(herd, job) for job in jobs]


async def _part(herd: Herd, job: JobRecord | None) -> _Part:
    if job is None:
        return _Part(None)
    if job.status not in LIVE:
        return _Part(None, job)
    text = await _text_so_far(herd, job.job_id) if job.attempt else None
    return _Part(text, typed=job.typed)


async def _text_so_far(herd: Herd, job_id: str) -> str:
    """What the log has of the attempt that runs."""
    said: list[str] = []
    after = "-"
    while True:
        events = await herd.broker.events(job_id, after=after, limit=EVENTS_PAGE)
        for event in events:
            if event.kind is EventKind.TOKENS:
                said.append(event.fields["text"])
            elif event.kind in (EventKind.STARTED, EventKind.RESTARTED):
                said.clear()
        if len(events) < EVENTS_PAGE:
            return "".join(said)
        after = events[-1].event_id
