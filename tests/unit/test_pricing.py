"""Properties of the prices: integers, exact against fractions, and nobody pays more than was agreed."""

from __future__ import annotations

import math
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from herder.pricing import (
    AMOUNT_LIMIT,
    MILLI,
    Prices,
    Terms,
    affordable_tokens,
    base_fee,
    bid_fee,
    capture,
    decayed_multiplier,
    head_start_ms,
    implied_multiplier,
)

prompt_fees = st.integers(min_value=0, max_value=10**12)
token_fees = st.integers(min_value=0, max_value=10**9)
tokens = st.integers(min_value=1, max_value=8_192)
multipliers = st.integers(min_value=MILLI, max_value=1_000 * MILLI)
amounts = st.integers(min_value=0, max_value=AMOUNT_LIMIT - 1)


@st.composite
def sold(draw: st.DrawFn) -> tuple[Terms, int]:
    """Terms as they are sold, by bid or by static fee, and the tokens they are for."""
    prices, count = Prices(draw(prompt_fees), draw(token_fees)), draw(tokens)
    base = base_fee(prices, count)
    fee = bid_fee(base, draw(multipliers)) if draw(st.booleans()) else base + draw(st.integers(0, 99)) * base
    return Terms(prices.set_prompt_fee, prices.fee_per_token, base, fee), count


@given(prompt_fees, token_fees, tokens, multipliers)
def test_a_bid_costs_the_base_times_the_multiplier_rounded_up(a: int, b: int, count: int, milli: int) -> None:
    base = base_fee(Prices(a, b), count)
    assert base == a + b * count
    assert bid_fee(base, milli) == math.ceil(Fraction(base * milli, MILLI))
    assert bid_fee(base, MILLI) == base


@given(amounts, multipliers, multipliers)
def test_a_higher_bid_never_costs_less(base: int, one: int, other: int) -> None:
    low, high = sorted((one, other))
    assert base <= bid_fee(base, low) <= bid_fee(base, high)


@given(st.integers(min_value=1, max_value=10**12), multipliers)
def test_a_static_fee_implies_a_multiplier_that_it_can_pay(base: int, milli: int) -> None:
    fee = bid_fee(base, milli)
    implied = implied_multiplier(fee, base)
    assert implied >= milli
    assert bid_fee(base, implied) <= fee
    assert implied_multiplier(fee, 0) == MILLI


@given(sold(), st.data())
def test_what_is_captured_lies_between_nothing_and_the_fee(
    sale: tuple[Terms, int], data: st.DataObject
) -> None:
    terms, count = sale
    used = data.draw(st.integers(min_value=0, max_value=count))
    captured = capture(terms, used)
    assert 0 <= captured <= terms.fee
    if terms.base:
        exact = Fraction(terms.fee * base_fee(terms, used), terms.base)
        assert captured == math.ceil(exact)
        assert capture(terms, count) == terms.fee
        assert capture(terms, count + 5) == terms.fee, "never above what was held, whatever is reported"
        assert captured <= capture(terms, min(used + 1, count))
    else:
        assert captured == 0


@given(st.integers(0, 10**4), st.integers(0, 10**3), multipliers, st.integers(0, 10**9))
def test_the_most_affordable_tokens_are_affordable_and_one_more_is_not(
    a: int, b: int, milli: int, balance: int
) -> None:
    prices = Prices(a, b)
    most = affordable_tokens(prices, milli, balance)
    if most is None:
        assert b == 0
        assert bid_fee(base_fee(prices, 10**6), milli) <= balance
        return
    assert most >= 0
    assert bid_fee(base_fee(prices, most + 1), milli) > balance
    if most > 0:
        assert bid_fee(base_fee(prices, most), milli) <= balance


@given(multipliers, st.integers(min_value=0, max_value=10**8))
def test_a_head_start_grows_with_the_bid_and_doubles_with_doubling(milli: int, doubling_ms: int) -> None:
    assert head_start_ms(MILLI, doubling_ms) == 0
    assert abs(head_start_ms(2 * milli, doubling_ms) - head_start_ms(milli, doubling_ms) - doubling_ms) <= 1
    assert head_start_ms(milli, doubling_ms) <= head_start_ms(milli + 1, doubling_ms)


@given(multipliers, st.integers(-(10**6), 10**9), st.integers(1, 10**8))
def test_a_multiplier_decays_towards_one_and_never_below(
    milli: int, empty_ms: int, half_life_ms: int
) -> None:
    found = decayed_multiplier(milli, empty_ms, half_life_ms)
    assert MILLI <= found <= milli
    assert decayed_multiplier(milli, half_life_ms, half_life_ms) == MILLI + (milli - MILLI) // 2
