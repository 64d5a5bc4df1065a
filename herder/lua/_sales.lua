-- Behind the prelude: what submit, charge and feed share. A sale is recalled, refused or made; what is sold joins the line.

-- The same submission again. Whoever repeats it waits now, perhaps at a herder that has not yet said so of this one.
local function replay(subject)
  if A.presence_ms then call('ZADD', K.presence(), 'XX', 'GT', int(NOW + A.presence_ms), subject) end
  return { 'REPLAY', subject }
end

-- What an Idempotency-Key says of this submission: where it is remembered (nil without one), and the reply where it
-- was here before. The reply is what gets lost, not the request: the same again is answered from the record.
local function recall()
  if not A.idempotency_key then return nil, nil end
  local key = K.idempotency(A.account, A.idempotency_key)
  local seen = call('HMGET', key, 'request_hash', 'job')
  if seen[2] then
    return key, seen[1] == A.request_hash and replay(seen[2]) or { 'CONFLICT' }
  end
  return key, nil
end

local function remember(key, subject)
  if not key then return end
  call('HSET', key, 'request_hash', A.request_hash, 'job', subject)
  call('PEXPIRE', key, A.idempotency_ttl_ms)
end

-- Whoever waits for what is sold may be known to one herder only, which then has to say again and again that they do.
local function attend(subject)
  if A.presence_ms then call('ZADD', K.presence(), int(NOW + A.presence_ms), subject) end
end

-- Why this account may not buy from these models for A.fee credits; nil where it may, what it has available, and how long
-- the line of the last model is.
local function refused(models)
  local account = call('HMGET', K.account(A.account), 'available', 'suspended')
  if not account[1] then return { 'NO_ACCOUNT' } end
  if account[2] == '1' then return { 'SUSPENDED' } end
  for _, model in ipairs(models) do
    if call('SISMEMBER', K.models(), model) == 0 then return { 'NO_MODEL', model } end
  end
  if tonumber(call('HGET', K.prices(), 'version') or 0) ~= A.price_version then return { 'REPRICE' } end
  local depth
  for _, model in ipairs(models) do
    depth = call('ZCARD', K.queue(model))
    if depth >= A.queue_depth_max then return { 'FULL', depth } end
  end
  local available = tonumber(account[1])
  if available < A.fee then return { 'POOR', available } end
  return nil, available, depth
end

-- Joins the line (`empty` or not) and is recorded: a job whose fee is held. `new` has the fields of the record that come
-- from outside; its `input` is kept apart. Returns its place in the line.
-- The place: the account's own clock, but never before the frontier or the window, never after now; a bid moves it
-- forward by its head start. An empty line has been served up to now.
local function join_line(new, empty)
  local market = call('HMGET', K.model(new.model), 'frontier', 'us_per_token')
  local us_per_token = tonumber(market[2] or A.us_per_token_default)
  local frontier = tonumber(market[1] or 0)
  if empty then frontier = math.max(frontier, NOW) end
  local floor = math.min(NOW, math.max(frontier, NOW - A.window_ms))
  local arrival = math.max(tonumber(call('ZSCORE', K.clocks(new.model), new.account) or 0), floor)
  local rank = arrival - new.head_start_ms
  local sequence = call('INCR', K.sequence())
  local member = string.format('%016.0f', sequence) .. ':' .. new.id
  -- With its first block, by which lease() sees in the line whether anybody may hold its beginning.
  if new.chain then member = member .. '#' .. string.match(new.chain, '"([^"]+)"') end
  if int(frontier) ~= market[1] then call('HSET', K.model(new.model), 'frontier', int(frontier)) end
  local tokens = new.tokens * (new.n or 1)
  call('ZADD', K.clocks(new.model), int(arrival + math.floor(tokens * us_per_token / 1000)), new.account)
  local fields = { 'account', new.account, 'key_id', new.key_id, 'model', new.model, 'status', 'queued',
    'tokens', int(new.tokens), 'base', int(new.base), 'fee', int(new.fee), 'hold', int(new.fee),
    'set_prompt_fee', int(new.set_prompt_fee), 'fee_per_token', int(new.fee_per_token),
    'multiplier_milli', int(new.multiplier_milli), 'offered', int(new.offered), 'kv_tokens', int(new.kv_tokens),
    'member', member, 'rank', int(rank), 'arrival', int(arrival), 'us_per_token', int(us_per_token),
    'attempt', '0', 'submitted_ms', AT, 'result_ttl_ms', int(A.result_ttl_ms) }
  -- What is at its default (no skips or lapses, one answer, no metadata) is not written: a short hash is a fast one.
  for _, name in ipairs({ 'metadata', 'n', 'webhook_url', 'webhook_endpoint', 'batch', 'batch_index', 'custom_id',
    'chain', 'marks', 'typed', 'presence_ms', 'run', 'ao', 'manner' }) do
    if new[name] ~= nil and new[name] ~= cjson.null then
      fields[#fields + 1] = name
      fields[#fields + 1] = new[name]
    end
  end
  call('HSET', K.job(new.id), unpack(fields))
  call('SET', K.input(new.id), new.input)
  call('ZADD', K.account_jobs(new.account), int(sequence), new.id)
  if new.ao then
    local listed = K.account_ao(new.account)
    for _, id in ipairs(call('ZRANGE', listed, 0, 1)) do -- two are looked at for one that comes, so it shrinks again
      if call('EXISTS', K.job(id)) == 0 then call('ZREM', listed, id) end
    end
    call('ZADD', listed, int(sequence), new.id)
  end
  enqueue(new.model, member, int(rank), empty)
  local position = call('ZRANK', K.queue(new.model), member)
  -- Its bell stays silent: nobody can listen for a job that was not there yet.
  call('XADD', K.events(new.id), '*', 'kind', 'queued', 'position', int(position))
  return position
end
