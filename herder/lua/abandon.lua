-- abandon: a batch is to be cancelled; feed() does it, in steps. Keys: batch hash, batches zset.
-- Replies: OK | ENDED (nothing to do) | UNKNOWN (no such batch, or another account's)

local batch = call('HMGET', K.batch(A.batch), 'status', 'account', 'cancel', 'created_ms')
if not batch[1] or batch[1] == 'storing' or batch[2] ~= A.account then return 'UNKNOWN' end
if batch[1] == 'ended' then return 'ENDED' end
if batch[3] ~= '1' then
  call('HSET', K.batch(A.batch), 'cancel', 1)
  call('ZADD', K.batches(), batch[4], A.batch)
end
return 'OK'
