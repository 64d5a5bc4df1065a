-- sweep: running → queued for every lease that lapsed (or failed, or cancelled: see lapse()); and what a caller waited
-- for whose herder has gone silent is cancelled, as the caller would have it. Of both together at most `limit` a call.
-- Also forgets workers that went silent, clocks that no longer matter, and jobs, batches and deliveries whose time is over.
-- Keys: server hash, leases zset, presence zset, workers zset, model_workers zsets, clocks zsets, ended zset, account_jobs zsets,
--       batch hashes and what belongs to them, delivered zset, deliveries zsets.
-- Reply: {lapsed, quarantined}

-- After a restart of Redis nothing lapses for one lease: the workers could not renew while it was down. Nor, for one
-- presence, what herders renew; and that not after a pause of the sweeps either. Then Redis stood still, or its clock was
-- set forward, and what is lost by taking a caller for gone is not given back, as a lapsed lease is.
local server = call('HMGET', K.server(), 'run_id', 'grace_until', 'present_until', 'swept_ms')
local grace_until, present_until = tonumber(server[2] or 0), tonumber(server[3] or 0)
local restarted, paused = A.run_id ~= server[1], NOW - (server[4] or NOW) >= A.pause_ms
if restarted then grace_until = server[1] and NOW + A.lease_ms or 0 end
if paused or (restarted and server[1]) then present_until = NOW + A.presence_ms end
call('HSET', K.server(), 'run_id', A.run_id, 'grace_until', grace_until, 'present_until', present_until,
  'swept_ms', NOW)

local lapsed, quarantined = 0, 0
if NOW >= grace_until then
  for _, id in ipairs(call('ZRANGEBYSCORE', K.leases(), '-inf', NOW, 'LIMIT', 0, A.limit)) do
    local job = read_job(id)
    lapsed = lapsed + 1
    if lapse(job) == 'QUARANTINED' then quarantined = quarantined + 1 end
  end
end

-- Nobody can come back for these: what would run for nobody is not run. Of a batch feed() takes the items out.
if NOW >= present_until then
  for _, name in ipairs(call('ZRANGEBYSCORE', K.presence(), '-inf', NOW, 'LIMIT', 0, A.limit - lapsed)) do
    call('ZREM', K.presence(), name)
    if string.sub(name, 1, 6) == 'batch_' then abandon(name) else stop(read_job(name)) end
  end
end

for _, worker in ipairs(call('ZRANGEBYSCORE', K.workers(), '-inf', NOW - A.gone_ms, 'LIMIT', 0, A.limit)) do
  call('ZREM', K.workers(), worker)
end
for _, model in ipairs(call('SMEMBERS', K.models())) do
  call('ZREMRANGEBYSCORE', K.model_workers(model), '-inf', NOW - A.gone_ms)
  -- A clock before the window is never the later of the two: it can go.
  call('ZREMRANGEBYSCORE', K.clocks(model), '-inf', int(NOW - A.window_ms - 1))
end

-- An ended batch goes with all its items, at most `most` of them a call; the batch itself last. How many items went, and
-- whether all are gone.
local function purge(batch, most)
  local seen = call('HMGET', K.batch(batch), 'purged', 'total', 'account')
  local from, total = tonumber(seen[1] or 0), tonumber(seen[2] or 0)
  local upto = math.min(total, from + most)
  for index = from, upto - 1 do
    local id = item_id(batch, index)
    call('ZREM', K.account_jobs(seen[3]), id)
    call('DEL', K.job(id), K.events(id))
  end
  if upto < total then call('HSET', K.batch(batch), 'purged', upto) return upto - from, false end
  if seen[3] then call('ZREM', K.account_batches(seen[3]), batch) end
  call('UNLINK', K.batch(batch), K.batch_items(batch), K.batch_results(batch))
  return upto - from, true
end

-- Jobs and items of batches together are at most `limit` a call: a script must not be long.
local left = A.limit
for _, entry in ipairs(call('ZRANGEBYSCORE', K.ended(), '-inf', NOW - A.result_ttl_ms, 'LIMIT', 0, A.limit)) do
  local id, account = string.match(entry, '^([^:]+):(.+)$')
  local went, gone = 1, true
  if string.sub(id, 1, 6) == 'batch_' then
    went, gone = purge(id, left)
  else
    call('ZREM', K.account_jobs(account), id)
    call('DEL', K.job(id), K.events(id))
  end
  if gone then call('ZREM', K.ended(), entry) end
  left = left - went
  if left <= 0 then break end
end
for _, entry in ipairs(call('ZRANGEBYSCORE', K.delivered(), '-inf', NOW - A.webhook_ttl_ms, 'LIMIT', 0, A.limit)) do
  local id, account = string.match(entry, '^([^:]+):(.+)$')
  call('ZREM', K.deliveries(account), id)
  call('DEL', K.delivery(id))
  call('ZREM', K.unwritten(), id)
  call('ZREM', K.delivered(), entry)
end
return { lapsed, quarantined }
