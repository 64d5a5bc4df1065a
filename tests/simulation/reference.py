"""What must be true: jobs and money as a plain Python model. Predicts every reply; knows no Redis and no Lua.

It was written from the table of the lifecycle, not from the scripts. Batches, webhooks and the line (whom a lease
takes) have models of their own, which hang on this one.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence

from herder.lifecycle import TABLE, Status
from herder.protocol import Ask, Chunk, Lease, Outcome, Settlement, Webhook
from herder.settings import Settings
from tests.simulation.batch_reference import BatchReference
from tests.simulation.line import Line
from tests.simulation.presence_reference import PresenceReference
from tests.simulation.states import Account, Job, Time, Told, expect
from tests.simulation.webhook_reference import WebhookReference, webhook_told

ROWS = {row.row: (row.source, row.target) for row in TABLE}


class Reference(Time):
    """The whole herd. `rows` counts the rows of the lifecycle that happened, `counts` everything else of interest."""

    def __init__(self, s: Settings) -> None:
        super().__init__()
        self.lease_ms, self.result_ttl_ms, self.depth_max = s.lease_ms, s.result_ttl_ms, s.queue_depth_max
        self.batches = BatchReference(self)
        self.line = Line(self, s)
        self.webhooks = WebhookReference(self, s)
        self.presence = PresenceReference(self, s)
        self.accounts: dict[str, Account] = {}
        self.jobs: dict[str, Job] = {}
        self.forgotten: dict[str, Job] = {}
        self.remembered: dict[tuple[str, str], tuple[str, str]] = {}
        self.price_version = 0
        self.revenue = self.mint = 0
        self.run_id: str | None = None
        self.grace_until = 0
        self.callbacks: deque[Told] = deque()  # those that nobody has taken yet
        self.rows: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()

    # --- jobs by where they are ----------------------------------------------------------------------------

    def queued(self) -> list[Job]:
        """All queued jobs."""
        return [job for job in self.jobs.values() if job.status is Status.QUEUED]

    def running(self, worker: str | None = None) -> list[Job]:
        """All running jobs, or those of one worker."""
        held = [job for job in self.jobs.values() if job.status is Status.RUNNING]
        return held if worker is None else [job for job in held if job.worker == worker]

    def go(self, row: str, job: Job) -> None:
        """A row of the lifecycle happens to a job."""
        source, target = ROWS[row]
        expect(job.status, source, f"row {row} of {job.ask.job_id}")
        job.status = target
        self.rows[row] += 1

    # --- money ---------------------------------------------------------------------------------------------

    def mint_into(self, account: str, amount: int, deposit_id: str | None) -> str:
        """A deposit (with an id) or an adjustment."""
        seen = self.accounts.get(account)
        if seen is None:
            return "NO_ACCOUNT"
        if deposit_id is not None and deposit_id in seen.deposits:
            return "REPEAT" if seen.deposits[deposit_id] == amount else "CONFLICT"
        if seen.available + amount < 0:
            return "POOR"
        if -self.mint + amount >= 2**53:
            return "TOO_MUCH"
        seen.available += amount
        self.mint -= amount
        if deposit_id is not None:
            seen.deposits[deposit_id] = amount
        return "OK"

    # --- the client's side ---------------------------------------------------------------------------------

    def submit(self, ask: Ask) -> tuple[str, str]:
        """The word that submit must answer, and the job it is about."""
        if ask.job_id in self.jobs:
            return self.presence.replay(ask.job_id, ask.presence_ms)
        name = (ask.account, ask.idempotency_key or "")
        if ask.idempotency_key is not None and name in self.remembered:
            request_hash, job_id = self.remembered[name]
            same = request_hash == ask.request_hash
            return self.presence.replay(job_id, ask.presence_ms) if same else ("CONFLICT", "")
        account = self.accounts.get(ask.account)
        if account is None:
            return "NO_ACCOUNT", ""
        if account.suspended:
            return "SUSPENDED", ""
        if ask.model == "nobody":
            return "NO_MODEL", ""
        if ask.price_version != self.price_version:
            return "REPRICE", ""
        if len(self.queued()) >= self.depth_max:
            return "FULL", ""
        if account.available < ask.terms.fee:
            return "POOR", ""
        account.available -= ask.terms.fee
        account.held += ask.terms.fee
        self.jobs[ask.job_id] = Job(ask, hold=ask.terms.fee, joined_ms=self.now)
        self.rows["a"] += 1
        self.presence.begin(ask.job_id, ask.presence_ms)
        if ask.idempotency_key is not None:
            self.remembered[name] = (ask.request_hash, ask.job_id)
        return "OK", ask.job_id

    def cancel(self, account: str, job_id: str) -> str:
        """Cancel a queued job, flag a running one."""
        job = self.jobs.get(job_id)
        if job is None or job.ask.account != account:
            return "UNKNOWN"
        if not job.live:
            return "ENDED"
        if job.status is Status.QUEUED:
            self.end("h", job, 0)
            return "CANCELLED"
        self.go("i0", job)
        job.cancel = True
        return "FLAGGED"

    def end(self, row: str, job: Job, capture: int) -> None:
        """A job ends: paid, told, counted in its batch."""
        self.go(row, job)
        account = self.accounts[job.ask.account]
        account.held -= job.hold
        account.available += job.hold - capture
        self.revenue += capture
        job.captured, job.hold, job.ended_ms = capture, 0, self.now
        self.presence.end(job.ask.job_id)
        item = job.batch is not None
        self.tell(job.ask.job_id, job.ask.account, job.status.value, job.ask.webhook, item=item)
        if item:
            self.batches.item_ended(job)

    def tell(self, subject: str, account: str, status: str, webhook: Webhook | None, *, item: bool) -> None:
        """One callback for what has ended."""
        heard = webhook_told(webhook, self.accounts[account].default, item=item)
        self.callbacks.append(Told(subject, account, status, self.now, heard))

    def forget(self, job_id: str) -> None:
        """The record of an ended job goes."""
        self.forgotten[job_id] = self.jobs.pop(job_id)
        self.counts["job forgotten"] += 1

    # --- the worker's side ---------------------------------------------------------------------------------

    def lease(self, worker: str, leases: Sequence[Lease]) -> None:
        """These jobs were handed over, in this order."""
        held = self.running(worker)
        for lease in leases:
            job = self.jobs[lease.job_id]
            expect((lease.account, lease.terms), (job.ask.account, job.ask.terms), f"lease of {lease.job_id}")
            expect((lease.brief, lease.tokens), (job.ask.brief, job.ask.tokens), f"lease of {lease.job_id}")
            self.go("b", job)
            job.attempt += 1
            expect(lease.attempt, job.attempt, f"attempt of {lease.job_id}")
            job.worker, job.company, job.next_index = worker, False, 0
            job.lease_until = self.now + self.lease_ms
            if job.alone:
                self.counts["leased alone"] += 1
                expect((len(held), len(leases)), (0, 1), f"{lease.job_id} is to run alone")
        self.line.hold(worker, [self.jobs[lease.job_id].ask.chain for lease in leases])
        if leases:
            self._meet(worker)

    def _meet(self, worker: str) -> None:
        held = self.running(worker)
        if len(held) >= 2:
            for job in held:
                job.company = True

    def renew(self, worker: str, held: Sequence[tuple[str, int]]) -> list[str]:
        """One word for each."""
        words = []
        for job_id, attempt in held:
            job = self.jobs.get(job_id)
            if job is None or not job.owned_by(worker, attempt):
                words.append("LOST")
                continue
            late = job.status is Status.QUEUED
            self.go("l" if late else "r", job)
            job.lease_until = self.now + self.lease_ms
            if late:  # late, not dead: the lapse is taken back
                if job.company:
                    job.blame_company -= 1
                else:
                    job.blame_alone -= 1
                self._meet(worker)
            words.append("CANCEL" if job.cancel else "OK")
        return words

    def chunk(self, worker: str, chunk: Chunk) -> str:
        """The word for a chunk."""
        job = self.jobs.get(chunk.job_id)
        if job is None or not job.owned_by(worker, chunk.attempt):
            return "STALE"
        if chunk.first_index != job.next_index:
            return "REPEAT" if chunk.first_index < job.next_index else "GAP"
        job.next_index += chunk.token_count
        job.chunks.append((chunk.attempt, chunk.first_index, chunk.token_count, chunk.choice))
        self.rows["t"] += job.status is Status.RUNNING
        return "CANCEL" if job.cancel else "OK"

    def settle(self, worker: str, settlement: Settlement) -> str:
        """The word for a settlement."""
        job = self.jobs.get(settlement.job_id)
        if job is None:
            return "STALE"
        if not job.live:
            return "REPEAT" if job.settled_attempt == settlement.attempt else "STALE"
        if not job.owned_by(worker, settlement.attempt):
            return "STALE"
        if not 0 <= settlement.captured <= job.hold:
            return "OVERDRAWN"
        if settlement.outcome is Outcome.CANCELLED and not job.cancel:
            return "NOT_FLAGGED"
        late = job.status is Status.QUEUED
        job.settled_attempt = settlement.attempt
        if settlement.outcome is Outcome.FAILED:
            self.end("m2" if late else "d", job, 0)
            return "OK"
        job.text, job.used, job.choices = settlement.text, settlement.completion_tokens, settlement.choices
        row = "i" if settlement.outcome is Outcome.CANCELLED else "m" if late else "c"
        self.end(row, job, settlement.captured)
        return "OK"

    def release(
        self, worker: str, held: Sequence[tuple[str, int | None]], *, died: bool, killed: bool = False
    ) -> tuple[int, int]:
        """Jobs taken from the worker, and quarantined; one by one, in this order. No attempt stands for any."""
        own = {job.ask.job_id: job for job in self.running(worker)}
        taken = [own[name] for name, attempt in held if name in own and attempt in (None, own[name].attempt)]
        quarantined = 0
        for job in taken:
            if died:
                quarantined += self._lapse(job, "i2", "f2", "g2", 0.5 if killed else 1.0)
            else:
                self._back(job, "i2", "e")
        return len(taken), quarantined

    def _back(self, job: Job, cancelled: str, requeued: str) -> None:
        """An attempt ends without an answer and without blame."""
        if job.cancel:
            self.end(cancelled, job, 0)
        else:
            self.go(requeued, job)

    def _lapse(self, job: Job, cancelled: str, requeued: str, failed: str, blame: float) -> bool:
        """An attempt ends because its worker died or went silent; true where that fails the job."""
        if not job.cancel and job.company:
            job.blame_company += blame
            job.alone = job.alone or job.blame_company >= 2
        elif not job.cancel:
            job.blame_alone += blame
            if job.blame_alone >= 2:
                self.end(failed, job, 0)
                return True
        self._back(job, cancelled, requeued)
        return False

    # --- the chores ----------------------------------------------------------------------------------------

    def sweep(self, run_id: str, limit: int, pause_ms: int) -> tuple[int, int]:
        """(lapsed, quarantined), the longest lapsed first; then forgets what ended long ago."""
        if run_id != self.run_id:
            self.grace_until = self.now + self.lease_ms if self.run_id is not None else 0
            self.presence.restart(first=self.run_id is None)
            self.run_id = run_id
        lapsed = sorted(
            (job for job in self.running() if job.lease_until <= self.now),
            key=lambda job: (job.lease_until, job.ask.job_id),
        )[:limit]
        if self.now < self.grace_until:
            self.counts["lapse put off after a restart"] += len(lapsed)
            lapsed = []
        failed = [self._lapse(job, "i1", "f", "g", 1.0) for job in lapsed]
        self.presence.sweep(limit - len(lapsed), pause_ms)
        left = limit  # jobs and items of batches together
        for ended_ms, entry in self.ended():
            if ended_ms > self.now - self.result_ttl_ms or left == 0:
                break
            left -= self.batches.purge(entry.partition(":")[0], left)
        self.webhooks.sweep(limit)
        self.line.sweep()
        return len(lapsed), sum(failed)

    def ended(self) -> list[tuple[int, str]]:
        """(when, subject:account) of all jobs of their own and all batches that ended, oldest first."""
        jobs = [job for job in self.jobs.values() if not job.live and job.batch is None]
        found = [(job.ended_ms, f"{job.ask.job_id}:{job.ask.account}") for job in jobs]
        return sorted(found + self.batches.ended())
