"""`/v1/files` as OpenAI's clients use it: the input files of batches, kept for a time, and what comes of these batches.

The output of a batch is no file that is kept: it is written when it is read, from the results, in the order of the
input.
"""

from __future__ import annotations

import contextlib
import re
import secrets
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import JSONResponse
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from herder.api.batch_results import PIECE_BYTES, CutOff, ResultsResponse
from herder.api.callers import BatchCaller, Caller
from herder.api.large_bodies import pieces, small_size
from herder.api.state import Herd, herd_of
from herder.apikeys import ALPHABET
from herder.batch_records import BatchRecord
from herder.dialects.many import records_of
from herder.dialects.openai_lines import Asked, line_of
from herder.dialects.openai_tools import wrong
from herder.errors import BadRequest, Conflict, NotFound, Overloaded
from herder.files import FileRecord, Files
from herder.lifecycle import Status
from herder.records import KeyRecord

BATCH, OUTPUT = "batch", "batch_output"
FILE_ID_CHARS = 22  # 131 bits
NAME_CHARS_MAX = 256
FIELDS_MAX = 8  # of a form, beside the file
FIELD_BYTES_MAX = 1_000
SECONDS_MIN, SECONDS_MAX = 3_600, 2_592_000  # of `expires_after`
_MADE = re.compile(r"file-(output|errors)-([0-9A-Za-z]{1,64})", re.ASCII)

router = APIRouter(prefix="/v1/files", include_in_schema=False)


@dataclass(frozen=True)
class _Output:
    """The output of a batch, or its errors."""

    file: str
    batch: BatchRecord
    errors: bool


def upload_id(given: str) -> str:
    """The id of a file that was left here. Raises NotFound for what is none."""
    if not re.fullmatch(rf"file-[0-9A-Za-z]{{{FILE_ID_CHARS}}}", given, re.ASCII):
        raise NotFound("no such file: an id is `file-` and letters and digits")
    return given


@router.post("")
async def upload(request: Request, key: BatchCaller) -> Response:
    """Keep a file for HERDER_RESULT_TTL_MS, or for as long as `expires_after` says, if that is shorter."""
    herd = herd_of(request)
    if herd.full:
        raise Overloaded("Redis is nearly full; try again later", retry_after=5)
    small = small_size(request, herd) is not None
    async with contextlib.nullcontext() if small else herd.large_body_soon(key.account):
        form = await _form(request, herd)
        try:
            return JSONResponse(_shown(await _kept(herd, key, form)))
        finally:
            await form.close()


async def _kept(herd: Herd, key: KeyRecord, form: FormData) -> FileRecord:
    text, name = await _file(form)
    ttl_ms = _ttl_ms(form, herd.settings.result_ttl_ms)
    file = "file-" + "".join(secrets.choice(ALPHABET) for _ in range(FILE_ID_CHARS))
    return await Files(herd.broker).keep(
        key.account, file, name=name, purpose=BATCH, text=text, ttl_ms=ttl_ms
    )


async def _form(request: Request, herd: Herd) -> FormData:
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise BadRequest("a file comes as multipart/form-data, with the fields `purpose` and `file`")
    parser = MultiPartParser(
        request.headers, pieces(request, herd), max_files=1, max_fields=FIELDS_MAX, max_part_size=FIELD_BYTES_MAX
    )  # fmt: skip
    try:
        return await parser.parse()
    except MultiPartException as error:
        raise BadRequest(f"the form cannot be read: {error.message}") from None
    except (KeyError, ValueError) as error:  # no boundary, no name of a field
        raise BadRequest(f"the form cannot be read: {error}"[:300]) from None


async def _file(form: FormData) -> tuple[bytes, str]:
    """What is in the file, and its name. Raises InvalidRequest."""
    if form.get("purpose") != BATCH:
        raise wrong("purpose", f"must be {BATCH}: files are for batches here")
    file = form.get("file")
    if not isinstance(file, UploadFile):
        raise wrong("file", "is required, a file of JSON lines")
    text = await file.read()
    if not text.strip():
        raise wrong("file", "is empty")
    return text, (file.filename or "file")[:NAME_CHARS_MAX]


def _ttl_ms(form: FormData, most_ms: int) -> int:
    given = form.get("expires_after[seconds]")
    if given is None:
        return most_ms
    if not isinstance(given, str) or not re.fullmatch("[0-9]{1,9}", given, re.ASCII):
        raise wrong("expires_after.seconds", "must be a whole number")
    if not SECONDS_MIN <= int(given) <= SECONDS_MAX:
        raise wrong("expires_after.seconds", f"must be {SECONDS_MIN} to {SECONDS_MAX}")
    return min(int(given) * 1000, most_ms)


@dataclass(frozen=True)
class _Page:
    """Which of the files are listed."""

    purpose: str | None = None
    after: str | None = None
    limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000
    order: str = "desc"


@router.get("")
async def listed(request: Request, key: Caller, page: Annotated[_Page, Depends()]) -> Response:
    """The account's files that are kept, newest first; the output of a batch is not among them, the batch names it."""
    found = await Files(herd_of(request).broker).files(key.account)
    found = [each for each in found if page.purpose in (None, each.purpose)]
    if page.order == "asc":
        found.reverse()
    ids = [each.file for each in found]
    start = ids.index(page.after) + 1 if page.after in ids else 0
    shown = [_shown(each) for each in found[start : start + page.limit]]
    return JSONResponse(
        {
            "object": "list",
            "data": shown,
            "has_more": start + page.limit < len(found),
            "first_id": shown[0]["id"] if shown else None,
            "last_id": shown[-1]["id"] if shown else None,
        }
    )


@router.get("/{file_id}")
async def read(request: Request, key: Caller, file_id: str) -> Response:
    """A file without what is in it."""
    herd = herd_of(request)
    output = await _output(herd, key, file_id)
    if output is None:
        return JSONResponse(_shown(await Files(herd.broker).file(key.account, upload_id(file_id))))
    try:
        with herd.streams.reserved():  # all of it is written for that
            size = sum([len(piece) async for piece in _lines(herd, output)])
    except CutOff:
        raise NotFound(f"file {file_id} is no longer kept") from None
    ended_ms = output.batch.ended_ms or 0
    kept = FileRecord(
        file_id, key.account, f"{output.batch.batch}_{'errors' if output.errors else 'output'}.jsonl", OUTPUT, size,
        ended_ms, ended_ms + herd.settings.result_ttl_ms,
    )  # fmt: skip
    return JSONResponse(_shown(kept))


@router.get("/{file_id}/content")
async def content(request: Request, key: Caller, file_id: str) -> Response:
    """What is in a file."""
    herd = herd_of(request)
    output = await _output(herd, key, file_id)
    if output is not None:
        with herd.streams.reserved():
            return ResultsResponse(request, herd, _lines(herd, output))
    files = Files(herd.broker)
    kept = await files.file(key.account, upload_id(file_id))
    with herd.streams.reserved():
        return ResultsResponse(request, herd, await files.pieces(kept.file))


@router.delete("/{file_id}")
async def delete(request: Request, key: Caller, file_id: str) -> Response:
    """Forget a file; what a batch has read of it stays with the batch."""
    herd = herd_of(request)
    if await _output(herd, key, file_id) is not None:
        raise Conflict(f"{file_id} is made of the results of its batch, and goes with them")
    await Files(herd.broker).discard(key.account, upload_id(file_id))
    return JSONResponse({"id": file_id, "object": "file", "deleted": True})


async def _output(herd: Herd, key: KeyRecord, file_id: str) -> _Output | None:
    """The output that this id names, None where it names none. Raises NotFound."""
    named = _MADE.fullmatch(file_id)
    if named is None:
        return None
    errors = named[1] == "errors"
    record = await herd.batches.batch(f"batch_{named[2]}")
    if record is None or record.account != key.account or record.openai is None or record.status != "ended":
        raise NotFound(f"no file {file_id} in this account")
    if not (record.ended - record.succeeded if errors else record.succeeded):
        raise NotFound(f"{record.batch} has no {'errors' if errors else 'output'}")
    return _Output(file_id, record, errors)


async def _lines(herd: Herd, output: _Output) -> AsyncGenerator[bytes, None]:
    """Its lines in the order of the input, some at a time. Raises CutOff: its records have begun to go."""
    piece = bytearray()
    async for line in _each(herd, output):
        piece += line
        if len(piece) >= PIECE_BYTES:
            yield bytes(piece)
            piece.clear()
    if piece:
        yield bytes(piece)


async def _each(herd: Herd, output: _Output) -> AsyncIterator[bytes]:
    endpoint = Asked.model_validate_json(output.batch.openai or "").endpoint
    async for job in records_of(herd, output.batch):
        if job is None:
            raise CutOff
        if (job.status is not Status.SUCCEEDED) == output.errors:
            yield line_of(job, endpoint)


def _shown(file: FileRecord) -> dict[str, Any]:
    return {
        "id": file.file,
        "object": "file",
        "bytes": file.size,
        "created_at": file.created_ms // 1000,
        "expires_at": file.expires_ms // 1000,
        "filename": file.name,
        "purpose": file.purpose,
        "status": "processed",
        "status_details": None,
    }
