"""What a prompt costs, what is captured of it, and the head start that a bid buys.

Pure and in integers: credits are the smallest unit of money, multipliers are thousandths ("milli"), times
are milliseconds. Lua moves the integers that are computed here and never prices anything itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

MILLI = 1000
AMOUNT_LIMIT = 2**53


@dataclass(frozen=True)
class Prices:
    """The price list: credits a prompt, credits a token, and the version that a submission is checked against."""

    set_prompt_fee: int
    fee_per_token: int
    version: int = 0


@dataclass(frozen=True)
class Terms:
    """What one job was sold at; travels with the lease so that the worker can compute the capture.

    `fee` is what is held, `base` the fee at multiplier 1, both in credits.
    """

    set_prompt_fee: int
    fee_per_token: int
    base: int
    fee: int


def base_fee(prices: Prices | Terms, tokens: int, n: int = 1) -> int:
    """`set_prompt_fee + fee_per_token × tokens × n`, in credits."""
    return prices.set_prompt_fee + prices.fee_per_token * tokens * n


def bid_fee(base: int, multiplier_milli: int) -> int:
    """`ceil(base × multiplier)`, in credits."""
    return -(-base * multiplier_milli // MILLI)


def implied_multiplier(fee: int, base: int) -> int:
    """The multiplier, in thousandths rounded down, that a static `fee` offers; 1.000 on a free herd (base 0)."""
    return fee * MILLI // base if base else MILLI


def capture(terms: Terms, completion_tokens: int) -> int:
    """`ceil(fee × used / base)` where `used` is the base fee of the tokens really produced; 0 on a free herd.

    Never above the fee, and never below what the prompt fee's share comes to.
    """
    if terms.base == 0:
        return 0
    used = min(base_fee(terms, completion_tokens), terms.base)
    return -(-terms.fee * used // terms.base)


def head_start_ms(multiplier_milli: int, doubling_ms: int) -> int:
    """`doubling_ms × log2(multiplier)`: how much earlier than it came a bid stands in line."""
    return round(doubling_ms * math.log2(max(multiplier_milli, MILLI) / MILLI))


def decayed_multiplier(milli: int, empty_ms: int, half_life_ms: int) -> int:
    """The last accepted multiplier after `empty_ms` of an empty queue: its excess over 1 halves each half-life."""
    if milli <= MILLI or empty_ms <= 0:
        return max(milli, MILLI)
    return MILLI + math.floor((milli - MILLI) * math.pow(0.5, empty_ms / half_life_ms))


def affordable_tokens(prices: Prices, multiplier_milli: int, balance: int) -> int | None:
    """The most tokens that `balance` buys at this multiplier; None where tokens are free and the prompt affordable."""
    budget = balance * MILLI // multiplier_milli - prices.set_prompt_fee
    if budget < 0:
        return 0
    return budget // prices.fee_per_token if prices.fee_per_token else None
