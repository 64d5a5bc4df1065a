"""`/v1/modules`: what modules there are, running one, and the result of a run. What a run is, `runs` knows."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request, Response

from herder.api.callers import Caller
from herder.api.jobs import sold, waited
from herder.api.lookup import fields_of, own
from herder.api.parameters import NOT_SOLD, IdempotencyKey, Wait, sold_headers
from herder.api.problems import declared
from herder.api.reading import body_of
from herder.api.run_shapes import Modules, RunShown, module_shown
from herder.api.runs import RunRequest, input_of, job_of, run_of, stored
from herder.api.schema import json_body
from herder.api.shapes import Job, SubmittedJob
from herder.api.state import herd_of
from herder.errors import ContextExceeded, InvalidRequest, NotFound, StoreUnavailable

router = APIRouter(prefix="/v1/modules", tags=["modules"])

RunBody = Annotated[RunRequest, Depends(body_of(RunRequest))]


@router.get("", response_model=Modules, summary="List the modules", responses=declared())
async def listed(request: Request, _: Caller) -> Modules:
    """The modules of this herder, by id."""
    return Modules(modules=[module_shown(module) for module in herd_of(request).modules.values()])


@router.post(
    "/{name}:{version}/runs",
    status_code=202,
    response_model=SubmittedJob,
    summary="Run a module",
    responses={
        **declared(*NOT_SOLD, ContextExceeded, StoreUnavailable, body=True),
        202: {"description": "Paid for and queued", "headers": sold_headers("run")},
    },
    openapi_extra=json_body(RunRequest),
)
async def run(
    request: Request,
    key: Caller,
    name: Annotated[str, Path(examples=["fastchat"])],
    version: Annotated[str, Path(examples=["v0.0.1"])],
    body: RunBody,
    *,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Fill the module's template in, and submit what comes of it as a job; `Location` is the run.

    A variable without a text, a text without a variable and a CID that is not in the store are refused, and cost
    nothing.
    """
    herd = herd_of(request)
    module = herd.modules.get(f"{name}:{version}")
    if module is None:
        asked, there = f"{name}:{version}"[:100], ", ".join(herd.modules)[:500]
        raise NotFound(f"no module {asked} here; there are: {there}")
    job = job_of(herd.settings, module, await input_of(herd, body), body)
    response = await sold(herd, key, job, idempotency_key)
    response.headers["Location"] = response.headers["Location"].replace("/v1/jobs/", "/v1/modules/runs/", 1)
    return response


@router.get(
    "/runs/{job_id}",
    response_model=RunShown,
    summary="Read a run, or wait for it",
    responses=declared(NotFound, InvalidRequest, StoreUnavailable),
)
async def read(
    request: Request,
    key: Caller,
    job_id: str,
    wait: Wait = 0,
) -> RunShown:
    """The run as it is now; with `wait`, as soon as it has ended. One with an answer is put into the store by this."""
    herd = herd_of(request)
    record = await own(herd, key, job_id)
    module = run_of(record).module
    if wait > 0:
        record = await waited(herd, request, record, min(wait, herd.settings.wait_s_max))
    cid = await stored(herd, record)
    return RunShown(module=module, cid=cid, job=Job(**await fields_of(herd, record)))
