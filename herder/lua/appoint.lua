-- appoint: the model of a worker that waits for one: of the one that is named, or of whichever has none yet and spoke last,
-- since one that has died is silent. The same again changes nothing.
-- Keys: waiting zset, appointed hashes, worker hash.
-- Replies: {OK, worker} | {HAS, model} (it serves, or is to serve, another) | {NONE} (no such worker waits)

call('ZREMRANGEBYSCORE', K.waiting(), '-inf', '(' .. int(NOW - A.gone_ms))

-- One that could not serve its model is free again as soon as it waits.
local function is_free(id)
  return call('EXISTS', K.appointed(id)) == 0 or call('HEXISTS', K.appointed(id), 'why') == 1
end

local worker = A.worker
if worker then
  local waits = call('ZSCORE', K.waiting(), worker)
  local before = call('HGET', K.appointed(worker), 'model')
  if before and not (waits and is_free(worker)) then
    return before == A.model and { 'OK', worker } or { 'HAS', before }
  end
  local serves = call('HGET', K.worker(worker), 'model')
  if serves then return { 'HAS', serves } end
  if not waits then return { 'NONE' } end
else
  for _, id in ipairs(call('ZREVRANGE', K.waiting(), 0, -1)) do
    if is_free(id) then worker = id break end
  end
  if not worker then return { 'NONE' } end
end
call('DEL', K.appointed(worker))
call('HSET', K.appointed(worker), 'model', A.model)
call('PEXPIRE', K.appointed(worker), A.kept_ms)
return { 'OK', worker }
