"""Fixtures of all tests: a real redis-server, and a broker and a ledger on a prefix of their own."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import AsyncIterator, Iterator
from itertools import count
from pathlib import Path

import hypothesis
import pytest

from herder.broker import Broker, connect
from herder.clock import SimulatedClock
from herder.ledger import Ledger
from herder.settings import Settings
from tests.simulation.server import private_redis

KEY_SECRET = b"a secret for the tests only"
_prefixes = count()

# Machines are slow at times; how long an example takes is no fault.
hypothesis.settings.register_profile("house", deadline=None)
hypothesis.settings.load_profile("house")


def pytest_configure() -> None:
    """A run under nohup, or in the background of a script, ignores signals, and its children would inherit that."""
    for number in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(
                number, lambda *_: None
            )  # deaf as before; a handler, other than deafness, is not inherited


@pytest.fixture(autouse=True)
def logs_end_with_the_test() -> Iterator[None]:
    """A test that sets up logging writes where its output is caught; the next one has another place for that."""
    before = logging.root.handlers[:]
    yield
    for handler in logging.root.handlers[:]:
        if handler not in before and type(handler) is logging.StreamHandler:
            logging.root.removeHandler(handler)


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """A redis-server of the test session's own, on a unix socket, stopped at the end."""
    with private_redis() as url:
        yield url


@pytest.fixture
def settings(redis_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Settings:
    """The defaults, on a prefix that no other test uses; the machine's own HERDER_ variables do not count."""
    for name in [name for name in os.environ if name.startswith("HERDER_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)  # where no .env lies
    return Settings(
        redis_url=redis_url,
        redis_prefix=f"t{os.getpid()}-{next(_prefixes)}",
        data_dir=tmp_path / "herd-data",
    )


@pytest.fixture
def clock() -> SimulatedClock:
    """A clock that stands still until a test moves it."""
    return SimulatedClock()


@pytest.fixture
async def broker(settings: Settings) -> AsyncIterator[Broker]:
    """A broker on Redis's own time, with a price list."""
    broker = await connect(settings)
    await broker.set_prices(settings.set_prompt_fee, settings.fee_per_token)
    yield broker
    await broker.close()


@pytest.fixture
async def timed_broker(settings: Settings, clock: SimulatedClock) -> AsyncIterator[Broker]:
    """A broker whose time is `clock`."""
    broker = await connect(settings, clock)
    await broker.set_prices(settings.set_prompt_fee, settings.fee_per_token)
    yield broker
    await broker.close()


@pytest.fixture
def ledger(broker: Broker) -> Ledger:
    """The ledger of `broker`."""
    return Ledger(broker, KEY_SECRET)
