"""The composition root of the herder: settings in, an ASGI app out. All background tasks live and die in its lifespan.

Knows who needs whom; decides nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from fastapi import Depends, FastAPI
from starlette.middleware.cors import CORSMiddleware

from herder.api import (
    accounts,
    admin,
    batches,
    events,
    info,
    ipfs,
    jobs,
    modules,
    operations,
    problems,
    quote,
    runs,
    schema,
    webhooks,
)
from herder.api.callers import proxy_networks
from herder.api.envelope import Envelope
from herder.api.express import Express
from herder.api.market import Market
from herder.api.metrics import Metrics
from herder.api.reading import only_known_of_get
from herder.api.state import Herd
from herder.bootstrap import secret_of_herd
from herder.broker import Broker, connect
from herder.chains import chain_key
from herder.clock import Clock
from herder.counting import Counter
from herder.dialects import (
    ao,
    lamini,
    lamini_chat,
    lamini_polled,
    ollama,
    openai,
    openai_batches,
    openai_files,
    tgi,
    tgi_chat,
)
from herder.doorbell import Doorbell
from herder.egress import Policy
from herder.errors import HerderError
from herder.ledger import Ledger
from herder.logs import get_logger
from herder.prompts import Renderer
from herder.settings import Settings

MEMORY_LOOK_S = 1.0
DIALECTS = (
    ao,
    lamini,
    lamini_chat,
    lamini_polled,
    ollama,
    openai,
    openai_batches,
    openai_files,
    tgi,
    tgi_chat,
)

log = get_logger(__name__)


def create_app(settings: Settings, *, broker: Broker | None = None, clock: Clock | None = None) -> FastAPI:
    """The herder's app. It connects in its lifespan, unless it is given a broker, which it then leaves open.

    Raises SetupError (here, or when the lifespan starts) for settings that cannot work.
    """
    metrics = Metrics()
    proxies = proxy_networks(settings.trusted_proxies)
    Policy.of(settings)  # a mistyped allow-list stops the start, not somebody's job
    installed = runs.installed(settings)  # so does a module of which no job could be made

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as stack:
            app.state.herd = herd = await _herd(stack, settings, metrics, broker, clock)
            herd.proxies, herd.modules = proxies, installed
            stack.push_async_callback(herd.schemas.close)
            await stack.enter_async_context(herd.feeder)
            await stack.enter_async_context(herd.cancel)
            _background(stack, "memory", MEMORY_LOOK_S, lambda: _look_at_memory(herd))
            yield
            herd.stopping.set()

    app = FastAPI(
        title="Llama-Herder",
        version=info.installed_version(),
        lifespan=lifespan,
        redirect_slashes=False,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # looked for at each request otherwise
    )
    app.state.metrics = metrics
    app.state.other_batches = openai_batches
    parts = (jobs, events, batches, quote, info, accounts, webhooks, modules, ipfs, admin, operations)
    for part in parts:
        # Probes and scrapers may add what they like.
        strict = [] if part is operations else [Depends(only_known_of_get)]
        app.include_router(part.router, dependencies=strict)
    for dialect in DIALECTS:
        app.include_router(dialect.router)
    problems.install(app, [route for part in (*parts, *DIALECTS) for route in part.router.routes])
    schema.install(app, settings)
    app.add_middleware(Express)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors_origins),
            allow_methods=["GET", "POST", "PUT", "DELETE"],
            allow_headers=[
                "Authorization",
                "Content-Type",
                "Idempotency-Key",
                "Last-Event-ID",
                "X-API-Key",
                "X-Request-Id",
            ],
            expose_headers=["Idempotent-Replayed", "Location", "Retry-After", "x-request-id"],
        )
    app.add_middleware(Envelope, metrics=metrics)
    return app


async def _herd(
    stack: contextlib.AsyncExitStack,
    settings: Settings,
    metrics: Metrics,
    broker: Broker | None,
    clock: Clock | None,
) -> Herd:
    """Everything that requests reach; what was opened is closed with the stack, in reverse."""
    if broker is None:
        broker = await connect(settings, clock=clock)
        stack.push_async_callback(broker.close)
    secret = await secret_of_herd(broker, settings)  # a herd that has lost it writes nothing
    await broker.set_prices(settings.set_prompt_fee, settings.fee_per_token)
    bell = await stack.enter_async_context(Doorbell(broker.redis))
    renderer, counter = Renderer(), Counter(broker.vocab)
    stack.push_async_callback(renderer.close)
    stack.push_async_callback(counter.close)
    return Herd(
        settings=settings,
        broker=broker,
        ledger=Ledger(broker, secret),
        bell=bell,
        renderer=renderer,
        counter=counter,
        metrics=metrics,
        market=Market(broker),
        chain_key=chain_key(secret),
    )


def _background(
    stack: contextlib.AsyncExitStack, name: str, pause_s: float, chore: Callable[[], Awaitable[object]]
) -> None:
    """Do a chore again and again until the stack closes; one that fails is logged and tried again after its pause."""

    async def run() -> None:
        failing = False
        while True:
            try:
                await chore()
                failing = False
            except HerderError as error:
                if not failing:  # once an outage, not once a try
                    log.warning("chore failed", chore=name, why=str(error))
                failing = True
            except Exception:
                log.exception("chore failed", chore=name)
            await asyncio.sleep(pause_s)

    async def end() -> None:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    task = asyncio.create_task(run(), name=f"herder-{name}")
    stack.push_async_callback(end)


async def _look_at_memory(herd: Herd) -> None:
    """Shed submissions before Redis is so full that a settlement could not be written."""
    share = await herd.broker.memory_share()
    full = share is not None and share > herd.settings.redis_memory_watermark
    if full != herd.full:
        log.warning("Redis memory watermark", full=full, share=share)
    herd.full = full
