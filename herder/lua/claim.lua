-- claim: attempts that are due, at most `limit`, shared out evenly among the lanes whose turn it is, and of one lane no
-- more at a time than room_of() says: a full lane is passed by, so that a slow or dead receiver delays only itself.
-- An attempt that nobody answered for in time is due again.
-- Keys: due_lanes zset, due and flights zsets, failures hashes, delivery hashes. Reply: a list of {delivery, attempt}.

local claimed = {}
local lanes = call('ZRANGEBYSCORE', K.due_lanes(), '-inf', NOW, 'LIMIT', 0, A.limit)
local share = math.max(1, math.floor(A.limit / math.max(1, #lanes)))
for _, lane in ipairs(lanes) do
  for _, id in ipairs(call('ZRANGEBYSCORE', K.flights(lane), '-inf', NOW)) do
    call('ZREM', K.flights(lane), id)
    call('ZADD', K.due(lane), NOW, id)
  end
  local room = math.min(room_of(lane), share)
  if room > 0 then
    for _, id in ipairs(call('ZRANGEBYSCORE', K.due(lane), '-inf', NOW, 'LIMIT', 0, room)) do
      call('ZREM', K.due(lane), id)
      call('ZADD', K.flights(lane), NOW + A.flight_ms, id)
      claimed[#claimed + 1] = { id, call('HINCRBY', K.delivery(id), 'attempt', 1) }
    end
  end
  reckon(lane, true)
end
return claimed
