"""Folds every posting and compares: balances, holds, the books. Reads only; safe while the herd is at work.

The balances and the last posting id of every account are read in one transaction; then each account's postings up to
that id, which nothing changes any more. What is open then is compared with the jobs and batches by `audit_holds`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from herder.audit_holds import Batch, Open, check_holds
from herder.broker import Broker
from herder.errors import RedisUnavailable
from herder.ledger import posting
from herder.records import AuditReport, AuditRow, Posting, PostingKind

PAGE = 5_000
SNAPSHOT_TRIES = 20


@dataclass(frozen=True)
class _Snapshot:
    accounts: list[tuple[str, int, int, str]]  # account, available, held, last posting id
    revenue: int
    mint: int


@dataclass
class _Fold:
    """What the postings of all accounts add up to."""

    totals: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    rows: list[AuditRow] = field(default_factory=list)
    open: list[Open] = field(default_factory=list)


async def audit(broker: Broker) -> AuditReport:
    """The report; `problems` is empty when nothing drifted."""
    fold = _Fold()
    snapshot = await _snapshot(broker)
    for seen in snapshot.accounts:
        await _fold_account(broker, fold, seen)
    for left in fold.open:
        fold.problems.extend(await check_holds(broker, left))
    for name, balance in (("revenue", snapshot.revenue), ("mint", snapshot.mint)):
        if fold.totals[name] != balance:
            fold.problems.append(f"{name} is {balance}, its postings fold to {fold.totals[name]}")
    total = snapshot.revenue + snapshot.mint + sum(a + h for _, a, h, _ in snapshot.accounts)
    if total != 0:
        fold.problems.append(f"all balances sum to {total}, not 0")
    return AuditReport(
        rows=tuple(fold.rows),
        revenue=snapshot.revenue,
        revenue_folded=fold.totals["revenue"],
        mint=snapshot.mint,
        mint_folded=fold.totals["mint"],
        problems=tuple(fold.problems),
    )


async def _snapshot(broker: Broker) -> _Snapshot:
    """One moment of all balances; taken again where an account was made between listing and reading."""
    for _ in range(SNAPSHOT_TRIES):
        names = [n.decode() for n in await broker.fetch(broker.redis.zrange(broker.keys("accounts"), 0, -1))]
        pipe = broker.redis.pipeline(transaction=True)
        pipe.zcard(broker.keys("accounts"))
        pipe.hmget(broker.keys("books"), ["revenue", "mint"])
        for name in names:
            pipe.hmget(broker.keys("account", name), ["available", "held"])
            pipe.xrevrange(broker.keys("ledger", name), count=1)
        count, books, *replies = await broker.fetch(pipe.execute())
        if count == len(names):
            break
    else:
        raise RedisUnavailable(f"accounts are being made too fast to audit them ({SNAPSHOT_TRIES} tries)")
    revenue, mint = (int(value or 0) for value in books)
    accounts = []
    for name, (available, held), newest in zip(names, replies[::2], replies[1::2], strict=True):
        accounts.append((name, int(available), int(held), newest[0][0].decode() if newest else "0-0"))
    return _Snapshot(accounts, revenue, mint)


async def _fold_account(broker: Broker, fold: _Fold, seen: tuple[str, int, int, str]) -> None:
    account, available, held, last = seen
    own: Counter[str] = Counter()
    per_job: dict[str, Counter[PostingKind]] = {}
    batches: dict[str, Batch] = {}
    count = 0
    async for p in _postings(broker, account, last):
        count += 1
        own[p.source] -= p.amount
        own[p.target] += p.amount
        if p.batch_id:
            batches.setdefault(p.batch_id, Batch(p.batch_id)).add(p)
        elif p.job_id:
            per_job.setdefault(p.job_id, Counter())[p.kind] += p.amount
    row = AuditRow(account, available, own["available"], held, own["held"], count)
    fold.rows.append(row)
    if row.drifted:
        fold.problems.append(
            f"{account}: available {available} folds to {own['available']}, held {held} to {own['held']}"
        )
    fold.totals["revenue"] += own["revenue"]
    fold.totals["mint"] += own["mint"]
    left = Open(account, last, list(batches.values()))
    for job_id, sums in per_job.items():
        gone = sums[PostingKind.CAPTURE] + sums[PostingKind.VOID]
        if gone == 0:
            left.jobs[job_id] = sums[PostingKind.HOLD]
        elif gone != sums[PostingKind.HOLD]:
            fold.problems.append(f"job {job_id}: held {sums[PostingKind.HOLD]}, captured and voided {gone}")
    fold.open.append(left)


async def _postings(broker: Broker, account: str, last: str) -> AsyncIterator[Posting]:
    """An account's postings up to an id."""
    start = "-"
    while True:
        rows = await broker.fetch(
            broker.redis.xrange(broker.keys("ledger", account), min=start, max=last, count=PAGE)
        )
        for entry, fields in rows:
            yield posting(entry, fields)
        if len(rows) < PAGE:
            return
        start = f"({rows[-1][0].decode()}"
