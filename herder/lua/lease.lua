-- lease: queued → running. Hands the head of the queue to a worker, as many jobs as it has free slots and room for.
-- Keys: queue zset, job hashes, inputs, leases zset, worker_jobs set, model hash, events streams.
-- Reply: a list of {job, attempt, account, tokens, base, fee, set_prompt_fee, fee_per_token, input}; empty when
--        nothing may be taken.

local held = call('SCARD', K.worker_jobs(A.worker))
local kv_free = A.kv_free

-- A job that lapsed twice in company runs alone: while it is here, nothing else comes.
if held == 1 then
  local only = call('SMEMBERS', K.worker_jobs(A.worker))[1]
  if call('HGET', K.job(only), 'alone') == '1' then return {} end
end

-- 1. Choose. Smaller jobs may pass one that does not fit, but only so often: then its room is kept for it.
local chosen, passed = {}, {}
for _, member in ipairs(call('ZRANGE', K.queue(A.model), 0, A.slots + A.lookahead - 1)) do
  if #chosen >= A.slots then break end
  local id = string.sub(member, 18)
  local want = call('HMGET', K.job(id), 'kv_tokens', 'alone', 'skips')
  local kv = tonumber(want[1])
  local wants_alone = want[2] == '1'
  if kv > A.kv_total then
    -- 1.1 This worker can never run it; another may, and it is not passed over here.
  elseif kv <= kv_free and not wants_alone then
    chosen[#chosen + 1] = { id = id, member = member }
    kv_free = kv_free - kv
    for _, passed_id in ipairs(passed) do call('HINCRBY', K.job(passed_id), 'skips', 1) end
  elseif kv <= kv_free and held == 0 and #chosen == 0 then
    chosen[1] = { id = id, member = member }
    break
  elseif tonumber(want[3]) >= A.skips_max then
    break
  else
    passed[#passed + 1] = id
  end
end

-- 2. Hand over.
local leases = {}
for _, pick in ipairs(chosen) do
  local job = read_job(pick.id)
  dequeue(A.model, pick.member)
  hand_to(job.id, A.worker, NOW + A.lease_ms)
  local attempt = call('HINCRBY', K.job(job.id), 'attempt', 1)
  call('HSET', K.job(job.id), 'status', 'running', 'worker', A.worker, 'company', 0, 'next_index', 0)
  call('HSETNX', K.job(job.id), 'started_ms', NOW)
  if tonumber(job.arrival) > tonumber(call('HGET', K.model(A.model), 'frontier') or 0) then
    call('HSET', K.model(A.model), 'frontier', job.arrival)
  end
  -- Only a bid sets the last accepted multiplier: an automatic price follows it and must not hold it up.
  if job.offered == '1' then
    call('HSET', K.model(A.model), 'last_multiplier', job.multiplier_milli, 'empty_ms', 0)
  end
  if attempt > 1 then
    emit(job.id, 'restarted', { 'attempt', int(attempt) })
  else
    emit(job.id, 'started', { 'attempt', int(attempt) })
  end
  leases[#leases + 1] = { job.id, attempt, job.account, tonumber(job.tokens), job.base, job.fee,
    job.set_prompt_fee, job.fee_per_token, call('GET', K.input(job.id)) }
end

if #chosen > 0 then mark_company(A.worker) end
return leases
