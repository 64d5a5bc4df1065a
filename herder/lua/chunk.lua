-- chunk: running → running. Appends tokens of one attempt to the job's event log.
-- Of several answers it says which; the index counts the tokens of all of them, in the order of sending.
-- Keys: job hash, events stream. TEXT: the text. A.logprobs: JSON, for a job that asked for it.
-- Replies: OK | REPEAT (these tokens are in the log) | CANCEL (written; the job is to be stopped)
--          | STALE (not this worker's attempt, nothing written) | GAP (tokens before these are missing, nothing written)

local job = call('HMGET', K.job(A.job), 'status', 'attempt', 'worker', 'next_index', 'cancel')
if (job[1] ~= 'running' and job[1] ~= 'queued') or tonumber(job[2]) ~= A.attempt or job[3] ~= A.worker then
  return 'STALE'
end
local expected = tonumber(job[4])
if A.first_index < expected then return 'REPEAT' end
if A.first_index > expected then return 'GAP' end
call('HSET', K.job(A.job), 'next_index', expected + A.token_count)
local event = { 'attempt', int(A.attempt), 'index', int(A.first_index), 'count', int(A.token_count), 'text', TEXT }
if A.choice then event[#event + 1] = 'choice'; event[#event + 1] = int(A.choice) end
if A.logprobs then event[#event + 1] = 'logprobs'; event[#event + 1] = A.logprobs end
emit(A.job, 'tokens', event)
return job[5] == '1' and 'CANCEL' or 'OK'
