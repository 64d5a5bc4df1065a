"""What a batch is sold at, item by item and in all, and how far a budget reaches into it. Pure.

One item costs what a job of its own would; a static fee is spread over the items by what they would cost at least.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from herder.api.offers import Sale, Wish, listed, sale, static_sale, within
from herder.errors import InvalidRequest
from herder.pricing import AMOUNT_LIMIT, MILLI, Prices, Terms, base_fee, bid_fee


@dataclass(frozen=True, slots=True)
class Want:
    """What an item's price depends on: the tokens of all its answers, its own bid if it has one, and what was paid
    last for its model.
    """

    tokens: int
    multiplier_milli: int | None
    last_milli: int


@dataclass(frozen=True)
class Bill:
    """The sale of each item, and the fees up to and with it: `sums[i]` is what the first i + 1 items cost."""

    sales: Sequence[Sale]
    sums: Sequence[int]
    bases: Sequence[int]

    def fee(self, index: int) -> int:
        """What one item costs."""
        return self.sums[index] - (self.sums[index - 1] if index else 0)

    def total(self, count: int) -> int:
        """What the first `count` items cost."""
        return self.sums[count - 1] if count else 0

    def affordable(self, budget: int) -> int:
        """How many of the items, in order, `budget` credits buy."""
        return bisect_right(self.sums, budget)


def billed(prices: Prices, wants: Sequence[Want], wish: Wish, highest_milli: int, *, partly: bool) -> Bill:
    """What these items are sold at. `partly`: the items that `max_fee` does not reach to are to be left out by the
    caller; otherwise their price is refused. Raises FeeTooLow, MaxFeeExceeded, InvalidRequest; nothing is kept.
    """
    if wish.fee is not None:
        return _spread(prices, wants, wish, highest_milli)
    groups = Counter(wants)
    # 1. What was paid last, lowered for all items alike to what max_fee buys; bids stay as they are.
    cap_milli = highest_milli
    if wish.max_fee is not None and _total(prices, groups, cap_milli) > wish.max_fee:
        least = _total(prices, groups, MILLI)
        if not partly:
            base = sum(base_fee(prices, want.tokens) * count for want, count in groups.items())
            within(least, wish.max_fee, listed(prices, base), "batch")
        cap_milli = _highest_cap(prices, groups, wish.max_fee, highest_milli)
    # 2. Each item as a job.
    sold = {
        want: sale(
            prices,
            want.tokens,
            Wish(multiplier_milli=want.multiplier_milli),
            min(want.last_milli, cap_milli),
            highest_milli,
        )
        for want in groups
    }
    sales = [sold[want] for want in wants]
    sums = list(accumulate(each.terms.fee for each in sales))
    if sums[-1] >= AMOUNT_LIMIT:
        raise _too_much()
    return Bill(sales, sums, list(accumulate(each.terms.base for each in sales)))


def _spread(prices: Prices, wants: Sequence[Want], wish: Wish, highest_milli: int) -> Bill:
    """A static fee over the items, in proportion to their base fees; rounding leaves no credit over."""
    own = [base_fee(prices, want.tokens) for want in wants]
    bases = list(accumulate(own))
    if bid_fee(bases[-1], highest_milli) >= AMOUNT_LIMIT:
        raise _too_much()
    whole = static_sale(prices, bases[-1], wish, highest_milli, "batch")
    fee, base = whole.terms.fee, whole.terms.base
    sums = [fee * reached // base for reached in bases] if base else [0] * len(bases)
    fees = [reached - before for before, reached in pairwise([0, *sums])]
    sales = [
        Sale(Terms(prices.set_prompt_fee, prices.fee_per_token, *terms), whole.multiplier_milli, offered=True)
        for terms in zip(own, fees, strict=True)
    ]
    return Bill(sales, sums, bases)


def _total(prices: Prices, groups: Counter[Want], cap_milli: int) -> int:
    """What all items cost where no automatic price is above the cap."""
    total = 0
    for want, count in groups.items():
        milli = want.multiplier_milli
        if milli is None:
            milli = max(min(want.last_milli, cap_milli), MILLI)
        total += bid_fee(base_fee(prices, want.tokens), milli) * count
    return total


def _highest_cap(prices: Prices, groups: Counter[Want], max_fee: int, highest_milli: int) -> int:
    """The highest cap at which all items cost at most `max_fee`; MILLI where even that is too much."""
    low, high = MILLI, highest_milli
    while low < high:
        middle = (low + high + 1) // 2
        if _total(prices, groups, middle) <= max_fee:
            low = middle
        else:
            high = middle - 1
    return low


def _too_much() -> InvalidRequest:
    return InvalidRequest(f"the fee of this batch could pass {AMOUNT_LIMIT - 1} credits", errors=[])
