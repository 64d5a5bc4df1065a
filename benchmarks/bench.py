"""A broker on a redis-server of the benchmark's own: the embedded one, with the durability that a herd has."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path

from herder.brief import Brief
from herder.broker import Broker, connect
from herder.embedded import EmbeddedRedis
from herder.ledger import Ledger
from herder.pricing import MILLI, Prices, Terms, base_fee
from herder.protocol import Ask, FinishReason, Lease, ModelCard, Outcome, Settlement, WorkerStats
from herder.settings import Settings

MODEL = "scripted"
TOKENS = 20
CARD = ModelCard(
    model=MODEL,
    context=4096,
    vocab_size=256,
    max_piece_bytes=1,
    template=None,
    bos_token="",
    eos_token="",
    adds_bos=False,
)
_jobs = count()


@contextlib.asynccontextmanager
async def a_broker(**settings: object) -> AsyncIterator[Broker]:
    """A connected broker with a funded account, `payer`, and one registered worker, `w`."""
    with tempfile.TemporaryDirectory(prefix="herd-bench-") as folder:
        server = EmbeddedRedis(Path(folder))
        url = await server.start()
        broker = await connect(Settings(redis_url=url, **settings))  # type: ignore[arg-type]
        try:
            await broker.set_prices(10, 1)
            await broker.register_worker("w", CARD, WorkerStats(16, 0, 0.0), None)
            ledger = Ledger(broker, b"bench")
            await ledger.create_account("payer")
            await ledger.deposit("payer", 10**12, "bench")
            yield broker
        finally:
            await broker.close()
            await server.stop()


async def an_ask(broker: Broker) -> Ask:
    """A job of 20 tokens at the base fee."""
    return an_ask_at(await broker.prices())


def an_ask_at(prices: Prices) -> Ask:
    """The same, where the price list is known."""
    base = base_fee(prices, TOKENS)
    return Ask(
        job_id=f"job_{next(_jobs):08d}",
        account="payer",
        key_id="key",
        model=MODEL,
        brief=Brief("hello"),
        tokens=TOKENS,
        terms=Terms(prices.set_prompt_fee, prices.fee_per_token, base, base),
        multiplier_milli=MILLI,
        offered=True,
        price_version=prices.version,
        kv_tokens=TOKENS + 5,
    )


def settled(lease: Lease) -> Settlement:
    """The whole answer, captured in full."""
    return Settlement(
        job_id=lease.job_id,
        attempt=lease.attempt,
        outcome=Outcome.SUCCEEDED,
        text="x" * TOKENS,
        finish_reason=FinishReason.LENGTH,
        prompt_tokens=5,
        completion_tokens=TOKENS,
        captured=lease.terms.fee,
    )
