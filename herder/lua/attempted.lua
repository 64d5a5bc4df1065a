-- attempted: what came of one attempt to deliver, and (as the text) what it said, where it was the first: delivered, due again in `pause_ms`, or (without one) dead.
-- One that comes late is taken as long as no other attempt was begun: nobody else knows better. Each is taken once.
-- Keys: delivery hash, flights, flying and due zsets, failures hash, due_lanes, delivered, unwritten zsets, endpoint hash.
-- Replies: OK | STALE (another attempt is under way, or this one was told already: nothing written)

local delivery = call('HMGET', K.delivery(A.delivery), 'status', 'attempt', 'told', 'lane', 'account', 'endpoint')
local lane = delivery[4]
if delivery[1] ~= 'pending' or tonumber(delivery[2]) ~= A.attempt or tonumber(delivery[3]) == A.attempt then
  return 'STALE'
end
land(lane, A.delivery)
call('ZREM', K.due(lane), A.delivery)
if TEXT ~= '' then keep_body(A.delivery) end
call('HINCRBY', K.delivery(A.delivery), 'tries', 1)
call('HSET', K.delivery(A.delivery), 'told', A.attempt, 'last_ms', NOW, 'last_status', A.response_status or '',
  'last_error', A.error or '')
if A.disable and call('HGET', K.endpoint(delivery[6]), 'disabled_ms') == '0' then
  call('HSET', K.endpoint(delivery[6]), 'disabled_ms', NOW, 'disabled_why', A.disable)
end
-- What was given up without asking the receiver says nothing of it.
if A.outcome == 'delivered' then
  call('DEL', K.failures(lane))
elseif A.pause_ms or A.response_status then
  local count = call('HINCRBY', K.failures(lane), 'count', 1)
  call('HSET', K.failures(lane), 'last_ms', NOW)
  if count == A.down_after then call('HSET', K.failures(lane), 'down_ms', NOW) end
  call('PEXPIRE', K.failures(lane), A.webhook_ttl_ms)
end
if A.pause_ms then
  call('HSET', K.delivery(A.delivery), 'next_ms', int(NOW + A.pause_ms))
  call('ZADD', K.due(lane), NOW + A.pause_ms, A.delivery)
else
  call('HSET', K.delivery(A.delivery), 'status', A.outcome, 'ended_ms', NOW)
  call('HDEL', K.delivery(A.delivery), 'next_ms')
  call('ZADD', K.delivered(), NOW, A.delivery .. ':' .. delivery[5])
  call('PEXPIRE', K.delivery(A.delivery), A.webhook_ttl_ms)
end
reckon(lane)
return 'OK'
