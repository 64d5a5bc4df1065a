-- appoint: the model of a worker that waits for one: of the one that is named, or of whichever has none yet and spoke last,
-- since one that has died is silent. The same again changes nothing.
-- Keys: waiting zset, appointed hashes, worker hash.
-- Replies: {OK, worker} | {HAS, model} (it serves, or is to serve, another) | {NONE} (no such worker waits)

call('ZREMRANGEBYSCORE', K.waiting(), '-inf', '(' .. int(NOW - A.gone_ms))

local worker = A.worker
if worker then
  local before = call('HGET', K.appointed(worker), 'model')
  if before then return before == A.model and { 'OK', worker } or { 'HAS', before } end
  local serves = call('HGET', K.worker(worker), 'model')
  if serves then return { 'HAS', serves } end
  if not call('ZSCORE', K.waiting(), worker) then return { 'NONE' } end
else
  for _, id in ipairs(call('ZREVRANGE', K.waiting(), 0, -1)) do
    if call('EXISTS', K.appointed(id)) == 0 then worker = id break end
  end
  if not worker then return { 'NONE' } end
end
call('HSET', K.appointed(worker), 'model', A.model)
call('PEXPIRE', K.appointed(worker), A.kept_ms)
return { 'OK', worker }
