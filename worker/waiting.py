"""A worker that was started without a model: it waits until an administrator has chosen one; and says why it is wrong.

Must not know what a model is, or load one; connects before the sandbox is entered, and once more after it.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal

from herder import logs
from herder.broker import connect
from herder.errors import RedisUnavailable, SetupError
from herder.settings import Settings
from herder.waiting import Waiting

LOOK_S = 1.0

log = logs.get_logger("worker.waiting")


async def chosen(settings: Settings, worker: str) -> str | None:
    """The model, as soon as there is one; None where this process is to stop first.

    Raises RedisUnavailable, SetupError.
    """
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)
    broker = await connect(settings)
    try:
        waiting = Waiting(broker)
        log.info("waits for a model: send Init with a Model-ID, as an AO message", worker=worker)
        while not stop.is_set():
            model = await waiting.wait(worker)
            if model is not None:
                log.info("model chosen", worker=worker, model=model)
                return model
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await stop.wait()
        await waiting.leave(worker)
        return None
    finally:
        await broker.close()


async def tell_failed(settings: Settings, worker: str, why: str) -> None:
    """Say why the chosen model cannot be served; nobody hears it where Redis is away."""
    with contextlib.suppress(RedisUnavailable, SetupError):
        broker = await connect(settings)
        try:
            await Waiting(broker).failed(worker, why)
        finally:
            await broker.close()
