"""What webhooks say, from the records of what they tell of: made with a delivery's first attempt, and then kept.

Not before: a settlement waits for whatever Redis and the machine are at, and most of the work of a webhook is its body.
But before the record goes that it is made from, whoever has not been asked by then.
"""

from __future__ import annotations

from collections.abc import Sequence

from herder.ao import body_of_answer
from herder.batches import Batches
from herder.broker import Broker
from herder.deliveries import Deliveries
from herder.errors import Unavailable
from herder.logs import get_logger
from herder.reads import job_record
from herder.webhook_records import Delivery, delivery_record
from herder.webhooks import body_of_batch, body_of_job, body_of_lost, link_to

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
        (body,) = await self._made([delivery])
        return body

    async def write_ahead(self, limit: int) -> int:
        """Write what cannot wait longer for its first attempt, the most urgent first; how many were looked at."""
        names = await self._deliveries.unwritten(await self._broker.now_ms(), limit)
        if not names:
            return 0
        hashes = await self._broker.hashes_of([("delivery", name) for name in names])
        found = [_readable(name, fields) for name, fields in zip(names, hashes, strict=True)]
        bodies = dict.fromkeys(names, "")
        known = [delivery for delivery in found if delivery is not None]
        bodies |= zip((delivery.delivery for delivery in known), await self._made(known), strict=True)
        await self._deliveries.write(list(bodies.items()))
        return len(names)

    async def _made(self, deliveries: Sequence[Delivery]) -> list[str]:
        # A batch has no record under the key of a job; its own is read where it is needed.
        jobs = await self._broker.hashes_of([("job", delivery.subject) for delivery in deliveries])
        return [await self._body(d, job) for d, job in zip(deliveries, jobs, strict=True)]

    async def _body(self, delivery: Delivery, job: dict[str, str]) -> str:
        subject, kind = delivery.subject, delivery.type
        link = link_to(self._broker.settings.public_url, subject)
        body = None
        try:
            if job:
                record = job_record(subject, job)
                # Its own address is that of the message, which is answered with a message; another hears of a job.
                told = body_of_answer if record.ao is not None and record.webhook_url else body_of_job
                body = told(record, link)
            elif subject.startswith("batch_"):
                batch = await Batches(self._broker).batch(subject)
                body = body_of_batch(batch, link) if batch is not None else None
        except Unavailable:
            raise
        except Exception:
            # Nobody's webhook may wait for a record that cannot be read.
            log.exception("a webhook's body could not be made", subject=subject)
        if body is None:
            body = body_of_lost(kind, subject, kind.partition(".")[2], delivery.at_ms, link)
        return body.decode()


def _readable(name: str, fields: dict[str, str]) -> Delivery | None:
    """A delivery; None of one that is not there, or is damaged: nobody's webhook may wait for it."""
    try:
        return delivery_record(name, fields) if fields else None
    except (KeyError, ValueError):
        log.exception("a delivery could not be read", delivery=name)
        return None
