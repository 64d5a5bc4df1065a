-- held: why deliveries wait whose time has come, and of whose attempt nobody awaits the end. It changes nothing.
-- Keys: delivery hashes, flights zsets, failures hashes.
-- Reply: for each {word, at}. Words: endpoint_down (it is asked again `at`; where it is being asked now, that is when this
-- is given up) | busy (no place yet, for more than `soon_ms`) | '' (it does not wait, or not for that)

local function why(id)
  local delivery = call('HMGET', K.delivery(id), 'status', 'next_ms', 'lane')
  local next_ms, lane = tonumber(delivery[2] or nil), delivery[3]
  if delivery[1] ~= 'pending' or not next_ms or next_ms > NOW then return { '', 0 } end
  if tonumber(call('ZSCORE', K.flights(lane), id) or 0) > NOW then return { '', 0 } end
  local again = down_until(lane)
  if again then
    local asked = tonumber(call('ZRANGE', K.flights(lane), -1, -1, 'WITHSCORES')[2] or 0)
    local at = again > NOW and again or asked
    if at > NOW then return { 'endpoint_down', at } end
  end
  return { next_ms + A.soon_ms <= NOW and 'busy' or '', 0 }
end

local said = {}
for i, id in ipairs(A.deliveries) do said[i] = why(id) end
return said
