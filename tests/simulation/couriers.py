"""What couriers do in the simulation: take callbacks, post webhooks, claim attempts, answer for them; die anywhere."""

from __future__ import annotations

from herder.errors import Conflict, NotFound
from herder.webhook_records import Attempted, DeliveryStatus, NewDelivery, lane_of
from tests.simulation.states import Violation, expect
from tests.simulation.world import ACCOUNTS, World

LOST_REPLIES = 0.1


async def collect(world: World) -> None:
    """A courier takes some callbacks; it dies before, or its reply is lost, or another one has been there."""
    await collect_some(world, world.rng.randint(1, 10), dies=world.chance(0.2))
    if world.answers and world.chance(0.15):
        again = world.rng.choice(world.answers)
        world.tick()
        expect(await world.deliveries.answer(again), (0, 0), "callbacks taken twice")
        world.count("callbacks answered for twice")


async def collect_some(world: World, limit: int, *, dies: bool) -> None:
    """Read callbacks, compare each, take them off the queue."""
    reference = world.reference
    entries = await world.broker.callbacks(limit)
    told = list(reference.callbacks)[:limit]
    expect([fields for _, fields in entries], [one.fields() for one in told], "callbacks")
    answered = [(entry, _delivery(fields)) for entry, (_, fields) in zip(
        [name for name, _ in entries], entries, strict=True)]  # fmt: skip
    if dies or not answered:
        world.count("couriers that die with callbacks in hand")
        return
    if world.answers and world.chance(0.1):  # another courier had these in hand too
        answered = [*world.rng.choice(world.answers), *answered]
    world.tick()
    posts = [new for _, new in answered[-len(entries) :] if new is not None]
    for new in posts:
        reference.webhooks.post(new)
    for one in told:
        reference.callbacks.popleft()
        world.subjects_taken.append(one.subject)
    said = await world.deliveries.answer(answered)
    world.note(f"callbacks taken: {said}", *(new.id for new in posts))
    world.count("callbacks taken")
    expect(said, (len(entries), len(posts)), "callbacks taken, webhooks posted")
    world.answers.append(answered)


def _delivery(fields: dict[str, str]) -> NewDelivery | None:
    """The webhook for a callback, where somebody wants to hear of it."""
    if "webhook_url" not in fields:
        return None
    kind = "batch" if "batch" in fields else "job"
    subject = fields[kind]
    return NewDelivery(
        id="msg_" + subject.partition("_")[2],
        account=fields["account"],
        endpoint=fields["endpoint"],
        url=fields["webhook_url"],
        lane=lane_of(fields["account"], fields["webhook_url"]),
        type=f"{kind}.{fields['status']}",
        subject=subject,
        at_ms=int(fields["at"]),
    )


async def write(world: World) -> None:
    """A courier writes what has waited long for its first attempt; maybe another one, or an attempt, was faster."""
    reference, until_ms = world.reference, world.reference.now + world.rng.randint(-300_000, 60_000)
    waiting = sorted((at, name) for name, at in reference.webhooks.unwritten().items() if at <= until_ms)
    found = await world.deliveries.unwritten(until_ms, 3)
    expect(found, [name for _, name in waiting[:3]], f"to be written by {until_ms}")
    others = [name for name, delivery in reference.webhooks.deliveries.items() if delivery.body]
    for name in [*found, *([world.rng.choice(others)] if others else [])]:
        world.tick()
        body = f"written at {reference.now}"
        (said,) = await world.deliveries.write([(name, body)])
        world.note(f"write: {said}", name)
        world.count(f"bodies written: {said}")
        expect(said, reference.webhooks.write(name, body), f"{name} written")


async def claim(world: World) -> None:
    """A courier takes attempts; at times it dies at once, and nobody will answer for them."""
    await claim_some(world, world.rng.randint(1, 4), dies=world.chance(0.15))


async def claim_some(world: World, limit: int, *, dies: bool) -> None:
    """Claim, and compare what is handed out."""
    world.tick()
    waited = await _turns(world)
    turns = list(waited)
    predicted = world.reference.webhooks.claim(limit, turns)
    claimed = await world.deliveries.claim(limit)
    served = turns[:limit]
    passed = [lane for lane in turns[limit:] if waited[lane] < world.reference.now]
    waiting = list(await _turns(world))
    if waiting[: len(passed)] != passed:
        raise Violation(f"of {turns} {served} were served, and next come {waiting}")
    world.count("lanes that wait for their turn" if passed else "-")
    world.note(f"claim {limit} dies={dies}: {claimed}", *(name for name, _ in claimed))
    expect(claimed, predicted, "attempts claimed")
    if claimed:
        world.count("couriers that die with attempts in hand" if dies else "attempts claimed")
    (world.attempts_over if dies else world.attempts).extend(claimed)


async def _turns(world: World) -> dict[str, int]:
    """Hosts for which something can be done now, in the order in which they have their turn, and since when."""
    key, now = world.broker.keys("due_lanes"), str(world.reference.now)
    (rows,) = await world.look([["ZRANGEBYSCORE", key, "-inf", now, "WITHSCORES"]])
    return {lane.decode(): int(float(at)) for lane, at in zip(rows[::2], rows[1::2], strict=True)}


async def answer(world: World) -> None:
    """What came of an attempt: it went well or badly, or it is answered for again, or long too late."""
    rng, known = world.rng, world.reference.webhooks.deliveries
    late = [
        (name, attempt)
        for name, attempt in [*world.attempts, *world.attempts_over]
        if name in known and known[name].late(attempt)
    ]
    if late and world.chance(0.4):
        name, attempt = rng.choice(late)
    elif world.attempts_over and (not world.attempts or world.chance(0.25)):
        name, attempt = rng.choice(world.attempts_over)
    elif world.attempts:
        name, attempt = world.attempts.pop(rng.randrange(len(world.attempts)))
        world.attempts_over.append((name, attempt))
    else:
        return
    # One that is down mostly stays so.
    down = name in known and world.reference.webhooks.again_ms(known[name].new.lane) is not None
    weights = (1, 8, 1, 2) if down else (5, 6, 1, 2)
    await answer_for(world, name, attempt, rng.choices(("ok", "retry", "gone", "off"), weights)[0])


async def answer_for(world: World, name: str, attempt: int, outcome: str) -> None:
    """Answer for one attempt; a failed one is due again, as long as the schedule goes on."""
    webhooks, schedule = world.reference.webhooks, world.broker.settings.webhook_schedule_s
    known = webhooks.deliveries.get(name)
    tries = (known.tries if known else 0) + 1
    if outcome == "ok":
        result = Attempted(name, attempt, DeliveryStatus.DELIVERED, response_status=204)
    elif outcome == "gone":
        result = Attempted(name, attempt, DeliveryStatus.DEAD, response_status=410, disable="it answered 410")
    elif outcome == "retry" and tries < len(schedule):
        pause_ms = round(schedule[tries] * 1000)
        result = Attempted(name, attempt, DeliveryStatus.PENDING, pause_ms=pause_ms, response_status=500)
    else:
        result = Attempted(name, attempt, DeliveryStatus.DEAD, error="no answer")
    # A courier that found no body has made one, where it asked; and maybe another courier has, since.
    unknown = outcome != "off" and (not (known and known.body) or world.chance(0.3))
    body = f"made with {name}#{attempt}" if unknown else ""
    world.tick()
    word = webhooks.attempted(result, body)
    said = "OK" if await world.deliveries.attempted(result, body) else "STALE"
    world.note(f"attempted {name}#{attempt} {outcome} pause={result.pause_ms}: {said}", name)
    world.count(f"attempted {said}")
    world.count(f"{result.outcome.value} after an attempt" if said == "OK" else "-")
    expect(said, word, f"attempted {name}#{attempt}")
    if result.disable and said == "OK":
        world.count("endpoints off after 410")


async def redeliver(world: World) -> None:
    """An owner asks for a webhook again; it may be pending, gone, or another's."""
    rng, known = world.rng, world.reference.webhooks.deliveries
    over = [name for name, delivery in known.items() if not delivery.pending]
    pool = over if over and world.chance(0.7) else list(known)
    name = rng.choice(pool) if pool and world.chance(0.95) else "msg_0"
    owner = known[name].new.account if name in known else "ann"
    account = owner if world.chance(0.9) else rng.choice(ACCOUNTS)
    world.tick()
    word = world.reference.webhooks.redeliver(account, name)
    said = "OK"
    try:
        await world.deliveries.redeliver(account, name)
    except NotFound:
        said = "UNKNOWN"
    except Conflict as refusal:
        said = next(word.upper() for word in ("pending", "disabled", "deleted") if word in str(refusal))
        said = "GONE" if said == "DELETED" else said
    world.note(f"redeliver {name} by {account}: {said}", name)
    world.count(f"redeliver {said}")
    expect(said, word, f"redeliver {name} by {account}")
