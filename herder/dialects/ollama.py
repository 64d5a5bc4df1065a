"""Ollama's API: `/api/generate`, `/api/chat`, and what there is: `/api/tags`, `/api/show`, `/api/ps`, `/api/version`.

Models are neither pulled nor loaded here: a worker brings them. Answers stream unless `stream` is false.
"""

from __future__ import annotations

import hashlib
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from herder.api.callers import Caller
from herder.api.info import installed_version
from herder.api.state import Herd, herd_of
from herder.api.submission import model_of
from herder.dialects.asking import Lenient, asked, model_named
from herder.dialects.attended import answered, bought, told
from herder.dialects.ollama_answers import Lines, Manner, answer, at, first_token_ms, line, loaded
from herder.dialects.ollama_asking import (
    LATEST,
    NAMES,
    ChatBody,
    Fields,
    GenerateBody,
    chat_fields,
    generate_fields,
)
from herder.protocol import ModelCard
from herder.records import KeyRecord, ModelState

NDJSON = "application/x-ndjson"
EVENTS_READ = 8  # of a job's log: before the first token come its place in line and its start
UNKNOWN_TIME = at(0)

router = APIRouter(include_in_schema=False)


@router.post("/api/generate")
async def generate(request: Request, key: Caller) -> Response:
    """An answer to a prompt; without one, whether the model is there."""
    body = await asked(request, GenerateBody)
    card = (await _model(herd_of(request), body)).card
    fields = generate_fields(body)
    return await _answered(
        request, key, Manner(body, card.model, chat=False), fields if body.prompt else None
    )


@router.post("/api/chat")
async def chat(request: Request, key: Caller) -> Response:
    """The answer to a chat; without messages, whether the model is there."""
    body = await asked(request, ChatBody)
    card = (await _model(herd_of(request), body)).card
    if not body.messages:
        return await _answered(request, key, Manner(body, card.model, chat=True), None)
    fields, box = chat_fields(body, card.template)
    return await _answered(request, key, Manner(body, card.model, chat=True, names=box.names), fields)


async def _model(herd: Herd, body: Lenient) -> ModelState:
    """The model that is meant, with `:latest` or without. Raises UnknownModel."""
    name = body.model or ""
    if await herd.market.state(name) is None:
        name = name.removesuffix(LATEST)
    return await model_of(herd, await model_named(herd, name))


async def _answered(request: Request, key: KeyRecord, manner: Manner, fields: Fields | None) -> Response:
    """The answer, in the way that it is wanted. Raises what a submission can be refused with."""
    herd, body = herd_of(request), manner.body
    if fields is None:
        shown = loaded(await herd.broker.now_ms(), manner)
        return Response(line(shown), 200, media_type=NDJSON) if body.streams else JSONResponse(shown)
    meant = body.model_copy(update={"model": manner.model})
    if body.streams:
        with herd.streams.reserved():
            sold = await bought(request, key, meant, fields, NAMES)
            return told(request, sold, Lines(sold.record, manner), NDJSON)
    sold = await answered(request, await bought(request, key, meant, fields, NAMES))
    events = await herd.broker.events(sold.record.job_id, limit=EVENTS_READ)
    first_ms = first_token_ms(events, sold.record.attempt)
    return JSONResponse(answer(sold.record, first_ms, manner), 200, sold.headers)


# --- what there is ---------------------------------------------------------------------------------------------


@router.head("/")
async def up() -> Response:
    """Whether anybody is there, which their command line asks first."""
    return Response()


@router.head("/api/version")
@router.get("/api/version")
async def version() -> dict[str, str]:
    """The herder's own."""
    return {"version": installed_version()}


@router.head("/api/tags")
@router.get("/api/tags")
async def tags(request: Request, _: Caller) -> dict[str, Any]:
    """Every model that a worker has served."""
    states = await herd_of(request).broker.model_states()
    return {"models": [_shown(state.card) | {"modified_at": UNKNOWN_TIME} for state in states]}


@router.get("/api/ps")
async def running(request: Request, _: Caller) -> dict[str, Any]:
    """The models that a live worker has."""
    states = await herd_of(request).broker.model_states()
    return {
        "models": [
            _shown(state.card) | {"size_vram": 0, "context_length": state.card.context}
            for state in states
            if state.workers
        ]
    }


class ShowBody(Lenient):
    """Which model; older clients call it `name`."""

    name: str | None = None


@router.post("/api/show")
async def show(request: Request, _: Caller) -> dict[str, Any]:
    """One model."""
    body = await asked(request, ShowBody)
    body.model = body.model or body.name
    card = (await _model(herd_of(request), body)).card
    return {
        "modelfile": "",
        "parameters": "",
        "template": card.template or "",
        "details": _details(),
        "model_info": {
            "general.architecture": "herd",
            "general.basename": card.model,
            "general.description": card.description,
            "herd.context_length": card.context,
            "herd.vocab_size": card.vocab_size,
        },
        "capabilities": ["completion", "tools"],
        "modified_at": UNKNOWN_TIME,
    }


def _shown(card: ModelCard) -> dict[str, Any]:
    name = card.model if ":" in card.model else card.model + LATEST
    digest = hashlib.sha256(
        repr(card).encode()
    ).hexdigest()  # of what is known of it: its file is the worker's
    return {"name": name, "model": name, "size": 0, "digest": digest, "details": _details()}


def _details() -> dict[str, Any]:
    return {
        "parent_model": "", "format": "gguf", "family": "herd", "families": ["herd"],
        "parameter_size": "", "quantization_level": "",
    }  # fmt: skip
