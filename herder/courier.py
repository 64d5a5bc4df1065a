"""The courier: what is slow, outside or periodic, on arq. It never touches dispatch.

Each second one courier of the herd sweeps lapsed leases, turns callbacks into deliveries, and claims the attempts that
are due: each is an arq job of its own, which any courier makes. What is claimed and lost with its courier lapses. arq
gives the schedule, and makes sure that of several couriers only one runs a chore. This file is arq's only owner.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import logging
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, cast

import structlog
from arq import cron, func
from arq.connections import ArqRedis, RedisSettings
from arq.worker import Retry, Worker

from herder.batches import Batches
from herder.broker import Broker, connect
from herder.deliveries import CLAIM_MARGIN_MS
from herder.egress import Egress, Policy
from herder.errors import SetupError, Unavailable
from herder.feeding import feed_round
from herder.posting import BrokenOff, Posting
from herder.settings import Settings

ATTEMPTS_MAX = 100  # of one courier at a time; arq looks at each of them in every poll
CHORES_MAX = 10  # jobs beside them, so that no number of slow receivers holds up a sweep
COLLECT_S_MAX = 10  # then the next second's goes on
# A settlement waits for whatever Redis is at: so not too many at a time, and then Redis is left to others for a while.
ROUND = 50
PAUSE_S = 0.01
CHORE_S_MAX = 20
END_S = 1.0  # from its limit on, in which a job ends by itself
FEED_S_MAX = 0.8  # of each second
TRIES_MAX = 5  # of one arq job: how many couriers may be stopped in the middle of it
OUTAGE_S = 1.5  # of Redis, after which it is told
POLL_S = 0.25
GATHER_S = 0.02  # attempts that end so close together make room with one claim
CLOSE_S_MAX = 3.0

_log = structlog.get_logger("courier")


class Outage:
    """Whether there is no Redis to work on: told once, if it lasts, and not by every chore of every second.

    One that is gone for good ends arq, and with it this courier, which then says so.
    """

    def __init__(self) -> None:
        self._since: float | None = None
        self._told = False

    def failed(self, why: str, since: float) -> None:
        """Something could not be done, which was begun at `since` (monotonic, in s)."""
        self._since = since if self._since is None else self._since
        if not self._told and time.monotonic() - self._since >= OUTAGE_S:
            self._told = True
            _log.warning("the courier goes on later", why=why)

    def over(self) -> None:
        """Something could be done."""
        self._since, self._told = None, False


def outliving(job: Callable[..., Awaitable[None]], limit_s: float) -> Callable[..., Awaitable[None]]:
    """The same, for arq: without Redis it is left to the next second, or to the lapse of what was claimed.

    So it is after `limit_s`, with a Redis that hangs: arq's own limit, END_S later, makes a traceback.
    """

    @functools.wraps(job)
    async def tried(ctx: dict[str, Any], *arguments: Any) -> None:
        broker: Broker = ctx["broker"]
        began = time.monotonic()
        try:
            async with asyncio.timeout(limit_s):
                await broker.fetch(job(ctx, *arguments))
        except Unavailable as error:
            ctx["outage"].failed(str(error), began)
        except TimeoutError:
            ctx["outage"].failed(f"{job.__name__} was not done in {limit_s:.0f} s", began)
        else:
            ctx["outage"].over()

    return tried


async def sweep(ctx: dict[str, Any]) -> None:
    """Requeue what lapsed; forget what is gone."""
    broker: Broker = ctx["broker"]
    lapsed, quarantined = await broker.sweep()
    if lapsed:
        _log.info("leases lapsed", lapsed=lapsed, quarantined=quarantined)


async def feed(ctx: dict[str, Any]) -> None:
    """Batches go on where no herder feeds them: after a restart, or where a line was full."""
    await feed_round(Batches(ctx["broker"]), FEED_S_MAX)


async def collect(ctx: dict[str, Any]) -> None:
    """Callbacks become deliveries, and attempts that are due become arq jobs, as long as there are any."""
    posting: Posting = ctx["posting"]
    collecting: asyncio.Lock = ctx["collecting"]
    if collecting.locked():
        return  # the one of an earlier second is still at it
    async with collecting:
        until = time.monotonic() + COLLECT_S_MAX
        while time.monotonic() < until:
            fullest = max(await posting.bodies.write_ahead(ROUND), await posting.collect(ROUND))
            claimed = await ctx["claims"].more()
            if fullest == ROUND:
                await asyncio.sleep(PAUSE_S)
            elif not claimed:
                return


async def attempt(ctx: dict[str, Any], delivery: str, number: int) -> None:
    """Make one attempt to deliver a webhook; then there is room for another."""
    posting: Posting = ctx["posting"]
    try:
        await posting.attempt(delivery, number)
    except BrokenOff:
        raise Retry from None  # by the next courier, the very same attempt
    await ctx["claims"].more()


class Claims:
    """Attempts that are due become arq jobs, as far as there is room, and are begun without waiting for arq's poll."""

    def __init__(self, worker: Worker, posting: Posting, prefix: str) -> None:
        self._worker, self._posting, self._prefix = worker, posting, prefix
        self._claiming = asyncio.Lock()
        self._waiting = False
        self.over = False

    async def more(self) -> int:
        """Claim what is due; how many. Whoever comes while another waits leaves it to that one."""
        if self._waiting or self.over:
            return 0
        self._waiting = waits = True
        try:
            async with self._claiming:
                await asyncio.sleep(GATHER_S)
                self._waiting = waits = False
                return await self._more()
        finally:
            if waits:  # it was broken off; otherwise it is another that waits now
                self._waiting = False

    async def _more(self) -> int:
        queue = self._worker.pool
        room = ATTEMPTS_MAX - self._worker.job_counter
        if room <= 0:
            return 0
        claimed = await self._posting.deliveries.claim(room)
        jobs = []
        for delivery, number in claimed:
            # An attempt has its number in its name: it is queued once, and never mistaken for another.
            name = f"{self._prefix}:{delivery}:{number}"
            await queue.enqueue_job(f"{self._prefix}:attempt", delivery, number, _job_id=name)
            jobs.append(name.encode())
        await self._worker.start_jobs(jobs)
        return len(claimed)


def redis_settings(url: str) -> RedisSettings:
    """arq's form of a Redis URL; waits long enough for a Redis that loads its data."""
    settings = RedisSettings.from_dsn(url)
    settings.conn_retries = 50
    settings.conn_retry_delay = 1
    return settings


@contextlib.asynccontextmanager
async def courier(settings: Settings) -> AsyncIterator[asyncio.Task[None]]:
    """A courier that runs until the block ends; the task ends by itself only where something is wrong.

    On the way out its attempts are broken off; others will make them. Raises SetupError.
    """
    policy = Policy.of(settings)
    async with contextlib.AsyncExitStack() as stack:
        broker = await connect(settings)
        stack.push_async_callback(broker.close)
        posting = Posting(broker, await stack.enter_async_context(Egress(policy)))
        worker = _worker(settings)
        claims = Claims(worker, posting, settings.redis_prefix)
        worker.ctx |= {"broker": broker, "posting": posting, "claims": claims}
        worker.ctx |= {"outage": Outage(), "collecting": asyncio.Lock()}
        running = asyncio.create_task(worker.async_run())
        try:
            yield running
        finally:
            claims.over = True
            posting.break_off()
            await _close(worker, running)


def _worker(settings: Settings) -> Worker:
    """Its queue, its chores and its jobs carry the herd's prefix: arq's own key names do not."""
    prefix = settings.redis_prefix
    seconds = set(range(60))
    chores = [
        cron(
            cast("Any", outliving(chore, CHORE_S_MAX)),
            name=f"{prefix}:{chore.__name__}",
            second=seconds,
            keep_result=0,
            timeout=CHORE_S_MAX + END_S,
            max_tries=TRIES_MAX,
        )
        for chore in (sweep, feed, collect)
    ]
    attempt_s = (settings.webhook_timeout_ms + CLAIM_MARGIN_MS) / 1000
    making = func(
        cast("Any", outliving(attempt, attempt_s)),
        name=f"{prefix}:attempt",
        keep_result=0,
        timeout=attempt_s + END_S,
        max_tries=TRIES_MAX,
    )
    return Worker(
        functions=[making],
        cron_jobs=chores,
        queue_name=f"{prefix}:arq:queue",
        health_check_key=f"{prefix}:arq:health",
        redis_settings=redis_settings(settings.redis_url),
        job_serializer=lambda job: json.dumps(job, default=str).encode(),  # how it failed is an exception
        job_deserializer=json.loads,
        keep_result=0,
        max_jobs=ATTEMPTS_MAX + CHORES_MAX,
        poll_delay=POLL_S,
        handle_signals=False,
    )


async def _close(worker: Worker, running: asyncio.Task[None]) -> None:
    """End everything, whatever state Redis is in, and however long a receiver takes.

    Nothing new is begun, and what is not waiting for a receiver may end, so that no word to Redis is cut off.
    """
    worker.allow_pick_jobs = False
    worker.cron_jobs = []
    jobs = set(worker.tasks.values())
    if jobs:
        await asyncio.wait(jobs, timeout=CLOSE_S_MAX)
    await asyncio.wait({running}, timeout=2 * POLL_S)
    tasks = {running, *jobs, *worker.tasks.values()}  # also what one that was under way has still begun
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks, timeout=CLOSE_S_MAX)
    for task in tasks:
        if task.done() and not task.cancelled():
            task.exception()  # seen, so that nobody reports it
    queue: ArqRedis | None = worker.ctx.get("redis")
    if queue is not None:
        await queue.aclose(close_connection_pool=True)


async def serve(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT. Raises what Redis said when it was lost."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with courier(settings) as running:
        _log.info("courier ready")
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if running.done():
            running.result()


def run(settings: Settings) -> None:
    """Run until SIGTERM. Exits with 1 when Redis is lost; whoever supervises starts it again, and nothing is lost.

    Raises SetupError.
    """
    logging.getLogger("arq.worker").setLevel(logging.WARNING)
    try:
        asyncio.run(serve(settings))
    except SetupError:
        raise
    except Exception as error:
        _log.error("courier stopped", error=f"{type(error).__name__}: {error}")
        sys.exit(1)
