"""How a stream says what happens to its job: in the events of `/v1/jobs`, or in whatever form a dialect has. Pure.

A stream has one teller, which may remember what it has said. What is told and when is `stream`'s business.
"""

from __future__ import annotations

from typing import Protocol

from herder.api.frames import PING, RETRY, frame, tokens_frame
from herder.api.shapes import Job
from herder.api.shown import job_fields
from herder.lifecycle import Status
from herder.protocol import Event, EventKind, JobRecord


class Teller(Protocol):
    """What is to be sent for each thing that a stream has to say; nothing where a form has no words for it."""

    @property
    def opening(self) -> bytes:
        """Before anything else."""
        ...

    @property
    def ping(self) -> bytes:
        """When nothing has been said for long."""
        ...

    @property
    def over(self) -> bool:
        """Whether it can say nothing more, though the job goes on."""
        ...

    def queued(self, job_id: str, position: int, eta_ms: int | None, event_id: str | None) -> bytes:
        """Where the job stands in line."""
        ...

    def tokens(self, event_id: str, fields: dict[str, str], reasoning: str = "") -> bytes:
        """A piece of an answer: the fields of the log, `text` without what is `reasoning`."""
        ...

    def begun(self, kind: EventKind, attempt: int, event_id: str) -> bytes:
        """An attempt: `started`, or `restarted`, after which the answer begins again."""
        ...

    def last(self, event: Event, record: JobRecord | None) -> bytes:
        """The job has ended; its record may have expired this instant."""
        ...

    def stopped(self) -> bytes:
        """The herder stops, and the job has not ended."""
        ...


class EventTeller:
    """The events of `/v1/jobs/{id}/events`. Remembers nothing, so that any herder goes on where another ended."""

    opening = RETRY
    ping = PING
    over = False

    def queued(self, job_id: str, position: int, eta_ms: int | None, event_id: str | None) -> bytes:
        """Where the job stands in line."""
        return frame("queued", {"job_id": job_id, "position": position, "eta_ms": eta_ms}, event_id)

    def tokens(self, event_id: str, fields: dict[str, str], reasoning: str = "") -> bytes:
        """A piece of an answer."""
        return tokens_frame(event_id, fields, reasoning)

    def begun(self, kind: EventKind, attempt: int, event_id: str) -> bytes:
        """An attempt."""
        return frame(kind.value, {"attempt": attempt}, event_id)

    def last(self, event: Event, record: JobRecord | None) -> bytes:
        """`done` or `error`: the job as it is read. A record that expired this instant is not said, and cannot be."""
        if record is None:
            return b""
        job = Job.model_validate(job_fields(record, None, None))
        kind = "error" if record.status is Status.FAILED else "done"
        return frame(kind, job.model_dump(mode="json"), event.event_id)

    def stopped(self) -> bytes:
        """Nothing: whoever reads comes back to another herder."""
        return b""


EVENTS = EventTeller()
