-- submit: — → queued. Holds the fee and joins the queue, in one step.
-- Keys: account hash, books, ledger stream, prices hash, models set, model hash, queue zset, clocks zset,
--       idempotency hash, job hash, input string, events stream, account_jobs zset, sequence, presence zset.
-- TEXT: the input that a worker will read, JSON.
-- Replies: {OK, position, submitted_ms, available} | {REPLAY, job} | {CONFLICT} | {NO_ACCOUNT} | {SUSPENDED} | {NO_MODEL, model} | {REPRICE}
--          | {FULL, depth} | {POOR, available}

-- 1. The same submission again.
if call('EXISTS', K.job(A.job)) == 1 then return replay(A.job) end
local remembered, reply = recall()
if reply then return reply end

-- 2. Every way to say no, before the first write.
local refusal, available, depth = refused({ A.model })
if refusal then return refusal end

-- 3. Tour 3/8: the hold, the job, and its place in line; join_line() says which.
post('hold', A.account, 'available', 'held', A.fee, A.job)
A.id, A.input = A.job, TEXT
local position = join_line(A, depth == 0)
attend(A.job)
remember(remembered, A.job)
return { 'OK', position, NOW, available - A.fee }
