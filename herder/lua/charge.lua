-- charge: holds the fee of a stored batch, all of it in one posting, and sets it going.
-- Keys: account hash, books, ledger stream, prices hash, models set, queue zsets, idempotency hash, batch hash,
--       batch_items hash, batches zset, account_batches zset, sequence, presence zset.
-- Replies: {OK} | {REPLAY, batch} | {CONFLICT} | {NO_ACCOUNT} | {SUSPENDED} | {NO_MODEL, model} | {REPRICE}
--          | {FULL, depth} | {POOR, available} | {LOST} (what was stored is gone: store it again)

-- 1. The same submission again is answered from the record.
local status = call('HGET', K.batch(A.batch), 'status')
if status and status ~= 'storing' then return replay(A.batch) end
local remembered, reply = recall()
if reply then return reply end

-- 2. Every way to say no, before the first write.
local refusal = refused(A.models)
if refusal then return refusal end
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
if A.openai then
  fields[#fields + 1] = 'openai'
  fields[#fields + 1] = A.openai
end
if A.presence_ms then
  fields[#fields + 1] = 'presence_ms'
  fields[#fields + 1] = int(A.presence_ms)
end
call('HSET', K.batch(A.batch), unpack(fields))
call('PERSIST', K.batch(A.batch))
call('PERSIST', K.batch_items(A.batch))
call('ZADD', K.batches(), NOW, A.batch)
call('ZADD', K.account_batches(A.account), call('INCR', K.sequence()), A.batch)
attend(A.batch)
remember(remembered, A.batch)
return { 'OK' }
