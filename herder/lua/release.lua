-- release: running → queued. A draining worker hands jobs back (not a lapse), or a supervisor those of its dead child
-- (a lapse; `killed` where it was SIGKILL). A flagged job is cancelled instead; one that has twice died alone fails.
-- Keys: worker_jobs set, job hashes, and those of requeue() and finish().
-- Reply: {jobs taken from the worker, how many of them were quarantined}.

local held = A.held
if not held then
  held = {}
  for _, id in ipairs(call('SMEMBERS', K.worker_jobs(A.worker))) do held[#held + 1] = { id } end
end
local taken, quarantined = 0, 0
for _, pair in ipairs(held) do
  local job = read_job(pair[1])
  if job and job.status == 'running' and job.worker == A.worker and (not pair[2] or tonumber(job.attempt) == pair[2]) then
    taken = taken + 1
    if A.died then
      if lapse(job, A.killed) == 'QUARANTINED' then quarantined = quarantined + 1 end
    elseif job.cancel == '1' then
      finish(job, 'cancelled', 0, 0, {})
    else
      requeue(job)
    end
  end
end
return { taken, quarantined }
