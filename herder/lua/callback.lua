-- callback: take answered callbacks off the callback queue; those that somebody wants to hear of become deliveries, due
-- at once. Keys: callbacks stream, delivery hashes, deliveries zsets, due and flights zsets, due_lanes zset.
-- Reply: {taken, posted}. Safe to repeat: an entry is taken once, and a webhook is posted by whoever takes it.

local taken, posted = 0, 0
for _, given in ipairs(A.answered) do
  local mine = call('XDEL', K.callbacks(), given.entry)
  taken = taken + mine
  local new = given.delivery
  if mine == 1 and new and new ~= cjson.null then
    posted = posted + 1
    call('HSET', K.delivery(new.id), 'account', new.account, 'endpoint', new.endpoint, 'url', new.url,
      'lane', new.lane, 'type', new.type, 'subject', new.subject, 'body', new.body, 'status', 'pending',
      'attempt', 0, 'tries', 0, 'created_ms', NOW, 'next_ms', int(NOW + A.first_pause_ms))
    call('ZADD', K.deliveries(new.account), NOW, new.id)
    call('ZADD', K.due(new.lane), NOW + A.first_pause_ms, new.id)
    reckon(new.lane)
  end
end
return { taken, posted }
