"""Redis beside the reference: everything live after each step, everything there is now and then and at the end.

Jobs and money are here; batches and webhooks have checks of their own.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from herder.audit import audit
from herder.choices import choices_of
from herder.keys import TABLE, leaked
from herder.lifecycle import Status
from herder.protocol import EventKind
from tests.simulation import batch_checks, webhook_checks
from tests.simulation.states import Batch, Job, Violation, expect
from tests.simulation.world import MODEL, Look, World

LIVING = frozenset(kind.pattern.partition(":")[0] for kind in TABLE.values() if kind.lifetime == "job")
FIELDS = (
    "status", "attempt", "hold", "worker", "cancel", "company", "alone", "captured", "refunded", "text", "batch",
    "batch_index", "skips", "custom_id", "webhook_url", "webhook_endpoint",
    "presence_ms",
)  # fmt: skip


async def check_step(world: World) -> None:
    """After every step: each live job in exactly one place, every balance right, whatever was touched as predicted.

    One look for all, since the way to Redis and back takes longer than everything else.
    """
    parts = [
        _places(world),
        _money(world),
        _jobs(world),
        _beginnings(world),
        batch_checks.look(world),
        webhook_checks.look(world),
    ]
    world.touched.clear()
    said = await world.look([command for commands, _ in parts for command in commands])
    for commands, compare in parts:
        compare(said[: len(commands)])
        del said[: len(commands)]


def _jobs(world: World) -> Look:
    """The live jobs, those that were touched, and a few that have ended."""
    reference = world.reference
    jobs = {job_id: job for job_id, job in reference.jobs.items() if job.live}
    for job_id in world.touched:
        if job_id in reference.jobs:
            jobs[job_id] = reference.jobs[job_id]
    ended = [job for job in reference.jobs.values() if not job.live]
    for job in world.rng.sample(ended, min(3, len(ended))):
        jobs[job.ask.job_id] = job

    def compare(said: list[Any]) -> None:
        for job, seen in zip(jobs.values(), said, strict=True):
            expect(tuple(seen), _predicted(job), f"{job.ask.job_id} in Redis")

    return [["HMGET", world.broker.keys("job", job_id), *FIELDS] for job_id in jobs], compare


def _places(world: World) -> Look:
    """Time, the line, the leases, the workers' hands, the presences, the callback queue."""
    keys, reference = world.broker.keys, world.reference

    def compare(said: list[Any]) -> None:
        now, queue, leases, callbacks, presence, *in_hands = said
        expect(int(now or 0), reference.now, "time")
        expect(_scores(presence), reference.presence.until, "who is present until when")
        _check_places(world, queue, leases, in_hands)
        expect(callbacks, len(reference.callbacks), "callbacks on their queue")

    commands = [
        ["HGET", keys("time"), "now"],
        ["ZRANGE", keys("queue", MODEL), "0", "-1"],
        ["ZRANGE", keys("leases"), "0", "-1", "WITHSCORES"],
        ["XLEN", keys("callbacks")],
        ["ZRANGE", keys("presence"), "0", "-1", "WITHSCORES"],
        *(["SMEMBERS", keys("worker_jobs", worker)] for worker in world.workers),
    ]
    return commands, compare


def _beginnings(world: World) -> Look:
    """Which worker holds the beginnings of which prompts."""
    keys, line = world.broker.keys, world.reference.line

    def compare(said: list[Any]) -> None:
        for generation, flat in zip(line.generations(), said, strict=True):
            expect(dict(zip(flat[::2], flat[1::2], strict=True)), generation, "beginnings and their holders")

    return [["HGETALL", keys("prefixes", MODEL)], ["HGETALL", keys("prefixes_before", MODEL)]], compare


def _money(world: World) -> Look:
    """The books and every account's balances."""
    keys, accounts = world.broker.keys, world.reference.accounts
    commands = [["HMGET", keys("books"), "revenue", "mint"]]
    commands += [["HMGET", keys("account", name), "available", "held"] for name in accounts]
    return commands, lambda said: _check_money(world, said[1:], said[0])


def _check_places(world: World, queue: list[bytes], leases: list[bytes], in_hands: list[list[bytes]]) -> None:
    """The line holds just the queued jobs; the leases and the workers' hands just the running ones, once."""
    reference = world.reference
    line = Counter(member.decode().partition(":")[2] for member in queue)
    queued = (job.ask for job in reference.queued())
    expect(line, Counter("#".join([ask.job_id, *ask.chain[:1]]) for ask in queued), "the line")
    expect(_scores(leases), {job.ask.job_id: job.lease_until for job in reference.running()}, "the leases")
    for worker, jobs in zip(world.workers, in_hands, strict=True):
        held = {job.ask.job_id for job in reference.running(worker)}
        expect({job.decode() for job in jobs}, held, f"the jobs in the hands of {worker}")


def _scores(flat: list[bytes]) -> dict[str, int]:
    """A zset of times."""
    return {name.decode(): int(float(at)) for name, at in zip(flat[::2], flat[1::2], strict=True)}


def _check_money(world: World, accounts: list[list[bytes]], books: list[bytes | None]) -> None:
    """Every balance as predicted, none negative, all together zero, each account's holds those of its live jobs."""
    reference = world.reference
    revenue, mint = (int(value or 0) for value in books)
    expect((revenue, mint), (reference.revenue, reference.mint), "revenue and mint")
    holds: Counter[str] = Counter()
    for job in reference.jobs.values():
        holds[job.ask.account] += job.hold
    for batch in reference.batches.batches.values():
        holds[batch.charge.account] += batch.unfed_fee
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

    ended, webhook = job.captured is not None, job.ask.webhook
    return (
        text(job.status.value), text(job.attempt), text(job.hold),
        text(job.worker) if job.attempt else None,
        b"1" if job.cancel else None,
        text(int(job.company)) if job.attempt else None,
        b"1" if job.alone else None,
        text(job.captured) if ended else None,
        text(job.ask.terms.fee - (job.captured or 0)) if ended else None,
        None if job.text is None else text(job.text),
        text(job.batch.charge.batch) if job.batch else None,
        text(job.index) if job.batch else None,
        text(job.skips) if job.skips else None,
        text(job.custom_id) if job.custom_id else None,
        text(webhook.url) if webhook else None,
        text(webhook.endpoint) if webhook else None,
        text(job.ask.presence_ms) if job.ask.presence_ms else None,
    )  # fmt: skip


async def check_all(world: World) -> None:
    """Every job that is remembered, the audit's fold of every posting, and no key that should not be there."""
    reference = world.reference
    world.touched += [*reference.jobs, *reference.batches.batches, *reference.webhooks.deliveries]
    await check_step(world)
    report = await audit(world.broker)
    expect(report.problems, (), "audit")
    expect(len(report.rows), len(reference.accounts), "accounts in the audit")
    await _check_lists(world)
    await webhook_checks.check_endpoints(world)
    await check_keys(world)


async def _check_lists(world: World) -> None:
    """What each account's lists have: just what is remembered."""
    reference, keys = world.reference, world.broker.keys
    lists = {
        "account_jobs": [(job.ask.account, name) for name, job in reference.jobs.items()],
        "account_batches": [(b.charge.account, name) for name, b in reference.batches.batches.items()],
        "deliveries": [(d.new.account, name) for name, d in reference.webhooks.deliveries.items()],
        "endpoints": [(e.account, e.url) for e in reference.webhooks.endpoints.values()],
    }
    for kind, predicted in lists.items():
        read = "HKEYS" if kind == "endpoints" else "ZRANGE"
        more = [] if kind == "endpoints" else ["0", "-1"]
        said = await world.look([[read, keys(kind, account), *more] for account in reference.accounts])
        found = {
            (account, name.decode())
            for account, row in zip(reference.accounts, said, strict=True)
            for name in row
        }
        expect(found, set(predicted), f"{kind} of all accounts")


async def check_keys(world: World) -> None:
    """No key that should not be there, and none of what lives that would go."""
    broker, reference = world.broker, world.reference
    live = {name for name, job in reference.jobs.items() if job.live or job.batch}
    live |= {name for name, delivery in reference.webhooks.deliveries.items() if delivery.pending}
    live |= set(reference.batches.batches)
    found = [key async for key in broker.redis.scan_iter(match=broker.keys.prefix + ":*", count=1_000)]
    pipe = broker.redis.pipeline(transaction=False)
    for key in found:
        pipe.pttl(key)
    lifetimes = await broker.fetch(pipe.execute())
    for key, ttl_ms in zip(found, lifetimes, strict=True):
        if leaked(broker.keys.prefix, key.decode(), int(ttl_ms), frozenset(live)):
            raise Violation(f"key {key.decode()} has leaked")
        kind, _, subject = key.decode().removeprefix(broker.keys.prefix + ":").partition(":")
        if kind in LIVING and subject in live and int(ttl_ms) != -1:
            raise Violation(f"key {key.decode()} expires, and what it is of is not over")


async def check_end(world: World) -> None:
    """After everything has come to rest: every accepted job ended, paid for once, told once, its log in order."""
    await check_all(world)
    reference, broker = world.reference, world.broker
    jobs = reference.jobs | reference.forgotten
    unended = [job_id for job_id, job in jobs.items() if job.live]
    expect(unended, [], "jobs that never ended")
    batches = reference.batches.batches | reference.batches.forgotten
    unended = [name for name, batch in batches.items() if batch.ended_ms is None]
    expect(unended, [], "batches that never ended")
    left = [fields.get("job") or fields["batch"] for _, fields in await broker.callbacks(100_000)]
    expect(Counter(world.subjects_taken + left), Counter([*jobs, *batches]), "callbacks in all")
    for account in reference.accounts:
        await _check_ledger(world, account, jobs, batches)
    for job in reference.jobs.values():
        await _check_log(world, job)


async def _check_ledger(world: World, account: str, jobs: dict[str, Job], batches: dict[str, Batch]) -> None:
    """captured + voided = reserved, once, for each job and each batch: read from the postings themselves."""
    sums: dict[str, Counter[str]] = {}
    times: Counter[tuple[str, str]] = Counter()
    rows, _ = await world.ledger.postings(account, before=None, limit=1_000_000)
    for row in rows:
        if row.job_id is not None:
            sums.setdefault(row.job_id, Counter())[row.kind] += row.amount
            times[row.job_id, row.kind] += 1
            batch = jobs[row.job_id].batch if row.job_id in jobs else batches[row.job_id]
            expect(row.batch_id, batch and batch.charge.batch, f"batch of the postings of {row.job_id}")
    expect([pair for pair, count in times.items() if count > 1], [], "postings made twice")
    for job_id, job in jobs.items():
        if job.ask.account == account:
            fee, captured = job.ask.terms.fee, job.captured or 0
            predicted = Counter(hold=0 if job.batch else fee, capture=captured, void=fee - captured)
            expect(+sums.pop(job_id, Counter()), +predicted, f"postings of {job_id}")
    for name, batch in batches.items():
        if batch.charge.account == account:
            predicted = Counter(hold=sum(job.ask.terms.fee for job in batch.jobs))
            expect(+sums.pop(name, Counter()), +predicted, f"postings of {name}")
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
        (
            *(int(e.fields[name]) for name in ("attempt", "index", "count")),
            int(e.fields["choice"]) if "choice" in e.fields else None,
        )
        for e in events
        if e.kind is EventKind.TOKENS
    ]
    expect(chunks, job.chunks, f"tokens of {job.ask.job_id}")
    if job.status is Status.SUCCEEDED:
        record = await world.broker.job(job.ask.job_id)
        expect(record and record.text, job.text, f"answer of {job.ask.job_id}")
        said = [(choice.text, choice.completion_tokens) for choice in record.choices] if record else []
        expect(len(said), job.ask.brief.n, f"answers of {job.ask.job_id}")
        expect(sum(count for _, count in said), job.used, f"tokens of all answers of {job.ask.job_id}")
        if job.choices is not None:
            told = [
                (choice.text, choice.completion_tokens) for choice in choices_of(job.choices, job.text or "")
            ]
            expect(said, told, f"answers of {job.ask.job_id}")
