"""A bench for batches: items, charges and their feeding without ceremony, on a real broker."""

from __future__ import annotations

from dataclasses import replace
from itertools import count

from herder.batches import Batches, BatchRecord, Charge, FeedState, Item, item_id
from herder.brief import Brief
from herder.lifecycle import Status
from herder.protocol import Outcome
from tests.integration.ring import MODEL, Ring

TOKENS = 20
FEE = 30  # 10 a prompt, 1 a token
_batches = count(1)


def item(index: int = 0, **more: object) -> Item:
    """One item of 20 tokens at the base fee."""
    plain = Item(
        model=MODEL, tokens=TOKENS, base=FEE, fee=FEE, multiplier_milli=1_000, offered=False, head_start_ms=0,
        kv_tokens=TOKENS + 5, input=Brief(f"hello {index}").as_json(), custom_id=f"row-{index}",
    )  # fmt: skip
    return replace(plain, **more)  # type: ignore[arg-type]


class BatchBench:
    """Batches of one account, ann."""

    def __init__(self, ring: Ring) -> None:
        self.ring = ring
        self.batches = Batches(ring.broker)

    async def charge(self, total: int, **more: object) -> Charge:
        """What would be paid for so many items."""
        prices = await self.ring.broker.prices()
        plain = Charge(
            batch=f"batch_{next(_batches):06d}", account="ann", key_id="key_1", models=(MODEL,), total=total,
            refused=0, tokens=TOKENS * total, base=FEE * total, fee=FEE * total, set_prompt_fee=10,
            fee_per_token=1, price_version=prices.version,
        )  # fmt: skip
        return replace(plain, **more)  # type: ignore[arg-type]

    async def stored(self, total: int, **more: object) -> Charge:
        """Items in Redis, not paid for."""
        charge = await self.charge(total, **more)
        await self.batches.store("ann", charge.batch, 0, [item(index) for index in range(total)])
        return charge

    async def paid(self, total: int, **more: object) -> str:
        """A batch that was paid for; nothing of it is in line."""
        return (await self.batches.charge(await self.stored(total, **more)))[0]

    async def fed(self, batch: str, limit: int = 64) -> FeedState:
        """Step after step until there is nothing more to do just now; the last state."""
        state = FeedState.MORE
        while state is FeedState.MORE:
            state, _ = await self.batches.feed(batch, limit)
        return state

    async def record(self, batch: str) -> BatchRecord:
        """The batch; it must be there."""
        record = await self.batches.batch(batch)
        assert record is not None
        return record

    async def serve(self, count_: int, outcome: Outcome = Outcome.SUCCEEDED, produced: int = 5) -> list[str]:
        """Answer so many jobs; their ids."""
        leases = await self.ring.lease(slots=count_, kv=10**9)
        assert len(leases) == count_
        for lease in leases:
            await self.ring.settle(lease, produced, outcome)
        return [lease.job_id for lease in leases]

    async def statuses(self, batch: str) -> list[Status | None]:
        """The status of each item; None where it is not in line yet."""
        record = await self.record(batch)
        jobs = [await self.ring.broker.job(item_id(batch, index)) for index in range(record.total)]
        return [job.status if job else None for job in jobs]
