"""Prices, captures and head starts over random whole numbers: bounds, monotony, exactness."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from herder.pricing import (
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

prices = st.builds(Prices, st.integers(0, 10**12), st.integers(0, 10**9))
tokens = st.integers(1, 8_192)
multipliers = st.integers(MILLI, 1_000 * MILLI)
HOUR_MS = 3_600_000


def terms_of(prices: Prices, tokens: int, milli: int) -> Terms:
    base = base_fee(prices, tokens)
    return Terms(prices.set_prompt_fee, prices.fee_per_token, base, bid_fee(base, milli))


@given(prices, tokens, multipliers)
def test_a_fee_is_the_exact_product_rounded_up(prices: Prices, tokens: int, milli: int) -> None:
    terms = terms_of(prices, tokens, milli)
    exact = Fraction(terms.base * milli, MILLI)
    assert exact <= terms.fee < exact + 1
    assert terms.fee >= terms.base


@given(prices, tokens, multipliers, st.integers(0, 10_000))
def test_a_capture_is_within_the_fee_and_grows_with_the_tokens(
    prices: Prices, tokens: int, milli: int, produced: int
) -> None:
    terms = terms_of(prices, tokens, milli)
    captured = capture(terms, produced)
    assert 0 <= captured <= terms.fee
    assert captured <= capture(terms, produced + 1)
    assert capture(terms, tokens) == terms.fee
    if terms.base and produced <= tokens:
        exact = Fraction(terms.fee * base_fee(terms, produced), terms.base)
        assert exact <= captured < exact + 1


@given(st.integers(0, 2**53), st.integers(1, 10**12))
def test_a_static_fee_implies_no_higher_multiplier_than_it_pays_for(fee: int, base: int) -> None:
    assert bid_fee(base, implied_multiplier(fee, base)) <= fee


@given(multipliers, multipliers)
def test_a_higher_bid_never_has_a_smaller_head_start(one: int, other: int) -> None:
    low, high = sorted((one, other))
    assert 0 <= head_start_ms(low, HOUR_MS) <= head_start_ms(high, HOUR_MS)
    assert head_start_ms(2 * low, HOUR_MS) - head_start_ms(low, HOUR_MS) in range(HOUR_MS - 1, HOUR_MS + 2)


@given(multipliers, st.integers(0, 10**10), st.integers(0, 10**10), st.integers(1, 10**7))
def test_the_multiplier_only_comes_down(milli: int, first: int, more: int, half_life: int) -> None:
    early = decayed_multiplier(milli, first, half_life)
    late = decayed_multiplier(milli, first + more, half_life)
    assert MILLI <= late <= early <= milli
    assert decayed_multiplier(milli, 60 * half_life, half_life) == MILLI


@given(prices, multipliers, st.integers(0, 2**53))
def test_the_affordable_tokens_are_affordable_and_one_more_is_not(
    prices: Prices, milli: int, balance: int
) -> None:
    most = affordable_tokens(prices, milli, balance)
    if most is None:
        assert bid_fee(base_fee(prices, 10**6), milli) <= balance
        return
    if most > 0:
        assert bid_fee(base_fee(prices, most), milli) <= balance
    assert bid_fee(base_fee(prices, most + 1), milli) > balance
