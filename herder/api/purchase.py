"""Buying an answer: a checked body becomes a job whose fee is held, exactly once, whatever gets lost on the way.

`submission` makes the ask; here it is submitted, priced again, sent again. Knows no HTTP.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from herder.api.bodies import JobRequest, checked_against
from herder.api.destinations import webhook_for
from herder.api.offers import listed
from herder.api.options import check_tokens
from herder.api.state import Herd
from herder.api.submission import ask_of, model_of, prompt_of, refuse_without_worker, request_hash, sale_of
from herder.broker import PricesChanged
from herder.errors import IdempotencyConflict, InsufficientFunds, Overloaded, RedisUnavailable
from herder.lifecycle import Status
from herder.pricing import MILLI, Prices, affordable_tokens
from herder.protocol import Accepted, Ask, JobRecord
from herder.records import KeyRecord, ModelState

PRICE_TRIES = 5
SEND_TRIES = 3
SEND_PAUSE_S = 0.2


def record_of(ask: Ask, accepted: Accepted) -> JobRecord:
    """What was accepted just now, as the broker reads it back."""
    assert accepted.submitted_ms is not None
    return JobRecord(
        job_id=ask.job_id,
        account=ask.account,
        model=ask.model,
        status=Status.QUEUED,
        tokens=ask.tokens,
        base=ask.terms.base,
        fee=ask.terms.fee,
        multiplier_milli=ask.multiplier_milli,
        attempt=0,
        submitted_ms=accepted.submitted_ms,
        started_ms=None,
        ended_ms=None,
        cancel_requested=False,
        captured=None,
        refunded=None,
        text=None,
        finish_reason=None,
        prompt_tokens=None,
        completion_tokens=None,
        cached_tokens=None,
        error_code=None,
        error_message=None,
        metadata=ask.metadata,
        n=ask.brief.n,
        webhook_url=ask.webhook.url if ask.webhook is not None else None,
        marks=ask.marks,
        typed=ask.brief.schema is not None,
        run=ask.run,
        ao=ask.ao,
    )


async def replayed(
    herd: Herd, key: KeyRecord, body: JobRequest, idempotency_key: str | None
) -> Accepted | None:
    """The job that this Idempotency-Key has made already; looked for before anything is priced."""
    if idempotency_key is None:
        return None
    job_id = await bought_with(herd, key, idempotency_key, request_hash(body))
    return Accepted(job_id, 0, replayed=True) if job_id is not None else None


async def bought_with(herd: Herd, key: KeyRecord, idempotency_key: str, digest: str) -> str | None:
    """The id of what this Idempotency-Key has bought already. Raises IdempotencyConflict."""
    remembered = await herd.broker.remembered(key.account, idempotency_key)
    if remembered is None:
        return None
    if remembered[0] != digest:
        raise IdempotencyConflict("this Idempotency-Key was used with another body; use a new key")
    return remembered[1]


async def submitted(
    herd: Herd,
    key: KeyRecord,
    body: JobRequest,
    idempotency_key: str | None,
    *,
    attended: bool = False,
    meant: JobRequest | None = None,
) -> tuple[Accepted, ModelState, Ask]:
    """Check, render, price and submit; priced again where the list changed meanwhile.

    The job, its model, and what was asked for. `attended`: it is cancelled unless its presence is kept. `meant`: what
    the Idempotency-Key is bound to, where the body was made of something else.
    """
    if herd.full:
        raise Overloaded("Redis is nearly full; try again later", retry_after=5)
    state = await model_of(herd, body.model)
    checked_against(herd.settings, body, body.tokens, state.card)
    check_tokens(body, state.card.vocab_size)
    refuse_without_worker(herd, state)
    prompt = await prompt_of(herd, state.card, body, body.tokens)
    for _ in range(PRICE_TRIES):
        prices = await herd.market.prices()
        sold = sale_of(herd, prices, state, body, body.tokens)
        webhook = await webhook_for(herd, key.account, body.webhook_url)
        ask = ask_of(
            key,
            state,
            body,
            prompt=prompt,
            sold=sold,
            prices=prices,
            tokens=body.tokens,
            chain_key=herd.chain_key,
            webhook=webhook,
            idempotency_key=idempotency_key,
            digest="" if idempotency_key is None else request_hash(meant or body),
            presence_ms=herd.settings.presence_ms if attended else 0,
        )
        try:
            accepted = await _sent(herd, ask)
        except PricesChanged:
            herd.market.forget()
            continue
        except InsufficientFunds as error:
            raise await _poor(herd, ask, body, prices, error) from None
        herd.metrics.submitted.labels(ask.model).inc()
        return accepted, state, ask
    raise Overloaded("the prices keep changing; try again", retry_after=1)


async def _sent(herd: Herd, ask: Ask) -> Accepted:
    """Submit, again where the reply was lost: by its id the script knows a job that it has taken already.

    Raises RedisUnavailable when nobody can tell whether it was taken.
    """
    for attempt in range(SEND_TRIES):
        try:
            accepted = await herd.broker.submit(ask)
        except RedisUnavailable as error:
            if attempt + 1 < SEND_TRIES:
                await asyncio.sleep(SEND_PAUSE_S)
                continue
            detail = "Redis went away, and whether the job was accepted is not known: "
            advice = (
                "send it again with the same Idempotency-Key"
                if ask.idempotency_key
                else "look at GET /v1/jobs"
            )
            raise RedisUnavailable(detail + advice, retry_after=2) from error
        if accepted.replayed and accepted.job_id == ask.job_id:
            return replace(accepted, replayed=False)
        return accepted
    raise AssertionError("the last try returns or raises")


async def _poor(
    herd: Herd, ask: Ask, body: JobRequest, prices: Prices, error: InsufficientFunds
) -> InsufficientFunds:
    """The refusal, with what is needed, what is there, and the most tokens that would buy at this multiplier."""
    balance = error.extra.get("balance")
    if balance is None:
        account = await herd.ledger.account(ask.account)
        balance = account.available if account else 0
    # A static fee could come down to the base fee.
    milli = ask.multiplier_milli if body.fee is None else MILLI
    most = affordable_tokens(prices, milli, balance)
    most = most if most is None else most // body.n
    return InsufficientFunds(
        error.detail,
        needed=ask.terms.fee,
        balance=balance,
        max_affordable_tokens=most,
        **listed(prices, ask.terms.base),
    )
