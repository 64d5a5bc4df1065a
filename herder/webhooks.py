"""What a webhook says, and what an attempt to deliver it comes to. Pure: from records to bytes and back to a verdict.

A body is always below BODY_BYTES_MAX: what is too long is cut off, and the link leads to the whole. Knows no Redis, no
network and no signature.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from herder.api.batch_shapes import Batch, batch_fields
from herder.api.shapes import Job
from herder.api.shown import job_fields
from herder.batch_records import BatchRecord
from herder.egress import RETRY_AFTER_S_MAX, Answer
from herder.protocol import JobRecord
from herder.webhook_records import Attempted, Delivery, DeliveryStatus, Endpoint

BODY_BYTES_MAX = 20_000  # the first size that is too large
JITTER = 0.1
GONE = 410

Event = dict[str, Any]


def delivery_id(subject: str) -> str:
    """The webhook-id for the end of a job or a batch: `msg_` and what follows the prefix of its own id."""
    return "msg_" + subject.partition("_")[2]


def link_to(public_url: str, subject: str) -> str:
    """Where the job or batch can be read; only the path where the herd does not know its own address."""
    kind = "batches" if subject.startswith("batch_") else "jobs"
    return f"{public_url.rstrip('/')}/v1/{kind}/{subject}"


def body_of_job(record: JobRecord, link: str) -> bytes:
    """The job as `GET /v1/jobs/{id}` shows it, with `url` and `truncated`.

    Too large, it loses its choices, its output (the text once more) and log-probabilities, then the end of its text,
    then its metadata, then the end of its error's message.
    """
    shown = Job.model_validate(job_fields(record, None, None)).model_dump(mode="json")
    shown |= {"url": link, "truncated": False}
    event = _event(f"job.{record.status.value}", record.ended_ms, shown)
    if _fits(event):
        return _bytes(event)
    shown["truncated"] = True
    if shown["result"] is not None:
        shown["result"] |= {"logprobs": None, "choices": [], "output": None}
        if _fits(event):
            return _bytes(event)
    if shown["result"] is not None and _cut(event, shown["result"], "text"):
        return _bytes(event)
    shown["metadata"] = {}
    if shown["error"] is not None and not _cut(event, shown["error"], "message"):
        shown["error"]["message"] = ""
    if shown["result"] is not None:
        _cut(event, shown["result"], "text")
    return _bytes(event)


def body_of_lost(kind: str, subject: str, status: str, at_ms: int, link: str) -> bytes:
    """The end of a job or a batch whose record is no longer kept: that it ended, and how."""
    shown = {"id": subject, "status": status, "ended_ms": at_ms, "url": link, "truncated": True}
    return _bytes(_event(kind, at_ms, shown))


def body_of_batch(record: BatchRecord, link: str) -> bytes:
    """The ended batch as `GET /v1/batches/{id}` shows it, with `url`; metadata that is too large is left out."""
    shown = Batch.model_validate(batch_fields(record, None)).model_dump(mode="json")
    shown["url"] = link
    event = _event("batch.ended", record.ended_ms, shown)
    if not _fits(event):
        shown["metadata"] = {}
    return _bytes(event)


def judged(
    delivery: Delivery,
    answer: Answer,
    schedule_s: tuple[float, ...],
    jitter: Callable[[float, float], float],
) -> Attempted:
    """What one attempt came to. `jitter` gives a number between two others.

    Only 2xx is success; 410 is the end, and of the endpoint too. Everything else is tried again after the schedule's
    next pause, or as late as the receiver asks, until the schedule is over. Also what our own guard refused: names
    move, and the operator may allow an address that was forgotten.
    """
    status = answer.status
    if status is not None and 200 <= status < 300:
        return Attempted(
            delivery.delivery, delivery.attempt, DeliveryStatus.DELIVERED, response_status=status
        )
    error = answer.error or _what_is_wrong(status)
    pause_s = _pause_s(delivery.tries + 1, answer, schedule_s, jitter)
    return Attempted(
        delivery.delivery,
        delivery.attempt,
        DeliveryStatus.DEAD,
        pause_ms=None if status == GONE or pause_s is None else round(pause_s * 1000),
        response_status=status,
        error=error,
        disable="the receiver answered 410 Gone" if status == GONE else None,
    )


def undeliverable(delivery: Delivery, endpoint: Endpoint | None) -> Attempted | None:
    """The end of a delivery whose endpoint is off or gone; None where it may go on."""
    if endpoint is not None and endpoint.account == delivery.account and not endpoint.disabled_ms:
        return None
    why = "its endpoint was deleted"
    if endpoint is not None:
        why = f"its endpoint is disabled: {endpoint.disabled_why}".removesuffix(": ")
    return Attempted(delivery.delivery, delivery.attempt, DeliveryStatus.DEAD, error=why)


def _pause_s(
    tries: int, answer: Answer, schedule_s: tuple[float, ...], jitter: Callable[[float, float], float]
) -> float | None:
    """How long until the next attempt, after so many; None after the last."""
    if tries >= len(schedule_s):
        return None
    pause_s = schedule_s[tries] * jitter(1 - JITTER, 1 + JITTER)
    return max(pause_s, min(answer.retry_after_s or 0.0, RETRY_AFTER_S_MAX))


def _what_is_wrong(status: int | None) -> str:
    if status == GONE:
        return f"answered {status} Gone, which has disabled its endpoint: enable that, then deliver again"
    if status is not None and 300 <= status < 400:
        return f"answered {status}: a redirect is not followed, name the address that it leads to"
    return f"answered {status}: only 2xx counts"


def _event(kind: str, at_ms: int | None, shown: dict[str, Any]) -> Event:
    at = datetime.fromtimestamp((at_ms or 0) / 1000, UTC).isoformat(timespec="milliseconds")
    return {"type": kind, "timestamp": at.replace("+00:00", "Z"), "data": shown}


def _bytes(event: Event) -> bytes:
    return json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode()


def _fits(event: Event) -> bool:
    return len(_bytes(event)) < BODY_BYTES_MAX


def _cut(event: Event, holder: dict[str, Any], name: str) -> bool:
    """Cut a text of the event to its longest beginning that fits, found by halving; False where not even none does."""
    text, least, most = holder[name], 0, len(holder[name])
    while least < most:
        middle = (least + most + 1) // 2
        holder[name] = text[:middle]
        least, most = (middle, most) if _fits(event) else (least, middle - 1)
    holder[name] = text[:least]
    fits = _fits(event)
    if not fits:
        holder[name] = text  # what is in the way is elsewhere
    return fits
