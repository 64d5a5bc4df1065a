"""What a caller offers, and what the job is sold at: the decision tree of prices. Pure.

`pricing` has the arithmetic; here are the rules, and the refusals that say what would be needed.
"""

from __future__ import annotations

from dataclasses import dataclass

from herder.errors import FeeTooLow, InvalidRequest, MaxFeeExceeded
from herder.pricing import AMOUNT_LIMIT, MILLI, Prices, Terms, base_fee, bid_fee, implied_multiplier


@dataclass(frozen=True)
class Wish:
    """What the caller said of the price: at most one of a bid (thousandths) and a static fee, and perhaps a ceiling."""

    multiplier_milli: int | None = None
    fee: int | None = None
    max_fee: int | None = None


@dataclass(frozen=True)
class Sale:
    """The terms of the sale; `offered` tells a bid or a static fee from an automatic price."""

    terms: Terms
    multiplier_milli: int
    offered: bool


def sale(prices: Prices, tokens: int, wish: Wish, last_multiplier_milli: int, highest_milli: int) -> Sale:
    """What a job of so many tokens, those of all its answers, is sold at; nothing is kept.

    Raises FeeTooLow, MaxFeeExceeded, InvalidRequest.
    """
    base = base_fee(prices, tokens)
    if bid_fee(base, highest_milli) >= AMOUNT_LIMIT:
        raise InvalidRequest(f"the fee of {tokens} tokens could pass {AMOUNT_LIMIT - 1} credits", errors=[])
    # 1. A static fee.
    if wish.fee is not None:
        return static_sale(prices, base, wish, highest_milli)
    # 2. A bid.
    if wish.multiplier_milli is not None:
        if wish.multiplier_milli > highest_milli:
            _refuse("multiplier", f"must be at most {highest_milli / MILLI:g}", highest_milli / MILLI)
        fee = bid_fee(base, wish.multiplier_milli)
        within(fee, wish.max_fee, listed(prices, base))
        return _sold(prices, base, fee, wish.multiplier_milli, offered=True)
    # 3. Nothing: what was paid last, lowered to what max_fee buys.
    milli = min(max(last_multiplier_milli, MILLI), highest_milli)
    if wish.max_fee is not None and bid_fee(base, milli) > wish.max_fee:
        within(base, wish.max_fee, listed(prices, base))
        milli = max(implied_multiplier(wish.max_fee, base), MILLI)
    return _sold(prices, base, bid_fee(base, milli), milli, offered=False)


def static_sale(prices: Prices, base: int, wish: Wish, highest_milli: int, what: str = "job") -> Sale:
    """What a static fee buys for a base fee, of a job or of a whole batch. Raises as `sale`."""
    assert wish.fee is not None
    fee = wish.fee
    # 1.1 A free herd takes nothing.
    if base == 0:
        return _sold(prices, 0, 0, MILLI, offered=True)
    # 1.2 Below the base fee: refused, and nothing kept.
    if fee < base:
        raise FeeTooLow(
            f"the base fee of this {what} is {base} credits and {fee} were offered",
            needed=base,
            fee=fee,
            **listed(prices, base),
        )
    # 1.3 Above what any bid may be.
    if fee * MILLI > base * highest_milli:
        most = base * highest_milli // MILLI
        _refuse("fee", f"must be at most {most}, {highest_milli / MILLI:g} times the base fee", most)
    within(fee, wish.max_fee, listed(prices, base), what)
    return _sold(prices, base, fee, implied_multiplier(fee, base), offered=True)


def _sold(prices: Prices, base: int, fee: int, multiplier_milli: int, *, offered: bool) -> Sale:
    terms = Terms(prices.set_prompt_fee, prices.fee_per_token, base, fee)
    return Sale(terms, multiplier_milli, offered)


def listed(prices: Prices, base: int) -> dict[str, int]:
    """What a refusal of a price says beside it, so that what could be paid can be reckoned: the fee at multiplier 1,
    and the prices that it is made of."""
    return {"base_fee": base, "set_prompt_fee": prices.set_prompt_fee, "fee_per_token": prices.fee_per_token}


def within(fee: int, max_fee: int | None, list_: dict[str, int], what: str = "job") -> None:
    """Raises MaxFeeExceeded, which says what is `listed`."""
    if max_fee is not None and fee > max_fee:
        raise MaxFeeExceeded(
            f"this {what} costs {fee} credits and max_fee is {max_fee}", needed=fee, max_fee=max_fee, **list_
        )


def _refuse(field: str, message: str, limit: float) -> None:
    raise InvalidRequest(f"{field}: {message}", limit=limit, errors=[{"field": field, "message": message}])
