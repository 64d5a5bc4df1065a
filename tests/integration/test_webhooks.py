"""Webhooks from the end of a job to a real receiver: signed, tried again, given up, sent again, by couriers in here."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog
from standardwebhooks import Webhook as Standard
from standardwebhooks.webhooks import WebhookVerificationError

from herder import logs
from herder.courier import ROUND
from herder.protocol import Outcome
from herder.settings import Settings
from herder.webhook_records import DeliveryStatus
from tests.e2e.receiver import HANG, Hit, Reply, receiving
from tests.integration.post import for_webhooks, hits, open_post

DELIVERED, DEAD = DeliveryStatus.DELIVERED, DeliveryStatus.DEAD


async def test_the_end_of_a_job_arrives_signed(settings: Settings) -> None:
    async with open_post(for_webhooks(settings)) as post:
        with receiving() as receiver:
            webhook = await post.webhook(f"{receiver.url}/hook?story=12")
            async with post.couriers():
                delivery = await post.ended(webhook)
                found = await post.until(delivery, DELIVERED)
            (hit,) = receiver.hits
        event = hit.verified(await post.secret(webhook))
        assert (hit.id, hit.path) == (delivery, "/hook?story=12")
        assert hit.headers["content-type"] == "application/json"
        assert event["type"] == "job.succeeded"
        assert event["data"]["id"] == delivery.replace("msg_", "job_")
        assert event["data"]["result"]["text"] == "xxx"
        assert event["data"]["truncated"] is False
        assert event["data"]["url"] == f"https://herd.example/v1/jobs/{event['data']['id']}"
        assert event["data"]["webhook_url"] == webhook.url
        assert (found.attempt, found.tries, found.last_status) == (1, 1, 204)
        assert hit.body.decode() == found.body
        with pytest.raises(WebhookVerificationError):
            Standard(await post.secret(webhook)).verify(hit.body + b" ", hit.headers)


async def test_a_failed_and_a_cancelled_job_are_told_too(settings: Settings) -> None:
    async with open_post(for_webhooks(settings)) as post:
        with receiving() as receiver:
            webhook = await post.webhook(receiver.url)
            accepted = await post.ring.submit("alice", webhook=webhook)
            await post.broker.cancel("alice", accepted.job_id)
            failed = await post.ring.submit("alice", webhook=webhook)
            await post.ring.settle(await post.ring.lease_one(), 0, Outcome.FAILED)
            async with post.couriers():
                await hits(receiver, 2)
            told = {hit.id: json.loads(hit.body) for hit in receiver.hits}
        kinds = {id_: event["type"] for id_, event in told.items()}
        assert kinds == {
            accepted.job_id.replace("job_", "msg_"): "job.cancelled",
            failed.job_id.replace("job_", "msg_"): "job.failed",
        }
        error = told[failed.job_id.replace("job_", "msg_")]["data"]["error"]
        assert error == {"code": "engine_error", "message": "it broke"}


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (Reply(500), "answered 500"),
        (Reply(302, {"location": "/elsewhere"}), "redirect"),
        (Reply(400), "answered 400"),
        (HANG, "timed out after 0.5 s"),
    ],
)
async def test_what_is_not_2xx_is_tried_again_under_the_same_id(
    settings: Settings, bad: Reply, error: str
) -> None:
    def answering(hit: Hit) -> Reply:
        return bad if hit.number < 2 else Reply(200)

    async with open_post(for_webhooks(settings)) as post:
        with receiving(answering) as receiver:
            webhook = await post.webhook(receiver.url)
            delivery = await post.ended(webhook)
            async with post.couriers():
                failing = await post.until_true(delivery, lambda found: found.tries == 1)
                found = await post.until(delivery, DELIVERED)
            secret = await post.secret(webhook)
            assert receiver.ids() == [delivery] * 3
            assert [hit.verified(secret)["type"] for hit in receiver.hits] == ["job.succeeded"] * 3
            assert len({hit.body for hit in receiver.hits}) == 1
            assert {hit.path for hit in receiver.hits} == {"/"}
        assert error in (failing.last_error or "")
        assert failing.next_ms is not None
        assert (found.tries, found.last_error, found.next_ms) == (3, None, None)


async def test_a_receiver_that_is_not_there_is_a_failed_try(settings: Settings) -> None:
    with receiving() as gone:
        pass
    async with open_post(for_webhooks(settings, webhook_schedule_s=(0.0,))) as post, post.couriers():
        found = await post.until(await post.ended(await post.webhook(gone.url)), DEAD)
        assert (found.last_status, found.last_error) == (None, "connection refused")


async def test_after_the_last_pause_it_is_dead_and_kept_and_can_be_sent_again(settings: Settings) -> None:
    async with open_post(for_webhooks(settings)) as post:
        with receiving(lambda _: Reply(503)) as receiver:
            webhook = await post.webhook(receiver.url)
            delivery = await post.ended(webhook)
            async with post.couriers():
                found = await post.until(delivery, DEAD)
                assert (found.tries, found.last_status, len(receiver.hits)) == (3, 503, 3)
                assert found.ended_ms is not None
                receiver.answering = lambda _: Reply(200)
                await post.deliveries.redeliver("alice", delivery)
                again = await post.until(delivery, DELIVERED)
            assert (again.tries, again.attempt, again.body) == (1, 4, found.body)
            assert receiver.ids() == [delivery] * 4


async def test_410_ends_it_and_disables_the_endpoint(settings: Settings) -> None:
    async with open_post(for_webhooks(settings)) as post:
        with receiving(lambda _: Reply(410)) as receiver:
            webhook = await post.webhook(receiver.url)
            async with post.couriers():
                found = await post.until(await post.ended(webhook), DEAD)
                assert (found.tries, found.last_status) == (1, 410)
                assert "has disabled its endpoint" in (found.last_error or "")
                later = await post.until(await post.ended(webhook), DEAD)
            assert later.last_error == "its endpoint is disabled: the receiver answered 410 Gone"
            assert len(receiver.hits) == 1
        endpoint = await post.deliveries.endpoint(webhook.endpoint)
        assert endpoint is not None
        assert endpoint.disabled_ms > 0


async def test_retry_after_is_waited_for(settings: Settings) -> None:
    def answering(hit: Hit) -> Reply:
        return Reply(503, {"retry-after": "3"}) if hit.number == 0 else Reply(200)

    async with open_post(for_webhooks(settings)) as post:
        with receiving(answering) as receiver:
            delivery = await post.ended(await post.webhook(receiver.url))
            async with post.couriers():
                failing = await post.until_true(delivery, lambda found: found.tries == 1)
                assert (failing.next_ms or 0) - (failing.last_ms or 0) == 3_000
                found = await post.until(delivery, DELIVERED)
        assert (found.last_ms or 0) - (failing.last_ms or 0) >= 3_000


async def test_both_secrets_sign_until_the_old_one_is_over(settings: Settings) -> None:
    async with open_post(for_webhooks(settings, webhook_rotation_ms=4_000)) as post:
        with receiving() as receiver:
            webhook = await post.webhook(receiver.url)
            first = await post.secret(webhook)
            second, third = "whsec_" + "c2Vjb25k" * 4, "whsec_" + "dGhpcmQh" * 4
            await post.deliveries.rotate("alice", webhook.endpoint, second)
            await post.deliveries.rotate("alice", webhook.endpoint, third)
            async with post.couriers():
                await post.until(await post.ended(webhook), DELIVERED)
                (both,) = receiver.hits
                for secret in (first, second, third):
                    assert both.verified(secret)
                assert both.headers["webhook-signature"].count("v1,") == 3
                endpoint = await post.deliveries.endpoint(webhook.endpoint)
                assert endpoint is not None
                async with asyncio.timeout(20):
                    while await post.broker.now_ms() < endpoint.old_until_ms:
                        pass
                await post.until(await post.ended(webhook), DELIVERED)
            alone = receiver.hits[1]
        assert alone.verified(third)
        assert alone.headers["webhook-signature"].count("v1,") == 1
        with pytest.raises(WebhookVerificationError):
            alone.verified(first)


async def test_the_accounts_default_is_for_jobs_that_name_no_address(settings: Settings) -> None:
    async with open_post(for_webhooks(settings), "bob") as post:
        with receiving() as receiver:
            default = await post.webhook(f"{receiver.url}/default")
            own = await post.webhook(f"{receiver.url}/own")
            await post.deliveries.set_default("alice", default.url, default.endpoint)
            async with post.couriers():
                await post.ended(None, account="bob")
                await post.until(await post.ended(None), DELIVERED)
                await post.until(await post.ended(own), DELIVERED)
                await post.deliveries.set_default("alice", None, None)
                await post.ended(None)
                await post.until(await post.ended(own), DELIVERED)
            assert [hit.path for hit in receiver.hits] == ["/default", "/own", "/own"]
            assert receiver.hits[0].verified(await post.secret(default))
        assert await post.broker.callbacks(10) == []


async def test_a_deleted_endpoint_ends_what_is_pending_for_it(settings: Settings) -> None:
    async with open_post(for_webhooks(settings)) as post:
        with receiving() as receiver:
            webhook = await post.webhook(receiver.url)
            delivery = await post.ended(webhook)
            await post.deliveries.delete_endpoint("alice", webhook.endpoint)
            async with post.couriers():
                found = await post.until(delivery, DEAD)
            assert found.last_error == "its endpoint was deleted"
            assert receiver.hits == []


async def test_a_record_that_cannot_be_read_holds_nobody_up(settings: Settings) -> None:
    async with open_post(for_webhooks(settings)) as post:
        with receiving() as receiver:
            webhook = await post.webhook(receiver.url)
            broken, well = await post.ended(webhook), await post.ended(webhook)
            key = post.broker.keys("job", broken.replace("msg_", "job_"))
            await post.broker.fetch(post.broker.redis.hdel(key, "tokens"))
            async with post.couriers():
                await post.until(well, DELIVERED)
                await post.until(broken, DELIVERED)
            told = {hit.id: json.loads(hit.body)["data"]["truncated"] for hit in receiver.hits}
        assert told == {broken: True, well: False}


async def test_more_callbacks_than_a_round_are_all_taken(settings: Settings) -> None:
    async with open_post(for_webhooks(settings)) as post:
        pipe = post.broker.redis.pipeline(transaction=False)
        for number in range(2 * ROUND + 1):
            pipe.xadd(post.broker.keys("callbacks"), {"job": f"job_{number}", "status": "succeeded"})
        await post.broker.fetch(pipe.execute())
        with receiving() as receiver:
            delivery = await post.ended(await post.webhook(receiver.url))
            async with post.couriers():
                await post.until(delivery, DELIVERED)
            assert receiver.ids() == [delivery]
        assert await post.broker.callbacks(1) == []


async def test_a_job_whose_record_has_gone_is_told_of_in_short(settings: Settings) -> None:
    async with open_post(for_webhooks(settings)) as post:
        with receiving() as receiver:
            webhook = await post.webhook(receiver.url)
            delivery = await post.ended(webhook)
            job = delivery.replace("msg_", "job_")
            await post.broker.fetch(post.broker.redis.delete(post.broker.keys("job", job)))
            async with post.couriers():
                await post.until(delivery, DELIVERED)
            event = receiver.hits[0].verified(await post.secret(webhook))
        assert event["type"] == "job.succeeded"
        assert (event["data"]["id"], event["data"]["truncated"]) == (job, True)


@pytest.fixture
def logged() -> Iterator[io.StringIO]:
    """Everything that is logged, down to debug, as it is written."""
    written, root = io.StringIO(), logging.getLogger()
    before, level = list(root.handlers), root.level
    logs.configure(Settings(log_level="debug", _env_file=None))  # type: ignore[call-arg]
    (handler,) = root.handlers
    assert isinstance(handler, logging.StreamHandler)
    handler.setStream(written)
    yield written
    root.handlers[:], root.level = before, level
    structlog.reset_defaults()


async def test_neither_secret_nor_url_is_logged(settings: Settings, logged: io.StringIO) -> None:
    async with open_post(for_webhooks(settings, webhook_schedule_s=(0.0, 0.1))) as post:
        with receiving(lambda _: Reply(500)) as receiver:
            webhook = await post.webhook(f"{receiver.url}/hook?token=hush")
            async with post.couriers():
                await post.until(await post.ended(webhook), DEAD)
            secret = await post.secret(webhook)
    assert "webhook attempt" in logged.getvalue()
    assert secret.removeprefix("whsec_") not in logged.getvalue()
    assert "hush" not in logged.getvalue()
