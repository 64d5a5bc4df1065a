"""Keys that were good a moment ago: asked for once in a rush, and never long after they were revoked."""

from __future__ import annotations

import asyncio
import time

import pytest

from herder.api.known_keys import KnownKeys
from herder.api.market import FRESH_S
from herder.broker import Broker
from herder.ledger import Ledger
from herder.records import KeyRecord, Role
from tests.conftest import KEY_SECRET


class Asked(Ledger):
    """Counts how often it is asked; with a `gate`, an answer that was read waits for it."""

    times = 0
    gate: asyncio.Event | None = None

    def __init__(self, broker: Broker, secret: bytes) -> None:
        super().__init__(broker, secret)
        self.read = asyncio.Event()

    async def authenticate(self, secret_key: str) -> KeyRecord | None:
        self.times += 1
        record = await super().authenticate(secret_key)
        self.read.set()
        if self.gate is not None:
            await self.gate.wait()
        return record


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that stands still."""
    times = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: times[0])
    return times


@pytest.fixture
async def asked(ledger: Ledger) -> Asked:
    await ledger.create_account("ann")
    return Asked(ledger.broker, KEY_SECRET)


async def test_a_rush_asks_once(asked: Asked, now: list[float]) -> None:
    keys = KnownKeys(asked)
    record, secret = await asked.create_key("ann", Role.CLIENT, "")
    assert [await keys.authenticate(secret) for _ in range(50)] == [record] * 50
    assert asked.times == 1
    now[0] += FRESH_S
    assert await keys.authenticate(secret) == record
    assert asked.times == 2


async def test_a_bad_key_is_asked_for_each_time(asked: Asked, now: list[float]) -> None:
    keys = KnownKeys(asked)
    record, secret = await asked.create_key("ann", Role.CLIENT, "")
    await asked.revoke_key("ann", record.key_id)
    assert [await keys.authenticate(sent) for sent in (secret, secret, "hk_nonsense")] == [None] * 3
    assert asked.times == 3


async def test_what_another_replica_revokes_is_refused_a_moment_later(asked: Asked, now: list[float]) -> None:
    keys = KnownKeys(asked)
    record, secret = await asked.create_key("ann", Role.CLIENT, "")
    now[0] += FRESH_S / 2  # however late in that moment it was first seen
    assert await keys.authenticate(secret) == record
    await asked.revoke_key("ann", record.key_id)
    assert await keys.authenticate(secret) == record
    now[0] += FRESH_S
    assert await keys.authenticate(secret) is None


async def test_what_was_read_before_a_revocation_is_not_remembered_after_it(
    asked: Asked, now: list[float]
) -> None:
    keys = KnownKeys(asked)
    record, secret = await asked.create_key("ann", Role.CLIENT, "")
    asked.gate = asyncio.Event()
    reading = asyncio.create_task(keys.authenticate(secret))
    await asked.read.wait()
    await asked.revoke_key("ann", record.key_id)
    keys.forget()
    asked.gate.set()
    assert await reading == record
    assert await keys.authenticate(secret) is None
