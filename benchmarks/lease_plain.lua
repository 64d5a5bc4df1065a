-- The peer of `benchmarks/leasing.py`: lease.lua as it was before it knew of beginnings and of several answers to a job.
-- Reply: as lease.lua; it never says when to ask again.

local held = call('SCARD', K.worker_jobs(A.worker))
local kv_free = A.kv_free

-- A job that lapsed twice in company runs alone: while it is here, nothing else comes.
if held == 1 then
  local only = call('SMEMBERS', K.worker_jobs(A.worker))[1]
  if call('HGET', K.job(only), 'alone') == '1' then return { -1, {} } end
end

-- 1. Choose. Smaller jobs may pass one that does not fit, but only so often: then its room is kept for it.
local chosen, passed = {}, {}
local looked, page, full = 0, A.slots + A.lookahead, false
local abandoned = {}
local function is_abandoned(batch)
  if abandoned[batch] == nil then abandoned[batch] = call('HGET', K.batch(batch), 'cancel') == '1' end
  return abandoned[batch]
end
local function look_at(member)
  local id = string.sub(member, 18)
  local want = call('HMGET', K.job(id), 'kv_tokens', 'alone', 'skips', 'batch')
  local kv = tonumber(want[1])
  local wants_alone = want[2] == '1'
  -- 1.0 Its batch is being cancelled: feed() comes for it.
  if want[4] and is_abandoned(want[4]) then return false end
  -- 1.1 This worker can never run it; another may: it is not passed over here, and what stands behind it is seen.
  if kv > A.kv_total then return false end
  looked = looked + 1
  if kv <= kv_free and not wants_alone then
    chosen[#chosen + 1] = { id = id, member = member }
    kv_free = kv_free - kv
    for _, passed_id in ipairs(passed) do call('HINCRBY', K.job(passed_id), 'skips', 1) end
  elseif kv <= kv_free and held == 0 and #chosen == 0 then
    chosen[1] = { id = id, member = member }
    return true
  elseif tonumber(want[3]) >= A.skips_max then
    return true
  else
    passed[#passed + 1] = id
  end
  return #chosen >= A.slots or looked >= page
end
for start = 0, A.scan_max - 1, page do
  local members = call('ZRANGE', K.queue(A.model), start, start + page - 1)
  for _, member in ipairs(members) do
    full = look_at(member)
    if full then break end
  end
  if full or #members < page then break end
end

-- 2. Hand over.
local leases, reached = {}, 0
for _, pick in ipairs(chosen) do
  local job = read_job(pick.id)
  dequeue(A.model, pick.member)
  hand_to(job.id, A.worker, NOW + A.lease_ms)
  local attempt = call('HINCRBY', K.job(job.id), 'attempt', 1)
  call('HSET', K.job(job.id), 'status', 'running', 'worker', A.worker, 'company', 0, 'next_index', 0)
  call('HSETNX', K.job(job.id), 'started_ms', NOW)
  if job.batch then call('HINCRBY', K.batch(job.batch), 'running', 1) end
  reached = math.max(reached, tonumber(job.arrival))
  -- Only a bid sets the last accepted multiplier, and once: an automatic price follows it and must not hold it up.
  if job.offered == '1' and attempt == 1 then
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

if #chosen == 0 then return { -1, leases } end
mark_company(A.worker)

-- 3. The frontier, up to where the line has been served. Nobody who waits arrived before their rank: a bid that was
-- taken from far behind does not move it past them.
local first = call('ZRANGE', K.queue(A.model), 0, 0, 'WITHSCORES')
if first[2] then reached = math.min(reached, tonumber(first[2])) end
if reached > tonumber(call('HGET', K.model(A.model), 'frontier') or 0) then
  call('HSET', K.model(A.model), 'frontier', int(reached))
end
return { -1, leases }
