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
local only = held == 1 and call('SMEMBERS', K.worker_jobs(A.worker))[1]
if only and call('HGET', K.job(only), 'alone') == '1' then return { -1, {} } end

-- 1. Choose. What is looked at (`seen`) and left behind is passed by whatever is taken behind it, but only so often:
-- then nothing passes it any more, and where it does not fit its room is kept for it.
local queue = K.queue(A.model)
local seen, chosen = {}, {}
local again_ms, left_to_another = -1, false
local near -- the first jobs of the line, where some of their beginnings are held somewhere

local abandoned = {}
local function is_abandoned(batch)
  if abandoned[batch] == nil then abandoned[batch] = call('HGET', K.batch(batch), 'cancel') == '1' end
  return abandoned[batch]
end

-- What a look needs, and behind it what a lease needs besides.
local FIELDS = { 'kv_tokens', 'alone', 'skips', 'batch', 'n', 'submitted_ms', 'account', 'tokens', 'base', 'fee',
  'set_prompt_fee', 'fee_per_token', 'attempt', 'arrival', 'offered', 'multiplier_milli', 'started_ms', 'chain' }
local LOOK, ALL = 6, #FIELDS

-- What matters of a job in the line; nil where it is none of this worker's business. Of `near` ones most are left where
-- they are; of others all is read at once.
local function look_at(member)
  local id = string.match(member, '^[^#]+', 18)
  local want = call('HMGET', K.job(id), unpack(FIELDS, 1, near and LOOK or ALL))
  local kv, n = tonumber(want[1]), tonumber(want[5] or 1)
  -- 1.0 Its batch is being cancelled: feed() comes for it.
  if want[4] and is_abandoned(want[4]) then return nil end
  -- 1.1 This worker can never run it; another may: it is not passed over here, and what stands behind it is seen.
  if kv > A.kv_total or n > A.slots_total then return nil end
  local job = { id = id, member = member, kv = kv, n = n, alone = want[2] == '1', skips = tonumber(want[3] or 0),
    joined = tonumber(want[6]), read = not near and want, place = #seen + 1, match = 0, patience = 0 }
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

-- 1.2 Who holds what: two generations, the older one forgotten when the newer is full or old. While only one job has
-- had a beginning, its first block stands for all of it: `chain worker`. Else each link has its holders: `worker …`.
local recent, before = K.prefixes(A.model), K.prefixes_before(A.model)
local asked, since = {}, nil -- what `recent` says of a first block, false where nothing; and when it began
local known = {} -- first blocks that anybody holds

-- Asks who holds even the first block of any of these members, which have it in their names.
local function ask_for(members)
  local firsts = {}
  for _, member in ipairs(members) do
    local mark = string.find(member, '#', 18, true)
    if mark then firsts[#firsts + 1] = string.sub(member, mark + 1) end
  end
  if #firsts == 0 then return false end
  local now, then_ = call('HMGET', recent, 'since', unpack(firsts)), call('HMGET', before, unpack(firsts))
  since = now[1]
  local any = false
  for i, first in ipairs(firsts) do
    asked[first] = now[i + 1]
    if now[i + 1] or then_[i] then known[first], any = true, true end
  end
  return any
end

-- Puts jobs that stand close together in the order of longest match.
local function arrange(jobs)
  -- Who holds each link of a chain, of one generation.
  local function holders_of(generation, chain)
    local holders = call('HMGET', generation, unpack(chain))
    local whole, worker = string.match(holders[1] or '', '^(%b[]) (.+)$')
    for i = 1, whole and #chain or 0 do
      holders[i] = string.find(whole, '"' .. chain[i] .. '"', 1, true) and worker
    end
    return holders
  end

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

  -- How much of the job's prompt this worker holds; and, where another that is free holds much more of it, for how
  -- long the job is left to that one.
  local function weigh(job)
    local chain = cjson.decode(call('HGET', K.job(job.id), 'chain'))
    local now, then_ = holders_of(recent, chain), holders_of(before, chain)
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

  for _, job in ipairs(jobs) do
    local mark = string.find(job.member, '#', 18, true)
    if mark and known[string.sub(job.member, mark + 1)] then weigh(job) end
  end
  table.sort(jobs, function(a, b)
    if a.match ~= b.match then return a.match > b.match end
    return a.place < b.place
  end)
  return jobs
end

-- 1.3 The line, from its head. `near` collects the first jobs, those that stand close together, until one comes that
-- stands further off or has been passed so often that it keeps its place. Mostly nobody holds as much as the first
-- block of any: one look tells, and each job is offered as it comes.
local function offer_near()
  local jobs = arrange(near)
  near = nil
  for _, job in ipairs(jobs) do
    if offer(job) then return true end
  end
  -- While one is left to another, nothing further behind is for this worker: price rules.
  return left_to_another
end

local near_end -- how many in the line stand within the window
local function next_in_line(job, index)
  if not near then return offer(job) end
  near_end = near_end or
    call('ZCOUNT', queue, '-inf', tonumber(call('ZSCORE', queue, job.member)) + A.prefix_window_ms)
  if index <= near_end and job.skips < A.skips_max then
    near[#near + 1] = job
    return false
  end
  return offer_near() or offer(job)
end

local page, full = A.slots + A.lookahead, false
for start = 0, A.scan_max - 1, page do
  local line = call('ZRANGE', queue, start, start + page - 1)
  if A.prefix_window_ms > 0 and (near or #seen == 0) then
    local any = ask_for(line)
    if #seen == 0 then near = any and {} or nil end
  end
  for i, member in ipairs(line) do
    local job = look_at(member)
    full = job ~= nil and next_in_line(job, start + i) or #seen >= page
    if full then break end
  end
  if full or #line < page then break end
end
if near then offer_near() end

-- 1.4 Whoever was passed.
if near_end then table.sort(chosen, function(a, b) return a.place < b.place end) end
for _, job in ipairs(seen) do
  if not job.taken then
    local passed = 0
    for _, pick in ipairs(chosen) do
      if pick.place > job.place then passed = passed + 1 end
    end
    if passed > 0 then call('HINCRBY', K.job(job.id), 'skips', passed) end
  end
end
if #chosen == 0 then return { again_ms, {} } end

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

local leases, reached, market, of_batch, chains = {}, 0, {}, {}, {}
for i, pick in ipairs(chosen) do
  local id, read = pick.id, pick.read or call('HMGET', K.job(pick.id), unpack(FIELDS))
  local account, tokens, base, fee, prompt_fee, token_fee, attempts, arrival, offered, multiplier, started, chain =
    unpack(read, LOOK + 1, ALL)
  local attempt = tonumber(attempts) + 1
  call('HSET', K.job(id), 'status', 'running', 'worker', A.worker, 'company', company, 'next_index', '0',
    'attempt', int(attempt), 'started_ms', started or AT)
  if read[4] then of_batch[read[4]] = (of_batch[read[4]] or 0) + 1 end
  reached = math.max(reached, tonumber(arrival))
  -- Only a bid sets the last accepted multiplier, and once: an automatic price follows it and must not hold it up.
  if offered == '1' and attempt == 1 then market = { 'last_multiplier', multiplier, 'empty_ms', '0' } end
  emit(id, attempt > 1 and 'restarted' or 'started', { 'attempt', int(attempt) })
  if chain and A.prefix_window_ms > 0 then chains[#chains + 1] = chain end
  leases[i] = { id, attempt, account, tonumber(tokens), base, fee, prompt_fee, token_fee, texts[i] }
end
for batch, count in pairs(of_batch) do call('HINCRBY', K.batch(batch), 'running', count) end

-- 3. What this worker holds from now on.
if #chains > 0 then
  -- The generation that is written to: a new one where this one is full or old.
  if since == nil then since = call('HGET', recent, 'since') end
  if not since or NOW - since >= A.prefix_ttl_ms or call('HLEN', recent) >= A.prefixes_max then
    if since then
      call('UNLINK', before) -- RENAME would free it meanwhile
      call('RENAME', recent, before)
    end
    asked = {}
    call('HSET', recent, 'since', NOW)
    call('PEXPIRE', recent, 2 * A.prefix_ttl_ms)
  end

  local fresh, written = {}, {} -- what is new in it
  local function note(link, holders)
    fresh[link] = holders
    written[#written + 1] = link
    written[#written + 1] = holders
  end

  -- A beginning that others have had as well: the worker's name goes first among those (a few) that hold each link.
  local function hold_each(text, first)
    local whole, one = string.match(first, '^(%b[]) (.+)$')
    for link in string.gmatch(whole or '', '"([^"]+)"') do note(link, one) end
    local chain = cjson.decode(text)
    local holders = call('HMGET', recent, unpack(chain))
    for i, link in ipairs(chain) do
      local names, count, old = A.worker, 1, fresh[link] or holders[i]
      for worker in string.gmatch(old or '', '%S+') do
        if worker ~= A.worker and count < A.holders_max then names, count = names .. ' ' .. worker, count + 1 end
      end
      if names ~= old then note(link, names) end
    end
  end

  for _, text in ipairs(chains) do
    local link, alone = string.match(text, '"([^"]+)"'), text .. ' ' .. A.worker
    local first = fresh[link] or asked[link]
    if first == nil then first = call('HGET', recent, link) end
    if not first then note(link, alone) elseif first ~= alone then hold_each(text, first) end
  end
  for i = 1, #written, 1000 do call('HSET', recent, unpack(written, i, math.min(i + 999, #written))) end
end

-- 4. The frontier, up to where the line has been served. Nobody who waits arrived before their rank: a bid that was
-- taken from far behind does not move it past them.
local first = call('ZRANGE', queue, 0, 0, 'WITHSCORES')
if first[2] then
  reached = math.min(reached, tonumber(first[2]))
else
  market[#market + 1] = 'empty_since'
  market[#market + 1] = AT
end
if reached > tonumber(call('HGET', K.model(A.model), 'frontier') or 0) then
  market[#market + 1] = 'frontier'
  market[#market + 1] = int(reached)
end
if #market > 0 then call('HSET', K.model(A.model), unpack(market)) end
return { again_ms, leases }
