"""What most tests of the API and of the client start from: a herder in this process, or one behind a port."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from herder.broker import Broker
from herder.settings import Settings
from llama_herder import AsyncHerder, _async, _sync
from tests.integration.api import Front, open_front
from tests.integration.client_herd import Herd, running


@pytest.fixture
async def front(settings: Settings) -> AsyncIterator[Front]:
    """A herder, alice with 1,000 credits, a worker."""
    async with open_front(settings) as front:
        yield front


@pytest.fixture
async def herd(settings: Settings, broker: Broker) -> AsyncIterator[Herd]:
    """A herder on a port of loopback, an account with a key, and a worker that is played by hand."""
    async with running(settings, broker) as herd:
        yield herd


@pytest.fixture
async def herder(herd: Herd) -> AsyncIterator[AsyncHerder]:
    """A client of that account."""
    async with AsyncHerder(herd.url, herd.key) as herder:
        yield herder


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients that pause for no time before they try again."""

    async def no_pause(seconds: float) -> None:
        await asyncio.sleep(0)

    monkeypatch.setattr(_async, "_sleep", no_pause)
    monkeypatch.setattr(_sync, "_sleep", lambda seconds: None)
