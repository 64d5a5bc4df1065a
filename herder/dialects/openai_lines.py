"""The lines of OpenAI's batches: of an input file, each a request, and of an output file, each with an answer.

From bytes to items of `/v1/batches` and from records to bytes; every fault is named by its line. Buys nothing.
"""

from __future__ import annotations

import asyncio
import io
import json
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from herder.api.batch_bodies import CUSTOM_ID_CHARS_MAX
from herder.api.batch_reading import SLICE
from herder.api.faults import Faults
from herder.api.problems import told
from herder.api.reading import object_in, validated
from herder.api.state import Herd
from herder.api.submission import model_of
from herder.dialects.asking import model_named, tier_multiplier
from herder.dialects.attended import failure_of
from herder.dialects.openai_answers import Manner, as_json, chat_answer, completion_answer
from herder.dialects.openai_bodies import (
    CHAT_NAMES,
    COMPLETION_NAMES,
    ChatBody,
    CompletionBody,
    OpenAIBody,
    chat_fields,
    completion_fields,
    prompts_of,
)
from herder.dialects.openai_tools import wrong
from herder.errors import BadRequest, InvalidRequest
from herder.lifecycle import Status
from herder.protocol import JobRecord
from herder.settings import Settings

CHAT, COMPLETION = "/v1/chat/completions", "/v1/completions"
ENDPOINTS = (CHAT, COMPLETION)
# Of the line itself; everything else that can be wrong is in its `body`.
_OF_LINE = ("", "custom_id", "method", "url", "body")
_BOM = b"\xef\xbb\xbf"


class Line(BaseModel):
    """One line of an input file."""

    model_config = ConfigDict(extra="ignore", strict=True)

    custom_id: str = Field(min_length=1, max_length=CUSTOM_ID_CHARS_MAX)
    method: Literal["POST"] = "POST"
    url: str
    body: Any = None


class Asked(BaseModel):
    """What the record of a batch keeps of what was asked for."""

    input_file_id: str
    endpoint: str
    completion_window: str


@dataclass
class Requests:
    """What a file asks for: items, each with its line; how their answers are told where that is not the usual way.

    `fit`: of one no length is named, and it is as long as fits.
    """

    items: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    manners: dict[str, str] = field(default_factory=dict)
    fit: bool = False


async def requests_in(herd: Herd, text: bytes, endpoint: str) -> Requests:
    """The requests of a file, read some between two turns of the event loop. Raises InvalidRequest, UnknownModel."""
    found, faults, settings = Requests(), Faults(), herd.settings
    most = settings.batch_upload_items_max
    for number, row in enumerate(io.BytesIO(text.removeprefix(_BOM)), 1):
        if not row.strip():
            continue
        if len(found.items) >= most:
            raise _of_file(f"has more than HERDER_BATCH_UPLOAD_ITEMS_MAX, {most}, lines; make several of it")
        where = f"line {number}"
        try:
            line = validated(Line, object_in(row, "the line"), settings)
            if line.url != endpoint:
                raise wrong("url", f"must be the batch's endpoint, {endpoint}")
            if not isinstance(line.body, dict):
                raise wrong("body", "is required, and must be an object")
            found.items.append((where, await _item(herd, found, line)))
        except BadRequest as error:
            faults.add(where, "", error.detail)
        except InvalidRequest as error:
            faults.take(where, error)
        if faults.many:
            break
        if number % SLICE == 0:
            await asyncio.sleep(0)
    faults.refuse()
    if not found.items:
        raise _of_file("has no lines: a batch has at least one request")
    return found


def _of_file(problem: str) -> InvalidRequest:
    return wrong("input_file_id", f"the file {problem}")


async def _item(herd: Herd, found: Requests, line: Line) -> dict[str, Any]:
    """The item of a line. Raises InvalidRequest, UnknownModel."""
    body, fields, names = await (_chat if line.url == CHAT else _completion)(herd, line.body)
    if body.stream:
        raise wrong("stream", "is not for a batch: its answers come in a file")
    if fields.get("tokens") is None:
        found.fit = True
        fields["tokens"] = min(herd.settings.tokens_default, herd.settings.tokens_max)
    model = await model_named(herd, body.model)
    item = {name: value for name, value in fields.items() if value is not None} | {
        "custom_id": line.custom_id
    }
    item |= _bid(herd.settings, body)
    if names or body.tier != "default":
        found.manners[line.custom_id] = json.dumps({"tier": body.tier, "names": names})
    return item | ({"model": model} if model is not None else {})


async def _chat(herd: Herd, given: dict[str, Any]) -> tuple[OpenAIBody, dict[str, Any], tuple[str, ...]]:
    body = validated(ChatBody, given, herd.settings)
    state = await model_of(herd, await model_named(herd, body.model))
    fields, box = chat_fields(body, state.card.template)
    return body, fields, box.names


async def _completion(
    herd: Herd, given: dict[str, Any]
) -> tuple[OpenAIBody, dict[str, Any], tuple[str, ...]]:
    body = validated(CompletionBody, given, herd.settings)
    if body.echo:
        raise wrong("echo", "is not for a batch: the prompt is not kept so long")
    prompts = prompts_of(body.prompt)
    if len(prompts) > 1 or not isinstance(prompts[0], str):
        raise wrong("prompt", "must be one text; write a line for each")
    return body, completion_fields(body) | {"prompt": prompts[0]}, ()


def _bid(settings: Settings, body: OpenAIBody) -> dict[str, Any]:
    """What a line offers for itself."""
    bid = {"multiplier": body.multiplier, "fee": body.fee, "max_fee": body.max_fee}
    if body.multiplier is None and body.service_tier not in (None, "auto", "default"):
        bid["multiplier"] = tier_multiplier(settings, body.service_tier)
    return {name: value for name, value in bid.items() if value is not None}


def in_their_words(error: InvalidRequest, endpoint: str) -> InvalidRequest:
    """The same error, of the fields that stand in the file: `line 3: body.max_tokens`."""
    names = CHAT_NAMES if endpoint == CHAT else COMPLETION_NAMES
    found = []
    for fault in error.extra.get("errors") or []:
        where, _, path = fault["field"].partition(": ")
        first, dot, rest = path.partition(".")
        inside = where.startswith("line ") and first not in _OF_LINE
        name = f"{where}: body.{names.get(first, first)}{dot}{rest}" if inside else fault["field"]
        found.append({**fault, "field": name})
    return InvalidRequest(told(found) if found else error.detail, **{**error.extra, "errors": found})


# --- what comes of them ------------------------------------------------------------------------------------------


def line_of(job: JobRecord, endpoint: str) -> bytes:
    """An item that has ended, as a line of the output file, or of that of errors."""
    told_so: dict[str, Any] = {
        "id": "batch_req_" + job.job_id.removeprefix("job_"),
        "custom_id": job.custom_id,
        "response": None,
        "error": None,
    }
    if job.status is Status.SUCCEEDED:
        manner = _manner(job)
        body = chat_answer(job, manner) if endpoint == CHAT else completion_answer([job], [manner])
        told_so["response"] = {"status_code": 200, "request_id": job.job_id, "body": body}
    else:
        failed = failure_of(job)
        code = "batch_cancelled" if job.status is Status.CANCELLED else job.error_code or job.status.value
        told_so["error"] = {"code": code, "message": failed.detail if failed is not None else ""}
    return as_json(told_so) + b"\n"


def _manner(job: JobRecord) -> Manner:
    kept = json.loads(job.manner) if job.manner is not None else {}
    return Manner(kept.get("tier", "default"), tuple(kept.get("names", ())))
