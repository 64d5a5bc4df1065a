-- Shared by every script: arguments, time, money, the queue, the event log, and the one function that ends a job.
-- A: named arguments. TEXT: a text that is stored as it is, or ''. Several calls that wait together are one for Redis:
-- what stands here is done once for all of them, and then the script for each, with an A and a TEXT of its own.
-- A script is not rolled back: each one checks everything first and writes last.
-- Numbers are never concatenated ('..' rounds them to 14 digits): they go to redis.call as numbers, or through int().

local call = redis.call

local function int(number) return string.format('%.0f', number + 0) end -- the 0 makes -0 a 0

-- Now, in ms. Never runs backwards; where the server's clock has been set back, it goes on at half speed until the
-- two agree again, so that leases still lapse meanwhile.
local function read_clock()
  local raw
  if OVERRIDE ~= '' then
    raw = tonumber(OVERRIDE)
  else
    local time = call('TIME')
    raw = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
  end
  local seen = call('HMGET', K.time(), 'now', 'raw')
  local now, before = tonumber(seen[1] or 0), tonumber(seen[2] or 0)
  if raw >= now then
    if raw > now then call('HSET', K.time(), 'now', int(raw), 'raw', int(raw)) end
    return raw
  end
  if raw < before then before = raw; call('HSET', K.time(), 'raw', raw) end
  if raw - before >= 2 then
    now = now + math.floor((raw - before) / 2)
    call('HSET', K.time(), 'now', now, 'raw', raw)
  end
  return now
end

local NOW = read_clock()
local AT = int(NOW) -- for calls: Redis takes twice as long to print a number

-- A job's hash as a table, as far as a script asks for it; nil where there is none. What it has not is false.
local function read_job(id)
  local fields = { 'status', 'attempt', 'worker', 'hold', 'cancel', 'company', 'account', 'model', 'batch', 'tokens', 'n',
    'us_per_token', 'member', 'rank', 'batch_index', 'result_ttl_ms', 'webhook_url', 'webhook_endpoint',
    'settled_attempt', 'presence_ms' }
  local values = call('HMGET', K.job(id), unpack(fields))
  if not values[1] then return nil end
  local job = { id = id }
  for i, name in ipairs(fields) do job[name] = values[i] end
  return job
end

local function is_live(job) return job.status == 'queued' or job.status == 'running' end

-- Money ---------------------------------------------------------------------------------------------------

local function move(account, balance, amount)
  if balance == 'revenue' or balance == 'mint' then
    call('HINCRBY', K.books(), balance, amount)
  else
    call('HINCRBY', K.account(account), balance, amount)
  end
end

-- One posting: `amount` credits of this account's business from one balance to another. Nothing else moves money.
-- A batch is held in one posting, which names the batch as its job; what its items capture and void names both.
local function post(kind, account, source, target, amount, job, memo, batch)
  if amount == 0 then return end
  local text = int(amount)
  move(account, source, int(-amount))
  move(account, target, text)
  call('XADD', K.ledger(account), '*', 'kind', kind, 'source', source, 'target', target,
    'amount', text, 'job', job or '', 'memo', memo or '', 'at', AT, 'batch', batch or '')
end

-- Events --------------------------------------------------------------------------------------------------

-- Appends to the job's log and rings its bell with the event itself. `fields` is a flat list of names and texts.
local function emit(id, kind, fields)
  local event = { kind = kind }
  for i = 1, #fields, 2 do event[fields[i]] = fields[i + 1] end
  event.id = call('XADD', K.events(id), '*', 'kind', kind, unpack(fields))
  call('PUBLISH', K.job_bell(id), cjson.encode(event))
end

-- The queue -----------------------------------------------------------------------------------------------

-- Puts a member in a model's line, which is `empty` or not. The time for which the line was empty is added up here, since the last accepted
-- multiplier decays by it.
local function enqueue(model, member, rank, empty)
  if empty then
    local since = tonumber(call('HGET', K.model(model), 'empty_since') or 0)
    if since > 0 then
      call('HINCRBY', K.model(model), 'empty_ms', int(NOW - since))
      call('HSET', K.model(model), 'empty_since', 0)
    end
  end
  call('ZADD', K.queue(model), rank, member)
  call('PUBLISH', K.queue_bell(model), member)
end

local function dequeue(model, member)
  if call('ZREM', K.queue(model), member) == 1 and call('EXISTS', K.queue(model)) == 0 then
    call('HSET', K.model(model), 'empty_since', AT)
  end
end

-- Takes a job out of its worker's hands, whatever comes next.
local function unlease(job)
  call('ZREM', K.leases(), job.id)
  call('SREM', K.worker_jobs(job.worker), job.id)
  if job.batch then call('HINCRBY', K.batch(job.batch), 'running', -1) end
end

-- Puts a job in a worker's hands until `until_ms`.
local function hand_to(id, worker, until_ms)
  call('ZADD', K.leases(), until_ms, id)
  call('SADD', K.worker_jobs(worker), id)
end

-- Whoever shares a worker, at any moment of an attempt, is in company.
local function mark_company(worker)
  local ids = call('SMEMBERS', K.worker_jobs(worker))
  if #ids < 2 then return end
  for _, id in ipairs(ids) do call('HSET', K.job(id), 'company', 1) end
end

-- The end of a job ----------------------------------------------------------------------------------------

-- The job of an item of a batch: `batch_` becomes `job_`, and the index follows.
local function item_id(batch, index) return 'job_' .. string.sub(batch, 7) .. 'n' .. int(index) end

-- Where the end of something is told: its own address, else the account's; of an item of a batch only its own.
-- Flat fields for the callback queue; empty where nobody wants to hear.
local function webhook_of(thing)
  if thing.webhook_url then return { 'webhook_url', thing.webhook_url, 'endpoint', thing.webhook_endpoint } end
  if thing.batch then return {} end
  local default = call('HMGET', K.account(thing.account), 'webhook_url', 'webhook_endpoint')
  if not default[1] then return {} end
  return { 'webhook_url', default[1], 'endpoint', default[2] }
end

-- An item has ended. With the last one ends the batch: one callback for all. Items have no expiry of their own: what a
-- batch has goes together, in steps of the sweep, when the batch's own time is over.
local function end_item(job, status, capture, void, used)
  local key = K.batch(job.batch)
  call('HINCRBY', key, status, 1)
  call('HINCRBY', key, 'captured', int(capture))
  call('HINCRBY', key, 'refunded', int(void))
  call('HINCRBY', key, 'hold', int(-capture - void))
  call('HINCRBY', key, 'completion_tokens', used)
  call('RPUSH', K.batch_results(job.batch), job.batch_index)
  local ended = call('HINCRBY', key, 'ended', 1)
  call('PUBLISH', K.batch_bell(job.batch), int(ended))
  local batch = call('HMGET', key, 'total', 'webhook_url', 'webhook_endpoint', 'presence_ms')
  if ended < tonumber(batch[1]) then return end
  call('HSET', key, 'status', 'ended', 'ended_ms', NOW)
  call('ZREM', K.batches(), job.batch)
  if batch[4] then call('ZREM', K.presence(), job.batch) end
  call('XADD', K.callbacks(), '*', 'batch', job.batch, 'account', job.account, 'status', 'ended', 'at', int(NOW),
    unpack(webhook_of({ account = job.account, webhook_url = batch[2], webhook_endpoint = batch[3] })))
  call('ZADD', K.ended(), NOW, job.batch .. ':' .. job.account)
end

-- Ends a live job: hold gone, one terminal event, one callback, the record left to expire. `used` is the number of
-- tokens that were produced and kept; the rest is given back to the account's virtual clock. `extra` are flat fields
-- of the record and of the event, `kept` of the record alone. The caller has checked 0 <= capture <= hold.
local function finish(job, status, capture, used, extra, kept)
  local hold = tonumber(job.hold)
  if job.status == 'queued' then dequeue(job.model, job.member) else unlease(job) end
  if job.presence_ms then call('ZREM', K.presence(), job.id) end
  post('capture', job.account, 'held', 'revenue', capture, job.id, nil, job.batch)
  post('void', job.account, 'held', 'available', hold - capture, job.id, nil, job.batch)
  local event = { 'status', status, 'captured', int(capture), 'refunded', int(hold - capture), unpack(extra) }
  local record = { 'hold', '0', 'ended_ms', AT, unpack(kept or {}) }
  for i = 1, #event do record[#record + 1] = event[i] end
  call('HSET', K.job(job.id), unpack(record))
  local sold = tonumber(job.tokens) * tonumber(job.n or 1)
  local unused_ms = math.floor((sold - used) * tonumber(job.us_per_token) / 1000)
  if unused_ms > 0 and call('ZSCORE', K.clocks(job.model), job.account) then
    call('ZINCRBY', K.clocks(job.model), -unused_ms, job.account)
  end
  if status == 'succeeded' then
    local known = call('HGET', K.model(job.model), 'mean_tokens')
    local before = tonumber(known or used)
    local mean = string.format('%.2f', before + (used - before) / 16)
    if mean ~= known then call('HSET', K.model(job.model), 'mean_tokens', mean) end
  end
  emit(job.id, 'done', event)
  call('XADD', K.callbacks(), '*', 'job', job.id, 'account', job.account, 'status', status, 'at', AT,
    unpack(webhook_of(job)))
  call('DEL', K.input(job.id))
  if job.batch then return end_item(job, status, capture, hold - capture, used) end
  call('ZADD', K.ended(), AT, job.id .. ':' .. job.account)
  call('PEXPIRE', K.job(job.id), job.result_ttl_ms)
  call('PEXPIRE', K.events(job.id), job.result_ttl_ms)
end

local function fail(job, code, message)
  finish(job, 'failed', 0, 0, { 'error_code', code, 'error_message', message })
end

-- Cancels a live job: one that is queued ends at once, of one that runs its worker is told, which ends it.
local function stop(job)
  if job.status == 'queued' then finish(job, 'cancelled', 0, 0, {}) return 'CANCELLED' end
  call('HSET', K.job(job.id), 'cancel', 1)
  call('PUBLISH', K.worker_bell(job.worker), job.id)
  return 'FLAGGED'
end

-- Marks a batch that goes on to be cancelled: from now on no lease takes an item of it, and feed() takes them out.
local function abandon(batch)
  local seen = call('HMGET', K.batch(batch), 'cancel', 'created_ms')
  if seen[1] == '1' then return end
  call('HSET', K.batch(batch), 'cancel', 1)
  call('ZADD', K.batches(), seen[2], batch)
end

-- Back in line with its original rank; only for a job that is not flagged.
local function requeue(job)
  unlease(job)
  call('HSET', K.job(job.id), 'status', 'queued')
  enqueue(job.model, job.member, job.rank, call('EXISTS', K.queue(job.model)) == 0)
end

-- A lease that ended without an answer. `killed`: the supervisor saw SIGKILL, which no process does to itself; it is
-- half the evidence of a crash or of silence, since the kernel does it to a job that takes too much memory.
-- 1 flagged: cancelled. 2 in company: counted apart, and after two crashes (or four kills) leased alone.
-- 3 alone: after two crashes (or four kills) it is the job's own fault.
local function lapse(job, killed)
  if job.cancel == '1' then finish(job, 'cancelled', 0, 0, {}) return 'CANCELLED' end
  local where = job.company == '1' and 'company' or 'alone'
  call('HINCRBY', K.job(job.id), (killed and 'kills_' or 'lapses_') .. where, 1)
  local counted = call('HMGET', K.job(job.id), 'lapses_' .. where, 'kills_' .. where)
  local blame = tonumber(counted[1] or 0) + tonumber(counted[2] or 0) / 2
  if where == 'alone' and blame >= 2 then
    fail(job, 'quarantined', 'one worker after another died or went silent while it ran this job alone')
    return 'QUARANTINED'
  end
  if where == 'company' and blame >= 2 then call('HSET', K.job(job.id), 'alone', 1) end
  requeue(job)
  return 'REQUEUED'
end

-- Webhooks ------------------------------------------------------------------------------------------------

-- What a delivery says is written once, with its first attempt or before it; of one that says nothing, only that it is
-- not to be written. Whether it was now.
local function keep_body(delivery)
  call('ZREM', K.unwritten(), delivery)
  if TEXT == '' or call('EXISTS', K.delivery(delivery)) == 0 then return false end
  return call('HSETNX', K.delivery(delivery), 'body', TEXT) == 1
end

-- What a lane shares with others: its account's place at that host, and its account. The lanes of earlier versions are
-- named after the former alone.
local function scopes_of(lane) return string.match(lane, '^[^/]*'), string.match(lane, '^[^@]*') end

-- An attempt is not under way any more, whatever came of it.
local function land(lane, id)
  local host, account = scopes_of(lane)
  call('ZREM', K.flights(lane), id)
  call('ZREM', K.flying(host), id)
  call('ZREM', K.flying(account), id)
end

-- When a lane that has failed so often in a row, and is down until it succeeds, may be asked again; nil for the others.
-- That is after as long as it had been down when it last failed, within bounds: so the pause doubles.
local function down_until(lane)
  local failed = call('HMGET', K.failures(lane), 'count', 'last_ms', 'down_ms')
  if tonumber(failed[1] or 0) < A.down_after then return nil end
  local last = tonumber(failed[2])
  return last + math.max(A.probe_ms, math.min(last - (failed[3] or last), A.probe_max_ms))
end

-- How many attempts may begin at a lane now, as far as it alone is concerned. One that is down is asked once at a time, and not at once again.
local function room_of(lane)
  local under_way, again = call('ZCARD', K.flights(lane)), down_until(lane)
  if not again then return A.host_max - under_way end
  return under_way == 0 and again <= NOW and 1 or 0
end

-- When something can next be done for a lane: an attempt is due, or one under way is to be given up. A lane with no
-- room left waits for one of its attempts, however many are due.
-- Lanes take turns: one that waits keeps its place; one that was `served`, and has more, goes behind those that wait.
-- So however long the backlog of dead receivers, another's first webhook waits for one turn of each.
local function reckon(lane, served)
  local due = call('ZRANGE', K.due(lane), 0, 0, 'WITHSCORES')[2]
  local flight = call('ZRANGE', K.flights(lane), 0, 0, 'WITHSCORES')[2]
  local again = down_until(lane)
  local full = call('ZCARD', K.flights(lane)) >= (again and 1 or A.host_max)
  local at = flight and tonumber(flight) or nil
  if due and not full then
    local from = math.max(tonumber(due), again or 0)
    at = math.min(at or from, from)
  end
  if not at then call('ZREM', K.due_lanes(), lane) return end
  local turn = not served and tonumber(call('ZSCORE', K.due_lanes(), lane) or nil)
  if at <= NOW then at = turn and turn <= NOW and turn or NOW end
  call('ZADD', K.due_lanes(), at, lane)
end
