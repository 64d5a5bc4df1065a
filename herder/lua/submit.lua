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

-- 3. Tour 3/8: the hold, the job, and its place in line; join_line() says which.
post('hold', A.account, 'available', 'held', A.fee, A.job)
A.id, A.input = A.job, ARGV[4]
local position = join_line(A)
if remembered then
  call('HSET', remembered, 'request_hash', A.request_hash, 'job', A.job)
  call('PEXPIRE', remembered, A.idempotency_ttl_ms)
end
return { 'OK', position }
