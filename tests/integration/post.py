"""A bench for webhooks: jobs that end, couriers in this process, and what is left of deliveries in Redis."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable

from herder.api.destinations import new_endpoint_id
from herder.broker import Broker, connect
from herder.courier import courier
from herder.deliveries import Deliveries
from herder.egress import Policy, checked_url, endpoint_of
from herder.protocol import Webhook
from herder.settings import Settings
from herder.signatures import new_secret
from herder.webhook_records import Delivery, DeliveryStatus
from tests.e2e.receiver import Receiver
from tests.integration.ring import Ring

WAIT_S = 60.0
TICK_S = 0.02


def for_webhooks(settings: Settings, **more: object) -> Settings:
    """Settings under which webhooks reach a receiver on loopback, and are tried again soon."""
    quick = {
        "webhook_allow": ("127.0.0.0/8",), "webhook_ports": ("*",), "webhook_timeout_ms": 500,
        "webhook_schedule_s": (0.0, 0.1, 0.2), "public_url": "https://herd.example",
    }  # fmt: skip
    return settings.model_copy(update={**quick, **more})


class Post:
    """A broker with a funded account, alice, and doors to what is sent."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.settings = broker.settings
        self.ring = Ring(broker)
        self.deliveries = Deliveries(broker)

    async def webhook(self, url: str, account: str = "alice") -> Webhook:
        """An address of the account, its endpoint made where it is new."""
        checked = checked_url(url, Policy.of(self.settings))
        endpoint = await self.deliveries.ensure_endpoint(
            account, endpoint_of(checked), new_endpoint_id(), new_secret()
        )
        return Webhook(checked, endpoint)

    async def secret(self, webhook: Webhook) -> str:
        """The newest secret of its endpoint."""
        endpoint = await self.deliveries.endpoint(webhook.endpoint)
        assert endpoint is not None
        return endpoint.secret

    async def ended(self, webhook: Webhook | None, account: str = "alice", tokens: int = 3) -> str:
        """A job that has ended; the id of its delivery."""
        accepted = await self.ring.submit(account, webhook=webhook)
        await self.ring.settle(await self.ring.lease_one(), tokens)
        return accepted.job_id.replace("job_", "msg_")

    async def delivery(self, delivery: str) -> Delivery:
        """A delivery that is there."""
        found = await self.deliveries.delivery(delivery)
        assert found is not None, f"no {delivery}"
        return found

    async def until(self, delivery: str, status: DeliveryStatus) -> Delivery:
        """Wait until a delivery is in this state."""
        return await self.until_true(delivery, lambda found: found.status is status)

    async def until_true(self, delivery: str, condition: Callable[[Delivery], bool]) -> Delivery:
        """Wait until something is true of a delivery."""
        tick = asyncio.Event()
        async with asyncio.timeout(WAIT_S):
            while True:
                found = await self.deliveries.delivery(delivery)
                if found is not None and condition(found):
                    return found
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(tick.wait(), TICK_S)

    @contextlib.asynccontextmanager
    async def couriers(self, count: int = 1) -> AsyncIterator[None]:
        """So many couriers on these settings, until the block ends."""
        async with contextlib.AsyncExitStack() as stack:
            running = [await stack.enter_async_context(courier(self.settings)) for _ in range(count)]
            yield
            for task in running:
                assert not task.done(), "a courier ended by itself"


@contextlib.asynccontextmanager
async def open_post(settings: Settings, *accounts: str) -> AsyncIterator[Post]:
    """A broker on these settings, with alice and other accounts."""
    broker = await connect(settings)
    try:
        await broker.set_prices(settings.set_prompt_fee, settings.fee_per_token)
        post = Post(broker)
        await post.ring.open("alice", *accounts)
        yield post
    finally:
        await broker.close()


async def hits(receiver: Receiver, count: int) -> list[str]:
    """The webhook-ids of the first requests, once so many have come."""
    came = await asyncio.to_thread(receiver.until, count)
    return [hit.id for hit in itertools.islice(came, count)]
