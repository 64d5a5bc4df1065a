-- charge: holds the fee of a stored batch, all of it in one posting, and sets it going.
-- Keys: account hash, books, ledger stream, prices hash, models set, queue zsets, idempotency hash, batch hash,
--       batch_items hash, batches zset, account_batches zset, sequence.
-- Replies: {OK} | {REPLAY, batch} | {CONFLICT} | {NO_ACCOUNT} | {SUSPENDED} | {NO_MODEL, model} | {REPRICE}
--          | {FULL, depth} | {POOR, available} | {LOST} (what was stored is gone: store it again)

-- 1. The same submission again is answered from the record.
local batch = call('HMGET', K.batch(A.batch), 'status', 'account')
if batch[1] and batch[1] ~= 'storing' then return { 'REPLAY', A.batch } end
local remembered = A.idempotency_key and K.idempotency(A.account, A.idempotency_key)
if remembered then
  local seen = call('HMGET', remembered, 'request_hash', 'job')
  if seen[2] then
    if seen[1] ~= A.request_hash then return { 'CONFLICT' } end
    return { 'REPLAY', seen[2] }
  end
end

-- 2. Every way to say no, before the first write.
local account = call('HMGET', K.account(A.account), 'available', 'suspended')
if not account[1] then return { 'NO_ACCOUNT' } end
if account[2] == '1' then return { 'SUSPENDED' } end
for _, model in ipairs(A.models) do
  if call('SISMEMBER', K.models(), model) == 0 then return { 'NO_MODEL', model } end
  local depth = call('ZCARD', K.queue(model))
  if depth >= A.queue_depth_max then return { 'FULL', depth } end
end
if tonumber(call('HGET', K.prices(), 'version') or 0) ~= A.price_version then return { 'REPRICE' } end
local available = tonumber(account[1])
if available < A.fee then return { 'POOR', available } end
if call('HLEN', K.batch_items(A.batch)) < A.total then return { 'LOST' } end

-- 3. The hold, and the batch.
post('hold', A.account, 'available', 'held', A.fee, A.batch, nil, A.batch)
local fields = { 'status', 'running', 'account', A.account, 'key_id', A.key_id, 'total', A.total, 'refused', A.refused,
  'fed', 0, 'base', int(A.base), 'fee', int(A.fee), 'hold', int(A.fee), 'unfed_fee', int(A.fee),
  'tokens', int(A.tokens), 'succeeded', 0, 'failed', 0, 'cancelled', 0, 'expired', 0, 'running', 0, 'ended', 0,
  'captured', 0, 'refunded', 0, 'completion_tokens', 0, 'metadata', A.metadata, 'created_ms', NOW,
  'model', A.models[1],
  'set_prompt_fee', int(A.set_prompt_fee), 'fee_per_token', int(A.fee_per_token) }
if A.webhook_url then
  fields[#fields + 1] = 'webhook_url'
  fields[#fields + 1] = A.webhook_url
  fields[#fields + 1] = 'webhook_endpoint'
  fields[#fields + 1] = A.webhook_endpoint
end
call('HSET', K.batch(A.batch), unpack(fields))
call('PERSIST', K.batch(A.batch))
call('PERSIST', K.batch_items(A.batch))
call('ZADD', K.batches(), NOW, A.batch)
call('ZADD', K.account_batches(A.account), call('INCR', K.sequence()), A.batch)
if remembered then
  call('HSET', remembered, 'request_hash', A.request_hash, 'job', A.batch)
  call('PEXPIRE', remembered, A.idempotency_ttl_ms)
end
return { 'OK' }
