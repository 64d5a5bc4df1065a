"""What must be true of every herd whatever was killed: jobs ended once, streams equal to results, the ledger exact."""

from __future__ import annotations

from collections.abc import Iterable

from herder.audit import audit
from herder.broker import Broker
from herder.lifecycle import TERMINAL, Status
from herder.protocol import Event, EventKind, JobRecord
from tests.e2e.herd import DEMO, Up

PAGE = 1_000
FUNDS = 100_000  # what the first start gives the demo account


async def event_log(broker: Broker, job_id: str) -> list[Event]:
    """The whole event log of a job."""
    events: list[Event] = []
    while True:
        after = events[-1].event_id if events else "-"
        page = await broker.events(job_id, after=after, limit=PAGE)
        events += page
        if len(page) < PAGE:
            return events


def streamed(events: Iterable[Event], choice: int = 0) -> str:
    """The text of one answer that somebody who followed the log has at its end."""
    text = ""
    for event in events:
        if event.kind is EventKind.RESTARTED:
            text = ""
        elif event.kind is EventKind.TOKENS and int(event.fields.get("choice", 0)) == choice:
            text += event.fields["text"]
    return text


async def _all_jobs(broker: Broker) -> list[JobRecord]:
    records, cursor = await broker.jobs(DEMO, before=None, limit=PAGE)
    while cursor:
        more, cursor = await broker.jobs(DEMO, before=cursor, limit=PAGE)
        records += more
    return records


async def _closed(broker: Broker, funds: int) -> list[JobRecord]:
    records, faults = await _all_jobs(broker), []
    for record in records:
        job_id = record.job_id
        events = await event_log(broker, job_id)
        if record.status not in TERMINAL:
            faults.append(f"{job_id} is {record.status}")
        if (record.captured or 0) + (record.refunded or 0) != record.fee:
            faults.append(f"{job_id}: {record.captured} + {record.refunded} of {record.fee}")
        if [event.kind for event in events].count(EventKind.DONE) != 1:
            faults.append(f"{job_id} has ended more or less than once")
        for i, choice in enumerate(record.choices if record.status is Status.SUCCEEDED else ()):
            if streamed(events, i) != choice.text:
                faults.append(
                    f"{job_id}: {streamed(events, i)!r} was streamed, {choice.text!r} is its result"
                )
        if record.status is Status.FAILED and record.captured:
            faults.append(f"{job_id} failed and cost {record.captured}")
    report = await audit(broker)
    faults += report.problems
    rows = {row.account: row for row in report.rows}
    spent = sum(record.captured or 0 for record in records)
    if (rows[DEMO].available, rows[DEMO].held) != (funds - spent, 0):
        faults.append(f"demo has {rows[DEMO]}, its jobs cost {spent} of {funds}")
    assert faults == []
    return records


def closed_books(herd: Up, accepted: Iterable[str], funds: int = FUNDS) -> dict[str, JobRecord]:
    """Every job of the demo account has ended once, at its price, with the text that was streamed; the audit is clean.

    `accepted` are jobs that must be among them; `funds` is what the account was given. Returns the records.
    """
    records = {record.job_id: record for record in herd.ask(lambda broker: _closed(broker, funds))}
    wanted = set(accepted)
    assert wanted
    assert wanted <= records.keys()
    return records
