"""What clients do in the simulation: submit (well, badly, twice), cancel, pay in."""

from __future__ import annotations

from dataclasses import replace

from herder.brief import Brief
from herder.broker import PricesChanged
from herder.errors import (
    AccountSuspended,
    Conflict,
    IdempotencyConflict,
    InsufficientFunds,
    InvalidRequest,
    NotFound,
    Overloaded,
    UnknownModel,
)
from herder.pricing import MILLI, Terms, base_fee, bid_fee
from herder.protocol import Ask
from tests.simulation import endpoints, herders
from tests.simulation.states import expect
from tests.simulation.world import ACCOUNTS, ANSWERS, CHAINS, MODEL, RICH, World

REFUSALS: dict[type[Exception], str] = {
    NotFound: "NO_ACCOUNT",
    AccountSuspended: "SUSPENDED",
    UnknownModel: "NO_MODEL",
    PricesChanged: "REPRICE",
    Overloaded: "FULL",
    InsufficientFunds: "POOR",
    IdempotencyConflict: "CONFLICT",
}


def make_ask(world: World) -> Ask:
    """A new ask at the current prices, seldom a wrong one."""
    rng = world.rng
    tokens = rng.choice((1, 2, 8, 20, 60, 150, 380))
    milli = rng.choice((MILLI, MILLI, MILLI, 1_500, 3_217, 100_000))
    n = rng.choice(ANSWERS)
    base = base_fee(world.prices, tokens, n)
    ask = Ask(
        job_id=world.name("job_"),
        account=rng.choice(ACCOUNTS),
        key_id="key",
        model=MODEL,
        brief=Brief(f"prompt {world.made + 1} é\n", n=n),
        tokens=tokens,
        terms=Terms(world.prices.set_prompt_fee, world.prices.fee_per_token, base, bid_fee(base, milli)),
        multiplier_milli=milli,
        offered=world.chance(0.7),
        price_version=world.prices.version,
        kv_tokens=tokens + 5,
        chain=rng.choice(CHAINS) if world.chance(0.8) else (),
        presence_ms=rng.choice(herders.PRESENCES_MS),
    )
    if ask.terms.fee > RICH and world.chance(0.7):
        ask = replace(ask, account="whale")
    if world.chance(0.3):
        key, body = f"idem{rng.randrange(12)}", f"body{rng.randrange(2)}"
        ask = replace(ask, idempotency_key=key, request_hash=body)
    if world.chance(0.02):
        ask = replace(ask, account="stranger")
    if world.chance(0.02):
        ask = replace(ask, model="nobody")
    if world.chance(0.02):
        ask = replace(ask, price_version=ask.price_version - 1)
    return ask


async def submit(world: World) -> None:
    """A new prompt; sometimes the reply is lost and it is asked again, in the same words or under a new job id."""
    ask = make_ask(world)
    if world.chance(0.5):
        ask = replace(ask, webhook=await endpoints.use(world, ask.account))
    await _submit(world, ask)
    world.asks.append(ask)


async def submit_again(world: World) -> None:
    """The reply was lost, as far as this client knows."""
    if not world.asks:
        return
    ask = world.rng.choice(world.asks)
    if ask.job_id in world.reference.forgotten:
        return
    if ask.idempotency_key is not None and world.chance(0.5):
        ask = replace(ask, job_id=world.name("job_"))
    await _submit(world, ask)


async def _submit(world: World, ask: Ask) -> None:
    world.tick()
    word, job_id = world.reference.submit(ask)
    try:
        accepted = await world.broker.submit(ask)
        said = "REPLAY" if accepted.replayed else "OK"
        expect(accepted.job_id, job_id, f"job of submit {ask.job_id}")
    except tuple(REFUSALS) as refusal:
        said = REFUSALS[type(refusal)]
    world.note(
        f"submit {ask.job_id} {ask.account} tokens={ask.tokens} fee={ask.terms.fee} "
        f"key={ask.idempotency_key} {ask.request_hash}: {said}",
        job_id,
    )
    world.count(f"submit {said}")
    if ask.presence_ms and said in ("OK", "REPLAY"):
        herders.hold(world, job_id)
    expect(said, word, f"submit {ask.job_id}")


async def cancel(world: World) -> None:
    """The owner stops a job; or a stranger tries to, or somebody names a job that never was."""
    rng, jobs = world.rng, world.reference.jobs
    live = [job for job in jobs.values() if job.live]
    pool = live if live and world.chance(0.7) else list(jobs.values())
    job_id = rng.choice(pool).ask.job_id if pool and world.chance(0.97) else "job_0"
    owner = jobs[job_id].ask.account if job_id in jobs else "ann"
    account = owner if world.chance(0.9) else rng.choice(ACCOUNTS)
    world.tick()
    word = world.reference.cancel(account, job_id)
    world.note(f"cancel {job_id} by {account}: {word}", job_id)
    world.count(f"cancel {word}")
    try:
        record = await world.broker.cancel(account, job_id)
        expect(record.status, jobs[job_id].status, f"cancel {job_id}")
        expect(record.cancel_requested, jobs[job_id].cancel, f"cancel flag of {job_id}")
    except NotFound:
        expect("UNKNOWN", word, f"cancel {job_id}")


async def pay(world: World) -> None:
    """A deposit, the same again, the same id with another amount; or an adjustment up or down."""
    rng = world.rng
    account = rng.choice(ACCOUNTS) if world.chance(0.97) else "stranger"
    if world.chance(0.6):
        deposit_id: str | None = f"dep{rng.randrange(10)}"
        amount = (
            rng.choice((1, 50, 50, 123_456_789_012_345)) if account == "whale" else rng.choice((30, 30, 31))
        )
    else:
        deposit_id = None
        amount = rng.choice((40, -40, -RICHER, 2**53 - 1)) if world.chance(0.3) else rng.choice((7, -7))
    world.tick()
    word = world.reference.mint_into(account, amount, deposit_id)
    try:
        if deposit_id is None:
            await world.ledger.adjust(account, amount, "by hand")
        else:
            await world.ledger.deposit(account, amount, deposit_id)
        said = "OK" if word != "REPEAT" else word  # a repeat is answered like the first
    except (NotFound, Conflict, InsufficientFunds, InvalidRequest) as refusal:
        said = PAY_REFUSALS[type(refusal)]
    world.note(f"pay {account} {amount} {deposit_id}: {said}")
    world.count(f"pay {said}")
    expect(said, word, f"pay {account} {amount} {deposit_id}")


RICHER = 2**52 + 2**51
PAY_REFUSALS: dict[type[Exception], str] = {
    NotFound: "NO_ACCOUNT",
    Conflict: "CONFLICT",
    InsufficientFunds: "POOR",
    InvalidRequest: "TOO_MUCH",
}


async def suspend(world: World) -> None:
    """An account is stopped, or let go on."""
    stopped = [name for name, seen in world.reference.accounts.items() if seen.suspended]
    suspended = not stopped or world.chance(0.2)
    account = world.rng.choice(ACCOUNTS if suspended else stopped)
    world.tick()
    await world.ledger.suspend(account, suspended=suspended)
    world.reference.accounts[account].suspended = suspended
    world.note(f"suspend {account}: {suspended}")
