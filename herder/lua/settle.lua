-- settle: running → succeeded, failed, cancelled; and from queued, late, by the attempt that had lapsed.
-- Fee captured, result stored, callback posted, in one step. Idempotent by (job, attempt).
-- Keys: job hash, and those of finish(). TEXT: the first answer's text; of others and of chances A.choices, A.logprobs.
-- Replies: OK | REPEAT (this very attempt has settled) | STALE (another attempt owns the job or ended it, or it is gone)
--          | OVERDRAWN (capture above the hold) | NOT_FLAGGED (cancelled, but nobody asked)

local job = read_job(A.job)
if not job then return 'STALE' end
if not is_live(job) then
  if tonumber(job.settled_attempt or 0) == A.attempt then return 'REPEAT' end
  return 'STALE'
end
if tonumber(job.attempt) ~= A.attempt or job.worker ~= A.worker then return 'STALE' end
if A.captured < 0 or A.captured > tonumber(job.hold) then return 'OVERDRAWN' end
if A.outcome == 'cancelled' and job.cancel ~= '1' then return 'NOT_FLAGGED' end

local result = { 'settled_attempt', int(A.attempt), 'prompt_tokens', int(A.prompt_tokens),
  'completion_tokens', int(A.completion_tokens), 'cached_tokens', int(A.cached_tokens) }
local function add(name, value)
  if value ~= nil then result[#result + 1] = name; result[#result + 1] = value end
end
add('finish_reason', A.finish_reason)
add('error_code', A.error_code)
add('error_message', A.error_message)
if A.outcome == 'failed' then
  finish(job, 'failed', 0, 0, result)
else
  local kept = { 'text', TEXT }
  for _, name in ipairs({ 'choices', 'logprobs' }) do
    if A[name] then kept[#kept + 1] = name; kept[#kept + 1] = A[name] end
  end
  finish(job, A.outcome, A.captured, A.completion_tokens, result, kept)
end
return 'OK'
