-- chunk: running → running. Appends tokens of one attempt to the job's event log.
-- Keys: job hash, events stream. ARGV[4]: the text.
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
emit(A.job, 'tokens', { 'attempt', int(A.attempt), 'index', int(A.first_index), 'count', int(A.token_count), 'text', ARGV[4] })
return job[5] == '1' and 'CANCEL' or 'OK'
