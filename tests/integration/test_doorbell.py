"""One connection for many listeners; no ring is lost once a listener is entered, and a lost connection is told."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import redis.asyncio

from herder import doorbell
from herder.broker import Broker
from herder.doorbell import BACKLOG_MAX, MISSED, Doorbell, Listener
from herder.embedded import EmbeddedRedis, socket_url
from tests.integration.ring import Ring

LISTENERS = 500


async def subscribers(broker: Broker) -> list[dict[str, str]]:
    """The connections of this server that have subscribed to something."""
    found = await broker.redis.client_list(_type="pubsub")
    return [client for client in found if client["sub"] != "0"]


async def test_many_listeners_share_one_connection(broker: Broker) -> None:
    before = len(await subscribers(broker))
    async with Doorbell(broker.redis) as bell, AsyncExitStack() as stack:
        listeners = [
            await stack.enter_async_context(bell.listen(f"{broker.keys.prefix}:{i}"))
            for i in range(LISTENERS)
        ]
        assert len(await subscribers(broker)) == before + 1
        for i in range(LISTENERS):
            assert await broker.redis.publish(f"{broker.keys.prefix}:{i}", f"ring {i}") == 1
        for i, listener in enumerate(listeners):
            assert await listener.next(10) == f"ring {i}".encode()
    assert len(await subscribers(broker)) == before


async def test_listeners_that_enter_while_the_connection_is_made_hear(broker: Broker) -> None:
    """They came between the first one's subscription being asked for and granted, and were once left out."""

    async def enter(listener: Listener, turns: int) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        await listener.__aenter__()

    async with Doorbell(broker.redis) as bell:
        channels = [f"{broker.keys.prefix}:{i}" for i in range(50)]
        listeners = [bell.listen(channel) for channel in channels]
        await asyncio.gather(*(enter(listener, turns) for turns, listener in enumerate(listeners)))
        for channel, listener in zip(channels, listeners, strict=True):
            assert await broker.redis.publish(channel, "hello") == 1
            assert await listener.next(10) == b"hello"
            await listener.__aexit__(None, None, None)


async def test_a_ring_right_after_entering_is_not_lost(broker: Broker) -> None:
    channel = f"{broker.keys.prefix}:c"
    async with Doorbell(broker.redis) as bell:
        for i in range(100):
            async with bell.listen(channel) as listener:
                await broker.redis.publish(channel, str(i))
                assert await listener.next(10) == str(i).encode()


async def test_listeners_come_and_go_on_one_channel(broker: Broker) -> None:
    """One leaves while another enters: the channel stays subscribed."""
    channel = f"{broker.keys.prefix}:c"
    async with Doorbell(broker.redis) as bell:
        first = bell.listen(channel)
        await first.__aenter__()
        for i in range(50):
            second = bell.listen(channel)
            await asyncio.gather(first.__aexit__(None, None, None), second.__aenter__())
            assert await broker.redis.publish(channel, str(i)) == 1
            assert await second.next(10) == str(i).encode()
            first = second
        await first.__aexit__(None, None, None)


async def test_a_killed_connection_is_made_again_and_told(broker: Broker) -> None:
    channel = f"{broker.keys.prefix}:c"
    async with Doorbell(broker.redis) as bell, bell.listen(channel) as one, bell.listen(channel) as two:
        for _ in range(3):
            await broker.redis.client_kill_filter(_type="pubsub")
            assert await one.next(20) == MISSED
            assert await two.next(20) == MISSED
            assert await broker.redis.publish(channel, "after") == 1
            assert await one.next(20) == b"after"
            assert await two.next(20) == b"after"


async def test_a_listener_of_several_channels(broker: Broker) -> None:
    channels = [f"{broker.keys.prefix}:{i}" for i in range(3)]
    async with Doorbell(broker.redis) as bell, bell.listen(*channels) as listener:
        for channel in channels:
            await broker.redis.publish(channel, channel)
        assert [await listener.next(10) for _ in channels] == [channel.encode() for channel in channels]
        assert await listener.next(0) is None


async def test_the_backlog_is_bounded_and_its_overflow_told(broker: Broker) -> None:
    listener = Doorbell(broker.redis).listen("c")
    for i in range(BACKLOG_MAX):
        listener.ring(str(i).encode())
    assert await listener.next(0) == b"0"
    for i in range(5):
        listener.ring(f"more {i}".encode())
    # What had gathered is gone, which is told once; what comes after is heard.
    assert [await listener.next(0) for _ in range(5)] == [MISSED, b"more 2", b"more 3", b"more 4", None]


async def test_a_jobs_bell_carries_the_event(broker: Broker) -> None:
    ring = await Ring(broker).open("ann")
    ask = await ring.ask("ann")
    async with (
        Doorbell(broker.redis) as bell,
        bell.listen(broker.keys("job_bell", ask.job_id)) as events,
        bell.listen(broker.keys("queue_bell", ask.model)) as queue,
        bell.listen(broker.keys("worker_bell", "w1")) as worker,
    ):
        await broker.submit(ask)
        assert await queue.next(10)
        await ring.lease_one()
        assert b'"kind":"started"' in (await events.next(10) or b"")
        await broker.cancel("ann", ask.job_id)
        assert await worker.next(10) == ask.job_id.encode()


async def test_without_redis_listening_goes_on_in_the_background(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The listener is told None, not an exception: the caller polls the log meanwhile."""
    monkeypatch.setattr(doorbell, "CONFIRM_S", 0.05)
    client = redis.asyncio.Redis.from_url(f"unix://{tmp_path}/nobody.sock")
    async with Doorbell(client) as bell, bell.listen("c") as listener:
        assert await listener.next(0) is None
    await client.aclose()


@pytest.mark.parametrize("count", [1, 3])
async def test_leaving_unsubscribes(broker: Broker, count: int) -> None:
    channel = f"{broker.keys.prefix}:c"
    async with Doorbell(broker.redis) as bell, bell.listen(f"{broker.keys.prefix}:other"):
        async with AsyncExitStack() as stack:
            for _ in range(count):
                await stack.enter_async_context(bell.listen(channel))
            assert await broker.redis.publish(channel, "x") == 1
        assert await broker.redis.pubsub_numsub(channel) == [(channel.encode(), 0)]


async def test_after_a_lost_connection_nothing_is_told_before_redis_has_confirmed(broker: Broker) -> None:
    """Whoever is told `MISSED` reads the log and then trusts the rings: none may fall between the two."""
    channel = f"{broker.keys.prefix}:c"
    async with Doorbell(broker.redis) as bell, bell.listen(channel) as listener:
        for i in range(50):
            await broker.redis.client_kill_filter(_type="pubsub")
            assert await listener.next(20) == MISSED
            assert await broker.redis.publish(channel, str(i)) == 1
            assert await listener.next(20) == str(i).encode()


async def test_whoever_came_unconfirmed_is_told_when_rings_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doorbell, "CONFIRM_S", 0.05)
    server = EmbeddedRedis(tmp_path / "d")
    client = redis.asyncio.Redis.from_url(socket_url(tmp_path / "d"))
    async with Doorbell(client) as bell, bell.listen("c") as listener:
        await server.start()
        assert await listener.next(20) == MISSED
        assert await client.publish("c", "hello") == 1
        assert await listener.next(20) == b"hello"
    await client.aclose()
    await server.stop()


async def test_a_channel_taken_back_and_asked_for_again_counts_from_the_last_answer(broker: Broker) -> None:
    """The answer to the first SUBSCRIBE must not pass for the answer to the second."""
    bell = Doorbell(broker.redis)
    listener = bell.listen("c")
    entering = asyncio.create_task(listener.__aenter__())
    await asyncio.sleep(0)
    bell._unconfirmed[b"c"] = 2
    bell._deliver([b"subscribe", b"c", 1])
    await asyncio.sleep(0)
    assert not bell._channels[b"c"].confirmed.is_set()
    bell._deliver([b"subscribe", b"c", 1])
    await entering


async def test_entering_may_be_cancelled(broker: Broker) -> None:
    channel = f"{broker.keys.prefix}:c"
    async with Doorbell(broker.redis) as bell, bell.listen(f"{broker.keys.prefix}:other"):
        for i in range(50):
            entering = asyncio.create_task(bell.listen(channel).__aenter__())
            for _ in range(i % 5):
                await asyncio.sleep(0)
            entering.cancel()
            await asyncio.gather(entering, return_exceptions=True)
            async with bell.listen(channel) as second:
                assert await broker.redis.publish(channel, str(i)) == 1
                assert await second.next(10) == str(i).encode()
        while (await broker.redis.pubsub_numsub(channel))[0][1]:  # whoever was cancelled has left
            await broker.ping()


async def test_whoever_left_unconfirmed_leaves_nothing(broker: Broker) -> None:
    """Each channel has a name of its own, and a process lives long."""
    prefix = broker.keys.prefix
    async with Doorbell(broker.redis) as bell, bell.listen(f"{prefix}:other"):
        for i in range(50):
            entering = asyncio.create_task(bell.listen(f"{prefix}:{i}").__aenter__())
            for _ in range(i % 5):
                await asyncio.sleep(0)
            entering.cancel()
            await asyncio.gather(entering, return_exceptions=True)
        async with bell.listen(f"{prefix}:last"):  # it was confirmed after all the others
            assert not bell._unconfirmed


async def test_a_server_that_hangs_is_left(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection on which nothing comes, not even the answer to a PING, is made again and told."""
    monkeypatch.setattr(doorbell, "PING_S", 0.05)
    async with Doorbell(broker.redis) as bell, bell.listen(f"{broker.keys.prefix}:c") as listener:
        assert await listener.next(0.3) is None, "one that answers is kept"
        monkeypatch.setattr(Doorbell, "_deliver", lambda *_: None)  # nothing is heard any more
        while bell._channels[f"{broker.keys.prefix}:c".encode()].confirmed.is_set():
            await broker.ping()
        monkeypatch.undo()
        assert await listener.next(20) == MISSED
