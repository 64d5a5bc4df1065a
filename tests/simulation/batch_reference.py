"""What must be true of batches: stored, charged once, fed in steps, cancelled in steps, forgotten in steps.

A part of the reference, beside jobs and money; knows no Redis and no Lua.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from herder.batches import Charge, Item
from herder.brief import brief_of
from herder.lifecycle import Status
from herder.pricing import Terms
from herder.protocol import Ask
from tests.simulation.states import Batch, Job, expect

if TYPE_CHECKING:
    from tests.simulation.reference import Reference


class BatchReference:
    """All batches; `storing` are those that nobody has paid for yet."""

    def __init__(self, reference: Reference) -> None:
        self._all = reference
        self.storing: dict[str, dict[int, Item]] = {}
        self.batches: dict[str, Batch] = {}
        self.forgotten: dict[str, Batch] = {}

    def waiting(self) -> list[str]:
        """Those with something to feed or to cancel, oldest first."""
        return sorted(
            (name for name, batch in self.batches.items() if batch.waiting),
            key=lambda name: (self.batches[name].created_ms, name),
        )

    # --- the client's side ---------------------------------------------------------------------------------

    def store(self, batch: str, first_index: int, items: Sequence[Item]) -> str:
        """The word for some items: nothing may be added to what was charged, nor behind a gap."""
        if batch in self.batches:
            return "CHARGED"
        if first_index > len(self.storing.get(batch, {})):
            return "LOST"
        self.storing.setdefault(batch, {}).update(enumerate(items, first_index))
        return "OK"

    def charge(self, c: Charge) -> tuple[str, str]:
        """The word that charge must answer, and the batch it is about."""
        reference = self._all
        if c.batch in self.batches:
            return reference.presence.replay(c.batch, c.presence_ms)
        name = (c.account, c.idempotency_key or "")
        if c.idempotency_key is not None and name in reference.remembered:
            request_hash, subject = reference.remembered[name]
            same = request_hash == c.request_hash
            return reference.presence.replay(subject, c.presence_ms) if same else ("CONFLICT", "")
        account = reference.accounts.get(c.account)
        if account is None:
            return "NO_ACCOUNT", ""
        if account.suspended:
            return "SUSPENDED", ""
        if "nobody" in c.models:
            return "NO_MODEL", ""
        if c.price_version != reference.price_version:
            return "REPRICE", ""
        if len(reference.queued()) >= reference.depth_max:
            return "FULL", ""
        if account.available < c.fee:
            return "POOR", ""
        stored = self.storing.get(c.batch, {})
        if len(stored) < c.total:
            return "LOST", ""
        del self.storing[c.batch]
        account.available -= c.fee
        account.held += c.fee
        items = [stored[index] for index in range(c.total)]
        self.batches[c.batch] = Batch(c, items, len(stored), reference.now)
        if c.idempotency_key is not None:
            reference.remembered[name] = (c.request_hash, c.batch)
        reference.presence.begin(c.batch, c.presence_ms)
        return "OK", c.batch

    def abandon(self, account: str, name: str) -> str:
        """The word for a wish to cancel."""
        batch = self.batches.get(name)
        if batch is None or batch.charge.account != account:
            return "UNKNOWN"
        if batch.ended_ms is not None:
            return "ENDED"
        if not batch.cancel:
            batch.cancel = batch.waiting = True
        return "OK"

    # --- the feeder's side ---------------------------------------------------------------------------------

    def feed(self, name: str, limit: int, bytes_max: int) -> tuple[str, int]:
        """(state, items fed in all) of one step: so many items, or the one that brings their texts to so many bytes.

        A cancelled batch goes half as far, since each item goes in and out again.
        """
        batch, reference = self.batches.get(name), self._all
        if batch is None:
            return "UNKNOWN", 0
        if batch.ended_ms is not None:
            return "DONE", batch.fed
        if batch.cancel and batch.cancelled_to < batch.fed:
            return self._cancel_fed(batch, limit)
        before, size = batch.fed, 0
        step = (limit + 1) // 2 if batch.cancel else limit
        for index in range(before, min(before + step, batch.charge.total)):
            if size >= bytes_max:
                reference.counts["feed steps bounded by their bytes"] += 1
                break
            if not batch.cancel and len(reference.queued()) >= reference.depth_max:
                return "FULL", batch.fed
            job = self._enter(batch, index)
            if batch.cancel:
                reference.end("h2", job, 0)
                batch.cancelled_to = batch.fed
            size += len(batch.items[index].stored().encode())
        return ("MORE", batch.fed) if batch.fed < batch.charge.total else self._done(batch)

    def _done(self, batch: Batch) -> tuple[str, int]:
        batch.waiting = False
        return "DONE", batch.fed

    def _enter(self, batch: Batch, index: int) -> Job:
        """An item becomes a job; its fee is held already."""
        item, c = batch.items[index], batch.charge
        ask = Ask(
            job_id=f"job_{c.batch.removeprefix('batch_')}n{index}",
            account=c.account,
            key_id=c.key_id,
            model=item.model,
            brief=brief_of(item.input),
            tokens=item.tokens,
            terms=Terms(c.set_prompt_fee, c.fee_per_token, item.base, item.fee),
            multiplier_milli=item.multiplier_milli,
            offered=item.offered,
            price_version=c.price_version,
            kv_tokens=item.kv_tokens,
            webhook=item.webhook,
            chain=item.chain,
        )
        joined = self._all.now
        job = Job(ask, hold=item.fee, batch=batch, index=index, custom_id=item.custom_id, joined_ms=joined)
        expect(ask.job_id in self._all.jobs, False, f"item {ask.job_id} was fed before")
        self._all.jobs[ask.job_id] = job
        batch.jobs.append(job)
        self._all.rows["a2"] += 1
        return job

    def _cancel_fed(self, batch: Batch, limit: int) -> tuple[str, int]:
        """A step through the items that are in line or in a worker's hands."""
        upto = min(batch.fed, batch.cancelled_to + limit)
        for job in batch.jobs[batch.cancelled_to : upto]:
            if job.status is Status.QUEUED:
                self._all.end("h2", job, 0)
            elif job.status is Status.RUNNING:
                self._all.go("i4", job)
                job.cancel = True
        batch.cancelled_to = upto
        return self._done(batch) if upto == batch.charge.total else ("MORE", batch.fed)

    # --- the end -------------------------------------------------------------------------------------------

    def item_ended(self, job: Job) -> None:
        """With the last of its items ends the batch: one callback."""
        batch = job.batch
        assert batch is not None
        batch.results.append(job.index)
        if len(batch.results) == batch.charge.total:
            batch.ended_ms, batch.waiting = self._all.now, False
            self._all.presence.end(batch.charge.batch)
            self._all.counts["batches ended"] += 1
            self._all.counts["batches ended by cancelling"] += batch.cancel
            self._all.tell(
                batch.charge.batch, batch.charge.account, "ended", batch.charge.webhook, item=False
            )

    def ended(self) -> list[tuple[int, str]]:
        """(when, batch:account) of each batch that has ended."""
        return [
            (batch.ended_ms, f"{name}:{batch.charge.account}")
            for name, batch in self.batches.items()
            if batch.ended_ms is not None
        ]

    def purge(self, name: str, most: int) -> int:
        """Some items of an ended batch are forgotten, and with the last of them the batch; how many items.

        A job of its own is forgotten at once.
        """
        if name not in self.batches:
            self._all.forget(name)
            return 1
        batch = self.batches[name]
        gone = batch.jobs[batch.purged : batch.purged + most]
        for job in gone:
            self._all.forget(job.ask.job_id)
        batch.purged += len(gone)
        if batch.purged < batch.charge.total:
            self._all.counts["batch purged in steps"] += 1
            return len(gone)
        self.forgotten[name] = self.batches.pop(name)
        self._all.counts["batch forgotten"] += 1
        return len(gone)
