"""The caller's own job, and a job as it is shown with what only matters while it is queued. Reads only."""

from __future__ import annotations

import asyncio
import re
from typing import Any

from herder.api.shown import job_fields
from herder.api.state import Herd
from herder.api.submission import warning_of
from herder.errors import NotFound
from herder.lifecycle import Status
from herder.protocol import JobRecord
from herder.records import KeyRecord

_JOB_ID = re.compile(r"job_[0-9A-Za-z]{1,64}", re.ASCII)


def checked(job_id: str) -> None:
    """Raises NotFound for what is no id of a job."""
    if not _JOB_ID.fullmatch(job_id):
        raise NotFound("no such job: an id is `job_` and letters and digits")


async def own(herd: Herd, key: KeyRecord, job_id: str) -> JobRecord:
    """The caller's job; another account's is as absent as one that never was. Raises NotFound."""
    checked(job_id)
    record = await herd.broker.job(job_id)
    if record is None or record.account != key.account:
        raise NotFound(f"no job {job_id} in this account")
    return record


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
    return job_fields(record, place, warning_of(state))
