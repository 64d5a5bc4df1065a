"""How a seed ends: nobody makes trouble any more, so what was accepted must end, be told, and be forgotten."""

from __future__ import annotations

from herder.keys import TABLE
from tests.simulation import batchers, checks, chores, couriers, workers
from tests.simulation.states import Violation, expect
from tests.simulation.world import Worker, World

ROUNDS = 300
FEED_LIMIT = 100


async def come_to_rest(world: World) -> None:
    """The old workers and couriers are gone, a healthy one of each comes: all ends, all is delivered."""
    healthy = Worker("healthy", 4, 1_000)
    for worker in world.workers.values():
        world.tick()
        await world.broker.leave(worker.name)
        world.reference.line.leave(worker.name)
    world.workers[healthy.name] = healthy
    world.attempts.clear()
    world.note("peace")
    for _ in range(ROUNDS):
        if not _unrest(world):
            return
        await _feed_all(world)
        await workers.lease_for(world, healthy, healthy.slots_free, lost=False)
        for held in list(healthy.held.values()):
            await workers.finish_well(world, healthy, held)
        await couriers.collect_some(world, 100, dies=False)
        await couriers.claim_some(world, 100, dies=False)
        while world.attempts:
            await couriers.answer_for(world, *world.attempts.pop(), "ok")
        await checks.check_step(world)
        if not world.reference.queued():
            world.clock.advance(world.broker.settings.lease_ms)
            await chores.sweep(world)
    raise Violation(f"still at work after {ROUNDS} rounds of peace: {_unrest(world)}")


def _unrest(world: World) -> list[str]:
    """What has not come to its end."""
    reference = world.reference
    return [
        *(name for name, job in reference.jobs.items() if job.live),
        *(name for name, batch in reference.batches.batches.items() if batch.ended_ms is None),
        *(told.subject for told in reference.callbacks),
        *(name for name, delivery in reference.webhooks.deliveries.items() if delivery.pending),
    ]


async def _feed_all(world: World) -> None:
    for batch in await world.batches.waiting(FEED_LIMIT):
        while await batchers.feed_step(world, batch, FEED_LIMIT) == "MORE":
            pass


async def forget_all(world: World) -> None:
    """Long after, nothing is left of any job, batch or delivery but what was paid for them."""
    reference, settings = world.reference, world.broker.settings
    until = reference.now + max(settings.result_ttl_ms, settings.webhook_ttl_ms)
    for _ in range(ROUNDS * 10):
        if not reference.jobs and not reference.batches.batches and not reference.webhooks.deliveries:
            break
        if reference.now < until:
            world.clock.advance(settings.result_ttl_ms)
        await chores.sweep(world)
    await checks.check_all(world)
    prefix = world.broker.keys.prefix
    kept = {name for name, kind in TABLE.items() if kind.lifetime in ("permanent", "ttl")}
    stored = [
        world.broker.keys(kind, name)
        for name in reference.batches.storing
        for kind in ("batch", "batch_items")
    ]
    known = {TABLE[name].pattern.partition(":")[0] for name in kept} | {"clocks", "workers", "model-workers"}
    found = [key.decode() async for key in world.broker.redis.scan_iter(match=prefix + ":*", count=1_000)]
    left = [key for key in found if key.split(":")[1] not in known and key not in stored]
    expect(left, [], "keys of what should be forgotten")
