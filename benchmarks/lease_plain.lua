-- The peer of `benchmarks/leasing.py`: lease.lua without all that it does for beginnings of prompts.
-- Reply: as lease.lua; it never says when to ask again.

local held = call('SCARD', K.worker_jobs(A.worker))
local kv_free, slots_free = A.kv_free, A.slots

-- A job that lapsed twice in company runs alone: while it is here, nothing else comes.
local only = held == 1 and call('SMEMBERS', K.worker_jobs(A.worker))[1]
if only and call('HGET', K.job(only), 'alone') == '1' then return { -1, {} } end

-- 1. Choose. What is looked at (`seen`) and left behind is passed by whatever is taken behind it, but only so often:
-- then nothing passes it any more, and where it does not fit its room is kept for it.
local queue = K.queue(A.model)
local seen, chosen = {}, {}
local abandoned = {}
local function is_abandoned(batch)
  if abandoned[batch] == nil then abandoned[batch] = call('HGET', K.batch(batch), 'cancel') == '1' end
  return abandoned[batch]
end

local FIELDS = { 'kv_tokens', 'alone', 'skips', 'batch', 'n', 'submitted_ms', 'account', 'tokens', 'base', 'fee',
  'set_prompt_fee', 'fee_per_token', 'attempt', 'arrival', 'offered', 'multiplier_milli', 'started_ms' }

-- What matters of a job in the line; nil where it is none of this worker's business.
local function look_at(member)
  local id = string.match(member, '^[^#]+', 18)
  local want = call('HMGET', K.job(id), unpack(FIELDS))
  local kv, n = tonumber(want[1]), tonumber(want[5] or 1)
  -- 1.0 Its batch is being cancelled: feed() comes for it.
  if want[4] and is_abandoned(want[4]) then return nil end
  -- 1.1 This worker can never run it; another may: it is not passed over here, and what stands behind it is seen.
  if kv > A.kv_total or n > A.slots_total then return nil end
  local job = { id = id, member = member, kv = kv, n = n, alone = want[2] == '1', skips = tonumber(want[3] or 0),
    read = want, place = #seen + 1 }
  seen[#seen + 1] = job
  return job
end

-- Takes the job if it fits; true when nothing more is to be taken.
local function offer(job)
  if job.kv > kv_free or job.n > slots_free or (job.alone and held + #chosen > 0) then
    return job.skips >= A.skips_max
  end
  chosen[#chosen + 1] = job
  job.taken = true
  kv_free, slots_free = kv_free - job.kv, slots_free - job.n
  return slots_free == 0 or job.alone
end

-- 1.2 The line, from its head.
local page, full = A.slots + A.lookahead, false
for start = 0, A.scan_max - 1, page do
  local line = call('ZRANGE', queue, start, start + page - 1)
  for _, member in ipairs(line) do
    local job = look_at(member)
    full = job ~= nil and offer(job) or #seen >= page
    if full then break end
  end
  if full or #line < page then break end
end

-- 1.3 Whoever was passed.
for _, job in ipairs(seen) do
  if not job.taken then
    local passed = 0
    for _, pick in ipairs(chosen) do
      if pick.place > job.place then passed = passed + 1 end
    end
    if passed > 0 then call('HINCRBY', K.job(job.id), 'skips', passed) end
  end
end
if #chosen == 0 then return { -1, {} } end

-- 2. Hand over: first what is one call for all of them.
local members, ids, inputs, ends, until_ms = {}, {}, {}, {}, int(NOW + A.lease_ms)
for i, pick in ipairs(chosen) do
  members[i], ids[i], inputs[i] = pick.member, pick.id, K.input(pick.id)
  ends[2 * i - 1], ends[2 * i] = until_ms, pick.id
end
call('ZREM', queue, unpack(members))
call('ZADD', K.leases(), unpack(ends))
call('SADD', K.worker_jobs(A.worker), unpack(ids))
local texts = call('MGET', unpack(inputs))

-- Whoever shares a worker, at any moment of an attempt, is in company; of two who were here, both are marked already.
local company = held + #chosen > 1 and '1' or '0'
if only then call('HSET', K.job(only), 'company', '1') end

local leases, reached, market, of_batch = {}, 0, {}, {}
for i, pick in ipairs(chosen) do
  local id, read = pick.id, pick.read
  local account, tokens, base, fee, prompt_fee, token_fee, attempts, arrival, offered, multiplier, started =
    unpack(read, 7, #FIELDS)
  local attempt = tonumber(attempts) + 1
  call('HSET', K.job(id), 'status', 'running', 'worker', A.worker, 'company', company, 'next_index', '0',
    'attempt', int(attempt), 'started_ms', started or int(NOW))
  if read[4] then of_batch[read[4]] = (of_batch[read[4]] or 0) + 1 end
  reached = math.max(reached, tonumber(arrival))
  -- Only a bid sets the last accepted multiplier, and once: an automatic price follows it and must not hold it up.
  if offered == '1' and attempt == 1 then market = { 'last_multiplier', multiplier, 'empty_ms', '0' } end
  emit(id, attempt > 1 and 'restarted' or 'started', { 'attempt', int(attempt) })
  leases[i] = { id, attempt, account, tonumber(tokens), base, fee, prompt_fee, token_fee, texts[i] }
end
for batch, count in pairs(of_batch) do call('HINCRBY', K.batch(batch), 'running', count) end

-- 3. The frontier, up to where the line has been served. Nobody who waits arrived before their rank: a bid that was
-- taken from far behind does not move it past them.
local first = call('ZRANGE', queue, 0, 0, 'WITHSCORES')
if first[2] then
  reached = math.min(reached, tonumber(first[2]))
else
  market[#market + 1] = 'empty_since'
  market[#market + 1] = int(NOW)
end
if reached > tonumber(call('HGET', K.model(A.model), 'frontier') or 0) then
  market[#market + 1] = 'frontier'
  market[#market + 1] = int(reached)
end
if #market > 0 then call('HSET', K.model(A.model), unpack(market)) end
return { -1, leases }
