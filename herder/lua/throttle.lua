-- throttle: take one request from a rate limit (the generic cell rate algorithm; a minute's worth may come at once).
-- Keys: rate string. Reply: 0, or the milliseconds to wait; a refused request takes nothing.

local gap = 60000 / A.per_minute
local due = math.max(tonumber(call('GET', K.rate(A.subject)) or 0), NOW) + gap
local wait = due - 60000 - NOW
if wait > 0 then return math.ceil(wait) end
call('SET', K.rate(A.subject), string.format('%.3f', due), 'PX', math.ceil(due - NOW) + 1)
return 0
