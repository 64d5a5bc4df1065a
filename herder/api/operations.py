"""`/healthz`, `/readyz`, `/metrics`: for whoever runs the herd. No key; keep them off the public network."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request, Response

from herder.api.metrics import CONTENT_TYPE
from herder.api.problems import declared
from herder.api.shapes import Health, Ready
from herder.api.state import herd_of
from herder.errors import NotReady, RedisUnavailable

READY_S_MAX = 3.0

router = APIRouter(tags=["operations"])


@router.get("/healthz", response_model=Health, summary="Is the process up?")
async def healthz() -> Health:
    """200 as long as this process answers at all; whether it can serve is `/readyz`."""
    return Health()


@router.get(
    "/readyz", response_model=Ready, summary="Can it take prompts?", responses=declared(NotReady, key=False)
)
async def readyz(request: Request) -> Ready:
    """200 when a prompt would be taken; 503 with `reasons` when not."""
    herd = herd_of(request)
    if herd.stopping.is_set():
        raise _not_ready("this herder is stopping")
    try:
        async with asyncio.timeout(READY_S_MAX):
            await herd.broker.ping()
            models = await herd.broker.models()
            workers = await herd.broker.worker_states()
    except TimeoutError:
        raise _not_ready(f"Redis did not answer in {READY_S_MAX:g} s") from None
    except RedisUnavailable as error:
        raise _not_ready(error.detail) from error
    if not models:
        raise _not_ready("no worker has registered a model yet")
    if not workers and herd.settings.refuse_without_worker:
        raise _not_ready("no worker is live")
    return Ready(models=models, workers=len(workers))


@router.get(
    "/metrics",
    summary="Prometheus metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(request: Request) -> Response:
    """Requests and refusals of this process; queues and workers of the herd, read at each scrape.

    Without Redis there are the former only, and `herder_redis_up` is 0.
    """
    herd = herd_of(request)
    try:
        async with asyncio.timeout(READY_S_MAX):
            states = await herd.broker.model_states()
        herd.metrics.redis_up.set(1)
    except (RedisUnavailable, TimeoutError):
        states = []
        herd.metrics.redis_up.set(0)
    return Response(herd.metrics.scrape(states), headers={"content-type": CONTENT_TYPE})


def _not_ready(*reasons: str) -> NotReady:
    return NotReady("; ".join(reasons), reasons=list(reasons))
