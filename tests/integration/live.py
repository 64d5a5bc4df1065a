"""A herder on a loopback port, in a thread with an event loop of its own, as `herder serve` runs it; and a worker.

For what needs a real socket: fuzzing from another process, TLS, a signal while somebody waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass

from herder.api.state import Herd
from herder.broker import connect
from herder.doorbell import Doorbell
from herder.pricing import capture
from herder.protocol import FinishReason, Lease, Outcome, Settlement
from herder.records import Role
from herder.serve import Server, server
from herder.settings import Settings
from tests.integration.api import CARD, MODEL, STATS, WORKER

CREDITS = 10**12


@dataclass
class Live:
    """A running herder: its address, and a key of a funded account and of an administrator."""

    url: str
    server: Server
    key: str = ""
    admin_key: str = ""

    @property
    def herd(self) -> Herd:
        """Its inside; only for looking."""
        herd = self.server.config.app.state.herd  # type: ignore[union-attr]
        assert isinstance(herd, Herd)
        return herd


@contextlib.contextmanager
def live(settings: Settings, *, worker: bool = True) -> Iterator[Live]:
    """A herder that serves until the block ends."""
    running = server(settings.model_copy(update={"port": 0}))
    found = Live("", running)
    up = threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(_run(found, up, worker)), name="herder")
    thread.start()
    try:
        assert up.wait(30), "the herder did not start"
        assert found.url, "the herder did not start"
        yield found
    finally:
        running.end_long_polls()
        running.should_exit = True
        thread.join(30)
        assert not thread.is_alive(), "the herder did not stop"


async def _run(found: Live, up: threading.Event, worker: bool) -> None:
    serving = asyncio.create_task(found.server._serve(None))
    try:
        while not found.server.started:
            assert not serving.done(), "the herder did not start"
            await asyncio.wait({serving}, timeout=0.02)
        host, port = found.server.servers[0].sockets[0].getsockname()[:2]
        herd = found.herd
        found.key = await _funded(herd, "fuzz", Role.CLIENT)
        found.admin_key = await _funded(herd, "boss", Role.ADMIN)
        await herd.broker.register_worker(WORKER, CARD, STATS, None)
        scheme = "https" if found.server.config.is_ssl else "http"
        found.url = f"{scheme}://{host}:{port}"
        working = asyncio.create_task(work(herd.settings)) if worker else None
        up.set()
        await serving
        if working is not None:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
    finally:
        up.set()


async def _funded(herd: Herd, account: str, role: Role) -> str:
    await herd.ledger.create_account(account)
    await herd.ledger.deposit(account, CREDITS, None)
    return (await herd.ledger.create_key(account, role, ""))[1]


async def work(settings: Settings) -> None:
    """Answer whatever comes, at once, until cancelled; on connections of its own, as a worker has."""
    broker = await connect(settings)
    try:
        async with Doorbell(broker.redis) as bell, bell.listen(broker.keys("queue_bell", MODEL)) as listener:
            while True:
                leases = await broker.lease(WORKER, MODEL, slots=64, kv_free=10**7, kv_total=10**7)
                for lease in leases:
                    await broker.settle(WORKER, _answered(lease))
                if not leases:
                    await listener.next(1.0)
                await broker.renew(WORKER, MODEL, [], STATS)
    finally:
        await broker.close()


def _answered(lease: Lease) -> Settlement:
    return Settlement(
        job_id=lease.job_id,
        attempt=lease.attempt,
        outcome=Outcome.SUCCEEDED,
        text="blue",
        finish_reason=FinishReason.STOP,
        prompt_tokens=3,
        completion_tokens=1,
        captured=capture(lease.terms, 1),
    )
