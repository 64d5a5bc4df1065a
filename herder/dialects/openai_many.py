"""Several prompts of one request to OpenAI's `/v1/completions`: one batch, told whole, or each answer as it ends.

Who goes away, or whose herder stops, has the batch cancelled: what was not used is refunded.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator

from fastapi import Request, Response
from starlette.types import Receive, Scope, Send

from herder.api.batch_results import LOOK_S, PAGE, ResultsResponse
from herder.api.frames import PING
from herder.api.refusals import PLAIN, as_openai
from herder.api.state import herd_of
from herder.batch_records import BatchRecord, item_id
from herder.dialects.attended import may_come_back, result_of
from herder.dialects.many import BoughtMany, answered_many, records_of, refuse_if_none
from herder.dialects.openai_answers import (
    DONE,
    Manner,
    as_json,
    completion_answer,
    completion_choices,
    head_of,
    usage_of,
)
from herder.errors import AnswerFailed, HerderError, Overloaded, RedisUnavailable
from herder.lifecycle import Status
from herder.protocol import JobRecord


async def told_whole(request: Request, sold: BoughtMany, manners: list[Manner]) -> Response:
    """All answers, in order. Raises AnswerFailed, Conflict, Overloaded."""
    many = await answered_many(request, sold)
    found = [job async for job in records_of(herd_of(request), many.record)]
    jobs = [job for job in found if job is not None and job.status is Status.SUCCEEDED]
    if len(jobs) < len(found):
        failed = (job for job in found if job is not None and job.status is not Status.SUCCEEDED)
        refuse_if_none(many.record, next(failed, None))
        raise _failed(many.record, len(found) - len(jobs))
    return Response(as_json(completion_answer(jobs, manners)), 200, many.headers, PLAIN)


def told_each(request: Request, sold: BoughtMany, manners: list[Manner]) -> Response:
    """A stream of the answers, each told whole when it has ended."""
    return _Each(request, sold, manners)


class _Each(ResultsResponse):
    """The stream. Whatever ends it before the batch has ended, be it before its first word, cancels what is left."""

    def __init__(self, request: Request, sold: BoughtMany, manners: list[Manner]) -> None:
        herd = herd_of(request)
        super().__init__(request, herd, self._events(request), sold.headers, "text/event-stream")
        self._record, self._manners = sold.record, manners
        self._heard = 0  # items that have ended
        self._comes_back = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it all."""
        herd, batch = self._herd, self._record.batch
        with herd.attendance.of(batch):
            try:
                await super().__call__(scope, receive, send)
            finally:
                over = self._heard >= self._record.total or self._comes_back
                if not over and herd.attendance.alone(batch):
                    herd.cancel.batch(self._record.account, batch)

    async def _events(self, request: Request) -> AsyncGenerator[bytes, None]:
        herd, record, manners = self._herd, self._record, self._manners
        batch, quiet_s = record.batch, 0.0
        jobs: list[JobRecord] = []
        ping_s = herd.settings.stream_ping_ms / 1000
        try:
            async with herd.bell.listen(herd.broker.keys("batch_bell", batch)) as listener:
                while self._heard < record.total:
                    # Read after subscribing and after each ring, so that an end that came between is seen.
                    read, rows = await herd.batches.ended_items(batch, self._heard, PAGE)
                    self._heard, quiet_s = self._heard + read, 0.0 if read else quiet_s
                    for _, index, job in rows:
                        if job.status is Status.SUCCEEDED:
                            jobs.append(job)
                            yield _event(record, job, index, manners[index])
                    over = self._heard >= record.total
                    if not over and (herd.stopping.is_set() or await request.is_disconnected()):
                        yield _broken(Overloaded(f"this herder stops; {batch} is cancelled, ask again"))
                        return
                    if not read and not await listener.next(min(LOOK_S, ping_s)):
                        quiet_s += min(LOOK_S, ping_s)
                        if quiet_s >= ping_s:
                            quiet_s = 0.0
                            yield PING
        except RedisUnavailable as error:
            self._comes_back = may_come_back(request)
            yield _broken(error)
            return
        if len(jobs) < record.total:
            yield _broken(_failed(record, record.total - len(jobs)))
            return
        if manners[0].usage:
            usage = usage_of([result_of(job) for job in jobs])
            yield _frame(_head(record, jobs[0], manners[0]) | {"choices": [], "usage": usage})
        yield DONE


def _head(record: BatchRecord, job: JobRecord, manner: Manner) -> dict[str, object]:
    """The same for all items: that of the first."""
    first = item_id(record.batch, 0).removeprefix("job_")
    return head_of(job, "text_completion", manner) | {
        "id": f"cmpl-{first}",
        "created": record.created_ms // 1000,
    }


def _event(record: BatchRecord, job: JobRecord, index: int, manner: Manner) -> bytes:
    choices = completion_choices(result_of(job), manner, index * job.n)
    usage = {"usage": None} if manner.usage else {}
    return _frame(_head(record, job, manner) | {"choices": choices} | usage)


def _frame(shown: dict[str, object]) -> bytes:
    return b"data: " + as_json(shown) + b"\n\n"


def _broken(error: HerderError) -> bytes:
    return _frame({"error": as_openai(error)})


def _failed(record: BatchRecord, count: int) -> AnswerFailed:
    return AnswerFailed(
        f"{count} of {record.total} prompts have no answer and were refunded; the other answers are paid for, and "
        f"kept: GET /v1/batches/{record.batch}/results",
        final=True,
        batch_id=record.batch,
    )
