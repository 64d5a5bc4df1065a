"""Event streams while Redis fails them: it dies, rings are lost, the log cannot be read, too much comes at once.

Nothing may be lost, and nothing may come twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from herder.api import stream
from herder.broker import Broker, connect
from herder.embedded import EmbeddedRedis, socket_url
from herder.errors import RedisUnavailable
from herder.settings import Settings
from tests.integration.streaming import Hand, serving, text_of

WORDS = [f"{i}\u2028{'é' * (i % 3)}\r\n:" for i in range(40)]


@pytest.fixture
async def own_redis(tmp_path: Path) -> AsyncIterator[EmbeddedRedis]:
    """A redis-server that may be killed; it is started again with its data."""
    redis = EmbeddedRedis(tmp_path / "d")
    await redis.start()
    yield redis
    await redis.stop()


async def test_redis_killed_in_the_middle(
    settings: Settings, own_redis: EmbeddedRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stream stays open, says that it lives, and goes on with nothing lost and nothing twice."""
    monkeypatch.setattr(stream, "RETRY_S", 0.05)
    url = socket_url(own_redis.data_dir)
    settings = settings.model_copy(update={"redis_url": url, "stream_ping_ms": 100})
    broker = await connect(settings)
    hand = Hand(broker)
    async with serving(settings) as herder:
        job = await herder.submit()
        lease = await hand.lease()
        async with herder.reading(job) as reader:
            for i, word in enumerate(WORDS):
                if i in (5, 25):
                    await reader.until(lambda i=i: sum(e.kind == "tokens" for e in reader.events) == i)  # type: ignore[misc]
                    assert own_redis.child is not None
                    assert own_redis.child.process is not None
                    own_redis.child.process.kill()
                    pings = reader.text.count(": ping")
                    await reader.until(lambda pings=pings: reader.text.count(": ping") > pings)  # type: ignore[misc]
                    await _again(broker)
                await hand.say(lease, i, word)
            await hand.settle(lease, "".join(WORDS), len(WORDS))
            events = await reader.rest()
        assert [event.event_id for event in events] == await hand.ids(job)
        assert text_of(events) == "".join(WORDS) == events[-1].shown["result"]["text"]
    await broker.close()


async def _again(broker: Broker) -> None:
    """Until Redis answers."""
    async with asyncio.timeout(20):
        while True:
            try:
                await broker.ping()
                return
            except RedisUnavailable:
                await asyncio.sleep(0)


async def test_a_subscription_that_is_lost_again_and_again_loses_nothing(
    settings: Settings, broker: Broker
) -> None:
    hand = Hand(broker)
    async with serving(settings) as herder:
        job = await herder.submit()
        lease = await hand.lease()
        async with herder.reading(job) as reader:
            await reader.until_kind("started")
            reading = asyncio.create_task(reader.rest())
            for i in range(200):
                await hand.say(lease, i, f"{i} ")
                if i % 20 == 10:
                    await broker.redis.client_kill_filter(_type="pubsub")
            await hand.settle(lease, "", 200)
            events = await reading
    assert [event.event_id for event in events] == await hand.ids(job)


async def test_a_burst_larger_than_what_is_kept_is_read_from_the_log(
    settings: Settings, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "BACKLOG_MAX", 3)
    monkeypatch.setattr(stream, "PAGE", 2)
    hand = Hand(broker)
    async with serving(settings) as herder:
        job = await herder.submit()
        lease = await hand.lease()
        async with herder.reading(job) as reader:
            await reader.until_kind("started")
            for first in range(0, 300, 30):
                await hand.say(lease, first, *(f"{i} " for i in range(first, first + 30)))
            await hand.settle(lease, "", 300)
            events = await reader.rest()
    assert [event.event_id for event in events] == await hand.ids(job)


async def test_a_log_that_cannot_be_read_is_read_later_and_nothing_is_said_before(
    settings: Settings, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bell still rings meanwhile; what it says comes after what is missing."""
    monkeypatch.setattr(stream, "RETRY_S", 0.02)
    settings = settings.model_copy(update={"stream_ping_ms": 100})
    hand = Hand(broker)
    async with serving(settings) as herder:
        job = await herder.submit()
        lease = await hand.lease()
        await hand.say(lease, 0, "before ")
        failures, read = 5, herder.herd.broker.events

        async def events(*args: object, **options: object) -> object:
            nonlocal failures
            if failures:
                failures -= 1
                raise RedisUnavailable("the test has taken it away")
            return await read(*args, **options)  # type: ignore[arg-type]

        monkeypatch.setattr(herder.herd.broker, "events", events)
        async with herder.reading(job) as reader:
            for i in range(1, 200):
                await hand.say(lease, i, f"{i} ")
            await herder.until(lambda: not failures)
            await hand.settle(lease, "", 200)
            found = await reader.rest()
    assert [event.event_id for event in found] == await hand.ids(job)
