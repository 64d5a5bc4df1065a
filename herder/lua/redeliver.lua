-- redeliver: an ended delivery is due again, at once and with its whole schedule; the same webhook id, the same body.
-- Keys: delivery hash, delivered zset, due and flights zsets, due_hosts zset.
-- Replies: OK | PENDING (it is not over yet) | UNKNOWN (no such delivery, or another account's)

local delivery = call('HMGET', K.delivery(A.delivery), 'account', 'status', 'host')
if delivery[1] ~= A.account then return 'UNKNOWN' end
if delivery[2] == 'pending' then return 'PENDING' end
call('HSET', K.delivery(A.delivery), 'status', 'pending', 'tries', 0, 'next_ms', NOW)
call('HDEL', K.delivery(A.delivery), 'ended_ms')
call('PERSIST', K.delivery(A.delivery))
call('ZREM', K.delivered(), A.delivery .. ':' .. delivery[1])
call('ZADD', K.due(delivery[3]), NOW, A.delivery)
reckon(delivery[3])
return 'OK'
