"""AO messages that the herd sends: what the original herder's contract says in its answers. Pure.

From a job's record to a message and its bytes. Knows no HTTP; how messages come in is `dialects.ao`'s business.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from herder.api.shapes import Result
from herder.api.shown import job_fields
from herder.lifecycle import LIVE, Status
from herder.protocol import JobRecord
from herder.webhooks import BODY_BYTES_MAX

HERDER = "llama-herder"  # who the messages are from
REASON_CHARS_MAX = 500
CUT_TO = 0.9  # of its length, again and again, until a text fits

Message = dict[str, Any]


def message(target: str, action: str, tags: Mapping[str, str], text: str = "") -> Message:
    """A message as an AO process gets it: its tags as fields, and as a list of `{name, value}`."""
    told = {"Action": action, **tags}
    listed = [{"name": name, "value": value} for name, value in told.items()]
    return {"From": HERDER, "Target": target, **told, "Data": text, "Tags": listed}


def underpaid(account: str, quantity: int, needed: int, reference: str) -> Message:
    """The refund of what did not suffice. It never left the payer, so there is nothing to be sent back."""
    tags = {
        "Recipient": account,
        "Quantity": str(quantity),
        "X-Reason": "Insufficient payment",
        "X-Needed": str(needed),
    }
    return message(account, "Transfer", tags | _reference(reference))


def answer_of(record: JobRecord) -> Message | None:
    """`Inference-Response` of a job that has succeeded, `Transfer` of one that was refunded; None while it is live."""
    if record.status in LIVE:
        return None
    named = _reference(record.ao or "") | {"X-Job": record.job_id}
    if record.status is Status.SUCCEEDED:
        result = job_fields(record, None, None)["result"]
        assert isinstance(result, Result)
        paid = {"X-Fee": str(record.captured or 0), "X-Refunded": str(record.refunded or 0)}
        return message(record.account, "Inference-Response", named | paid, result.text)
    back = {
        "Recipient": record.account,
        "Quantity": str(record.refunded or 0),
        "X-Reason": (record.error_message or f"The job was {record.status.value}")[:REASON_CHARS_MAX],
    }
    return message(record.account, "Transfer", back | named)


def body_of_answer(record: JobRecord, link: str) -> bytes:
    """The answer as it is posted, below BODY_BYTES_MAX: of what is too long the end is cut off, and `X-Url` leads to
    the whole."""
    told = answer_of(record)
    assert told is not None
    body = _bytes(told)
    text = told["Data"]
    while len(body) >= BODY_BYTES_MAX and text:
        text = text[: int(len(text) * CUT_TO)]
        tags = {each["name"]: each["value"] for each in told["Tags"] if each["name"] != "Action"}
        tags |= {"X-Truncated": "true", "X-Url": link}
        body = _bytes(message(told["Target"], told["Action"], tags, text))
    return body


def _reference(reference: str) -> dict[str, str]:
    return {"X-Reference": reference} if reference else {}


def _bytes(told: Message) -> bytes:
    return json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode()
