-- claim: attempts that are due, at most `limit`, shared out evenly among the hosts whose turn it is, and of one host no
-- more at a time than room_of() says: a full host is passed by, so that a slow or dead receiver delays only itself.
-- An attempt that nobody answered for in time is due again.
-- Keys: due_hosts zset, due and flights zsets, failures strings, delivery hashes. Reply: a list of {delivery, attempt}.

local claimed = {}
local hosts = call('ZRANGEBYSCORE', K.due_hosts(), '-inf', NOW, 'LIMIT', 0, A.limit)
local share = math.max(1, math.floor(A.limit / math.max(1, #hosts)))
for _, host in ipairs(hosts) do
  for _, id in ipairs(call('ZRANGEBYSCORE', K.flights(host), '-inf', NOW)) do
    call('ZREM', K.flights(host), id)
    call('ZADD', K.due(host), NOW, id)
  end
  local room = math.min(room_of(host) - call('ZCARD', K.flights(host)), share)
  if room > 0 then
    for _, id in ipairs(call('ZRANGEBYSCORE', K.due(host), '-inf', NOW, 'LIMIT', 0, room)) do
      call('ZREM', K.due(host), id)
      call('ZADD', K.flights(host), NOW + A.flight_ms, id)
      claimed[#claimed + 1] = { id, call('HINCRBY', K.delivery(id), 'attempt', 1) }
    end
  end
  reckon(host, true)
end
return claimed
