-- callback: take answered callbacks off the callback queue; those that somebody wants to hear of become deliveries, due
-- at once and not written yet: what they say is made with the first attempt, so that this takes no longer than it must,
-- or when half the time is over for which its subject is kept.
-- Keys: callbacks stream, job hashes, delivery hashes, deliveries, unwritten zsets, due and flights zsets, due_lanes zset.
-- Reply: {taken, posted}. Safe to repeat: an entry is taken once, and a webhook is posted by whoever takes it.

local taken, posted, lanes = 0, 0, {}
for _, given in ipairs(A.answered) do
  local mine = call('XDEL', K.callbacks(), given.entry)
  taken = taken + mine
  local new = given.delivery
  if mine == 1 and new and new ~= cjson.null then
    posted = posted + 1
    call('HSET', K.delivery(new.id), 'account', new.account, 'endpoint', new.endpoint, 'url', new.url,
      'lane', new.lane, 'type', new.type, 'subject', new.subject, 'at_ms', int(new.at_ms), 'status', 'pending',
      'attempt', 0, 'tries', 0, 'created_ms', NOW, 'next_ms', int(NOW + A.first_pause_ms))
    call('ZADD', K.deliveries(new.account), NOW, new.id)
    local half = math.floor((call('HGET', K.job(new.subject), 'result_ttl_ms') or A.result_ttl_ms) / 2)
    call('ZADD', K.unwritten(), int(new.at_ms + half), new.id)
    call('ZADD', K.due(new.lane), NOW + A.first_pause_ms, new.id)
    lanes[new.lane] = true
  end
end
for lane in pairs(lanes) do reckon(lane) end
return { taken, posted }
