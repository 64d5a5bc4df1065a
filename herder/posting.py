"""The way of a webhook through the courier: from the callback queue to a delivery, and one attempt at its receiver.

What is said and what an answer means is in `webhooks`; what is kept, in `deliveries`. Knows no arq.
"""

from __future__ import annotations

import asyncio
import random

from herder.bodies import Bodies
from herder.broker import Broker
from herder.deliveries import Deliveries
from herder.egress import Answer, Egress
from herder.errors import RedisUnavailable
from herder.logs import get_logger
from herder.signatures import signed_headers
from herder.webhook_records import Attempted, Delivery, DeliveryStatus, Endpoint, NewDelivery, lane_of
from herder.webhooks import delivery_id, judged, undeliverable

RECORD_TRIES = 3
RECORD_PAUSE_S = 0.5

log = get_logger(__name__)


class BrokenOff(Exception):
    """The courier stops, and so did an attempt, in the middle; nothing is recorded of it."""


class Posting:
    """Both halves, on a broker and a door to the outside."""

    def __init__(self, broker: Broker, egress: Egress) -> None:
        self._broker = broker
        self._egress = egress
        self._settings = broker.settings
        self.deliveries = Deliveries(broker)
        self.bodies = Bodies(broker, self.deliveries)
        self._sending: set[asyncio.Task[Answer]] = set()
        self._over = False

    def break_off(self) -> None:
        """End what is being sent, and send nothing more: the courier stops."""
        self._over = True
        for sending in self._sending:
            sending.cancel()

    # --- callbacks ---------------------------------------------------------------------------------------

    async def collect(self, limit: int) -> int:
        """Take the oldest callbacks off their queue, posting what somebody wants to hear of; how many were taken."""
        callbacks = await self._broker.callbacks(limit)
        await self.deliveries.answer([(entry, _delivery_of(fields)) for entry, fields in callbacks])
        return len(callbacks)

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
        body = ""
        if result is None:
            assert endpoint is not None
            body = delivery.body or await self.bodies.of(delivery)
            answer = await self._answer(delivery, body.encode(), endpoint)
            result = judged(delivery, answer, self._settings.webhook_schedule_s, random.uniform)
        taken = await self._recorded(result, "" if delivery.body else body)
        log.info(
            "webhook attempt",
            delivery=delivery.delivery, lane=delivery.lane, attempt=attempt, status=result.response_status,
            error=result.error, outcome=result.outcome.value if result.pause_ms is None else "again",
            pause_ms=result.pause_ms, recorded=taken,
        )  # fmt: skip

    async def _answer(self, delivery: Delivery, body: bytes, endpoint: Endpoint) -> Answer:
        """Sign, as of now, and send."""
        now_ms = await self._broker.now_ms()
        secrets = [endpoint.secret, *(endpoint.old_secrets if now_ms < endpoint.old_until_ms else ())]
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

    async def _recorded(self, result: Attempted, body: str) -> bool:
        for _ in range(RECORD_TRIES - 1):
            try:
                return await self.deliveries.attempted(result, body)
            except RedisUnavailable:
                await asyncio.sleep(RECORD_PAUSE_S)
        return await self.deliveries.attempted(result, body)


def _delivery_of(callback: dict[str, str]) -> NewDelivery | None:
    """The delivery of a callback that somebody wants to hear of."""
    if "webhook_url" not in callback:
        return None
    account, url, endpoint = callback["account"], callback["webhook_url"], callback["endpoint"]
    subject = callback.get("job") or callback["batch"]
    return NewDelivery(
        id=delivery_id(subject),
        account=account,
        endpoint=endpoint,
        url=url,
        lane=lane_of(account, url, endpoint),
        type=f"{'job' if 'job' in callback else 'batch'}.{callback['status']}",
        subject=subject,
        at_ms=int(callback["at"]),
    )
