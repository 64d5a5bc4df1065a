"""Buying a batch: its items are stored, and then paid for in one charge, whatever gets lost on the way.

What was stored and not paid for expires. Knows no HTTP, and nothing of how items came to be.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from herder.api.batch_items import Fitted, fitted_items
from herder.api.batch_pricing import Bill, Want, billed
from herder.api.batch_reading import SLICE, BatchAsk
from herder.api.destinations import webhook_for
from herder.api.offers import Wish, listed, within
from herder.api.purchase import PRICE_TRIES, SEND_PAUSE_S, SEND_TRIES, bought_with
from herder.api.state import Herd
from herder.apikeys import ALPHABET
from herder.batches import Batches, Charge, Item, PricesChanged, StoreLost
from herder.chains import chain_for
from herder.errors import (
    AccountSuspended,
    InsufficientFunds,
    NotFound,
    Overloaded,
    RedisUnavailable,
    Refusal,
)
from herder.pricing import MILLI, Prices
from herder.protocol import Webhook
from herder.records import AccountRecord, KeyRecord, ModelState

BATCH_ID_CHARS = 22  # 131 bits
T = TypeVar("T")


@dataclass(frozen=True)
class Bought:
    """A batch that was paid for: an earlier one of the same Idempotency-Key where `replayed`."""

    batch: str
    replayed: bool


class _SpentMeanwhile(Exception):
    """The balance no longer reaches as far as it did when it was looked at."""


async def batch_replayed(
    herd: Herd, key: KeyRecord, ask: BatchAsk, idempotency_key: str | None
) -> Bought | None:
    """The batch that this Idempotency-Key has made already; looked for before anything is rendered."""
    if idempotency_key is None:
        return None
    batch = await bought_with(herd, key, idempotency_key, ask.digest)
    return Bought(batch, replayed=True) if batch is not None else None


async def batch_bought(
    herd: Herd, key: KeyRecord, ask: BatchAsk, idempotency_key: str | None, *, attended: bool = False
) -> Bought:
    """Render, price, store and charge; priced again where the list changed meanwhile, or the balance.

    `attended`: it is cancelled unless its presence is kept.
    """
    if herd.full:
        raise Overloaded("Redis is nearly full; try again later", retry_after=5)
    items, states = await fitted_items(herd, ask)
    sale = _Sale(herd, key, ask, items=items, states=states, idempotency_key=idempotency_key)
    sale.presence_ms = herd.settings.presence_ms if attended else 0
    for _ in range(PRICE_TRIES):
        try:
            bought = await sale.tried()
        except PricesChanged:
            herd.market.forget()
        except StoreLost:
            sale.stored = 0
        except _SpentMeanwhile:
            continue  # fewer items, or none of them
        except Refusal:
            # The same submission may have been accepted meanwhile, and be what took the balance.
            earlier = await batch_replayed(herd, key, ask, idempotency_key)
            if earlier is None:
                raise
            return earlier
        else:
            if not bought.replayed:
                for model, count in Counter(item.model for item in items[: sale.stored]).items():
                    herd.metrics.submitted.labels(model).inc(count)
            return bought
    raise Overloaded("the prices or the balance keep changing; try again", retry_after=1)


class _Sale:
    """One batch on its way to be paid for, under one id however often it is tried."""

    def __init__(
        self, herd: Herd, key: KeyRecord, ask: BatchAsk, *, items: list[Fitted], states: dict[str, ModelState],
        idempotency_key: str | None,
    ) -> None:  # fmt: skip
        self._herd, self._key, self._options, self._digest = herd, key, ask.options, ask.digest
        self._items, self._idempotency_key = items, idempotency_key
        self._webhook: Webhook | None = None
        self._batches = Batches(herd.broker)
        self._batch = "batch_" + "".join(secrets.choice(ALPHABET) for _ in range(BATCH_ID_CHARS))
        # An automatic price is what was paid last, taken once, and only so far: see submission.sale_of.
        ceiling_milli = round(herd.settings.automatic_multiplier_max * MILLI)
        last = {model: min(state.last_multiplier_milli, ceiling_milli) for model, state in states.items()}
        self._wants = [
            Want(item.tokens * item.brief.n, item.multiplier_milli, last[item.model]) for item in items
        ]
        self._bill: tuple[Prices, Bill] | None = None
        self._openai = ask.openai
        self.presence_ms = 0
        self.stored = 0  # so many of the items are in Redis at the prices of the bill

    async def tried(self) -> Bought:
        """One try. Raises PricesChanged, StoreLost, InsufficientFunds, FeeTooLow, MaxFeeExceeded and more."""
        prices = await self._herd.market.prices()
        if self._bill is None or self._bill[0] != prices:
            self._bill, self.stored = (prices, await self._billed(prices)), 0
        bill = self._bill[1]
        account = await self._account()
        total = self._affordable(prices, bill, account)
        self._webhook = await webhook_for(self._herd, account.account, self._options.webhook_url)
        if self.stored < total:
            await self._sent(lambda: self._store(bill, self.stored, total))
            self.stored = total
        charge = self._charge(prices, bill, total)
        try:
            batch, replayed = await self._sent(lambda: self._batches.charge(charge))
        except InsufficientFunds as error:
            if self._options.charge == "as_many_as_affordable":
                raise _SpentMeanwhile from error
            raise self._poor(prices, bill, error.extra["balance"]) from None
        return Bought(batch, replayed)

    async def _billed(self, prices: Prices) -> Bill:
        o = self._options
        wish = Wish(fee=o.fee, max_fee=o.max_fee)
        highest_milli = round(self._herd.settings.multiplier_max * MILLI)
        partly = o.charge == "as_many_as_affordable"
        return await asyncio.to_thread(billed, prices, self._wants, wish, highest_milli, partly=partly)

    async def _account(self) -> AccountRecord:
        account = await self._herd.ledger.account(self._key.account)
        if account is None:
            raise NotFound(f"no account {self._key.account}")
        if account.suspended:
            raise AccountSuspended(f"account {account.account} is suspended; ask whoever runs the herd")
        return account

    def _affordable(self, prices: Prices, bill: Bill, account: AccountRecord) -> int:
        """How many items are to be paid for. Raises InsufficientFunds, MaxFeeExceeded."""
        count, available = len(self._items), account.available
        needed = bill.total(count)
        if self._options.charge == "all_or_nothing":
            if needed > available:
                raise self._poor(prices, bill, available)
            return count
        # `charge` decides; here is only looked at what it will probably say.
        budget = available
        if self._options.max_fee is not None and self._options.fee is None:
            budget = min(available, self._options.max_fee)
            first = listed(prices, bill.bases[0])
            within(bill.fee(0), self._options.max_fee, first, "batch's first item")
        total = bill.affordable(budget)
        if total == 0:
            raise self._poor(prices, bill, available)
        return total

    def _poor(self, prices: Prices, bill: Bill, available: int) -> InsufficientFunds:
        count = len(self._items)
        whole = self._options.charge == "all_or_nothing"
        needed = bill.total(count) if whole else bill.fee(0)
        what = "this batch costs" if whole else "its first item costs"
        affordable = bill.affordable(available)
        return InsufficientFunds(
            f"{what} {needed} credits and {available} are available: enough for {affordable} of its {count} items",
            needed=needed,
            balance=available,
            affordable_items=affordable,
            **listed(prices, bill.bases[count - 1 if whole else 0]),
        )

    async def _store(self, bill: Bill, first: int, total: int) -> None:
        for start in range(first, total, SLICE):
            some = self._priced(bill, start, min(start + SLICE, total))
            await self._batches.store(self._key.account, self._batch, start, some)

    def _priced(self, bill: Bill, start: int, end: int) -> Iterator[Item]:
        webhook = self._webhook if self._options.webhook_per_item else None
        doubling_ms = self._herd.settings.doubling_ms
        for index in range(start, end):
            item = self._items[index]
            brief = item.brief
            chain = chain_for(brief, self._herd.chain_key, self._key.account)
            yield item.priced(bill.sales[index], bill.fee(index), doubling_ms, webhook, chain)

    def _charge(self, prices: Prices, bill: Bill, total: int) -> Charge:
        paid = self._items[:total]
        return Charge(
            batch=self._batch,
            account=self._key.account,
            key_id=self._key.key_id,
            models=tuple(dict.fromkeys(item.model for item in paid)),
            total=total,
            refused=len(self._items) - total,
            tokens=sum(item.tokens * item.brief.n for item in paid),
            base=bill.bases[total - 1],
            fee=bill.total(total),
            set_prompt_fee=prices.set_prompt_fee,
            fee_per_token=prices.fee_per_token,
            price_version=prices.version,
            metadata=self._options.metadata,
            webhook=self._webhook,
            idempotency_key=self._idempotency_key,
            request_hash=self._digest,
            presence_ms=self.presence_ms,
            openai=self._openai,
        )

    async def _sent(self, send: Callable[[], Awaitable[T]]) -> T:
        """Send, again where the reply was lost: by the batch's id the scripts know what they have done already."""
        for attempt in range(SEND_TRIES):
            try:
                return await send()
            except RedisUnavailable as error:
                if attempt + 1 < SEND_TRIES:
                    await asyncio.sleep(SEND_PAUSE_S)
                    continue
                advice: dict[str, Any] = {"batch_id": self._batch}
                told = (
                    "send it again with the same Idempotency-Key"
                    if self._idempotency_key
                    else "look at GET /v1/batches"
                )
                detail = f"Redis went away, and whether the batch was accepted is not known: {told}"
                raise RedisUnavailable(detail, retry_after=2, **advice) from error
        raise AssertionError("the last try returns or raises")
