"""Many answers in one charge: a batch whose caller stays on the line for all of it, or comes back for what there is.

What of them has failed was refunded, and what was answered is paid for: whoever tells the answers tells all of those.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from fastapi import Request

from herder.api.batch_purchase import batch_bought, batch_replayed
from herder.api.batch_reading import SLICE, BatchAsk, batch_of_prompts
from herder.api.envelope import told_as_replayed
from herder.api.jobs import rung
from herder.api.large_bodies import pieces
from herder.api.problems import told
from herder.api.state import Herd, herd_of
from herder.batch_records import BatchRecord
from herder.dialects.asking import Lenient, bid_of, model_named
from herder.dialects.attended import failure_of, may_come_back
from herder.errors import AnswerFailed, Conflict, InvalidRequest, Overloaded, RedisUnavailable
from herder.protocol import JobRecord
from herder.records import KeyRecord

PAGE = 200  # items of one read
LOOK_S = 2.0  # silence after which is looked, whatever the bell said
_ITEM = re.compile(r"item (\d+)(?:: (.*))?", re.DOTALL)


@dataclass(frozen=True)
class BoughtMany:
    """A batch that was paid for; `balance` is what is left."""

    record: BatchRecord
    balance: int

    @property
    def headers(self) -> dict[str, str]:
        """What every answer carries: the batch, its fee (what was paid in the end, if it has), and the balance."""
        record = self.record
        fee = record.captured if record.status == "ended" else record.fee
        return {
            "x-herder-job-id": record.batch,
            "x-herder-fee": str(fee),
            "x-herder-balance": str(self.balance),
        }


async def body_of_many(request: Request, account: str) -> bytearray:
    """A body that may be as large as a batch's; only a few of those are read at a time.

    Raises TooLarge, Overloaded, BadRequest (it does not come).
    """
    herd, body = herd_of(request), bytearray()
    small = herd.settings.body_bytes_max
    with contextlib.ExitStack() as place:
        async for piece in pieces(request, herd):
            if len(body) <= small < len(body) + len(piece):
                place.enter_context(herd.large_body(account))
            body += piece
    return body


async def bought_many(
    request: Request,
    key: KeyRecord,
    asked: Lenient,
    fields: dict[str, Any],
    prompts: list[str],
    *,
    names: Mapping[str, str] | None = None,
    attended: bool = True,
    fit: bool = False,
) -> BoughtMany:
    """Buy an answer to each of these prompts, in one charge: all or none. Empties `prompts`.

    `fields` are those of an item of `/v1/batches`, for all of them; the rest is as in `attended.bought`.
    """
    herd = herd_of(request)
    _refuse_more(len(prompts), herd.settings.batch_items_max, "HERDER_BATCH_ITEMS_MAX", names)
    given = {name: value for name, value in fields.items() if value is not None}
    fit = fit or "tokens" not in given
    given.setdefault("tokens", min(herd.settings.tokens_default, herd.settings.tokens_max))
    given |= bid_of(request, asked)
    model = await model_named(herd, asked.model)
    if model is not None:
        given["model"] = model
    again = request.headers.get("idempotency-key")
    # A short list is no more than a few jobs, of which clients send many at once.
    large = len(prompts) > SLICE or sum(map(len, prompts)) > herd.settings.body_bytes_max
    with herd.large_body(key.account) if large else contextlib.nullcontext():
        try:
            ask = await batch_of_prompts(given, prompts, herd.settings, digest=again is not None)
            return await _sold(request, key, replace(ask, fit=fit), again, attended=attended)
        except InvalidRequest as error:
            _renamed(error, names or {})


def _refuse_more(count: int, most: int, setting: str, names: Mapping[str, str] | None) -> None:
    if count > most:
        field = (names or {}).get("prompt", "prompt")
        message = f"{count} prompts are more than {most} ({setting}): send several lists"
        fault = {"field": field, "message": message}
        raise InvalidRequest(f"{field}: {message}", limit=most, errors=[fault])


async def _sold(
    request: Request, key: KeyRecord, ask: BatchAsk, again: str | None, *, attended: bool
) -> BoughtMany:
    herd = herd_of(request)
    # What is wrong somewhere was never accepted.
    sold = None if ask.faults.found else await batch_replayed(herd, key, ask, again)
    if sold is None:
        sold = await batch_bought(herd, key, ask, again, attended=attended)
        herd.feeder.want(sold.batch)
    record, account = await asyncio.gather(herd.batches.batch(sold.batch), herd.ledger.account(key.account))
    if record is None:
        raise Conflict(f"the batch of this Idempotency-Key, {sold.batch}, ended and is no longer kept")
    if sold.replayed:
        told_as_replayed(request)
    return BoughtMany(record, account.available if account is not None else 0)


def _renamed(error: InvalidRequest, names: Mapping[str, str]) -> NoReturn:
    """The same error, of the fields that the caller has sent: an item is `prompt.3`."""
    found = []
    for fault in error.extra.get("errors") or []:
        item = _ITEM.fullmatch(fault["field"])
        field = fault["field"] if item is None else item[2] or "prompt"
        first, dot, rest = field.partition(".")
        name = names.get(first, first) + dot + rest
        if item is not None and first == "prompt":
            name = f"{name}.{item[1]}"
        found.append({**fault, "field": name})
    detail = told(found) if found else error.detail
    raise InvalidRequest(detail, **{**error.extra, "errors": found}) from None


async def answered_many(request: Request, sold: BoughtMany) -> BoughtMany:
    """The batch when it has ended. Where the caller goes, or this herder, it is cancelled; what was not used is
    refunded. Raises Conflict, Overloaded (this herder stops), RedisUnavailable as `answered` does."""
    herd, batch = herd_of(request), sold.record.batch
    record: BatchRecord | None = sold.record
    comes_back = False
    with herd.attendance.of(batch):
        try:
            record = await _ended(herd, request, batch, sold.record.total)
        except RedisUnavailable:
            comes_back = may_come_back(request)
            raise
        finally:
            ended = record is not None and record.status == "ended"
            if not ended and not comes_back and herd.attendance.alone(batch):
                herd.cancel.batch(sold.record.account, batch)
    if record is None:
        raise Conflict(f"{batch} ended and is no longer kept")
    if record.status != "ended":
        raise Overloaded(f"this herder stops; {batch} is cancelled, ask again", retry_after=1, batch_id=batch)
    account = await herd.ledger.account(record.account)
    return BoughtMany(record, account.available if account is not None else sold.balance)


async def _ended(herd: Herd, request: Request, batch: str, total: int) -> BatchRecord | None:
    """The batch at its end, or as it is when the caller or this herder goes; None where it is no longer kept."""

    def whole(ring: bytes) -> bool:
        return int(ring) >= total

    with herd.metrics.waiting.track_inprogress():
        async with herd.bell.listen(herd.broker.keys("batch_bell", batch)) as listener:
            while True:
                # Read after subscribing and after each ring, so that an end that came between is seen.
                record = await herd.batches.batch(batch)
                if record is None or record.status == "ended" or herd.stopping.is_set():
                    return record
                if await request.is_disconnected():
                    return record
                await rung(herd, listener, LOOK_S, whole)


async def records_of(herd: Herd, record: BatchRecord) -> AsyncIterator[JobRecord | None]:
    """Its items in order, some at a time; None for one that is not in line yet, or is no longer kept."""
    for first in range(0, record.total, PAGE):
        for item in await herd.batches.items(record.batch, first, min(PAGE, record.total - first)):
            yield item
        await asyncio.sleep(0)


def refuse_if_none(record: BatchRecord, job: JobRecord | None) -> None:
    """Where no item has an answer nothing was paid, and the failure of one of them, `job`, is that of all.

    Raises AnswerFailed, Conflict.
    """
    if record.status != "ended" or record.succeeded:
        return
    failed = failure_of(job) if job is not None else None
    if failed is None:
        failed = AnswerFailed(f"{record.batch} failed and was refunded", batch_id=record.batch)
    raise failed
