"""`POST /v1/quote`: what a job would cost and where it would stand, with nothing held and nothing queued."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request

from herder.api.bodies import QuoteRequest, checked_against
from herder.api.callers import Caller
from herder.api.offers import Sale, Wish, sale
from herder.api.options import check_tokens
from herder.api.problems import declared
from herder.api.reading import body_of
from herder.api.schema import json_body
from herder.api.shapes import Quote, Reason
from herder.api.state import Herd, herd_of
from herder.api.submission import model_of, prompt_of, refuse_without_worker, sale_of, schema_of, warning_of
from herder.errors import (
    AccountSuspended,
    ContextExceeded,
    FeeTooLow,
    HerderError,
    InsufficientFunds,
    MaxFeeExceeded,
    NoWorker,
    Overloaded,
    UnknownModel,
)
from herder.pricing import MILLI, Prices, affordable_tokens
from herder.records import AccountRecord, ModelState

router = APIRouter(prefix="/v1/quote", tags=["jobs"])

QuoteBody = Annotated[QuoteRequest, Depends(body_of(QuoteRequest))]


@router.post(
    "",
    response_model=Quote,
    summary="Ask for the price",
    responses=declared(UnknownModel, Overloaded, body=True),
    openapi_extra=json_body(QuoteRequest),
)
async def quote(request: Request, key: Caller, body: QuoteBody) -> Quote:
    """The same body as a job's. `feasible` says whether it would be accepted now, `reason` why not.

    Without a prompt only the price is looked at. A body that is wrong in itself is refused as a job's would be.
    """
    herd = herd_of(request)
    tokens = body.tokens if body.tokens is not None else herd.settings.tokens_default
    state = await model_of(herd, body.model)
    checked_against(herd.settings, body, tokens, state.card)
    check_tokens(body, state.card.vocab_size)
    await schema_of(herd, state.card, body, tokens)
    account = await herd.ledger.account(key.account)
    prices = await herd.market.prices()
    sold, refusal = _sale(herd, prices, state, body, tokens)
    balance = account.available if account else 0
    refusal = await _refusal(herd, state, account, body, tokens) or refusal or _funds(sold, balance)
    most = affordable_tokens(prices, sold.multiplier_milli, balance)
    position = await herd.broker.hypothetical_position(key.account, state.card.model, sold.multiplier_milli)
    return Quote(
        model=state.card.model,
        tokens=tokens,
        base_fee=sold.terms.base,
        fee=sold.terms.fee,
        multiplier=sold.multiplier_milli / MILLI,
        position=position,
        feasible=refusal is None,
        reason=None if refusal is None else Reason(code=refusal.code, detail=refusal.detail),
        warning=warning_of(state, body.n),
        balance=balance,
        max_tokens=most if most is None else most // body.n,
    )


def _sale(
    herd: Herd, prices: Prices, state: ModelState, body: QuoteRequest, tokens: int
) -> tuple[Sale, HerderError | None]:
    """The sale; where the price would be refused, the sale at what is needed, and the refusal."""
    try:
        return sale_of(herd, prices, state, body, tokens), None
    except FeeTooLow as error:
        return sale(prices, tokens * body.n, Wish(fee=error.extra["needed"]), MILLI, MILLI), error
    except MaxFeeExceeded as error:
        needed = Wish(multiplier_milli=body.multiplier, fee=body.fee)
        last = MILLI  # an automatic price is refused only where even the base fee is too much
        return sale(prices, tokens * body.n, needed, last, round(herd.settings.multiplier_max * MILLI)), error


async def _refusal(
    herd: Herd, state: ModelState, account: AccountRecord | None, body: QuoteRequest, tokens: int
) -> HerderError | None:
    """Why a job like this would be refused whatever it paid."""
    if account is not None and account.suspended:
        return AccountSuspended("this account is suspended; ask whoever runs the herd")
    if herd.full or state.queue_length >= herd.settings.queue_depth_max:
        return Overloaded("the herd's backlog is full just now")
    try:
        refuse_without_worker(herd, state)
        if body.prompt is not None or body.messages is not None:
            await prompt_of(herd, state.card, body, tokens)
        elif tokens >= state.card.context:
            return ContextExceeded(f"{tokens} tokens do not fit the context, {state.card.context} tokens")
    except (ContextExceeded, NoWorker) as error:
        return error
    return None


def _funds(sold: Sale, balance: int) -> HerderError | None:
    if sold.terms.fee <= balance:
        return None
    return InsufficientFunds(f"this job costs {sold.terms.fee} credits and {balance} are available")
