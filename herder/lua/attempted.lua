-- attempted: what came of one attempt to deliver: delivered, due again in `pause_ms`, or (without one) dead.
-- Keys: delivery hash, flights and due zsets, due_hosts zset, delivered zset, endpoint hash.
-- Replies: OK | STALE (not the attempt under way: nothing written)

local delivery = call('HMGET', K.delivery(A.delivery), 'status', 'attempt', 'host', 'account', 'endpoint')
local host = delivery[3]
if delivery[1] ~= 'pending' or tonumber(delivery[2]) ~= A.attempt or not call('ZSCORE', K.flights(host), A.delivery) then
  return 'STALE'
end
call('ZREM', K.flights(host), A.delivery)
call('HINCRBY', K.delivery(A.delivery), 'tries', 1)
call('HSET', K.delivery(A.delivery), 'last_ms', NOW, 'last_status', A.response_status or '', 'last_error', A.error or '')
if A.disable and call('EXISTS', K.endpoint(delivery[5])) == 1 then
  call('HSET', K.endpoint(delivery[5]), 'disabled_ms', NOW, 'disabled_why', A.disable)
end
if A.pause_ms then
  call('HSET', K.delivery(A.delivery), 'next_ms', int(NOW + A.pause_ms))
  call('ZADD', K.due(host), NOW + A.pause_ms, A.delivery)
else
  call('HSET', K.delivery(A.delivery), 'status', A.outcome, 'ended_ms', NOW)
  call('HDEL', K.delivery(A.delivery), 'next_ms')
  call('ZADD', K.delivered(), NOW, A.delivery .. ':' .. delivery[4])
  call('PEXPIRE', K.delivery(A.delivery), A.webhook_ttl_ms)
end
reckon(host)
return 'OK'
