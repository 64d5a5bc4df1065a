"""A herder on a real port with a real Redis for the client's tests, and the command line run against it."""

from __future__ import annotations

import asyncio
import io
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from herder.apikeys import key_secret
from herder.app import create_app
from herder.broker import Broker
from herder.ledger import Ledger
from herder.protocol import Lease, Outcome, SettleReply
from herder.records import Role
from herder.serve import Server, server
from herder.settings import Settings
from llama_herder.cli.app import execute
from tests.integration.ring import CARD, STATS, Ring

FUNDS = 5_000
WAIT_S = 30.0


@dataclass
class Herd:
    """A running herder, its keys, and a worker for the test to play."""

    url: str
    ledger: Ledger
    ring: Ring
    key: str
    admin_key: str
    server: Server
    task: asyncio.Task[None]

    async def stop(self) -> None:
        """End the herder; its Redis stays."""
        await _stop(self.server, self.task)

    async def lease(self) -> Lease:
        """The next job, as soon as there is one."""
        async with asyncio.timeout(WAIT_S):
            while True:
                found = await self.ring.lease()
                if found:
                    return found[0]

    async def work(self, produced: int = 3, outcome: Outcome = Outcome.SUCCEEDED) -> SettleReply:
        """Take one job and end it."""
        return await self.ring.settle(await self.lease(), produced, outcome)

    async def lease_and_end(self) -> Lease:
        """Take one job, end it, and show what the worker was given."""
        lease = await self.lease()
        await self.ring.settle(lease, 3)
        return lease

    async def balance(self, account: str = "ann") -> tuple[int, int]:
        """(available, held) of an account."""
        record = await self.ledger.account(account)
        assert record is not None
        return record.available, record.held


@asynccontextmanager
async def running(
    settings: Settings, broker: Broker, *, port: int = 0, again: bool = False
) -> AsyncIterator[Herd]:
    """A herder with one model, an account `ann` with credits, and an admin; `again` finds these there already."""
    ring, ledger = Ring(broker), Ledger(broker, key_secret(settings))
    if not again:
        await broker.register_worker("w1", CARD, STATS, None)
        for name in ("ann", "root"):
            await ledger.create_account(name)
        await ledger.deposit("ann", FUNDS, "first")
    _, key = await ledger.create_key("ann", Role.CLIENT, "")
    _, admin_key = await ledger.create_key("root", Role.ADMIN, "")
    settings = settings.model_copy(update={"port": port})
    serving = server(settings, create_app(settings, broker=broker))
    task = asyncio.create_task(serving.serve())
    try:
        async with asyncio.timeout(WAIT_S):
            while not serving.started:
                assert not task.done(), "the herder did not start"
                await asyncio.sleep(0)
        bound = serving.servers[0].sockets[0].getsockname()[1]
        yield Herd(f"http://127.0.0.1:{bound}", ledger, ring, key, admin_key, serving, task)
    finally:
        await _stop(serving, task)


async def _stop(serving: Server, task: asyncio.Task[None]) -> None:
    serving.end_long_polls()
    serving.should_exit = True
    await task


@dataclass(frozen=True)
class Shown:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str


class Terminal:
    """Runs command lines in this process, with the herd's URL and ann's key in the environment."""

    def __init__(
        self, herd: Herd, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("HERDER_URL", herd.url)
        monkeypatch.setenv("HERDER_API_KEY", herd.key)
        self.monkeypatch = monkeypatch
        self._capsys = capsys

    async def __call__(self, *arguments: str, stdin: bytes = b"") -> Shown:
        self.monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), "utf-8"))
        code = await asyncio.to_thread(execute, list(arguments))
        shown = self._capsys.readouterr()
        return Shown(code, shown.out, shown.err)
