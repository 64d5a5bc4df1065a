"""A bench for the transitions: asks, leases and settlements without ceremony, on a real broker."""

from __future__ import annotations

from dataclasses import replace
from itertools import count

from herder.brief import Brief
from herder.broker import Broker
from herder.ledger import Ledger
from herder.pricing import MILLI, Terms, base_fee, bid_fee, capture
from herder.protocol import (
    Accepted,
    Ask,
    Chunk,
    FinishReason,
    Lease,
    ModelCard,
    Outcome,
    Settlement,
    SettleReply,
    WorkerStats,
)

MODEL = "toy"
CARD = ModelCard(
    model=MODEL,
    context=1_024,
    vocab_size=512,
    max_piece_bytes=16,
    template=None,
    bos_token="<s>",
    eos_token="</s>",
    adds_bos=True,
)
STATS = WorkerStats(slots=4, busy=0, tokens_per_second=0.0)
_jobs = count(1)


class Ring:
    """One model, funded accounts, workers by name."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.ledger = Ledger(broker, b"ring")

    async def open(self, *accounts: str, funds: int = 1_000_000, workers: tuple[str, ...] = ("w1",)) -> Ring:
        """Register the model and fund the accounts."""
        for worker in workers:
            await self.broker.register_worker(worker, CARD, STATS, None)
        for account in accounts:
            await self.ledger.create_account(account)
            if funds:
                await self.ledger.deposit(account, funds, f"first-{account}")
        return self

    async def ask(
        self, account: str, *, tokens: int = 20, multiplier: float = 1.0, offered: bool = True, **more: object
    ) -> Ask:
        """An ask of this account at the price list of now."""
        prices = await self.broker.prices()
        milli = round(multiplier * MILLI)
        base = base_fee(prices, tokens)
        ask = Ask(
            job_id=f"job_{next(_jobs):06d}",
            account=account,
            key_id="key_1",
            model=MODEL,
            brief=Brief("hello"),
            tokens=tokens,
            terms=Terms(prices.set_prompt_fee, prices.fee_per_token, base, bid_fee(base, milli)),
            multiplier_milli=milli,
            offered=offered,
            price_version=prices.version,
            kv_tokens=tokens + 5,
        )
        return replace(ask, **more)  # type: ignore[arg-type]

    async def submit(self, account: str, **more: object) -> Accepted:
        """Ask and submit."""
        return await self.broker.submit(await self.ask(account, **more))  # type: ignore[arg-type]

    async def lease(self, worker: str = "w1", slots: int = 1, kv: int = 10_000) -> list[Lease]:
        """Lease for a worker."""
        return await self.broker.lease(worker, MODEL, slots=slots, kv_free=kv, kv_total=kv)

    async def lease_one(self, worker: str = "w1") -> Lease:
        """Lease exactly one job."""
        (lease,) = await self.lease(worker)
        return lease

    async def say(self, lease: Lease, text: str, first: int = 0, count: int = 1, worker: str = "w1") -> str:
        """Report a chunk; returns the reply."""
        (reply,) = await self.broker.chunk(worker, [Chunk(lease.job_id, lease.attempt, first, count, text)])
        return reply.value

    async def settle(
        self, lease: Lease, produced: int, outcome: Outcome = Outcome.SUCCEEDED, worker: str = "w1"
    ) -> SettleReply:
        """End an attempt that produced so many tokens."""
        failed = outcome is Outcome.FAILED
        settlement = Settlement(
            job_id=lease.job_id,
            attempt=lease.attempt,
            outcome=outcome,
            text="x" * produced,
            finish_reason=None if failed else FinishReason.STOP,
            prompt_tokens=5,
            completion_tokens=produced,
            captured=0 if failed else capture(lease.terms, produced),
            error_code="engine_error" if failed else None,
            error_message="it broke" if failed else None,
        )
        return await self.broker.settle(worker, settlement)

    async def balances(self, account: str) -> tuple[int, int]:
        """(available, held)."""
        record = await self.ledger.account(account)
        assert record is not None
        return record.available, record.held
