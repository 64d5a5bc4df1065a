"""What happens around the ring in the simulation: sweeps, time, restarts of Redis, new prices, workers' comings."""

from __future__ import annotations

from unittest.mock import patch

from herder import broker
from herder.broker import SWEEP_LIMIT
from tests.simulation.states import expect
from tests.simulation.world import CARD, MODEL, World

NEVER_MS = 10**12


async def sweep(world: World) -> None:
    """What lapsed goes back, what ended long ago is forgotten."""
    limit = world.rng.choice((1, 2, 3, 7, SWEEP_LIMIT))
    pause_ms = world.rng.choice((30_000, NEVER_MS, NEVER_MS, NEVER_MS))
    world.tick()
    before = [job.ask.job_id for job in world.reference.running()]
    run_id = str((await world.broker.fetch(world.broker.redis.info("server")))["run_id"])
    predicted = world.reference.sweep(run_id, limit, pause_ms)
    with patch.multiple(broker, SWEEP_LIMIT=limit, SWEEP_PAUSE_MS=pause_ms):
        said = await world.broker.sweep()
    world.note(f"sweep {limit} at {world.reference.now}: {said}", *before)
    world.reference.counts["lapses"] += said[0]
    world.reference.counts["quarantines by the sweep"] += said[1]
    expect(said, predicted, "sweep")


async def pass_time(world: World) -> None:
    """Mostly a little; at times past the lease (what died alone may hang); or the server's clock jumps either way."""
    rng, lease_ms = world.rng, world.broker.settings.lease_ms
    hangs = any(job.blame_alone for job in world.reference.running())
    kind = rng.choices(("little", "lease", "back", "forward"), (20, 20 if hangs else 6, 1, 1))[0]
    ms = {
        "little": rng.randint(1, 2_000),
        "lease": lease_ms + rng.randint(0, lease_ms),
        "back": -rng.randint(1, 120_000),
        "forward": rng.randint(60_000, 400_000),
    }[kind]
    world.clock.advance(ms)
    world.note(f"time {ms:+d} to {world.clock.now_ms}")
    world.count(f"clock {kind}")


async def restart_redis(world: World) -> None:
    """What a restart of Redis looks like from here: another run id, no scripts."""
    redis = world.broker.redis
    if world.chance(0.5):
        await world.broker.fetch(redis.script_flush())
        world.count("scripts lost")
    else:
        if world.reference.run_id is not None:
            await world.broker.fetch(redis.hset(world.broker.keys("server"), "run_id", "another life"))
            world.reference.run_id = "another life"
        world.count("restarts")
    world.note("restart of Redis")


async def change_prices(world: World) -> None:
    """New prices, a free herd and a very dear one among them."""
    await world.set_prices(
        *world.rng.choice(((10, 1), (10, 1), (0, 0), (7, 3), (0, 1), (10**12 + 7, 10**9 + 3)))
    )
    world.note(f"prices {world.prices}")
    world.count("price changes")


async def come_and_go(world: World) -> None:
    """A worker registers again, or leaves the list (what it holds it still holds); a rate limit is asked."""
    worker = world.rng.choice(list(world.workers.values()))
    world.tick()
    if world.chance(0.5):
        await world.broker.register_worker(worker.name, CARD, worker.stats, b"vocabulary")
        world.reference.line.beat(worker.name, worker.slots)
    else:
        await world.broker.leave(worker.name)
        world.reference.line.leave(worker.name)
    world.tick()
    await world.ledger.throttle(f"key-{MODEL}", 600)
    world.note(f"come and go {worker.name}")
    world.count("workers coming and going")
