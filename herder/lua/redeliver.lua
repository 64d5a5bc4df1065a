-- redeliver: an ended delivery is due again, at once and with its whole schedule; the same webhook id, the same body.
-- Keys: delivery hash, endpoint hash, delivered zset, due and flights zsets, due_lanes zset.
-- Replies: OK | PENDING (it is not over yet) | GONE, DISABLED (its endpoint) | UNKNOWN (no such delivery, or another's)

local delivery = call('HMGET', K.delivery(A.delivery), 'account', 'status', 'lane', 'endpoint')
if delivery[1] ~= A.account then return 'UNKNOWN' end
if delivery[2] == 'pending' then return 'PENDING' end
local disabled = call('HGET', K.endpoint(delivery[4]), 'disabled_ms')
if not disabled then return 'GONE' end
if disabled ~= '0' then return 'DISABLED' end
call('HSET', K.delivery(A.delivery), 'status', 'pending', 'tries', 0, 'next_ms', NOW)
call('HDEL', K.delivery(A.delivery), 'ended_ms')
call('PERSIST', K.delivery(A.delivery))
call('ZREM', K.delivered(), A.delivery .. ':' .. delivery[1])
call('ZADD', K.due(delivery[3]), NOW, A.delivery)
reckon(delivery[3])
return 'OK'
