"""One simulated herd: the broker on a real Redis, the reference beside it, the actors' own views, a log of it all.

The views may be wrong (a reply was lost, a worker was away); the reference never is.
"""

from __future__ import annotations

import json
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from herder.batches import Batches, Charge, Item
from herder.broker import Broker
from herder.clock import SimulatedClock
from herder.deliveries import Deliveries
from herder.ledger import Ledger
from herder.pricing import Prices
from herder.protocol import Ask, Chunk, Lease, ModelCard, Settlement, WorkerStats
from herder.webhook_records import NewDelivery
from tests.simulation.reference import Reference
from tests.simulation.states import Account
from tests.simulation.webhook_reference import (
    ACCOUNT_MAX,
    DOWN_AFTER,
    LOOKED_MAX,
    PROBE_MAX_MS,
    PROBE_MS,
)

MODEL = "toy"
CARD = ModelCard(MODEL, 4_096, 512, 16, None, "<s>", "</s>", adds_bos=True)
LOG_LINES = 30
ACCOUNTS = ("ann", "bob", "cay", "poor", "whale")
RICH = 10_000_000
WHALE = 2**52 + 12_345_678_901  # amounts that do not fit the digits of a float's decimal form
HERDERS = 3
WORKERS = {"w1": (4, 400), "w2": (2, 1_000), "w3": (1, 200)}  # slots, KV cells
EACH = """
local said = {}
for i, command in ipairs(cjson.decode(ARGV[1])) do said[i] = redis.call(unpack(command)) end
return said
"""

ANSWERS = (1, 1, 1, 1, 1, 1, 2, 3, 4)  # of one job

# Chains as prompts have them: an opening in common, what goes on, what goes another way.
CHAINS = tuple(
    tuple(f"{2**depth}.{family}{'' if depth < 2 else branch}" for depth in range(length))
    for family in "ab"
    for branch in "xy"
    for length in (1, 2, 3, 4)
)

# Reads of Redis, and what judges the replies: one for each.
Look = tuple[list[list[str]], Callable[[list[Any]], None]]
Answer = Sequence[tuple[str, NewDelivery | None]]


@dataclass
class Draft:
    """A batch as its submission goes on: priced items, how many are stored, what is to be charged."""

    charge: Charge
    items: list[Item]
    stored: int = 0
    priced_again: bool = False  # what is stored has old prices
    answered: bool = False  # the client believes that it is done


@dataclass
class Held:
    """A lease as its worker sees it."""

    lease: Lease
    kv: int
    told: int = 0
    stop: bool = False
    pending: Chunk | None = None  # its reply was lost: it is sent again as it was
    chunks: list[Chunk] = field(default_factory=list)

    @property
    def pair(self) -> tuple[str, int]:
        """What it says of itself in a renewal."""
        return self.lease.job_id, self.lease.attempt


@dataclass
class Worker:
    """A worker: what it believes it holds, what it once held, and settlements whose reply never came."""

    name: str
    slots: int
    kv_total: int
    held: dict[str, Held] = field(default_factory=dict)
    ghosts: list[Held] = field(default_factory=list)
    unanswered: list[Settlement] = field(default_factory=list)

    @property
    def kv_free(self) -> int:
        """Free cells, as far as it knows."""
        return self.kv_total - sum(held.kv for held in self.held.values())

    @property
    def slots_free(self) -> int:
        """Free slots, as far as it knows: a job takes one for each of its answers."""
        return max(0, self.slots - sum(held.lease.brief.n for held in self.held.values()))

    @property
    def stats(self) -> WorkerStats:
        """A heartbeat's numbers."""
        return WorkerStats(self.slots, len(self.held), 40.0, kv_tokens=self.kv_total)

    def drop(self, job_id: str) -> None:
        """Believe that a job is gone, and remember it for mischief."""
        if job_id in self.held:
            self.ghosts.append(self.held.pop(job_id))
            del self.ghosts[:-8]


class World:
    """Everything one seed plays with."""

    def __init__(self, broker: Broker, clock: SimulatedClock, seed: int) -> None:
        self.broker, self.clock, self.ledger = broker, clock, Ledger(broker, b"simulation")
        self.rng = random.Random(seed)
        self.batches, self.deliveries = (
            Batches(broker),
            Deliveries(
                broker, DOWN_AFTER, PROBE_MS, PROBE_MAX_MS, account_max=ACCOUNT_MAX, looked_max=LOOKED_MAX
            ),
        )
        self.reference = Reference(broker.settings)
        self.workers = {name: Worker(name, *size) for name, size in WORKERS.items()}
        self.prices = Prices(10, 1, 0)
        self.asks: deque[Ask] = deque(maxlen=20)
        self.made = 0
        self.subjects_taken: list[str] = []  # of every callback that was taken
        self.answers: deque[Answer] = deque(maxlen=5)  # of couriers, which may be given again
        self.drafts: list[Draft] = []
        self.herders: list[dict[str, None]] = [{} for _ in range(HERDERS)]  # each one's waiting callers
        self.attempts: list[tuple[str, int]] = []  # claimed and not yet answered for
        self.attempts_over: deque[tuple[str, int]] = deque(maxlen=20)
        self.touched: list[str] = []
        self.step = 0
        self.log: deque[str] = deque(maxlen=LOG_LINES)

    def note(self, text: str, *touched: str) -> None:
        """One line of the log; `touched` (jobs, batches, deliveries) are compared with Redis though they have ended."""
        self.log.append(f"{self.step:5d}  {text}")
        self.touched += touched

    def count(self, what: str) -> None:
        """Count something of interest."""
        self.reference.counts[what] += 1

    def chance(self, share: float) -> bool:
        """True for this share of the calls."""
        return self.rng.random() < share

    def name(self, kind: str) -> str:
        """A new id, such as `job_17`."""
        self.made += 1
        return f"{kind}{self.made}"

    async def look(self, commands: list[list[str]]) -> list[Any]:
        """What Redis answers to some reads, in one round trip and at one moment."""
        said: list[Any] = await self.broker.fetch(self.broker.redis.eval(EACH, 0, json.dumps(commands)))
        return said

    def tick(self) -> None:
        """Call before every broker method that runs a script."""
        self.reference.tick(self.clock.now_ms)

    async def open(self) -> None:
        """A model, workers, funded accounts, a price list."""
        reference = self.reference
        await self.set_prices(self.prices.set_prompt_fee, self.prices.fee_per_token)
        for worker in self.workers.values():
            self.tick()
            await self.broker.register_worker(worker.name, CARD, worker.stats, None)
            reference.line.beat(worker.name, worker.slots)
        for name in ACCOUNTS:
            self.tick()
            await self.ledger.create_account(name)
            reference.accounts[name] = Account()
            amount = {"poor": 60, "whale": WHALE}.get(name, RICH)
            self.tick()
            await self.ledger.deposit(name, amount, "first")
            reference.mint_into(name, amount, "first")

    async def set_prices(self, set_prompt_fee: int, fee_per_token: int) -> None:
        """Change the price list."""
        self.tick()
        self.prices = await self.broker.set_prices(set_prompt_fee, fee_per_token)
        self.reference.price_version = self.prices.version
