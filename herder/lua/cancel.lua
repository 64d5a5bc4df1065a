-- cancel: queued → cancelled with everything refunded; a running job is flagged and its worker's bell rung.
-- Keys: job hash, and those of finish().
-- Replies: CANCELLED | FLAGGED | ENDED (nothing to do) | UNKNOWN (no such job, or another account's)

local job = read_job(A.job)
if not job or job.account ~= A.account then return 'UNKNOWN' end
if not is_live(job) then return 'ENDED' end
return stop(job)
