"""What webhooks say, from the records of what they tell of: made with a delivery's first attempt, and then kept.

Not before: a settlement waits for whatever Redis and the machine are at, and most of the work of a webhook is its body.
But before the record goes that it is made from, whoever has not been asked by then.
"""

from __future__ import annotations

from herder.batches import Batches
from herder.broker import Broker
from herder.deliveries import Deliveries
from herder.logs import get_logger
from herder.reads import job_record
from herder.webhook_records import Delivery
from herder.webhooks import body_of_batch, body_of_job, body_of_lost, link_to

WRITTEN_A_ROUND = 50

log = get_logger(__name__)


class Bodies:
    """Makes them, and writes those that cannot wait for their first attempt."""

    def __init__(self, broker: Broker, deliveries: Deliveries) -> None:
        self._broker = broker
        self._deliveries = deliveries

    async def of(self, delivery: Delivery) -> str:
        """The body of a delivery that has none: the same each time, until the record of its subject goes.

        Raises RedisUnavailable.
        """
        subject, kind = delivery.subject, delivery.type
        link = link_to(self._broker.settings.public_url, subject)
        try:
            body = await self._made(subject, link)
        except (KeyError, ValueError, TypeError):
            # Nobody's webhook may wait for a record that cannot be read.
            log.exception("a webhook's body could not be made", subject=subject)
            body = None
        if body is None:
            body = body_of_lost(kind, subject, kind.partition(".")[2], delivery.at_ms, link)
        return body.decode()

    async def _made(self, subject: str, link: str) -> bytes | None:
        """What there is to say; None of what is no longer kept."""
        if subject.startswith("batch_"):
            batch = await Batches(self._broker).batch(subject)
            return None if batch is None else body_of_batch(batch, link)
        job = await self._broker.hash_of("job", subject)
        return body_of_job(job_record(subject, job), link) if job else None

    async def write_ahead(self) -> int:
        """Write what has waited half as long as its subject is kept, oldest first; how many were looked at."""
        before_ms = await self._broker.now_ms() - self._broker.settings.result_ttl_ms // 2
        waiting = await self._deliveries.unwritten(before_ms, WRITTEN_A_ROUND)
        for name in waiting:
            try:
                delivery = await self._deliveries.delivery(name)
            except (KeyError, ValueError, TypeError):
                log.exception("a delivery could not be read", delivery=name)
                delivery = None
            await self._deliveries.write(name, await self.of(delivery) if delivery else "")
        return len(waiting)
