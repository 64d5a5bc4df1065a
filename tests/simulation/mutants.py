"""The scripts, broken on purpose: each mutant drops one check, and the simulation must notice.

The text is changed in memory, on its way to Redis. A mutant whose text is no longer in the script is an error: it would
pass for a simulation that finds nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
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


JOBS = (
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
    Mutant("submit-no-job-check", "submit", "if call('EXISTS', K.job(A.job)) == 1 then return replay(A.job) end"),
    Mutant("deposit-no-idempotency-check", "deposit", "if seen then", "if false then"),
    Mutant("chunk-no-choice", "chunk", "event[#event + 1] = 'choice'; event[#event + 1] = int(A.choice)"),
    Mutant("settle-no-other-answers", "settle", "kept[#kept + 1] = name; kept[#kept + 1] = A[name]"),
    Mutant("chunk-no-repeat-check", "chunk", "if A.first_index < expected then return 'REPEAT' end"),
    Mutant("finish-no-callback", "settle", "call('XADD', K.callbacks(), '*', 'job', job.id, 'account', job.account,"
           " 'status', status, 'at', AT,\n    unpack(webhook_of(job)))"),
    Mutant("finish-two-events", "cancel", "emit(job.id, 'done', event)",
           "emit(job.id, 'done', event); emit(job.id, 'done', event)"),
    # Terminal is final.
    Mutant("settle-no-terminal-check", "settle", "if not is_live(job) then", "if false then"),
    Mutant("cancel-no-terminal-check", "cancel", "if not is_live(job) then return 'ENDED' end"),
    Mutant("renew-no-terminal-check", "renew", "not is_live(job) or "),
    # One place.
    Mutant("lease-keeps-in-line", "lease", "call('ZREM', queue, unpack(members))"),
    Mutant("renew-keeps-in-line", "renew", "dequeue(job.model, job.member)\n", "\n"),
    Mutant("finish-keeps-lease", "settle", "else unlease(job) end", "end"),
    # Flags, company, time.
    Mutant("lapse-ignores-flag", "sweep", "if job.cancel == '1' then finish(job, 'cancelled', 0, 0, {}) return"
           " 'CANCELLED' end"),
    Mutant("release-ignores-flag", "release", "elseif job.cancel == '1' then", "elseif false then"),
    Mutant("lapse-ignores-company", "sweep", "job.company == '1' and 'company' or 'alone'", "'alone'"),
    Mutant("lease-no-company", "lease", "held + #chosen > 1 and '1' or '0'", "'0'"),
    Mutant("lease-company-of-one", "lease", "if only then call('HSET', K.job(only), 'company', '1') end"),
    Mutant("lease-joins-alone", "lease", "== '1' then return { -1, {} } end",
           "== '2' then return { -1, {} } end"),
    Mutant("lease-ignores-room", "lease", "job.kv > kv_free or "),
    Mutant("clock-runs-back", "sweep", "if raw >= now then", "if true then"),
    Mutant("sweep-no-grace", "sweep", "if NOW >= grace_until then", "if true then"),
    # Whose callers are still there.
    Mutant("submit-no-presence", "submit", "if A.presence_ms then call('ZADD', K.presence(), int(NOW + A.presence_ms),"
           " subject) end"),
    Mutant("replay-renews-nothing", "submit", "if A.presence_ms then call('ZADD', K.presence(), 'XX'",
           "if false then call('ZADD', K.presence(), 'XX'"),
    Mutant("replay-puts-back-what-ended", "submit", "'XX', 'GT', ", "'GT', "),
    Mutant("replay-shortens", "submit", "'XX', 'GT', ", "'XX', "),
    Mutant("present-puts-back-what-ended", "present", "if call('ZSCORE', K.presence(), name) then",
           "if call('HGET', K.job(name), 'presence_ms') then"),
    Mutant("present-renews-nothing", "present", "call('ZADD', K.presence(), int(NOW + call('HGET', key,"
           " 'presence_ms')), name)"),
    Mutant("present-says-nothing", "present", "gone[#gone + 1] = name"),
    Mutant("finish-keeps-presence", "settle", "if job.presence_ms then call('ZREM', K.presence(), job.id) end"),
    Mutant("sweep-no-grace-for-callers", "sweep", "if NOW >= present_until then", "if true then"),
    Mutant("sweep-no-grace-after-a-pause", "sweep", "if paused or (restarted", "if (restarted"),
    Mutant("sweep-grace-without-end", "sweep", ",\n  'swept_ms', NOW)",
           ")\ncall('HSETNX', K.server(), 'swept_ms', NOW)"),
    Mutant("sweep-grace-for-callers-of-a-lease", "sweep", "NOW + A.presence_ms", "NOW + A.lease_ms"),
    Mutant("sweep-cancels-who-is-there", "sweep", "K.presence(), '-inf', NOW,", "K.presence(), '-inf', '+inf',"),
    Mutant("sweep-cancels-without-limit", "sweep", "A.limit - lapsed", "-1"),
    Mutant("sweep-flags-again-and-again", "sweep", "    call('ZREM', K.presence(), name)\n"),
    Mutant("sweep-flags-none", "sweep", "call('HSET', K.job(job.id), 'cancel', 1)"),
    # Whom a lease takes.
    Mutant("lease-counts-no-skips", "lease", "call('HINCRBY', K.job(job.id), 'skips', passed)"),
    Mutant("lease-passes-for-ever", "lease", " and job.skips < A.skips_max then\n    near", " then\n    near"),
    Mutant("lease-ignores-the-window", "lease", "index <= near_end and "),
    Mutant("lease-passes-what-is-left", "lease", "  return left_to_another\n", "  return false\n"),
    Mutant("lease-takes-the-shortest-match", "lease", "return a.match > b.match", "return a.match < b.match"),
    Mutant("lease-waits-for-ever", "lease", "job.joined + A.prefix_wait_ms - NOW", "A.prefix_wait_ms"),
    Mutant("lease-waits-for-the-dead", "lease", "tonumber(call('ZSCORE', K.model_workers(A.model), worker) or nil)",
           "NOW"),
    Mutant("lease-waits-for-the-busy", "lease", "free_slots(worker) >= job.n", "free_slots(worker) > -99"),
    Mutant("lease-waits-for-nothing", "lease", "(elsewhere - job.match) * 4 >= whole", "true"),
    Mutant("lease-waits-in-silence", "lease", "again_ms = job.patience", "again_ms = -1"),
    Mutant("lease-n-as-one", "lease", "slots_free - job.n", "slots_free - 1"),
    Mutant("lease-n-does-not-count", "lease", " or job.n > slots_free"),
    Mutant("lease-keeps-room-for-too-many", "lease", " or n > A.slots_total"),
    Mutant("lease-one-holder", "lease", "count < A.holders_max", "false"),
    Mutant("lease-unfolds-nothing", "lease", "note(link, one)"),
    Mutant("lease-finds-nothing-folded", "lease", "holders[i] = string.find(whole, '\"' .. chain[i] .. '\"', 1,"
           " true) and worker"),
    Mutant("lease-remembers-for-ever", "lease", "NOW - since >= A.prefix_ttl_ms or "),
    Mutant("lease-remembers-all", "lease", " or call('HLEN', recent) >= A.prefixes_max"),
    # Keys that stay.
    Mutant("prefixes-leak", "lease", "call('PEXPIRE', recent, 2 * A.prefix_ttl_ms)"),
    Mutant("events-leak", "settle", "call('PEXPIRE', K.events(job.id), job.result_ttl_ms)"),
    Mutant("input-leaks", "settle", "call('DEL', K.input(job.id))"),
    Mutant("idempotency-leaks", "submit", "call('PEXPIRE', key, A.idempotency_ttl_ms)"),
    Mutant("account-jobs-leak", "sweep", "call('ZREM', K.account_jobs(account), id)"),
    Mutant("worker-leaks", "lease", "call('ZADD', K.leases(), unpack(ends))",
           "call('ZADD', K.leases(), unpack(ends)); call('HSET', K.worker(A.worker), 'x', 1)"),
)  # fmt: skip

BATCHES = tuple(replace(mutant, mood="batches") for mutant in (
    # What is stored, and paid for once.
    Mutant("store-after-charge", "store", "if status and status ~= 'storing' then return 'CHARGED' end"),
    Mutant("store-behind-gap", "store", "if A.first_index > call('HLEN', K.batch_items(A.batch)) then return 'LOST'"
           " end"),
    Mutant("charge-no-balance-check", "charge", "if available < A.fee then return { 'POOR', available } end"),
    Mutant("charge-no-replay", "charge", "if status and status ~= 'storing' then return replay(A.batch) end"),
    Mutant("charge-no-idempotency-check", "charge", "if seen[2] then", "if false then"),
    Mutant("charge-no-count-of-items", "charge", "if call('HLEN', K.batch_items(A.batch)) < A.total then return"
           " { 'LOST' } end"),
    Mutant("charge-no-persist", "charge", "call('PERSIST', K.batch(A.batch))"),
    # Fed, counted, cancelled.
    Mutant("feed-no-unfed-fee", "feed", "call('HINCRBY', key, 'unfed_fee', int(-unfed_fee))"),
    Mutant("feed-ignores-depth", "feed", "if not cancelled and depth >= A.queue_depth_max then state = 'FULL' break"
           " end"),
    Mutant("feed-forgets-how-far", "feed", "call('HSET', key, 'fed', fed)"),
    Mutant("feed-cancels-none-in-line", "feed", "then finish(job, 'cancelled', 0, 0, {}) return 'CANCELLED' end",
           "then return 'CANCELLED' end"),
    Mutant("feed-flags-none-that-runs", "feed", "call('HSET', K.job(job.id), 'cancel', 1)"),
    Mutant("lease-of-a-cancelled-batch", "lease", "if want[4] and is_abandoned(want[4]) then return nil end"),
    Mutant("feed-leaves-refused-items", "feed", "call('UNLINK', K.batch_items(A.batch))"),
    Mutant("abandon-no-owner", "abandon", " or batch[2] ~= A.account"),
    Mutant("end-item-no-hold", "settle", "call('HINCRBY', key, 'hold', int(-capture - void))"),
    Mutant("end-item-no-result", "settle", "call('RPUSH', K.batch_results(job.batch), job.batch_index)"),
    Mutant("unlease-still-running", "settle", "if job.batch then call('HINCRBY', K.batch(job.batch), 'running', -1)"
           " end"),
    Mutant("late-renewal-not-running", "renew", "if job.batch then call('HINCRBY', K.batch(job.batch), 'running', 1)"
           " end"),
    Mutant("batch-ends-untold", "settle", "  call('XADD', K.callbacks(), '*', 'batch', job.batch,",
           "  local _ = (K.callbacks() .. '' == '') and call('XADD', K.callbacks(), '*', 'batch', job.batch,"),
    Mutant("item-tells-the-default", "settle", "if thing.batch then return {} end"),
    Mutant("batch-still-waits", "abandon", "call('ZADD', K.batches(), seen[2], batch)"),
    Mutant("abandon-twice", "abandon", "if seen[1] == '1' then return end"),
    # Whose callers are gone.
    Mutant("charge-no-presence", "charge", "if A.presence_ms then call('ZADD', K.presence(), int(NOW + A.presence_ms),"
           " subject) end"),
    Mutant("charge-replay-renews-nothing", "charge", "if A.presence_ms then call('ZADD', K.presence(), 'XX'",
           "if false then call('ZADD', K.presence(), 'XX'"),
    Mutant("present-no-batches", "present", "string.sub(name, 1, 6) == 'batch_'", "false"),
    Mutant("end-item-keeps-presence", "settle", "if batch[4] then call('ZREM', K.presence(), job.batch) end"),
    Mutant("sweep-abandons-no-batch", "sweep", "then abandon(name) else", "then else"),
    # Forgotten in steps.
    Mutant("purge-leaves-items", "sweep", "    call('DEL', K.job(id), K.events(id))\n  end\n  if upto",
           "  end\n  if upto"),
    Mutant("purge-in-one-step", "sweep", "if upto < total then call('HSET', K.batch(batch), 'purged', upto) return"
           " upto - from, false end"),
    Mutant("purge-one-limit-for-each-batch", "sweep", "left = left - went\n", ""),
    Mutant("purge-leaves-the-list", "sweep", "if seen[3] then call('ZREM', K.account_batches(seen[3]), batch) end"),
))  # fmt: skip

WEBHOOKS = tuple(replace(mutant, mood="webhooks") for mutant in (
    Mutant("callback-posts-twice", "callback", "if mine == 1 and new", "if new"),
    Mutant("callback-not-due", "callback", "for lane in pairs(lanes) do reckon(lane) end"),
    Mutant("callback-never-written", "callback", "call('ZADD', K.unwritten(), int(new.at_ms + half), new.id)"),
    Mutant("write-again", "write", "'HSETNX'", "'HSET'"),
    Mutant("write-no-more", "write", "call('ZREM', K.unwritten(), delivery)"),
    Mutant("attempted-writes-nothing", "attempted", "if TEXT ~= '' then keep_body(A.delivery) end"),
    Mutant("claim-ignores-lane-max", "claim", "math.min(room_of(lane), A.limit)", "A.limit"),
    Mutant("claim-ignores-host-max", "claim", "left_of(host, A.host_max)", "left_of(host, 1000)"),
    Mutant("claim-ignores-account-max", "claim", "left_of(account, A.account_max)",
           "left_of(account, 1000)"),
    Mutant("claim-hands-out-one-too-many", "claim", "      take(host, account, 1)\n"),
    Mutant("claim-crowds-a-host", "claim", ", left[one.host], left[one.account])", ", left[one.account])"),
    Mutant("claim-crowds-an-account", "claim", ", left[one.host], left[one.account])", ", left[one.host])"),
    Mutant("claim-counts-no-host", "claim", "K.flying(one.host), K.flying(one.account) }", "K.flying(one.account) }"),
    Mutant("claim-counts-no-account", "claim", "K.flying(one.host), K.flying(one.account) }", "K.flying(one.host) }"),
    Mutant("claim-counts-what-is-given-up", "claim", "  call('ZREMRANGEBYSCORE', K.flying(scope), '-inf', NOW)\n"),
    Mutant("claim-passes-by-and-by", "claim", "if #passed > 0 then call('ZADD', K.due_lanes(), unpack(passed)) end"),
    Mutant("claim-looks-at-few", "claim", "0, A.looked_max", "0, A.limit"),
    Mutant("claim-looks-at-all", "claim", "0, A.looked_max", "0, 1000"),
    Mutant("claim-hands-out-all", "claim", "if #ready == A.limit then break end"),
    Mutant("claim-host-leaks", "claim", "call('PEXPIRE', K.flying(one.host), A.flying_ttl_ms)"),
    Mutant("claim-account-leaks", "claim", "call('PEXPIRE', K.flying(one.account), A.flying_ttl_ms)"),
    Mutant("attempted-host-stays-full", "attempted", "call('ZREM', K.flying(host), id)"),
    Mutant("attempted-account-stays-full", "attempted", "call('ZREM', K.flying(account), id)"),
    Mutant("attempted-host-of-an-endpoint", "attempted", "string.match(lane, '^[^/]*')", "lane"),
    Mutant("held-while-under-way", "held", "K.flights(lane), id) or 0) > NOW", "K.flights(lane), id) or 0) < 0"),
    Mutant("held-before-its-time", "held", " or next_ms > NOW then", " then"),
    Mutant("held-never-down", "held", "if at > NOW then return { 'endpoint_down', at } end"),
    Mutant("held-down-and-not-asked", "held", "again > NOW and again or asked", "again"),
    Mutant("held-at-once", "held", "next_ms + A.soon_ms <= NOW", "next_ms <= NOW"),
    Mutant("claim-crowds-a-lane-that-is-down", "claim", "under_way == 0 and again <= NOW and 1 or 0",
           "A.host_max - under_way"),
    Mutant("attempted-asks-a-lane-that-is-down-at-once", "attempted", "math.max(A.probe_ms, math.min(", "(math.min("),
    Mutant("attempted-asks-a-lane-that-is-down-as-often", "attempted", "last - (failed[3] or last)", "0"),
    Mutant("claim-asks-a-lane-that-is-down-ever-less", "claim", ", A.probe_max_ms)", ")"),
    Mutant("attempted-down-anew", "attempted", "if count == A.down_after", "if count >= A.down_after"),
    Mutant("attempted-lane-stays-down", "attempted", "call('DEL', K.failures(lane))"),
    Mutant("claim-no-lapse", "claim", "call('ZRANGEBYSCORE', K.flights(lane), '-inf', NOW)", "{}"),
    Mutant("claim-too-early", "claim", "K.due(lane), '-inf', NOW, ", "K.due(lane), '-inf', '+inf', "),
    Mutant("claim-shares-nothing", "claim", "math.floor(A.limit / math.max(1, #ready))", "A.limit"),
    Mutant("claim-keeps-its-turn", "claim", "local turn = not served and", "local turn ="),
    Mutant("attempted-no-fence", "attempted", "tonumber(delivery[2]) ~= A.attempt or "),
    Mutant("attempted-twice", "attempted", " or tonumber(delivery[3]) == A.attempt"),
    Mutant("attempted-late-still-due", "attempted", "call('ZREM', K.due(lane), A.delivery)"),
    Mutant("attempted-never-expires", "attempted", "call('PEXPIRE', K.delivery(A.delivery), A.webhook_ttl_ms)"),
    Mutant("redeliver-no-persist", "redeliver", "call('PERSIST', K.delivery(A.delivery))"),
    Mutant("redeliver-no-owner", "redeliver", "if delivery[1] ~= A.account then return 'UNKNOWN' end"),
    Mutant("redeliver-still-ended", "redeliver", "call('ZREM', K.delivered(), A.delivery .. ':' .. delivery[1])"),
    Mutant("endpoint-no-owner", "endpoint", "if endpoint[1] ~= A.account then return { 'UNKNOWN' } end"),
    Mutant("endpoint-default-stays", "endpoint", "if call('HGET', K.account(A.account), 'webhook_endpoint') =="
           " A.endpoint then", "if false then"),
    Mutant("deliveries-leak", "sweep", "call('ZREM', K.deliveries(account), id)"),
    Mutant("unwritten-leak", "sweep", "call('ZREM', K.unwritten(), id)"),
))  # fmt: skip

MUTANTS = (*JOBS, *BATCHES, *WEBHOOKS)


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
