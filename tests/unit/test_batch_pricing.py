"""What a batch is sold at: spread exactly, lowered only as far as needed, and cut where a budget ends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from herder.api.batch_pricing import Want, billed
from herder.api.offers import Wish, sale
from herder.errors import FeeTooLow, InvalidRequest, MaxFeeExceeded
from herder.pricing import MILLI, Prices, base_fee, capture

HIGHEST = 100 * MILLI
PRICES = st.builds(Prices, st.integers(0, 1_000), st.integers(0, 50))
MULTIPLIERS = st.integers(MILLI, HIGHEST)
WANTS = st.lists(
    st.builds(Want, st.integers(1, 8_192), st.none() | MULTIPLIERS, MULTIPLIERS), min_size=1, max_size=40
)


@given(PRICES, WANTS)
def test_each_item_costs_what_its_job_would(prices: Prices, wants: list[Want]) -> None:
    bill = billed(prices, wants, Wish(), HIGHEST, partly=False)
    for index, want in enumerate(wants):
        wish = Wish(multiplier_milli=want.multiplier_milli)
        alone = sale(prices, want.tokens, wish, want.last_milli, HIGHEST)
        assert (bill.fee(index), bill.sales[index]) == (alone.terms.fee, alone)
    assert bill.total(len(wants)) == sum(bill.fee(index) for index in range(len(wants)))


@given(PRICES, WANTS, st.integers(0, 99 * MILLI))
def test_a_static_fee_is_spread_to_the_credit(prices: Prices, wants: list[Want], above: int) -> None:
    base = sum(base_fee(prices, want.tokens) for want in wants)
    fee = base + base * above // MILLI
    bill = billed(prices, wants, Wish(fee=fee), HIGHEST, partly=False)
    fees = [bill.fee(index) for index in range(len(wants))]
    assert sum(fees) == (fee if base else 0)
    for each, want, sold in zip(fees, wants, bill.sales, strict=True):
        own = base_fee(prices, want.tokens)
        assert (sold.terms.base, sold.offered) == (own, True)
        assert own <= each or base == 0
        # Within a credit of its share.
        assert abs(each * base - fee * own) < base or base == 0


@given(PRICES, WANTS, st.integers(0, 10**7))
def test_max_fee_lowers_automatic_prices_and_no_further_than_needed(
    prices: Prices, wants: list[Want], max_fee: int
) -> None:
    least = sum(
        sale(prices, w.tokens, Wish(multiplier_milli=w.multiplier_milli), MILLI, HIGHEST).terms.fee
        for w in wants
    )
    wish = Wish(max_fee=max_fee)
    if least > max_fee:
        with pytest.raises(MaxFeeExceeded) as refused:
            billed(prices, wants, wish, HIGHEST, partly=False)
        assert refused.value.extra["needed"] == least
        return
    bill = billed(prices, wants, wish, HIGHEST, partly=False)
    assert bill.total(len(wants)) <= max_fee
    caps = [s.multiplier_milli for s, w in zip(bill.sales, wants, strict=True) if w.multiplier_milli is None]
    lowered = [
        s.multiplier_milli
        for s, w in zip(bill.sales, wants, strict=True)
        if w.multiplier_milli is None and s.multiplier_milli < w.last_milli
    ]
    if lowered:  # one thousandth more for everybody would have been too much
        assert set(lowered) == {max(caps)}
        dearer = sum(
            sale(
                prices, w.tokens, Wish(multiplier_milli=w.multiplier_milli),
                min(w.last_milli, max(caps) + 1), HIGHEST,
            ).terms.fee
            for w in wants
        )  # fmt: skip
        assert dearer > max_fee


@given(PRICES, WANTS, st.integers(0, 10**6))
def test_a_budget_reaches_as_far_as_it_can(prices: Prices, wants: list[Want], budget: int) -> None:
    bill = billed(prices, wants, Wish(), HIGHEST, partly=True)
    count = bill.affordable(budget)
    assert bill.total(count) <= budget
    assert count == len(wants) or bill.total(count + 1) > budget


@given(PRICES, WANTS, st.data())
def test_what_is_captured_of_a_spread_fee_is_never_more(
    prices: Prices, wants: list[Want], data: st.DataObject
) -> None:
    base = sum(base_fee(prices, want.tokens) for want in wants)
    fee = base + base * data.draw(st.integers(0, 5 * MILLI)) // MILLI
    bill = billed(prices, wants, Wish(fee=fee), HIGHEST, partly=False)
    index = data.draw(st.integers(0, len(wants) - 1))
    terms = bill.sales[index].terms
    assert terms.fee == bill.fee(index)
    assert capture(terms, data.draw(st.integers(0, wants[index].tokens))) <= terms.fee
    assert capture(terms, wants[index].tokens) == terms.fee


def test_refusals_speak_of_the_batch() -> None:
    prices, wants = Prices(10, 1), [Want(20, None, MILLI)] * 10
    with pytest.raises(FeeTooLow, match="the base fee of this batch is 300 credits and 299") as low:
        billed(prices, wants, Wish(fee=299), HIGHEST, partly=False)
    listed = {"base_fee": 300, "set_prompt_fee": 10, "fee_per_token": 1}
    assert low.value.extra == {"needed": 300, "fee": 299, **listed}
    with pytest.raises(InvalidRequest, match="at most 30000"):
        billed(prices, wants, Wish(fee=30_001), HIGHEST, partly=False)
    with pytest.raises(MaxFeeExceeded, match="this batch costs 300 credits and max_fee is 299"):
        billed(prices, wants, Wish(max_fee=299), HIGHEST, partly=False)
    with pytest.raises(MaxFeeExceeded):
        billed(prices, wants, Wish(fee=400, max_fee=399), HIGHEST, partly=False)
    with pytest.raises(InvalidRequest, match="could pass"):
        billed(Prices(10**12, 0), [Want(1, HIGHEST, MILLI)] * 100, Wish(), HIGHEST, partly=False)
