"""What every request can reach: the settings, the doors to Redis, and what this process keeps in its memory.

Made once by `app`; knows no route.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from collections import Counter as Counts
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field

from fastapi import Request

from herder.api.attendance import Attendance
from herder.api.cancelling import Canceller
from herder.api.known_keys import KnownKeys
from herder.api.market import Market
from herder.api.metrics import Metrics
from herder.api.streams import Streams
from herder.batches import Batches
from herder.broker import Broker
from herder.counting import Counter
from herder.doorbell import Doorbell
from herder.errors import Overloaded
from herder.feeding import Feeder
from herder.ledger import Ledger
from herder.modules import Module
from herder.prompts import Renderer
from herder.settings import Settings
from herder.store import Store, store_of
from herder.typed import Schemas

BATCHES_AT_ONCE = 4  # bodies in this process's memory, each of up to HERDER_BATCH_BYTES_MAX
OF_ONE_ACCOUNT = 2  # of these; whoever sends slowly shuts nobody else out
PLACE_WAIT_S = 2.0  # for one of these places

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass
class Allowance:
    """Requests that a key may still make here before its rate limit is asked in Redis again, by one at a time."""

    left: int = 0
    asking: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass
class Herd:
    """One process's view of the herd. `stopping` ends its long polls and streams; `full` sheds submits."""

    settings: Settings
    broker: Broker
    ledger: Ledger
    bell: Doorbell
    renderer: Renderer
    counter: Counter
    metrics: Metrics
    market: Market
    chain_key: bytes
    proxies: tuple[Network, ...] = ()
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    full: bool = False
    # Addresses that failed to authenticate too often, and until when (monotonic seconds) they are not even looked at.
    barred: dict[str, float] = field(default_factory=dict)
    allowances: dict[str, Allowance] = field(default_factory=dict)
    schemas: Schemas = field(default_factory=Schemas)
    streams: Streams = field(init=False)
    batches: Batches = field(init=False)
    feeder: Feeder = field(init=False)
    cancel: Canceller = field(init=False)
    keys: KnownKeys = field(init=False)
    attendance: Attendance = field(init=False)
    store: Store = field(init=False)
    modules: dict[str, Module] = field(default_factory=dict)
    batches_open: int = 0  # whose bodies are being read or worked on here
    batches_of: Counts[str] = field(default_factory=Counts)  # the same, of each account that has some
    place_left: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.streams = Streams(self.broker, self.bell, self.market, self.metrics, self.stopping)
        self.batches = Batches(self.broker)
        self.feeder = Feeder(self.batches)
        self.cancel = Canceller(self.broker, self.batches, self.feeder)
        self.keys = KnownKeys(self.ledger)
        self.attendance = Attendance(self.broker)
        self.store = store_of(self.settings)

    @contextlib.contextmanager
    def large_body(self, account: str) -> Iterator[None]:
        """Room to read, and work on, a body that may be as large as a batch's. Raises Overloaded.

        One account has at most half of all.
        """
        if (taken := self._taken(account)) is not None:
            raise Overloaded(f"{taken} are being read here just now", retry_after=2)
        self.batches_open += 1
        self.batches_of[account] += 1
        try:
            yield
        finally:
            self.batches_open -= 1
            self.batches_of[account] -= 1
            self.batches_of += Counts()  # forgets who has none
            self.place_left.set()

    @contextlib.asynccontextmanager
    async def large_body_soon(self, account: str) -> AsyncIterator[None]:
        """The same room, waited for if there is none, PLACE_WAIT_S at most. Raises Overloaded."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PLACE_WAIT_S):
                while self._taken(account) is not None:
                    self.place_left.clear()
                    await self.place_left.wait()
        with self.large_body(account):
            yield

    def _taken(self, account: str) -> str | None:
        """What has all the places that this account could have; None where one is free."""
        if self.batches_open >= BATCHES_AT_ONCE:
            return f"{BATCHES_AT_ONCE} large bodies"
        if self.batches_of[account] >= OF_ONE_ACCOUNT:
            return f"{OF_ONE_ACCOUNT} large bodies of this account"
        return None


def herd_of(request: Request) -> Herd:
    """The herd that this request came to."""
    herd = request.app.state.herd
    assert isinstance(herd, Herd)
    return herd
