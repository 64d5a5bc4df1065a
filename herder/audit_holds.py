"""Every credit that the postings of an account leave held: whose it is, and whether Redis says the same of it.

Jobs and batches go on meanwhile, so what has changed since the snapshot is read from the postings that came after it;
a posting is never changed. Reads only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from herder.batch_records import item_id
from herder.broker import Broker
from herder.ledger import posting
from herder.lifecycle import LIVE, Status
from herder.records import Posting, PostingKind

PAGE = 5_000
MANY = 1_000  # hashes of one round trip

_ENDS = (PostingKind.CAPTURE, PostingKind.VOID)


@dataclass
class Batch:
    """What the postings say of a batch: credits held, and what of them each item has given up."""

    batch: str
    held: int = 0
    given_up: Counter[str] = field(default_factory=Counter)  # by job

    def add(self, p: Posting) -> None:
        """One more posting of it."""
        if p.kind is PostingKind.HOLD:
            self.held += p.amount
        elif p.kind in _ENDS:
            self.given_up[p.job_id or ""] += p.amount

    @property
    def open(self) -> int:
        """What is still held."""
        return self.held - self.given_up.total()


@dataclass
class Open:
    """What an account's postings up to `last` leave to be looked at."""

    account: str
    last: str
    batches: list[Batch]
    jobs: dict[str, int] = field(default_factory=dict)  # job → credits held


async def check_holds(broker: Broker, left: Open) -> list[str]:
    """Every problem with the holds of one account, in words."""
    return [*await _check_jobs(broker, left), *await _check_batches(broker, left)]


async def _check_jobs(broker: Broker, left: Open) -> list[str]:
    """Every open hold belongs to a live job with just that hold, or to one that has ended since the snapshot."""
    problems: list[str] = []
    ended: list[str] = []
    for some in _slices(list(left.jobs)):
        rows = await _fields(broker, [("job", job) for job in some], ["status", "hold"])
        for job, (status, hold) in zip(some, rows, strict=True):
            held = left.jobs[job]
            if status is None:
                problems.append(f"job {job}: {held} credits are held for a job that does not exist")
            elif Status(status) not in LIVE:
                ended.append(job)
            elif int(hold or 0) != held:
                problems.append(f"job {job}: its hold is {hold}, its postings say {held}")
    if ended:
        since = {p.job_id for p in await _since(broker, left.account, left.last) if p.kind in _ENDS}
        problems += [
            f"job {job}: {left.jobs[job]} credits are held for a job that has ended"
            for job in ended
            if job not in since
        ]
    return problems


async def _check_batches(broker: Broker, left: Open) -> list[str]:
    """What a batch holds is what its hash says: unfed items and live ones; nothing once it has ended."""
    problems: list[str] = []
    for some in _slices(left.batches):
        rows = await _fields(broker, [("batch", each.batch) for each in some], ["status"])
        for each, (status,) in zip(some, rows, strict=True):
            if each.open < 0:
                problems.append(f"batch {each.batch}: {-each.open} credits more were given up than held")
            elif status != "ended" and (each.open or status is not None):
                problems += await _check_running(broker, left, each)
            elif status == "ended":
                problems += await _check_ended(broker, left, each)
    return problems


async def _check_ended(broker: Broker, left: Open, batch: Batch) -> list[str]:
    if batch.open:
        batch, _ = await _now(broker, left, batch)
    (hold,) = (await _fields(broker, [("batch", batch.batch)], ["hold"]))[0]
    if batch.open or int(hold or 0):
        return [
            f"batch {batch.batch}: it has ended, its hold is {hold}, its postings leave {batch.open} held"
        ]
    return []


async def _check_running(broker: Broker, left: Open, batch: Batch) -> list[str]:
    """Fees never change, so that they can be read one after the other; what is open is compared at one moment."""
    batch, seen = await _now(broker, left, batch)
    if seen is None:
        if batch.open:
            return [f"batch {batch.batch}: {batch.open} credits are held for a batch that does not exist"]
        return []
    items = _Items(batch)
    for some in _slices([item_id(batch.batch, index) for index in range(seen["fed"])]):
        rows = await _fields(broker, [("job", job) for job in some], ["status", "fee", "hold"])
        for job, (status, fee, hold) in zip(some, rows, strict=True):
            items.look_at(job, status, int(fee or 0), int(hold or 0))
    if items.missing and (await _fields(broker, [("batch", batch.batch)], ["status"]))[0][0] != "running":
        return []  # it ended while this looked at it, and its time was over: it goes in steps
    problems = items.problems
    if seen["hold"] != batch.open:
        problems.append(f"batch {batch.batch}: its hold is {seen['hold']}, its postings say {batch.open}")
    unfed_fee = seen["unfed_fee"]
    if items.fees + unfed_fee != batch.held:
        problems.append(
            f"batch {batch.batch}: its items cost {items.fees} + {unfed_fee}, {batch.held} were held"
        )
    if items.open_fees + unfed_fee != batch.open:
        problems.append(
            f"batch {batch.batch}: its items hold {items.open_fees} + {unfed_fee}, its postings say {batch.open}"
        )
    if items.ended:
        since = await _since(broker, left.account, seen["last"])
        gave_up = {p.job_id for p in since if p.kind in _ENDS}
        problems += [
            f"job {job}: {fee} credits are held for a job that has ended"
            for job, fee in items.ended.items()
            if job not in gave_up
        ]
    return problems


class _Items:
    """The items of one batch that were in line at one moment, beside what the postings up to then say of them."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self.problems: list[str] = []
        self.fees = 0
        self.open_fees = 0
        self.ended: dict[str, int] = {}  # job → fee, of those whose postings must have come since
        self.missing = False

    def look_at(self, job: str, status: str | None, fee: int, hold: int) -> None:
        """One item, as its hash is now."""
        given_up = self._batch.given_up.get(job, 0)
        self.fees += fee
        self.open_fees += 0 if given_up else fee
        if status is None:
            self.missing = True
            self.problems.append(
                f"job {job}: an item of {self._batch.batch} that was in line and does not exist"
            )
        elif given_up not in (0, fee):
            self.problems.append(f"job {job}: its fee is {fee}, captured and voided were {given_up}")
        elif Status(status) in LIVE and (hold != fee or given_up):
            self.problems.append(
                f"job {job}: its hold is {hold}; of its fee, {fee}, {given_up} were given up"
            )
        elif Status(status) not in LIVE and not given_up and fee:
            self.ended[job] = fee


async def _now(broker: Broker, left: Open, batch: Batch) -> tuple[Batch, dict[str, Any] | None]:
    """The batch and its postings at one moment, later than the snapshot; None where the batch is gone."""
    pipe = broker.redis.pipeline(transaction=True)
    pipe.hmget(broker.keys("batch", batch.batch), ["hold", "unfed_fee", "fed"])
    pipe.xrevrange(broker.keys("ledger", left.account), count=1)
    (hold, unfed_fee, fed), newest = await broker.fetch(pipe.execute())
    last = newest[0][0].decode()
    later = Batch(batch.batch, batch.held, Counter(batch.given_up))
    for p in await _since(broker, left.account, left.last, last):
        if p.batch_id == batch.batch:
            later.add(p)
    if hold is None:
        return later, None
    return later, {"hold": int(hold), "unfed_fee": int(unfed_fee), "fed": int(fed), "last": last}


async def _since(broker: Broker, account: str, last: str, upto: str = "+") -> list[Posting]:
    """An account's postings after one id, up to another."""
    found: list[Posting] = []
    start = f"({last}"
    while True:
        rows = await broker.fetch(
            broker.redis.xrange(broker.keys("ledger", account), min=start, max=upto, count=PAGE)
        )
        found += [posting(entry, fields) for entry, fields in rows]
        if len(rows) < PAGE:
            return found
        start = f"({rows[-1][0].decode()}"


async def _fields(
    broker: Broker, names: Sequence[tuple[str, str]], fields: list[str]
) -> list[list[str | None]]:
    """Some fields of several hashes, in one round trip."""
    pipe = broker.redis.pipeline(transaction=False)
    for name, argument in names:
        pipe.hmget(broker.keys(name, argument), fields)
    rows = await broker.fetch(pipe.execute())
    return [[None if value is None else value.decode() for value in row] for row in rows]


def _slices(rows: list[Any]) -> Iterator[list[Any]]:
    for start in range(0, len(rows), MANY):
        yield rows[start : start + MANY]
