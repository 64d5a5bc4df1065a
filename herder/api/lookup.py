"""What is the caller's own, and a job as it is shown with what only matters while it is queued. Reads only."""

from __future__ import annotations

import asyncio
import re
from typing import Any, TypeVar

from herder.api.shown import job_fields
from herder.api.state import Herd
from herder.api.submission import warning_of
from herder.batch_records import BatchRecord
from herder.errors import NotFound
from herder.lifecycle import Status
from herder.protocol import JobRecord
from herder.records import KeyRecord
from herder.webhook_records import Delivery, Endpoint

R = TypeVar("R", JobRecord, BatchRecord, Endpoint, Delivery)


def checked(given: str, what: str, prefix: str, chars_max: int = 64) -> None:
    """Raises NotFound for what is no id of such a thing."""
    if not re.fullmatch(rf"{prefix}_[0-9A-Za-z]{{1,{chars_max}}}", given, re.ASCII):
        raise NotFound(f"no such {what}: an id is `{prefix}_` and letters and digits")


def owned(record: R | None, key: KeyRecord, what: str) -> R:
    """What was read, if it is the caller's; another account's is as absent as one that never was. Raises NotFound."""
    if record is None or record.account != key.account:
        raise NotFound(f"no {what} in this account")
    return record


async def own(herd: Herd, key: KeyRecord, job_id: str) -> JobRecord:
    """The caller's job. Raises NotFound."""
    checked(job_id, "job", "job")
    return owned(await herd.broker.job(job_id), key, f"job {job_id}")


async def position_of(herd: Herd, record: JobRecord) -> int | None:
    """How many stand before it, while it is queued."""
    if record.status is not Status.QUEUED:
        return None
    return await herd.broker.position(record.model, record.job_id)


async def fields_of(herd: Herd, record: JobRecord) -> dict[str, Any]:
    """The fields of `Job`."""
    if record.status is not Status.QUEUED:
        return job_fields(record, None, None)
    place, state = await asyncio.gather(position_of(herd, record), herd.market.state(record.model))
    return job_fields(record, place, warning_of(state, record.n))
