-- renew: running → running, and queued → running for a lease that lapsed while nobody else took the job.
-- Also the worker's heartbeat. Keys: worker hash, workers zset, model_workers zset, model hash, leases zset,
-- worker_jobs set, job hashes, queue zset.
-- Reply: one word for each held job, in order: OK | CANCEL (held, to be stopped) | LOST (another's, or ended).

-- 1. The heartbeat, and the speed of the herd, by which accounts' clocks advance.
call('HSET', K.worker(A.worker), 'model', A.model, 'stats', A.stats, 'tokens_per_second', A.tokens_per_second)
call('PEXPIRE', K.worker(A.worker), A.gone_ms)
call('ZADD', K.workers(), NOW, A.worker)
call('ZADD', K.model_workers(A.model), NOW, A.worker)
local speed = 0
for _, worker in ipairs(call('ZRANGEBYSCORE', K.model_workers(A.model), NOW - A.gone_ms, '+inf')) do
  speed = speed + tonumber(call('HGET', K.worker(worker), 'tokens_per_second') or 0)
end
if speed > 0 then call('HSET', K.model(A.model), 'us_per_token', math.max(1, math.floor(1000000 / speed))) end

-- 2. The leases.
local replies = {}
for i, pair in ipairs(A.held) do
  local job = read_job(pair[1])
  if not job or not is_live(job) or tonumber(job.attempt) ~= pair[2] or job.worker ~= A.worker then
    replies[i] = 'LOST'
  else
    hand_to(job.id, A.worker, NOW + A.lease_ms)
    if job.status == 'queued' then
      dequeue(job.model, job.member)
      call('HSET', K.job(job.id), 'status', 'running')
      if job.batch then call('HINCRBY', K.batch(job.batch), 'running', 1) end
      -- It was late, not dead: that lapse is no evidence against the job.
      call('HINCRBY', K.job(job.id), job.company == '1' and 'lapses_company' or 'lapses_alone', -1)
      mark_company(A.worker)
    end
    replies[i] = job.cancel == '1' and 'CANCEL' or 'OK'
  end
end
return replies
