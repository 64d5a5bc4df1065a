"""Redis beside the reference: everything live after each step, everything there is now and then and at the end."""

from __future__ import annotations

from collections import Counter
from typing import Any

from herder.audit import audit
from herder.keys import leaked
from herder.lifecycle import Status
from herder.protocol import EventKind
from tests.simulation.states import Job, Violation, expect
from tests.simulation.world import MODEL, World

# KEYS: time, queue, leases, books, callbacks, then as many of worker_jobs, account and job as ARGV says.
SNAPSHOT = """
local workers, accounts, at = tonumber(ARGV[1]), tonumber(ARGV[2]), 6
local function each(count, read)
  local found = {}
  for i = 1, count do found[i] = read(KEYS[at]); at = at + 1 end
  return found
end
return { redis.call('HGET', KEYS[1], 'now') or '0', redis.call('ZRANGE', KEYS[2], 0, -1),
  redis.call('ZRANGE', KEYS[3], 0, -1, 'WITHSCORES'), redis.call('HMGET', KEYS[4], 'revenue', 'mint'),
  redis.call('XLEN', KEYS[5]), each(workers, function(key) return redis.call('SMEMBERS', key) end),
  each(accounts, function(key) return redis.call('HMGET', key, 'available', 'held') end),
  each(#KEYS - 5 - workers - accounts, function(key) return redis.call('HMGET', key, 'status', 'attempt', 'hold',
    'worker', 'cancel', 'company', 'alone', 'captured', 'refunded', 'text') end) }
"""


async def check_step(world: World) -> None:
    """After every step: each live job in exactly one place, every balance right, whatever was touched as predicted."""
    reference = world.reference
    jobs = {job_id: job for job_id, job in reference.jobs.items() if job.live}
    for job_id in world.touched:
        if job_id in reference.jobs:
            jobs[job_id] = reference.jobs[job_id]
    ended = [job for job in reference.jobs.values() if not job.live]
    for job in world.rng.sample(ended, min(3, len(ended))):
        jobs[job.ask.job_id] = job
    world.touched.clear()
    now, queue, leases, books, callbacks, in_hands, accounts, fields = await _snapshot(world, list(jobs))
    expect(int(now), reference.now, "time")
    _check_places(world, queue, leases, in_hands)
    _check_money(world, accounts, books)
    expect(callbacks, reference.ended - len(world.entries_taken), "callbacks on their queue")
    for job, seen in zip(jobs.values(), fields, strict=True):
        expect(tuple(seen), _predicted(job), f"{job.ask.job_id} in Redis")


async def _snapshot(world: World, jobs: list[str]) -> list[Any]:
    broker, keys = world.broker, world.broker.keys
    names = [
        keys("time"), keys("queue", MODEL), keys("leases"), keys("books"), keys("callbacks"),
        *(keys("worker_jobs", worker) for worker in world.workers),
        *(keys("account", account) for account in world.reference.accounts),
        *(keys("job", job_id) for job_id in jobs),
    ]  # fmt: skip
    counts = (str(len(world.workers)), str(len(world.reference.accounts)))
    found: list[Any] = await broker.fetch(broker.redis.eval(SNAPSHOT, len(names), *names, *counts))
    return found


def _check_places(world: World, queue: list[bytes], leases: list[bytes], in_hands: list[list[bytes]]) -> None:
    """The line holds just the queued jobs; the leases and the workers' hands just the running ones, once."""
    reference = world.reference
    line = Counter(member.decode().partition(":")[2] for member in queue)
    expect(line, Counter(job.ask.job_id for job in reference.queued()), "the line")
    lapse = {job.decode(): int(float(at)) for job, at in zip(leases[::2], leases[1::2], strict=True)}
    expect(lapse, {job.ask.job_id: job.lease_until for job in reference.running()}, "the leases")
    for worker, jobs in zip(world.workers, in_hands, strict=True):
        held = {job.ask.job_id for job in reference.running(worker)}
        expect({job.decode() for job in jobs}, held, f"the jobs in the hands of {worker}")


def _check_money(world: World, accounts: list[list[bytes]], books: list[bytes | None]) -> None:
    """Every balance as predicted, none negative, all together zero, each account's holds those of its live jobs."""
    reference = world.reference
    revenue, mint = (int(value or 0) for value in books)
    expect((revenue, mint), (reference.revenue, reference.mint), "revenue and mint")
    holds: Counter[str] = Counter()
    for job in reference.jobs.values():
        holds[job.ask.account] += job.hold
    total = revenue + mint
    for (name, account), (available, held) in zip(reference.accounts.items(), accounts, strict=True):
        expect((int(available), int(held)), (account.available, account.held), f"balances of {name}")
        expect(int(held), holds[name], f"what is held of {name}")
        if int(available) < 0 or int(held) < 0:
            raise Violation(f"a balance of {name} is negative")
        total += int(available) + int(held)
    expect(total, 0, "the sum of all balances")


def _predicted(job: Job) -> tuple[bytes | None, ...]:
    """A job's hash as it must be."""

    def text(value: object) -> bytes:
        return str(value).encode()

    ended = job.captured is not None
    return (
        text(job.status.value), text(job.attempt), text(job.hold),
        text(job.worker) if job.attempt else None,
        b"1" if job.cancel else None,
        text(int(job.company)) if job.attempt else None,
        b"1" if job.alone else None,
        text(job.captured) if ended else None,
        text(job.ask.terms.fee - (job.captured or 0)) if ended else None,
        None if job.text is None else text(job.text),
    )  # fmt: skip


async def check_all(world: World) -> None:
    """Every job that is remembered, the audit's fold of every posting, and no key that should not be there."""
    world.touched += list(world.reference.jobs)
    await check_step(world)
    report = await audit(world.broker)
    expect(report.problems, (), "audit")
    expect(len(report.rows), len(world.reference.accounts), "accounts in the audit")
    broker = world.broker
    live = frozenset(job_id for job_id, job in world.reference.jobs.items() if job.live)
    found = [key async for key in broker.redis.scan_iter(match=broker.keys.prefix + ":*", count=1_000)]
    pipe = broker.redis.pipeline(transaction=False)
    for key in found:
        pipe.pttl(key)
    for account in world.reference.accounts:
        pipe.zcard(broker.keys("account_jobs", account))
    replies = await broker.fetch(pipe.execute())
    lifetimes, listed = replies[: len(found)], replies[len(found) :]
    expect(sum(listed), len(world.reference.jobs), "jobs in the accounts' lists")
    for key, ttl_ms in zip(found, lifetimes, strict=True):
        if leaked(broker.keys.prefix, key.decode(), int(ttl_ms), live):
            raise Violation(f"key {key.decode()} has leaked")


async def check_end(world: World) -> None:
    """After everything has come to rest: every accepted job ended, paid for once, told once, its log in order."""
    await check_all(world)
    reference, broker = world.reference, world.broker
    jobs = reference.jobs | reference.forgotten
    unended = [job_id for job_id, job in jobs.items() if job.live]
    expect(unended, [], "jobs that never ended")
    left = [(fields["job"], fields["status"]) for _, fields in await broker.callbacks(100_000)]
    told = Counter(world.entries_taken + left)
    expect(told, Counter((job_id, job.status.value) for job_id, job in jobs.items()), "callbacks in all")
    for account in reference.accounts:
        await _check_ledger(world, account, jobs)
    for job in reference.jobs.values():
        await _check_log(world, job)


async def _check_ledger(world: World, account: str, jobs: dict[str, Job]) -> None:
    """captured + voided = reserved, once, for each job: read from the postings themselves."""
    sums: dict[str, Counter[str]] = {}
    times: Counter[tuple[str, str]] = Counter()
    rows, _ = await world.ledger.postings(account, before=None, limit=1_000_000)
    for row in rows:
        if row.job_id is not None:
            sums.setdefault(row.job_id, Counter())[row.kind] += row.amount
            times[row.job_id, row.kind] += 1
    expect([pair for pair, count in times.items() if count > 1], [], "postings made twice")
    for job_id, job in jobs.items():
        if job.ask.account == account:
            fee, captured = job.ask.terms.fee, job.captured or 0
            predicted = Counter(hold=fee, capture=captured, void=fee - captured)
            expect(+sums.pop(job_id, Counter()), +predicted, f"postings of {job_id}")
    expect(sums, {}, f"postings of {account} for no job")


async def _check_log(world: World, job: Job) -> None:
    """One first event, a start an attempt, the tokens in order and once, one last event."""
    events = await world.broker.events(job.ask.job_id, limit=10_000)
    kinds = Counter(event.kind for event in events)
    if not events or (events[0].kind, events[-1].kind) != (EventKind.QUEUED, EventKind.DONE):
        raise Violation(f"the log of {job.ask.job_id} does not run from queued to done: {kinds}")
    expect(kinds[EventKind.DONE], 1, f"last events of {job.ask.job_id}")
    expect(events[-1].fields["status"], job.status.value, f"last event of {job.ask.job_id}")
    expect(kinds[EventKind.STARTED], min(job.attempt, 1), f"starts of {job.ask.job_id}")
    expect(kinds[EventKind.RESTARTED], max(job.attempt - 1, 0), f"restarts of {job.ask.job_id}")
    chunks = [
        (int(e.fields["attempt"]), int(e.fields["index"]), int(e.fields["count"]))
        for e in events
        if e.kind is EventKind.TOKENS
    ]
    expect(chunks, job.chunks, f"tokens of {job.ask.job_id}")
    if job.status is Status.SUCCEEDED:
        record = await world.broker.job(job.ask.job_id)
        expect(record and record.text, job.text, f"answer of {job.ask.job_id}")
