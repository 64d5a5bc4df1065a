"""The webhook of a batch: one when all of it has ended, and one for each item only where the batch wants that."""

from __future__ import annotations

from herder.api.batch_shapes import Batch, batch_fields
from herder.settings import Settings
from herder.webhook_records import DeliveryStatus
from tests.e2e.receiver import receiving
from tests.integration.batch_bench import BatchBench, item
from tests.integration.post import for_webhooks, open_post

DELIVERED = DeliveryStatus.DELIVERED


async def test_a_batch_is_told_once_when_it_has_ended(settings: Settings) -> None:
    async with open_post(for_webhooks(settings), "ann") as post:
        bench = BatchBench(post.ring)
        with receiving() as receiver:
            webhook = await post.webhook(f"{receiver.url}/batch", "ann")
            batch = await bench.paid(3, batch="batch_b3", webhook=webhook, metadata={"story": "12"})
            await bench.fed(batch)
            async with post.couriers():
                await bench.serve(2)
                job = await post.ended(await post.webhook(f"{receiver.url}/job"))
                await post.until(job, DELIVERED)
                assert [hit.path for hit in receiver.hits] == ["/job"], "two of three have ended"
                await bench.serve(1)
                await post.until(batch.replace("batch_", "msg_"), DELIVERED)
            hit = receiver.hits[-1]
            assert [hit.path for hit in receiver.hits] == ["/job", "/batch"]
            event = hit.verified(await post.secret(webhook))
        record = await bench.record(batch)
        shown = Batch(**batch_fields(record, None)).model_dump(mode="json")  # type: ignore[arg-type]
        assert event["type"] == "batch.ended"
        assert event["data"] == shown | {"url": f"https://herd.example/v1/batches/{batch}"}
        assert event["data"]["counts"]["succeeded"] == 3
        assert event["data"]["metadata"] == {"story": "12"}


async def test_the_default_address_is_for_the_batch_and_not_for_its_items(settings: Settings) -> None:
    async with open_post(for_webhooks(settings), "ann") as post:
        bench = BatchBench(post.ring)
        with receiving() as receiver:
            webhook = await post.webhook(receiver.url, "ann")
            await post.deliveries.set_default("ann", webhook.url, webhook.endpoint)
            batch = await bench.paid(2)
            await bench.fed(batch)
            await bench.serve(2)
            async with post.couriers():
                await post.until(batch.replace("batch_", "msg_"), DELIVERED)
            assert receiver.ids() == [batch.replace("batch_", "msg_")]


async def test_each_item_where_the_batch_says_so(settings: Settings) -> None:
    async with open_post(for_webhooks(settings), "ann") as post:
        bench = BatchBench(post.ring)
        with receiving() as receiver:
            webhook = await post.webhook(receiver.url, "ann")
            charge = await bench.charge(2, webhook=webhook)
            items = [item(index, webhook=webhook) for index in range(2)]
            await bench.batches.store("ann", charge.batch, 0, items)
            await bench.batches.charge(charge)
            await bench.fed(charge.batch)
            jobs = await bench.serve(2)
            ids = [name.partition("_")[2] for name in (*jobs, charge.batch)]
            async with post.couriers():
                for id_ in ids:
                    await post.until(f"msg_{id_}", DELIVERED)
            assert sorted(receiver.ids()) == sorted(f"msg_{id_}" for id_ in ids)
            secret = await post.secret(webhook)
            told = {
                event["data"]["id"]: event["data"] for event in (h.verified(secret) for h in receiver.hits)
            }
        assert [told[job]["custom_id"] for job in jobs] == ["row-0", "row-1"]
        assert {told[job]["batch_id"] for job in jobs} == {charge.batch}
