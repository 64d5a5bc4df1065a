"""The decision tree of offers: every branch, and what holds of all of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from herder.api.offers import Sale, Wish, sale
from herder.errors import FeeTooLow, HerderError, InvalidRequest, MaxFeeExceeded
from herder.pricing import MILLI, Prices, base_fee, bid_fee

PRICES = Prices(10, 1)
HIGHEST = 100 * MILLI


def sold(wish: Wish, *, last: int = MILLI, prices: Prices = PRICES, tokens: int = 20) -> Sale:
    return sale(prices, tokens, wish, last, HIGHEST)


@pytest.mark.parametrize(
    ("wish", "last", "fee", "milli", "offered"),
    [
        (Wish(), 1_000, 30, 1_000, False),
        (Wish(), 2_500, 75, 2_500, False),
        (Wish(), 200_000, 3_000, 100_000, False),
        (Wish(max_fee=50), 2_500, 50, 1_666, False),
        (Wish(max_fee=30), 2_500, 30, 1_000, False),
        (Wish(max_fee=80), 2_500, 75, 2_500, False),
        (Wish(multiplier_milli=1_001), 9_000, 31, 1_001, True),
        (Wish(multiplier_milli=1_000), 9_000, 30, 1_000, True),
        (Wish(multiplier_milli=2_000, max_fee=60), 1_000, 60, 2_000, True),
        (Wish(fee=30), 1_000, 30, 1_000, True),
        (Wish(fee=31), 1_000, 31, 1_033, True),
        (Wish(fee=3_000, max_fee=3_000), 1_000, 3_000, 100_000, True),
    ],
)
def test_what_an_offer_is_sold_at(wish: Wish, last: int, fee: int, milli: int, offered: bool) -> None:
    found = sold(wish, last=last)
    assert (found.terms.base, found.terms.fee) == (30, fee)
    assert (found.multiplier_milli, found.offered) == (milli, offered)


@pytest.mark.parametrize(
    ("wish", "error", "needed"),
    [
        (Wish(fee=29), FeeTooLow, 30),
        (Wish(fee=0), FeeTooLow, 30),
        (Wish(fee=40, max_fee=39), MaxFeeExceeded, 40),
        (Wish(multiplier_milli=2_000, max_fee=59), MaxFeeExceeded, 60),
        (Wish(max_fee=29), MaxFeeExceeded, 30),
        (Wish(max_fee=0), MaxFeeExceeded, 30),
        (Wish(fee=3_001), InvalidRequest, None),
        (Wish(multiplier_milli=100_001), InvalidRequest, None),
    ],
)
def test_what_is_refused_and_what_would_be_needed(
    wish: Wish, error: type[HerderError], needed: int | None
) -> None:
    with pytest.raises(error) as refused:
        sold(wish, last=5_000)
    assert refused.value.extra.get("needed") == needed


def test_a_free_herd_takes_nothing_whatever_is_offered() -> None:
    for wish in (Wish(), Wish(fee=500), Wish(multiplier_milli=5_000), Wish(max_fee=0)):
        assert sold(wish, prices=Prices(0, 0)).terms.fee == 0


def test_a_fee_that_could_not_be_written_down_is_refused() -> None:
    with pytest.raises(InvalidRequest):
        sale(Prices(10**12, 10**9), 8_192, Wish(), MILLI, 1_000_000)


milli = st.integers(min_value=MILLI, max_value=HIGHEST)
fees = st.integers(min_value=0, max_value=10**7)


@given(
    st.integers(0, 10**4), st.integers(0, 10**3), st.integers(1, 1_000), milli,
    st.one_of(
        st.builds(Wish, max_fee=st.none() | fees),
        st.builds(Wish, multiplier_milli=milli, max_fee=st.none() | fees),
        st.builds(Wish, fee=fees, max_fee=st.none() | fees),
    ),
)  # fmt: skip
def test_nobody_pays_above_max_fee_or_below_the_base(
    a: int, b: int, tokens: int, last: int, wish: Wish
) -> None:
    prices = Prices(a, b)
    base = base_fee(prices, tokens)
    try:
        found = sale(prices, tokens, wish, last, HIGHEST)
    except (FeeTooLow, MaxFeeExceeded, InvalidRequest):
        free = base == 0 and wish.fee is not None
        assert not free
        if wish.fee is None and wish.multiplier_milli is None:
            assert wish.max_fee is not None
            assert wish.max_fee < base, "an automatic price is refused only below the base fee"
        return
    assert base <= found.terms.fee <= bid_fee(base, HIGHEST)
    assert wish.max_fee is None or found.terms.fee <= wish.max_fee
    assert bid_fee(base, found.multiplier_milli) <= found.terms.fee
    assert MILLI <= found.multiplier_milli <= HIGHEST
