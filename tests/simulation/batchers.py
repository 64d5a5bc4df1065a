"""What clients and feeders of batches do in the simulation: store in steps, charge, feed, abandon; stop anywhere."""

from __future__ import annotations

from dataclasses import replace
from unittest.mock import patch

from herder import batches
from herder.batches import Charge, Item, StoreLost
from herder.brief import Brief
from herder.errors import (
    NotFound,
)
from herder.pricing import MILLI, base_fee, bid_fee
from tests.simulation import clients, endpoints, herders
from tests.simulation.states import expect
from tests.simulation.world import ACCOUNTS, ANSWERS, CHAINS, MODEL, RICH, Draft, World

REFUSALS: dict[type[Exception], str] = {**clients.REFUSALS, StoreLost: "LOST"}
FINAL = ("OK", "REPLAY", "CONFLICT", "NO_MODEL", "NO_ACCOUNT")  # nothing is gained by asking again
DRAFTS_MAX = 6
SIZES = (1, 1, 2, 3, 5, 8, 13, 30)


async def store(world: World) -> None:
    """The next items of a batch, or the same again; some drafts are never gone on with."""
    _drop_forgotten(world)
    open_drafts = [draft for draft in world.drafts if not draft.answered]
    if world.drafts and world.chance(0.1):
        draft = world.rng.choice(world.drafts)  # a step that arrives late: the batch may have been charged
    elif open_drafts and world.chance(0.7):
        draft = world.rng.choice(open_drafts)
    else:
        draft = await _draft(world)
        world.drafts.append(draft)
        del world.drafts[:-DRAFTS_MAX]
    await _store_step(world, draft)


def _drop_forgotten(world: World) -> None:
    """Nobody goes on with a batch that has ended so long ago."""
    known = world.reference.batches.forgotten
    world.drafts = [draft for draft in world.drafts if draft.charge.batch not in known]


async def _store_step(world: World, draft: Draft) -> None:
    first = min(draft.stored, len(draft.items) - 1)
    if draft.stored and world.chance(0.2):
        first = world.rng.randrange(draft.stored)
        world.count("store steps repeated")
    items = draft.items[first : first + world.rng.choice((2, 5, 10, 30))]
    batch = draft.charge.batch
    world.tick()
    word = world.reference.batches.store(batch, first, items)
    await world.batches.store(draft.charge.account, batch, first, items)
    world.note(f"store {batch} {first}+{len(items)} of {len(draft.items)}: {word}", batch)
    world.count(f"store {word}")
    if word == "LOST":
        draft.stored = 0
    elif not world.chance(0.1):
        draft.stored = max(draft.stored, first + len(items))
        draft.priced_again = draft.priced_again and draft.stored < len(draft.items)


async def _draft(world: World) -> Draft:
    """A new batch, seldom a wrong one."""
    rng, batch = world.rng, world.name("batch_b")
    account = rng.choice(ACCOUNTS)
    if world.prices.fee_per_token > RICH and world.chance(0.7):
        account = "whale"
    per_item = None
    webhook = await endpoints.use(world, account) if world.chance(0.4) else None
    if webhook and world.chance(0.5):
        per_item = webhook
    milli = rng.choice((MILLI, MILLI, 3_217))
    items = []
    for index in range(rng.choice(SIZES)):
        tokens = rng.choice((1, 2, 8, 20, 60, 150, 380))
        brief = Brief(f"item {index} of {batch} é\n", n=rng.choice(ANSWERS))
        items.append(
            Item(
                model=MODEL, tokens=tokens, base=0, fee=0, multiplier_milli=milli, offered=world.chance(0.5),
                head_start_ms=rng.choice((0, 1_000)), kv_tokens=tokens + 5, input=brief.as_json(),
                custom_id=f"c{index}" if world.chance(0.3) else None, webhook=per_item,
                n=brief.n, chain=rng.choice(CHAINS) if world.chance(0.8) else (),
            )
        )  # fmt: skip
    charge = Charge(
        batch=batch, account=account, key_id="key", models=(MODEL,), total=0, refused=0, tokens=0, base=0, fee=0,
        set_prompt_fee=0, fee_per_token=0, price_version=0, webhook=webhook,
        presence_ms=rng.choice(herders.PRESENCES_MS),
    )  # fmt: skip
    if world.chance(0.3):
        key, body = f"idem{rng.randrange(12)}", f"batch{rng.randrange(2)}"
        charge = replace(charge, idempotency_key=key, request_hash=body)
    if world.chance(0.05):
        charge = replace(charge, account="stranger")
    if world.chance(0.05):
        charge = replace(charge, models=(MODEL, "nobody"))
    draft = Draft(charge, items)
    _price(world, draft)
    return draft


def _price(world: World, draft: Draft) -> None:
    """All items at the prices of now; they have to be stored again."""
    prices = world.prices
    draft.items = [
        replace(item, base=base, fee=bid_fee(base, item.multiplier_milli))
        for item in draft.items
        for base in (base_fee(prices, item.tokens, item.n),)
    ]
    draft.charge = replace(
        draft.charge,
        set_prompt_fee=prices.set_prompt_fee,
        fee_per_token=prices.fee_per_token,
        price_version=prices.version,
    )
    draft.stored = 0
    _take(draft, len(draft.items))


def _take(draft: Draft, total: int) -> None:
    """The first `total` items are to be paid for."""
    kept = draft.items[:total]
    draft.charge = replace(
        draft.charge,
        total=total,
        refused=len(draft.items) - total,
        tokens=sum(item.tokens * item.n for item in kept),
        base=sum(item.base for item in kept),
        fee=sum(item.fee for item in kept),
    )


async def charge(world: World) -> None:
    """Pay for a draft: mostly a stored one; again because the reply was lost; under another id with the same key."""
    _drop_forgotten(world)
    ready = [d for d in world.drafts if d.stored == len(d.items) and not d.answered]
    pool = ready
    if not ready or world.chance(0.1):
        pool = [d for d in world.drafts if not d.priced_again]
    if not pool or (not ready and world.chance(0.7)):
        return
    draft = world.rng.choice(pool)
    said = await _charge(world, draft, draft.charge)
    affordable = _affordable(world, draft) if said == "POOR" and world.chance(0.5) else 0
    if affordable:
        _take(draft, affordable)
        said = await _charge(world, draft, draft.charge)
    elif said == "REPRICE":
        _price(world, draft)
        draft.priced_again = True
    elif said == "LOST":
        draft.stored = 0
    draft.answered = draft.answered or (said in FINAL and not world.chance(0.15))
    if said == "OK" and draft.charge.idempotency_key is not None and world.chance(0.3):
        await _charge(world, draft, replace(draft.charge, batch=world.name("batch_b")))


def _affordable(world: World, draft: Draft) -> int:
    """As many items as the balance reaches to."""
    left, total = world.reference.accounts[draft.charge.account].available, 0
    for item in draft.items:
        left -= item.fee
        if left < 0:
            break
        total += 1
    return total


async def _charge(world: World, draft: Draft, given: Charge) -> str:
    world.tick()
    word, batch = world.reference.batches.charge(given)
    try:
        said_batch, replayed = await world.batches.charge(given)
        said = "REPLAY" if word == "REPLAY" else "OK"  # of its own batch the door says that it is charged now
        expect(said_batch, batch, f"batch of charge {given.batch}")
        expect(replayed, batch != given.batch, f"replay of charge {given.batch}")
    except tuple(REFUSALS) as refusal:
        said = REFUSALS[type(refusal)]
    world.note(
        f"charge {given.batch} {given.account} total={given.total} fee={given.fee} "
        f"key={given.idempotency_key} {given.request_hash}: {said}",
        given.batch,
    )
    world.count(f"charge {said}")
    if given.presence_ms and said in ("OK", "REPLAY"):
        herders.hold(world, batch)
    world.count("charged in part" if said == "OK" and given.refused else "-")
    expect(said, word, f"charge {given.batch}")
    return said


async def expire(world: World) -> None:
    """What was stored and never paid for expires (or Redis came back without it)."""
    storing = world.reference.batches.storing
    if not storing or not world.chance(0.5):
        return
    batch = world.rng.choice(list(storing))
    keys = world.broker.keys
    await world.broker.fetch(world.broker.redis.delete(keys("batch", batch), keys("batch_items", batch)))
    del storing[batch]
    world.note(f"{batch} expires before it is charged")
    world.count("stored batches that expire")


async def feed(world: World) -> None:
    """A feeder's step: it may have died since the last one, and another may be at the same batch."""
    known, rng = world.reference.batches, world.rng
    waiting = await world.batches.waiting(100)
    expect(waiting, known.waiting(), "batches that wait")
    others = [*known.batches, *known.storing, "batch_none"]
    if not waiting and world.chance(0.8):
        return
    batch = rng.choice(waiting) if waiting and world.chance(0.95) else rng.choice(others)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        await feed_step(world, batch, rng.randint(1, 7))


async def feed_step(world: World, batch: str, limit: int) -> str:
    """One step."""
    world.tick()
    bytes_max = world.rng.choice((1, 500, 2_000, 1_000_000))
    predicted = world.reference.batches.feed(batch, limit, bytes_max)
    with patch.object(batches, "STEP_BYTES_MAX", bytes_max):
        state, fed = await world.batches.feed(batch, limit)
    known = world.reference.batches.batches.get(batch)
    jobs = [job.ask.job_id for job in known.jobs] if known else []
    world.note(f"feed {batch} {limit}: {state} {fed}", batch, *jobs)
    world.count(f"feed {state}")
    expect((state.value, fed), predicted, f"feed {batch}")
    return state.value


async def abandon(world: World) -> None:
    """The owner cancels a batch, again perhaps; or a stranger tries to; or there is none."""
    known, rng = world.reference.batches, world.rng
    live = [name for name, batch in known.batches.items() if batch.ended_ms is None]
    pool = live if live and world.chance(0.7) else [*known.batches, *known.storing, "batch_none"]
    batch = rng.choice(pool)
    owner = known.batches[batch].charge.account if batch in known.batches else "ann"
    account = owner if world.chance(0.9) else rng.choice(ACCOUNTS)
    world.tick()
    word = known.abandon(account, batch)
    said = "OK"
    try:
        await world.batches.abandon(account, batch)
    except NotFound:
        said = "UNKNOWN"
    world.note(f"abandon {batch} by {account}: {said} {word}", batch)
    world.count(f"abandon {word}")
    if world.chance(0.5):
        herders.hang_up(world, batch)
    expect(said, "UNKNOWN" if word == "UNKNOWN" else "OK", f"abandon {batch}")
