"""A courier and a Redis that goes away: a line in its log, no traceback; what it leaves behind is done by the next."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import redis.asyncio
from arq.worker import JobExecutionFailed
from structlog.testing import capture_logs

import herder.courier
from herder.broker import Broker, connect
from herder.courier import CHORE_S_MAX, Outage, _worker, collect, courier, feed, outliving, sweep
from herder.settings import Settings
from tests.simulation.server import IN_MEMORY, private_redis

WAIT_S = 30.0
TICK_S = 0.05


async def test_a_chore_without_redis_is_let_go_by_and_told_once(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broker = await connect(settings)
    gone = Broker(redis.asyncio.Redis.from_url(f"unix://{tmp_path}/gone.sock"), settings)
    lost: dict[str, Any] = {"broker": gone, "outage": Outage(), "collecting": asyncio.Lock()}
    lost |= {
        "posting": SimpleNamespace(bodies=SimpleNamespace(write_ahead=lambda _: gone.ping())),
        "claims": None,
    }
    clock = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: clock)
    chores = [outliving(chore, CHORE_S_MAX) for chore in (sweep, feed, collect)]
    try:
        with capture_logs() as logged:
            for chore in chores:
                await chore(lost)
            assert logged == []
            clock += 2
            for chore in chores:
                await chore(lost)
            (line,) = logged
            assert (line["event"], "cannot be reached" in line["why"]) == ("the courier goes on later", True)
            await chores[0](lost | {"broker": broker})
            await chores[0](lost)
            assert len(logged) == 1, "a new outage has its own time"
    finally:
        await gone.close()
        await broker.close()


async def test_chores_that_a_redis_that_hangs_holds_up_end_before_arq_has_to_end_them(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What arq ends, it tells with a traceback, chore by chore."""
    monkeypatch.setattr(herder.courier, "CHORE_S_MAX", 2)
    with private_redis(*IN_MEMORY) as url:
        settings = settings.model_copy(update={"redis_url": url})
        broker = await connect(settings)
        pid = (await broker.redis.info("server"))["process_id"]
        functions = _worker(settings).functions
        held_up: dict[str, Any] = {"broker": broker, "outage": Outage(), "collecting": asyncio.Lock()}
        held_up["posting"] = SimpleNamespace(bodies=SimpleNamespace(write_ahead=lambda _: broker.ping()))
        held_up["claims"] = None
        chores = [functions[f"{settings.redis_prefix}:{name}"] for name in ("sweep", "feed", "collect")]
        os.kill(pid, signal.SIGSTOP)
        try:
            with capture_logs() as logged:
                ends = [asyncio.wait_for(chore.coroutine(held_up), chore.timeout_s) for chore in chores]
                assert await asyncio.gather(*ends) == [None] * 3
            (line,) = logged
            assert (line["event"], line["log_level"]) == ("the courier goes on later", "warning")
            assert "was not done in 2 s" in line["why"]
        finally:
            os.kill(pid, signal.SIGCONT)
        with capture_logs() as logged:
            await chores[0].coroutine(held_up)
        assert logged == [], "it goes on"
        await broker.close()


async def test_the_queue_can_be_written_with_whatever_a_job_came_to(settings: Settings) -> None:
    written = _worker(settings).job_serializer
    assert written is not None
    assert b"max 1 retries" in written({"r": JobExecutionFailed("max 1 retries exceeded")})


async def test_a_chore_that_died_with_its_courier_is_done_by_the_next(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """arq counts the tries in Redis, where they outlive the courier."""
    name, key = f"{settings.redis_prefix}:feed", f"{settings.redis_prefix}:arq:queue"
    broker = await connect(settings)
    tick = asyncio.Event()
    caplog.set_level(logging.WARNING, "arq.worker")
    try:
        earlier = _worker(settings)
        job = earlier.job_serializer
        assert job is not None
        left: dict[str, Any] = {"t": None, "f": name, "a": [], "k": {}, "et": 1}
        await broker.redis.set(f"arq:job:{name}:left", job(left))
        await broker.redis.set(f"arq:retry:{name}:left", 1)
        await broker.redis.zadd(key, {f"{name}:left": 1})
        async with courier(settings), asyncio.timeout(WAIT_S):
            while await broker.redis.zscore(key, f"{name}:left") is not None:
                try:
                    await asyncio.wait_for(tick.wait(), TICK_S)
                except TimeoutError:
                    continue
        assert [record.getMessage() for record in caplog.records] == []
    finally:
        await broker.close()
