"""`Init`, an administrator's AO message: the model of a worker that was started without one.

The worker checks it as it checks HERDER_MODEL, loads it, and answers `Worker-Initialized`; here somebody waits for it.
"""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse

from herder.ao import HERDER, message
from herder.api.callers import administrating
from herder.api.state import Herd, herd_of
from herder.dialects.ao_messages import Sent
from herder.errors import Conflict, InvalidRequest, NotFound
from herder.records import KeyRecord
from herder.waiting import Appointment, Waiting

LOOK_S = 0.25
MODEL_CHARS_MAX = 1_000
WORKER_CHARS_MAX = 256
SHOWN_MAX = 20


async def initialized(request: Request, key: KeyRecord, sent: Sent) -> JSONResponse:
    """`Worker-Initialized` as soon as the worker serves; nothing yet after HERDER_WAIT_S_MAX: send it again.

    `Target` is the worker; the herd itself, or nobody, is whichever waits. Raises Forbidden (no admin key),
    InvalidRequest (a model that cannot be served), Conflict (the worker has another), NotFound (none waits).
    """
    await administrating(key)
    herd = herd_of(request)
    model = sent.text("Model-ID")
    if len(model) > MODEL_CHARS_MAX or "," in model or not model.isprintable():
        _refused("must be one model: herd-tiny, a .gguf file, hf:owner/repo/file.gguf, or name=any of these")
    target = sent.text_or_none("Target")
    waiting = Waiting(herd.broker)
    worker = await _appointed(
        waiting, None if target in (None, "", HERDER) else target[:WORKER_CHARS_MAX], model
    )
    found = await _settled(request, herd, waiting, worker)
    if found.why is not None:
        _refused(found.why)
    told: list[dict[str, Any]] = []
    if found.serves is not None:
        told.append(
            message(
                key.account,
                "Worker-Initialized",
                {"X-Worker": worker, "Model-ID": model, "Model": found.serves},
            )
        )
    return JSONResponse({"messages": told, "worker": worker}, 200 if told else 202)


async def _appointed(waiting: Waiting, target: str | None, model: str) -> str:
    word, found = await waiting.appoint(target, model)
    if word == "HAS":
        raise Conflict(f"worker {target} has a model already: {found}; start another one without")
    if word == "NONE":
        there = ", ".join((await waiting.those())[:SHOWN_MAX])
        who = f"worker {target} does not wait for a model" if target else "no worker waits for a model"
        advice = f"those wait: {there}" if there else "start one with an empty HERDER_MODEL"
        raise NotFound(f"{who}; {advice}")
    return found


async def _settled(request: Request, herd: Herd, waiting: Waiting, worker: str) -> Appointment:
    """What became of it, at the latest when the time is up, or the caller or this herder goes."""
    deadline = asyncio.get_running_loop().time() + herd.settings.wait_s_max
    while True:
        found = await waiting.appointment(worker)
        over = asyncio.get_running_loop().time() >= deadline or herd.stopping.is_set()
        if found.serves is not None or found.why is not None or over or await request.is_disconnected():
            return found
        await asyncio.sleep(LOOK_S)


def _refused(problem: str) -> None:
    raise InvalidRequest(f"Model-ID: {problem}", errors=[{"field": "Model-ID", "message": problem}])
