"""What workers do in the simulation: lease, renew, report, settle, hand back, die, speak up when they should not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from unittest.mock import patch

from herder import broker
from herder.broker import LEASE_LOOKAHEAD
from herder.choices import Choice, choices_text
from herder.pricing import capture
from herder.protocol import Chunk, FinishReason, Outcome, Settlement
from tests.simulation.line import GENERATION_MAX, GENERATION_MS, HOLDERS_MAX, Room
from tests.simulation.states import expect
from tests.simulation.world import MODEL, Held, Worker, World

LOST_REPLIES = 0.08


async def lease(world: World) -> None:
    """Take jobs; when the reply is lost, the worker does not know that it has them."""
    alone = [job.worker for job in world.reference.running() if job.alone]
    worker = world.workers[world.rng.choice(alone)] if alone and world.chance(0.8) else _any_worker(world)
    slots = min(worker.slots_free, world.rng.randint(0, 4))
    await lease_for(world, worker, slots, lost=world.chance(LOST_REPLIES))


async def lease_for(world: World, worker: Worker, slots: int, *, lost: bool) -> None:
    """Lease, compare the choice, believe the reply."""
    if slots <= 0:
        return
    lookahead = world.rng.choice((0, 2, LEASE_LOOKAHEAD))
    room = Room(slots, worker.slots, worker.kv_free, worker.kv_total, lookahead)
    line = await _line(world)
    world.tick()
    predicted = world.reference.line.take(worker.name, room, line)
    with _limits(lookahead):
        taken = await world.broker.take(
            worker.name,
            MODEL,
            slots=slots,
            slots_total=worker.slots,
            kv_free=room.kv_free,
            kv_total=room.kv_total,
        )
    names = [lease.job_id for lease in taken.leases]
    world.note(f"lease {worker.name} {room} lost={lost}: {names}, again {taken.again_ms}", *names)
    expect((names, taken.again_ms), predicted, f"lease of {worker.name} from {line}")
    if names:
        world.count("leases")
        world.count("leases whose reply is lost" if lost else "leases in company" if len(names) > 1 else "-")
    world.reference.lease(worker.name, taken.leases)
    if not lost:
        for lease in taken.leases:
            worker.held[lease.job_id] = Held(lease, world.reference.jobs[lease.job_id].ask.kv_tokens)


@contextmanager
def _limits(lookahead: int) -> Iterator[None]:
    """Small enough to matter."""
    with ExitStack() as stack:
        for name, limit in (
            ("LEASE_LOOKAHEAD", lookahead),
            ("PREFIX_TTL_MS", GENERATION_MS),
            ("PREFIXES_MAX", GENERATION_MAX),
            ("PREFIX_HOLDERS_MAX", HOLDERS_MAX),
        ):
            stack.enter_context(patch.object(broker, name, limit))
        yield


async def _line(world: World) -> list[tuple[str, float]]:
    """Job ids and ranks of the line as Redis has it, first to last."""
    redis, keys = world.broker.redis, world.broker.keys
    rows = await world.broker.fetch(redis.zrange(keys("queue", MODEL), 0, -1, withscores=True))
    return [(member.decode()[17:].partition("#")[0], rank) for member, rank in rows]


async def renew(world: World) -> None:
    """A heartbeat for all that it holds, sometimes for what it once held; dropped replies change nothing."""
    worker = _any_worker(world)
    if _hangs(world, worker):
        return
    held = [held.pair for held in worker.held.values()]
    if worker.ghosts and world.chance(0.3):
        held.append(world.rng.choice(worker.ghosts).pair)
    held = list(dict(held).items())
    world.tick()
    words = world.reference.renew(worker.name, held)
    replies = await world.broker.renew(worker.name, MODEL, held, worker.stats)
    world.reference.line.beat(worker.name, worker.slots)
    said = [replies[job_id].value for job_id, _ in held]
    world.note(f"renew {worker.name} {held}: {said}", *(job_id for job_id, _ in held))
    expect(said, words, f"renew of {worker.name}")
    for word in said:
        world.count(f"renew {word}")
    if world.chance(LOST_REPLIES):
        world.count("renewals whose reply is lost")
        return
    for (job_id, _), word in zip(held, said, strict=True):
        if word == "LOST":
            worker.drop(job_id)
        elif word == "CANCEL" and job_id in worker.held:
            worker.held[job_id].stop = True


async def chunk(world: World) -> None:
    """The next tokens; or the same again, or some later ones, or those of an attempt that is over."""
    worker = _busy_worker(world)
    if worker.ghosts and (not worker.held or world.chance(0.15)):
        held = world.rng.choice(worker.ghosts)
    elif worker.held:
        held = world.rng.choice(list(worker.held.values()))
    else:
        return
    count = world.rng.randint(1, 5)
    n = held.lease.brief.n
    choice = world.rng.randrange(n) if n > 1 else None
    said = held.pending or Chunk(
        held.lease.job_id, held.lease.attempt, held.told, count, "ab" * count, choice
    )
    if held.chunks and world.chance(0.15):
        said = world.rng.choice(held.chunks)
    elif held.pending is None and world.chance(0.05):
        said = replace(said, first_index=held.told + 3)
    name = worker.name if world.chance(0.97) else world.rng.choice(list(world.workers))
    world.tick()
    word = world.reference.chunk(name, said)
    (reply,) = await world.broker.chunk(name, [said])
    world.note(f"chunk {name} {said}: {reply}", said.job_id)
    world.count(f"chunk {reply}")
    expect(reply.value, word, f"chunk {said}")
    if reply.value in ("STALE", "GAP") or said.first_index != held.told:
        return
    if world.chance(LOST_REPLIES):
        held.pending = said
        world.count("chunks whose reply is lost")
    else:
        held.told, held.pending = held.told + said.token_count, None
        held.chunks.append(said)


async def settle(world: World) -> None:
    """The end of an attempt: well, in error, cancelled; again because the reply was lost; or long too late."""
    worker = _busy_worker(world)
    if _hangs(world, worker):
        return
    rng = world.rng
    if worker.unanswered and world.chance(0.5):
        settlement = worker.unanswered.pop()
        await _settle(world, worker.name, settlement)
    elif worker.ghosts and (not worker.held or world.chance(0.2)):
        await _settle(world, worker.name, _settlement(world, rng.choice(worker.ghosts)))
    elif worker.held:
        held = rng.choice(list(worker.held.values()))
        settlement = _settlement(world, held)
        if world.chance(0.03):
            await _settle(world, worker.name, replace(settlement, captured=held.lease.terms.fee + 1))
            return
        await _settle(world, worker.name, settlement)
        worker.drop(held.lease.job_id)
        if world.chance(LOST_REPLIES):
            worker.unanswered.append(settlement)


async def finish_well(world: World, worker: Worker, held: Held) -> None:
    """Settle a job as a healthy worker does."""
    settlement = _settlement(world, held, Outcome.SUCCEEDED)
    await _settle(world, worker.name, settlement)
    worker.drop(held.lease.job_id)


def _settlement(world: World, held: Held, outcome: Outcome | None = None) -> Settlement:
    counts = [world.rng.randint(0, held.lease.tokens) for _ in range(held.lease.brief.n)]
    terms, produced = held.lease.terms, sum(counts)
    if outcome is None:
        outcome = world.rng.choices(list(Outcome), (8, 1, 6 if held.stop else 0.3))[0]
    failed = outcome is Outcome.FAILED
    reason = FinishReason.CANCELLED if outcome is Outcome.CANCELLED else FinishReason.STOP
    text = f"answer of attempt {held.lease.attempt} "
    choices = [Choice(text + "x" * count, reason.value, count) for count in counts]
    return Settlement(
        job_id=held.lease.job_id,
        attempt=held.lease.attempt,
        outcome=outcome,
        text=choices[0].text,
        finish_reason=None if failed else reason,
        prompt_tokens=5,
        completion_tokens=produced,
        captured=0 if failed else capture(terms, produced),
        error_code="engine_error" if failed else None,
        error_message="it broke" if failed else None,
        choices=None if failed else choices_text(choices),
    )


async def _settle(world: World, name: str, settlement: Settlement) -> None:
    world.tick()
    word = world.reference.settle(name, settlement)
    try:
        said = (await world.broker.settle(name, settlement)).value
    except AssertionError as mistake:
        said = str(mistake).rpartition(" ")[2]
    world.note(
        f"settle {name} {settlement.job_id}#{settlement.attempt} {settlement.outcome} "
        f"captured={settlement.captured}: {said}",
        settlement.job_id,
    )
    world.count(f"settle {said}")
    expect(said, word, f"settle {settlement.job_id}#{settlement.attempt} by {name}")


async def release(world: World) -> None:
    """A worker drains, or its supervisor hands back what the dead child held."""
    worker = _blamed_worker(world)
    died = world.chance(0.5)
    killed = died and world.chance(0.4)
    pairs = None
    if not died or world.chance(0.3):
        known = [*worker.held.values(), *worker.ghosts]
        pairs = [held.pair for held in world.rng.sample(known, world.rng.randint(0, len(known)))]
        pairs = list(dict(pairs).items()) if world.chance(0.7) else None
    world.tick()
    held = [job.ask.job_id for job in world.reference.running(worker.name)]
    taken_from = await _in_hands(world, worker) if pairs is None else pairs
    predicted = world.reference.release(worker.name, taken_from, died=died, killed=killed)
    taken = await world.broker.release(worker.name, pairs, died=died, killed=killed)
    world.note(f"release {worker.name} {pairs} died={died} killed={killed}: {taken}", *held)
    world.count("kills" if killed else "supervised deaths" if died else "drains")
    expect(taken, predicted, f"release of {worker.name}")
    for job_id in [job_id for job_id, _ in pairs] if pairs is not None else list(worker.held):
        worker.drop(job_id)


async def _in_hands(world: World, worker: Worker) -> list[tuple[str, int | None]]:
    """What Redis says the worker holds: in which order that is, is nobody's business, but ends happen in it."""
    (members,) = await world.look([["SMEMBERS", world.broker.keys("worker_jobs", worker.name)]])
    return [(job_id.decode(), None) for job_id in members]


async def vanish(world: World) -> None:
    """A worker dies with nobody to say so, or sleeps and will speak of its old jobs when it wakes."""
    worker = _blamed_worker(world)
    for job_id in list(worker.held):
        worker.drop(job_id)
    if world.chance(0.5):
        worker.ghosts.clear()
    world.note(f"vanish {worker.name}")
    world.count("unsupervised deaths")


def _busy_worker(world: World) -> Worker:
    """Mostly one that holds something."""
    busy = [worker for worker in world.workers.values() if worker.held]
    return world.rng.choice(busy) if busy and world.chance(0.9) else _any_worker(world)


def _hangs(world: World, worker: Worker) -> bool:
    """A job that has killed a worker alone mostly does it again: this one may never come back to us."""
    running = world.reference.running(worker.name)
    return len(running) == 1 and running[0].blame_alone > 0 and world.chance(0.9)


def _blamed_worker(world: World) -> Worker:
    """Often one whose job was alone in an earlier death: such a one must die twice."""
    blamed = [job.worker for job in world.reference.running() if job.blame_alone]
    return world.workers[world.rng.choice(blamed)] if blamed and world.chance(0.5) else _any_worker(world)


def _any_worker(world: World) -> Worker:
    return world.rng.choice(list(world.workers.values()))
