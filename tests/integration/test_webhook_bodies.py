"""What webhooks say: made with the first attempt, the same ever after, and written in time where nobody was asked."""

from __future__ import annotations

import json

import pytest

from herder.bodies import Bodies
from herder.broker import Broker
from herder.clock import SimulatedClock
from herder.courier import ROUND
from herder.deliveries import Deliveries
from herder.posting import Posting
from herder.protocol import Webhook
from herder.settings import Settings
from herder.webhook_records import Attempted, Delivery, DeliveryStatus
from tests.e2e.receiver import Reply, receiving
from tests.integration.post import for_webhooks, open_post
from tests.integration.ring import Ring

URL = "http://receiver.example/hook"


class Told:
    """Ended jobs of alice's whose webhooks nobody has been asked to take yet; time stands still."""

    def __init__(self, broker: Broker, clock: SimulatedClock) -> None:
        self.broker, self.clock, self.ring = broker, clock, Ring(broker)
        self.deliveries = Deliveries(broker)
        self.bodies = Bodies(broker, self.deliveries)
        self.half_ms = broker.settings.result_ttl_ms // 2

    async def ended(self, count: int = 1) -> list[str]:
        """So many, with their deliveries."""
        endpoint = await self.deliveries.ensure_endpoint("alice", URL, "ep_1", "whsec_c2VjcmV0")
        jobs = []
        for _ in range(count):
            jobs.append((await self.ring.submit("alice", webhook=Webhook(URL, endpoint))).job_id)
            await self.ring.settle(await self.ring.lease_one(), 3)
        posting = Posting(self.broker, egress=None)  # type: ignore[arg-type]  # it only collects
        while await posting.collect(ROUND):
            pass
        return [job.replace("job_", "msg_") for job in jobs]

    async def found(self, delivery: str) -> Delivery:
        found = await self.deliveries.delivery(delivery)
        assert found is not None
        return found

    async def forget_jobs(self) -> None:
        """As when their time is over."""
        while (await self.broker.redis.zcard(self.broker.keys("ended"))) > 0:
            self.clock.advance(self.broker.settings.result_ttl_ms + 1)
            await self.broker.sweep()


@pytest.fixture
async def told(timed_broker: Broker, clock: SimulatedClock) -> Told:
    told = Told(timed_broker, clock)
    await told.ring.open("alice")
    return told


async def test_nothing_is_written_before_its_first_attempt(told: Told) -> None:
    (delivery,) = await told.ended()
    told.clock.advance(told.half_ms - 1)
    assert await told.bodies.write_ahead(ROUND) == 0
    assert (await told.found(delivery)).body == ""


async def test_what_waits_half_the_life_of_its_job_is_written(told: Told) -> None:
    (delivery,) = await told.ended()
    told.clock.advance(told.half_ms)
    assert await told.bodies.write_ahead(ROUND) == 1
    assert await told.bodies.write_ahead(ROUND) == 0
    found = await told.found(delivery)
    event = json.loads(found.body)
    assert (event["type"], event["data"]["result"]["text"]) == ("job.succeeded", "xxx")
    assert (found.status, found.attempt) == (DeliveryStatus.PENDING, 0)
    await told.forget_jobs()
    assert (await told.found(delivery)).body == found.body


async def test_half_the_life_is_that_of_the_job_and_not_of_the_settings(told: Told) -> None:
    settings = told.broker.settings.model_copy(update={"result_ttl_ms": told.half_ms})
    elsewhere = Told(Broker(told.broker.redis, settings, told.clock), told.clock)
    (short,), (usual,) = await elsewhere.ended(), await told.ended()
    told.clock.advance(told.half_ms // 2 - 1)
    assert await told.bodies.write_ahead(ROUND) == 0
    told.clock.advance(1)
    assert await told.bodies.write_ahead(ROUND) == 1
    assert (await told.found(short)).body
    assert not (await told.found(usual)).body


async def test_more_than_a_round_is_written_in_the_next_ones(told: Told) -> None:
    ids = await told.ended(ROUND + 2)
    told.clock.advance(told.half_ms)
    assert [await told.bodies.write_ahead(ROUND) for _ in range(3)] == [ROUND, 2, 0]
    assert all([(await told.found(delivery)).body for delivery in ids])


async def test_what_an_attempt_said_stays_whatever_is_made_later(told: Told) -> None:
    (delivery,) = await told.ended()
    (claimed,) = await told.deliveries.claim(10)
    again = Attempted(*claimed, DeliveryStatus.DEAD, pause_ms=0, response_status=500)
    assert await told.deliveries.attempted(again, "said first")
    (claimed,) = await told.deliveries.claim(10)
    assert await told.deliveries.attempted(Attempted(*claimed, DeliveryStatus.DELIVERED), "said later")
    assert await told.deliveries.write([(delivery, "written later")]) == [False]
    assert (await told.found(delivery)).body == "said first"


async def test_a_delivery_that_has_gone_is_not_written_and_not_looked_at_again(told: Told) -> None:
    (delivery,) = await told.ended()
    await told.broker.redis.delete(told.broker.keys("delivery", delivery))
    told.clock.advance(told.half_ms)
    assert [await told.bodies.write_ahead(ROUND) for _ in range(2)] == [1, 0]
    assert await told.deliveries.delivery(delivery) is None


async def test_a_delivery_that_cannot_be_read_holds_nobody_up(told: Told) -> None:
    broken, well = await told.ended(2)
    await told.broker.fetch(told.broker.redis.hdel(told.broker.keys("delivery", broken), "account"))
    told.clock.advance(told.half_ms)
    assert [await told.bodies.write_ahead(ROUND) for _ in range(2)] == [2, 0]
    assert (await told.found(well)).body


async def test_a_record_of_before_there_was_a_time_in_it_is_read(told: Told) -> None:
    (delivery,) = await told.ended()
    await told.broker.fetch(told.broker.redis.hdel(told.broker.keys("delivery", delivery), "at_ms"))
    found = await told.found(delivery)
    assert found.at_ms == found.created_ms


async def test_a_courier_writes_as_many_as_there_are(settings: Settings) -> None:
    """More than it could in rounds of one a second, before their jobs go; nobody is asked meanwhile."""
    count = 6 * ROUND
    async with open_post(for_webhooks(settings, result_ttl_ms=8_000, webhook_schedule_s=(60.0,))) as post:
        webhook = await post.webhook("http://127.0.0.1:9/hook")
        async with post.couriers():
            ids = [await post.ended(webhook) for _ in range(count)]
            await post.until_true(ids[-1], lambda found: bool(found.body))
        bodies = [(await post.delivery(delivery)).body for delivery in ids]
    assert [body for body in bodies if '"text":"xxx"' not in body] == []


async def test_a_receiver_that_comes_back_after_the_job_is_gone_hears_all_of_it(settings: Settings) -> None:
    """Its job is kept for eight seconds, and it is first asked after nine."""
    async with open_post(for_webhooks(settings, result_ttl_ms=8_000, webhook_schedule_s=(9.0,))) as post:
        with receiving(lambda _: Reply(200)) as receiver:
            webhook = await post.webhook(receiver.url)
            async with post.couriers():
                delivery = await post.ended(webhook)
                written = await post.until_true(delivery, lambda found: bool(found.body))
                assert written.attempt == 0
                await post.until(delivery, DeliveryStatus.DELIVERED)
        (hit,) = receiver.hits
        assert hit.body.decode() == written.body
        assert json.loads(hit.body)["data"]["result"]["text"] == "xxx"
        job = await post.broker.redis.exists(post.broker.keys("job", delivery.replace("msg_", "job_")))
        assert job == 0
