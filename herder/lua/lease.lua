-- lease: queued → running. Hands the head of the queue to a worker, as many jobs as it has free slots and room for.
-- Among jobs that stand close together (prefix_window_ms) those go first whose beginning this worker holds; and one
-- whose beginning another holds, that has a free slot, is left to it for a moment (prefix_wait_ms).
-- Keys: queue zset, job hashes, batch hashes, inputs, leases zset, worker_jobs sets, model hash, events streams, the
--       two prefixes hashes, model_workers zset, worker hashes.
-- Reply: {again_ms, leases}: in how many ms it is worth asking again, -1 where that is not known; a list of {job,
--        attempt, account, tokens, base, fee, set_prompt_fee, fee_per_token, input}, empty when nothing may be taken.

local held = call('SCARD', K.worker_jobs(A.worker))
local kv_free, slots_free = A.kv_free, A.slots

-- A job that lapsed twice in company runs alone: while it is here, nothing else comes.
if held == 1 then
  local only = call('SMEMBERS', K.worker_jobs(A.worker))[1]
  if call('HGET', K.job(only), 'alone') == '1' then return { -1, {} } end
end

-- 1. Choose. What is looked at (`seen`) and left behind is passed by whatever is taken behind it, but only so often:
-- then nothing passes it any more, and where it does not fit its room is kept for it.
local seen, chosen = {}, {}
local again_ms, left_to_another = -1, false

local abandoned = {}
local function is_abandoned(batch)
  if abandoned[batch] == nil then abandoned[batch] = call('HGET', K.batch(batch), 'cancel') == '1' end
  return abandoned[batch]
end

-- What matters of a job in the line; nil where it is none of this worker's business.
local function look_at(member)
  local id = string.sub(member, 18)
  local want = call('HMGET', K.job(id), 'kv_tokens', 'alone', 'skips', 'batch', 'n', 'chain', 'submitted_ms')
  local kv, n = tonumber(want[1]), tonumber(want[5] or 1)
  -- 1.0 Its batch is being cancelled: feed() comes for it.
  if want[4] and is_abandoned(want[4]) then return nil end
  -- 1.1 This worker can never run it; another may: it is not passed over here, and what stands behind it is seen.
  if kv > A.kv_total or n > A.slots_total then return nil end
  local job = { id = id, member = member, kv = kv, n = n, alone = want[2] == '1', skips = tonumber(want[3]),
    chain = want[6], joined = tonumber(want[7]), place = #seen + 1, match = 0, patience = 0 }
  seen[#seen + 1] = job
  return job
end

-- Takes the job if it fits; true when nothing more is to be taken.
local function offer(job)
  if job.kv > kv_free or job.n > slots_free or (job.alone and held + #chosen > 0) then
    return job.skips >= A.skips_max
  end
  if job.patience > 0 then
    left_to_another = true
    if again_ms < 0 or job.patience < again_ms then again_ms = job.patience end
    return false
  end
  chosen[#chosen + 1] = job
  job.taken = true
  kv_free, slots_free = kv_free - job.kv, slots_free - job.n
  return slots_free == 0 or job.alone
end

-- 1.2 Who holds what: two generations, the older one forgotten when the newer is full or old.
local recent, before = K.prefixes(A.model), K.prefixes_before(A.model)

local idle = {}
local function free_slots(worker)
  if idle[worker] == nil then
    idle[worker] = 0
    local beat = tonumber(call('ZSCORE', K.model_workers(A.model), worker) or nil)
    local stats = beat and beat >= NOW - A.gone_ms and call('HGET', K.worker(worker), 'stats')
    if stats then idle[worker] = cjson.decode(stats).slots - call('SCARD', K.worker_jobs(worker)) end
  end
  return idle[worker]
end

-- How much of the job's prompt this worker holds; and, where another that is free holds much more of it, for how long
-- the job is left to that one.
local function weigh(job)
  local chain = cjson.decode(job.chain)
  job.links = chain
  local now, then_ = call('HMGET', recent, unpack(chain)), call('HMGET', before, unpack(chain))
  local patience = job.alone and 0 or job.joined + A.prefix_wait_ms - NOW
  local whole, elsewhere = tonumber(string.match(chain[#chain], '^%d+')), 0
  for i = #chain, 1, -1 do
    local blocks = tonumber(string.match(chain[i], '^%d+'))
    for worker in string.gmatch((now[i] or '') .. ' ' .. (then_[i] or ''), '%S+') do
      if worker == A.worker then
        job.match = math.max(job.match, blocks)
      elseif patience > 0 and elsewhere == 0 and free_slots(worker) >= job.n then
        elsewhere = blocks
      end
    end
    if job.match > 0 then break end
  end
  if elsewhere > 0 and (elsewhere - job.match) * 4 >= whole then job.patience = patience end
end

-- Puts jobs that stand close together in the order of longest match. Mostly nobody holds as much as the first block of
-- any: one look tells.
local function arrange(near)
  local linked, firsts = {}, {}
  for _, job in ipairs(near) do
    if job.chain then
      linked[#linked + 1] = job
      firsts[#firsts + 1] = string.match(job.chain, '"([^"]+)"')
    end
  end
  if #linked == 0 then return near end
  local now, then_ = call('HMGET', recent, unpack(firsts)), call('HMGET', before, unpack(firsts))
  local matched = false
  for i, job in ipairs(linked) do
    job.is_new = not now[i]
    if now[i] or then_[i] then weigh(job) end
    matched = matched or job.match > 0
  end
  if not matched then return near end
  table.sort(near, function(a, b)
    if a.match ~= b.match then return a.match > b.match end
    return a.place < b.place
  end)
  return near
end

-- 1.3 The line, from its head. `near` collects the first jobs, those that stand close together, until one comes that
-- stands further off or has been passed so often that it keeps its place. Nil: each job is offered as it comes.
local near = A.prefix_window_ms > 0 and call('EXISTS', recent, before) > 0 and {} or nil
local with_ranks, limit = near ~= nil, nil
local function offer_near()
  local jobs = arrange(near)
  near = nil
  for _, job in ipairs(jobs) do
    if offer(job) then return true end
  end
  -- While one is left to another, nothing further behind is for this worker: price rules.
  return left_to_another
end

local function next_in_line(job, rank)
  if not near then return offer(job) end
  limit = limit or rank + A.prefix_window_ms
  if rank <= limit and job.skips < A.skips_max then
    near[#near + 1] = job
    return false
  end
  return offer_near() or offer(job)
end

local page, full = A.slots + A.lookahead, false
for start = 0, A.scan_max - 1, page do
  local queue, last = K.queue(A.model), start + page - 1
  local line = with_ranks and call('ZRANGE', queue, start, last, 'WITHSCORES') or call('ZRANGE', queue, start, last)
  local width = with_ranks and 2 or 1
  for i = 1, #line, width do
    local job = look_at(line[i])
    full = job ~= nil and next_in_line(job, tonumber(line[i + 1])) or #seen >= page
    if full then break end
  end
  if full or #line < page * width then break end
end
if near then offer_near() end

-- 1.4 Whoever was passed.
if with_ranks then table.sort(chosen, function(a, b) return a.place < b.place end) end
for _, job in ipairs(seen) do
  local passed = 0
  for _, pick in ipairs(job.taken and {} or chosen) do
    if pick.place > job.place then passed = passed + 1 end
  end
  if passed > 0 then call('HINCRBY', K.job(job.id), 'skips', passed) end
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

if #chosen == 0 then return { again_ms, leases } end
mark_company(A.worker)

-- 3. What this worker holds from now on.
-- The generation that is written to: a new one where this one is full or old.
local function open_generation()
  local since = tonumber(call('HGET', recent, 'since') or nil)
  if since and NOW - since < A.prefix_ttl_ms and call('HLEN', recent) < A.prefixes_max then return end
  if since then call('RENAME', recent, before) end
  call('HSET', recent, 'since', NOW)
  call('PEXPIRE', recent, 2 * A.prefix_ttl_ms)
end

-- This worker holds it from now on: its name goes first among those (a few) that hold each beginning.
local function hold(job)
  local chain = job.links or cjson.decode(job.chain)
  local holders = job.is_new and {} or call('HMGET', recent, unpack(chain))
  local fields = {}
  for i, link in ipairs(chain) do
    local names, count = A.worker, 1
    for worker in string.gmatch(holders[i] or '', '%S+') do
      if worker ~= A.worker and count < A.holders_max then names, count = names .. ' ' .. worker, count + 1 end
    end
    if names ~= holders[i] then
      fields[#fields + 1] = link
      fields[#fields + 1] = names
    end
  end
  if #fields > 0 then call('HSET', recent, unpack(fields)) end
end

local opened = false
for _, pick in ipairs(chosen) do
  if pick.chain and A.prefix_window_ms > 0 then
    if not opened then open_generation() end
    opened = true
    hold(pick)
  end
end

-- 4. The frontier, up to where the line has been served. Nobody who waits arrived before their rank: a bid that was
-- taken from far behind does not move it past them.
local first = call('ZRANGE', K.queue(A.model), 0, 0, 'WITHSCORES')
if first[2] then reached = math.min(reached, tonumber(first[2])) end
if reached > tonumber(call('HGET', K.model(A.model), 'frontier') or 0) then
  call('HSET', K.model(A.model), 'frontier', int(reached))
end
return { again_ms, leases }
