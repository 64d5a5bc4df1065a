"""The way of a webhook through the courier: from the callback queue to a delivery, and one attempt at its receiver.

What is said and what an answer means is in `webhooks`; what is kept, in `deliveries`. Knows no arq.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Sequence

from herder.batches import Batches
from herder.broker import Broker
from herder.deliveries import Deliveries
from herder.egress import Answer, Egress
from herder.errors import RedisUnavailable
from herder.logs import get_logger
from herder.reads import job_record
from herder.signatures import signed_headers
from herder.webhook_records import Attempted, Delivery, DeliveryStatus, Endpoint, NewDelivery, lane_of
from herder.webhooks import (
    body_of_batch,
    body_of_job,
    body_of_lost,
    delivery_id,
    judged,
    link_to,
    undeliverable,
)

CALLBACKS_A_ROUND = 100
# A settlement waits for whatever Redis is at: so a little at a time, and then Redis is left to others for a while.
TOGETHER = 5
ANSWER_BYTES = 100_000
PAUSE_S = 0.01
RECORD_TRIES = 3
RECORD_PAUSE_S = 0.5

log = get_logger(__name__)

Callback = tuple[str, dict[str, str]]
Jobs = dict[str, dict[str, str]]
Answered = tuple[str, NewDelivery | None]


class BrokenOff(Exception):
    """The courier stops, and so did an attempt, in the middle; nothing is recorded of it."""


class Posting:
    """Both halves, on a broker and a door to the outside."""

    def __init__(self, broker: Broker, egress: Egress) -> None:
        self._broker = broker
        self._egress = egress
        self._settings = broker.settings
        self.deliveries = Deliveries(broker)
        self._sending: set[asyncio.Task[Answer]] = set()
        self._over = False

    def break_off(self) -> None:
        """End what is being sent, and send nothing more: the courier stops."""
        self._over = True
        for sending in self._sending:
            sending.cancel()

    # --- callbacks ---------------------------------------------------------------------------------------

    async def collect(self) -> int:
        """Take the oldest callbacks off their queue, posting what somebody wants to hear of; how many were taken."""
        callbacks = await self._broker.callbacks(CALLBACKS_A_ROUND)
        silent: list[Answered] = [(entry, None) for entry, fields in callbacks if "webhook_url" not in fields]
        await self.deliveries.answer(silent)
        told = [callback for callback in callbacks if "webhook_url" in callback[1]]
        for start in range(0, len(told), TOGETHER):
            some = told[start : start + TOGETHER]
            jobs = await self._jobs(some)
            answered = [(entry, await self._new(fields, jobs)) for entry, fields in some]
            for slice_ in _slices(answered):
                await self.deliveries.answer(slice_)
                await asyncio.sleep(PAUSE_S)
        return len(callbacks)

    async def _jobs(self, callbacks: Sequence[Callback]) -> Jobs:
        """The hashes of the jobs among these, in one round trip; without those that are no longer kept."""
        ids = [fields["job"] for _, fields in callbacks if "job" in fields]
        hashes = await self._broker.hashes_of([("job", job_id) for job_id in ids])
        return {job_id: fields for job_id, fields in zip(ids, hashes, strict=True) if fields}

    async def _new(self, fields: dict[str, str], jobs: Jobs) -> NewDelivery:
        """The delivery of a callback."""
        subject = fields.get("job") or fields["batch"]
        kind = f"job.{fields['status']}" if "job" in fields else "batch.ended"
        link = link_to(self._settings.public_url, subject)
        try:
            body = await self._body(fields, jobs, link)
        except (KeyError, ValueError, TypeError):
            # Nobody's webhook may wait for a record that cannot be read.
            log.exception("a webhook's body could not be made", subject=subject)
            body = None
        if body is None:
            body = body_of_lost(kind, subject, fields["status"], int(fields["at"]), link)
        url = fields["webhook_url"]
        return NewDelivery(
            id=delivery_id(subject),
            account=fields["account"],
            endpoint=fields["endpoint"],
            url=url,
            lane=lane_of(fields["account"], url),
            type=kind,
            subject=subject,
            body=body.decode(),
        )

    async def _body(self, fields: dict[str, str], jobs: Jobs, link: str) -> bytes | None:
        """What there is to say; None of what is no longer kept."""
        if "job" in fields:
            job = jobs.get(fields["job"])
            return None if job is None else body_of_job(job_record(fields["job"], job), link)
        batch = await Batches(self._broker).batch(fields["batch"])
        return None if batch is None else body_of_batch(batch, link)

    # --- attempts ----------------------------------------------------------------------------------------

    async def attempt(self, delivery_id_: str, attempt: int) -> None:
        """Make one attempt that was claimed, and record what came of it; one that is over already is let go by.

        Where that cannot be recorded the attempt lapses and is made again: at least once, never silently not.
        Raises BrokenOff, RedisUnavailable.
        """
        delivery = await self.deliveries.delivery(delivery_id_)
        if delivery is None or (delivery.status, delivery.attempt) != (DeliveryStatus.PENDING, attempt):
            return
        endpoint = await self.deliveries.endpoint(delivery.endpoint)
        result = undeliverable(delivery, endpoint)
        if result is None:
            assert endpoint is not None
            answer = await self._answer(delivery, endpoint)
            result = judged(delivery, answer, self._settings.webhook_schedule_s, random.uniform)
        taken = await self._recorded(result)
        log.info(
            "webhook attempt",
            delivery=delivery.delivery, lane=delivery.lane, attempt=attempt, status=result.response_status,
            error=result.error, outcome=result.outcome.value if result.pause_ms is None else "again",
            pause_ms=result.pause_ms, recorded=taken,
        )  # fmt: skip

    async def _answer(self, delivery: Delivery, endpoint: Endpoint) -> Answer:
        """Sign, as of now, and send."""
        now_ms = await self._broker.now_ms()
        secrets = [endpoint.secret, *(endpoint.old_secrets if now_ms < endpoint.old_until_ms else ())]
        body = delivery.body.encode()
        headers = {
            "content-type": "application/json",
            **signed_headers(delivery.delivery, now_ms // 1000, body, secrets),
        }
        if self._over:
            raise BrokenOff
        timeout_s = self._settings.webhook_timeout_ms / 1000
        sending = asyncio.create_task(self._egress.post(delivery.url, body, headers, timeout_s))
        self._sending.add(sending)
        try:
            return await sending
        except asyncio.CancelledError:
            if self._over:
                raise BrokenOff from None
            raise
        finally:
            self._sending.discard(sending)

    async def _recorded(self, result: Attempted) -> bool:
        for _ in range(RECORD_TRIES - 1):
            try:
                return await self.deliveries.attempted(result)
            except RedisUnavailable:
                await asyncio.sleep(RECORD_PAUSE_S)
        return await self.deliveries.attempted(result)


def _slices(answered: Sequence[Answered]) -> Iterator[list[Answered]]:
    """In order, each small enough for one call of the script."""
    some: list[Answered] = []
    size = 0
    for entry, new in answered:
        length = len(new.body) if new else 0
        if some and size + length > ANSWER_BYTES:
            yield some
            some, size = [], 0
        some.append((entry, new))
        size += length
    if some:
        yield some
