-- submit: — → queued. Holds the fee and joins the queue, in one step.
-- Keys: account hash, books, ledger stream, prices hash, models set, model hash, queue zset, clocks zset,
--       idempotency hash, job hash, input string, events stream, account_jobs zset, sequence.
-- ARGV[4]: the input that a worker will read, JSON.
-- Replies: {OK, position} | {REPLAY, job} | {CONFLICT} | {NO_ACCOUNT} | {SUSPENDED} | {NO_MODEL} | {REPRICE}
--          | {FULL, depth} | {POOR, available}

-- 1. The reply is what gets lost, not the request: the same submission again is answered from the record.
if call('EXISTS', K.job(A.job)) == 1 then return { 'REPLAY', A.job } end
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
if call('SISMEMBER', K.models(), A.model) == 0 then return { 'NO_MODEL' } end
if tonumber(call('HGET', K.prices(), 'version') or 0) ~= A.price_version then return { 'REPRICE' } end
local depth = call('ZCARD', K.queue(A.model))
if depth >= A.queue_depth_max then return { 'FULL', depth } end
local available = tonumber(account[1])
if available < A.fee then return { 'POOR', available } end

-- 3. Tour 3/8: the place in line. The account's own clock, but never before the frontier or the window, never after
-- now; a bid moves it forward by its head start. An empty line has been served up to now.
local market = call('HMGET', K.model(A.model), 'frontier', 'us_per_token')
local us_per_token = tonumber(market[2] or A.us_per_token_default)
local frontier = tonumber(market[1] or 0)
if depth == 0 then frontier = math.max(frontier, NOW) end
local floor = math.min(NOW, math.max(frontier, NOW - A.window_ms))
local arrival = math.max(tonumber(call('ZSCORE', K.clocks(A.model), A.account) or 0), floor)
local rank = arrival - A.head_start_ms
local sequence = call('INCR', K.sequence())
local member = string.format('%016.0f', sequence) .. ':' .. A.job

-- 4. The hold, the job, the queue.
call('HSET', K.model(A.model), 'frontier', int(frontier))
call('ZADD', K.clocks(A.model), arrival + math.floor(A.tokens * us_per_token / 1000), A.account)
post('hold', A.account, 'available', 'held', A.fee, A.job)
call('HSET', K.job(A.job), 'account', A.account, 'key_id', A.key_id, 'model', A.model, 'status', 'queued',
  'tokens', A.tokens, 'base', int(A.base), 'fee', int(A.fee), 'hold', int(A.fee),
  'set_prompt_fee', int(A.set_prompt_fee), 'fee_per_token', int(A.fee_per_token),
  'multiplier_milli', A.multiplier_milli, 'offered', A.offered, 'kv_tokens', A.kv_tokens,
  'member', member, 'rank', int(rank), 'arrival', int(arrival), 'us_per_token', us_per_token,
  'attempt', 0, 'lapses_company', 0, 'lapses_alone', 0, 'skips', 0, 'submitted_ms', NOW,
  'metadata', A.metadata, 'result_ttl_ms', A.result_ttl_ms)
call('SET', K.input(A.job), ARGV[4])
call('ZADD', K.account_jobs(A.account), sequence, A.job)
if remembered then
  call('HSET', remembered, 'request_hash', A.request_hash, 'job', A.job)
  call('PEXPIRE', remembered, A.idempotency_ttl_ms)
end
enqueue(A.model, member, int(rank))
local position = call('ZRANK', K.queue(A.model), member)
emit(A.job, 'queued', { 'position', int(position) })
return { 'OK', position }
