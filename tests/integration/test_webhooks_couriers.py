"""Couriers that hang, are stopped, killed, or are two: no webhook is lost, none waits for another's receiver."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator

from herder.settings import Settings
from herder.webhook_records import DeliveryStatus
from tests.e2e.herd import clean_environment
from tests.e2e.receiver import HANG, Hit, Reply, receiving
from tests.integration.post import Post, for_webhooks, hits, open_post

DELIVERED, PENDING = DeliveryStatus.DELIVERED, DeliveryStatus.PENDING
STOP_S = 20.0
FOR_EVER_MS = 600_000


@contextlib.contextmanager
def courier_process(settings: Settings) -> Iterator[subprocess.Popen[str]]:
    """`herder courier` on these settings; killed on the way out if it still runs."""
    names = (
        "redis_url", "redis_prefix", "data_dir", "webhook_allow", "webhook_ports", "webhook_timeout_ms",
        "webhook_schedule_s", "public_url", "log_level",
    )  # fmt: skip
    values = {name: getattr(settings, name) for name in names}
    environment = {
        f"HERDER_{name.upper()}": ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        for name, value in values.items()
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "llama_herder.cli.main", "courier"],
        env=clean_environment() | environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=STOP_S)


async def many(post: Post, url: str, times: int) -> list[str]:
    """So many jobs that ended, all to be told at this address."""
    webhook = await post.webhook(url)
    return [await post.ended(webhook) for _ in range(times)]


async def test_a_receiver_that_hangs_delays_no_other(settings: Settings) -> None:
    """Its attempts hang for as long as the test runs; the others' are all delivered meanwhile."""
    async with open_post(for_webhooks(settings, webhook_timeout_ms=FOR_EVER_MS)) as post:
        with receiving(lambda _: HANG) as hanging, receiving() as healthy:
            stuck = await many(post, hanging.url, 50)
            async with post.couriers():
                await hits(hanging, settings.webhook_host_concurrency)
                told = await many(post, healthy.url, 20)
                for delivery in told:
                    await post.until(delivery, DELIVERED)
            assert len(hanging.hits) == settings.webhook_host_concurrency
            assert sorted(healthy.ids()) == sorted(told)
        assert {(await post.delivery(delivery)).status for delivery in stuck} == {PENDING}


async def test_more_dead_hosts_than_there_is_room_delay_no_other(settings: Settings) -> None:
    """Each with a backlog that could fill all the room there is."""
    more = {"webhook_timeout_ms": 300, "webhook_schedule_s": (0.0, 0.1, 0.1, 0.1, 0.1)}
    async with open_post(for_webhooks(settings, webhook_host_concurrency=60, **more)) as post:
        with contextlib.ExitStack() as stack:
            dead = [stack.enter_context(receiving(lambda _: HANG)) for _ in range(3)]
            for receiver in dead:
                await many(post, receiver.url, 100)
            async with post.couriers():
                for receiver in dead:
                    await hits(receiver, 1)
                healthy = stack.enter_context(receiving())
                (told,) = await many(post, healthy.url, 1)
                await post.until(told, DELIVERED)
                first = sum(len(receiver.hits) for receiver in dead)
            assert first < 3 * 100, "it came only after all that was there before it"


async def test_two_couriers_deliver_each_once(settings: Settings) -> None:
    async with open_post(for_webhooks(settings, webhook_timeout_ms=10_000)) as post:
        with receiving() as receiver:
            told = await many(post, receiver.url, 30)
            async with post.couriers(2):
                told += await many(post, receiver.url, 30)
                for delivery in told:
                    assert (await post.until(delivery, DELIVERED)).attempt == 1
            assert Counter(receiver.ids()) == Counter(told)
        assert await post.broker.callbacks(1) == []


async def test_a_courier_killed_in_mid_attempt(settings: Settings) -> None:
    """What it had claimed lapses, and is made again under the same id."""

    def answering(hit: Hit) -> Reply:
        return HANG if hit.number < 3 else Reply(200)

    async with open_post(for_webhooks(settings, webhook_timeout_ms=2_000)) as post:
        with receiving(answering) as receiver:
            told = await many(post, receiver.url, 3)
            with courier_process(post.settings) as process:
                await hits(receiver, 3)
                process.kill()
                await asyncio.to_thread(process.wait, STOP_S)
            assert [(await post.delivery(delivery)).tries for delivery in told] == [0, 0, 0]
            async with post.couriers():
                for delivery in told:
                    found = await post.until(delivery, DELIVERED)
                    assert (found.tries, found.attempt) == (1, 2)
            assert Counter(receiver.ids()) == Counter(told * 2)
            secret = await post.secret(await post.webhook(receiver.url))
            assert all(hit.verified(secret) for hit in receiver.hits)


async def test_a_courier_that_is_told_to_stop_does_so_at_once(settings: Settings) -> None:
    """Its receiver hangs for ten minutes; the next courier makes the very same attempt."""

    def answering(hit: Hit) -> Reply:
        return HANG if hit.number == 0 else Reply(200)

    async with open_post(for_webhooks(settings, webhook_timeout_ms=FOR_EVER_MS)) as post:
        with receiving(answering) as receiver:
            (told,) = await many(post, receiver.url, 1)
            with courier_process(post.settings) as process:
                await hits(receiver, 1)
                process.send_signal(signal.SIGTERM)
                said, _ = await asyncio.to_thread(process.communicate, None, STOP_S)
                assert process.returncode == 0, said
                assert "Traceback" not in said
            async with post.couriers():
                found = await post.until(told, DELIVERED)
            assert (found.tries, found.attempt) == (1, 1)
            assert receiver.ids() == [told] * 2


async def test_a_mistyped_allow_list_is_said_in_a_line(settings: Settings) -> None:
    wrong = for_webhooks(settings, webhook_allow=("10.0.0.0/33",))
    with courier_process(wrong) as process:
        said, _ = await asyncio.to_thread(process.communicate, None, STOP_S)
    assert process.returncode not in (0, None)
    assert "HERDER_WEBHOOK_ALLOW" in said
    assert "Traceback" not in said
