"""AO messages over HTTP: the contract of the original herder, on the same jobs, keys and ledger.

The sender is the key's account, whatever a message says in `From` or `Sender`; so a `Credit-Notice` brings no credits,
it pays with those that the account has. How messages read is `ao_messages`; what is answered, `herder.ao`.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse
from pydantic import Field

from herder.ao import answer_of, message, underpaid
from herder.api import info
from herder.api.bodies import JobRequest
from herder.api.callers import Caller
from herder.api.parameters import Cursor, Limit
from herder.api.purchase import record_of, replayed, submitted
from herder.api.reading import validated
from herder.api.state import Herd, herd_of
from herder.api.strict import Text
from herder.api.submission import request_hash
from herder.dialects.ao_init import initialized
from herder.dialects.ao_messages import Sent, sent_in
from herder.dialects.asking import model_named, object_of
from herder.dialects.attended import Bought, known, renamed
from herder.errors import FeeTooLow, InvalidRequest
from herder.records import KeyRecord

REFERENCE_CHARS_MAX = 512
LOOKS_MAX = 20  # pages of jobs that one page of answers is looked for in
NAMES = {
    "prompt": "X-Prompt", "tokens": "X-Tokens", "fee": "Quantity", "stop": "X-Termination", "model": "X-Model",
    "reference": "X-Reference", "webhook_url": "reply_url",
}  # fmt: skip

router = APIRouter(prefix="/ao", tags=["ao"])


class Paid(JobRequest):
    """The prompt of a message. The same one again, with its reference, is the same job."""

    reference: Annotated[Text, Field(max_length=REFERENCE_CHARS_MAX)] | None = None

    @property
    def ao_reference(self) -> str:
        """What the answer refers to."""
        return self.reference or ""


@router.post("/messages", include_in_schema=False)
async def send(request: Request, key: Caller) -> JSONResponse:
    """Act on a message; `{"messages": […]}` has what is answered at once."""
    sent = sent_in(await object_of(request))
    action = sent.text("Action").strip().lower()
    if action == "info":
        return JSONResponse({"messages": [await _info(request, key)]})
    if action in ("transfer", "credit-notice"):
        return await _bought(request, key, sent)
    if action == "init":
        return await initialized(request, key, sent)
    problem = "must be Info, Transfer, Credit-Notice or (with an admin key) Init"
    raise InvalidRequest(f"Action: {problem}", errors=[{"field": "Action", "message": problem}])


@router.get("/messages", include_in_schema=False)
async def received(
    request: Request,
    key: Caller,
    limit: Limit = 20,
    cursor: Cursor = None,
    reference: Annotated[str | None, Query(alias="for")] = None,
) -> JSONResponse:
    """The answers to the account's messages, newest first, or to those of one reference. A page may be short and have
    a `next`."""
    herd = herd_of(request)
    messages: list[dict[str, Any]] = []
    for _ in range(LOOKS_MAX):
        records, cursor = await herd.broker.jobs(key.account, before=cursor, limit=limit, listed="account_ao")
        ours = [each for each in records if reference in (None, each.ao)]
        messages = [told for each in ours if (told := answer_of(each)) is not None]
        if messages or cursor is None:
            break
    return JSONResponse({"messages": messages, "next": cursor})


async def _info(request: Request, key: KeyRecord) -> dict[str, Any]:
    herd = await info.info(request)
    tags = {
        "Name": herd.name,
        "Version": herd.version,
        "Base-Fee": str(herd.set_prompt_fee),
        "Token-Fee": str(herd.fee_per_token),
        "Last-Multiplier": f"{herd.last_multiplier:g}",
        "Queue-Length": str(herd.queue_length),
    }
    served = ", ".join(herd.models)[:500] or "none yet"
    return message(
        key.account, "Info-Response", tags, f"A herd of llama.cpp workers behind HTTP. Models: {served}"
    )


async def _bought(request: Request, key: KeyRecord, sent: Sent) -> JSONResponse:
    """The prompt of a message becomes a job; what is there of its answer already is told."""
    herd = herd_of(request)
    fields = {
        "prompt": sent.text("X-Prompt"),
        "tokens": sent.number("X-Tokens"),
        "fee": sent.number("Quantity"),
        "stop": sent.text_or_none("X-Termination") or None,
        "model": await model_named(herd, sent.text_or_none("X-Model")),
        "reference": sent.text_or_none("X-Reference") or None,
        "webhook_url": sent.text_or_none("reply_url") or None,
    }
    given = {name: value for name, value in fields.items() if value is not None}
    try:
        sold = await _sold(request, herd, key, validated(Paid, given, herd.settings))
    except InvalidRequest as error:
        renamed(error, NAMES)
    except FeeTooLow as error:
        reference = sent.text_or_none("X-Reference") or ""
        told = underpaid(key.account, sent.number("Quantity"), error.extra["needed"], reference)
        return JSONResponse({"messages": [told]})
    told_now = answer_of(sold.record)
    answer = {"messages": [told_now] if told_now is not None else [], "job_id": sold.record.job_id}
    return JSONResponse(answer, 202 if told_now is None else 200, sold.headers)


async def _sold(request: Request, herd: Herd, key: KeyRecord, body: Paid) -> Bought:
    """Once for a reference: it counts with what was asked, since many clients count from 0 at each start."""
    again = request.headers.get("idempotency-key")
    if again is None and body.reference is not None:
        again = f"ao {request_hash(body)}"  # no header can say that: it has a space
    accepted = await replayed(herd, key, body, again)
    if accepted is None:
        accepted, _, ask = await submitted(herd, key, body, again)
        if accepted.available is not None:
            return Bought(record_of(ask, accepted), accepted.available)
    return await known(request, key, accepted.job_id)
