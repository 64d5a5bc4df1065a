-- feed: — → queued for the next items of a batch; of a cancelled batch queued → cancelled and running flagged for those
-- that were in line, then — → queued → cancelled for those that were not. Safe to repeat and to interrupt.
-- One step: at most `limit` items and about `bytes_max` of their texts; half as many where they go in and out again.
-- Keys: batch hash, batch_items hash, batches zset, and those of join_line(), finish().
-- Reply: {state, fed}: MORE (call again) | FULL (the line is full: later) | DONE (nothing left to do) | UNKNOWN

local key = K.batch(A.batch)
local flat = call('HGETALL', key)
local batch = {}
for i = 1, #flat, 2 do batch[flat[i]] = flat[i + 1] end
if not batch.status or batch.status == 'storing' or batch.status == 'ended' then
  call('ZREM', K.batches(), A.batch)
  return { batch.status == 'ended' and 'DONE' or 'UNKNOWN', tonumber(batch.fed or 0) }
end
local total, fed = tonumber(batch.total), tonumber(batch.fed)
local cancelled = batch.cancel == '1'

-- 1. Cancelled: first those in line or in a worker's hands, as they are next to run (lease() passes them by meanwhile).
local from = tonumber(batch.cancelled_to or 0)
if cancelled and from < fed then
  local upto = math.min(fed, from + A.limit)
  for index = from, upto - 1 do
    local job = read_job(item_id(A.batch, index))
    if job and is_live(job) then stop(job) end
  end
  call('HSET', key, 'cancelled_to', upto)
  if upto < total then return { 'MORE', fed } end
  call('ZREM', K.batches(), A.batch)
  return { 'DONE', fed }
end

-- 2. Into the line, as far as it has room; of a cancelled batch in and out again, so that each item has its record.
local state = 'MORE'
local first = fed
local last = math.min(total, fed + (cancelled and math.ceil(A.limit / 2) or A.limit))
local unfed_fee, bytes = 0, 0
while fed < last and bytes < A.bytes_max do
  local item = call('HGET', K.batch_items(A.batch), fed)
  local new = cjson.decode(item)
  local depth = call('ZCARD', K.queue(new.model))
  if not cancelled and depth >= A.queue_depth_max then state = 'FULL' break end
  new.id, new.account, new.key_id = item_id(A.batch, fed), batch.account, batch.key_id
  new.set_prompt_fee, new.fee_per_token = tonumber(batch.set_prompt_fee), tonumber(batch.fee_per_token)
  new.batch, new.batch_index = A.batch, fed
  join_line(new, depth == 0)
  call('HDEL', K.batch_items(A.batch), fed)
  unfed_fee, bytes = unfed_fee + new.fee, bytes + #item
  fed = fed + 1
  if cancelled then finish(read_job(new.id), 'cancelled', 0, 0, {}) end
end
if fed > first then
  call('HSET', key, 'fed', fed)
  call('HINCRBY', key, 'unfed_fee', int(-unfed_fee))
  if cancelled then call('HSET', key, 'cancelled_to', fed) end
end
if fed < total then return { state, fed } end
call('UNLINK', K.batch_items(A.batch)) -- what was stored and then not paid for lies behind the last item
call('ZREM', K.batches(), A.batch)
return { 'DONE', fed }
