-- store: items of a batch that is being made, some of them a call. Nothing is held or queued before the charge.
-- Keys: batch hash, batch_items hash. Safe to repeat. What is never charged for expires.
-- Replies: OK | CHARGED (this batch has been charged for: nothing may be added)
--          | LOST (what comes before these items is gone: nothing written, so that the charge finds it out)

local status = call('HGET', K.batch(A.batch), 'status')
if status and status ~= 'storing' then return 'CHARGED' end
if A.first_index > call('HLEN', K.batch_items(A.batch)) then return 'LOST' end
call('HSET', K.batch(A.batch), 'status', 'storing', 'account', A.account)
for i, item in ipairs(A.items) do
  call('HSET', K.batch_items(A.batch), A.first_index + i - 1, item)
end
call('PEXPIRE', K.batch(A.batch), A.storing_ttl_ms)
call('PEXPIRE', K.batch_items(A.batch), A.storing_ttl_ms)
return 'OK'
