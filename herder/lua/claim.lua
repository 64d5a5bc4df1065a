-- claim: attempts that are due, at most `limit`, shared out evenly among the lanes whose turn it is. Of one lane no more
-- at a time than room_of() says, of one account at one host no more than `host_max`, and of one account no more than
-- `account_max`: so a slow or dead receiver delays only itself, and an account full of them only that account.
-- What has no room is passed by, and waits behind the others. Up to `looked_max` lanes are looked at, which is cheap where
-- the host or the account is full: many of these hide nobody for long.
-- An attempt that nobody answered for in time is due again.
-- Keys: due_lanes zset, due, flights and flying zsets, failures hashes, delivery hashes.
-- Reply: a list of {delivery, attempt}.

-- How many attempts may still begin at a host or an account: read once, then counted down.
local left = {}
local function left_of(scope, most)
  if not left[scope] then
    call('ZREMRANGEBYSCORE', K.flying(scope), '-inf', NOW)
    left[scope] = most - call('ZCARD', K.flying(scope))
  end
  return left[scope]
end

local function take(host, account, count)
  left[host] = left[host] - count
  left[account] = left[account] - count
end

-- Whose turn it is, each with what is due there, and one place taken for it.
local ready, passed = {}, {}
for _, lane in ipairs(call('ZRANGEBYSCORE', K.due_lanes(), '-inf', NOW, 'LIMIT', 0, A.looked_max)) do
  local host, account = scopes_of(lane)
  if left_of(account, A.account_max) <= 0 or left_of(host, A.host_max) <= 0 then
    passed[#passed + 1] = AT
    passed[#passed + 1] = lane
  else
    for _, id in ipairs(call('ZRANGEBYSCORE', K.flights(lane), '-inf', NOW)) do
      land(lane, id)
      call('ZADD', K.due(lane), NOW, id)
    end
    local room = math.min(room_of(lane), A.limit)
    local due = room > 0 and call('ZRANGEBYSCORE', K.due(lane), '-inf', NOW, 'LIMIT', 0, room) or {}
    if #due > 0 then
      take(host, account, 1)
      ready[#ready + 1] = { lane = lane, due = due, host = host, account = account }
      if #ready == A.limit then break end
    else
      reckon(lane, true)
    end
  end
end
if #passed > 0 then call('ZADD', K.due_lanes(), unpack(passed)) end

local claimed, share = {}, math.floor(A.limit / math.max(1, #ready))
local until_ms = int(NOW + A.flight_ms)
for _, one in ipairs(ready) do
  local more = math.min(#one.due - 1, share - 1, left[one.host], left[one.account])
  take(one.host, one.account, more)
  local ids, under_way = { unpack(one.due, 1, 1 + more) }, {}
  for i, id in ipairs(ids) do
    claimed[#claimed + 1] = { id, call('HINCRBY', K.delivery(id), 'attempt', 1) }
    under_way[2 * i - 1], under_way[2 * i] = until_ms, id
  end
  call('ZREM', K.due(one.lane), unpack(ids))
  for _, key in ipairs({ K.flights(one.lane), K.flying(one.host), K.flying(one.account) }) do
    call('ZADD', key, unpack(under_way))
  end
  call('PEXPIRE', K.flying(one.host), A.flying_ttl_ms)
  call('PEXPIRE', K.flying(one.account), A.flying_ttl_ms)
  reckon(one.lane, true)
end
return claimed
