-- abandon: a batch is to be cancelled; feed() does it, in steps. Keys: batch hash, batches zset.
-- Replies: OK | ENDED (nothing to do) | UNKNOWN (no such batch, or another account's)

local batch = call('HMGET', K.batch(A.batch), 'status', 'account')
if not batch[1] or batch[1] == 'storing' or batch[2] ~= A.account then return 'UNKNOWN' end
if batch[1] == 'ended' then return 'ENDED' end
abandon(A.batch)
return 'OK'
