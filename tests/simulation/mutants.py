"""The scripts, broken on purpose: each mutant drops one check, and the simulation must notice.

The text is changed in memory, on its way to Redis. A mutant whose text is no longer in the script is an error: it would
pass for a simulation that finds nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from unittest.mock import patch

from herder import scripts


@dataclass(frozen=True)
class Mutant:
    """In the source of `script` (prelude included), `old` becomes `new`."""

    name: str
    script: str
    old: str
    new: str = ""
    mood: str = "jobs"  # of the seeds that are to find it


MUTANTS = (
    # The fence.
    Mutant("settle-no-fence", "settle", "if tonumber(job.attempt) ~= A.attempt or job.worker ~= A.worker then return"
           " 'STALE' end"),
    Mutant("settle-no-attempt", "settle", "tonumber(job.attempt) ~= A.attempt or "),
    Mutant("chunk-no-fence", "chunk", " or tonumber(job[2]) ~= A.attempt or job[3] ~= A.worker"),
    Mutant("renew-no-fence", "renew", " or tonumber(job.attempt) ~= pair[2] or job.worker ~= A.worker"),
    Mutant("release-no-owner", "release", "and job.worker == A.worker and (not pair[2] or"
           " tonumber(job.attempt) == pair[2])"),
    Mutant("cancel-no-owner", "cancel", "if not job or job.account ~= A.account", "if not job"),
    # The hold.
    Mutant("submit-no-balance-check", "submit", "if available < A.fee then return { 'POOR', available } end"),
    Mutant("settle-no-hold-check", "settle", "if A.captured < 0 or A.captured > tonumber(job.hold) then return"
           " 'OVERDRAWN' end"),
    Mutant("finish-no-void", "settle", "post('void', job.account, 'held', 'available', hold - capture, job.id, nil,"
           " job.batch)"),
    Mutant("adjust-below-zero", "deposit", "if available + A.amount < 0 then return { 'POOR', available } end"),
    Mutant("mint-without-end", "deposit", "if minted + A.amount >= A.amount_limit then return { 'TOO_MUCH' } end"),
    Mutant("amounts-as-floats", "submit", "string.format('%.0f', number + 0)", "(number .. '')"),
    # Once.
    Mutant("submit-no-idempotency-check", "submit", "if seen[2] then", "if false then"),
    Mutant("submit-no-job-check", "submit", "if call('EXISTS', K.job(A.job)) == 1 then return { 'REPLAY', A.job } end"),
    Mutant("deposit-no-idempotency-check", "deposit", "if seen then", "if false then"),
    Mutant("chunk-no-repeat-check", "chunk", "if A.first_index < expected then return 'REPEAT' end"),
    Mutant("finish-no-callback", "settle", "call('XADD', K.callbacks(), '*', 'job', job.id, 'account', job.account,"
           " 'status', status, 'at', int(NOW),\n    unpack(webhook_of(job)))"),
    Mutant("finish-two-events", "cancel", "emit(job.id, 'done', event)",
           "emit(job.id, 'done', event); emit(job.id, 'done', event)"),
    # Terminal is final.
    Mutant("settle-no-terminal-check", "settle", "if not is_live(job) then", "if false then"),
    Mutant("cancel-no-terminal-check", "cancel", "if not is_live(job) then return 'ENDED' end"),
    Mutant("renew-no-terminal-check", "renew", "not is_live(job) or "),
    # One place.
    Mutant("lease-keeps-in-line", "lease", "dequeue(A.model, pick.member)"),
    Mutant("renew-keeps-in-line", "renew", "dequeue(job.model, job.member)\n", "\n"),
    Mutant("finish-keeps-lease", "settle", "else unlease(job) end", "end"),
    # Flags, company, time.
    Mutant("lapse-ignores-flag", "sweep", "if job.cancel == '1' then finish(job, 'cancelled', 0, 0, {}) return"
           " 'CANCELLED' end"),
    Mutant("release-ignores-flag", "release", "elseif job.cancel == '1' then", "elseif false then"),
    Mutant("lapse-ignores-company", "sweep", "job.company == '1' and 'company' or 'alone'", "'alone'"),
    Mutant("lease-joins-alone", "lease", "== '1' then return {} end", "== '2' then return {} end"),
    Mutant("lease-ignores-room", "lease", "if kv <= kv_free and not wants_alone", "if not wants_alone"),
    Mutant("clock-runs-back", "sweep", "if raw >= now then", "if true then"),
    Mutant("sweep-no-grace", "sweep", "if NOW >= grace_until then", "if true then"),
    # Keys that stay.
    Mutant("events-leak", "settle", "call('PEXPIRE', K.events(job.id), job.result_ttl_ms)"),
    Mutant("input-leaks", "settle", "call('DEL', K.input(job.id))"),
    Mutant("idempotency-leaks", "submit", "call('PEXPIRE', remembered, A.idempotency_ttl_ms)"),
    Mutant("account-jobs-leak", "sweep", "call('ZREM', K.account_jobs(account), id)"),
    Mutant("worker-leaks", "lease", "mark_company(A.worker)\n",
           "mark_company(A.worker); call('HSET', K.worker(A.worker), 'x', 1)\n"),
)  # fmt: skip


@contextmanager
def broken(mutant: Mutant | None) -> Iterator[None]:
    """While this is entered, brokers that are made load the mutant's script; None breaks nothing."""
    whole = scripts.script_source

    def source(name: str) -> str:
        text = whole(name)
        if mutant is None or name != mutant.script:
            return text
        if text.count(mutant.old) != 1:
            raise ValueError(
                f"mutant {mutant.name}: its text stands {text.count(mutant.old)} times in {name}.lua"
            )
        return text.replace(mutant.old, mutant.new)

    with patch.object(scripts, "script_source", source):
        yield
