"""Folds every posting and compares: balances, holds, the books. Reads only; safe while the herd is at work.

The balances and the last posting id of every account are read in one transaction; then each account's postings up to
that id, which nothing changes any more.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from herder.broker import Broker
from herder.errors import RedisUnavailable
from herder.ledger import posting
from herder.lifecycle import LIVE, Status
from herder.records import AuditReport, AuditRow, PostingKind

PAGE = 5_000
SNAPSHOT_TRIES = 20


@dataclass(frozen=True)
class _Snapshot:
    accounts: list[tuple[str, int, int, str]]  # account, available, held, last posting id
    revenue: int
    mint: int


class _Fold:
    """What the postings of all accounts add up to."""

    def __init__(self) -> None:
        self.totals: Counter[str] = Counter()
        self.problems: list[str] = []
        self.rows: list[AuditRow] = []
        self.open_holds: dict[str, int] = {}


async def audit(broker: Broker) -> AuditReport:
    """The report; `problems` is empty when nothing drifted."""
    fold = _Fold()
    snapshot = await _snapshot(broker)
    for seen in snapshot.accounts:
        await _fold_account(broker, fold, seen)
    await _check_holds(broker, fold)
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
    count, start = 0, "-"
    while True:
        rows = await broker.fetch(
            broker.redis.xrange(broker.keys("ledger", account), min=start, max=last, count=PAGE)
        )
        for entry, fields in rows:
            p = posting(entry, fields)
            count += 1
            own[p.source] -= p.amount
            own[p.target] += p.amount
            if p.job_id:
                per_job.setdefault(p.job_id, Counter())[p.kind] += p.amount
        if len(rows) < PAGE:
            break
        start = f"({rows[-1][0].decode()}"
    row = AuditRow(account, available, own["available"], held, own["held"], count)
    fold.rows.append(row)
    if row.drifted:
        fold.problems.append(
            f"{account}: available {available} folds to {own['available']}, held {held} to {own['held']}"
        )
    fold.totals["revenue"] += own["revenue"]
    fold.totals["mint"] += own["mint"]
    for job_id, sums in per_job.items():
        _check_job(fold, job_id, sums)


def _check_job(fold: _Fold, job_id: str, sums: Counter[PostingKind]) -> None:
    gone = sums[PostingKind.CAPTURE] + sums[PostingKind.VOID]
    if gone == 0:
        fold.open_holds[job_id] = sums[PostingKind.HOLD]
    elif gone != sums[PostingKind.HOLD]:
        fold.problems.append(f"job {job_id}: held {sums[PostingKind.HOLD]}, captured and voided {gone}")


async def _check_holds(broker: Broker, fold: _Fold) -> None:
    """Every open hold belongs to a live job with just that hold, or to one that has ended since the snapshot."""
    for job_id, hold in fold.open_holds.items():
        fields = await broker.hash_of("job", job_id)
        if not fields:
            fold.problems.append(f"job {job_id}: {hold} credits are held for a job that does not exist")
        elif Status(fields["status"]) in LIVE and int(fields["hold"]) != hold:
            fold.problems.append(f"job {job_id}: its hold is {fields['hold']}, its postings say {hold}")
        elif Status(fields["status"]) not in LIVE and not await _given_up(broker, fields["account"], job_id):
            fold.problems.append(f"job {job_id}: {hold} credits are held for a job that has ended")


async def _given_up(broker: Broker, account: str, job_id: str) -> bool:
    """Whether a hold that was open in the snapshot has been captured or voided since: the newest postings say so."""
    rows = await broker.fetch(broker.redis.xrevrange(broker.keys("ledger", account), count=PAGE))
    made = (posting(entry, fields) for entry, fields in rows)
    return any(p.job_id == job_id and p.kind in (PostingKind.CAPTURE, PostingKind.VOID) for p in made)
