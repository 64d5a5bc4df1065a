"""`/info`, `/v1/models`, `/v1/workers`: what the herd has and what it costs. Reads only.

`/v1/models` is ours and OpenAI's at once: one answer with the fields of both.
"""

from __future__ import annotations

import asyncio
from importlib.metadata import PackageNotFoundError, version

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse
from pydantic import BaseModel, Field

from herder.api.callers import Caller
from herder.api.problems import declared
from herder.api.shapes import Models, OneModel, SameModel, Workers
from herder.api.shown import model_of, worker_of
from herder.api.state import herd_of
from herder.api.submission import model_of as model_state
from herder.errors import UnknownModel
from herder.pricing import MILLI
from herder.settings import model_name

NAME = "llama-herder"

router = APIRouter(tags=["herd"])


class Info(BaseModel):
    """The herd in short: fee = ceil((set_prompt_fee + fee_per_token × tokens) × multiplier)."""

    name: str
    version: str
    set_prompt_fee: int
    fee_per_token: int
    last_multiplier: float = Field(description="of all models the highest; each model's own is in /v1/models")
    queue_length: int
    models: list[str]
    workers: int
    slots: int
    tokens_per_second: float
    model_id: str | None = Field(
        description="the model of a prompt that names none; here and below as TGI says it"
    )
    max_total_tokens: int | None = Field(description="its context: of a prompt and its answer together")
    max_input_tokens: int | None = Field(description="of a prompt, which leaves room for one token")
    max_input_length: int | None = Field(description="the same for older clients")


def installed_version() -> str:
    """The distribution's version; 0 where the tree is run without having been installed."""
    try:
        return version(NAME)
    except PackageNotFoundError:
        return "0"


@router.get("/", include_in_schema=False, response_class=PlainTextResponse)
async def root(request: Request) -> str:
    """For whoever opens the address in a browser."""
    return (
        f"This is a Llama-Herder, version {installed_version()}.\n\n"
        "/info and /v1/models say what it has and what it costs, /docs and /openapi.json how to ask it.\n"
    )


@router.get("/info", response_model=Info, summary="The herd in short", responses=declared(key=False))
async def info(request: Request) -> Info:
    """Prices, models, and how busy it is. Needs no key."""
    herd = herd_of(request)
    broker = herd.broker
    prices, states, workers = await asyncio.gather(
        broker.prices(), broker.model_states(), broker.worker_states()
    )
    first = model_name(herd.settings.model[0]) if herd.settings.model else ""
    card = next((s.card for s in states if len(states) == 1 or s.card.model == first), None)
    return Info(
        name=NAME,
        version=installed_version(),
        set_prompt_fee=prices.set_prompt_fee,
        fee_per_token=prices.fee_per_token,
        last_multiplier=max((s.last_multiplier_milli for s in states), default=MILLI) / MILLI,
        queue_length=sum(s.queue_length for s in states),
        models=[s.card.model for s in states],
        workers=len(workers),
        slots=sum(w.stats.slots for w in workers),
        tokens_per_second=round(sum(s.tokens_per_second for s in states), 3),
        model_id=card.model if card else None,
        max_total_tokens=card.context if card else None,
        max_input_tokens=card.context - 1 if card else None,
        max_input_length=card.context - 1 if card else None,
    )


@router.get("/v1/models", response_model=Models, summary="The models", responses=declared())
async def models(request: Request, _: Caller) -> Models:
    """Every model that a worker has served; one without workers takes jobs, which wait.

    `data` names them as OpenAI's API does.
    """
    found = [model_of(state) for state in await herd_of(request).broker.model_states()]
    return Models(models=found, data=[SameModel(id=model.id) for model in found])


@router.get(
    "/v1/models/{model:path}",
    response_model=OneModel,
    summary="One model",
    responses=declared(UnknownModel),
)
async def model(request: Request, _: Caller, model: str) -> OneModel:
    """A model by its name, in which slashes may stand as they are; also by another name that it has here."""
    herd = herd_of(request)
    known = await herd.market.state(model)
    if known is None:
        known = await model_state(herd, herd.settings.aliases.get(model, model) or None)
    return OneModel(**model_of(known).model_dump())


@router.get("/v1/workers", response_model=Workers, summary="The live workers", responses=declared())
async def workers(request: Request, _: Caller) -> Workers:
    """The workers whose heartbeat is recent."""
    return Workers(workers=[worker_of(state) for state in await herd_of(request).broker.worker_states()])
