-- feed: — → queued for the next items of a batch, at most `limit` a call; of a cancelled batch — → queued → cancelled,
-- then queued → cancelled, running flagged, for those that were in line. Safe to repeat and to interrupt.
-- Keys: batch hash, batch_items hash, batches zset, and those of join_line(), finish().
-- Reply: {state, fed}: MORE (call again) | FULL (the line is full: later) | DONE (nothing left to do) | UNKNOWN

local key = K.batch(A.batch)
local flat = call('HGETALL', key)
local batch = {}
for i = 1, #flat, 2 do batch[flat[i]] = flat[i + 1] end
if not batch.status or batch.status == 'storing' then return { 'UNKNOWN', 0 } end
local total, fed = tonumber(batch.total), tonumber(batch.fed)
if batch.status == 'ended' then return { 'DONE', fed } end

-- 1. Into the line, as far as it has room; of a cancelled batch in and out again, so that each item has its record.
local state = 'MORE'
local last = math.min(total, fed + A.limit)
local unfed_fee = 0
while fed < last do
  local new = cjson.decode(call('HGET', K.batch_items(A.batch), fed))
  if batch.cancel ~= '1' and call('ZCARD', K.queue(new.model)) >= A.queue_depth_max then state = 'FULL' break end
  new.id, new.account, new.key_id = item_id(A.batch, fed), batch.account, batch.key_id
  new.set_prompt_fee, new.fee_per_token = tonumber(batch.set_prompt_fee), tonumber(batch.fee_per_token)
  new.batch, new.batch_index = A.batch, fed
  join_line(new)
  call('HDEL', K.batch_items(A.batch), fed)
  unfed_fee = unfed_fee + new.fee
  fed = fed + 1
  if batch.cancel == '1' then finish(read_job(new.id), 'cancelled', 0, 0, {}) end
end
call('HSET', key, 'fed', fed)
call('HINCRBY', key, 'unfed_fee', int(-unfed_fee))
if fed < total then return { state, fed } end
if batch.cancel ~= '1' then
  call('ZREM', K.batches(), A.batch)
  return { 'DONE', fed }
end

-- 2. Cancelled, and all are in line: those that still live.
local from = tonumber(batch.cancelled_to or 0)
local upto = math.min(total, from + A.limit)
for index = from, upto - 1 do
  local job = read_job(item_id(A.batch, index))
  if job and job.status == 'queued' then
    finish(job, 'cancelled', 0, 0, {})
  elseif job and job.status == 'running' then
    call('HSET', K.job(job.id), 'cancel', 1)
    call('PUBLISH', K.worker_bell(job.worker), job.id)
  end
end
call('HSET', key, 'cancelled_to', upto)
if upto < total then return { 'MORE', fed } end
call('ZREM', K.batches(), A.batch)
return { 'DONE', fed }
