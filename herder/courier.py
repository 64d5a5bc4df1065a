"""The courier: what is slow, outside or periodic, on arq. It never touches dispatch.

Each second one courier of the herd sweeps lapsed leases and takes answered callbacks off the callback queue. arq
gives the schedule, and makes sure that of several couriers only one runs a chore. This file is arq's only owner.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from typing import Any

import structlog
from arq import cron
from arq.connections import RedisSettings
from arq.worker import Worker

from herder.broker import Broker, connect
from herder.deliveries import Deliveries
from herder.settings import Settings

CALLBACKS_A_ROUND = 1_000
CHORE_S_MAX = 20

_log = structlog.get_logger("courier")


async def sweep(ctx: dict[str, Any]) -> None:
    """Requeue what lapsed; forget what is gone."""
    broker: Broker = ctx["broker"]
    lapsed, quarantined = await broker.sweep()
    if lapsed:
        _log.info("leases lapsed", lapsed=lapsed, quarantined=quarantined)


async def collect(ctx: dict[str, Any]) -> None:
    """Take callbacks off their queue. None of them has a webhook to be delivered to, so they are done with."""
    broker: Broker = ctx["broker"]
    taken = await broker.callbacks(CALLBACKS_A_ROUND)
    await Deliveries(broker).answer([(entry, None) for entry, _ in taken])


def redis_settings(url: str) -> RedisSettings:
    """arq's form of a Redis URL; waits long enough for a Redis that loads its data."""
    settings = RedisSettings.from_dsn(url)
    settings.conn_retries = 50
    settings.conn_retry_delay = 1
    return settings


def make_worker(settings: Settings) -> Worker:
    """The arq worker of a herd. Its queue and its chores carry the herd's prefix: arq's own key names do not."""
    prefix = settings.redis_prefix

    async def startup(ctx: dict[str, Any]) -> None:
        ctx["broker"] = await connect(settings)
        _log.info("courier ready")

    async def shutdown(ctx: dict[str, Any]) -> None:
        await ctx["broker"].close()

    seconds = set(range(60))
    chores = [
        cron(
            chore,
            name=f"{prefix}:{chore.__name__}",
            second=seconds,
            keep_result=0,
            timeout=CHORE_S_MAX,
            max_tries=1,
        )
        for chore in (sweep, collect)
    ]
    return Worker(
        functions=[],
        cron_jobs=chores,
        queue_name=f"{prefix}:arq:queue",
        health_check_key=f"{prefix}:arq:health",
        redis_settings=redis_settings(settings.redis_url),
        on_startup=startup,
        on_shutdown=shutdown,
        job_serializer=lambda job: json.dumps(job).encode(),
        job_deserializer=json.loads,
        keep_result=0,
        poll_delay=0.5,
    )


def run(settings: Settings) -> None:
    """Run until SIGTERM. Exits with 1 when Redis is lost; whoever supervises starts it again, and nothing is lost."""
    logging.getLogger("arq.worker").setLevel(logging.WARNING)
    try:
        make_worker(settings).run()
    except asyncio.CancelledError:
        return  # stopped in the middle of a chore, which the next courier runs again
    except Exception as error:
        _log.error("courier stopped", error=f"{type(error).__name__}: {error}")
        sys.exit(1)
