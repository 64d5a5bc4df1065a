"""What couriers do in the simulation: take callbacks, post webhooks, claim attempts, answer for them; die anywhere."""

from __future__ import annotations

from herder.errors import Conflict, NotFound
from herder.webhook_records import Attempted, DeliveryStatus, NewDelivery, lane_of
from tests.simulation.states import Violation, expect
from tests.simulation.webhook_reference import PROBE_MAX_MS
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
    answered = [(entry, _delivery(world, fields)) for entry, (_, fields) in zip(
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


def _delivery(world: World, fields: dict[str, str]) -> NewDelivery | None:
    """The webhook for a callback, where somebody wants to hear of it; at times in the lane of an earlier version."""
    if "webhook_url" not in fields:
        return None
    kind = "batch" if "batch" in fields else "job"
    subject, lane = fields[kind], lane_of(fields["account"], fields["webhook_url"], fields["endpoint"])
    return NewDelivery(
        id="msg_" + subject.partition("_")[2],
        account=fields["account"],
        endpoint=fields["endpoint"],
        url=fields["webhook_url"],
        lane=lane.partition("/")[0] if world.chance(0.1) else lane,
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
    predicted, looked = world.reference.webhooks.claim(limit, turns)
    claimed = await world.deliveries.claim(limit)
    unseen = [lane for lane in turns[looked:] if waited[lane] < world.reference.now]
    after = await _turns(world)
    waiting = list(after)
    if waiting[: len(unseen)] != unseen:
        raise Violation(f"of {turns} {looked} were looked at, and next come {waiting}")
    if any(at < world.reference.now for at in list(after.values())[len(unseen) :]):
        raise Violation(
            f"of {turns} {looked} were looked at, and not all of them are behind {unseen}: {waiting}"
        )
    world.count("lanes that wait for their turn" if unseen else "-")
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


async def fail(world: World) -> None:
    """A receiver fails for a while; its owner asks again and again, and couriers as soon as they may."""
    webhooks = world.reference.webhooks
    if not webhooks.deliveries:
        return
    lane = webhooks.deliveries[world.rng.choice(sorted(webhooks.deliveries))].new.lane
    for _ in range(world.rng.randint(1, 10)):
        over = [(n, d) for n, d in webhooks.deliveries.items() if d.new.lane == lane and not d.pending]
        for name, delivery in over[:2]:
            await redeliver_for(world, delivery.new.account, name)
        wait_ms = webhooks.lanes().get(lane, 0) - world.reference.now
        if wait_ms > PROBE_MAX_MS:
            return
        world.clock.advance(max(0, wait_ms))
        await claim_some(world, 4, dies=False)
        await read(world)
        known = {name for name, delivery in webhooks.deliveries.items() if delivery.new.lane == lane}
        tried = [pair for pair in world.attempts if pair[0] in known]
        for pair in tried:
            world.attempts.remove(pair)
            await answer_for(world, *pair, "retry")


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


async def read(world: World) -> None:
    """An owner asks why deliveries wait: a few that may have ended, or have gone."""
    rng, known = world.rng, world.reference.webhooks
    names = rng.sample(list(known.deliveries), min(3, len(known.deliveries)))
    names += [name for name, delivery in known.deliveries.items() if delivery.pending][:3]
    names += [name for name in known.deliveries if known.held_back(name)[0]][:3]  # there are few
    found = [one for name in names if (one := await world.deliveries.delivery(name)) is not None]
    if all(one.next_ms is None for one in found):
        return
    world.tick()
    told = [(one.held_back, one.next_ms) for one in await world.deliveries.held_back(found)]
    for why, _ in told:
        world.count(f"held back: {why.value}" if why else "-")
    expect(told, [known.held_back(name) for name in names], f"why {names} wait")


async def redeliver(world: World) -> None:
    """An owner asks for a webhook again; it may be pending, gone, or another's."""
    rng, known = world.rng, world.reference.webhooks.deliveries
    over = [name for name, delivery in known.items() if not delivery.pending]
    pool = over if over and world.chance(0.7) else list(known)
    name = rng.choice(pool) if pool and world.chance(0.95) else "msg_0"
    owner = known[name].new.account if name in known else "ann"
    await redeliver_for(world, owner if world.chance(0.9) else rng.choice(ACCOUNTS), name)


async def redeliver_all(world: World) -> None:
    """An owner asks for everything again, and couriers take what they may: more than there is room for."""
    known = world.reference.webhooks.deliveries
    account = world.rng.choice(ACCOUNTS)
    for name in [name for name, d in known.items() if d.new.account == account and not d.pending][:8]:
        await redeliver_for(world, account, name)
    for _ in range(world.rng.randint(0, 3)):
        await claim(world)


async def redeliver_for(world: World, account: str, name: str) -> None:
    """Ask for one again, and compare."""
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
