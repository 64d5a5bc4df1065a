"""Deliveries posted, claimed and answered for by hand, without a courier, at a time that stands still."""

from __future__ import annotations

from collections import Counter
from itertools import count

from herder.broker import Broker
from herder.clock import SimulatedClock
from herder.deliveries import CLAIM_MARGIN_MS, Deliveries
from herder.webhook_records import Attempted, Delivery, DeliveryStatus, NewDelivery, lane_of

HOST_MAX = 8  # the default
DAY_MS = 86_400_000
_numbers = count()


class Desk:
    """Deliveries by host, posted and claimed by hand."""

    def __init__(self, broker: Broker, clock: SimulatedClock) -> None:
        self.broker, self.clock, self.door = broker, clock, Deliveries(broker)

    async def post(self, host: str, times: int = 1, account: str = "alice", path: str = "") -> list[str]:
        """So many deliveries to a host, due now; each path is an endpoint, and without one it is a lane of before."""
        ids = [f"msg_{host}{path}{next(_numbers):05}" for _ in range(times)]
        url, endpoint = f"http://{host}/{path}", f"ep_{path or 1}"
        lane = lane_of(account, url, endpoint)
        lane = lane if path else lane.partition("/")[0]
        answered = []
        for id_ in ids:
            entry = await self.broker.fetch(
                self.broker.redis.xadd(self.broker.keys("callbacks"), {"job": id_})
            )
            new = NewDelivery(id_, account, endpoint, url, lane, "job.succeeded", "job_1", 1)
            answered.append((entry.decode(), new))
        assert await self.door.answer(answered) == (times, times)
        return ids

    async def claim(self, limit: int = 100) -> list[tuple[str, int]]:
        return await self.door.claim(limit)

    async def hosts(self, limit: int) -> Counter[str]:
        """Whose attempts a claim gives."""
        return Counter(id_.removeprefix("msg_")[0] for id_, _ in await self.claim(limit))

    async def tell(self, id_: str, attempt: int, pause_ms: int | None = None) -> bool:
        """What came of an attempt: again after a pause, or dead."""
        return await self.door.attempted(
            Attempted(id_, attempt, DeliveryStatus.DEAD, pause_ms=pause_ms, error="no")
        )

    async def held(self, *ids: str) -> list[Delivery]:
        """Deliveries as they are shown, with why they wait."""
        found = [await self.door.delivery(id_) for id_ in ids]
        return await self.door.held_back([one for one in found if one is not None])

    def later(self, ms: int) -> None:
        self.clock.advance(ms)

    @property
    def flight_ms(self) -> int:
        return self.broker.settings.webhook_timeout_ms + CLAIM_MARGIN_MS
