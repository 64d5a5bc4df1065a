"""Plays one seed: so many random steps, each checked, then peace until every job has ended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import count

from herder.broker import connect
from herder.clock import SimulatedClock
from herder.lifecycle import TABLE
from herder.settings import Settings
from tests.simulation import checks, chores, clients, workers
from tests.simulation.states import Violation
from tests.simulation.world import Worker, World

FULL_CHECK_EVERY = 100
PEACE_ROUNDS = 200
_runs = count()

Operation = Callable[[World], Awaitable[None]]
OPERATIONS: dict[Operation, int] = {
    clients.submit: 16,
    clients.submit_again: 3,
    clients.cancel: 5,
    clients.pay: 4,
    clients.suspend: 2,
    workers.lease: 14,
    workers.renew: 12,
    workers.chunk: 16,
    workers.settle: 15,
    workers.release: 5,
    workers.vanish: 1,
    chores.sweep: 7,
    chores.pass_time: 12,
    chores.restart_redis: 1,
    chores.change_prices: 1,
    chores.read_callbacks: 3,
    chores.come_and_go: 2,
}

# The positive control: over many seeds each row of the lifecycle and each of these must have happened.
WORDS = {
    "submit": "OK REPLAY CONFLICT NO_ACCOUNT SUSPENDED NO_MODEL REPRICE FULL POOR",
    "cancel": "CANCELLED FLAGGED ENDED UNKNOWN",
    "renew": "OK CANCEL LOST",
    "chunk": "OK REPEAT CANCEL STALE GAP",
    "settle": "OK REPEAT STALE OVERDRAWN NOT_FLAGGED",
    "pay": "OK REPEAT CONFLICT NO_ACCOUNT POOR TOO_MUCH",
    "clock": "little lease back forward",
}
EXPECTED = (
    *(f"{operation} {word}" for operation, words in WORDS.items() for word in words.split()),
    *(f"row {row.row}" for row in TABLE),
    "leases whose reply is lost", "renewals whose reply is lost", "chunks whose reply is lost", "leases in company",
    "leased alone", "supervised deaths", "kills", "unsupervised deaths", "drains", "scripts lost", "restarts",
    "lapse put off after a restart", "lapses", "quarantines by the sweep", "job forgotten", "price changes",
    "callbacks taken", "workers coming and going",
)  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """What a seed found: nothing (`problem` is None), or a violation with the operations before it."""

    seed: int
    steps: int
    problem: str | None
    log: tuple[str, ...]
    counts: Counter[str]


def simulation_settings(url: str, prefix: str) -> Settings:
    """Short times and small limits, so that everything happens within a thousand steps."""
    return Settings(
        redis_url=url,
        redis_prefix=prefix,
        lease_ms=10_000,
        result_ttl_ms=300_000,
        queue_depth_max=12,
        lease_skips_max=4,
    )


async def play(url: str, seed: int, steps: int) -> Finding:
    """One seed on a prefix of its own; whatever goes wrong is the finding, an exception of the herd's included."""
    clock = SimulatedClock()
    broker = await connect(simulation_settings(url, f"sim{next(_runs)}"), clock)
    world = World(broker, clock, seed)
    problem = None
    try:
        await world.open()
        await _play_steps(world, steps)
        await _leave_in_peace(world)
        await checks.check_end(world)
    except Exception as error:  # a crash of the herd is a finding too
        problem = f"{type(error).__name__}: {error}"
    finally:
        await _clear(world)
        await broker.close()
    counts = world.reference.counts + Counter(
        {f"row {row}": times for row, times in world.reference.rows.items()}
    )
    return Finding(seed, world.step, problem, tuple(world.log), counts)


async def _play_steps(world: World, steps: int) -> None:
    operations, weights = list(OPERATIONS), list(OPERATIONS.values())
    for world.step in range(1, steps + 1):
        (operation,) = world.rng.choices(operations, weights)
        await operation(world)
        world.count(f"operation {operation.__name__}")
        await checks.check_step(world)
        if world.step % FULL_CHECK_EVERY == 0:
            await checks.check_all(world)


async def _leave_in_peace(world: World) -> None:
    """The old workers are gone, one healthy one comes: all that was accepted must end."""
    healthy = Worker("healthy", 4, 1_000)
    lease_ms = world.broker.settings.lease_ms
    world.workers[healthy.name] = healthy
    world.note("peace")
    for _ in range(PEACE_ROUNDS):
        if not any(job.live for job in world.reference.jobs.values()):
            return
        await workers.lease_for(world, healthy, healthy.slots - len(healthy.held), lost=False)
        for held in list(healthy.held.values()):
            await workers.finish_well(world, healthy, held)
        await checks.check_step(world)
        if not world.reference.queued():
            world.clock.advance(lease_ms)
            await chores.sweep(world)
    live = [job.ask.job_id for job in world.reference.jobs.values() if job.live]
    raise Violation(f"still live after {PEACE_ROUNDS} rounds of peace: {live}")


async def _clear(world: World) -> None:
    """Takes the seed's keys away."""
    redis = world.broker.redis
    keys = [key async for key in redis.scan_iter(match=world.broker.keys.prefix + ":*", count=1_000)]
    if keys:
        await redis.unlink(*keys)
