"""Plays one seed: so many random steps, each checked, then peace until every job has ended."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from herder.broker import connect
from herder.clock import SimulatedClock
from herder.lifecycle import TABLE
from herder.settings import Settings
from tests.simulation import batchers, checks, chores, clients, couriers, endpoints, herders, peace, workers
from tests.simulation.world import World

FULL_CHECK_EVERY = 100
_runs = itertools.count()

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
    herders.attend: 8,
    herders.die: 1,
    chores.sweep: 7,
    chores.pass_time: 12,
    chores.restart_redis: 1,
    chores.change_prices: 1,
    chores.come_and_go: 2,
    batchers.store: 6,
    batchers.charge: 6,
    batchers.feed: 7,
    batchers.abandon: 2,
    batchers.expire: 1,
    endpoints.choose_default: 2,
    endpoints.change: 2,
    couriers.collect: 7,
    couriers.claim: 8,
    couriers.write: 1,
    couriers.answer: 12,
    couriers.redeliver: 2,
    couriers.redeliver_all: 1,
    couriers.fail: 1,
    couriers.read: 3,
}

# What a seed has more of, or less, by module: a bit of everything seldom goes far in any direction. Seeds take turns.
MOODS: dict[str, dict[str, float]] = {
    "jobs": {"batchers": 0.05, "endpoints": 0.05, "couriers": 0.1},
    "batches": {"batchers": 2.5, "workers": 1.5, "endpoints": 1, "couriers": 0.2, "clients": 0.4},
    "webhooks": {"couriers": 2.5, "endpoints": 2, "workers": 0.7, "batchers": 0.3},
    "all": {},
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
    "store": "OK CHARGED LOST",
    "charge": "OK REPLAY CONFLICT NO_ACCOUNT SUSPENDED NO_MODEL REPRICE FULL POOR LOST",
    "feed": "MORE FULL DONE UNKNOWN",
    "abandon": "OK ENDED UNKNOWN",
    "address": "OK DISABLED FULL NO_ACCOUNT",
    "endpoint": "rotate enable disable delete UNKNOWN",
    "attempted": "OK STALE",
    "redeliver": "OK PENDING UNKNOWN GONE DISABLED",
}
EXPECTED = (
    *(f"{operation} {word}" for operation, words in WORDS.items() for word in words.split()),
    *(f"row {row.row}" for row in TABLE),
    "leases whose reply is lost", "renewals whose reply is lost", "chunks whose reply is lost", "leases in company",
    "leased alone", "supervised deaths", "kills", "unsupervised deaths", "drains", "scripts lost", "restarts",
    "lapse put off after a restart", "lapses", "quarantines by the sweep", "job forgotten", "price changes",
    "passed by a longer match", "left to another worker", "too many answers for a worker",
    "a generation of beginnings is over",
    "callbacks taken", "workers coming and going",
    "store steps repeated", "charged in part", "feed steps bounded by their bytes", "stored batches that expire",
    "batches ended", "batches ended by cancelling", "items of a cancelled batch passed by",
    "batch purged in steps", "batch forgotten",
    "default set", "default taken away", "callbacks answered for twice", "couriers that die with callbacks in hand",
    "attempts claimed", "couriers that die with attempts in hand", "attempts given up", "a full lane",
    "a lane that is down", "lanes that are up again", "a full host", "a full account",
    "held back: endpoint_down", "held back: busy",
    "lanes that wait for their turn", "late answers that count", "bodies written: True", "bodies written: False",
    "pending after an attempt", "delivered after an attempt", "dead after an attempt", "endpoints off after 410",
    "delivery forgotten",
    "presences renewed", "presences renewed by a replay", "presences renewed late", "presences asked for and gone",
    "absence forgiven", "sweeps after a pause", "absences left to the next sweep", "absence from a batch",
    "absence from a batch that is cancelled", "a job ends in presence", "a batch ends in presence",
    "renewals of presence whose reply is lost",
    "herders that die with callers",
)  # fmt: skip


def seeds_of(mood: str, first: int, count: int) -> range:
    """So many seeds of one mood, from `first` on."""
    start = first + (list(MOODS).index(mood) - first) % len(MOODS)
    return range(start, start + count * len(MOODS), len(MOODS))


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
        presence_ms=16_000,
        result_ttl_ms=300_000,
        queue_depth_max=12,
        lease_skips_max=3,
        prefix_window_ms=5_000,
        prefix_wait_ms=1_500,
        webhook_schedule_s=(0.5, 5, 60),
        webhook_timeout_ms=5_000,
        webhook_host_concurrency=2,
        webhook_endpoints_max=3,
        webhook_rotation_ms=50_000,
        webhook_ttl_ms=200_000,
    )


async def play(url: str, seed: int, steps: int) -> Finding:
    """One seed on a prefix of its own; whatever goes wrong is the finding, an exception of the herd's included."""
    clock = SimulatedClock()
    broker = await connect(simulation_settings(url, f"sim{next(_runs)}"), clock)
    world = World(broker, clock, seed)
    problem = None
    try:
        await world.open()
        await _play_steps(world, seed, steps)
        await peace.come_to_rest(world)
        await checks.check_end(world)
        await peace.forget_all(world)
    except Exception as error:  # a crash of the herd is a finding too
        problem = f"{type(error).__name__}: {error}"
    finally:
        await _clear(world)
        await broker.close()
    counts = world.reference.counts + Counter(
        {f"row {row}": times for row, times in world.reference.rows.items()}
    )
    return Finding(seed, world.step, problem, tuple(world.log), counts)


async def _play_steps(world: World, seed: int, steps: int) -> None:
    mood = list(MOODS.values())[seed % len(MOODS)]
    operations = list(OPERATIONS)
    weights = [n * mood.get(op.__module__.rpartition(".")[2], 1) for op, n in OPERATIONS.items()]
    for world.step in range(1, steps + 1):
        (operation,) = world.rng.choices(operations, weights)
        await operation(world)
        world.count(f"operation {operation.__name__}")
        await checks.check_step(world)
        if world.step % FULL_CHECK_EVERY == 0:
            await checks.check_all(world)


async def _clear(world: World) -> None:
    """Takes the seed's keys away."""
    redis = world.broker.redis
    keys = [key async for key in redis.scan_iter(match=world.broker.keys.prefix + ":*", count=1_000)]
    if keys:
        await redis.unlink(*keys)
